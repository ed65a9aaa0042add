//! The flags of a new run. What a run should do is computed by the library, from settings that are typed here.

use crate::first_step::{self, FIRST_STEP};
use crate::{Place, SIDE, assert_all_are_typed, resume, settings, write_model};
use onesheet::data::synthetic;
use onesheet::data::tensor_file::{Access, TensorFile};
use onesheet::device::cpu::Cpu;
use onesheet::model::Model;
use onesheet::network::{KernelInit, Trainable, resnet50};
use onesheet::ops::pool::Pooling;
use onesheet::optim::Curve;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::{ClassWeights, DeviceChoice, OnBadNumbers, Pixels, PrecisionChoice, RunConfig};
use onesheet::training::recipe::Recipe;
use onesheet::training::replicas::Opener;
use onesheet::training::run_folder::{RunFolder, StepRow, last_checkpoint, step_checkpoint};
use onesheet::training::tensorboard::TensorBoard;
use onesheet::training::trainer::{Event, Trainer};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

/// Every flag at once, none at its default and no two of a kind at the same value.
const WHOLE: &str = "train --data posters.safetensors --weights start.safetensors --device cpu --precision f32 --seed 7 \
    --batch 3 --epochs 9 --max-steps 2 --lr 0.002 --warmup-epochs 1.5 --zero-init-residual false --image-size 33 --pooling max \
    --trainable last:50 --class-weights none --pixels unit --momentum 0.75 --augment --run whole --save-every 0 \
    --on-bad-numbers skip --check-numerics --recompute --io read --tensorboard histograms --schedule cosine --weight-decay 0.125 --base-rate 0.5 --clip-norm 0.75 \
    --ema 0.5 --precise-bn 6 --accumulate 2 --init he --crop 0.25 --rotate 10 --colour 0.5 --keep-best 2 --patience 7 --time-limit 500";

const FROZEN: &str =
    "train --data posters.safetensors --run frozen --batch 4 --device cpu --trainable last:40 --profile=1 -q";
const DRAWN: &str = "train --run drawn --image-size 32 --seed 5 --batch 4 --device cpu --lr 1e38 --quiet";
const SIMULATED: &str =
    "train --data posters.safetensors --run run --batch 4 --device sim --precision tf32 --max-steps 0";
const SHARED: &str = "train --data posters.safetensors --network shallow --run shared --batch 8 --device sim --precision f32 \
    --gpus 2 --max-steps 2";
const FINDING: &str = "train --data posters.safetensors --network shallow --batch 4 --device cpu --find-lr";
const LONG: &str = "train --data posters.safetensors --batch 4 --device cpu --epochs 1000";

/// Flags that the layer table shows: the output of its first convolution, its last pooling, and its trainable parameters.
const SUMMARIES: [(&str, &str, &str, &str); 16] = [
    ("train --summary", "75 x 75 x 64", "avg_pool", "25,764,871"),
    ("train --summary --image-size 64", "32 x 32 x 64", "avg_pool", "25,764,871"),
    ("train --summary --data posters.safetensors", "17 x 17 x 64", "avg_pool", "25,764,871"),
    ("train --summary --pooling max", "75 x 75 x 64", "max_pool", "25,764,871"),
    ("train --summary --trainable last:40", "75 x 75 x 64", "avg_pool", "18,062,087"),
    ("train --summary --experiment resnet-tl", "75 x 75 x 64", "max_pool", "18,062,087"),
    ("train --summary --network resnet50-v1.5", "75 x 75 x 64", "avg_pool", "25,738,311"),
    ("train --summary --network resnet50-v1.5 --trainable last:40", "75 x 75 x 64", "avg_pool", "18,049,543"),
    ("train --summary --network mobilenet", "75 x 75 x 32", "avg_pool", "4,388,679"),
    ("train --summary --network mobilenet --trainable last:40", "75 x 75 x 32", "avg_pool", "3,851,783"),
    ("train --summary --network vgg16", "150 x 150 x 64", "avg_pool", "15,372,103"),
    ("train --summary --network vgg16 --trainable last:8", "150 x 150 x 64", "avg_pool", "12,456,455"),
    ("train --summary --network xception", "74 x 74 x 32", "avg_pool", "23,037,231"),
    ("train --summary --network xception --trainable last:40", "74 x 74 x 32", "avg_pool", "12,784,607"),
    ("train --summary --network shallow", "75 x 75 x 32", "avg_pool", "1,563,047"),
    ("train --summary --network shallow --trainable last:10", "75 x 75 x 32", "avg_pool", "1,281,287"),
];

#[test]
fn every_flag_of_train_is_typed_here() {
    let lines =
        [WHOLE, FROZEN, DRAWN, SIMULATED, SHARED, FINDING, LONG].into_iter().chain(SUMMARIES.map(|(words, ..)| words));
    assert_all_are_typed("train", lines.chain(first_step::lines()).chain(resume::LINES));
}

/// The steps that the library takes with the settings `config`, in the run folder `run`.
fn steps_by_the_library(config: &RunConfig, run: &Path) -> Vec<StepRow> {
    let file = Arc::new(TensorFile::open(config.data.as_ref().unwrap()).unwrap());
    let device = Cpu::storing(config.precision.on_processor(Cpu::is_fastest_in_bf16()).unwrap());
    let mut trainer = Trainer::new(Rc::new(device), config.clone(), file).unwrap();
    if let Some(weights) = &config.weights {
        let weights = Checkpoint::open(weights).unwrap();
        for tensor in trainer.model().architecture().tensors.clone() {
            trainer.model_mut().write(&tensor, &weights.values(&tensor.name).unwrap()).unwrap();
        }
    }
    let opener = || Box::new(|| Ok(Cpu::new())) as Opener<Cpu>;
    trainer.share((1..config.gpus).map(|_| opener()).collect()).unwrap();
    let mut folder = RunFolder::create(run, config).unwrap();
    let mut steps = Vec::new();
    let mut watch = |event: Event<'_>| {
        if let Event::Step { row, .. } = event {
            steps.push(*row);
        }
    };
    trainer.run(&mut folder, &AtomicBool::new(false), &mut watch).unwrap();
    steps
}

/// The rows of a run's `steps.csv`.
pub fn steps(run: &Path) -> Vec<StepRow> {
    csv::Reader::from_path(run.join("steps.csv")).unwrap().deserialize().collect::<Result<_, _>>().unwrap()
}

/// All of a step but the time it took, to the last bit.
fn bits(row: &StepRow) -> (u64, [u64; 3]) {
    (row.step, [row.loss, row.learning_rate, row.gradient_norm].map(f64::to_bits))
}

#[test]
fn a_run_with_every_flag_is_the_librarys_to_the_last_byte() {
    let place = Place::with_posters();
    write_model(&place.at("start.safetensors"), 77, RunConfig { image_size: SIDE, ..RunConfig::default() });
    let config = RunConfig {
        experiment: None,
        network: resnet50::NETWORK,
        data: Some(place.at("posters.safetensors")),
        weights: Some(place.at("start.safetensors")),
        device: DeviceChoice::Cpu,
        precision: PrecisionChoice::F32,
        gpus: 1,
        seed: 7,
        batch: 3,
        epochs: 9,
        max_steps: Some(2),
        patience: Some(7),
        time_limit: Some(500.0),
        learning_rate: 0.002,
        warmup_epochs: 1.5,
        zero_init_residual: false,
        image_size: SIDE,
        pooling: Pooling::Max,
        trainable: Trainable::Last(50),
        class_weights: ClassWeights::None,
        pixels: Pixels::Unit,
        momentum: 0.75,
        augment: true,
        threshold: 0.3,
        save_every: 0.0,
        keep_best: 2,
        on_bad_numbers: OnBadNumbers::Skip,
        check_numerics: true,
        recompute: true,
        io: Access::Read,
        tensorboard: TensorBoard::Histograms,
        recipe: Recipe {
            schedule: Curve::Cosine,
            weight_decay: 0.125,
            base_rate: 0.5,
            clip_norm: Some(0.75),
            ema: 0.5,
            precise_bn: 6,
            accumulate: 2,
            init: KernelInit::He,
            crop: 0.25,
            rotate: 10.0,
            colour: 0.5,
        },
        history: Vec::new(),
    };
    let told = place.run_to(0, WHOLE);
    let (run, library) = (place.at("runs/whole"), place.at("library"));
    assert_eq!(settings(&run).0, config);
    let expected = steps_by_the_library(&config, &library);
    assert_eq!(steps(&run).iter().map(bits).collect::<Vec<_>>(), expected.iter().map(bits).collect::<Vec<_>>());
    // Two steps an epoch, so that the rate is reached with the third.
    assert_eq!(expected.iter().map(|row| row.learning_rate).collect::<Vec<_>>(), [0.002 / 3.0, 0.002 * 2.0 / 3.0]);
    for checkpoint in [last_checkpoint, |run: &Path| step_checkpoint(run, 1)] {
        let [found, expected] = [&run, &library].map(|run| fs::read(checkpoint(run)).unwrap());
        assert!(found == expected, "{}", checkpoint(&run).display());
    }

    let start = place.at("start.safetensors").display().to_string();
    for line in [
        "  experiment     own settings",
        "  posters        16 to train on, 2 for validation, 2 for the test; 33×33",
        &format!("  weights        {start}"),
        "  layers         trainable last:50, max pooling, pixels unit (RGB, 0 to 1)",
        "  schedule       9 epochs of 2 steps of 6 posters, at most 2 steps in all",
        "  optimiser      Adam, learning rate 0.002, reached over the first 1.5 epochs; seed 7",
        "  recipe         learning rate falls along a cosine to a hundredth; weight decay 0.125; in front of the head 0.5 of the \
         learning rate; gradient norm at most 0.75; kernels start from He's normal; \
         windows of posters, their sides shorter by up to 0.25; posters turned by up to 10 degrees; brightness, contrast and saturation \
         up to 0.5 more or less; 2 batches a step; a moving average of the weights answers, decay 0.5; \
         batch norm's averages formed anew from 6 posters behind each epoch",
        "  batch norm     momentum 0.75",
        "  genre             train  validation    test  class weight",
        "  Drama                11           0       2          1.00",
        "  run            runs/whole",
    ] {
        assert!(told.stderr.lines().any(|found| found == line), "`{line}` is missing: {}", told.stderr);
    }
}

/// What is frozen is as it was drawn, without moments; and the one step that is measured is the fourth.
#[test]
fn trainable_and_profile_do_what_they_say() {
    let place = Place::with_posters();
    let told = place.run_to(0, FROZEN);
    let run = place.at("runs/frozen");
    let config = RunConfig {
        data: Some(place.at("posters.safetensors")),
        device: DeviceChoice::Cpu,
        batch: 4,
        image_size: SIDE,
        trainable: Trainable::Last(40),
        max_steps: Some(4),
        ..RunConfig::default()
    };
    assert_eq!(settings(&run).0, config);
    assert_eq!(told.stderr, "");
    assert!(told.stdout.contains("a training step at batch 4 on CPU"), "{}", told.stdout);
    assert!(told.stdout.contains(" launches, each measured once\n"), "{}", told.stdout);
    assert_eq!((steps(&run).len(), run.join("profile.csv").is_file()), (4, true));

    let checkpoint = Checkpoint::open(&last_checkpoint(&run)).unwrap();
    let weights: Vec<_> = checkpoint.tensors().iter().filter(|(name, _)| !name.contains("adam.")).collect();
    let learns = |name: &str| checkpoint.values(&format!("adam.m/{name}")).is_ok();
    let size = |shape: &[usize]| shape.iter().product::<usize>();
    let trainable: usize = weights.iter().filter(|(name, _)| learns(name)).map(|(_, shape)| size(shape)).sum();
    assert_eq!(trainable, 18_062_087);
    // No bit of what does not learn has moved, but in the averages of batch norms that learn.
    let model = Model::new(Rc::new(Cpu::new()), config.model(synthetic::GENRES.len()), config.seed).unwrap();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for tensor in model.architecture().tensors.clone() {
        let average_of = tensor.name.split_once("/moving_").map(|(layer, _)| format!("{layer}/gamma"));
        let may_move = learns(average_of.as_deref().unwrap_or(&tensor.name));
        let has_moved = bits(checkpoint.values(&tensor.name).unwrap()) != bits(model.read(&tensor).unwrap());
        // A batch norm takes the bias in front of it out again: its gradient is what rounding leaves.
        assert!(has_moved == may_move || tensor.name.ends_with("_conv/bias"), "{}: moved {has_moved}", tensor.name);
        assert!(may_move || !has_moved, "{}", tensor.name);
    }
    // Betas start at zero, and each that learns leaves it within four steps.
    let (mut moved, mut stayed) = (BTreeSet::new(), BTreeSet::new());
    for (name, _) in weights.iter().filter(|(name, _)| name.ends_with("/beta")) {
        let has_moved = checkpoint.values(name).unwrap().iter().any(|&value| value != 0.0);
        assert_eq!(has_moved, learns(name), "{name}");
        if has_moved {
            moved.insert(name.as_str())
        } else {
            stayed.insert(name.as_str())
        };
    }
    let (first, last) = ("conv4_block6_2_bn/beta", "conv4_block6_1_bn/beta");
    assert!(moved.contains(first) && stayed.contains(last), "{moved:?} {stayed:?}");
    assert_eq!((moved.len(), stayed.len()), (12, 41));
}

#[test]
fn posters_are_drawn_of_the_size_and_from_the_seed_that_are_typed() {
    let place = Place::new();
    let told = place.run_to(6, DRAWN);
    assert_eq!(told.stderr.lines().count(), 1, "only the error: {}", told.stderr);
    let run = place.at("runs/drawn");
    let config = RunConfig {
        device: DeviceChoice::Cpu,
        seed: 5,
        batch: 4,
        epochs: 5,
        image_size: 32,
        momentum: 0.9,
        learning_rate: 1e38,
        ..RunConfig::default()
    };
    assert_eq!(settings(&run).0, config);
    let file = TensorFile::open(&run.join("posters.safetensors")).unwrap();
    assert_eq!((file.len(), file.size()), (1000, 32));
    for poster in [0, 999] {
        let (pixels, labels) = synthetic::draw(5, poster as u32, 32);
        assert!(*file.image_checked(poster).unwrap() == *pixels && *file.labels(poster) == *labels, "poster {poster}");
    }
}

#[test]
fn the_layer_table_follows_its_flags() {
    let place = Place::with_posters();
    for (words, output, pooling, trainable) in SUMMARIES {
        let table = place.run_to(0, words).stdout;
        let row = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let first = table.lines().find(|line| line.contains(" Conv2D "));
        assert!(first.is_some_and(|row| row.contains(output)), "{words}: {table}");
        assert!(row(pooling).contains(" Global"), "{words}: {table}");
        assert_eq!(row("trainable ").split_whitespace().last(), Some(trainable), "{words}: {table}");
    }
    assert!(!place.at("runs").exists(), "a table is no run");
}

/// The first rates move next to nothing, the last too much.
#[test]
fn rates_are_tried_and_nothing_is_written() {
    let place = Place::with_posters();
    let files = || fs::read_dir(place.at("")).unwrap().map(|file| file.unwrap().file_name()).collect::<BTreeSet<_>>();
    let before = files();
    let told = place.run_to(0, FINDING).stdout;
    let mut lines = told.lines();
    assert_eq!(lines.next(), Some("learning rate        loss    smoothed"), "{told}");
    let tried: Vec<Vec<&str>> =
        lines.map(|line| line.split_whitespace().collect()).take_while(|row: &Vec<_>| row.len() == 3).collect();
    assert!(tried.len() > 60 && tried[0][0] == "1.00e-7", "{told}");
    assert!(told.contains("begin with") || told.contains("none is suggested"), "{told}");
    assert!(told == place.run_to(0, FINDING).stdout, "the same rates, the same losses");
    let json = place.run_to(0, &format!("{FINDING} --json")).stdout;
    assert_eq!(json.lines().count(), tried.len() + 1);
    assert!(json.lines().last().unwrap().contains(r#""kind":"suggestion""#), "{json}");
    assert_eq!(files(), before);
    let told = place.run_to(2, "train --find-lr");
    assert!(told.stderr.contains("train --find-lr --data FILE"), "{}", told.stderr);
}

#[test]
fn device_and_precision_are_those_that_compute() {
    let place = Place::with_posters();
    let told = place.run_to(0, SIMULATED).stderr;
    assert!(told.contains(" files of kernels compiled in ") && !told.contains("the driver keeps"), "{told}");
    let (config, devices) = settings(&place.at("runs/run"));
    assert_eq!(
        (config.device, config.precision, config.max_steps),
        (DeviceChoice::Sim, PrecisionChoice::Tf32, Some(0))
    );
    assert_eq!(devices.len(), 1);
    assert!(devices[0].starts_with("gpusim ") && devices[0].ends_with(", tf32)"), "{devices:?}");
    let narrow = "train --data posters.safetensors --run narrow --batch 4 --device cpu --precision bf16 --max-steps 1";
    if Cpu::multiplies_bf16() {
        place.run_to(0, narrow);
        let (config, devices) = settings(&place.at("runs/narrow"));
        assert_eq!((config.device, config.precision), (DeviceChoice::Cpu, PrecisionChoice::Bf16));
        assert!(devices[0].starts_with("CPU ") && devices[0].ends_with(", bf16); --device cpu"), "{devices:?}");
    } else {
        let told = place.run_to(5, narrow).stderr;
        assert!(told.contains("neither AVX-512 BF16 nor AMX") && told.ends_with("--precision f32\n"), "{told}");
    }
    place.run_to(
        0,
        "train --data posters.safetensors --run chosen --batch 4 --device cpu --precision auto --max-steps 1",
    );
    let (_, devices) = settings(&place.at("runs/chosen"));
    let chosen = if Cpu::is_fastest_in_bf16() { ", bf16); --device cpu" } else { ", f32); --device cpu" };
    assert!(devices[0].ends_with(chosen), "{devices:?}");
    let told = place.run_to(2, &format!("{FIRST_STEP} --run other --precision tf32"));
    assert!(told.stderr.contains("--device cpu; tf32 is a format of GPUs"), "{}", told.stderr);
}

/// On the simulated GPU as on two processors; alone it goes on with the same batches.
#[test]
fn gpus_share_the_posters_of_a_step() {
    let place = Place::with_posters();
    let told = place.run_to(0, SHARED).stderr;
    assert!(told.contains("the first of 2 GPUs") && told.contains("2 batches a step"), "{told}");
    let config = settings(&place.at("runs/shared")).0;
    assert_eq!((config.gpus, config.batch, config.recipe.accumulate), (2, 4, 2));
    let on_processors = RunConfig { device: DeviceChoice::Cpu, ..config };
    let found = steps(&place.at("runs/shared"));
    for (found, expected) in found.iter().zip(steps_by_the_library(&on_processors, &place.at("expected"))) {
        assert_eq!((found.step, found.learning_rate), (expected.step, expected.learning_rate));
        let near = |found: f64, expected: f64| (found - expected).abs() <= 1e-4 * expected.abs();
        let is_near = near(found.loss, expected.loss) && near(found.gradient_norm, expected.gradient_norm);
        assert!(is_near, "{found:?}, {expected:?}");
    }
    assert_eq!(found.len(), 2);
    let told = place.run_to(2, "train --resume shared --gpus 3").stderr;
    assert!(told.contains("the 2 batches of a step (--accumulate) are not shared evenly by --gpus 3"), "{told}");
    place.run_to(0, "train --resume shared --gpus 1 --max-steps 3 --device cpu");
    assert_eq!((settings(&place.at("runs/shared")).0.gpus, steps(&place.at("runs/shared")).len()), (1, 3));
    let told = place.run_to(2, &format!("{FIRST_STEP} --run other --gpus 2")).stderr;
    assert!(told.contains("--gpus 2 needs 2 NVIDIA GPUs") && !place.at("runs/other").exists(), "{told}");
}

/// Whether the trainer that `words` start has mapped the file called `posters`, once it is `at_work`. It is killed then.
#[cfg(target_os = "linux")]
pub fn maps(place: &Place, words: &str, posters: &str, at_work: impl Fn() -> bool) -> bool {
    let mut child = place.onesheet(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !at_work() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early: {words}");
        assert!(began.elapsed() < Duration::from_secs(120), "no step in two minutes: {words}");
        thread::sleep(Duration::from_millis(5));
    }
    let maps = fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    maps.contains(posters)
}

#[cfg(target_os = "linux")]
#[test]
fn posters_are_mapped_or_read_as_asked() {
    let place = Place::with_posters();
    for (name, words, is_mapped) in [("unsaid", "", true), ("map", "--io map", true), ("read", "--io read", false)] {
        let run = place.at("runs").join(name);
        let at_work = || run.join("steps.csv").exists() && !steps(&run).is_empty();
        let found = maps(&place, &format!("{LONG} --run {name} {words}"), "posters.safetensors", at_work);
        assert_eq!(found, is_mapped, "`{words}`");
    }
    // And so are those that the run draws itself.
    let drawn = "train --image-size 32 --batch 4 --device cpu --epochs 1000 --run drawn --io read";
    let run = place.at("runs/drawn");
    let at_work = || run.join("steps.csv").exists() && !steps(&run).is_empty();
    assert!(!maps(&place, drawn, "drawn/posters.safetensors", at_work));
}
