//! The loader's promises: the same batches whatever the timing, from any step, and an end when asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use onesheet::data::Split;
use onesheet::data::augmentation::Augmentation;
use onesheet::data::distortion::Distortion;
use onesheet::data::loader::{Batch, Loader, LoaderError};
use onesheet::data::tensor_file::{Description, TensorFile, TensorFileError, TensorFileWriter};
use onesheet::device::Placement;
use tempfile::TempDir;

const SIZE: usize = 16;
const IMAGES: usize = 200;

/// 200 images, each filled with its number.
fn sample() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posters.safetensors");
    let description = Description {
        size: SIZE,
        genres: vec!["Even".into(), "Third".into()],
        capacity: IMAGES,
        provenance: BTreeMap::new(),
    };
    let mut writer = TensorFileWriter::create(&path, description).unwrap();
    for i in 0..IMAGES {
        writer.push(&i.to_string(), &[i as u8; SIZE * SIZE * 3], &labels(i), Split::Train).unwrap();
    }
    writer.finish().unwrap();
    (folder, path)
}

fn labels(i: usize) -> [u8; 2] {
    [u8::from(i.is_multiple_of(2)), u8::from(i.is_multiple_of(3))]
}

fn open(path: &Path) -> Arc<TensorFile> {
    Arc::new(TensorFile::open(path).unwrap())
}

/// Every second image, so that positions and indices differ.
fn odd() -> Arc<[u32]> {
    (0..IMAGES as u32).filter(|i| i % 2 == 1).collect()
}

fn train(file: &Arc<TensorFile>, batch: usize, seed: u64, epoch: u32, first_step: usize) -> Loader {
    Loader::train(
        Arc::clone(file),
        odd(),
        batch,
        seed,
        epoch,
        first_step,
        Augmentation::FlipShift,
        Distortion::default(),
    )
    .unwrap()
}

fn all(loader: Loader) -> Vec<Batch> {
    loader.map(Result::unwrap).collect()
}

#[test]
fn batches_hold_their_images_labels_and_placements() {
    let (_folder, path) = sample();
    let file = open(&path);
    let batches = all(train(&file, 8, 1, 2, 0));
    assert_eq!(batches.len(), 12);
    for batch in &batches {
        assert_eq!((batch.indices.len(), batch.placements.len()), (8, 8));
        assert_eq!((batch.pixels.len(), batch.labels.len()), (8 * SIZE * SIZE * 3, 8 * 2));
        for (row, &index) in batch.indices.iter().enumerate() {
            let pixels = &batch.pixels[row * SIZE * SIZE * 3..][..SIZE * SIZE * 3];
            assert!(pixels.iter().all(|&byte| byte == index as u8));
            assert_eq!(batch.labels[row * 2..][..2], labels(index as usize));
            assert_eq!(batch.placements[row], Augmentation::FlipShift.place(1, 2, index, SIZE));
        }
    }
}

#[test]
fn an_epoch_holds_every_index_once() {
    let (_folder, path) = sample();
    let file = open(&path);
    for (batch, left_out) in [(10, 0), (8, 4), (100, 0), (51, 49), (1, 0)] {
        let batches = all(train(&file, batch, 1, 0, 0));
        let seen: Vec<u32> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
        let distinct: BTreeSet<u32> = seen.iter().copied().collect();
        assert_eq!(seen.len(), 100 - left_out);
        assert_eq!(distinct.len(), seen.len());
        assert!(distinct.iter().all(|index| index % 2 == 1));
        assert!(batches.iter().all(|full| full.indices.len() == batch));
    }
}

#[test]
fn seeds_and_epochs_decide_and_nothing_else() {
    let (_folder, path) = sample();
    let file = open(&path);
    let base = all(train(&file, 8, 1, 0, 0));
    assert_eq!(base, all(train(&open(&path), 8, 1, 0, 0)));
    // Each of the two: the order, and for one and the same poster how it is placed.
    let order = |batches: &[Batch]| batches.iter().flat_map(|batch| batch.indices.clone()).collect::<Vec<_>>();
    let placed = |batches: &[Batch]| {
        let placements = batches.iter().flat_map(|batch| batch.indices.iter().copied().zip(batch.placements.clone()));
        placements.collect::<BTreeMap<u32, Placement>>()
    };
    for other in [train(&file, 8, 2, 0, 0), train(&file, 8, 1, 1, 0)].map(all) {
        let same = order(&base).iter().zip(order(&other)).filter(|(index, other)| *index == other).count();
        assert!(same < 10, "{same} of 96 posters are where they were");
        let (base, other) = (placed(&base), placed(&other));
        let both: Vec<u32> = base.keys().filter(|index| other.contains_key(index)).copied().collect();
        let same = both.iter().filter(|&index| base[index] == other[index]).count();
        // Of the 18 ways to place a poster of this size.
        assert!(both.len() >= 92 && same < 20, "{same} of {} posters lie as they did", both.len());
    }
    // A slow taker, who hands batches back at odd times.
    let mut loader = train(&file, 8, 1, 0, 0);
    let mut held = None;
    for (step, batch) in base.iter().enumerate() {
        let slow = loader.next().unwrap().unwrap();
        assert_eq!(&slow, batch);
        sleep(Duration::from_millis(step as u64 % 3));
        if let Some(earlier) = held.replace(slow) {
            loader.recycle(earlier);
        }
    }
    assert!(loader.next().is_none());
}

#[test]
fn an_epoch_resumes_at_any_step() {
    let (_folder, path) = sample();
    let file = open(&path);
    let whole = all(train(&file, 8, 1, 3, 0));
    for first in 0..=12 {
        let loader = train(&file, 8, 1, 3, first);
        assert_eq!(loader.len(), 12 - first);
        assert_eq!(all(loader), whole[first..]);
    }
    assert_eq!(all(train(&file, 8, 1, 3, usize::MAX)), []);
}

#[test]
fn evaluation_keeps_the_order_and_the_short_last_batch() {
    let (_folder, path) = sample();
    let loader = Loader::in_order(open(&path), odd(), 30).unwrap();
    assert_eq!(loader.len(), 4);
    let batches = all(loader);
    let sizes: Vec<usize> = batches.iter().map(|batch| batch.indices.len()).collect();
    assert_eq!(sizes, [30, 30, 30, 10]);
    assert_eq!(batches.iter().flat_map(|batch| batch.indices.clone()).collect::<Vec<_>>(), odd().to_vec());
    assert!(batches.iter().flat_map(|batch| &batch.placements).all(|place| *place == Placement::default()));
    assert_eq!(all(Loader::in_order(open(&path), odd(), 1000).unwrap()).len(), 1);
}

#[test]
fn recycled_buffers_come_round_again() {
    let (_folder, path) = sample();
    let mut loader = train(&open(&path), 4, 1, 0, 0);
    let mut addresses = BTreeSet::new();
    while let Some(batch) = loader.next() {
        let batch = batch.unwrap();
        addresses.insert(batch.pixels.as_ptr());
        loader.recycle(batch);
    }
    // Two waiting, one being filled, one here.
    assert!(addresses.len() <= 4, "{} buffers for 25 batches", addresses.len());
}

#[test]
fn dropping_early_does_not_hang() {
    let (_folder, path) = sample();
    let file = open(&path);
    for taken in 0..4 {
        let mut loader = train(&file, 4, 1, 0, 0);
        for _ in 0..taken {
            loader.next().unwrap().unwrap();
        }
        drop(loader);
    }
    // Its thread is gone, and with it the last other owner of the file.
    assert_eq!(Arc::strong_count(&file), 1);
}

#[test]
fn impossible_batches_are_typed_errors() {
    let (_folder, path) = sample();
    let start = |indices: &[u32], batch| {
        Loader::train(open(&path), indices.into(), batch, 1, 0, 0, Augmentation::None, Distortion::default())
            .map(drop)
            .unwrap_err()
    };
    let error = start(&[0, 1, 2], 4);
    assert!(matches!(error, LoaderError::BatchTooLarge { batch: 4, images: 3 }), "{error}");
    assert!(error.to_string().contains("a batch of 4 ") && error.to_string().contains(" 3 images"), "{error}");
    assert!(matches!(start(&[0], 0), LoaderError::EmptyBatch));
    assert!(matches!(start(&[], 1), LoaderError::NoImages));
    let evaluate = |indices: &[u32], batch| Loader::in_order(open(&path), indices.into(), batch).map(drop).unwrap_err();
    assert!(matches!(evaluate(&[0], 0), LoaderError::EmptyBatch));
    assert!(matches!(evaluate(&[], 1), LoaderError::NoImages));
}

#[test]
fn damage_ends_the_epoch_with_an_error() {
    let (_folder, path) = sample();
    // One bit in image 150, which is in the third block.
    let length = fs::metadata(&path).unwrap().len();
    let small = (IMAGES * 2 + IMAGES + 4 * 32) as u64;
    let place = length - small - (50 * SIZE * SIZE * 3) as u64;
    let mut disk = fs::OpenOptions::new().write(true).open(&path).unwrap();
    disk.seek(SeekFrom::Start(place)).unwrap();
    disk.write_all(&[150 ^ 1]).unwrap();
    let indices: Arc<[u32]> = (0..IMAGES as u32).collect();
    let file = open(&path);
    let mut loader = Loader::in_order(Arc::clone(&file), Arc::clone(&indices), 32).unwrap();
    for _ in 0..4 {
        loader.next().unwrap().unwrap();
    }
    let error = loader.next().unwrap().unwrap_err();
    assert!(matches!(error, LoaderError::File(TensorFileError::Damaged { .. })), "{error}");
    assert!(error.to_string().contains("images 128 to 191"), "{error}");
    assert!(loader.next().is_none());
    drop(loader);

    disk.set_len(length - 1).unwrap();
    let error = Loader::in_order(file, indices, 32).unwrap_err();
    assert!(matches!(error, LoaderError::File(TensorFileError::Length { .. })), "{error}");
}

/// As where a disk loses a bit: nobody wrote to the file.
#[test]
fn what_was_sound_in_one_epoch_is_looked_at_again_in_the_next() {
    let (_folder, path) = sample();
    let file = open(&path);
    assert_eq!(all(train(&file, 4, 1, 0, 0)).len(), 25);
    let mut bytes = fs::read(&path).unwrap();
    let images = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[images + 150 * SIZE * SIZE * 3] ^= 1;
    let mut disk = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let written = disk.metadata().unwrap().modified().unwrap();
    disk.write_all(&bytes).unwrap();
    disk.set_modified(written).unwrap();
    let error = train(&file, 4, 1, 1, 0).find_map(Result::err).unwrap();
    assert!(matches!(error, LoaderError::File(TensorFileError::Damaged { .. })), "{error}");
}

#[test]
#[should_panic(expected = "range")]
fn a_panic_of_the_thread_is_not_the_end_of_an_epoch() {
    let (_folder, path) = sample();
    all(Loader::in_order(open(&path), [0, IMAGES as u32].into(), 1).unwrap());
}
