//! Models and weights as a user gives them to the command: what `infer`, `evaluate` and `train --weights` make of good ones,
//! of bad ones, and of what is no file at all.

use assert_cmd::Command;
use onesheet::data::synthetic;
use onesheet::device::cpu::Cpu;
use onesheet::files::Disk;
use onesheet::training::checkpoint::{Checkpoint, CheckpointError, Metadata, Progress, write};
use onesheet::training::config::RunConfig;
use onesheet::training::learner::{Keep, Learner};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// Runs the command, for a minute at most, and gives its exit code, stdout and stderr.
fn run<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> (i32, String, String) {
    let mut command = Command::cargo_bin("onesheet").unwrap();
    let output = command.current_dir(folder).args(args).timeout(Duration::from_secs(60)).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("it ends by itself"), text(output.stdout), text(output.stderr))
}

fn settings() -> Metadata {
    Metadata {
        genres: synthetic::GENRES.map(String::from).to_vec(),
        thresholds: vec![0.3; 7],
        resize: "area".into(),
        exif: "apply".into(),
        alpha: "drop".into(),
        data_digest: String::new(),
        tuned: None,
        progress: Progress::default(),
        config: RunConfig { image_size: 32, ..RunConfig::default() },
    }
}

/// A full network with initial weights, made once: nothing drops a static, so it lies in Cargo's folder for tests.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli_models");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("model.safetensors");
        let metadata = settings();
        let config = metadata.config.model(7);
        Learner::new(Rc::new(Cpu::new()), config, 1).unwrap().save(&path, &metadata, Keep::Weights).unwrap();
        path
    })
}

/// A poster under this name.
fn poster(folder: &Path, name: &OsStr) -> PathBuf {
    let (pixels, _) = synthetic::draw(1, 0, 40);
    let drawn = folder.join("drawn.png");
    image::RgbImage::from_raw(40, 40, pixels).unwrap().save(&drawn).unwrap();
    let path = folder.join(name);
    fs::rename(drawn, &path).unwrap();
    path
}

fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn json_says_what_computed_and_keeps_names_that_are_no_utf8() {
    let folder = TempDir::new().unwrap();
    let name = OsStr::from_bytes(b"caf\xe9\x1b.png");
    let path = poster(folder.path(), name);
    let args = [OsStr::new("infer"), OsStr::new("--json"), OsStr::new("--device"), OsStr::new("cpu")];
    let rest = [OsStr::new("--model"), model().as_os_str(), path.as_os_str()];
    let (code, stdout, stderr) = run(folder.path(), args.into_iter().chain(rest));
    assert_eq!(code, 0, "{stderr}");
    let lines = objects(&stdout);
    assert_eq!((lines.len(), &lines[0]["kind"]), (1, &"poster".into()));
    let device = lines[0]["device"].as_str().unwrap();
    assert!(device.starts_with("CPU") && device.ends_with("; --device cpu"), "{device}");
    let bytes: Vec<u8> = serde_json::from_value(lines[0]["poster_bytes"].clone()).unwrap();
    assert_eq!(bytes, path.as_os_str().as_bytes());
    assert!(lines[0]["poster"].as_str().unwrap().ends_with("caf\u{fffd}\u{1b}.png"), "{}", lines[0]);
}

#[test]
fn auto_says_in_json_why_it_fell_back_on_the_processor() {
    let folder = TempDir::new().unwrap();
    let path = poster(folder.path(), OsStr::new("a.png"));
    // The simulated GPU where the driver would be, as one that has no device.
    let simulator = std::env::current_exe().unwrap().with_file_name("libgpusim.so");
    std::os::unix::fs::symlink(simulator, folder.path().join("libcuda.so")).unwrap();
    let mut command = Command::cargo_bin("onesheet").unwrap();
    command.env("LD_LIBRARY_PATH", folder.path()).env("GPUSIM_GPU", "none");
    let output = command.args(["infer", "--json", "--model"]).arg(model()).arg(&path).output().unwrap();
    let lines = objects(&String::from_utf8(output.stdout).unwrap());
    assert!(lines[0]["device"].as_str().is_some_and(|device| device.contains("CUDA_ERROR_NO_DEVICE")), "{}", lines[0]);
}

#[test]
fn what_is_no_checkpoint_is_a_sentence_and_never_waited_for() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("folder")).unwrap();
    for name in ["b", "a"] {
        fs::create_dir_all(path(&format!("some runs/{name}/checkpoints"))).unwrap();
        fs::write(path(&format!("some runs/{name}/checkpoints/best.safetensors")), "").unwrap();
    }
    rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    fs::write(path("my model.pth"), b"PK\x03\x04\x00\x00\x08\x08\x00\x00archive/data.pkl\x80\x02}q\x00.").unwrap();
    for (name, words) in [
        ("absent", "cannot open absent: No such file"),
        ("folder", "folder is not the folder of a run: cannot open folder: it is a folder, not a file"),
        (
            "some runs",
            "some runs is not the folder of a run; in it are those of 'some runs/a', 'some runs/b': cannot open",
        ),
        ("pipe", "cannot open pipe: it is a pipe or a device, not a file"),
        ("my model.pth", "'my model.pth' 'my model.safetensors'"),
    ] {
        let (code, stdout, stderr) = run(folder.path(), ["infer", "--device", "cpu", "poster.jpg", "--model", name]);
        assert_eq!((code, stdout.as_str()), (4, ""), "{name}: {stderr}");
        assert!(stderr.contains(words) && stderr.matches("No such file").count() <= 1, "{name}: {stderr}");
    }
    for (name, words) in [
        ("absent", "cannot read absent: No such file"),
        ("folder", "it is a folder, not a file"),
        ("pipe", "it is a pipe or a device, not a file"),
        ("my model.pth", "'my model.pth' 'my model.safetensors'"),
    ] {
        let (code, _, stderr) = run(folder.path(), ["train", "--weights", name]);
        // The run remembers the whole path, so that it can be repeated from anywhere.
        let words = words.replace("absent", &path("absent").display().to_string());
        let words = words.replace("'my", &format!("'{}/my", folder.path().display()));
        assert_eq!(code, 4, "{stderr}");
        assert!(stderr.contains(&words), "{words} is not in {stderr}");
    }
    let (code, _, stderr) = run(folder.path(), ["evaluate", "--device", "cpu", "--run", "absent"]);
    assert!(code == 4 && stderr.contains("runs/absent holds no trained run"), "{stderr}");
    fs::create_dir_all(path("runs/damaged/checkpoints")).unwrap();
    fs::write(path("runs/damaged/checkpoints/best.safetensors"), "neither").unwrap();
    let (code, _, stderr) = run(folder.path(), ["evaluate", "--device", "cpu", "--run", "damaged"]);
    assert!(code == 4 && stderr.contains("is no checkpoint") && !stderr.contains("no trained run"), "{stderr}");
}

/// The model with other settings, under digests that are right.
fn crafted(path: &Path, change: impl FnOnce(&mut Metadata)) {
    let checkpoint = Checkpoint::open(model()).unwrap();
    let mut metadata = settings();
    change(&mut metadata);
    write(&Disk, path, &metadata, checkpoint.tensors(), |name| checkpoint.values(name))
        .unwrap_or_else(|error: CheckpointError| panic!("{error}"));
}

#[test]
fn a_crafted_checkpoint_is_refused_before_it_takes_memory() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("crafted.safetensors");
    for image_size in [4_000_000_000, 30_000] {
        crafted(&path, |metadata| metadata.config.image_size = image_size);
        let (code, _, stderr) =
            run(folder.path(), ["infer", "--device", "cpu", "a.png", "--model", "crafted.safetensors"]);
        assert!(code == 4 && stderr.contains(&format!("image_size is {image_size}")), "{stderr}");
    }
}

#[test]
fn a_run_starts_from_a_checkpoint_of_other_genres_with_a_new_head() {
    let folder = TempDir::new().unwrap();
    crafted(&folder.path().join("other.safetensors"), |metadata| metadata.genres[0] = "Western".into());
    let posters = folder.path().join("posters.safetensors");
    synthetic::write(&posters, 20, 32, 1).unwrap();
    let args = "train --data posters.safetensors --batch 4 --run run --max-steps 0 --device cpu --seed 9 --weights";
    let (code, _, stderr) = run(folder.path(), args.split(' ').chain(["other.safetensors"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("note: these weights name other genres (Western, Comedy,"), "{stderr}");
    let begun = Checkpoint::open(&folder.path().join("runs/run/checkpoints/last.safetensors")).unwrap();
    let source = Checkpoint::open(model()).unwrap();
    for (tensor, is_taken) in [("conv1_conv/kernel", true), ("conv5_block3_3_bn/gamma", true), ("genres/kernel", false)]
    {
        assert_eq!(begun.values(tensor).unwrap() == source.values(tensor).unwrap(), is_taken, "{tensor}");
    }

    let mut bytes = fs::read(folder.path().join("other.safetensors")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(folder.path().join("other.safetensors"), bytes).unwrap();
    let (code, _, stderr) =
        run(folder.path(), args.replace("--run run", "--run second").split(' ').chain(["other.safetensors"]));
    assert!(code == 4 && stderr.contains("is damaged"), "{stderr}");
    assert!(!folder.path().join("runs/second").exists(), "nothing is made for a run that cannot begin");
}

/// Two genres that no poster has: their average precision is not there, and their number is.
#[test]
fn evaluate_leaves_genres_without_positives_out_of_map_and_says_how_many() {
    let folder = TempDir::new().unwrap();
    let names = ["Action", "Comedy", "Drama", "Romance", "Nobody", "Nothing"].map(String::from).to_vec();
    let checkpoints = folder.path().join("runs/run/checkpoints");
    fs::create_dir_all(&checkpoints).unwrap();
    let mut metadata = settings();
    (metadata.genres, metadata.thresholds) = (names.clone(), vec![0.3; 6]);
    let config = metadata.config.model(6);
    let learner = Learner::new(Rc::new(Cpu::new()), config, 1).unwrap();
    learner.save(&checkpoints.join("best.safetensors"), &metadata, Keep::Weights).unwrap();
    posters_without(&folder.path().join("posters.safetensors"), names);
    let args = ["evaluate", "--run", "run", "--data", "posters.safetensors", "--split", "all", "--device", "cpu"];
    let (code, table, stderr) = run(folder.path(), args);
    assert_eq!(code, 0, "{stderr}");
    assert!(table.contains("; 2 genres have no positives and are left out"), "{table}");
    let nobody = table.lines().find(|line| line.starts_with("Nobody")).unwrap();
    assert_eq!(nobody.matches('–').count(), 2, "average precision and ROC-AUC: {nobody}");

    let (code, lines, stderr) = run(folder.path(), args.into_iter().chain(["--json"]));
    assert_eq!(code, 0, "{stderr}");
    let lines = objects(&lines);
    let precisions: Vec<Option<f64>> = lines[..6].iter().map(|line| line["average_precision"].as_f64()).collect();
    assert_eq!((precisions[4], precisions[5]), (None, None));
    let mean = precisions[..4].iter().map(|precision| precision.unwrap()).sum::<f64>() / 4.0;
    let all = lines.last().unwrap();
    assert!((all["map"].as_f64().unwrap() - mean).abs() <= 1e-12, "{all}: {mean}");
    assert_eq!(all["genres_without_positives"], 2);
    assert!(all["device"].as_str().is_some_and(|device| device.ends_with("; --device cpu")), "{all}");
}

/// Eight posters, two of each of the first four genres.
fn posters_without(path: &Path, genres: Vec<String>) {
    use onesheet::data::Split;
    use onesheet::data::tensor_file::{Description, TensorFileWriter};
    let count = genres.len();
    let description = Description { size: 32, genres, capacity: 8, provenance: Default::default() };
    let mut writer = TensorFileWriter::create(path, description).unwrap();
    for number in 0..8 {
        let (pixels, _) = synthetic::draw(1, number, 32);
        let labels: Vec<u8> = (0..count).map(|genre| u8::from(genre == number as usize % 4)).collect();
        writer.push(&number.to_string(), &pixels, &labels, Split::Test).unwrap();
    }
    writer.finish().unwrap();
}
