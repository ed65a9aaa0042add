//! What `prepare` counts: in its table, in its JSON and in the file that it writes.

use std::collections::BTreeMap;
use std::fs;

use onesheet::data::Split;
use onesheet::data::tensor_file::TensorFile;
use serde_json::{Value, json};

use crate::{Bench, TABLE, row};

#[test]
fn counts_need_no_posters() {
    let bench = Bench::new(TABLE);
    let (code, stdout, stderr) = bench.run("--labels-only --split paper --genres top:3");
    assert_eq!(code, 0, "{stderr}");
    let genres = ["Action", "Comedy", "Drama", "Other"];
    let rows = genres.map(|genre| row(&stdout, genre));
    assert_eq!(rows.map(|row| row[3]), [6, 6, 9, 7]);
    assert_eq!(rows.map(|row| row[2]), [2, 0, 1, 1]);
    assert_eq!(row(&stdout, "rows"), [17, 1, 2, 20]);
    assert!(stdout.contains("Drama") && stdout.contains("45.0 %"), "{stdout}");
    assert!(stderr.contains("onesheet prepare --labels labels.csv --posters DIR"), "{stderr}");

    // The seed draws the one validation film, which is another for another seed, and no test film.
    let seeded = |seed: u32| {
        let (_, table, _) = bench.run(&format!("--labels-only --split paper --genres top:3 --seed {seed}"));
        genres.map(|genre| row(&table, genre))
    };
    let other = [1, 2, 3].map(seeded);
    assert!(other.iter().any(|other| other.map(|row| row[1]) != rows.map(|row| row[1])), "{other:?}");
    assert!(other.iter().all(|other| other.map(|row| row[2]) == rows.map(|row| row[2])), "{other:?}");
    // --genres keeps its own order; --min-per-genre takes every genre with so many films.
    let (_, named, _) = bench.run("--labels-only --genres Western,Drama");
    assert_eq!([row(&named, "Western")[3], row(&named, "Drama")[3], row(&named, "Other")[3]], [3, 9, 14]);
    let (_, common, _) = bench.run("--labels-only --min-per-genre 5");
    assert_eq!([row(&common, "Action")[3], row(&common, "War")[3], row(&common, "Other")[3]], [6, 5, 3]);
    assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), 2, "counting writes nothing");
}

#[test]
fn json_has_the_same_counts() {
    let bench = Bench::new(TABLE);
    let (code, stdout, _) = bench.run("--labels-only --split paper --genres top:3 --json");
    assert_eq!(code, 0);
    let lines: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["schema"] == 1));
    let totals: Vec<_> =
        lines.iter().map(|line| (line["name"].as_str().unwrap(), line["total"].as_u64().unwrap())).collect();
    assert_eq!(totals, [("Action", 6), ("Comedy", 6), ("Drama", 9), ("Other", 7), ("rows", 20)]);
    assert_eq!(lines[4]["test"], 2);
}

/// Three accounts of one thing, each checked against the files: how many posters of each genre are in each split, and why which
/// rows are missing.
#[test]
fn the_table_and_json_count_what_is_in_the_files() {
    let cells = |film: u32| match film {
        5 | 13 => "",
        _ if film.is_multiple_of(3) => "War|Drama",
        _ if film.is_multiple_of(2) => "Drama",
        _ => "Science Fiction",
    };
    let rows: String = (1..=150).map(|film| format!("{film},{}\n", cells(film))).collect();
    let bench = Bench::new(&format!("Id,Genre\n{rows}=60,War\n60,War\n"));
    for film in (1..=150).filter(|film| film % 11 > 0) {
        bench.poster(&format!("{film}.png"), [film as u8, 7, 9]);
    }
    for same in ["20.png", "31.png", "42.png"] {
        bench.poster(same, [1, 2, 3]);
    }
    fs::write(bench.path("posters/40.png"), "no poster").unwrap();
    let arguments = "--posters posters --genres War,Drama --image-size 8 --out out.safetensors";
    let (code, table, stderr) = bench.run(arguments);
    assert_eq!(code, 0, "{stderr}");
    let (code, lines, _) = bench.run(&format!("{arguments} --json --quiet"));
    assert_eq!(code, 0);

    let file = TensorFile::open(&bench.path("out.safetensors")).unwrap();
    let count = |is_counted: &dyn Fn(usize) -> bool| {
        let films =
            Split::ALL.map(|split| file.indices(split).into_iter().filter(|&film| is_counted(film as usize)).count());
        [films[0], films[1], films[2], films.iter().sum()]
    };
    let genre = |genre: usize| count(&|film| file.labels(film)[genre] == 1);
    let names = ["War", "Drama", "Other", "posters"];
    let counts = [genre(0), genre(1), genre(2), count(&|_| true)];
    // A split taken for another would show.
    assert!(counts[..3].iter().all(|[train, validation, test, _]| train > test && test != validation), "{counts:?}");
    let list = fs::read_to_string(bench.path("out.skipped.csv")).unwrap();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for line in list.lines().skip(1) {
        *reasons.entry(line.split(',').nth(2).unwrap()).or_default() += 1;
    }
    let expected =
        [("bad id", 1), ("bad poster", 1), ("duplicate", 1), ("no genre", 2), ("no poster", 13), ("placeholder", 3)];
    assert_eq!(reasons, BTreeMap::from(expected));

    let mut expected = Vec::new();
    for (name, [train, validation, test, total]) in names.into_iter().zip(counts) {
        let kind = if name == "posters" { "all" } else { "genre" };
        expected.push(json!({
            "schema": 1, "kind": kind, "name": name,
            "train": train, "validation": validation, "test": test, "total": total,
        }));
    }
    for (reason, rows) in &reasons {
        expected.push(json!({ "schema": 1, "kind": "skipped", "name": reason, "total": rows }));
    }
    expected.push(json!({ "schema": 1, "kind": "file", "out": "out.safetensors", "skipped": "out.skipped.csv" }));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, expected);

    let mut words: Vec<String> = table.split_whitespace().map(String::from).collect();
    words.retain(|word| !word.starts_with('─'));
    let mut expected: Vec<String> = "genre train validation test total share".split(' ').map(String::from).collect();
    for (name, row) in names.into_iter().zip(counts) {
        let share = 100.0 * row[3] as f64 / counts[3][3] as f64;
        expected.push(name.into());
        expected.extend(row.map(|films| films.to_string()));
        expected.extend([format!("{share:.1}"), "%".into()]);
    }
    expected.extend("skipped 21 rows, listed in out.skipped.csv".split(' ').map(String::from));
    for (reason, rows) in &reasons {
        expected.extend(reason.split(' ').map(String::from));
        expected.push(rows.to_string());
    }
    assert_eq!(words, expected);

    // Off a terminal a line for every tenth of each stage, and here all are done at once: of 150 films two have no genre, and 13
    // no poster.
    let told: Vec<&str> = stderr.lines().filter(|line| line.contains("posters: ")).collect();
    assert_eq!(told, ["comparing posters: 135 of 135", "writing posters: 135 of 135"]);
}
