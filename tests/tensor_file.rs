//! The tensor file against other readers, truncation, flipped bits and hostile headers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use onesheet::data::Split;
use onesheet::data::tensor_file::{BLOCK, Description, MAX_ID, TensorFile, TensorFileError, TensorFileWriter};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

const SIZE: usize = 4;
const IMAGE: usize = SIZE * SIZE * 3;

fn description(capacity: usize) -> Description {
    Description {
        size: SIZE,
        genres: ["Action", "Drama", "Other"].map(String::from).to_vec(),
        capacity,
        provenance: BTreeMap::from([("table".into(), "a \"quoted\" näme.csv".into())]),
    }
}

fn image(i: usize) -> Vec<u8> {
    (0..IMAGE).map(|byte| (i * 31 + byte * 7) as u8).collect()
}

fn labels(i: usize) -> [u8; 3] {
    [(i % 2) as u8, (i % 3 == 0) as u8, 1]
}

fn split(i: usize) -> Split {
    Split::ALL[i % 3]
}

/// A file of `n` images in a folder of its own.
fn sample(n: usize) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posters.safetensors");
    let mut writer = TensorFileWriter::create(&path, description(n + 5)).unwrap();
    for i in 0..n {
        writer.push(&format!("tt{i:07}"), &image(i), &labels(i), split(i)).unwrap();
    }
    writer.finish().unwrap();
    (folder, path)
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The header of `bytes` as JSON, and the tensors behind it.
fn open_up(bytes: &[u8]) -> (Value, &[u8]) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), &bytes[8 + length..])
}

/// A file with `header` in front of `data`.
fn assemble(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Opens `bytes` as a file, which must be refused; the error must name the file.
fn refusal(folder: &Path, bytes: &[u8]) -> TensorFileError {
    let path = folder.join("hostile.safetensors");
    fs::write(&path, bytes).unwrap();
    let error = TensorFile::open(&path).expect_err("a hostile file opened");
    assert!(error.to_string().contains("hostile.safetensors"), "{error}");
    error
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
        assert_eq!(file.image_checked(i).unwrap(), image(i));
        assert_eq!(file.labels(i), labels(i));
        assert_eq!(file.split(i), split(i));
    }
    let train = file.indices(Split::Train);
    assert_eq!(train, (0..150).step_by(3).collect::<Vec<u32>>());
    assert_eq!(file.class_counts(&train), [25, 50, 50]);
    assert_eq!(file.class_counts(&[]), [0, 0, 0]);
    file.check_length().unwrap();
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
    let nowhere = folder.path().join("no/such/folder/posters.safetensors");
    assert!(matches!(TensorFileWriter::create(&nowhere, description(1)), Err(TensorFileError::Io { .. })));
    assert_eq!(names_in(folder.path()), [""; 0]);
}

#[test]
fn every_truncation_is_refused() {
    let (folder, path) = sample(130);
    let bytes = fs::read(&path).unwrap();
    for point in 0..200 {
        let error = refusal(folder.path(), &bytes[..bytes.len() * point / 200]);
        assert!(matches!(error, TensorFileError::NotSafetensors { .. } | TensorFileError::Length { .. }), "{error}");
    }
    for cut in [bytes.len() - 1, 7, 8, 9] {
        refusal(folder.path(), &bytes[..cut]);
    }
    let longer = refusal(folder.path(), &[&bytes[..], &[0]].concat());
    assert!(matches!(longer, TensorFileError::Length { .. }), "{longer}");
}

#[test]
fn a_file_cut_while_open_is_noticed_at_the_next_epoch() {
    let (_folder, path) = sample(130);
    let file = TensorFile::open(&path).unwrap();
    let length = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
    let error = file.check_length().unwrap_err();
    assert!(
        matches!(error, TensorFileError::Length { expected, found, .. } if (expected, found) == (length, length - 1))
    );
}

/// Every bit of the header and the small tensors, and bits all over the images.
#[test]
fn every_flipped_bit_is_found() {
    let (folder, path) = sample(130);
    let mut bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let images = header..header + 130 * IMAGE;
    for bit in (0..images.start * 8).step_by(5).chain(images.end * 8..bytes.len() * 8) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        refusal(folder.path(), &bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    for bit in (images.start * 8..images.end * 8).step_by(97) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let flipped = folder.path().join("flipped.safetensors");
        fs::write(&flipped, &bytes).unwrap();
        let file = TensorFile::open(&flipped).unwrap();
        let hurt = (bit / 8 - images.start) / IMAGE;
        for i in 0..130 {
            let whole = file.image_checked(i);
            assert_eq!(whole.is_ok(), i / BLOCK != hurt / BLOCK, "image {i}, bit in image {hurt}");
        }
        let error = file.image_checked(hurt).unwrap_err().to_string();
        assert!(error.contains(&format!("`tt{:07}`", hurt / BLOCK * BLOCK)), "{error}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn foreign_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = |bytes: &[u8]| refusal(folder.path(), bytes);
    for bytes in [&b""[..], b"{}", b"\x89PNG\r\n\x1a\n and so on", &[0; 4096], &[0xff; 4096]] {
        let error = refuse(bytes);
        assert!(matches!(error, TensorFileError::NotSafetensors { .. }), "{error}");
    }
    let weights = r#"{"conv1":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let other = r#"{"__metadata__":{"format":"pt"},"conv1":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    for header in [weights, other, r#"{"__metadata__":[]}"#, "[]", "null", "{}"] {
        let error = refuse(&assemble(header, &[0; 4]));
        assert!(matches!(error, TensorFileError::Foreign { .. }), "{error}");
    }
    let folder_error = TensorFile::open(folder.path()).unwrap_err();
    assert!(matches!(folder_error, TensorFileError::Io { .. }), "{folder_error}");
    let absent = TensorFile::open(&folder.path().join("absent")).unwrap_err();
    assert!(matches!(absent, TensorFileError::Io { action: "open", .. }), "{absent}");
}

#[test]
fn hostile_headers_are_typed_errors() {
    let (folder, path) = sample(3);
    let bytes = fs::read(&path).unwrap();
    let (header, data) = open_up(&bytes);
    let refuse = |header: &str| refusal(folder.path(), &assemble(header, data));
    // Reassembled untouched, the file opens: what follows is refused for what it changes.
    let untouched = folder.path().join("untouched");
    fs::write(&untouched, assemble(&header.to_string(), data)).unwrap();
    TensorFile::open(&untouched).unwrap();

    let changes: &[(&str, Value)] = &[
        ("/images/shape", json!([3, 4, 4])),
        ("/images/shape", json!([])),
        ("/images/shape", json!([u64::MAX, 4, 4, 3])),
        ("/images/shape", json!([u64::MAX / 48, 4, 4, 3])),
        ("/images/shape", json!([3, -4, 4, 3])),
        ("/images/shape", json!([3.0, 4, 4, 3])),
        ("/images/shape", json!([3, 4, 4, 1])),
        ("/images/shape", json!([2, 4, 4, 3])),
        ("/images/dtype", json!("F32")),
        ("/images/dtype", json!("U9")),
        ("/images/data_offsets", json!([0, u64::MAX])),
        ("/images/data_offsets", json!([144, 0])),
        ("/labels/shape", json!([3, 0])),
        ("/labels/shape", json!([3, 2])),
        ("/labels/data_offsets", json!([0, 9])),
        ("/split/shape", json!([4])),
        ("/digests/shape", json!([1, 31])),
        ("/__metadata__/size", json!("0")),
        ("/__metadata__/size", json!("18446744073709551615")),
        ("/__metadata__/size", json!("4x4")),
        ("/__metadata__/size", json!(4)),
        ("/__metadata__/version", json!("0")),
        ("/__metadata__/version", json!("one")),
    ];
    for (pointer, value) in changes {
        let mut changed = header.clone();
        *changed.pointer_mut(pointer).unwrap() = value.clone();
        let error = refuse(&changed.to_string());
        assert!(matches!(error, TensorFileError::Malformed { .. }), "{pointer} {value}: {error}");
    }
    for (pointer, value) in [
        ("/__metadata__/ids", json!("[]")),
        ("/__metadata__/genres", json!("[\"Action\",\"Drama\",\"Crime\"]")),
        ("/__metadata__/provenance", json!("{}")),
        ("/__metadata__/digest", json!("")),
    ] {
        let mut changed = header.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        let error = refuse(&changed.to_string());
        assert!(matches!(error, TensorFileError::Damaged { .. }), "{pointer}: {error}");
    }

    let mut newer = header.clone();
    newer["__metadata__"]["version"] = json!("2");
    newer["thumbnails"] = json!({});
    let error = refuse(&newer.to_string());
    assert!(matches!(error, TensorFileError::NewerVersion { found: 2, newest: 1, .. }), "{error}");

    let mut extra = header.clone();
    extra["conv1"] = header["split"].clone();
    assert!(matches!(refuse(&extra.to_string()), TensorFileError::Malformed { .. }));
    for name in ["images", "labels", "split", "digests"] {
        let mut fewer = header.clone();
        fewer.as_object_mut().unwrap().remove(name);
        assert!(matches!(refuse(&fewer.to_string()), TensorFileError::Malformed { .. }));
        let twice = format!("{{\"{name}\":{},{}", header[name], &header.to_string()[1..]);
        let error = refuse(&twice);
        assert!(error.to_string().contains("duplicate"), "{error}");
    }

    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for header in [deep.clone(), format!("{{\"x\":{deep}}}"), format!("{{\"__metadata__\":{deep}}}")] {
        refuse(&header);
    }
    for lie in [0, 1, data.len() as u64, 100_000_000, u64::MAX, u64::MAX - 8, 1 << 63] {
        let mut lying = bytes.clone();
        lying[..8].copy_from_slice(&lie.to_le_bytes());
        let error = refusal(folder.path(), &lying);
        assert!(matches!(error, TensorFileError::NotSafetensors { .. }), "{lie}: {error}");
    }
}

/// Contradictions under a digest that is right, as another program could write them.
#[test]
fn wrong_contents_with_a_right_digest_are_refused() {
    let (folder, path) = sample(3);
    let bytes = fs::read(&path).unwrap();
    let rewrite = |change: &dyn Fn(&mut Value, &mut [u8])| {
        let (mut header, data) = open_up(&bytes);
        let mut data = data.to_vec();
        change(&mut header, &mut data);
        let tensor = |name: &str| {
            let at = |end: usize| header[name]["data_offsets"][end].as_u64().unwrap() as usize;
            data[at(0)..at(1)].to_vec()
        };
        let strings = ["format", "version", "size", "genres", "ids", "provenance"]
            .map(|key| header["__metadata__"][key].as_str().unwrap().as_bytes().to_vec());
        let mut hasher = blake3::Hasher::new();
        for part in strings.into_iter().chain(["labels", "split", "digests"].map(tensor)) {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(&part);
        }
        header["__metadata__"]["digest"] = json!(hasher.finalize().to_hex().to_string());
        assemble(&header.to_string(), &data)
    };
    let unchanged = folder.path().join("unchanged");
    fs::write(&unchanged, rewrite(&|_, _| {})).unwrap();
    TensorFile::open(&unchanged).unwrap();

    let labels_at = 3 * IMAGE;
    let cases: [(&dyn Fn(&mut Value, &mut [u8]), &str); 6] = [
        (&|_, data| data[labels_at + 4] = 2, "image 1 (`tt0000001`) has a label 2"),
        (&|_, data| data[labels_at + 9 + 2] = 3, "image 2 (`tt0000002`) has split 3"),
        (&|header, _| header["__metadata__"]["ids"] = json!("[\"a\"]"), "1 ids for 3 images"),
        (&|header, _| header["__metadata__"]["genres"] = json!("[\"a\"]"), "1 genres for 3 label columns"),
        (&|header, _| header["__metadata__"]["ids"] = json!("{"), "ids: "),
        (&|header, _| header["__metadata__"]["provenance"] = json!("[]"), "provenance: "),
    ];
    for (change, words) in cases {
        let error = refusal(folder.path(), &rewrite(change));
        assert!(matches!(error, TensorFileError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_file_of_no_images_is_refused() {
    let (folder, path) = sample(3);
    let bytes = fs::read(&path).unwrap();
    let (mut header, _) = open_up(&bytes);
    for (name, shape) in
        [("images", json!([0, 4, 4, 3])), ("labels", json!([0, 3])), ("split", json!([0])), ("digests", json!([0, 32]))]
    {
        header[name] = json!({"dtype": "U8", "shape": shape, "data_offsets": [0, 0]});
    }
    let error = refusal(folder.path(), &assemble(&header.to_string(), &[]));
    assert!(matches!(error, TensorFileError::NoImages { .. }), "{error}");
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
            prop_assert_eq!(file.image_checked(i).unwrap(), &pixels(*bits)[..]);
            prop_assert_eq!(file.labels(i), &row(*bits)[..]);
            prop_assert_eq!(file.split(i), *split);
        }
        let theirs = fs::read(&path).unwrap();
        prop_assert!(safetensors::SafeTensors::deserialize(&theirs).is_ok());
    }

    #[test]
    fn rubbish_never_panics(length in 0u64..64, rubbish in prop::collection::vec(any::<u8>(), 0..64)) {
        let folder = tempfile::tempdir().unwrap();
        refusal(folder.path(), &[&length.to_le_bytes()[..], &rubbish].concat());
    }
}
