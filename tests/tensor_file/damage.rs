//! Files cut short, and single bits.

use std::fs;

use onesheet::data::tensor_file::{BLOCK, TensorFile, TensorFileError};

use crate::{IMAGE, refusal, sample};

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
