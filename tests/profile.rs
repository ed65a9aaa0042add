//! Profiles of training steps: every launch is in them, where it belongs, with the work that it declares; and what is measured
//! computes the same bits as what isn't. On the processor and on the simulated GPU, or with `ONESHEET_TEST_DEVICE=cuda` on a
//! real one.

#[path = "support/cuda.rs"]
mod cuda;

use onesheet::data::synthetic;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::cpu::Cpu;
use onesheet::device::cuda::{Cuda, Precision};
use onesheet::device::{ConvShape, DenseShape, Measured, Memory, Pass, PixelFormat, Placement};
use onesheet::network::{Architecture, ModelConfig, Network, resnet50};
use onesheet::ops::pool::Pooling;
use onesheet::profile::{Profile, ProfileError};
use onesheet::training::config::RunConfig;
use onesheet::training::learner::Learner;
use onesheet::training::profiling::{Profiling, WARM_UP};
use onesheet::training::run_folder::{RunFolder, StepRow, last_checkpoint};
use onesheet::training::trainer::{Ending, Event, Trainer};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

const GENRES: usize = 7;
const BATCH: usize = 8;
const SIDE: usize = 32;

/// Every kind of layer and junction, with channels that tensor cores take.
fn network() -> Network {
    Network {
        title: "a small network",
        base: |net| resnet50::base(net, resnet50::V1, 16, &[(8, 2), (16, 1)]),
        head: &[24],
        ..resnet50::MINIATURE
    }
}

/// What a profile of a training step of this network must have, whatever the device: every layer that computes, under its own
/// name, forward and backward; each launch with a time.
fn check_places(launches: &[Measured], architecture: &Architecture) {
    let scopes = |pass| launches.iter().filter(move |launch| launch.scope.pass == pass);
    let names = |pass| scopes(pass).map(|launch| &*launch.scope.layer).collect::<BTreeSet<_>>();
    // Paddings, ReLUs and sums are parts of other launches; a block's output is the junction.
    let computes = |layer: &str| {
        let kinds = ["_conv", "_bn", "_out", "_pool", "head_24", "genres"];
        kinds.iter().any(|kind| layer.ends_with(kind))
    };
    let layers = architecture.layers.iter().map(|layer| &*layer.name).filter(|layer| computes(layer));
    let mut expected: BTreeSet<&str> = layers.collect();
    assert_eq!(expected.len(), 1 + 2 * (4 + 3 + 4) + 1 + 1 + 3 + 1 + 2, "{expected:?}");
    expected.extend(["averages", "gradients"]);
    assert_eq!(names(Pass::Backward), expected);
    expected.remove("gradients");
    expected.extend(["input_layer", "loss"]);
    assert_eq!(names(Pass::Forward), expected);
    assert_eq!(names(Pass::Update), BTreeSet::from(["adam", "averages"]));
    for launch in launches {
        assert!(launch.seconds > 0.0 && launch.work.bytes() > 0, "{launch:?}");
    }
}

/// The multiplications and additions of all convolutions and dense layers forward, from their parameters' shapes and their
/// outputs.
fn forward_flops(architecture: &Architecture) -> u64 {
    let kernels = architecture.tensors.iter().filter_map(|tensor| Some((tensor.name.strip_suffix("/kernel")?, tensor)));
    let flops = kernels.map(|(name, kernel)| {
        let layer = architecture.layers.iter().find(|layer| layer.name == name).unwrap();
        let [outputs, sum]: [usize; 2] = [layer.output.iter().product(), kernel.shape[1..].iter().product()];
        2 * BATCH * outputs * sum
    });
    flops.sum::<usize>() as u64
}

fn config(posters: &Path, max_steps: u64) -> RunConfig {
    RunConfig {
        network: network(),
        data: Some(posters.into()),
        batch: BATCH,
        epochs: 3,
        image_size: SIDE,
        momentum: 0.9,
        max_steps: Some(max_steps),
        ..RunConfig::default()
    }
}

/// A run on the processor: its last checkpoint, its losses, and if asked its profile.
fn run(path: &Path, config: &RunConfig, profiled: bool) -> (Vec<u8>, Vec<f64>, Option<Result<Profile, ProfileError>>) {
    let device = Rc::new(Cpu::new());
    let file = Arc::new(TensorFile::open(config.data.as_deref().unwrap()).unwrap());
    let mut trainer = Trainer::new(Rc::clone(&device), config.clone(), file).unwrap();
    let mut folder = RunFolder::create(path, config).unwrap();
    let mut profiling = profiled.then(|| Profiling::new(device));
    if profiled {
        trainer.ask_at_once();
    }
    let mut watch = |event: Event<'_>| {
        if let Some(profiling) = &mut profiling {
            profiling.watch(&event);
        }
    };
    assert_eq!(trainer.run(&mut folder, &AtomicBool::new(false), &mut watch).unwrap(), Ending::StepLimit);
    let rows = csv::Reader::from_path(path.join("steps.csv")).unwrap().into_deserialize::<StepRow>();
    let losses = rows.map(|row| row.unwrap().loss).collect();
    (fs::read(last_checkpoint(path)).unwrap(), losses, profiling.map(|profiling| profiling.end("a step".into())))
}

#[test]
fn a_run_on_the_processor_is_measured_and_stays_the_same() {
    let folder = TempDir::new().unwrap();
    let posters = folder.path().join("posters.safetensors");
    // 64 to train on: eight steps an epoch, so that a validation lies between those measured.
    synthetic::write(&posters, 80, SIDE, 7).unwrap();
    let config = config(&posters, WARM_UP + 8);
    let (checkpoint, losses, _) = run(&folder.path().join("plain"), &config, false);
    let (profiled_checkpoint, profiled_losses, profile) = run(&folder.path().join("profiled"), &config, true);
    assert_eq!(
        losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>(),
        profiled_losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>()
    );
    assert!(checkpoint == profiled_checkpoint);

    let profile = profile.unwrap().unwrap();
    assert!(profile.to_string().contains("each measured 8 times"), "{profile}");
    let architecture = Architecture::new(&config.model(GENRES)).unwrap();
    check_places(profile.launches(), &architecture);
    let flops = |kernels: &[&str]| -> u64 {
        let launches = profile.launches().iter().filter(|launch| kernels.contains(&launch.kernel));
        launches.map(|launch| launch.work.flops).sum()
    };
    let forward = forward_flops(&architecture);
    assert_eq!(flops(&["conv_forward", "dense_forward"]), forward);
    assert_eq!(flops(&["conv_backward_weights", "dense_backward_weights"]), forward);
    // Nobody asks for the gradient of the posters.
    let stem = ConvShape::new([BATCH, SIDE, SIDE, 3], 16, [7, 7], 2, 3).unwrap();
    assert_eq!(flops(&["conv_backward_data", "dense_backward_data"]), forward - stem.flops());

    let bytes = |layer: &str, kernel: &str| {
        let mut launches =
            profile.launches().iter().filter(|launch| (&*launch.scope.layer, launch.kernel) == (layer, kernel));
        let work = launches.next().unwrap_or_else(|| panic!("{layer} {kernel}")).work;
        assert!(launches.next().is_none(), "{layer} {kernel}");
        [work.reads, work.writes]
    };
    let parameters = architecture.weights.len() as u64;
    let averages = architecture.averages.len() as u64;
    // Weights, gradients and moments; what became of the step, and the rates.
    assert_eq!(bytes("adam", "adam"), [4 * (4 * parameters + 5), 12 * parameters]);
    assert_eq!(bytes("gradients", "fill"), [0, 4 * parameters]);
    assert_eq!(bytes("gradients", "squared_norm"), [4 * parameters, 4]);
    assert_eq!(bytes("averages", "copy"), [4 * averages, 4 * averages]);
    assert_eq!(bytes("averages", "squared_norm"), [4 * averages, 4]);
    assert_eq!(bytes("averages", "restore"), [12, 0]);
    let DenseShape { n, inputs, outputs } = DenseShape { n: BATCH, inputs: 24, outputs: GENRES };
    assert_eq!(
        bytes("genres", "dense_forward"),
        [4 * (n * inputs + inputs * outputs + outputs), 4 * n * outputs].map(|b| b as u64)
    );
    // The output, and its mean and variance.
    let [x, w, y] = [stem.input_len(), stem.weights_len(), stem.output_len() + 2 * stem.k];
    assert_eq!(bytes("conv1_conv", "conv_forward"), [4 * (x + w), 4 * y].map(|bytes| bytes as u64));
}

#[test]
fn a_run_that_ends_while_it_warms_up_has_no_profile() {
    let folder = TempDir::new().unwrap();
    let posters = folder.path().join("posters.safetensors");
    synthetic::write(&posters, 80, SIDE, 7).unwrap();
    let (_, _, profile) = run(&folder.path().join("short"), &config(&posters, WARM_UP), true);
    assert!(matches!(profile.unwrap(), Err(ProfileError::Empty)));
}

/// A network on CUDA and its batch.
struct OnCuda {
    device: Rc<Cuda>,
    learner: Learner<Cuda>,
}

impl OnCuda {
    fn new(precision: Precision) -> Self {
        let device = Rc::new(cuda::device(precision));
        let config =
            ModelConfig { network: network(), image_size: SIDE, ..ModelConfig::new(resnet50::NETWORK, GENRES) };
        let learner = Learner::new(Rc::clone(&device), config, 5).unwrap();
        OnCuda { device, learner }
    }

    /// A training step, and its loss.
    fn step(&mut self, number: usize) -> f64 {
        const FORMAT: PixelFormat = PixelFormat { order: [2, 1, 0], scale: 1.0 / 255.0, shift: [0.0; 3] };
        let pixels: Vec<u8> = (0..BATCH * SIDE * SIDE * 3).map(|i| ((i + number) * 37 % 251) as u8).collect();
        let labels: Vec<u8> = (0..BATCH * GENRES).map(|i| u8::from((i + number).is_multiple_of(3))).collect();
        let pixels = self.device.upload_pixels(&pixels, &[Placement::default(); BATCH]).unwrap();
        self.learner.submit(pixels, BATCH, &FORMAT, &labels, &[1.0; GENRES], 1e-3).unwrap();
        self.learner.outcome().unwrap().loss
    }
}

/// Steps 1 and 2 are done as they are and captured, 3 replays; 4 and 5 are measured, 6 replays again.
#[test]
fn steps_on_cuda_are_measured_as_planned_and_stay_the_same() {
    for precision in [Precision::Bf16, Precision::F32] {
        let mut plain = OnCuda::new(precision);
        let expected: Vec<u64> = (1..=6).map(|number| plain.step(number).to_bits()).collect();

        let mut profiled = OnCuda::new(precision);
        let device = Rc::clone(&profiled.device);
        let mut losses: Vec<u64> = (1..=3).map(|number| profiled.step(number).to_bits()).collect();
        assert!(device.measured().unwrap().is_empty(), "nobody asked yet");
        device.profiler().unwrap().start();
        let mut steps = Vec::new();
        for number in 4..=5 {
            let (loss, plan) = device.planned(|| profiled.step(number));
            losses.push(loss.to_bits());
            let measured = device.measured().unwrap();
            // What is no kernel is not in the plan.
            let is_driver = |launch: &&Measured| ["memcpy", "memset"].contains(&launch.kernel);
            let moves = measured.iter().filter(is_driver);
            let moves: Vec<_> =
                moves.map(|launch| (&*launch.scope.layer, launch.work.reads, launch.work.writes)).collect();
            let architecture = profiled.learner.model().architecture();
            let [weights, averages] =
                [architecture.weights, architecture.averages].map(|layout| 4 * layout.len() as u64);
            assert_eq!(moves, [("averages", averages, averages), ("gradients", 0, weights)]);
            let launches = measured.iter().filter(|launch| !is_driver(launch));
            let launches: Vec<_> = launches.map(|launch| (launch.kernel, launch.work)).collect();
            assert_eq!(launches, plan.iter().map(|planned| (planned.kernel, planned.launch.work)).collect::<Vec<_>>());
            steps.push(measured);
        }
        device.profiler().unwrap().stop();
        let (loss, plan) = device.planned(|| profiled.step(6));
        losses.push(loss.to_bits());
        assert!(plan.is_empty(), "the sixth step is replayed");
        assert!(device.measured().unwrap().is_empty(), "nobody asks any more");
        assert_eq!(losses, expected);

        check_places(&steps[0], profiled.learner.model().architecture());
        let profile = Profile::new(&*device, "a step".into(), &steps).unwrap();
        assert_eq!(profile.launches().len(), steps[0].len());
        assert_eq!(profile.rows().all(|row| row.floor_us.is_none()), !cuda::is_real(), "{profile}");
        let forward = forward_flops(profiled.learner.model().architecture());
        let products = profile.launches().iter().filter(|launch| {
            launch.scope.pass == Pass::Forward
                && (launch.scope.layer.ends_with("_conv") || launch.kernel == "dense_forward")
        });
        assert_eq!(products.map(|launch| launch.work.flops).sum::<u64>(), forward);
    }
}

/// The kernels of the other pooling and of inference have clocks as well.
#[test]
fn inference_is_measured_on_the_processor() {
    use onesheet::model::{Model, Posters};
    use onesheet::network::resnet50;
    let device = Rc::new(Cpu::new());
    let config = ModelConfig {
        network: network(),
        image_size: SIDE,
        pooling: Pooling::Max,
        ..ModelConfig::new(resnet50::NETWORK, GENRES)
    };
    let model = Model::new(Rc::clone(&device), config, 5).unwrap();
    let pixels = vec![100; BATCH * SIDE * SIDE * 3];
    let format = PixelFormat { order: [0, 1, 2], scale: 1.0, shift: [0.0; 3] };
    device.profiler().unwrap().start();
    model.predict(Posters { pixels: &pixels, placements: &[Placement::default(); BATCH], format: &format }).unwrap();
    let measured = device.measured().unwrap();
    assert!(measured.iter().all(|launch| launch.scope.pass == Pass::Forward));
    let of = |layer: &str| {
        measured.iter().filter(|launch| &*launch.scope.layer == layer).map(|launch| launch.kernel).collect::<Vec<_>>()
    };
    assert_eq!(of("input_layer"), ["image_forward"]);
    assert_eq!(of("conv1_conv"), ["folded_forward"]);
    assert_eq!(of("max_pool"), ["global_max_pool_forward"]);
    // The logits of a group of posters go to where those of all lie.
    assert_eq!(of("genres"), ["folded_forward", "copy", "sigmoid"]);
}
