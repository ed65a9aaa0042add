//! What is drawn where somebody watches: bars on a terminal, and neither them nor colours anywhere else.
#![cfg(unix)]

use assert_cmd::cargo::cargo_bin;
use onesheet::data::synthetic;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

fn onesheet(folder: &Path, words: &str) -> Command {
    let mut command = Command::new(cargo_bin("onesheet"));
    command.current_dir(folder).args(words.split_whitespace());
    command
}

/// What the command writes to stderr where that is a terminal.
fn on_a_terminal(folder: &Path, words: &str) -> String {
    shown_by(onesheet(folder, words), 0)
}

/// The same of any command that ends with this exit code.
fn shown_by(mut command: Command, code: i32) -> String {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap();
    let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    // The command goes at the end of the line, so that the terminal is closed with the child, its last holder.
    let mut child = command.stdout(Stdio::null()).stderr(terminal).spawn().unwrap();
    // What the command holds of the terminal goes with it.
    drop(command);
    let (mut screen, mut shown, mut some) = (File::from(screen), Vec::new(), [0; 4096]);
    // At the end Linux gives an error.
    while let Ok(length @ 1..) = screen.read(&mut some) {
        shown.extend_from_slice(&some[..length]);
    }
    assert_eq!(child.wait().unwrap().code(), Some(code));
    String::from_utf8(shown).unwrap()
}

/// Asserts that the command writes each of `drawn` to a terminal only, and each of `lines` elsewhere only.
#[track_caller]
fn differ(folder: &Path, words: &str, drawn: &[&str], lines: &[&str]) {
    let shown = on_a_terminal(folder, words);
    let plain = onesheet(folder, words).output().unwrap();
    assert_eq!(plain.status.code(), Some(0), "{words}");
    let plain = String::from_utf8(plain.stderr).unwrap();
    for words in drawn.iter().chain(&["\x1b["]) {
        assert!(shown.contains(words) && !plain.contains(words), "{words:?} in\n{shown:?}\nand not in\n{plain:?}");
    }
    for words in lines {
        assert!(plain.contains(words) && !shown.contains(words), "{words:?} in\n{plain:?}\nand not in\n{shown:?}");
    }
}

#[test]
fn training_and_evaluation_draw_bars() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    synthetic::write(&folder.join("posters.safetensors"), 20, 32, 1).unwrap();
    let train = "train --data posters.safetensors --batch 4 --epochs 1 --device cpu";
    let shown = on_a_terminal(folder, train);
    for words in ["\x1b[", "  1/1  ", "/4  loss ", " images/s  ", "validation, 2 of 2 posters"] {
        assert!(shown.contains(words), "{words:?} is not in {shown:?}");
    }
    let run = fs::read_dir(folder.join("runs")).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    let evaluate = format!("evaluate --run {run} --checkpoint last --device cpu --split train --batch 4");
    differ(folder, &evaluate, &["/16 posters, ", " left"], &[]);
    assert_eq!(on_a_terminal(folder, &format!("{evaluate} --quiet")), "");
}

/// Help is what has colours, on a terminal that nobody said should have none.
#[test]
fn no_color_means_none() {
    let folder = TempDir::new().unwrap();
    // Of a flag that there is not, since that is told on stderr.
    let told = |setting: Option<&str>| {
        let mut command = onesheet(folder.path(), "train --nonsense");
        command.env_remove("NO_COLOR").env("TERM", "xterm").envs(setting.map(|value| ("NO_COLOR", value)));
        shown_by(command, 2)
    };
    let [with, without, empty] = [None, Some("1"), Some("")].map(told);
    assert!(with.contains("\x1b[") && empty.contains("\x1b["), "an empty one is as none: {with:?} {empty:?}");
    assert!(without.contains("--nonsense") && !without.contains("\x1b["), "{without:?}");
    // A bar moves about, and has no colours in any case.
    let drawn = on_a_terminal(folder.path(), "doctor --device sim");
    assert!(drawn.contains("\x1b[") && !drawn.split("\x1b[").skip(1).any(is_colour), "{drawn:?}");
}

/// Whether what follows an escape is a colour: numbers up to an m.
fn is_colour(rest: &str) -> bool {
    rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ';').starts_with('m')
}

#[test]
fn preparation_and_compilation_draw_bars() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let mut table = "id,genre\n".to_owned();
    fs::create_dir(folder.join("posters")).unwrap();
    for number in 0..20 {
        let (pixels, _) = synthetic::draw(1, number, 40);
        image::RgbImage::from_raw(40, 40, pixels).unwrap().save(folder.join(format!("posters/{number}.png"))).unwrap();
        table += &format!("{number},{}\n", ["Drama", "Comedy", "Action"][number as usize % 3]);
    }
    fs::write(folder.join("table.csv"), table).unwrap();
    let prepare = "prepare --labels table.csv --posters posters --out out.safetensors";
    let lines = ["comparing posters: 20 of 20", "writing posters: 20 of 20"];
    differ(folder, prepare, &[" comparing posters ", " writing posters ", " 20/20 "], &lines);
    differ(folder, "doctor --device sim", &[" files, "], &[]);
}
