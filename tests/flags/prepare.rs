//! The flags of `prepare`. The file that it should write is written by the library, from choices that are typed here.

use crate::{Place, assert_all_are_typed};
use image::{Rgb, RgbImage, Rgba, RgbaImage};
use onesheet::data::Split;
use onesheet::data::genres::{GenreChoice, Rest};
use onesheet::data::labels::{Aliases, Options};
use onesheet::data::posters::{Links, PosterFolder};
use onesheet::data::prepare::{self, Plan, Shape};
use onesheet::data::split::SplitRule;
use onesheet::data::squaring::{Alpha, Exif, Resize, Squaring};
use onesheet::data::tensor_file::TensorFile;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Two columns that may be ids, and two that may be genres: `imdbId` and `Genre` unless told otherwise.
const TABLE: &str = "imdbId,other,Genre,moods
1,21,Drama|War,quiet
2,22,Comedy,loud/odd
3,23,War,quiet
4,24,Drama|Sci-Fi,loud
5,25,Comedy|War,quiet/odd
6,26,Crime,loud
7,27,Drama,quiet
8,28,Drama|Crime,quiet
9,29,Western,odd
10,30,Drama,loud
11,31,Comedy,loud
12,32,War,quiet
";

/// Posters of all films but the last, each with its own number in its colours, most of them of 16×24 pixels. In the others every
/// other film has its poster, and of another colour.
fn place_with_posters() -> Place {
    let place = Place::new();
    fs::write(place.at("labels.csv"), TABLE).unwrap();
    fs::write(place.at("more.csv"), TABLE.replace("12,32,War,quiet", "11,31,War,quiet")).unwrap();
    fs::write(place.at("aliases.csv"), "alias,genre\nWestern,War\n").unwrap();
    fs::create_dir(place.at("posters")).unwrap();
    fs::create_dir(place.at("others")).unwrap();
    for film in 3..=10 {
        let poster = RgbImage::from_fn(16, 24, |x, y| Rgb([10 * film as u8, 9 * x as u8, 10 * y as u8]));
        poster.save(place.at(&format!("posters/{film}.png"))).unwrap();
        poster.save(place.at(&format!("posters/{}.png", film + 20))).unwrap();
        if film % 2 == 0 {
            RgbImage::from_pixel(16, 24, Rgb([film as u8, 0, 9]))
                .save(place.at(&format!("others/{film}.png")))
                .unwrap();
        }
    }
    // One that lets through what is behind it, one that was photographed lying, and one that is a link out of the folder.
    let clear = RgbaImage::from_fn(16, 24, |x, _| Rgba([100, 0, 200, if x < 8 { 0 } else { 128 }]));
    clear.save(place.at("posters/1.png")).unwrap();
    let turned = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posters/turned.png");
    fs::copy(turned, place.at("posters/2.png")).unwrap();
    RgbImage::from_pixel(16, 24, Rgb([110, 110, 0])).save(place.at("elsewhere.png")).unwrap();
    symlink("../elsewhere.png", place.at("posters/11.png")).unwrap();
    place
}

/// What a file is made from.
struct Choices {
    labels: &'static str,
    posters: &'static str,
    links: Links,
    options: Options,
    aliases: Option<&'static str>,
    genres: GenreChoice,
    rest: Rest,
    split: SplitRule,
    squaring: Squaring,
}

/// Those of [`BASE`].
fn choices() -> Choices {
    Choices {
        labels: "labels.csv",
        posters: "posters",
        links: Links::Inside,
        options: Options::default(),
        aliases: None,
        genres: GenreChoice::Named(vec!["Drama".into(), "War".into()]),
        rest: Rest::Other,
        split: SplitRule::ById,
        squaring: Squaring { size: 8, resize: Resize::Area, exif: Exif::Apply, alpha: Alpha::Drop },
    }
}

/// The tensor file that the library writes.
fn written_by_the_library(place: &Place, choices: Choices) -> Vec<u8> {
    let Choices { labels, posters, links, mut options, aliases, genres, rest, split, squaring } = choices;
    let digest = |name: &str| blake3::hash(&fs::read(place.at(name)).unwrap()).to_string();
    let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let split_name = match split {
        SplitRule::ById => "hash of the id".into(),
        SplitRule::Paper { seed } => format!("paper, seed {seed}"),
    };
    let tool = format!("onesheet {}", env!("CARGO_PKG_VERSION"));
    let mut provenance = BTreeMap::from([
        text("tool", &tool),
        text("labels", labels),
        text("labels_blake3", &digest(labels)),
        text("split", &split_name),
    ]);
    if let Some(name) = aliases {
        options.aliases = Some(Aliases::read(&place.at(name)).unwrap());
        provenance.insert("aliases_blake3".into(), digest(name));
    }
    let plan = Plan::read(&place.at(labels), &options, &genres, rest, split).unwrap();
    let folder = PosterFolder::index(&place.at(posters), links).unwrap();
    let (out, shape) = (place.at("library.safetensors"), Shape { squaring, provenance });
    prepare::write(&plan, &folder, &HashMap::new(), &out, &shape, &mut |_, _, _| ControlFlow::Continue(())).unwrap();
    let bytes = fs::read(&out).unwrap();
    fs::remove_file(out).unwrap();
    bytes
}

const BASE: &str = "prepare --labels labels.csv --posters posters --genres Drama,War --image-size 8 --quiet";

/// A flag, typed behind [`BASE`] or in the place of a part of it, and what it changes.
type Row = (&'static str, fn(&mut Choices));

const ROWS: [Row; 20] = [
    ("--labels more.csv", |choices| choices.labels = "more.csv"),
    ("--posters others", |choices| choices.posters = "others"),
    ("--id-column other", |choices| choices.options.id_column = Some("other".into())),
    ("--genre-column moods --genres odd,loud", |choices| {
        choices.options.genre_column = Some("moods".into());
        choices.genres = GenreChoice::Named(vec!["odd".into(), "loud".into()]);
    }),
    ("--genre-separator none --genres Drama,War", |choices| {
        choices.options.genre_separator = Some("none".parse().unwrap());
    }),
    ("--aliases aliases.csv", |choices| choices.aliases = Some("aliases.csv")),
    ("--follow-links", |choices| choices.links = Links::All),
    ("--no-other", |choices| choices.rest = Rest::Unlabelled),
    ("--genres War,Drama", |choices| choices.genres = GenreChoice::Named(vec!["War".into(), "Drama".into()])),
    ("--genres top:3", |choices| choices.genres = GenreChoice::Top(3)),
    ("--min-per-genre 2", |choices| choices.genres = GenreChoice::AtLeast(2)),
    ("--split paper", |choices| choices.split = SplitRule::Paper { seed: 0 }),
    ("--split paper --seed 3", |choices| choices.split = SplitRule::Paper { seed: 3 }),
    ("--image-size 9", |choices| choices.squaring.size = 9),
    ("--resize nearest", |choices| choices.squaring.resize = Resize::Nearest),
    ("--exif ignore", |choices| choices.squaring.exif = Exif::Ignore),
    ("--alpha white", |choices| choices.squaring.alpha = Alpha::White),
    ("--resize area --exif ignore --alpha white", |choices| {
        choices.squaring = Squaring { size: 8, resize: Resize::Area, exif: Exif::Ignore, alpha: Alpha::White };
    }),
    ("--resize nearest --exif apply --alpha drop", |choices| choices.squaring.resize = Resize::Nearest),
    ("--genres top:5", |choices| choices.genres = GenreChoice::Top(5)),
];

const DEFAULTS: &str = "prepare --labels labels.csv --posters posters -q";
const COUNTED: &str = "prepare --labels labels.csv --labels-only --genres Drama,War";
const STRICT: &str = "prepare --labels labels.csv --posters posters --genres Drama --image-size 8 --strict --json -q";
const NAMED: &str =
    "prepare --labels labels.csv --posters posters --genres Drama --image-size 8 --out named.safetensors";
#[cfg(feature = "fetch")]
const FETCHED: &str = "prepare --labels web.csv --download fetched --genres Drama --image-size 8 --quiet --connections";

#[test]
fn every_flag_of_prepare_is_typed_here() {
    let lines = ROWS.iter().map(|(words, _)| *words).chain([BASE, DEFAULTS, COUNTED, STRICT, NAMED]);
    #[cfg(feature = "fetch")]
    let lines = lines.chain([FETCHED]);
    assert_all_are_typed("prepare", lines);
}

/// The words of [`BASE`], but for those flags that `words` have in another way.
fn command(words: &str) -> String {
    let mut base: Vec<&str> = BASE.split(' ').collect();
    for flag in words.split(' ').filter(|word| word.starts_with("--")) {
        if let Some(place) = base.iter().position(|word| *word == flag) {
            base.drain(place..place + 2);
        }
    }
    if words.contains("--min-per-genre") {
        let place = base.iter().position(|word| *word == "--genres").unwrap();
        base.drain(place..place + 2);
    }
    format!("{} {words}", base.join(" "))
}

#[test]
fn the_file_is_made_as_each_flag_says() {
    let place = place_with_posters();
    let out = place.at("posters.safetensors");
    place.run_to(0, BASE);
    let base = fs::read(&out).unwrap();
    assert!(base == written_by_the_library(&place, choices()), "without a flag");
    let mut files = vec![base];
    for (words, change) in ROWS {
        let told = place.run_to(0, &command(words));
        assert_eq!(told.stderr, "", "{words}");
        let mut expected = choices();
        change(&mut expected);
        let found = fs::read(&out).unwrap();
        assert!(found == written_by_the_library(&place, expected), "{words}");
        assert!(found != files[0], "{words}: it changes nothing");
        files.push(found);
    }
    // Of all defaults the paper's six genres are those that this table would have.
    place.run_to(0, DEFAULTS);
    let expected = Choices {
        genres: GenreChoice::Usual,
        squaring: Squaring { size: 150, resize: Resize::Area, exif: Exif::Apply, alpha: Alpha::Drop },
        ..choices()
    };
    assert!(fs::read(&out).unwrap() == written_by_the_library(&place, expected), "defaults");
}

/// What the flags mean, by hand.
#[test]
fn pixels_and_splits_are_those_of_the_flags() {
    let place = place_with_posters();
    let out = place.at("posters.safetensors");
    let file = |words: &str| {
        place.run_to(0, &command(words));
        TensorFile::open(&out).unwrap()
    };
    let red = |file: &TensorFile, film: usize, x: usize| file.image_checked(film).unwrap()[3 * (8 + x)];
    let green = |file: &TensorFile, film: usize, x: usize| file.image_checked(film).unwrap()[3 * (8 + x) + 1];

    // The third poster has the green 9·x, and two of its columns become one: the second of them, or between the two.
    let [area, nearest] = ["--resize area", "--resize nearest"].map(|words| {
        let file = file(words);
        [3, 4].map(|x| green(&file, 2, x))
    });
    assert_eq!(nearest, [9 * 7, 9 * 9]);
    assert!(area[0].abs_diff(58) <= 1 && area[1].abs_diff(76) <= 1, "9 · 6.5 and 9 · 8.5: {area:?}");

    // The first poster is clear on its left and half so on its right.
    let [drop, white] = ["--alpha drop", "--alpha white"].map(|words| {
        let file = file(words);
        [0, 7].map(|x| red(&file, 0, x))
    });
    assert_eq!((drop, white), ([100, 100], [255, 177]));

    // The second is red on top as it is stored, and on the right as it should be seen.
    let corners = |file: &TensorFile| [0, 7, 56, 63].map(|pixel| file.image_checked(1).unwrap()[3 * pixel] > 100);
    assert_eq!(corners(&file("--exif ignore")), [true, true, false, false]);
    assert_eq!(corners(&file("--exif apply")), [false, true, false, true]);

    // Of twelve rows the last is test, and one of the eleven before it validation; eleven have a poster if links are followed.
    let split = |words: &str| {
        let file = file(words);
        assert_eq!((file.len(), file.indices(Split::Test).len()), (11, 0), "{words}");
        file.indices(Split::Validation)
    };
    let drawn = ["0", "1", "2", "3", "4"].map(|seed| split(&format!("--split paper --follow-links --seed {seed}")));
    assert!(drawn.iter().all(|rows| rows.len() == 1), "{drawn:?}");
    assert!(drawn.iter().any(|rows| rows != &drawn[0]), "the seed draws another: {drawn:?}");
}

#[test]
fn what_is_counted_printed_and_refused_is_as_the_flags_say() {
    let place = place_with_posters();
    let files = || fs::read_dir(&place.path).unwrap().count();
    let before = files();
    let told = place.run_to(0, COUNTED);
    let row = |name: &str| {
        let line = told.stdout.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(4).unwrap().to_owned()
    };
    // Of twelve films; seven have a genre that is neither.
    assert_eq!(["Drama", "War", "Other", "films"].map(row), ["5", "4", "7", "12"]);
    assert!(told.stderr.contains("labels.csv: ") && told.stderr.contains("next: "), "{}", told.stderr);
    assert_eq!(place.run_to(0, &format!("{COUNTED} --quiet")).stderr, "");
    let objects = place.run_to(0, &format!("{COUNTED} --json -q")).objects();
    let totals: Vec<_> = objects.iter().map(|line| line["total"].as_u64().unwrap()).collect();
    assert_eq!(totals, [5, 4, 7, 12]);
    let told = place.run_to(0, &format!("{COUNTED} --no-other"));
    assert!(!told.stdout.contains("Other") && told.stdout.contains("films"), "{}", told.stdout);
    let note = "note: 4 films are of none of these genres, and stay without a label";
    assert!(told.stderr.lines().any(|line| line == note), "{}", told.stderr);
    assert_eq!(files(), before, "nothing is written");

    // Two films have no poster that is read: everything is written, and the exit code says so.
    let told = place.run_to(3, STRICT);
    assert_eq!(told.stderr.lines().count(), 1, "{}", told.stderr);
    assert!(
        told.stderr.starts_with("error: 2 rows were skipped, and this run is strict; the first: line 12,"),
        "{}",
        told.stderr
    );
    assert_eq!(told.objects().last().unwrap()["out"], "posters.safetensors");
    assert!(place.at("posters.safetensors").is_file() && place.at("posters.skipped.csv").is_file());
    let told = place.run_to(0, &STRICT.replace("--strict ", ""));
    assert_eq!((told.stderr.as_str(), told.objects().last().unwrap()["kind"].as_str()), ("", Some("file")));

    for name in ["posters.safetensors", "posters.skipped.csv"] {
        fs::remove_file(place.at(name)).unwrap();
    }
    let told = place.run_to(0, NAMED);
    assert!(told.stdout.contains("skipped 2 rows, listed in named.skipped.csv"), "{}", told.stdout);
    assert!(told.stderr.contains("train --data named.safetensors"), "{}", told.stderr);
    assert!(place.at("named.safetensors").is_file() && place.at("named.skipped.csv").is_file());
    assert_eq!(files(), before + 2);
}

/// The server holds each request until as many have come as should; fewer connections never bring so many together.
#[cfg(feature = "fetch")]
#[test]
fn posters_are_fetched_over_as_many_connections_as_are_asked_for() {
    use crate::server::{Server, reply};
    use std::sync::{Arc, Condvar, Mutex};
    use std::time::Duration;

    for wanted in [1, 2, 7] {
        let place = Place::new();
        let films = wanted + 4;
        // How many requests are here now, and how many there were at most.
        let here = Arc::new((Mutex::new((0, 0)), Condvar::new()));
        let shared = Arc::clone(&here);
        let server = Server::start(move |to, path, _| {
            let (count, changed) = &*shared;
            let mut counted = count.lock().unwrap();
            counted.0 += 1;
            counted.1 = counted.0.max(counted.1);
            changed.notify_all();
            // Until all were here that should be, and a moment longer, in which one too many would come as well.
            for (patience, limit) in [(Duration::from_secs(20), wanted), (Duration::from_millis(60), wanted + 1)] {
                counted = changed.wait_timeout_while(counted, patience, |(_, most)| *most < limit).unwrap().0;
            }
            drop(counted);
            let number: u8 = path.trim_start_matches('/').parse().unwrap();
            let mut poster = std::io::Cursor::new(Vec::new());
            RgbImage::from_pixel(9, 9, Rgb([number; 3])).write_to(&mut poster, image::ImageFormat::Png).unwrap();
            // Before the answer, since the next request may come right behind it.
            count.lock().unwrap().0 -= 1;
            reply(to, "200 OK", "", &poster.into_inner())
        });
        let row = |film| format!("{film},{},http://127.0.0.1:{}/{film}\n", ["Drama", "War"][film % 2], server.port);
        let table = "imdbId,Genre,Poster\n".to_owned() + &(1..=films).map(row).collect::<String>();
        fs::write(place.at("web.csv"), table).unwrap();
        place.run_to(0, &format!("{FETCHED} {wanted}"));
        assert_eq!(here.0.lock().unwrap().1, wanted, "of {films} posters");
        let file = TensorFile::open(&place.at("posters.safetensors")).unwrap();
        let greys: Vec<u8> = (0..films).map(|film| file.image_checked(film).unwrap()[0]).collect();
        assert_eq!(greys, (1..=films as u8).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(place.at("fetched")).unwrap().count(), films);
    }
}
