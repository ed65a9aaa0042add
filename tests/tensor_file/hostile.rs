//! Other programs' files, and headers made to mislead.

use std::fs;

use onesheet::data::tensor_file::{TensorFile, TensorFileError};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{IMAGE, refusal, sample};

/// Where the labels of a file of three images begin.
const LABELS: usize = 3 * IMAGE;

/// A change to the header and the data.
type Change = dyn Fn(&mut Value, &mut [u8]);

/// The header of `bytes` as JSON, and the tensors behind it.
fn open_up(bytes: &[u8]) -> (Value, &[u8]) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), &bytes[8 + length..])
}

/// A file with `header` in front of `data`.
fn assemble(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
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
    let rewrite = |change: &Change| {
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

    let cases: [(&Change, &str); 6] = [
        (&|_, data| data[LABELS + 4] = 2, "image 1 (`tt0000001`) has a label 2"),
        (&|_, data| data[LABELS + 9 + 2] = 3, "image 2 (`tt0000002`) has split 3"),
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
    fn rubbish_never_panics(length in 0u64..64, rubbish in prop::collection::vec(any::<u8>(), 0..64)) {
        let folder = tempfile::tempdir().unwrap();
        refusal(folder.path(), &[&length.to_le_bytes()[..], &rubbish].concat());
    }
}
