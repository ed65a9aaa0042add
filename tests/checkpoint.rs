//! Checkpoints: what is written comes back, what was damaged is refused, and a disk that fails harms nothing.

use onesheet::files::{Disk, Files, SaveError};
use onesheet::training::checkpoint::{self, Checkpoint, CheckpointError, Metadata, NamedShape, Progress};
use onesheet::training::config::{Experiment, RunConfig};
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
        data_digest: "5e".repeat(32),
        progress: Progress { epoch: 3, step: 17, total_steps: 210, loss_sum: 0.1 + 0.7, best: Some(1.0 / 3.0) },
        config: RunConfig::preset(Experiment::ResnetTl),
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
    Checkpoint::open(path).err().expect("the file is refused")
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
    for end in (0..whole.len()).step_by(37).chain(whole.len() - 40..whole.len()) {
        fs::write(&path, &whole[..end]).unwrap();
        let error = refused(&path);
        // Only the first nine bytes leave any doubt about what the file was.
        assert!(end < 9 || matches!(error, CheckpointError::Truncated { .. }), "{end} bytes: {error}");
    }
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    let CheckpointError::Truncated { found, expected, .. } = refused(&path) else { panic!("one byte too many") };
    assert_eq!((found, expected), (whole.len() as u64 + 1, whole.len() as u64));
}

#[test]
fn foreign_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    for junk in [&b"PK\x03\x04 a zip file of something"[..], b"", b"\x89HDF\r\n\x1a\n", &[0xff; 64]] {
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

/// The saved checkpoint with one value of a tensor replaced, and with the digest that belongs to it.
fn crafted(tensor: &str, index: usize, value: f32) -> Vec<u8> {
    let mut bytes = saved().to_vec();
    let (header, head) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let place = |name: &str| head.info(name).unwrap().data_offsets;
    let (data, row) = (header + 8, head.offset_keys().iter().position(|name| name == tensor).unwrap());
    let ((start, end), (digests, _)) = (place(tensor), place("digests"));
    bytes[data + start + 4 * index..][..4].copy_from_slice(&value.to_le_bytes());
    let digest = blake3::hash(&bytes[data + start..data + end]);
    bytes[data + digests + 32 * row..][..32].copy_from_slice(digest.as_bytes());
    bytes
}

#[test]
fn values_that_would_poison_a_model_are_refused_whatever_the_digests_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    for (tensor, bad) in [
        ("conv1_conv/kernel", f32::NAN),
        ("genres/kernel", f32::INFINITY),
        ("adam.m/genres/kernel", f32::NEG_INFINITY),
        ("conv1_bn/moving_variance", -1e-6),
        ("adam.v/genres/kernel", -1.0),
    ] {
        fs::write(&path, crafted(tensor, 3, bad)).unwrap();
        let error = refused(&path);
        let is_named = matches!(&error, CheckpointError::Value { tensor: named, index: 3, .. } if named == tensor);
        assert!(is_named && error.to_string().contains("element 3"), "{tensor}: {error}");
    }
    // A weight may be negative, and what is put back is what was there.
    fs::write(&path, crafted("conv1_conv/kernel", 3, -1.0)).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().values("conv1_conv/kernel").unwrap()[3], -1.0);
}

/// Opens a checkpoint whose settings were changed, with the digest that belongs to them.
fn with_settings(change: impl FnOnce(&mut Metadata)) -> Result<Checkpoint, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let mut metadata = metadata();
    change(&mut metadata);
    checkpoint::write(&Disk, &path, &metadata, &tensors()[1..2], |name| Ok::<_, CheckpointError>(values(name, 1)))?;
    Checkpoint::open(&path)
}

#[test]
fn settings_that_no_run_has_are_refused_by_name() {
    type Change = fn(&mut Metadata);
    let cases: [(&str, Change); 24] = [
        ("image_size", |m| m.config.image_size = 4_000_000_000),
        ("image_size", |m| m.config.image_size = 30_000),
        ("image_size", |m| m.config.image_size = 0),
        ("batch", |m| m.config.batch = 0),
        ("learning_rate", |m| m.config.learning_rate = 0.0),
        ("learning_rate", |m| m.config.learning_rate = f64::NAN),
        ("learning_rate", |m| m.config.learning_rate = f64::INFINITY),
        ("warmup_epochs", |m| m.config.warmup_epochs = -1.0),
        ("warmup_epochs", |m| m.config.warmup_epochs = f64::INFINITY),
        ("momentum", |m| m.config.momentum = 1.0),
        ("momentum", |m| m.config.momentum = -0.1),
        ("threshold", |m| m.config.threshold = 1.5),
        ("a threshold", |m| m.thresholds[1] = f64::NAN),
        ("a threshold", |m| m.thresholds[2] = -0.1),
        ("thresholds", |m| m.thresholds.truncate(2)),
        ("genres", |m| (m.genres, m.thresholds) = (vec![], vec![])),
        ("genres", |m| (m.genres, m.thresholds) = (vec!["x".into(); 10_001], vec![0.5; 10_001])),
        ("genre's length", |m| m.genres[0] = "x".repeat(1001)),
        ("progress.epoch", |m| m.progress.epoch = 21),
        ("progress.step", |m| m.progress.step = 211),
        ("progress.total_steps", |m| m.progress.total_steps = 1 << 60),
        ("progress.loss_sum", |m| m.progress.loss_sum = f64::NAN),
        ("progress.best", |m| m.progress.best = Some(f64::INFINITY)),
        ("progress.best", |m| m.progress.best = Some(f64::NAN)),
    ];
    for (number, (setting, change)) in cases.into_iter().enumerate() {
        let error = with_settings(change).err().unwrap_or_else(|| panic!("case {number}, {setting}, passes"));
        let is_named = matches!(&error, CheckpointError::OutOfBounds { .. }) && error.to_string().contains(setting);
        assert!(is_named && error.to_string().contains("must be"), "case {number}: {error}");
    }
}

#[test]
fn settings_at_their_bounds_pass() {
    let at_bounds: [fn(&mut Metadata); 3] = [
        |m| {
            (m.config.image_size, m.config.batch, m.config.epochs) = (8, 1, 3);
            (m.config.momentum, m.config.threshold, m.config.warmup_epochs) = (0.0, 0.0, 0.0);
            m.thresholds = vec![0.0, 1.0, 0.5];
            m.progress.best = None;
        },
        |m| {
            (m.config.image_size, m.config.batch, m.config.epochs) = (1024, usize::MAX >> 1, u32::MAX);
            (m.config.momentum, m.config.threshold, m.config.learning_rate) = (1.0f64.next_down(), 1.0, f64::MAX);
            m.progress.best = Some(1.0);
        },
        |m| (m.genres, m.thresholds) = (vec!["x".repeat(1000); 10_000], vec![1.0; 10_000]),
    ];
    for change in at_bounds {
        with_settings(change).unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(RunConfig::default().check().is_ok() && RunConfig::demonstration().check().is_ok());
}

#[test]
fn pickles_are_refused_with_the_command_that_converts_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my model.pth");
    for bytes in [
        &b"PK\x03\x04\x00\x00\x08\x08\x00\x00archive/data.pkl\x80\x02}q\x00."[..],
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
        b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.",
    ] {
        fs::write(&path, bytes).unwrap();
        let error = refused(&path);
        let words = error.to_string();
        assert!(matches!(error, CheckpointError::Pickle { .. }) && words.contains("weights_only=True"), "{words}");
        assert!(words.contains("my model.safetensors'"), "not quoted for a shell: {words}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for path in [&pipe, Path::new("/dev/zero")] {
        let error = refused(path);
        assert!(matches!(error, CheckpointError::Open { .. }) && error.to_string().contains("not a file"), "{error}");
    }
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

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
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
