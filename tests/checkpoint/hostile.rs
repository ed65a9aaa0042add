//! Checkpoints that somebody made on purpose: digests that are right around values and settings that are not, and what is no
//! checkpoint at all.

use super::*;
use onesheet::network::Trainable;

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

#[test]
fn inference_looks_at_the_model_and_not_at_the_moments() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let (header, head) = safetensors::SafeTensors::read_metadata(saved()).unwrap();
    for (tensor, is_moment) in [
        ("conv1_conv/kernel", false),
        ("conv1_bn/moving_variance", false),
        ("adam.m/genres/kernel", true),
        ("adam.v/genres/kernel", true),
    ] {
        let mut bytes = saved().to_vec();
        bytes[header + 8 + head.info(tensor).unwrap().data_offsets.0] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(refused(&path), CheckpointError::Damaged { part, .. } if part == tensor));
        match Checkpoint::open_model(&path) {
            Ok(_) => assert!(is_moment, "{tensor}"),
            Err(error) => assert!(!is_moment && error.to_string().contains(tensor), "{error}"),
        }
    }
    fs::write(&path, crafted("genres/kernel", 3, f32::NAN)).unwrap();
    assert!(matches!(Checkpoint::open_model(&path), Err(CheckpointError::Value { .. })));
}

/// The header is under no digest, so what it says of the table of digests is looked at by itself.
#[test]
fn digests_of_another_form_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let (_, head) = safetensors::SafeTensors::read_metadata(saved()).unwrap();
    let rows = head.info("digests").unwrap().shape[0];
    let changes = [
        (r#""digests":{"dtype":"U8""#.to_owned(), r#""digests":{"dtype":"I8""#.to_owned()),
        (format!("[{rows},32]"), format!("[32,{rows}]")),
    ];
    for (written, instead) in changes {
        let mut bytes = saved().to_vec();
        let at = bytes.windows(written.len()).position(|window| window == written.as_bytes()).expect(&written);
        bytes[at..][..instead.len()].copy_from_slice(instead.as_bytes());
        fs::write(&path, bytes).unwrap();
        let error = refused(&path);
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{instead}: {error}");
    }
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

fn tuned(metadata: &mut Metadata) -> &mut Tuned {
    metadata.tuned.as_mut().unwrap()
}

#[test]
fn settings_that_no_run_has_are_refused_by_name() {
    type Change = fn(&mut Metadata);
    let cases: [(&str, Change); 43] = [
        ("image_size", |m| m.config.image_size = 4_000_000_000),
        ("image_size", |m| m.config.image_size = 30_000),
        ("image_size", |m| m.config.image_size = 0),
        ("trainable", |m| m.config.trainable = Trainable::Last(177)),
        ("trainable", |m| m.config.trainable = Trainable::Last(usize::MAX >> 1)),
        ("batch", |m| m.config.batch = 0),
        ("learning_rate", |m| m.config.learning_rate = 0.0),
        ("learning_rate", |m| m.config.learning_rate = f64::NAN),
        ("learning_rate", |m| m.config.learning_rate = f64::INFINITY),
        ("warmup_epochs", |m| m.config.warmup_epochs = -1.0),
        ("warmup_epochs", |m| m.config.warmup_epochs = f64::INFINITY),
        ("save_every", |m| m.config.save_every = -1.0),
        ("save_every", |m| m.config.save_every = 1e6),
        ("keep_best", |m| m.config.keep_best = 0),
        ("momentum", |m| m.config.momentum = 1.0),
        ("momentum", |m| m.config.momentum = -0.1),
        ("threshold", |m| m.config.threshold = 1.5),
        ("a threshold", |m| m.thresholds[1] = f64::NAN),
        ("a threshold", |m| m.thresholds[2] = -0.1),
        ("thresholds", |m| m.thresholds.truncate(2)),
        ("the number of tuned thresholds", |m| tuned(m).thresholds.truncate(2)),
        ("a tuned threshold", |m| tuned(m).thresholds[1] = f64::NAN),
        ("a tuned threshold", |m| tuned(m).thresholds[2] = 1.5),
        ("tuned.temperature", |m| tuned(m).temperature = 0.0),
        ("tuned.temperature", |m| tuned(m).temperature = f64::NAN),
        ("tuned.temperature", |m| tuned(m).temperature = 100.5),
        ("genres", |m| (m.genres, m.thresholds) = (vec![], vec![])),
        ("genres", |m| (m.genres, m.thresholds) = (vec!["x".into(); 10_001], vec![0.5; 10_001])),
        ("genre's length", |m| m.genres[0] = "x".repeat(1001)),
        ("progress.epoch", |m| m.progress.epoch = 21),
        ("progress.step", |m| m.progress.step = 211),
        ("progress.total_steps", |m| m.progress.total_steps = 1 << 60),
        ("progress.total_steps", |m| m.progress.total_steps = (1 << 53) + 1),
        ("progress.left_out", |m| m.progress.left_out = m.progress.step + 1),
        ("progress.stale", |m| m.progress.stale = m.progress.epoch + 1),
        ("patience", |m| m.config.patience = Some(0)),
        ("time_limit", |m| m.config.time_limit = Some(0.0)),
        ("accumulate", |m| m.config.recipe.accumulate = 0),
        ("ema", |m| m.config.recipe.ema = 1.0),
        ("progress.loss_sum", |m| m.progress.loss_sum = f64::NAN),
        ("progress.loss_sum", |m| m.progress.loss_sum = -0.5),
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
    let at_bounds: [fn(&mut Metadata); 4] = [
        |m| {
            (m.config.image_size, m.config.batch, m.config.epochs) = (8, 1, 3);
            (m.config.momentum, m.config.threshold, m.config.warmup_epochs) = (0.0, 0.0, 0.0);
            m.thresholds = vec![0.0, 1.0, 0.5];
            m.progress.best = None;
            tuned(m).temperature = 0.01;
        },
        |m| {
            (m.config.image_size, m.config.batch, m.config.epochs) = (1024, usize::MAX >> 1, u32::MAX);
            (m.config.momentum, m.config.threshold, m.config.learning_rate) = (1.0f64.next_down(), 1.0, f64::MAX);
            m.progress.best = Some(1.0);
        },
        |m| {
            (m.genres, m.thresholds) = (vec!["x".repeat(1000); 10_000], vec![1.0; 10_000]);
            (tuned(m).thresholds, tuned(m).temperature) = (vec![0.0; 10_000], 100.0);
        },
        |m| {
            let (steps, epoch) = (1 << 53, m.config.epochs);
            m.progress = Progress {
                epoch,
                step: steps,
                total_steps: steps,
                loss_sum: 0.0,
                left_out: steps,
                best: None,
                stale: 0,
            };
        },
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
