//! The flags of a run that goes on: in its settings, and in what it does from there on.

#[cfg(target_os = "linux")]
use crate::train::maps;
use crate::train::steps;
use crate::{Place, SIDE, settings};
use onesheet::data::tensor_file::Access;
use onesheet::network::Trainable;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::{DeviceChoice, OnBadNumbers, PrecisionChoice, RunConfig};
use onesheet::training::run_folder::{EpochRow, last_checkpoint, step_checkpoint};
use onesheet::training::tensorboard::TensorBoard;
use std::fs;

const BEGIN: &str = "train --data posters.safetensors --run run --batch 4 --epochs 2 --max-steps 1 --trainable last:60";
const CHANGED: &str = "train --resume run --data moved.safetensors --device cpu --precision f32 --lr 0.0005 --epochs 3 \
    --max-steps 3 --save-every 0 --on-bad-numbers skip --check-numerics --recompute --io read --tensorboard off";
const SHORTER: &str = "train --resume run --network resnet50 --epochs 1 --max-steps none --save-every 8 \
    --json --quiet";
const OTHER: &str = "train --resume run --network resnet50-v1.5";
const DIVERGING: &str = "train --resume run --epochs 2 --lr 1e38";
const STOPPING: &str = "train --resume run --epochs 2 --lr 1e38 --on-bad-numbers stop --check-numerics=false";
const SIMULATED: &str = "train --resume run --device sim --precision tf32 --epochs 1";
const MAPPED: &str = "train --resume run --device cpu --precision auto --epochs 1000 --io map";
const READ: &str = "train --resume run --device cpu --precision auto --epochs 1000";

/// Every command line of this file.
pub const LINES: [&str; 9] = [BEGIN, CHANGED, SHORTER, OTHER, DIVERGING, STOPPING, SIMULATED, MAPPED, READ];

/// One run that is stopped, and taken up again with other settings each time: each command says what it changes, and all else is
/// as it was.
#[test]
fn a_run_goes_on_as_the_flags_beside_resume_say() {
    let place = Place::with_posters();
    let run = place.at("runs/run");
    place.run_to(0, BEGIN);
    let mut config = RunConfig {
        data: Some(place.at("posters.safetensors")),
        batch: 4,
        epochs: 2,
        max_steps: Some(1),
        image_size: SIDE,
        trainable: Trainable::Last(60),
        ..RunConfig::default()
    };
    assert_eq!(settings(&run).0, config);

    fs::rename(place.at("posters.safetensors"), place.at("moved.safetensors")).unwrap();
    let told = place.run_to(0, CHANGED);
    assert!(told.stderr.contains("going on after step 1 of epoch 1, 1 in all"), "{}", told.stderr);
    assert!(told.stderr.contains("stopped as asked after step 3, everything saved"), "{}", told.stderr);
    config.data = Some(place.at("moved.safetensors"));
    config.device = DeviceChoice::Cpu;
    config.precision = PrecisionChoice::F32;
    config.learning_rate = 0.0005;
    config.epochs = 3;
    config.max_steps = Some(3);
    config.save_every = 0.0;
    config.on_bad_numbers = OnBadNumbers::Skip;
    config.check_numerics = true;
    config.recompute = true;
    config.io = Access::Read;
    config.tensorboard = TensorBoard::Off;
    let saved = || Checkpoint::open(&last_checkpoint(&run)).unwrap().metadata().clone();
    assert_eq!((settings(&run).0, saved().config), (config.clone(), config.clone()));
    // Of four steps of the first epoch, over which the rate rises.
    let rates: Vec<f64> = steps(&run).iter().map(|row| row.learning_rate).collect();
    assert_eq!(rates, [0.00025, 0.00025, 0.000375]);
    assert_eq!(saved().progress.total_steps, 3);
    assert!(step_checkpoint(&run, 2).is_file(), "saved at each step");

    let told = place.run_to(2, OTHER);
    let refusal = "error: the run trains ResNet-50, and cannot go on as ResNet-50 v1.5; leave out --network, or start a new run\n";
    assert_eq!(told.stderr, refusal);
    let told = place.run_to(0, SHORTER);
    (config.epochs, config.max_steps, config.save_every) = (1, None, 8.0);
    assert_eq!((settings(&run).0, saved().config), (config.clone(), config.clone()));
    assert_eq!(told.stderr, "");
    let epochs = told.objects();
    assert_eq!((epochs.len(), &epochs[0]["kind"], &epochs[0]["row"]["epoch"]), (1, &"epoch".into(), &1.into()));
    let mut log = csv::Reader::from_path(run.join("log.csv")).unwrap();
    let log: Vec<EpochRow> = log.deserialize().collect::<Result<_, _>>().unwrap();
    assert_eq!((log.len(), log[0].step, saved().progress.epoch), (1, 4, 1));
    let row = serde_json::to_value(log[0]).unwrap().to_string();
    assert!(told.stdout.contains(&row), "{row} is not in {}", told.stdout);

    // What was asked for two commands ago holds on; the second epoch's first step is done at this rate before any number is bad.
    let told = place.run_to(6, DIVERGING);
    (config.epochs, config.learning_rate) = (2, 1e38);
    assert_eq!(settings(&run).0, config);
    assert_eq!(left_out(&told.stderr), 3, "{}", told.stderr);
    assert_eq!(layers(&told.stderr), 3, "{}", told.stderr);
    assert_eq!(steps(&run).iter().filter(|row| row.loss.is_finite()).count(), 5);

    let told = place.run_to(6, STOPPING);
    (config.on_bad_numbers, config.check_numerics) = (OnBadNumbers::Stop, false);
    assert_eq!(settings(&run).0, config);
    assert_eq!((left_out(&told.stderr), layers(&told.stderr)), (0, 0), "{}", told.stderr);
    assert_eq!(saved().progress.total_steps, 4, "nothing of it is saved");

    // The one epoch is done, so it ends at once, on the device that it opened. What diverged was not saved, nor were its
    // settings.
    place.run_to(0, SIMULATED);
    (config.device, config.precision) = (DeviceChoice::Sim, PrecisionChoice::Tf32);
    (config.epochs, config.learning_rate) = (1, 0.0005);
    (config.on_bad_numbers, config.check_numerics) = (OnBadNumbers::Skip, true);
    let (found, devices) = settings(&run);
    assert_eq!(found, config);
    let on_simulator: Vec<bool> =
        devices.iter().map(|device| device.starts_with("gpusim ") && device.ends_with(", tf32)")).collect();
    assert_eq!(on_simulator, [false, false, false, false, false, true], "{devices:?}");

    // The checkpoint says how posters are read, unless it is typed; the log is put back as it was each time.
    #[cfg(target_os = "linux")]
    for (words, is_mapped) in [(MAPPED, true), (READ, false)] {
        let log = fs::read(run.join("steps.csv")).unwrap();
        let found = maps(&place, words, "moved.safetensors", || steps(&run).len() > 4);
        assert_eq!(found, is_mapped, "{words}");
        fs::write(run.join("steps.csv"), log).unwrap();
    }
}

fn left_out(stderr: &str) -> usize {
    stderr.lines().filter(|line| line.ends_with("the step is left out")).count()
}

fn layers(stderr: &str) -> usize {
    stderr.lines().filter(|line| line.contains("(layer ")).count()
}
