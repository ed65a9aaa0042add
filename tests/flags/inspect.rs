//! The flags of `inspect`: what is said of a file of posters, and the sheet of what training sees of them.

use crate::{Place, SIDE, assert_all_are_typed};
use onesheet::data::Split;
use onesheet::data::augmentation::Augmentation;
use onesheet::data::distortion::Distortion;
use onesheet::data::loader::{Batch, Loader};
use onesheet::data::synthetic;
use onesheet::data::tensor_file::{Description, TensorFile, TensorFileWriter};
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

const INSPECT: &str = "inspect --data posters.safetensors --json --quiet";
const SHEET: &str = "inspect --data posters.safetensors -q --posters 5 --sheet sheet.png";
/// Each has another sheet than all others.
const SEEN: [&str; 7] = ["", "--seed 3", "--epoch 2", "--augment", "--crop 0.5", "--rotate 30", "--colour 0.5"];

#[test]
fn the_sheet_is_what_training_with_the_same_flags_sees() {
    assert_all_are_typed("inspect", [INSPECT, SHEET].into_iter().chain(SEEN));
    let place = Place::with_posters();
    let sheet = |words: &str| {
        place.run_to(0, &format!("{SHEET} {words}"));
        let bytes = fs::read(place.at("sheet.png")).unwrap();
        fs::remove_file(place.at("sheet.png")).unwrap();
        bytes
    };
    let sheets: Vec<Vec<u8>> = SEEN.iter().map(|words| sheet(words)).collect();
    assert_eq!(sheets.iter().collect::<BTreeSet<_>>().len(), SEEN.len());
    assert!(sheet(SEEN[4]) == sheets[4], "twice the same");

    let file = Arc::new(TensorFile::open(&place.at("posters.safetensors")).unwrap());
    let batch = |seed, epoch, augmentation, distortion| {
        let train = file.indices(Split::Train).into();
        Loader::train(Arc::clone(&file), train, 5, seed, epoch, 0, augmentation, distortion)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
    };
    let crop = Distortion { crop: 0.5, ..Distortion::default() };
    check_tiles(&sheet("--crop 0.5 --seed 3 --epoch 2"), &batch(3, 1, Augmentation::None, crop));
    // Evenly from the whole file, as they are.
    let evenly = Loader::in_order(Arc::clone(&file), vec![0, 4, 8, 12, 16].into(), 5).unwrap().next().unwrap().unwrap();
    check_tiles(&sheets[0], &evenly);
    check_tiles(&sheet("--seed 0"), &batch(0, 0, Augmentation::None, Distortion::default()));

    // More than there are is all there are; a page of HTML has them as well.
    let told = place.run_to(0, "inspect --data posters.safetensors --sheet sheet.html --posters 2000");
    assert!(told.stderr.ends_with("20 posters are on sheet.html\n"), "{}", told.stderr);
    let page = fs::read_to_string(place.at("sheet.html")).unwrap();
    assert_eq!(page.matches("<figure>").count(), 20);
    assert!(file.ids().iter().all(|id| page.contains(id.as_str())));

    for (words, why) in [
        ("--crop 0.5", "--sheet"),
        ("--posters 5", "--sheet"),
        ("--sheet sheet.jpg", "ends neither in .png nor in .html"),
        ("--sheet a.png --crop 1", "from 0 to below 1"),
        ("--sheet a.png --rotate 181", "from 0 to 180"),
    ] {
        let told = place.run_to(2, &format!("inspect --data posters.safetensors {words}"));
        assert!(told.stderr.contains(why), "{words}: {}", told.stderr);
    }
}

/// Asserts that the posters of a batch are on a sheet of five, each pixel of them four by four, from the upper left on.
fn check_tiles(png: &[u8], batch: &Batch) {
    let sheet = image::load_from_memory(png).unwrap().into_rgb8();
    let (gap, factor) = (8, 4);
    let cell = (SIDE * factor + gap) as u32;
    assert_eq!(sheet.width(), 5 * cell + gap as u32);
    for (tile, pixels) in batch.pixels.chunks(SIDE * SIDE * 3).enumerate() {
        for (at, pixel) in pixels.chunks(3).enumerate() {
            let (x, y) = ((at % SIDE * factor + gap) as u32 + tile as u32 * cell, (at / SIDE * factor + gap) as u32);
            assert_eq!(sheet.get_pixel(x + 1, y + 2).0, pixel, "tile {tile}, pixel {at}");
        }
    }
}

#[test]
fn what_is_said_of_a_file_is_what_is_in_it() {
    let place = Place::new();
    // Eight posters: two of one film, and one picture in two splits under two ids.
    let genres = ["War", "Drama"].map(String::from).to_vec();
    let provenance = [("resize".to_owned(), "area".to_owned())].into();
    let description = Description { size: 48, genres, capacity: 8, provenance };
    let mut writer = TensorFileWriter::create(&place.at("posters.safetensors"), description).unwrap();
    let drawn = |number| synthetic::draw(2, number, 48).0;
    for (number, (id, picture, labels, split)) in [
        ("1", 0, [1, 0], 0),
        ("2", 1, [1, 1], 0),
        ("tt0000002", 2, [1, 1], 0),
        ("4", 3, [0, 1], 1),
        ("5", 3, [0, 1], 2),
        ("6", 4, [0, 0], 2),
        ("7", 5, [0, 1], 0),
    ]
    .into_iter()
    .enumerate()
    {
        let pixels = if number == 6 { vec![200; 48 * 48 * 3] } else { drawn(picture) };
        writer.push(id, &pixels, &labels, Split::ALL[split]).unwrap();
    }
    writer.finish().unwrap();

    let lines = place.run_to(0, INSPECT).objects();
    let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["file", "genre", "genre", "repeated_film", "alike", "of_one_colour"]);
    assert!(lines.iter().all(|line| line["schema"] == 1));
    let [file, war, drama, repeated, alike, plain] = &lines[..] else { unreachable!() };
    assert_eq!(file["posters"], serde_json::json!({ "train": 4, "validation": 1, "test": 2 }));
    assert_eq!(
        (&file["films"], &file["leaks"], &file["size"], &file["data"]),
        (&6.into(), &1.into(), &48.into(), &"posters.safetensors".into())
    );
    assert_eq!(file["genres_of_a_poster"], serde_json::json!([1, 4, 2]));
    assert_eq!(war["posters"], serde_json::json!({ "train": 3, "validation": 0, "test": 0 }));
    assert_eq!(war["together"], serde_json::json!({ "War": 3, "Drama": 2 }));
    assert_eq!(drama["posters"], serde_json::json!({ "train": 3, "validation": 1, "test": 1 }));
    let places = |group: &serde_json::Value| -> Vec<u64> {
        group["posters"].as_array().unwrap().iter().map(|poster| poster["place"].as_u64().unwrap()).collect()
    };
    assert_eq!((places(repeated), &repeated["leak"], &repeated["films"]), (vec![1, 2], &false.into(), &1.into()));
    assert_eq!((places(alike), &alike["leak"], &alike["films"]), (vec![3, 4], &true.into(), &2.into()));
    assert_eq!(places(plain), [6]);
    assert_eq!(plain["posters"][0], serde_json::json!({ "place": 6, "id": "7", "split": "train" }));

    let told = place.run_to(0, "inspect --data posters.safetensors");
    assert_eq!(told.stderr, "");
    let expected = "\
posters.safetensors: 7 posters of 6 films, 48×48 pixels, 2 genres
made with resize area
genres of a poster: 1 have 0, 4 have 1, 2 have 2

genre         train   validation        test         all
War      3 (75.0 %)    0 (0.0 %)   0 (0.0 %)  3 (42.9 %)
Drama    3 (75.0 %)  1 (100.0 %)  1 (50.0 %)  5 (71.4 %)
posters           4            1           2           7

posters that have both genres
       War  Drama
War      3      2
Drama    2      5

films with more than one poster: 1
  2 (train), tt0000002 (train)

pictures that are there more than once: 1
  4 (validation), 5 (test)  ← a leak

pictures that stand for many films, as placeholders do: 0

posters of almost one colour: 1
  7 (train)

1 film or picture is in more than one split, and tests what was trained on
";
    assert_eq!(told.stdout, expected);

    // A file that is damaged is named, and so is one that is none.
    let mut bytes = fs::read(place.at("posters.safetensors")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(place.at("posters.safetensors"), bytes).unwrap();
    let told = place.run_to(3, "inspect --data posters.safetensors");
    assert!(told.stderr.contains("posters.safetensors") && told.stdout.is_empty(), "{told:?}");
    place.run_to(1, "inspect --data absent.safetensors");
}
