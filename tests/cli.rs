//! The command as a user meets it: what it prints, where, and with which exit code it refuses what.

#[path = "cli/log_format.rs"]
mod log_format;
#[path = "support/runs.rs"]
mod runs;
#[path = "cli/shell.rs"]
mod shell;
#[path = "cli/told.rs"]
mod told;

use assert_cmd::Command;
use onesheet::data::synthetic;
use onesheet::training::config::RunConfig;
use onesheet::training::run_folder::RunFolder;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn onesheet() -> Command {
    Command::cargo_bin("onesheet").unwrap()
}

/// Runs the command and gives its exit code, stdout and stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Asserts that the command fails with `code`, says nothing on stdout, and mentions each of `words` on stderr.
fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let (found, stdout, stderr) = run(command);
    assert_eq!((found, stdout.as_str()), (code, ""), "{stderr}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is missing: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// 20 posters of 32×32 pixels, 16 of them to train on.
fn posters(folder: &Path) -> PathBuf {
    let path = folder.join("posters.safetensors");
    synthetic::write(&path, 20, 32, 1).unwrap();
    path
}

fn train(folder: &Path, data: &Path) -> Command {
    let mut command = onesheet();
    command.current_dir(folder).arg("train").arg("--data").arg(data);
    command.args(["--run", "run", "--batch", "4", "--epochs", "1"]);
    command
}

/// A run of two epochs that several tests look at, trained once: its folder, and what it printed.
///
/// Nothing drops a static, so the folder is Cargo's for tests, and the next test run empties it.
fn trained() -> &'static (PathBuf, String, String) {
    static RUN: OnceLock<(PathBuf, String, String)> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trained");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let data = posters(&folder);
        let args = ["--epochs", "2", "--momentum", "0.5", "--device", "cpu"];
        let (code, stdout, stderr) = run(train(&folder, &data).args(args));
        assert_eq!(code, 0, "{stderr}");
        (folder, stdout, stderr)
    })
}

fn in_trained() -> Command {
    let mut command = onesheet();
    command.current_dir(&trained().0);
    command
}

#[test]
fn help_opens_with_examples_and_ends_with_exit_codes() {
    let (code, help, _) = run(onesheet().arg("--help"));
    assert_eq!(code, 0);
    assert!(help.starts_with("Examples:\n  onesheet train "), "{help}");
    assert!(help.contains("6 diverged"), "{help}");
    for tool in shell::TOOLS {
        let (code, help, _) = run(onesheet().args([tool, "--help"]));
        assert!(code == 0 && help.starts_with("Examples:\n"), "{tool}: {help}");
        let examples = help.lines().skip(1).take_while(|line| line.contains(&format!("onesheet {tool}"))).count();
        assert!((2..=4).contains(&examples), "{tool}: {help}");
    }
}

#[test]
fn the_summary_counts_the_papers_parameters() {
    let (code, table, _) = run(onesheet().args(["train", "--summary", "--experiment", "resnet-tl"]));
    assert_eq!(code, 0);
    for line in [
        "conv1_conv           Conv2D                  75 x 75 x 64       9,472  frozen",
        "conv1_bn             BatchNormalization      75 x 75 x 64         256  frozen",
        "conv1_relu           Activation              75 x 75 x 64           0",
        "max_pool             GlobalMaxPooling2D              2048           0",
        "head_1024            Dense                           1024   2,098,176",
        "parameters     25,817,991",
        "trainable      18,062,087",
    ] {
        assert!(table.lines().any(|found| found == line), "`{line}` is missing: {table}");
    }
}

/// A name that is unknown is not taken for all of the processor.
#[test]
fn kernels_use_no_more_of_the_processor_than_the_environment_says() {
    let doctor = |processor| {
        let mut command = onesheet();
        command.args(["doctor", "--device", "cpu"]).env("ONESHEET_PROCESSOR", processor);
        command
    };
    let (code, told, _) = run(&mut doctor("portable"));
    let level = if cfg!(target_arch = "aarch64") { "NEON" } else { "portable" };
    assert!(code == 0 && told.contains(&format!(", {level}, f32)")), "{told}");
    refused(&mut doctor("pentium"), 5, &["ONESHEET_PROCESSOR=pentium is unknown", "portable"]);
}

/// The simulated GPU where the driver would be, as one that has nothing for us.
#[test]
fn auto_takes_the_processor_where_the_driver_has_no_device_or_is_too_old() {
    let folder = TempDir::new().unwrap();
    let simulator = std::env::current_exe().unwrap().with_file_name("libgpusim.so");
    symlink(simulator, folder.path().join("libcuda.so")).unwrap();
    let data = posters(folder.path());
    // The first attempt leaves nothing that the second, in the same folder, would stumble over.
    for (name, variable, value, why) in [
        ("none", "GPUSIM_GPU", "none", "CUDA_ERROR_NO_DEVICE"),
        ("old", "GPUSIM_PTX", "7.4", "which need version 520 or newer"),
    ] {
        let on = |device| {
            let mut command = train(folder.path(), &data);
            command.env("LD_LIBRARY_PATH", folder.path()).env(variable, value);
            run(command.args(["--run", name, "--max-steps", "1", "--device", device]))
        };
        for (device, code) in [("cuda", 5), ("auto", 0)] {
            let (found, _, stderr) = on(device);
            assert_eq!(found, code, "{stderr}");
            assert!(stderr.contains(why) && !stderr.contains("panicked"), "{stderr}");
        }
    }
}

#[test]
fn infer_names_genres_of_posters_of_any_size_and_of_all_formats() {
    let folder = TempDir::new().unwrap();
    let (pixels, _) = synthetic::draw(1, 0, 70);
    let poster = image::RgbImage::from_raw(70, 70, pixels).unwrap();
    let mut paths = Vec::new();
    for (name, width, height) in [("a.png", 70, 70), ("b.jpg", 91, 140), ("c.webp", 200, 33), ("d.png", 1, 1)] {
        let path = folder.path().join(name);
        image::imageops::thumbnail(&poster, width, height).save(&path).unwrap();
        paths.push(path);
    }
    let model = "runs/run/checkpoints/best.safetensors";
    let (code, text, stderr) = run(in_trained().args(["infer", "--model", model]).args(&paths));
    assert_eq!(code, 0, "{stderr}");
    for word in ["a.png", "b.jpg", "c.webp", "d.png", "Thriller"] {
        assert!(text.contains(word), "{text}");
    }

    // Cut off near its end, where a decoder alone would paint what is missing.
    let whole = fs::read(&paths[1]).unwrap();
    fs::write(folder.path().join("broken.jpg"), &whole[..whole.len() - 40]).unwrap();
    paths.insert(1, folder.path().join("broken.jpg"));
    let (code, lines, stderr) = run(in_trained().args(["infer", "--json", "--model", model]).args(&paths));
    assert_eq!(code, 3, "the readable ones are answered, and the exit code tells of the other");
    assert!(stderr.contains("broken.jpg: damaged: it is cut off"), "{stderr}");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    for line in lines {
        let genres = line["genres"].as_array().unwrap();
        let probabilities: Vec<f64> = genres.iter().map(|genre| genre["probability"].as_f64().unwrap()).collect();
        assert_eq!((genres.len(), &line["schema"]), (7, &1.into()));
        assert!(probabilities.is_sorted_by(|a, b| a >= b) && probabilities.iter().all(|p| (0.0..=1.0).contains(p)));
        assert!(genres.iter().all(|genre| genre["named"] == (genre["probability"].as_f64().unwrap() >= 0.3)));
    }
}

#[test]
fn a_tensor_file_cut_short_or_foreign_is_refused() {
    let folder = TempDir::new().unwrap();
    let data = posters(folder.path());
    let whole = fs::read(&data).unwrap();
    fs::write(&data, &whole[..whole.len() - 1]).unwrap();
    refused(&mut train(folder.path(), &data), 3, &["posters.safetensors", "bytes long", "prepare it again"]);
    fs::write(&data, b"neither").unwrap();
    refused(&mut train(folder.path(), &data), 3, &["posters.safetensors", "onesheet prepare"]);
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap();
    fs::write(&data, safetensors::serialize([("w", view)], None).unwrap()).unwrap();
    refused(&mut train(folder.path(), &data), 3, &["posters.safetensors", "not one of posters"]);
    assert!(!folder.path().join("runs").exists(), "nothing is made for a run that cannot begin");
    refused(&mut train(folder.path(), Path::new("absent.safetensors")), 1, &["absent.safetensors", "No such file"]);
}

#[test]
fn a_run_that_cannot_be_what_it_is_asked_is_refused() {
    let folder = TempDir::new().unwrap();
    let data = posters(folder.path());
    refused(train(folder.path(), &data).args(["--batch", "17"]), 2, &["batch of 17", "16 images"]);
    refused(train(folder.path(), &data).args(["--batch", "0"]), 2, &["batch of 0"]);
    refused(train(folder.path(), &data).args(["--image-size", "64"]), 2, &["32×32", "prepare --image-size 64"]);
    refused(onesheet().args(["train", "--experiment", "resnet-r"]), 2, &["--data", "prepare"]);
    for experiment in ["resnet-img", "resnet-tl"] {
        refused(
            train(folder.path(), &data).args(["--experiment", experiment]),
            2,
            &["--weights FILE", experiment, "notop.h5"],
        );
    }
    refused(train(folder.path(), &data).args(["--weights", "absent.h5"]), 4, &["absent.h5"]);
    assert!(!folder.path().join("runs").exists(), "nothing is left that a second attempt would stumble over");
    for (flag, value) in [
        ("--lr", "0"),
        ("--warmup-epochs", "nan"),
        ("--zero-init-residual", "perhaps"),
        ("--momentum", "1"),
        ("--trainable", "last:-1"),
        ("--network", "resnet18"),
        ("--pooling", "min"),
    ] {
        let refusal = format!("invalid value '{value}' for '{flag} <");
        refused(train(folder.path(), &data).args([flag, value]), 2, &[&refusal]);
    }
    let too_many = &["error: trainable is last:177; it must be all, or last:N with N up to 176"];
    refused(train(folder.path(), &data).args(["--trainable", "last:177"]), 2, too_many);
    let (code, _, stderr) = run(onesheet().args(["train", "--resume", "x", "--batch", "3"]));
    assert!(code == 2 && stderr.contains("cannot be used with"), "{stderr}");
}

#[test]
fn a_run_folder_that_cannot_be_used_is_refused() {
    let folder = TempDir::new().unwrap();
    let data = posters(folder.path());
    fs::write(folder.path().join("runs"), "a file where the folder should be").unwrap();
    refused(&mut train(folder.path(), &data), 1, &["cannot write", "--run"]);
    fs::remove_file(folder.path().join("runs")).unwrap();

    let held = RunFolder::create(&folder.path().join("runs/run"), &RunConfig::default()).unwrap();
    let holder = format!("process {}", std::process::id());
    refused(&mut train(folder.path(), &data), 1, &["in use by", &holder]);
    drop(held);
    refused(
        onesheet().current_dir(&folder).args(["train", "--resume", "other"]),
        1,
        &["runs/other holds no run: there is no "],
    );
    refused(onesheet().current_dir(&folder).args(["evaluate", "--run", "run"]), 4, &["runs/run", "no trained run"]);
}

#[test]
fn checkpoints_that_are_foreign_damaged_or_of_another_shape_are_refused() {
    let folder = TempDir::new().unwrap();
    let data = posters(folder.path());
    let infer = |model: &Path| {
        let mut command = onesheet();
        command.args(["infer", "poster.jpg", "--model"]).arg(model);
        command
    };
    refused(&mut infer(&data), 4, &["not a checkpoint of onesheet"]);
    refused(&mut infer(Path::new("absent.safetensors")), 4, &["absent.safetensors"]);

    let good = trained().0.join("runs/run/checkpoints/best.safetensors");
    let mut bytes = fs::read(&good).unwrap();
    let model = folder.path().join("model.safetensors");
    // Among the weights: the optimiser's two thirds of the file are not read.
    let place = bytes.len() / 4;
    bytes[place] ^= 1;
    fs::write(&model, &bytes).unwrap();
    refused(&mut infer(&model), 4, &["model.safetensors is damaged", "digest"]);
    fs::write(&model, &bytes[..place]).unwrap();
    refused(&mut infer(&model), 4, &["model.safetensors is cut short"]);

    // Six genres where the network before had seven.
    use onesheet::training::checkpoint::{Checkpoint, CheckpointError, write};
    let checkpoint = Checkpoint::open(&good).unwrap();
    let mut metadata = checkpoint.metadata().clone();
    metadata.genres.pop();
    metadata.thresholds.pop();
    metadata.tuned = None;
    let values = |name: &str| checkpoint.values(name);
    write(&onesheet::files::Disk, &model, &metadata, checkpoint.tensors(), values)
        .unwrap_or_else(|error: CheckpointError| panic!("{error}"));
    refused(&mut infer(&model), 4, &["genres/kernel", "[7, 128]", "[6, 128]"]);
}

#[test]
fn a_run_that_diverges_says_so() {
    let folder = TempDir::new().unwrap();
    let data = posters(folder.path());
    let (code, _, stderr) = run(train(folder.path(), &data).args(["--lr", "1e38"]));
    assert_eq!(code, 6, "{stderr}");
    assert!(stderr.contains("the loss of step 2") && stderr.contains("--lr"), "{stderr}");
}

#[test]
fn a_batch_that_nobody_chose_is_what_fits_and_stays_the_runs() {
    let folder = TempDir::new().unwrap();
    let data = posters(folder.path());
    let small = ["--network", "shallow", "--batch", "auto", "--max-steps", "1"];
    let (code, _, stderr) = run(train(folder.path(), &data).args(small));
    assert_eq!(code, 0, "{stderr}");
    // Of 20 posters 16 are to train on.
    assert!(stderr.contains("--batch auto: 16 posters a step take "), "{stderr}");
    assert!(stderr.contains("1 epochs of 1 steps of 16 posters"), "{stderr}");
    let settings = fs::read_to_string(folder.path().join("runs/run/config.toml")).unwrap();
    assert!(settings.contains("\nbatch = 16\n"), "{settings}");
    let rates = ["train", "--find-lr", "--network", "shallow", "--batch", "auto", "--data", "posters.safetensors"];
    let (code, _, stderr) = run(onesheet().current_dir(&folder).args(rates));
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("--batch auto: 16 posters a step take "), "{stderr}");
    refused(train(folder.path(), &data).args(["--batch", "many"]), 2, &["a batch is a number of posters, or auto"]);
}

#[test]
fn a_step_limit_stops_and_resume_goes_on() {
    let folder = TempDir::new().unwrap();
    let data = posters(folder.path());
    let (code, _, stderr) = run(train(folder.path(), &data).args(["--max-steps", "1"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("onesheet train --resume runs/run"), "{stderr}");
    refused(
        onesheet().current_dir(&folder).args(["evaluate", "--run", "run"]),
        4,
        &["has not ended an epoch", "--checkpoint last"],
    );
    let (code, stdout, stderr) = run(onesheet().current_dir(&folder).args(["train", "--resume", "run"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("\ngoing on after step 1 of epoch 1, 1 in all\n\n"), "{stderr}");
    assert!(stdout.lines().nth(1).is_some_and(|row| row.starts_with("  1/1  ")), "{stdout}");
}

#[test]
fn a_profile_names_the_layers_and_ends_the_run_as_a_step_limit_does() {
    let folder = TempDir::new().unwrap();
    let data = posters(folder.path());
    let short = train(folder.path(), &data).args(["--max-steps", "2", "--profile"]).output().unwrap();
    let stderr = String::from_utf8(short.stderr).unwrap();
    assert_eq!(short.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("no step was measured") && stderr.contains("after step 2, everything saved"), "{stderr}");

    // It goes on behind the end of the first epoch, which has four steps.
    let resume = ["train", "--resume", "run", "--epochs", "3"];
    let (code, stdout, stderr) = run(onesheet().current_dir(&folder).args(resume).arg("--profile=2"));
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("after step 7, everything saved") && stderr.contains("runs/run/profile.csv"), "{stderr}");
    for part in ["a training step at batch 4 on CPU", "each measured 2 times", "conv_backward_weights", "\npass "] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    let path = folder.path().join("runs/run/profile.csv");
    let rows: Vec<csv::StringRecord> =
        csv::Reader::from_path(&path).unwrap().into_records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 320, "the launches of a step");
    assert!(
        rows.iter().any(|row| [&row[3], &row[4], &row[5]] == ["conv3_block1_0_bn", "forward", "batch_norm_finalise"])
    );

    let (code, stdout, stderr) = run(onesheet().current_dir(&folder).args(resume).args(["--profile=1", "--json"]));
    assert_eq!(code, 0, "{stderr}");
    let objects: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let launches: Vec<_> = objects.iter().filter(|object| object["kind"] == "launch").collect();
    assert_eq!(launches.len(), 320);
    assert_eq!(launches[318]["row"]["layer"], "adam");
    assert_eq!(launches[319]["row"]["kernel"], "restore");
}

/// Waits until the child's log has `rows` rows.
fn wait_for_steps(child: &mut Child, log: &Path, rows: usize) {
    let began = Instant::now();
    while fs::read_to_string(log).map_or(0, |text| text.lines().count()) <= rows {
        assert!(began.elapsed() < Duration::from_secs(120), "no step in two minutes");
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_and_term_save_before_they_end_the_run() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let folder = TempDir::new().unwrap();
        let data = posters(folder.path());
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("onesheet"))
            .current_dir(&folder)
            .args(["train", "--run", "run", "--batch", "4", "--epochs", "1000", "--data"])
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_steps(&mut child, &folder.path().join("runs/run/steps.csv"), 1);
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{signal}: {stderr}");
        assert!(stderr.contains("everything saved") && stderr.contains("--resume runs/run"), "{stderr}");

        let last = onesheet::training::run_folder::last_checkpoint(&folder.path().join("runs/run"));
        let saved = onesheet::training::checkpoint::Checkpoint::open(&last).unwrap().metadata().progress.total_steps;
        let rows = fs::read_to_string(folder.path().join("runs/run/steps.csv")).unwrap().lines().count() as u64 - 1;
        assert_eq!(saved, rows, "{signal}: the checkpoint stands where the log ends");
    }
}
