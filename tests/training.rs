//! Whole runs of a miniature network: what is stopped goes on to the same bits, and what cannot go on says why.

#[path = "support/faulty.rs"]
mod faulty;
#[path = "training/recipe.rs"]
mod recipe;
#[path = "support/runs.rs"]
mod runs;

use faulty::Faulty;
use onesheet::data::tensor_file::{Description, TensorFile, TensorFileWriter};
use onesheet::data::{Split, synthetic};
use onesheet::device::cpu::Cpu;
use onesheet::network::{Network, Trainable, resnet50, resnet50_v1_5};
use onesheet::training::TrainingError;
use onesheet::training::checkpoint::{Checkpoint, CheckpointError};
use onesheet::training::config::RunConfig;
use onesheet::training::learner::{Keep, Learner};
use onesheet::training::run_folder::{
    EpochRow, RunFolder, StepRow, best_checkpoint, epoch_checkpoint, last_checkpoint,
};
use onesheet::training::trainer::{Ending, Event, Trainer};
use runs::{begin, config, go_on, posters, remains, resumed, rows, trainer};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

#[test]
fn a_run_stopped_at_any_step_goes_on_to_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let posters = posters(folder.path());
    let mut best_epochs = Vec::new();
    // Everywhere once; and with other seeds, of which some are at their best after the first epoch, around its end.
    for (seed, stops) in [(3, (1..16).collect()), (4, vec![1, 8, 9, 15]), (7, vec![7, 8, 9])] {
        let whole = RunConfig { seed, ..config(&posters) };
        let straight = folder.path().join(format!("straight-{seed}"));
        assert_eq!(begin(&whole, &straight), Ending::Finished);
        let expected = remains(&straight);
        assert_eq!((expected.2.len(), expected.3.len()), (16, 2));
        best_epochs.push(Checkpoint::open(&best_checkpoint(&straight)).unwrap().metadata().progress.epoch);

        for stop in stops {
            let path = folder.path().join(format!("stopped-{seed}-{stop}"));
            let limited = RunConfig { max_steps: Some(stop), ..whole.clone() };
            assert_eq!(begin(&limited, &path), Ending::StepLimit);
            assert_eq!(rows::<StepRow>(&path.join("steps.csv")).len() as u64, stop);
            assert_eq!(go_on(&whole, &path), Ending::Finished);
            assert!(remains(&path) == expected, "seed {seed}, stopped after step {stop}");
        }
    }
    assert!(best_epochs.contains(&1) && best_epochs.contains(&2), "{best_epochs:?}");
}

/// As far as the log has epochs; also where the run was stopped in between. Then a run that is to keep the best alone.
#[test]
fn the_models_of_the_best_epochs_are_kept() {
    let folder = TempDir::new().unwrap();
    let whole = RunConfig { epochs: 5, keep_best: 2, learning_rate: 3e-3, ..config(&posters(folder.path())) };
    let held = |run: &Path| {
        let files = fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
        let of_epochs = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("epoch-"));
        of_epochs
            .map(|path| (path.file_name().unwrap().to_owned(), fs::read(&path).unwrap()))
            .collect::<BTreeMap<_, _>>()
    };
    let straight = folder.path().join("straight");
    begin(&whole, &straight);
    let log: Vec<EpochRow> = rows(&straight.join("log.csv"));
    let mut ranked: Vec<&EpochRow> = log.iter().collect();
    ranked.sort_by(|a, b| b.mean_average_precision.total_cmp(&a.mean_average_precision));
    let ranked: Vec<u32> = ranked.iter().map(|row| row.epoch).collect();
    assert!(ranked[..2] != [5, 4] && ranked[..2] != [1, 2], "such a run shows little: {ranked:?}");
    let files = held(&straight);
    assert_eq!(files.len(), 2);
    for epoch in &ranked[..2] {
        let metadata = Checkpoint::open_model(&epoch_checkpoint(&straight, *epoch)).unwrap().metadata().clone();
        assert!(metadata.progress.epoch == *epoch && metadata.tuned.is_some());
    }
    assert!(
        files[epoch_checkpoint(&straight, ranked[0]).file_name().unwrap()]
            == fs::read(best_checkpoint(&straight)).unwrap()
    );

    let stopped = folder.path().join("stopped");
    begin(&RunConfig { max_steps: Some(19), ..whole.clone() }, &stopped);
    go_on(&whole, &stopped);
    assert!(held(&stopped) == files);
    go_on(&RunConfig { epochs: 6, keep_best: 1, ..whole }, &stopped);
    assert!(held(&stopped).is_empty());
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let folder = TempDir::new().unwrap();
    let whole = config(&posters(folder.path()));
    let run = |threads: usize, name: &str| {
        let (path, config) = (folder.path().join(name), whole.clone());
        let limited = RunConfig { max_steps: Some(5), ..config.clone() };
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool(threads).install(|| begin(&limited, &path));
        // Resumed with another number still.
        pool(threads + 1).install(|| go_on(&config, &path));
        remains(&path)
    };
    assert!(run(1, "one") == run(3, "three"));
}

/// With less memory to the same bits, so that a run may go on with more or less of it.
#[test]
fn values_computed_again_change_no_bit_of_a_run() {
    let folder = TempDir::new().unwrap();
    let whole = config(&posters(folder.path()));
    let again = RunConfig { recompute: true, ..whole.clone() };
    let [straight, changed] = ["straight", "changed"].map(|name| folder.path().join(name));
    begin(&whole, &straight);
    // The steps in the middle of each epoch, so that what is saved last, and says so, is again as it was.
    for (stop, before, after) in [(Some(3), &again, &whole), (Some(11), &whole, &again), (Some(13), &again, &whole)] {
        let limited = RunConfig { max_steps: stop, ..before.clone() };
        let ending = if stop == Some(3) { begin(&limited, &changed) } else { go_on(&limited, &changed) };
        assert_eq!((ending, before.recompute != after.recompute), (Ending::StepLimit, true));
    }
    go_on(&whole, &changed);
    assert!(remains(&changed) == remains(&straight));
}

#[test]
fn an_interruption_at_any_moment_is_clean() {
    let folder = TempDir::new().unwrap();
    let whole = config(&posters(folder.path()));
    let straight = folder.path().join("straight");
    begin(&whole, &straight);

    // The 9th event is the validation of the first epoch, the 10th its end.
    for moment in [1, 7, 8, 9, 10, 15] {
        let path = folder.path().join(format!("interrupted-{moment}"));
        let mut run = RunFolder::create(&path, &whole).unwrap();
        let (stop, mut events) = (AtomicBool::new(false), 0);
        let ending = trainer(&whole).unwrap().run(&mut run, &stop, &mut |_| {
            events += 1;
            if events == moment {
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert_eq!(ending.unwrap(), Ending::Interrupted, "event {moment}");
        drop(run);
        assert_eq!(go_on(&whole, &path), Ending::Finished);
        assert!(remains(&path) == remains(&straight), "interrupted at event {moment}");
    }
}

/// On a GPU a step's loss is read while the next one runs. What is logged, saved and told is the same as if it were there at once,
/// wherever the run ends.
#[test]
fn losses_that_arrive_late_change_nothing() {
    let folder = TempDir::new().unwrap();
    let whole = config(&posters(folder.path()));
    let file = Arc::new(TensorFile::open(whole.data.as_deref().unwrap()).unwrap());
    let run_as = |late: bool, max_steps: Option<u64>, interrupt_at: Option<u64>, at_once: bool| {
        let path = folder.path().join(format!("{late}-{max_steps:?}-{interrupt_at:?}"));
        let config = RunConfig { max_steps, ..whole.clone() };
        let device = Rc::new(Faulty { late, ..Faulty::default() });
        let mut trainer = Trainer::new(device, config.clone(), Arc::clone(&file)).unwrap();
        if at_once {
            trainer.ask_at_once();
        }
        let (stop, mut told) = (AtomicBool::new(false), Vec::new());
        let mut folder = RunFolder::create(&path, &config).unwrap();
        let ending = trainer.run(&mut folder, &stop, &mut |event| {
            if let Event::Step { row, done, .. } = event {
                told.push((row.step, row.loss.to_bits(), row.learning_rate, done));
                stop.store(Some(row.step) == interrupt_at, Ordering::Relaxed);
            }
        });
        (ending.unwrap(), told, trainer.progress().total_steps, path)
    };
    let run = |late, max_steps, interrupt_at| run_as(late, max_steps, interrupt_at, false);
    let (ending, told, _, path) = run(false, None, None);
    assert_eq!((ending, told.len()), (Ending::Finished, 16));
    let (ending, late, _, late_path) = run(true, None, None);
    assert_eq!((ending, &late), (Ending::Finished, &told));
    assert!(remains(&late_path) == remains(&path));
    for limit in [1, 7, 8, 9] {
        let (ending, late, steps, _) = run(true, Some(limit), None);
        assert_eq!((ending, steps, &late[..]), (Ending::StepLimit, limit, &told[..limit as usize]));
    }
    // One more step is under way when the wish to stop is heard, and is not lost.
    for moment in [1, 3, 12] {
        let (ending, late, steps, _) = run(true, None, Some(moment));
        assert_eq!((ending, steps, &late[..]), (Ending::Interrupted, moment + 1, &told[..moment as usize + 1]));
    }
    // None is for who asks to be told of each before the next.
    let (ending, late, steps, _) = run_as(true, None, Some(5), true);
    assert_eq!((ending, steps, &late[..]), (Ending::Interrupted, 5, &told[..5]));
}

#[test]
fn no_checkpoint_holds_more_than_it_says_while_a_step_is_under_way() {
    let folder = TempDir::new().unwrap();
    let often = RunConfig { save_every: 0.0, ..config(&posters(folder.path())) };
    let file = Arc::new(TensorFile::open(often.data.as_deref().unwrap()).unwrap());
    let run = |late: bool| {
        let path = folder.path().join(format!("{late}"));
        let device = Rc::new(Faulty { late, ..Faulty::default() });
        let mut trainer = Trainer::new(device, often.clone(), Arc::clone(&file)).unwrap();
        let (mut folder, mut saved) = (RunFolder::create(&path, &often).unwrap(), Vec::new());
        let mut watch = |_: Event<'_>| saved.push(fs::read(last_checkpoint(&path)).unwrap_or_default());
        trainer.run(&mut folder, &AtomicBool::new(false), &mut watch).unwrap();
        saved
    };
    let (at_once, late) = (run(false), run(true));
    assert_eq!(at_once.len(), 2 * (8 + 1 + 1));
    assert!(at_once == late);
}

/// Such as memory that the steps left none of, or posters cut short meanwhile: the epoch is not lost with it.
#[test]
fn a_validation_that_fails_keeps_the_epochs_steps() {
    let folder = TempDir::new().unwrap();
    let whole = config(&posters(folder.path()));
    let straight = folder.path().join("straight");
    begin(&whole, &straight);

    let path = folder.path().join("failed");
    let posters = whole.data.as_deref().unwrap();
    let bytes = fs::read(posters).unwrap();
    let mut run = RunFolder::create(&path, &whole).unwrap();
    let error = trainer(&whole).unwrap().run(&mut run, &AtomicBool::new(false), &mut |event| {
        if matches!(event, Event::Step { done: 8, .. }) {
            fs::OpenOptions::new().write(true).open(posters).unwrap().set_len(bytes.len() as u64 - 1).unwrap();
        }
    });
    assert!(matches!(error, Err(TrainingError::Loader(_))), "{error:?}");
    drop(run);
    fs::write(posters, bytes).unwrap();
    assert_eq!(Checkpoint::open(&last_checkpoint(&path)).unwrap().metadata().progress.step, 8);
    assert_eq!(go_on(&whole, &path), Ending::Finished);
    assert!(remains(&path) == remains(&straight));
}

#[test]
fn the_logs_tell_what_happened() {
    let folder = TempDir::new().unwrap();
    let config = RunConfig { epochs: 4, ..config(&posters(folder.path())) };
    let path = folder.path().join("run");
    let mut run = RunFolder::create(&path, &config).unwrap();
    let (mut steps, mut epochs, mut improved) = (Vec::new(), Vec::new(), Vec::new());
    let mut watch = |event: Event<'_>| match event {
        Event::Step { row, done, steps: length, .. } => {
            assert!(done <= length && length == 8);
            steps.push(*row);
        }
        Event::Validation { done, posters } => assert!(done <= posters && posters == 8),
        Event::Averages { .. } | Event::LeftOut { .. } | Event::RolledBack { .. } => panic!("nobody asked for it"),
        Event::Epoch { row, scores, best, .. } => {
            assert_eq!(scores.posters, 8);
            assert_eq!(row.weighted_f1, scores.weighted.f1);
            epochs.push(*row);
            improved.push(best);
        }
    };
    let ending = trainer(&config).unwrap().run(&mut run, &AtomicBool::new(false), &mut watch);
    assert_eq!(ending.unwrap(), Ending::Finished);
    assert_eq!(rows::<StepRow>(&path.join("steps.csv")), steps);
    assert_eq!(rows::<EpochRow>(&path.join("log.csv")), epochs);

    assert!(steps.iter().all(|row| row.gradient_norm > 0.0 && row.gradient_norm < 100.0), "{steps:?}");

    // The rate rises over the first epoch, of eight steps.
    for row in &steps {
        assert_eq!(row.learning_rate, if row.step < 8 { 1e-3 * row.step as f64 / 8.0 } else { 1e-3 }, "{row:?}");
    }
    assert!(epochs.iter().all(|row| row.learning_rate == 1e-3));

    let mean = |rows: &[StepRow]| rows.iter().map(|row| row.loss).sum::<f64>() / rows.len() as f64;
    for (epoch, row) in epochs.iter().enumerate() {
        assert!((row.train_loss - mean(&steps[8 * epoch..8 * epoch + 8])).abs() <= 1e-12);
        let better = epochs[..epoch].iter().all(|before| row.mean_average_precision > before.mean_average_precision);
        assert_eq!(improved[epoch], better, "epoch {epoch}");
    }
    assert!(mean(&steps[24..]) < mean(&steps[..8]), "it learns: {steps:?}");
    let best = epochs.iter().map(|row| row.mean_average_precision).fold(0.0, f64::max);
    let checkpoint = Checkpoint::open(&best_checkpoint(&path)).unwrap();
    assert_eq!(checkpoint.metadata().progress.best, Some(best));
    let last = Checkpoint::open(&last_checkpoint(&path)).unwrap();
    assert_eq!((last.metadata().progress.epoch, last.metadata().progress.total_steps), (4, 32));
    let text = fs::read_to_string(path.join("config.toml")).unwrap();
    assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), config);
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_spares_the_checkpoint() {
    let folder = TempDir::new().unwrap();
    let sound = RunConfig { epochs: 1, ..config(&posters(folder.path())) };
    let path = folder.path().join("run");
    begin(&sound, &path);
    let before = fs::read(last_checkpoint(&path)).unwrap();

    let wild = RunConfig { epochs: 2, learning_rate: 1e38, ..sound };
    let (mut trainer, mut run) = resumed(&wild, &path).unwrap();
    let error = trainer.run(&mut run, &AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainingError::Diverged { .. }), "{error}");
    // Step 9 is the first with that rate; the loss behind it is the first to suffer.
    assert!(error.to_string().contains("the loss of step 10"), "{error}");
    assert!(fs::read(last_checkpoint(&path)).unwrap() == before);
}

#[test]
fn frozen_layers_stay_and_have_no_moments() {
    let folder = TempDir::new().unwrap();
    // From the last block's second convolution on, counted as Keras does: its ReLU, the addition, the output and the pooling too.
    let config = RunConfig { trainable: Trainable::Last(10), epochs: 1, ..config(&posters(folder.path())) };
    let trained = ["conv3_block1_2_", "conv3_block1_0_", "conv3_block1_3_", "head_6/", "genres/"];
    let path = folder.path().join("run");
    let fresh = trainer(&config).unwrap();
    begin(&config, &path);
    let checkpoint = Checkpoint::open(&last_checkpoint(&path)).unwrap();
    for tensor in fresh.model().architecture().tensors.clone() {
        let name = &tensor.name;
        let trains = trained.iter().any(|layer| name.starts_with(layer));
        let moved = checkpoint.values(name).unwrap() != fresh.model().read(&tensor).unwrap();
        // A batch norm takes the bias in front of it out again, so that nothing moves it.
        let may_rest = name.ends_with("_conv/bias");
        assert!(moved == trains || !moved && may_rest, "{name}: trains {trains}, moved {moved}");
        let has_moments = ["m", "v"].map(|moment| checkpoint.values(&format!("adam.{moment}/{name}")).is_ok());
        assert_eq!(has_moments, [trains && !name.contains("/moving_"); 2], "{name}");
    }
    assert_eq!(go_on(&RunConfig { epochs: 2, ..config }, &path), Ending::Finished);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let sound = config(&posters(folder.path()));
    let refusal = |config: &RunConfig| trainer(config).err().unwrap().to_string();
    let error = refusal(&RunConfig { batch: 65, ..sound.clone() });
    assert!(
        error.contains("a batch of 65 ") && error.contains(" 64 images; choose 64 or less with --batch"),
        "{error}"
    );
    assert!(trainer(&RunConfig { batch: 64, ..sound.clone() }).is_ok(), "all of them are a batch");
    let error = refusal(&RunConfig { batch: 0, ..sound.clone() });
    assert!(error.contains("a batch of 0 images"), "{error}");
    let error = refusal(&RunConfig { image_size: 48, ..sound.clone() });
    assert!(error.contains("32×32") && error.contains("prepare --image-size 48"), "{error}");

    let path = folder.path().join("run");
    begin(&RunConfig { max_steps: Some(1), ..sound.clone() }, &path);
    let others = folder.path().join("others.safetensors");
    synthetic::write(&others, 80, 32, 8).unwrap();
    let error = resumed(&RunConfig { data: Some(others), ..sound.clone() }, &path).err().unwrap();
    assert!(matches!(error, TrainingError::OtherPosters { .. }), "{error}");

    // What has no moments is nothing to go on from, and the message says what is.
    let exported = folder.path().join("exported.safetensors");
    let learner = Learner::new(Rc::new(Cpu::new()), sound.model(7), 1).unwrap();
    let checkpoint = Checkpoint::open(&last_checkpoint(&path)).unwrap();
    learner.save(&exported, checkpoint.metadata(), Keep::Weights).unwrap();
    let file = Arc::new(TensorFile::open(sound.data.as_deref().unwrap()).unwrap());
    let (opened, same) = (Checkpoint::open(&exported).unwrap(), Arc::clone(&file));
    let refused = Trainer::resume(Rc::new(Cpu::new()), sound.clone(), same, &opened);
    let error = refused.err().unwrap().to_string();
    assert!(
        error.contains("no tensor adam.m/") && error.contains("resume from checkpoints/last.safetensors"),
        "{error}"
    );

    let wider = Network { head: &[7], ..resnet50::MINIATURE };
    let wide = RunConfig { network: wider, ..sound.clone() };
    let error = Trainer::resume(Rc::new(Cpu::new()), wide, Arc::clone(&file), &checkpoint).err().unwrap();
    let missing = matches!(&error, TrainingError::Checkpoint(CheckpointError::Missing { tensor, .. }) if tensor == "head_7/kernel");
    assert!(missing && !error.to_string().contains("resume from"), "{error}");

    let other = RunConfig { network: resnet50_v1_5::MINIATURE, ..sound };
    let error = Trainer::resume(Rc::new(Cpu::new()), other, file, &checkpoint).err().unwrap();
    assert!(matches!(error, TrainingError::Checkpoint(CheckpointError::OtherNetwork { .. })), "{error}");
}

#[test]
fn a_set_without_posters_to_train_on_or_to_choose_the_best_epoch_by_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("none.safetensors");
    let (genres, provenance) = (vec!["Drama".into()], BTreeMap::new());
    let description = Description { size: 32, genres, capacity: 2, provenance };
    let mut writer = TensorFileWriter::create(&path, description).unwrap();
    for (id, split) in [("tt1", Split::Validation), ("tt2", Split::Test)] {
        writer.push(id, &[7; 32 * 32 * 3], &[1], split).unwrap();
    }
    writer.finish().unwrap();
    let error = trainer(&RunConfig { batch: 1, ..config(&path) }).err().unwrap().to_string();
    assert!(error.contains("no train posters"), "{error}");

    let path = folder.path().join("few.safetensors");
    // The synthetic split puts the ninth poster of ten into validation.
    synthetic::write(&path, 8, 32, 1).unwrap();
    let error = trainer(&RunConfig { batch: 2, ..config(&path) }).err().unwrap().to_string();
    assert!(error.contains("no validation posters"), "{error}");
}

/// Files from before there was a choice, and posters drawn in code, say nothing of it.
#[test]
fn posters_of_which_nothing_is_said_were_made_as_before_there_was_a_choice() {
    let folder = TempDir::new().unwrap();
    let config = RunConfig { max_steps: Some(0), ..config(&posters(folder.path())) };
    let path = folder.path().join("run");
    assert_eq!(begin(&config, &path), Ending::StepLimit);
    let last = Checkpoint::open(&last_checkpoint(&path)).unwrap();
    let made = last.metadata();
    assert_eq!([&*made.resize, &*made.exif, &*made.alpha], ["area", "ignore", "drop"]);
}
