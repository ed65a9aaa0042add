//! `onesheet prepare` on the tables that its users have: flags, narration, warnings, exit codes.

use std::fs;
use std::process::Command as System;

use assert_cmd::Command;
use image::{Rgb, RgbImage};
use onesheet::data::tensor_file::TensorFile;
use tempfile::TempDir;

/// Runs `onesheet prepare` in `folder`: exit code, stdout, stderr. A run that waits for something is ended, and fails.
fn prepare(folder: &TempDir, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("onesheet")
        .unwrap()
        .current_dir(folder.path())
        .timeout(std::time::Duration::from_secs(60))
        .arg("prepare")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("it ends by itself"), text(output.stdout), text(output.stderr))
}

fn folder_with(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn poster(folder: &TempDir, name: &str, colour: u8) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(20, 30, Rgb([colour; 3])).save(path).unwrap();
}

/// The total of each row of the counts.
fn totals(stdout: &str) -> Vec<(String, usize)> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        Some((cells.first()?.to_string(), cells.get(4)?.parse().ok()?))
    };
    stdout.lines().filter_map(row).collect()
}

fn counts(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
    expected.iter().map(|&(name, films)| (name.to_owned(), films)).collect()
}

#[test]
fn every_kind_of_table_is_counted() {
    let utf16: Vec<u8> = "\u{feff}Id,Genre\n1,War|Sci-Fi\n2,War\n3,Sci-Fi\n4,Drama\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let tables: [(&[u8], &str); 8] = [
        (b"Id,Genre\n1,\"War, Sci-Fi\"\n2,war\n3,SciFi\n4,Drama\n", "ids from `Id`, genres from `Genre` separated by `,`, 4 films"),
        (b"Id;Genre\n1;('War', 'Sci-Fi')\n2;['War']\n3;{'Sci-Fi'}\n4;Drama\n", "columns separated by `;`, ids from `Id`"),
        (b"tconst\tgenres\ntt1\tWar,Sci-Fi\ntt2\tWar\ntt3\tSci-Fi\ntt4\tDrama\n", "ids from `tconst`, genres from `genres`"),
        (b"filename,labels\na/1.jpg,War / Sci-Fi\na/2.jpg,War\na/3.jpg,Sci-Fi\na/4.jpg,Drama\n", "separated by `/`"),
        (b"id,genres\n1,\"[{\"\"name\"\": \"\"War\"\"}, {\"\"name\"\": \"\"Sci-Fi\"\"}]\"\n2,War\n3,Sci-Fi\n4,Drama\n", "ids from `id`"),
        (b"Id,War,Sci-Fi,Drama\n1,1,1,0\n2,1,0,0\n3,0,1,0\n4,0,0,1\n", "a column for each genre: War, Sci-Fi, Drama"),
        (b"Id,Title,Genre\n1,\"a\nb\",War|Sci-Fi\n2,\"c\nd\",War\n3,e,Sci-Fi\n4,f,Drama\n", "separated by `|`"),
        (&utf16, "separated by `|`"),
    ];
    for (table, told) in tables {
        let folder = folder_with(&[("labels.csv", table)]);
        let arguments = ["--labels", "labels.csv", "--labels-only", "--genres", "War,Sci-Fi"];
        let (code, stdout, stderr) = prepare(&folder, &arguments);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(totals(&stdout), counts(&[("War", 2), ("Sci-Fi", 2), ("Other", 1), ("films", 4)]), "{told}");
        assert!(stderr.contains(told), "{told}: {stderr}");

        // Three genres in all, so that all are classes unless told otherwise, and no film is of another.
        let (code, stdout, stderr) = prepare(&folder, &arguments[..3]);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(totals(&stdout), counts(&[("Drama", 1), ("Sci-Fi", 2), ("War", 2), ("films", 4)]), "{told}");
    }
}

#[test]
fn merged_spellings_are_warned_of_in_words_and_in_json() {
    let folder = folder_with(&[("labels.csv", b"Id,Genre\n1,SciFi\n2,Sci-Fi\n3,Sci-Fi\n4,Drama\n")]);
    let arguments = ["--labels", "labels.csv", "--labels-only", "--genres", "sci fi", "--json"];
    let (code, stdout, stderr) = prepare(&folder, &arguments);
    assert_eq!(code, 0, "{stderr}");
    let warning = "spellings of one genre are merged: `SciFi` (1 row) into `Sci-Fi`";
    assert!(stderr.contains(&format!("warning: {warning}\n")), "{stderr}");
    let lines: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["total"], 3, "the class is found in any spelling: {stdout}");
    let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["genre", "genre", "all", "warning", "merged"]);
    assert_eq!(lines[3]["text"], warning);
    let merged = &lines[4];
    assert_eq!((merged["name"].as_str(), merged["into"].as_str()), (Some("SciFi"), Some("Sci-Fi")));
    assert_eq!((&merged["total"], &merged["schema"]), (&1.into(), &1.into()));
}

#[test]
fn flags_say_what_the_table_does_not() {
    let table = "key;mood\n1;Sci-Fi/Fantasy\n2;War\n3;Drama\n";
    let aliases = "alias,genre\nSci-Fi/Fantasy,Fantasy\nwar,Drama\n";
    let folder = folder_with(&[("my labels.csv", table.as_bytes()), ("other names.csv", aliases.as_bytes())]);
    let labels = ["--labels", "my labels.csv", "--labels-only", "--genres", "Drama"];
    let columns = ["--id-column", "key", "--genre-column", "mood"];
    for (flags, code, message) in [
        (&[][..], 3, "say --id-column NAME and --genre-column NAME"),
        (&["--id-column", "kay"], 3, "my labels.csv has no column `kay`; its columns are key, mood"),
        (&columns, 3, "on line 2, `Sci-Fi/Fantasy` may be one genre or several; say --genre-separator /"),
        (&["--genre-separator", "and"], 2, "`and` separates no genres"),
        (&["--aliases", "nowhere.csv"], 3, "the table of aliases nowhere.csv: No such file"),
        (
            &["--aliases", "my labels.csv"],
            3,
            "the table of aliases my labels.csv: its first line should be `alias,genre`",
        ),
    ] {
        let (found, stdout, stderr) = prepare(&folder, &[&labels, flags].concat());
        assert_eq!((found, &*stdout), (code, ""), "{flags:?}: {stderr}");
        assert!(stderr.contains(message), "{flags:?}: {stderr}");
    }
    let flags = [&columns[..], &["--genre-separator", "none", "--aliases", "other names.csv"]].concat();
    let (code, stdout, stderr) = prepare(&folder, &[&labels[..], &flags].concat());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(totals(&stdout), counts(&[("Drama", 2), ("Other", 1), ("films", 3)]));
    let typed = "--id-column key --genre-column mood --genre-separator none --aliases 'other names.csv' --posters DIR";
    assert!(stderr.contains(&format!("prepare --labels 'my labels.csv' {typed} --out")), "{stderr}");

    poster(&folder, "posters/1.png", 7);
    let with_posters = ["--labels", "my labels.csv", "--posters", "posters", "--genres", "Drama"];
    let (code, _, stderr) = prepare(&folder, &[&with_posters[..], &flags].concat());
    assert_eq!(code, 0, "{stderr}");
    let file = TensorFile::open(&folder.path().join("posters.safetensors")).unwrap();
    let digest = |text: &str| blake3::hash(text.as_bytes()).to_string();
    assert_eq!(file.provenance()["labels_blake3"], digest(table));
    assert_eq!(file.provenance()["aliases_blake3"], digest(aliases));
}

#[test]
fn a_folder_for_each_genre_needs_no_other_posters() {
    let folder = tempfile::tempdir().unwrap();
    for (name, colour) in [("Comedy/1.png", 10), ("Comedy/2.png", 20), ("War/2.png", 20), ("War/3.png", 30)] {
        poster(&folder, &format!("posters/{name}"), colour);
    }
    let arguments = ["--labels", "posters", "--genres", "War", "--image-size", "8"];
    let (code, stdout, stderr) = prepare(&folder, &arguments);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("posters: a folder for each genre: Comedy, War, 3 films"), "{stderr}");
    assert_eq!(totals(&stdout), counts(&[("War", 2), ("Other", 2), ("posters", 3)]));
    let file = TensorFile::open(&folder.path().join("posters.safetensors")).unwrap();
    let films: Vec<_> = (0..3).map(|film| (&*file.ids()[film], file.labels(film).to_vec())).collect();
    assert_eq!(films, [("tt0000001", vec![0, 1]), ("tt0000002", vec![1, 1]), ("tt0000003", vec![1, 0])]);
    assert_eq!(file.provenance()["labels"], "posters");

    let (code, _, stderr) = prepare(&folder, &[&arguments[..], &["--labels-only"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("prepare --labels posters --out posters.safetensors"), "{stderr}");
    let (code, _, stderr) = prepare(&folder, &[&arguments[..], &["--id-column", "x"]].concat());
    assert_eq!(code, 2);
    assert!(stderr.contains("--labels is a folder"), "{stderr}");
}

#[test]
fn of_a_table_too_large_the_films_with_posters_are_read() {
    let table = b"tconst\tgenres\ntt0000001\tDrama\ntt0000002\tWar\ntt0000003\tWar,Drama\n";
    let folder = folder_with(&[("title.basics.tsv", table)]);
    // The rest is a hole in the file, so that it takes no room.
    let file = fs::File::options().write(true).open(folder.path().join("title.basics.tsv")).unwrap();
    file.set_len(257 << 20).unwrap();
    poster(&folder, "posters/tt0000002.png", 1);
    poster(&folder, "posters/3.png", 2);
    let arguments = ["--labels", "title.basics.tsv", "--genres", "War"];
    let (code, stdout, stderr) = prepare(&folder, &[&arguments[..], &["--posters", "posters"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(totals(&stdout), counts(&[("War", 2), ("Other", 1), ("posters", 2)]));
    assert!(!stdout.contains("skipped"), "ten million films without a poster are nobody's loss: {stdout}");
    // Those behind links too, if they are followed.
    #[cfg(unix)]
    {
        poster(&folder, "elsewhere.png", 3);
        std::os::unix::fs::symlink("../elsewhere.png", folder.path().join("posters/1.png")).unwrap();
        let (code, stdout, stderr) =
            prepare(&folder, &[&arguments[..], &["--posters", "posters", "--follow-links"]].concat());
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(totals(&stdout), counts(&[("War", 2), ("Other", 2), ("posters", 3)]));
    }
    let (code, _, stderr) = prepare(&folder, &[&arguments[..], &["--labels-only"]].concat());
    assert_eq!(code, 3);
    assert!(stderr.contains("with --posters DIR such a table is read for the films that have posters"), "{stderr}");
}

#[test]
fn a_pipe_is_refused_and_nothing_is_said_twice() {
    let folder = folder_with(&[("escape.csv", b"Id,Gen\x1b[31mre\n1,War\n")]);
    assert!(System::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    for (labels, code, message) in [
        ("pipe", 1, "error: cannot read the label table pipe: it is a pipe or a device, not a file\n"),
        ("nowhere.csv", 1, "error: cannot read the label table nowhere.csv: No such file or directory (os error 2)\n"),
        ("escape.csv", 3, "error: the header of escape.csv is `Id,Gen\\u001b[31mre`; understood are"),
    ] {
        let (found, _, stderr) = prepare(&folder, &["--labels", labels, "--labels-only"]);
        assert_eq!(found, code, "{stderr}");
        assert!(stderr.starts_with(message), "{stderr}");
        assert!(!stderr.contains('\x1b'), "{stderr}");
    }
    let (code, _, stderr) = prepare(&folder, &["--labels", "escape.csv"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("say where the posters are with --posters DIR"), "{stderr}");
}
