//! The parts of a recipe: each does something, and a run with it goes on to the same bits.

use crate::runs::{begin, config, go_on, posters, remains, rows, trainer};
use onesheet::data::Split;
use onesheet::data::augmentation::Augmentation;
use onesheet::data::distortion::Distortion;
use onesheet::data::loader::Loader;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::cpu::Cpu;
use onesheet::device::{Memory, Placement};
use onesheet::model::{Batch, Model};
use onesheet::network::{KernelInit, ModelConfig, Place, Trainable, resnet50, vgg16};
use onesheet::optim::Curve;
use onesheet::training::checkpoint::{Checkpoint, learning};
use onesheet::training::config::{Pixels, RunConfig};
use onesheet::training::evaluation::{Answers, View};
use onesheet::training::learner::{Learner, load};
use onesheet::training::recipe::Recipe;
use onesheet::training::run_folder::{EpochRow, RunFolder, StepRow, best_checkpoint, last_checkpoint};
use onesheet::training::trainer::{Ending, Event};
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

/// Every part by itself.
fn parts() -> Vec<(&'static str, Recipe)> {
    let plain = Recipe::default;
    vec![
        ("cosine", Recipe { schedule: Curve::Cosine, ..plain() }),
        ("weight-decay", Recipe { weight_decay: 0.5, ..plain() }),
        ("base-rate", Recipe { base_rate: 0.25, ..plain() }),
        ("clip-norm", Recipe { clip_norm: Some(0.01), ..plain() }),
        ("accumulate", Recipe { accumulate: 2, ..plain() }),
        ("he", Recipe { init: KernelInit::He, ..plain() }),
        ("crop", Recipe { crop: 0.3, ..plain() }),
        ("rotate", Recipe { rotate: 10.0, ..plain() }),
        ("colour", Recipe { colour: 0.3, ..plain() }),
        ("ema", Recipe { ema: 0.9, ..plain() }),
        ("precise-bn", Recipe { precise_bn: 8, ..plain() }),
        ("precise-bn-of-an-average", Recipe { precise_bn: 8, ema: 0.9, ..plain() }),
    ]
}

/// In an epoch, at its end, and behind it. The end of a run with a part is not that of one without.
#[test]
fn a_run_with_any_part_goes_on_to_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let posters = posters(folder.path());
    let plain = folder.path().join("plain");
    begin(&config(&posters), &plain);
    let plain = remains(&plain);
    for (name, recipe) in parts() {
        let whole = RunConfig { recipe, ..config(&posters) };
        let straight = folder.path().join(name);
        assert_eq!(begin(&whole, &straight), Ending::Finished);
        let expected = remains(&straight);
        assert!(expected.0 != plain.0, "{name} changes nothing");
        for stop in [3, 8, 13] {
            let stop = stop * expected.2.len() as u64 / 16;
            let path = folder.path().join(format!("{name}-{stop}"));
            assert_eq!(begin(&RunConfig { max_steps: Some(stop), ..whole.clone() }, &path), Ending::StepLimit);
            assert_eq!(go_on(&whole, &path), Ending::Finished);
            assert!(remains(&path) == expected, "{name}, stopped after step {stop}");
        }
    }
}

#[test]
fn a_cosine_ends_with_the_last_epoch() {
    let folder = TempDir::new().unwrap();
    let recipe = Recipe { schedule: Curve::Cosine, ..Recipe::default() };
    let config = RunConfig { recipe, ..config(&posters(folder.path())) };
    let path = folder.path().join("run");
    begin(&config, &path);
    // It rises over the first epoch of eight steps, and has half of its way down behind it after the fourth of the second.
    let rates: Vec<f64> = rows::<StepRow>(&path.join("steps.csv")).iter().map(|row| row.learning_rate).collect();
    for (step, expected) in [(1, 1e-3 / 8.0), (8, 1e-3), (12, 0.505e-3), (16, 1e-5)] {
        assert!((rates[step - 1] - expected).abs() < 1e-12, "{rates:?}");
    }
    let epochs: Vec<f64> = rows::<EpochRow>(&path.join("log.csv")).iter().map(|row| row.learning_rate).collect();
    assert_eq!(epochs, [rates[7], rates[15]]);
}

/// The average by hand, from the weights that a run leaves after each step; that is what its models answer with.
#[test]
fn a_moving_average_answers() {
    let folder = TempDir::new().unwrap();
    let plain = RunConfig { save_every: 0.0, epochs: 1, ..config(&posters(folder.path())) };
    let averaged = RunConfig { recipe: Recipe { ema: 0.6, ..Recipe::default() }, ..plain.clone() };
    let path = folder.path().join("run");
    let mut run = RunFolder::create(&path, &averaged).unwrap();
    let fresh = trainer(&averaged).unwrap();
    let tensors = fresh.model().architecture().tensors.clone();
    let mut expected: Vec<Vec<f32>> = tensors.iter().map(|tensor| fresh.model().read(tensor).unwrap()).collect();
    let (mut steps, mut others) = (0, 0);
    let mut watch = |event: Event<'_>| {
        // Behind each step but the epoch's last comes a checkpoint, before the next step is told of.
        if let Event::Step { row, .. } = event
            && row.step > 1
        {
            let saved = Checkpoint::open(&last_checkpoint(&path)).unwrap();
            let t = saved.metadata().progress.total_steps;
            assert_eq!(t, row.step - 1);
            let towards = 1.0 - 0.6f64.min((1.0 + t as f64) / (10.0 + t as f64));
            for (tensor, expected) in tensors.iter().zip(&mut expected) {
                let [answers, learns] =
                    [tensor.name.clone(), learning(&tensor.name)].map(|name| saved.values(&name).unwrap());
                others += usize::from(answers != learns);
                for ((average, now), found) in expected.iter_mut().zip(learns).zip(answers) {
                    *average += (now - *average) * towards as f32;
                    assert_eq!(found, *average, "{} after step {t}", tensor.name);
                }
            }
            steps += 1;
        }
    };
    trainer(&averaged).unwrap().run(&mut run, &AtomicBool::new(false), &mut watch).unwrap();
    assert_eq!(steps, 7);
    assert!(others > 7 * tensors.len() / 2, "{others} averages are not what is averaged");

    // What learns does so as without an average, and validation asks the average.
    let without = folder.path().join("without");
    begin(&plain, &without);
    let [last, own] = [&path, &without].map(|run| Checkpoint::open(&last_checkpoint(run)).unwrap());
    for tensor in &tensors {
        assert!(last.values(&learning(&tensor.name)).unwrap() == own.values(&tensor.name).unwrap(), "{}", tensor.name);
    }
    let best = Checkpoint::open_model(&best_checkpoint(&path)).unwrap();
    let file = Arc::new(TensorFile::open(averaged.data.as_deref().unwrap()).unwrap());
    let model = load(Rc::new(Cpu::new()), &best).unwrap();
    let (validation, format) = (file.indices(Split::Validation).into(), averaged.pixels.format());
    let weights = fresh.class_weights();
    let go_on = |_| ControlFlow::Continue(());
    let answers =
        Answers::collect(&model, &file, validation, averaged.batch, &format, weights, View::Plain, go_on).unwrap();
    let row = rows::<EpochRow>(&path.join("log.csv"))[0];
    assert_eq!(answers.unwrap().loss, row.validation_loss);
    assert_ne!(row.validation_loss, rows::<EpochRow>(&without.join("log.csv"))[0].validation_loss);
}

/// Without batch norms, which see each batch by itself, a step of four batches is that of one four times as large, up to rounding.
#[test]
fn several_batches_make_one_step() {
    let folder = TempDir::new().unwrap();
    let posters = posters(folder.path());
    let whole = RunConfig { network: vgg16::MINIATURE, ..config(&posters) };
    let recipe = Recipe { accumulate: 4, clip_norm: Some(0.1), ..Recipe::default() };
    let parts = RunConfig { batch: 2, recipe: recipe.clone(), ..whole.clone() };
    let whole = RunConfig { recipe: Recipe { accumulate: 1, ..recipe }, ..whole };
    let ran = |config: &RunConfig, name: &str| {
        let path = folder.path().join(name);
        begin(config, &path);
        let steps = rows::<StepRow>(&path.join("steps.csv")).into_iter().map(|row| (row.loss, row.gradient_norm));
        let epochs =
            rows::<EpochRow>(&path.join("log.csv")).into_iter().map(|row| (row.train_loss, row.validation_loss));
        (steps.collect::<Vec<_>>(), epochs.collect::<Vec<_>>())
    };
    let (found, expected) = (ran(&parts, "parts"), ran(&whole, "whole"));
    assert_eq!((found.0.len(), found.1.len()), (16, 2));
    for (found, expected) in found.0.iter().chain(&found.1).zip(expected.0.iter().chain(&expected.1)) {
        let near = |found: f64, expected: f64| (found - expected).abs() <= 1e-3 * expected.abs();
        assert!(near(found.0, expected.0) && near(found.1, expected.1), "{found:?}, {expected:?}");
    }
    // Of 64 posters 48 make two steps of 24, and the others wait for another epoch.
    let uneven = RunConfig { recipe: Recipe { accumulate: 3, ..Recipe::default() }, batch: 8, ..whole };
    assert_eq!(ran(&uneven, "uneven").0.len(), 4);
}

/// What answers has the mean of three batches' statistics, of posters that are neither mirrored nor moved; and no step is another for it.
#[test]
fn averages_are_formed_anew_from_posters_as_they_are() {
    let folder = TempDir::new().unwrap();
    let posters = posters(folder.path());
    for ema in [0.0, 0.6] {
        let recipe = |precise_bn| Recipe { ema, precise_bn, ..Recipe::default() };
        let of = |posters_seen| RunConfig { recipe: recipe(posters_seen), epochs: 1, ..config(&posters) };
        let [formed, without] = ["formed", "without"].map(|n| folder.path().join(format!("{n}-{ema}")));
        begin(&of(20), &formed);
        begin(&of(0), &without);
        let steps = |run: &Path| -> Vec<_> {
            rows::<StepRow>(&run.join("steps.csv")).iter().map(|row| (row.loss, row.gradient_norm)).collect()
        };
        assert_eq!(steps(&formed), steps(&without));

        let [found, own] = [&formed, &without].map(|run| Checkpoint::open_model(&best_checkpoint(run)).unwrap());
        let file = Arc::new(TensorFile::open(posters.as_path()).unwrap());
        let train: Arc<[u32]> = file.indices(Split::Train).into();
        let seen = Loader::train(file, train, 8, of(20).seed, 0, 0, Augmentation::None, Distortion::default()).unwrap();
        // A training step with a momentum of 0 leaves its batch's statistics behind.
        let network = ModelConfig { momentum: 0.0, ..of(0).model(7) };
        let mut model = Model::zeros(Rc::new(Cpu::new()), network).unwrap();
        let tensors = model.architecture().tensors.clone();
        let mut sums: Vec<Vec<f32>> = tensors.iter().map(|tensor| vec![0.0; tensor.shape.iter().product()]).collect();
        for batch in seen.take(3).map(Result::unwrap) {
            for tensor in &tensors {
                model.write(tensor, &own.values(&tensor.name).unwrap()).unwrap();
            }
            let device = Rc::clone(model.device());
            let pixels = device.upload_pixels(&batch.pixels, &batch.placements).unwrap();
            let format = of(0).pixels.format();
            let mut batch = Batch::new(&*device, pixels, 8, &format, &batch.labels, &[1.0; 7]).unwrap();
            model.gradients(&mut batch).unwrap();
            for (tensor, sum) in tensors.iter().zip(&mut sums) {
                sum.iter_mut().zip(model.read(tensor).unwrap()).for_each(|(sum, value)| *sum += value / 3.0);
            }
        }
        let mut others = 0;
        for (tensor, expected) in tensors.iter().zip(sums) {
            let [found, own] = [&found, &own].map(|model| model.values(&tensor.name).unwrap());
            if let Place::Weights(_) = tensor.place {
                assert!(found == own, "{}", tensor.name);
                continue;
            }
            others += usize::from(found != own);
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= 1e-5 * (1.0 + expected.abs()),
                    "{}: {found}, {expected}",
                    tensor.name
                );
            }
        }
        assert!(others > 10, "{others}");
    }
}

/// Stopped while they are formed, a run forms them again.
#[test]
fn averages_that_were_under_way_are_formed_again() {
    let folder = TempDir::new().unwrap();
    let posters = posters(folder.path());
    for ema in [0.0, 0.6] {
        let recipe = Recipe { ema, precise_bn: 20, ..Recipe::default() };
        let whole = RunConfig { recipe, epochs: 1, ..config(&posters) };
        let [straight, stopped] = ["straight", "stopped"].map(|name| folder.path().join(format!("{name}-{ema}")));
        begin(&whole, &straight);
        let mut run = RunFolder::create(&stopped, &whole).unwrap();
        let stop = AtomicBool::new(false);
        let mut told = Vec::new();
        let mut watch = |event: Event<'_>| {
            if let Event::Averages { done, posters } = event {
                told.push((done, posters));
                stop.store(done == 16, Ordering::Relaxed);
            }
        };
        assert_eq!(trainer(&whole).unwrap().run(&mut run, &stop, &mut watch).unwrap(), Ending::Interrupted);
        assert_eq!(told, [(8, 24), (16, 24)]);
        drop(run);
        assert_eq!(go_on(&whole, &stopped), Ending::Finished);
        assert!(remains(&stopped) == remains(&straight));
    }
}

/// No more than there are, and none where no batch norm is.
#[test]
fn averages_come_from_as_many_posters_as_there_are() {
    let folder = TempDir::new().unwrap();
    let posters = posters(folder.path());
    for (network, expected) in
        [(config(&posters).network, (1..=8).map(|batch| (8 * batch, 64)).collect()), (vgg16::MINIATURE, vec![])]
    {
        let recipe = Recipe { precise_bn: 1_000, ..Recipe::default() };
        let config = RunConfig { network, recipe, epochs: 1, ..config(&posters) };
        let mut run = RunFolder::create(&folder.path().join(network.name), &config).unwrap();
        let mut told = Vec::new();
        let mut watch = |event: Event<'_>| {
            if let Event::Averages { done, posters } = event {
                told.push((done, posters));
            }
        };
        trainer(&config).unwrap().run(&mut run, &AtomicBool::new(false), &mut watch).unwrap();
        assert_eq!(told, expected, "{network}");
    }
}

/// Beside a step without decay: kernels lose their share on top, everything else has the same bits. And where the base learns at a quarter
/// of the rate, its weights go and decay a quarter as far, and the head's have the same bits.
#[test]
fn kernels_decay_and_nothing_else_and_the_base_follows_its_own_rate() {
    let config = RunConfig { network: resnet50::MINIATURE, image_size: 16, ..RunConfig::default() };
    let config = ModelConfig { trainable: Trainable::Last(20), ..config.model(2) };
    let device = Rc::new(Cpu::new());
    let fresh = || Model::new(Rc::clone(&device), config.clone(), 5).unwrap();
    let stepped = |weight_decay: f64, base_rate: f64| {
        let recipe = Recipe { weight_decay, base_rate, ..Recipe::default() };
        let mut learner = Learner::by(&recipe, fresh()).unwrap();
        let pixels = device.upload_pixels(&[7; 2 * 16 * 16 * 3], &[Placement::default(); 2]).unwrap();
        learner.submit(pixels, 2, &Pixels::Unit.format(), &[1, 0, 0, 1], &[1.0; 2], 1e-2).unwrap();
        learner.outcome().unwrap();
        learner
    };
    let (before, plain, decayed) = (fresh(), stepped(0.0, 1.0), stepped(0.25, 1.0));
    let slower = stepped(0.25, 0.25);
    let (mut kernels, mut of_base) = (0, 0);
    let head = before.architecture().base_and_head().1;
    for tensor in &before.architecture().tensors {
        let models = [&before, plain.model(), decayed.model(), slower.model()];
        let [was, plain, decayed, slower] = models.map(|model| model.read(tensor).unwrap());
        if head.contains(tensor)
            || before.architecture().is_frozen(tensor)
            || matches!(tensor.place, Place::Averages(_))
        {
            assert!(slower == decayed, "{}", tensor.name);
        } else {
            // What lies behind a residual block's last gamma, which is 0 yet, has no gradient; and biases do not decay.
            of_base += usize::from(slower != was);
            for ((was, decayed), slower) in was.iter().zip(&decayed).zip(slower) {
                let expected = was + 0.25 * (decayed - was);
                assert!((slower - expected).abs() < 1e-7 * (1.0 + was.abs()), "{}: {slower}, {expected}", tensor.name);
            }
        }
        if tensor.name.ends_with("kernel") && !before.architecture().is_frozen(tensor) {
            kernels += 1;
            for ((was, plain), decayed) in was.into_iter().zip(plain).zip(decayed) {
                assert!((decayed - (plain - 0.0025 * was)).abs() < 1e-7, "{}: {was}, {plain}, {decayed}", tensor.name);
            }
        } else {
            assert!(plain == decayed, "{}", tensor.name);
        }
    }
    assert!(kernels > 3 && of_base > 3, "{kernels}, {of_base}");
}

/// Without batch norms, and at next to no learning rate, no epoch is better than the first.
#[test]
fn patience_ends_a_run_that_gets_no_better() {
    let folder = TempDir::new().unwrap();
    let posters = posters(folder.path());
    let stuck = RunConfig { network: vgg16::MINIATURE, learning_rate: 1e-30, epochs: 9, ..config(&posters) };
    let patient = RunConfig { patience: Some(2), ..stuck.clone() };
    let path = folder.path().join("run");
    assert_eq!(begin(&patient, &path), Ending::NoBetter);
    let saved = Checkpoint::open(&last_checkpoint(&path)).unwrap().metadata().progress;
    assert_eq!((saved.epoch, saved.stale, rows::<EpochRow>(&path.join("log.csv")).len()), (3, 2, 3));
    // What is over stays so; the count goes on where a run is taken up again.
    let stopped = folder.path().join("stopped");
    assert_eq!(begin(&RunConfig { max_steps: Some(18), ..patient.clone() }, &stopped), Ending::StepLimit);
    for _ in 0..2 {
        assert_eq!(go_on(&patient, &stopped), Ending::NoBetter);
        assert!(remains(&stopped) == remains(&path));
    }
    assert_eq!(go_on(&RunConfig { patience: Some(3), ..patient }, &stopped), Ending::NoBetter);
    assert_eq!(rows::<EpochRow>(&stopped.join("log.csv")).len(), 4);
    assert_eq!(go_on(&RunConfig { epochs: 5, ..stuck }, &stopped), Ending::Finished);
    assert_eq!(rows::<EpochRow>(&stopped.join("log.csv")).len(), 5);
}

/// A limit that falls on the end of an epoch waits for its validation: what is left is that epoch's model, averages formed anew included.
#[test]
fn a_limit_at_the_end_of_an_epoch_leaves_its_model() {
    let folder = TempDir::new().unwrap();
    let recipe = Recipe { precise_bn: 8, ..Recipe::default() };
    let whole = RunConfig { recipe, ..config(&posters(folder.path())) };
    let [straight, stopped] = ["straight", "stopped"].map(|name| folder.path().join(name));
    begin(&whole, &straight);
    assert_eq!(begin(&RunConfig { max_steps: Some(8), ..whole.clone() }, &stopped), Ending::StepLimit);
    assert_eq!(rows::<EpochRow>(&stopped.join("log.csv")).len(), 1);
    let [last, best] = [last_checkpoint, best_checkpoint].map(|of| Checkpoint::open_model(&of(&stopped)).unwrap());
    let progress = last.metadata().progress;
    assert_eq!((progress.epoch, progress.step, progress.total_steps), (1, 0, 8));
    for tensor in &trainer(&whole).unwrap().model().architecture().tensors {
        assert!(last.values(&tensor.name).unwrap() == best.values(&tensor.name).unwrap(), "{}", tensor.name);
    }
    assert_eq!(go_on(&whole, &stopped), Ending::Finished);
    assert!(remains(&stopped) == remains(&straight));
}

#[test]
fn a_time_limit_stops_with_everything_saved() {
    let folder = TempDir::new().unwrap();
    let whole = config(&posters(folder.path()));
    let [straight, stopped, long] = ["straight", "stopped", "long"].map(|name| folder.path().join(name));
    begin(&whole, &straight);
    assert_eq!(begin(&RunConfig { time_limit: Some(1e-9), ..whole.clone() }, &stopped), Ending::TimeLimit);
    assert_eq!(Checkpoint::open(&last_checkpoint(&stopped)).unwrap().metadata().progress.total_steps, 0);
    assert_eq!(go_on(&whole, &stopped), Ending::Finished);
    assert!(remains(&stopped) == remains(&straight));
    // One that is not reached changes no bit of the best model.
    assert_eq!(begin(&RunConfig { time_limit: Some(1e6), ..whole }, &long), Ending::Finished);
    assert!(remains(&long).1 == remains(&straight).1);
}
