//! What `prepare` writes and what it does not write over; which posters it takes, and what it says of the others.

use std::fs;
use std::path::Path;

use onesheet::data::tensor_file::TensorFile;

use crate::{Bench, names};

/// Where not one poster can be used, the reasons are all that the run has to give.
#[test]
fn no_usable_poster_leaves_the_reasons() {
    let bench = Bench::new("Id,Genre\n1,Drama\n2,War\n3,Drama\n");
    fs::write(bench.path("posters/1.gif"), "GIF89a").unwrap();
    let arguments = "--posters posters --genres Drama --out out.safetensors";
    let (code, stdout, stderr) = bench.run(arguments);
    assert_eq!((code, &*stdout), (3, ""), "{stderr}");
    assert!(stderr.contains("3 rows were skipped, listed with their reasons in out.skipped.csv"), "{stderr}");
    let list = || fs::read_to_string(bench.path("out.skipped.csv")).unwrap();
    let gif = "2,tt0000001,no poster,\"posters/1.gif is not read: only .jpg, .jpeg, .png, .webp are\"\n";
    assert_eq!(list(), format!("line,id,reason,detail\n{gif}3,tt0000002,no poster,\n4,tt0000003,no poster,\n"));

    fs::write(bench.path("posters/2.jpg"), "GIF89a").unwrap();
    let (code, _, stderr) = bench.run(arguments);
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("not one of the 1 posters in posters can be used; the first: posters/2.jpg"), "{stderr}");
    assert!(list().contains("3,tt0000002,bad poster,posters/2.jpg: a GIF image; convert it to PNG\n"), "{}", list());
    assert_eq!(names(bench.folder.path()), ["labels.csv", "out.skipped.csv", "posters"]);
}

/// Nothing that was there is lost, by whatever path or link `--out` leads to it.
#[cfg(unix)]
#[test]
fn what_is_in_the_way_is_not_written_over() {
    use std::os::unix::fs::symlink;
    let bench = Bench::new("Id,Genre\n1,Drama\n2,War\n");
    bench.poster("1.png", [1, 2, 3]);
    bench.poster("2.png", [4, 5, 6]);
    fs::create_dir(bench.path("run")).unwrap();
    fs::write(bench.path("run/lock"), "4711\n").unwrap();
    fs::write(bench.path("list.skipped.csv"), "Id,Genre\n").unwrap();
    fs::hard_link(bench.path("labels.csv"), bench.path("hard.safetensors")).unwrap();
    symlink("labels.csv", bench.path("soft.safetensors")).unwrap();
    symlink("labels.csv", bench.path("through.safetensors.partial")).unwrap();
    fs::hard_link(bench.path("labels.csv"), bench.path("along.skipped.csv.partial")).unwrap();
    fs::write(bench.path("mine.safetensors.partial"), "mine, and no leftover").unwrap();
    fs::write(bench.path("zeros"), [0; 9]).unwrap();
    fs::hard_link(bench.path("zeros"), bench.path("two_names.safetensors.partial")).unwrap();
    symlink("posters/1.png", bench.path("poster.safetensors")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(bench.path("pipe")).status().unwrap().success());
    let before = names(bench.folder.path());
    let content = || {
        ["labels.csv", "run/lock", "posters/1.png", "list.skipped.csv", "zeros"].map(|name| fs::read(bench.path(name)))
    };
    let untouched = content().map(Result::unwrap);
    for (out, why) in [
        ("labels.csv", "will not write labels.csv: it is the label table"),
        ("./posters/../labels.csv", "it is the label table"),
        ("hard.safetensors", "it is the label table"),
        ("soft.safetensors", "it is the label table"),
        ("through.safetensors", "through.safetensors.partial is in use for something else"),
        ("along.safetensors", "along.skipped.csv.partial is in use for something else"),
        ("mine.safetensors", "mine.safetensors.partial is in use for something else"),
        ("two_names.safetensors", "two_names.safetensors.partial is in use for something else"),
        ("posters/1.png", "there is another file, which `prepare` did not write"),
        ("poster.safetensors", "there is another file, which `prepare` did not write"),
        ("list.safetensors", "will not write list.skipped.csv: there is another file"),
        ("run/lock", "there is another file, which `prepare` did not write"),
        ("posters", "it is a folder; name a file in it"),
        ("posters/", "it is a folder"),
        ("pipe", "it is a pipe or a device; name a file"),
        ("/dev/null", "it is a pipe or a device"),
    ] {
        let (code, stdout, stderr) = bench.run(&format!("--posters posters --genres Drama --out {out}"));
        assert_eq!((code, &*stdout), (2, ""), "{out}: {stderr}");
        assert!(stderr.contains(why), "{out}: {stderr}");
        assert_eq!(names(bench.folder.path()), before, "{out}");
        assert!(content().map(Result::unwrap) == untouched, "{out}");
    }

    // What a run before left is written over, finished or not, and two files in one folder have a list each.
    fs::write(bench.path("a.safetensors.partial"), [0; 9]).unwrap();
    fs::write(bench.path("b.skipped.csv.partial"), "line,id").unwrap();
    for out in ["a.safetensors", "b.safetensors", "a.safetensors"] {
        let (code, _, stderr) = bench.run(&format!("--posters posters --genres Drama --out {out}"));
        assert_eq!(code, 0, "{stderr}");
    }
    fs::write(bench.path("empty"), "").unwrap();
    let (code, _, stderr) = bench.run("--posters posters --genres Drama --out empty");
    assert_eq!(code, 0, "{stderr}");
    for name in ["a.skipped.csv", "b.skipped.csv", "empty.skipped.csv"] {
        assert!(bench.path(name).is_file(), "{name}");
    }
}

#[test]
fn a_broken_poster_beside_a_good_one_is_a_note() {
    let bench = Bench::new("Id,Genre\n1,Drama\n2,War\n3,War\n4,War\n");
    fs::write(bench.path("posters/1.jpg"), "no poster").unwrap();
    bench.poster("1.png", [1, 2, 3]);
    // The same picture for three films, one of which has another.
    for name in ["2.jpg", "3.png", "4.png"] {
        fs::copy(bench.path("posters/1.png"), bench.path("posters").join(name)).unwrap();
    }
    fs::remove_file(bench.path("posters/1.png")).unwrap();
    bench.poster("1.png", [7, 8, 9]);
    bench.poster("2.png", [4, 5, 6]);
    let (code, _, stderr) = bench.run("--posters posters --genres Drama --image-size 8");
    assert_eq!(code, 0, "{stderr}");
    let file = TensorFile::open(&bench.path("posters.safetensors")).unwrap();
    assert_eq!(file.ids(), ["tt0000001", "tt0000002"]);
    assert_eq!([file.image_checked(0).unwrap()[0], file.image_checked(1).unwrap()[0]], [7, 4]);
    for note in [
        "note: posters/1.jpg: not a JPEG, PNG or WebP image; used is posters/1.png\n",
        "note: posters/2.jpg: the same image as 2 other films; used is posters/2.png\n",
    ] {
        assert!(stderr.contains(note), "{stderr}");
    }
}

#[test]
fn the_choices_are_recorded_and_obeyed() {
    let bench = Bench::new("Id,Genre\n1,Drama\n2,War\n");
    image::RgbaImage::from_pixel(20, 30, image::Rgba([9, 9, 9, 0])).save(bench.path("posters/1.png")).unwrap();
    let turned = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posters/turned.png");
    fs::copy(turned, bench.path("posters/2.png")).unwrap();
    for (arguments, names, clear, corner) in [
        ("", ["area", "apply", "drop"], 9, [0, 0, 200]),
        ("--resize nearest --exif ignore --alpha white", ["nearest", "ignore", "white"], 255, [200, 0, 0]),
    ] {
        let (code, _, stderr) = bench.run(&format!("--posters posters --genres Drama --image-size 8 {arguments}"));
        assert_eq!(code, 0, "{stderr}");
        let file = TensorFile::open(&bench.path("posters.safetensors")).unwrap();
        assert_eq!(["resize", "exif", "alpha"].map(|key| file.provenance()[key].as_str()), names);
        assert_eq!(file.image_checked(0).unwrap()[0], clear);
        assert_eq!(file.image_checked(1).unwrap()[..3], corner);
    }
    let (code, _, stderr) = bench.run("--posters posters --alpha black");
    assert_eq!(code, 2);
    assert!(stderr.contains("`black` is neither drop nor white"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_followed_when_asked() {
    let bench = Bench::new("Id,Genre\n1,Drama\n2,War\n");
    bench.poster("2.png", [4, 5, 6]);
    bench.poster("1.png", [1, 2, 3]);
    fs::rename(bench.path("posters/1.png"), bench.path("elsewhere.png")).unwrap();
    std::os::unix::fs::symlink("../elsewhere.png", bench.path("posters/1.png")).unwrap();
    for (option, films) in [("", 1), ("--follow-links", 2)] {
        let (code, _, stderr) = bench.run(&format!("--posters posters --genres Drama {option}"));
        let out = bench.path("posters.safetensors");
        assert_eq!((code, TensorFile::open(&out).unwrap().len()), (0, films), "{stderr}");
        let list = fs::read_to_string(bench.path("posters.skipped.csv")).unwrap();
        assert_eq!(list.contains("posters/1.png is not read: it is a link out of the folder"), films == 1, "{list}");
    }
}

/// Run by root the program can read everything, so it is then run as nobody.
#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_read_is_a_note() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let bench = Bench::new("Id,Genre\n1,Drama\n2,War\n");
    bench.poster("1.png", [1, 2, 3]);
    bench.poster("2.png", [4, 5, 6]);
    let closed = bench.path("posters/closed");
    fs::create_dir(&closed).unwrap();
    let rights = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    rights(bench.folder.path(), 0o777);
    rights(&closed, 0o000);
    let program = bench.path("program");
    fs::copy(assert_cmd::cargo::cargo_bin("onesheet"), &program).unwrap();
    let mut command = std::process::Command::new(&program);
    command.current_dir(bench.folder.path());
    if fs::metadata(bench.folder.path()).unwrap().uid() == 0 {
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
    }
    let arguments = "prepare --labels labels.csv --posters posters --genres Drama --image-size 8 --out out.safetensors";
    let output = command.args(arguments.split(' ')).output().unwrap();
    rights(&closed, 0o700);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("note: not looked into, Permission denied"), "{stderr}");
    assert!(stderr.contains(": posters/closed\n"), "{stderr}");
}
