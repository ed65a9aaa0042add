//! What `infer` can be asked about, and what it draws.

use crate::models::{Bench, bench};
use crate::{objects, run};
use assert_cmd::Command;
use onesheet::data::pixels;
use onesheet::device::Placement;
use onesheet::model::Posters;
use onesheet::pictures::heat;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const NAMES: [&str; 3] = ["poster 1.jpg", "poster 3.png", "poster 5.webp"];

/// A folder in the bench's with some of its posters, what is none, and a folder of another.
fn folder(bench: &Bench, name: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix(name).tempdir_in(&bench.folder).unwrap();
    fs::create_dir(folder.path().join("more")).unwrap();
    for name in &NAMES[..2] {
        fs::copy(bench.folder.join(name), folder.path().join(name)).unwrap();
    }
    fs::copy(bench.folder.join(NAMES[2]), folder.path().join("more").join(NAMES[2])).unwrap();
    fs::write(folder.path().join("notes.txt"), "no poster").unwrap();
    folder
}

#[test]
fn folders_patterns_runs_and_standard_input_are_what_is_typed_out() {
    let bench = bench();
    let folder = folder(bench, "asked");
    let path = folder.path().to_str().unwrap();
    let ask = |words: &[&str], lines: &str| -> (i32, Vec<Value>, String) {
        let mut command = Command::cargo_bin("onesheet").unwrap();
        command.current_dir(&bench.folder).args(["infer", "--device", "cpu", "--json"]).args(words);
        let output = command.write_stdin(lines).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), objects(&String::from_utf8(output.stdout).unwrap()), stderr)
    };
    let files: Vec<String> =
        [format!("{path}/more/{}", NAMES[2]), format!("{path}/{}", NAMES[0]), format!("{path}/{}", NAMES[1])].to_vec();
    let model = ["--model", "runs/two/checkpoints/best.safetensors"];
    let typed: Vec<&str> = model.into_iter().chain(files.iter().map(String::as_str)).collect();
    let (code, expected, _) = ask(&typed, "");
    assert_eq!((code, expected.len()), (0, 3));
    for model in ["two", "runs/two", "runs/two/checkpoints/best.safetensors"] {
        let (code, found, stderr) = ask(&["--model", model, path], "");
        assert_eq!((code, &found), (0, &expected), "{model}: {stderr}");
    }
    let lines = files.join("\n");
    assert_eq!(ask(&[model[0], model[1], "-"], &lines).1, expected);
    assert_eq!(ask(&[model[0], model[1], &format!("{path}/more/*.webp"), &format!("{path}/poster*")], "").1, expected);
    assert_eq!(ask(&[model[0], model[1], "-"], ""), (0, vec![], String::new()), "nothing is asked");

    let (code, found, stderr) = ask(&[model[0], model[1], "*.gif", &files[0], "-"], "absent.png\n");
    assert_eq!((code, &found[..]), (3, &expected[..1]));
    let told = "error: *.gif: nothing matches it\nerror: absent.png: No such file or directory (os error 2)\n\
        error: 2 of 3 posters could not be read\n";
    assert_eq!(stderr, told);
    // Neither a file nor a run.
    let (code, _, stderr) = ask(&["--model", "runs/none", path], "");
    assert!(code == 4 && stderr.contains("cannot open runs/none"), "{stderr}");
}

#[test]
fn pictures_are_of_the_genres_that_are_named_or_listed() {
    let bench = bench();
    let folder = folder(bench, "explained");
    let path = folder.path().to_str().unwrap();
    let mut best = bench.best();
    let squaring = crate::infer::squaring(&best.metadata);
    let infer = |more: &[&str]| {
        let words = ["infer", "--device", "cpu", "--model", "two", "--explain", "seen"];
        run(folder.path().parent().unwrap(), words.iter().chain(more).copied())
    };
    let seen = bench.folder.join("seen");
    let drawn = |name: &str| image::open(seen.join(name)).unwrap().into_rgb8();
    let (code, stdout, stderr) = infer(&["--json", path]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let mut files = BTreeSet::new();
    for line in objects(&stdout) {
        let poster = Path::new(line["poster"].as_str().unwrap());
        let whole = pixels::whole(&fs::read(bench.folder.join(poster)).unwrap(), &squaring).unwrap();
        let square = pixels::squared(&whole, &squaring);
        let format = best.metadata.config.pixels.format();
        let posters = Posters { pixels: &square, placements: &[Placement::default()], format: &format };
        for genre in line["genres"].as_array().unwrap() {
            assert_eq!(genre["named"].as_bool().unwrap(), genre.get("picture").is_some(), "{genre}");
            let Some(picture) = genre.get("picture") else { continue };
            let name = genre["genre"].as_str().unwrap();
            let place = best.metadata.genres.iter().position(|known| known == name).unwrap();
            let map = best.model.explain(posters, &[place]).unwrap().remove(0).remove(0);
            let caption = format!("{name} {:.4}", genre["probability"].as_f64().unwrap());
            let file = format!("{}.{name}.png", poster.file_stem().unwrap().to_str().unwrap().replace(' ', "-"));
            assert_eq!(picture, &Value::from(format!("seen/{file}")));
            assert!(drawn(&file) == heat::drawn(&whole, &map, &caption), "{file}");
            files.insert(file);
        }
    }
    assert!(files.len() >= 2, "{files:?}");
    let found = |folder: &Path| -> BTreeSet<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(found(&seen), files);

    // The most probable ones instead, named or not, and only they are listed.
    fs::remove_dir_all(&seen).unwrap();
    let (code, stdout, stderr) = infer(&["--top", "2", path]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("6 pictures of where it sees them are in seen\n"), "{stderr}");
    assert_eq!((found(&seen).len(), stdout.matches("  where it sees ").count()), (6, 6));
    assert_eq!(stdout.lines().count(), 3 * (1 + 2 + 2 + 1), "{stdout}");
    fs::remove_dir_all(&seen).unwrap();

    let (code, _, stderr) = infer(&["--thresholds", "1", path]);
    assert_eq!((code, found(&seen).len()), (0, 0));
    assert!(stderr.contains("no picture was drawn, since no genre was named"), "{stderr}");
    fs::remove_dir_all(&seen).unwrap();
    fs::write(&seen, "a file").unwrap();
    let (code, stdout, stderr) = infer(&[path]);
    assert!(
        code == 2 && stdout.is_empty() && stderr.contains("seen is a file: --explain takes the folder"),
        "{code}: {stderr}"
    );
    fs::remove_file(&seen).unwrap();
}
