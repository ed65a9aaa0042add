//! Runs that are cut off: by a kill at any moment, by a disk, a data file or a checkpoint that fails. Nothing older than the save
//! interval is lost, and what goes on ends in the bits of a run that was left alone.

#[path = "support/runs.rs"]
mod runs;

use onesheet::data::loader::LoaderError;
use onesheet::data::tensor_file::TensorFileError;
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::{Checkpoint, CheckpointError};
use onesheet::training::config::RunConfig;
use onesheet::training::run_folder::{
    Resumed, RunFolder, RunFolderError, StepRow, best_checkpoint, last_checkpoint, step_checkpoint,
};
use onesheet::training::trainer::{Ending, Event};
use runs::{begin, config, go_on, posters, remains, rows, trainer};
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// Copies a run as it lies on the disk at this moment.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            fs::copy(path, copied).unwrap();
        }
    }
}

#[test]
fn cut_off_at_any_event_a_run_loses_one_interval_and_no_bit() {
    let folder = TempDir::new().unwrap();
    // An interval of nothing is a checkpoint a step.
    let whole = RunConfig { save_every: 0.0, ..config(&posters(folder.path())) };
    let straight = folder.path().join("straight");
    let (mut moments, mut done) = (Vec::new(), 0);
    let mut run = RunFolder::create(&straight, &whole).unwrap();
    let ending = trainer(&whole).unwrap().run(&mut run, &AtomicBool::new(false), &mut |event| {
        if let Event::Step { row, .. } = event {
            done = row.step;
        }
        let path = folder.path().join(format!("moment-{}", moments.len()));
        copy(&straight, &path);
        moments.push((path, done));
    });
    assert_eq!(ending.unwrap(), Ending::Finished);
    drop(run);
    assert_eq!(moments.len(), 2 * (8 + 1 + 1), "an event a step, one a validation, one an epoch");
    let expected = remains(&straight);
    for (path, done) in moments {
        let Resumed { folder, checkpoint, damaged, .. } = RunFolder::resume(&path).unwrap();
        assert!(damaged.is_empty());
        drop(folder);
        // The first event comes before the first checkpoint.
        let Some(checkpoint) = checkpoint else {
            assert_eq!(done, 1, "nothing is saved after step {done}");
            assert_eq!(begin(&whole, &path), Ending::Finished);
            assert!(remains(&path) == expected, "begun anew");
            continue;
        };
        let saved = checkpoint.metadata().progress.total_steps;
        assert!(saved + 1 >= done, "step {saved} is saved, {done} were done");
        assert_eq!(go_on(&whole, &path), Ending::Finished);
        assert!(remains(&path) == expected, "cut off after step {done}");
    }
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_taken() {
    let folder = TempDir::new().unwrap();
    let whole = RunConfig { save_every: 0.0, ..config(&posters(folder.path())) };
    let straight = folder.path().join("straight");
    begin(&whole, &straight);
    let path = folder.path().join("run");
    begin(&RunConfig { max_steps: Some(6), ..whole.clone() }, &path);
    let names = [last_checkpoint(&path), step_checkpoint(&path, 5), step_checkpoint(&path, 4)];
    for (index, name) in names.iter().enumerate() {
        assert_eq!(Checkpoint::open(name).unwrap().metadata().progress.total_steps, 6 - index as u64);
    }
    let harm = |name: &Path, cut: bool| {
        let mut bytes = fs::read(name).unwrap();
        let middle = bytes.len() / 2;
        if cut {
            bytes.truncate(middle);
        } else {
            bytes[middle] ^= 1;
        }
        fs::remove_file(name).unwrap();
        fs::write(name, bytes).unwrap();
    };
    harm(&names[0], false);
    harm(&names[1], true);
    let Resumed { folder: held, checkpoint, damaged, .. } = RunFolder::resume(&path).unwrap();
    assert_eq!(checkpoint.unwrap().metadata().progress.total_steps, 4);
    assert_eq!((held.saved_step(), damaged.len()), (Some(4), 2));
    for (error, name) in damaged.iter().zip(&names) {
        assert!(error.to_string().contains(&name.display().to_string()), "{error}");
    }
    drop(held);

    // All three of them: the run says so, and does not begin anew over what could be mended.
    let lost = folder.path().join("lost");
    copy(&path, &lost);
    harm(&step_checkpoint(&lost, 4), true);
    let error = RunFolder::resume(&lost).unwrap_err();
    assert!(matches!(&error, RunFolderError::AllDamaged { damaged, .. } if damaged.len() == 3), "{error}");
    assert!(matches!(RunFolder::create(&lost, &whole), Err(RunFolderError::Taken { .. })));

    assert_eq!(go_on(&whole, &path), Ending::Finished);
    assert!(remains(&path) == remains(&straight));
    assert!(
        Checkpoint::open(&step_checkpoint(&path, 15)).is_ok() && Checkpoint::open(&step_checkpoint(&path, 14)).is_ok()
    );
    assert!(!names[1].exists(), "the damaged ones are gone");
}

/// The run does not go on as if it had kept its best.
#[test]
fn an_epoch_whose_best_weights_cannot_be_saved_is_not_over() {
    let folder = TempDir::new().unwrap();
    let whole = config(&posters(folder.path()));
    let (straight, path) = (folder.path().join("straight"), folder.path().join("run"));
    begin(&whole, &straight);
    let mut run = RunFolder::create(&path, &whole).unwrap();
    let in_its_place = best_checkpoint(&path);
    fs::create_dir(&in_its_place).unwrap();
    let mut trainer = trainer(&whole).unwrap();
    let error = trainer.run(&mut run, &AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(matches!(&error, TrainingError::Checkpoint(CheckpointError::Save(_))), "{error}");
    assert!(error.to_string().contains("best.safetensors"), "{error}");
    drop(run);
    let saved = Checkpoint::open(&last_checkpoint(&path)).unwrap().metadata().progress;
    assert_eq!((saved.epoch, saved.step, saved.best), (0, 8, None));
    fs::remove_dir(in_its_place).unwrap();
    assert_eq!(go_on(&whole, &path), Ending::Finished);
    assert!(remains(&path) == remains(&straight));

    // The best is saved first: killed behind it, the run ends the epoch once more.
    let path = folder.path().join("unsaved");
    let mut run = RunFolder::create(&path, &whole).unwrap();
    fs::create_dir(last_checkpoint(&path)).unwrap();
    let error = runs::trainer(&whole).unwrap().run(&mut run, &AtomicBool::new(false), &mut |_| {});
    assert!(error.unwrap_err().to_string().contains("last.safetensors"));
    assert_eq!(Checkpoint::open(&best_checkpoint(&path)).unwrap().metadata().progress.epoch, 1);
}

/// All that is lost with `config.toml` is the history.
#[test]
fn settings_that_cannot_be_read_are_those_of_the_checkpoint() {
    let folder = TempDir::new().unwrap();
    let whole = config(&posters(folder.path()));
    let straight = folder.path().join("straight");
    begin(&whole, &straight);
    let path = folder.path().join("run");
    begin(&RunConfig { max_steps: Some(3), ..whole.clone() }, &path);
    let settings = path.join("config.toml");
    let sound = fs::read_to_string(&settings).unwrap();
    let read = || {
        let Resumed { checkpoint, damaged, config, .. } = RunFolder::resume(&path).unwrap();
        assert!(damaged.is_empty());
        (checkpoint.unwrap().metadata().config.max_steps, config.map(|config| config.max_steps))
    };
    assert_eq!(read(), (Some(3), Some(Some(3))));
    for bad in [sound.replace("batch = 8", "batch = 0"), sound[..sound.len() / 2].into(), "batch".into()] {
        fs::write(&settings, bad).unwrap();
        assert_eq!(read(), (Some(3), None));
    }
    fs::remove_file(&settings).unwrap();
    assert_eq!(read(), (Some(3), None));
    assert_eq!(go_on(&whole, &path), Ending::Finished);
    assert!(remains(&path) == remains(&straight));

    // Without a checkpoint there is nothing that says them.
    let checkpoints = path.join("checkpoints");
    fs::remove_dir_all(&checkpoints).unwrap();
    assert!(matches!(RunFolder::resume(&path), Err(RunFolderError::NoRun { .. })));
    fs::write(&settings, sound.replace("batch = 8", "batch = 0")).unwrap();
    let error = RunFolder::resume(&path).unwrap_err();
    assert!(matches!(error, RunFolderError::Settings { .. }) && error.to_string().contains("batch is 0"), "{error}");
    // Where they are sound the run begins anew, and has a place to save to.
    fs::write(&settings, sound).unwrap();
    let Resumed { checkpoint, config, .. } = RunFolder::resume(&path).unwrap();
    assert!(checkpoint.is_none() && config.is_some() && checkpoints.is_dir());
}

/// Whatever ends a run with an error, what it has done is saved first.
#[test]
fn a_data_file_changed_under_a_run_ends_it_saved() {
    let folder = TempDir::new().unwrap();
    let whole = config(&posters(folder.path()));
    let straight = folder.path().join("straight");
    begin(&whole, &straight);
    let expected = remains(&straight);
    let data = whole.data.as_deref().unwrap();
    let sound = fs::read(data).unwrap();
    let header = 8 + u64::from_le_bytes(*sound.first_chunk().unwrap()) as usize;
    let flipped: Vec<u8> = sound.iter().enumerate().map(|(at, byte)| if at < header { *byte } else { !byte }).collect();
    for (name, bytes) in [("flipped", &flipped[..]), ("cut", &sound[..sound.len() - 1])] {
        let path = folder.path().join(name);
        let mut run = RunFolder::create(&path, &whole).unwrap();
        let mut trainer = trainer(&whole).unwrap();
        let error = trainer.run(&mut run, &AtomicBool::new(false), &mut |event| {
            if matches!(event, Event::Step { row: StepRow { step: 2, .. }, .. }) {
                // In place, as a careless copy does it.
                let file = fs::OpenOptions::new().write(true).truncate(false).open(data).unwrap();
                std::io::Write::write_all(&mut &file, bytes).unwrap();
                file.set_len(bytes.len() as u64).unwrap();
            }
        });
        let error = error.unwrap_err();
        let found = match &error {
            TrainingError::Loader(LoaderError::File(error)) => error,
            error => panic!("{name}: {error}"),
        };
        let right = match name {
            "cut" => matches!(found, TensorFileError::Length { .. }),
            _ => matches!(found, TensorFileError::Damaged { .. }),
        };
        assert!(right, "{name}: {error}");
        let steps = trainer.progress().total_steps;
        assert!((2..8).contains(&steps), "{name}: noticed after step {steps}");
        assert_eq!(run.saved_step(), Some(steps), "{name}");
        drop(run);
        fs::write(data, &sound).unwrap();
        assert_eq!(rows::<StepRow>(&path.join("steps.csv")).len() as u64, steps);
        assert_eq!(go_on(&whole, &path), Ending::Finished);
        assert!(remains(&path) == expected, "{name}");
    }
}
