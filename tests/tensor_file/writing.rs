//! What goes in comes out, and what does not fit is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use onesheet::data::Split;
use onesheet::data::tensor_file::{
    BLOCK, Description, MAX_ID, TensorFile, TensorFileError, TensorFileWriter, begins_like_one,
};
use proptest::prelude::*;

use crate::{IMAGE, SIZE, description, image, labels, sample, split};

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_pushed_is_read_back() {
    let (folder, path) = sample(150);
    assert_eq!(names_in(folder.path()), ["posters.safetensors"]);
    let file = TensorFile::open(&path).unwrap();
    assert_eq!((file.len(), file.size()), (150, SIZE));
    assert_eq!(file.genres(), ["Action", "Drama", "Other"]);
    assert_eq!(file.provenance()["table"], "a \"quoted\" näme.csv");
    for i in 0..150 {
        assert_eq!(file.ids()[i], format!("tt{i:07}"));
        assert_eq!(*file.image_checked(i).unwrap(), *image(i));
        assert_eq!(file.labels(i), labels(i));
        assert_eq!(file.split(i), split(i));
    }
    let train = file.indices(Split::Train);
    assert_eq!(train, (0..150).step_by(3).collect::<Vec<u32>>());
    assert_eq!(file.class_counts(&train), [25, 50, 50]);
    assert_eq!(file.class_counts(&[]), [0, 0, 0]);
    file.check_unchanged().unwrap();
}

/// The safetensors crate shares no code with our reader.
#[test]
fn other_readers_see_the_same_tensors() {
    let (_folder, path) = sample(70);
    let bytes = fs::read(&path).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| theirs.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape("images"), [70, SIZE, SIZE, 3]);
    assert_eq!(shape("labels"), [70, 3]);
    assert_eq!(shape("split"), [70]);
    assert_eq!(shape("digests"), [2, 32]);
    assert_eq!(&theirs.tensor("images").unwrap().data()[69 * IMAGE..], image(69));
    assert_eq!(&theirs.tensor("labels").unwrap().data()[69 * 3..], labels(69));
    let digest = blake3::hash(&theirs.tensor("images").unwrap().data()[BLOCK * IMAGE..]);
    assert_eq!(&theirs.tensor("digests").unwrap().data()[32..], digest.as_bytes());
}

#[test]
fn a_file_of_posters_is_known_by_its_beginning() {
    let (folder, path) = sample(3);
    assert!(begins_like_one(&path).unwrap());
    let other = folder.path().join("other");
    for content in [&b""[..], b"line,id", &fs::read(&path).unwrap()[1..]] {
        fs::write(&other, content).unwrap();
        assert!(!begins_like_one(&other).unwrap());
    }
}

#[test]
fn a_writer_dropped_unfinished_leaves_nothing() {
    let (folder, path) = sample(3);
    let before = fs::read(&path).unwrap();
    let mut writer = TensorFileWriter::create(&path, description(9)).unwrap();
    writer.push("new", &image(7), &labels(7), Split::Test).unwrap();
    assert_eq!(names_in(folder.path()), ["posters.safetensors", "posters.safetensors.partial"]);
    let second = TensorFileWriter::create(&path, description(9)).unwrap_err();
    assert!(matches!(second, TensorFileError::Busy { .. }), "{second}");
    drop(writer);
    assert_eq!(names_in(folder.path()), ["posters.safetensors"]);
    assert_eq!(fs::read(&path).unwrap(), before);

    let empty = TensorFileWriter::create(&path, description(9)).unwrap().finish().unwrap_err();
    assert!(matches!(empty, TensorFileError::NoImages { .. }), "{empty}");
    assert_eq!(names_in(folder.path()), ["posters.safetensors"]);
}

#[test]
fn rows_that_do_not_fit_are_refused_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posters.safetensors");
    let mut writer = TensorFileWriter::create(&path, description(2)).unwrap();
    let long = "x".repeat(MAX_ID + 1);
    for (id, pixels, row, word) in [
        ("a", &image(0)[1..], &labels(0)[..], "bytes"),
        ("a", &image(0)[..], &[1, 0][..], "genres"),
        ("a", &image(0)[..], &[1, 0, 2][..], "0 or 1"),
        (&long, &image(0)[..], &labels(0)[..], "longer"),
        (&"\"".repeat(MAX_ID), &image(0)[..], &labels(0)[..], "longer"),
    ] {
        let error = writer.push(id, pixels, row, Split::Train).unwrap_err();
        assert!(matches!(error, TensorFileError::Row { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    writer.push(&long[1..], &image(0), &labels(0), Split::Train).unwrap();
    writer.push(&"\"".repeat(MAX_ID / 4), &image(1), &labels(1), Split::Train).unwrap();
    assert!(writer.push("c", &image(2), &labels(2), Split::Train).is_err(), "beyond capacity");
    writer.finish().unwrap();
    assert_eq!(TensorFile::open(&path).unwrap().ids()[0], long[1..]);
}

#[test]
fn impossible_plans_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posters.safetensors");
    let create = |change: fn(&mut Description)| {
        let mut plan = description(10);
        change(&mut plan);
        TensorFileWriter::create(&path, plan).map(drop)
    };
    assert!(matches!(create(|d| d.size = 0), Err(TensorFileError::Description { .. })));
    assert!(matches!(create(|d| d.size = usize::MAX), Err(TensorFileError::Description { .. })));
    assert!(matches!(create(|d| d.genres.clear()), Err(TensorFileError::Description { .. })));
    assert!(matches!(create(|d| d.capacity = 1 << 40), Err(TensorFileError::Description { .. })));
    assert!(matches!(create(|d| d.capacity = 0), Err(TensorFileError::NoImages { .. })));
    // More bytes than any disk has; nothing is written of them.
    let no_space = create(|d| (d.size, d.capacity) = (60_000, 1_000_000)).unwrap_err();
    assert!(matches!(no_space, TensorFileError::NoSpace { .. }), "{no_space}");
    assert!(no_space.to_string().contains("posters.safetensors may take 10800"), "{no_space}");
    let nowhere = folder.path().join("no/such/folder/posters.safetensors");
    assert!(matches!(TensorFileWriter::create(&nowhere, description(1)), Err(TensorFileError::Io { .. })));
    assert_eq!(names_in(folder.path()), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_films_survive(
        size in 1usize..6,
        genres in 1usize..9,
        spare in 0usize..100,
        films in prop::collection::vec((".{0,10}", any::<u64>(), 0usize..3), 1..140),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any.safetensors");
        let names: Vec<String> = (0..genres).map(|genre| format!("genre \"{genre}\"")).collect();
        let plan = Description { size, genres: names.clone(), capacity: films.len() + spare, provenance: BTreeMap::new() };
        let pixels = |bits: u64| -> Vec<u8> { (0..size * size * 3).map(|i| (bits.rotate_left(i as u32 * 5)) as u8).collect() };
        let row = |bits: u64| -> Vec<u8> { (0..genres).map(|genre| (bits >> genre & 1) as u8).collect() };
        let mut writer = TensorFileWriter::create(&path, plan).unwrap();
        let mut kept = Vec::new();
        for (id, bits, split) in films {
            match writer.push(&id, &pixels(bits), &row(bits), Split::ALL[split]) {
                Ok(()) => kept.push((id, bits, Split::ALL[split])),
                // Control characters grow when they are escaped twice.
                Err(error) => prop_assert!(error.to_string().contains("longer"), "{}", error),
            }
        }
        if kept.is_empty() {
            let refused = matches!(writer.finish(), Err(TensorFileError::NoImages { .. }));
            prop_assert!(refused);
            return Ok(());
        }
        writer.finish().unwrap();
        let file = TensorFile::open(&path).unwrap();
        prop_assert_eq!(file.len(), kept.len());
        prop_assert_eq!(file.genres(), &names[..]);
        for (i, (id, bits, split)) in kept.iter().enumerate() {
            prop_assert_eq!(&file.ids()[i], id);
            prop_assert_eq!(&*file.image_checked(i).unwrap(), &pixels(*bits)[..]);
            prop_assert_eq!(file.labels(i), &row(*bits)[..]);
            prop_assert_eq!(file.split(i), *split);
        }
        let theirs = fs::read(&path).unwrap();
        prop_assert!(safetensors::SafeTensors::deserialize(&theirs).is_ok());
    }
}
