//! Checkpoints: what is written comes back, what was damaged is refused, and a disk that fails harms nothing.

mod hostile;

use onesheet::files::{Disk, Files, SaveError};
use onesheet::network::{NamedShape, resnet50};
use onesheet::training::checkpoint::{self, Checkpoint, CheckpointError, Metadata, Progress};
use onesheet::training::config::RunConfig;
use onesheet::training::experiment::Experiment;
use onesheet::training::tuning::Tuned;
use proptest::prelude::*;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

fn metadata() -> Metadata {
    Metadata {
        genres: ["Action", "Süß \"quoted\"", "Other"].map(String::from).to_vec(),
        thresholds: vec![0.3, 0.1 + 0.2, 1e-300],
        resize: "area".into(),
        exif: "apply".into(),
        alpha: "drop".into(),
        data_digest: "5e".repeat(32),
        tuned: Some(Tuned {
            thresholds: vec![0.25, 1e-9, 1.0],
            temperature: 0.1 + 0.2,
            posters: 3800,
            data_digest: "7a".repeat(32),
        }),
        progress: Progress {
            epoch: 3,
            step: 17,
            total_steps: 210,
            loss_sum: 0.1 + 0.7,
            left_out: 2,
            best: Some(1.0 / 3.0),
            stale: 1,
        },
        config: Experiment::ResnetTl.preset(resnet50::NETWORK),
    }
}

fn tensors() -> Vec<NamedShape> {
    let named = |name: &str, shape: &[usize]| (name.to_string(), shape.to_vec());
    vec![
        named("conv1_conv/kernel", &[4, 7, 7, 3]),
        named("conv1_conv/bias", &[4]),
        named("conv1_bn/moving_variance", &[4]),
        named("empty", &[0, 5]),
        named("genres/kernel", &[3, 128]),
        named("adam.m/genres/kernel", &[3, 128]),
        named("adam.v/genres/kernel", &[3, 128]),
    ]
}

/// Values that differ from tensor to tensor, negative zero and the smallest subnormal among them.
fn values(name: &str, salt: u32) -> Vec<f32> {
    let (_, shape) = tensors().into_iter().find(|(found, _)| found == name).unwrap();
    let seed = name.bytes().fold(salt, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let mut values: Vec<f32> = (0..shape.iter().product::<usize>() as u32)
        .map(|i| (seed.wrapping_mul(i + 1) >> 8) as f32 / 1e7 - 0.8)
        .collect();
    if values.len() > 2 {
        (values[0], values[1]) = (-0.0, f32::from_bits(1));
    }
    // Means of squares.
    if name.starts_with("adam.v/") || name.ends_with("/moving_variance") {
        values.iter_mut().for_each(|value| *value = value.abs());
    }
    values
}

fn save<F: Files>(files: &F, path: &Path, salt: u32) -> Result<(), CheckpointError> {
    checkpoint::write(files, path, &metadata(), &tensors(), |name| Ok::<_, CheckpointError>(values(name, salt)))
}

/// The bytes of a checkpoint, saved once: a save waits for the disk.
fn saved() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        save(&Disk, &path, 1).unwrap();
        fs::read(path).unwrap()
    })
}

fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

/// Whether the checkpoint at `path` is, to the bit, the one saved with `salt`.
fn holds(path: &Path, salt: u32) -> bool {
    let checkpoint = Checkpoint::open(path).unwrap();
    tensors().iter().all(|(name, _)| bits(checkpoint.values(name).unwrap()) == bits(values(name, salt)))
}

fn refused(path: &Path) -> CheckpointError {
    Checkpoint::open(path).expect_err("the file is refused")
}

#[test]
fn everything_comes_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    save(&Disk, &path, 1).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(*checkpoint.metadata(), metadata());
    assert_eq!(checkpoint.tensors(), tensors());
    checkpoint.check(&tensors()).unwrap();
    assert!(holds(&path, 1));
    save(&Disk, &path, 2).unwrap();
    assert!(holds(&path, 2), "a second save replaces the first");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn the_same_state_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    save(&Disk, &a, 5).unwrap();
    save(&Disk, &b, 5).unwrap();
    assert!(fs::read(a).unwrap() == fs::read(b).unwrap());
}

#[test]
fn a_model_without_the_optimiser_is_no_place_to_go_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let weights = &tensors()[..5];
    checkpoint::write(&Disk, &model, &metadata(), weights, |name| Ok::<_, CheckpointError>(values(name, 1))).unwrap();
    let model = Checkpoint::open(&model).unwrap();
    assert_eq!(model.tensors(), &tensors()[..5]);
    assert_eq!(*model.metadata(), metadata());
    for (name, _) in model.tensors() {
        assert_eq!(bits(model.values(name).unwrap()), bits(values(name, 1)), "{name}");
    }
    let error = model.check(&tensors()).unwrap_err();
    assert!(matches!(&error, CheckpointError::Missing { tensor, .. } if tensor == "adam.m/genres/kernel"));
    assert!(error.to_string().contains("resume from checkpoints/last.safetensors"), "{error}");
}

#[test]
fn another_shape_is_refused_with_both_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    save(&Disk, &path, 1).unwrap();
    let mut expected = tensors();
    expected[4].1 = vec![7, 128];
    let error = Checkpoint::open(&path).unwrap().check(&expected).unwrap_err().to_string();
    assert!(error.contains("genres/kernel") && error.contains("[3, 128]") && error.contains("[7, 128]"), "{error}");
    expected[4].0 = "genres/weights".into();
    let error = Checkpoint::open(&path).unwrap().check(&expected).unwrap_err().to_string();
    assert!(error.contains("has no tensor genres/weights"), "{error}");
}

#[test]
fn values_that_are_no_numbers_are_never_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    save(&Disk, &path, 1).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let poisoned = |name: &str| {
            let mut values = values(name, 2);
            if name == "genres/kernel" {
                values[100] = bad;
            }
            Ok::<_, CheckpointError>(values)
        };
        let error = checkpoint::write(&Disk, &path, &metadata(), &tensors(), poisoned).unwrap_err();
        assert!(matches!(&error, CheckpointError::NotFinite { tensor, .. } if tensor == "genres/kernel"), "{error}");
        assert!(holds(&path, 1), "the last good file stays");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn every_truncation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    save(&Disk, &path, 1).unwrap();
    let whole = fs::read(&path).unwrap();
    let head = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap());
    for end in (0..whole.len()).step_by(37).chain(whole.len() - 40..whole.len()) {
        fs::write(&path, &whole[..end]).unwrap();
        let error = refused(&path);
        // Only the first nine bytes leave any doubt about what the file was.
        let CheckpointError::Truncated { found, expected, .. } = error else {
            assert!(end < 9, "{end} bytes: {error}");
            continue;
        };
        // Without its whole header nobody knows what follows it.
        let known = if (end as u64) < head { head } else { whole.len() as u64 };
        assert_eq!((found, expected), (end as u64, known));
    }
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    let CheckpointError::Truncated { found, expected, .. } = refused(&path) else { panic!("one byte too many") };
    assert_eq!((found, expected), (whole.len() as u64 + 1, whole.len() as u64));
}

#[test]
fn a_header_of_more_than_sixteen_mebibytes_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    for (length, is_too_long) in [(16u64 << 20, false), ((16 << 20) + 1, true)] {
        fs::write(&path, length.to_le_bytes()).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(8 + length).unwrap();
        let error = refused(&path);
        assert_eq!(error.to_string().contains("a checkpoint's 16777216 at most"), is_too_long, "{length}: {error}");
    }
}

#[test]
fn foreign_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    // The last one begins as if a header of 1000 bytes followed, and none does.
    let short = b"\xe8\x03\0\0\0\0\0\0no header";
    for junk in [&b"PK\x03\x04 a zip file of something"[..], b"", b"\x89HDF\r\n\x1a\n", &[0xff; 64], short] {
        fs::write(&path, junk).unwrap();
        let error = refused(&path);
        assert!(matches!(error, CheckpointError::NotSafetensors { .. }), "{error}");
        assert!(error.to_string().contains("onesheet train"), "{error}");
    }
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap();
    fs::write(&path, safetensors::serialize([("w", view)], None).unwrap()).unwrap();
    assert!(matches!(refused(&path), CheckpointError::Foreign { .. }));
    let error = refused(folder.path());
    assert!(matches!(error, CheckpointError::Open { .. }) && error.to_string().contains("it is a folder"), "{error}");
    assert!(matches!(refused(&folder.path().join("absent")), CheckpointError::Open { .. }));
}

#[test]
fn a_later_version_asks_for_a_later_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    save(&Disk, &path, 1).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(11).position(|w| w == b"version = 1").unwrap() + 10;
    bytes[at] = b'2';
    fs::write(&path, bytes).unwrap();
    assert!(matches!(refused(&path), CheckpointError::Newer { found: 2, .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn a_flipped_bit_is_found_wherever_it_is(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let mut bytes = saved().to_vec();
        let head = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        match Checkpoint::open(&path) {
            // A bit of a name is a tensor of another name: it opens, and no model accepts it.
            Ok(checkpoint) => prop_assert!(at < head && checkpoint.check(&tensors()).is_err(), "byte {at}"),
            Err(error) if at >= head => prop_assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}"),
            Err(_) => {}
        }
    }
}

/// The disk until its n-th call, which fails.
struct FaultyDisk {
    calls_left: Cell<usize>,
    kind: ErrorKind,
    /// A write that fails has written half of its bytes first.
    short: bool,
}

struct FaultyFile<'a> {
    disk: &'a FaultyDisk,
    file: File,
}

impl FaultyDisk {
    fn call(&self) -> io::Result<()> {
        let left = self.calls_left.get();
        self.calls_left.set(left.saturating_sub(1));
        // Once the disk has failed it keeps failing, but for removing, which frees space.
        if left == 0 { Err(self.kind.into()) } else { Ok(()) }
    }
}

impl Write for FaultyFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.disk.call() {
            if self.disk.short {
                self.file.write_all(&bytes[..bytes.len() / 2])?;
            }
            return Err(error);
        }
        // Short writes are the rule on this disk, so that a save makes many calls.
        self.file.write(&bytes[..bytes.len().min(700)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<'a> Files for &'a FaultyDisk {
    type File = FaultyFile<'a>;

    fn create(&self, path: &Path) -> io::Result<FaultyFile<'a>> {
        self.call()?;
        Ok(FaultyFile { disk: self, file: Disk.create(path)? })
    }

    fn sync(&self, file: &FaultyFile<'a>) -> io::Result<()> {
        self.call()?;
        Disk.sync(&file.file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        Disk.rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.call()?;
        Disk.sync_folder(folder)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        Disk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        Disk.create_folder(path)
    }
}

/// Saves over an older checkpoint, failing the n-th call for n = 0, 1, … until a save goes through; returns how many
/// calls a save takes.
fn fail_every_call(kind: ErrorKind, short: bool) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    save(&Disk, &path, 1).unwrap();
    for n in 0.. {
        let disk = FaultyDisk { calls_left: Cell::new(n), kind, short };
        match save(&&disk, &path, 2) {
            Ok(()) => {
                assert!(holds(&path, 2));
                return n;
            }
            Err(CheckpointError::Save(SaveError::Untouched { path: named, cause, .. })) => {
                assert_eq!((named, cause.kind()), (path.clone(), kind), "call {n}");
                assert!(holds(&path, 1), "call {n}: the old file is intact");
            }
            Err(CheckpointError::Save(SaveError::NotDurable { .. })) => {
                assert!(holds(&path, 2), "call {n}: the new file is whole");
                save(&Disk, &path, 1).unwrap();
            }
            Err(error) => panic!("call {n}: {error}"),
        }
        let left: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, std::slice::from_ref(&path), "call {n}: nothing is left beside it");
    }
    unreachable!("some save goes through")
}

#[test]
fn a_disk_that_fails_at_any_call_harms_no_checkpoint() {
    for (kind, short) in [(ErrorKind::StorageFull, false), (ErrorKind::StorageFull, true), (ErrorKind::Other, false)] {
        let calls = fail_every_call(kind, short);
        assert!(calls > 10, "{calls} calls exercise writing, syncing and renaming");
    }
}
