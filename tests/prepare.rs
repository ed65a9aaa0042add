//! `onesheet prepare` as its users run it: tables, counts, posters, lists, exit codes.

#[path = "prepare/counts.rs"]
mod counts;
#[path = "support/not_checked.rs"]
mod not_checked;
#[path = "prepare/outputs.rs"]
mod outputs;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use image::{Rgb, RgbImage};
use not_checked::not_checked;
use onesheet::data::Split;
use onesheet::data::genres::{GenreChoice, Rest};
use onesheet::data::labels::Options;
use onesheet::data::posters::{Links, PosterFolder};
use onesheet::data::prepare::{self, Plan, PrepareError, Shape, Stage};
use onesheet::data::split::SplitRule;
use onesheet::data::squaring::{Alpha, Exif, Resize, Squaring};
use onesheet::data::tensor_file::TensorFile;
use tempfile::TempDir;

/// Twenty rows, of which `--split paper` makes the last two test. The films are made up; counted by hand:
/// Drama 9 (1 in test), Comedy 6 (0), Action 6 (2); the rest are Other: 4 films with War, 2 with Western, 1 with
/// both, so 7 (1 in test).
const TABLE: &str = "Id,Genre
tt0000001,['Drama']
tt0000002,\"['Drama', 'War']\"
tt0000003,['Comedy']
tt0000004,\"['Comedy', 'Drama']\"
tt0000005,['Western']
tt0000006,['Action']
tt0000007,\"['War', 'Western']\"
tt0000008,['Drama']
tt0000009,['Comedy']
tt0000010,\"['Action', 'Comedy']\"
tt0000011,['War']
tt0000012,['Drama']
tt0000013,['Comedy']
tt0000014,['Western']
tt0000015,\"['Comedy', 'Drama']\"
tt0000016,['Drama']
tt0000017,\"['Action', 'War']\"
tt0000018,\"['Action', 'Drama']\"
tt0000019,\"['Action', 'Drama']\"
tt0000020,\"['Action', 'War']\"
";

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(table: &str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("labels.csv"), table).unwrap();
        fs::create_dir(folder.path().join("posters")).unwrap();
        Bench { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A poster of one colour.
    fn poster(&self, name: &str, colour: [u8; 3]) {
        let path = self.path("posters").join(name);
        RgbImage::from_pixel(20, 30, Rgb(colour)).save(path).unwrap();
    }

    /// Runs `onesheet prepare` in the folder: exit code, stdout, stderr.
    fn run(&self, arguments: &str) -> (i32, String, String) {
        run(self.folder.path(), &format!("--labels labels.csv {arguments}"), "2")
    }
}

fn run(folder: &Path, arguments: &str, threads: &str) -> (i32, String, String) {
    let output = Command::cargo_bin("onesheet")
        .unwrap()
        .current_dir(folder)
        .env("RAYON_NUM_THREADS", threads)
        .arg("prepare")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// What is in `folder`, in order.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The numbers of the table's row `name`: train, validation, test, total.
fn row(table: &str, name: &str) -> [usize; 4] {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
    let cells: Vec<usize> = line.split_whitespace().skip(1).take(4).map(|cell| cell.parse().unwrap()).collect();
    cells.try_into().unwrap()
}

/// In any stage: the file that is there stays, and nothing is left beside it.
#[test]
fn stopped_it_leaves_what_was_there() {
    let bench = Bench::new(TABLE);
    (1..=20).for_each(|film| bench.poster(&format!("{film}.png"), [film; 3]));
    let (table, options) = (bench.path("labels.csv"), Options::default());
    let plan = Plan::read(&table, &options, &GenreChoice::Usual, Rest::Other, SplitRule::ById).unwrap();
    let folder = PosterFolder::index(&bench.path("posters"), Links::Inside).unwrap();
    let squaring = Squaring { size: 8, resize: Resize::Area, exif: Exif::Apply, alpha: Alpha::Drop };
    let (shape, out) = (Shape { squaring, provenance: BTreeMap::new() }, bench.path("posters.safetensors"));
    let write = |last| {
        let mut progress = |stage, _, _| match stage == last {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        prepare::write(&plan, &folder, &HashMap::new(), &out, &shape, &mut progress)
    };
    fs::write(&out, "what was there").unwrap();
    for stage in [Stage::Compare, Stage::Write] {
        assert!(matches!(write(stage), Err(PrepareError::Stopped)), "{stage:?}");
        assert_eq!(fs::read(&out).unwrap(), b"what was there");
        assert_eq!(names(bench.folder.path()), ["labels.csv", "posters", "posters.safetensors"]);
    }
}

#[test]
fn the_papers_first_table() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/posters/seed_labels.csv");
    if !table.exists() {
        not_checked(&format!("the paper's counts, because {} is absent", table.display()));
        return;
    }
    let here = tempfile::tempdir().unwrap();
    let labels_only = format!("--labels {} --labels-only --split paper", table.display());
    let (code, stdout, _) = run(here.path(), &labels_only, "2");
    assert_eq!(code, 0);
    let genres = ["Action", "Comedy", "Drama", "Romance", "Crime", "Thriller", "Other"];
    let names: Vec<&str> = stdout.lines().skip(2).take(7).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, genres);
    let rows = genres.map(|genre| row(&stdout, genre));
    assert_eq!(rows.map(|row| row[3]), [5293, 12518, 19788, 6168, 5234, 4787, 21840]);
    assert_eq!(rows.map(|row| row[2]), [469, 1105, 1820, 445, 372, 435, 2177]);
    assert!(rows.iter().all(|row| row[0] + row[1] + row[2] == row[3]));
    assert_eq!(row(&stdout, "rows"), [31_704, 3_522, 3_914, 39_140]);
    assert!(!stdout.contains("skipped"), "all of the paper's rows are usable: {stdout}");

    let (_, stdout, _) = run(here.path(), &labels_only.replace("paper", "id"), "2");
    assert_eq!(row(&stdout, "films")[3], 38_548);
    assert!(stdout.contains("duplicate        592\n"), "{stdout}");
}

#[test]
fn posters_become_one_file_and_the_rest_a_list() {
    let bench = Bench::new(
        "imdbId,Genre\n1,['Drama']\n2.0,['War']\n0000003,['Drama']\n4,['Drama']\n1.0,['War']\n=5,['Drama']\n\
         6,[]\n7,['Drama']\n8,['Drama']\n9,['War']\n10,[Drama]\n11,['Drama']\n",
    );
    bench.poster("tt0000001.png", [200, 10, 20]);
    bench.poster("2.webp", [30, 200, 40]);
    bench.poster("3.0.jpg", [50, 60, 200]);
    fs::write(bench.path("posters/11.jpg"), "<html>404</html>").unwrap();
    for same in ["7.png", "8.png", "9.png"] {
        bench.poster(same, [128; 3]);
    }
    let arguments = "--posters posters --genres Drama --image-size 8 --out out.safetensors";
    let (code, stdout, stderr) = bench.run(arguments);
    assert_eq!(code, 0, "{stderr}");

    let file = TensorFile::open(&bench.path("out.safetensors")).unwrap();
    assert_eq!(file.ids(), ["tt0000001", "tt0000002", "tt0000003"]);
    assert_eq!(file.genres(), ["Drama", "Other"]);
    assert_eq!(file.size(), 8);
    // Film 1 has Drama from its first row and War from its second.
    assert_eq!([0, 1, 2].map(|film| file.labels(film).to_vec()), [[1, 1], [0, 1], [1, 0]]);
    for (film, colour) in [[200, 10, 20], [30, 200, 40], [50, 60, 200]].into_iter().enumerate() {
        let image = file.image_checked(film).unwrap();
        let near = |pixel: &[u8]| (0..3).all(|c| i32::abs(pixel[c] as i32 - colour[c]) <= 4);
        assert!(image.chunks(3).all(near), "film {film}: {:?}", &image[..3]);
    }
    assert_eq!(file.provenance()["labels"], "labels.csv");
    assert_eq!(row(&stdout, "posters")[3], 3);

    let expected = "line,id,reason,detail\n\
        5,tt0000004,no poster,\n\
        6,tt0000001,duplicate,the same film as line 2\n\
        7,'=5,bad id,an id is an IMDb number or 1 to 64 of A-Z a-z 0-9 _ -\n\
        8,tt0000006,no genre,\n\
        9,tt0000007,placeholder,the same image as 2 other films\n\
        10,tt0000008,placeholder,the same image as 2 other films\n\
        11,tt0000009,placeholder,the same image as 2 other films\n\
        12,tt0000010,bad genres,a list of strings in quotes was expected\n\
        13,tt0000011,bad poster,\"posters/11.jpg: not a JPEG, PNG or WebP image\"\n";
    let list = fs::read_to_string(bench.path("out.skipped.csv")).unwrap();
    assert_eq!(list, expected);
    assert!(stdout.contains("skipped 9 rows, listed in out.skipped.csv"), "{stdout}");
    assert!(stdout.contains("  placeholder        3\n"), "{stdout}");
    assert!(stderr.contains("onesheet train --data out.safetensors"), "{stderr}");

    // The same bytes again, from one thread too.
    let bytes = fs::read(bench.path("out.safetensors")).unwrap();
    run(bench.folder.path(), &format!("--labels labels.csv {arguments}"), "1");
    assert!(fs::read(bench.path("out.safetensors")).unwrap() == bytes, "one thread gives another file than two");

    // Strict: the same files, and an exit code that says so.
    let (code, _, stderr) = bench.run(&format!("{arguments} --strict"));
    assert_eq!(code, 3);
    assert!(stderr.contains("9 rows were skipped") && stderr.contains("line 5, tt0000004, no poster"), "{stderr}");
}

#[test]
fn many_posters_keep_the_tables_order_and_their_split() {
    let ids: Vec<u32> = (0..700).map(|row| 1 + row * 37 % 701).collect();
    let rows: String = ids.iter().map(|id| format!("{id},{}\n", if id % 3 == 0 { "War" } else { "Drama" })).collect();
    let bench = Bench::new(&format!("Id,Genre\n{rows}"));
    for id in &ids {
        bench.poster(&format!("{id}.png"), [(id % 256) as u8, (id / 256) as u8, 0]);
    }
    // Squares so large that they take several batches.
    for split in ["paper", "id"] {
        let (code, _, stderr) =
            bench.run(&format!("--posters posters --genres Drama --image-size 160 --resize nearest --split {split}"));
        assert_eq!(code, 0, "{stderr}");
        let file = TensorFile::open(&bench.path("posters.safetensors")).unwrap();
        assert_eq!(file.len(), 700);
        for (row, id) in ids.iter().enumerate() {
            assert_eq!(file.ids()[row], format!("tt{id:07}"));
            assert_eq!(file.image_checked(row).unwrap()[..3], [(id % 256) as u8, (id / 256) as u8, 0]);
            assert_eq!(file.labels(row), if id % 3 == 0 { [0, 1] } else { [1, 0] });
        }
        let sizes = Split::ALL.map(|split| file.indices(split).len());
        match split {
            "paper" => assert_eq!(sizes, [567, 63, 70]),
            _ => {
                assert!(sizes.iter().all(|&films| films > 20), "{sizes:?}");
                // By a hash that is for ever.
                let of = |id: &str| file.split(file.ids().iter().position(|found| found == id).unwrap());
                assert_eq!([of("tt0000007"), of("tt0000011")], [Split::Validation, Split::Test]);
            }
        }
    }
}

#[test]
fn the_papers_split_keeps_repeated_rows() {
    let bench = Bench::new("Id,Genre\n1,Drama\n2,War\ntt0000001,Drama\n");
    bench.poster("1.jpg", [1, 2, 3]);
    bench.poster("2.jpg", [4, 5, 6]);
    let (code, _, stderr) = bench.run("--posters posters --genres Drama --split paper");
    assert_eq!(code, 0, "{stderr}");
    let file = TensorFile::open(&bench.path("posters.safetensors")).unwrap();
    assert_eq!(file.ids(), ["tt0000001", "tt0000002", "tt0000001"]);
}

#[test]
fn errors_say_what_to_do_and_leave_nothing_behind() {
    let bench = Bench::new(TABLE);
    fs::write(bench.path("other.csv"), "Title,Genre\nx,Drama\n").unwrap();
    let before = names(bench.folder.path());
    for (arguments, code, message) in [
        ("labels.csv --genres Drama --posters nowhere", 1, "cannot search the folder of posters nowhere: No such file"),
        ("nowhere.csv --labels-only", 1, "cannot read the label table nowhere.csv: No such file"),
        ("other.csv --labels-only", 3, "the header of other.csv is `Title,Genre`; understood are"),
        (
            "labels.csv --labels-only --genres Horror",
            3,
            "no film in the table is `Horror`; its genres are Drama, Action, Comedy, War",
        ),
        (
            "labels.csv --labels-only --genres top:5",
            3,
            "no film in the table is `Other`; leave one of the 5 genres out",
        ),
        ("labels.csv --labels-only --genres top:9", 3, "the table has 5 genres, not 9"),
        ("labels.csv --labels-only --min-per-genre 99", 3, "no genre has 99 films; the most common, Drama, has 9"),
        ("labels.csv --labels-only --genres top:x", 2, "`top:x` chooses no genres"),
        ("labels.csv", 2, "--posters"),
        ("labels.csv --labels-only --posters posters", 2, "cannot be used with"),
        ("labels.csv --posters posters --image-size 7", 2, "--image-size"),
    ] {
        let (found, stdout, stderr) = run(bench.folder.path(), &format!("--labels {arguments}"), "2");
        assert_eq!(found, code, "{arguments}: {stderr}");
        assert!(stderr.contains(message), "{arguments}: {stderr}");
        assert!(!stderr.contains("panicked"), "{arguments}: {stderr}");
        assert!(stderr.matches("No such file").count() <= 1, "{arguments}: {stderr}");
        assert_eq!(stdout, "", "{arguments}");
        assert_eq!(names(bench.folder.path()), before, "{arguments}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let bench = Bench::new(TABLE);
    bench.poster("1.jpg", [1, 2, 3]);
    let (code, _, stderr) = bench.run("--posters posters --genres top:3 --out nowhere/x.safetensors");
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("nowhere/x.safetensors") && stderr.contains("No such file"), "{stderr}");
    // Before posters are looked for, or fetched for hours.
    let (code, _, stderr) = bench.run("--posters gone --genres top:3 --out nowhere/x.safetensors");
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("error: cannot write nowhere/x.safetensors: No such file"), "{stderr}");
}

#[test]
fn a_class_without_a_poster_to_train_on_is_warned_of_and_merged_spellings_are_in_json() {
    // By the hash of their ids, which is for ever, film 0 is to train on, 7 for validation and 11 for the test.
    let bench = Bench::new("Id,Genre\n0,Drama\n7,War\n11,drama\n");
    for (name, colour) in [("0.png", [1; 3]), ("7.png", [2; 3]), ("11.png", [3; 3])] {
        bench.poster(name, colour);
    }
    let (code, stdout, stderr) = bench.run("--posters posters --genres Drama --image-size 8 --json");
    assert_eq!(code, 0, "{stderr}");
    let untrained = "warning: no poster to train on is `Other`; more posters or other --genres are needed\n";
    assert!(stderr.contains(untrained) && stderr.matches("no poster to train on").count() == 1, "{stderr}");
    let lines: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let merged: Vec<_> = lines.iter().filter(|line| line["kind"] == "merged").map(|line| &line["name"]).collect();
    assert_eq!(merged, ["drama"], "{stdout}");
}

#[test]
fn counting_is_strict_where_that_is_asked() {
    let bench = Bench::new("Id,Genre\n1,Drama\n2,War\n3,\n");
    for (option, expected) in [("", 0), ("--strict", 3)] {
        let (code, stdout, stderr) = bench.run(&format!("--labels-only --genres Drama {option}"));
        assert_eq!(code, expected, "{stderr}");
        assert!(stdout.contains("skipped 1 rows\n"), "{stdout}");
        let why = "1 rows were skipped, and this run is strict; the first: line 4, tt0000003, no genre";
        assert_eq!(stderr.contains(why), expected == 3, "{stderr}");
    }
}

/// The films of the file would be dealt otherwise than those that were counted.
#[test]
fn the_command_that_is_suggested_behind_counts_has_their_split() {
    let bench = Bench::new("Id,Genre\n1,Drama\n2,War\n");
    for (split, told) in [("", ""), ("--split id", ""), ("--split paper", " --split paper")] {
        let (code, _, stderr) = bench.run(&format!("--labels-only --genres Drama {split}"));
        let next = format!(" prepare --labels labels.csv --posters DIR --out posters.safetensors{told}\n");
        assert!(code == 0 && stderr.ends_with(&next), "`{split}`: {stderr}");
    }
}

/// An image is a placeholder where three films have it, and not where one film has it thrice.
#[test]
fn copies_of_a_films_poster_are_no_placeholder() {
    let bench = Bench::new("Id,Genre\n1,Drama\n2,War\n3,Drama\n4,War\n");
    for copy in ["1.png", "01.png", "tt0000001.png"] {
        bench.poster(copy, [1; 3]);
    }
    for same in ["2.png", "3.png", "4.png"] {
        bench.poster(same, [9; 3]);
    }
    fs::write(bench.path("posters/4.jpg"), "<html>404</html>").unwrap();
    let (code, _, stderr) = bench.run("--posters posters --genres Drama --image-size 8 --out out.safetensors");
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(TensorFile::open(&bench.path("out.safetensors")).unwrap().ids(), ["tt0000001"]);
    let expected = "line,id,reason,detail\n\
        3,tt0000002,placeholder,the same image as 2 other films\n\
        4,tt0000003,placeholder,the same image as 2 other films\n\
        5,tt0000004,bad poster,\"posters/4.jpg: not a JPEG, PNG or WebP image; \
        posters/4.png: the same image as 2 other films\"\n";
    assert_eq!(fs::read_to_string(bench.path("out.skipped.csv")).unwrap(), expected);
}
