//! Files cut short, and single bits.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use onesheet::data::tensor_file::{Access, BLOCK, TensorFile, TensorFileError};

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
    let error = file.check_unchanged().unwrap_err();
    assert!(
        matches!(error, TensorFileError::Length { expected, found, .. } if (expected, found) == (length, length - 1))
    );
}

/// Flips one bit of a file in place; twice is as before.
fn flip(path: &Path, bit: usize) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    let place = SeekFrom::Start(bit as u64 / 8);
    file.seek(place).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(place).unwrap();
    file.write_all(&[byte[0] ^ 1 << (bit % 8)]).unwrap();
}

/// Bits all over the header, every bit of the small tensors, and bits all over the images.
#[test]
fn flipped_bits_are_found() {
    let (_folder, path) = sample(130);
    let bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let images = header..header + 130 * IMAGE;
    for bit in (0..images.start * 8).step_by(13).chain(images.end * 8..bytes.len() * 8) {
        flip(&path, bit);
        assert!(TensorFile::open(&path).is_err(), "bit {bit}");
        flip(&path, bit);
    }
    for bit in (images.start * 8..images.end * 8).step_by(197) {
        flip(&path, bit);
        let file = TensorFile::open(&path).unwrap();
        let hurt = (bit / 8 - images.start) / IMAGE;
        for i in 0..130 {
            assert_eq!(file.image_checked(i).is_ok(), i / BLOCK != hurt / BLOCK, "image {i}, bit in image {hurt}");
        }
        let error = file.image_checked(hurt).unwrap_err().to_string();
        assert!(error.contains(&format!("`tt{:07}`", hurt / BLOCK * BLOCK)), "{error}");
        flip(&path, bit);
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let file = TensorFile::open(&path).unwrap();
    assert!((0..130).all(|i| file.image_checked(i).is_ok()));
}

#[test]
fn what_another_program_writes_into_an_open_file_is_found() {
    for access in [Access::Map, Access::Read] {
        let (_folder, path) = sample(130);
        let file = TensorFile::open_for(&path, access).unwrap();
        assert!((0..130).all(|i| file.image_checked(i).is_ok()));
        let labels: Vec<_> = (0..130).map(|i| file.labels(i).to_vec()).collect();
        let mut bytes = fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[header..].iter_mut().for_each(|byte| *byte ^= 0xff);
        // So that the time differs where it is kept in coarse steps.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&bytes).unwrap();
        file.check_unchanged().unwrap();
        for (i, labels) in labels.iter().enumerate() {
            assert!(matches!(file.image_checked(i), Err(TensorFileError::Damaged { .. })), "{access:?}, image {i}");
            assert_eq!(file.labels(i), labels, "labels are in memory");
        }
        bytes[header..].iter_mut().for_each(|byte| *byte ^= 0xff);
        fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&bytes).unwrap();
        file.forget_checks();
        assert!((0..130).all(|i| file.image_checked(i).is_ok()), "{access:?}: mended");
    }
}

#[test]
fn read_by_calls_a_cut_file_is_an_error() {
    let (_folder, path) = sample(130);
    let file = TensorFile::open_for(&path, Access::Read).unwrap();
    assert_eq!(*file.image_checked(0).unwrap(), *crate::image(0));
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let error = file.image_checked(129).unwrap_err();
    assert!(matches!(error, TensorFileError::Length { found: 100, .. }), "{error}");
}

/// The process that the test below watches; alone, it has nothing to do with a broken map.
#[test]
#[ignore = "ends its process with exit code 3 where the variable names a file; alone, it only reads one"]
fn a_map_cut_short_while_it_is_read() {
    onesheet::files::mapped::name_faults(3).unwrap();
    let (_folder, own) = sample(130);
    let path = std::env::var_os("ONESHEET_CUT_FILE").map_or_else(|| own.clone(), Into::into);
    let file = TensorFile::open(&path).unwrap();
    if path != own {
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
    }
    assert!(file.image_checked(129).is_ok());
}

#[cfg(unix)]
#[test]
fn a_map_cut_short_names_its_file_and_ends_with_3() {
    let (_folder, path) = sample(130);
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "damage::a_map_cut_short_while_it_is_read", "--ignored"])
        .env("ONESHEET_CUT_FILE", &path)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains(&format!("{} was cut short", path.display())), "{stderr}");
}
