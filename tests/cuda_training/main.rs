//! Rung 4 on CUDA: gradients through the tape, and losses of whole runs step by step, against other devices; on the simulated
//! GPU, or with `ONESHEET_TEST_DEVICE=cuda` on a real one.
//!
//! Where a precision rounds, the other device is the reference, rounding as the kernels do. Gammas start from 1 here, so that
//! every kernel has its say, and learning rates are small, because such a start is chaotic: at Keras's 1e-3 the last bit of a
//! third of the activations, flipped, changes the loss of the sixth step by a quarter. `cuda_run.rs` has the settings that
//! `train` starts with.
//!
//! From the third step on a run is a replayed graph, so whatever a step should have read from memory but took from its
//! launch shows here.

mod bad_steps;
#[path = "../support/cuda.rs"]
mod cuda;
#[path = "../support/not_checked.rs"]
mod not_checked;
mod recipe;
#[path = "../support/mod.rs"]
mod support;

use not_checked::not_checked;
use onesheet::device::cpu::Cpu;
use onesheet::device::cuda::{Cuda, Precision};
use onesheet::device::reference::Reference;
use onesheet::device::{Device, DeviceError, ImageKernels, ImageShape, Memory, PixelFormat, Placement, Storage};
use onesheet::model::{Batch, Model, Posters};
use onesheet::network::{KernelInit, ModelConfig, Network, Place, Trainable, resnet50};
use onesheet::ops::pool::Pooling;
use onesheet::training::learner::Learner;
use std::ffi::c_char;
use std::rc::Rc;
use support::{compare, seeded};

const GENRES: usize = 7;
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];
const FORMAT: PixelFormat = PixelFormat { order: [2, 1, 0], scale: 1.0, shift: [-103.939, -116.779, -123.68] };

/// Every kind of layer, with channels that the tensor cores' tiles take.
fn small() -> Network {
    Network {
        title: "a small network",
        base: |net| resnet50::base(net, resnet50::V1, 16, &[(8, 2), (16, 1)]),
        head: &[24],
        ..resnet50::MINIATURE
    }
}

fn config(network: Network, image_size: usize) -> ModelConfig {
    let (pooling, trainable) = (Pooling::Average, Trainable::All);
    let genres = GENRES;
    ModelConfig {
        network,
        image_size,
        genres,
        pooling,
        trainable,
        momentum: 0.9,
        zero_init_residual: false,
        init: KernelInit::Glorot,
    }
}

/// Posters and labels of one step.
struct Data {
    pixels: Vec<u8>,
    placements: Vec<Placement>,
    labels: Vec<u8>,
}

impl Data {
    /// Patches of colour, since noise has no mean to speak of, mirrored and moved.
    fn draw(step: u64, images: usize, size: usize) -> Self {
        let patches = seeded(1000 + step, images * 48, 0.0, 256.0);
        let pixel = |at: usize| {
            let (c, x, y, n) = (at % 3, at / 3 % size, at / 3 / size % size, at / 3 / size / size);
            let patch = (4 * y / size) * 4 + 4 * x / size;
            (patches[n * 48 + patch * 3 + c] as usize + at * 7 % 32).min(255) as u8
        };
        let place = |n: usize| Placement { flip: n % 2 == 1, shift_y: n as i8 % 3 - 1, shift_x: 2 - n as i8 % 5 };
        Data {
            pixels: (0..images * size * size * 3).map(pixel).collect(),
            placements: (0..images).map(place).collect(),
            labels: seeded(2000 + step, images * GENRES, 0.0, 1.0).iter().map(|&u| u8::from(u < 0.4)).collect(),
        }
    }

    fn posters(&self) -> Posters<'_> {
        Posters { pixels: &self.pixels, placements: &self.placements, format: &FORMAT }
    }
}

/// The losses of some steps on `device`.
fn losses<D: Device>(device: Rc<D>, config: &ModelConfig, images: usize, steps: u64, rate: f64) -> Vec<f64> {
    let mut learner = Learner::new(Rc::clone(&device), config.clone(), 5).unwrap();
    let step = |number| {
        let data = Data::draw(number, images, config.image_size);
        let pixels = device.upload_pixels(&data.pixels, &data.placements).unwrap();
        learner.submit(pixels, images, &FORMAT, &data.labels, &[1.0; GENRES], rate).unwrap();
        learner.outcome().unwrap().loss
    };
    (0..steps).map(step).collect()
}

/// The reference, rounding as CUDA does.
fn oracle(precision: Precision) -> Rc<Reference> {
    Rc::new(Reference::rounding(precision))
}

/// Losses in each precision: against the processor, which is faster, in those that are `like_f32`; in the others against the
/// reference, which rounds.
fn check_losses(
    config: &ModelConfig,
    images: usize,
    steps: u64,
    rate: f64,
    like_f32: &[Precision],
    tolerances: [f64; 3],
) {
    for (precision, tolerance) in PRECISIONS.into_iter().zip(tolerances) {
        let expected = match like_f32.contains(&precision) {
            true => losses(Rc::new(Cpu::new()), config, images, steps, rate),
            false => losses(oracle(precision), config, images, steps, rate),
        };
        let device = Rc::new(cuda::device(precision));
        let found = losses(Rc::clone(&device), config, images, steps, rate);
        compare(&format!("losses on {}", device.name()), &found, &expected, 0.0, tolerance).unwrap();
    }
}

#[test]
fn a_miniature_learns_as_it_does_elsewhere() {
    check_losses(&config(resnet50::MINIATURE, 21), 3, 6, 1e-5, &[Precision::F32], [1e-4, 1e-3, 1e-3]);
}

#[test]
fn a_small_network_learns_as_it_does_elsewhere() {
    let mut config = config(small(), 33);
    check_losses(&config, 4, 6, 1e-5, &[Precision::F32], [1e-4, 1e-3, 1e-3]);
    config.pooling = Pooling::Max;
    config.trainable = Trainable::Last(12);
    check_losses(&config, 4, 4, 1e-5, &[Precision::F32], [1e-4, 1e-3, 1e-3]);
}

/// Both store the same numbers narrow and round what they multiply, but for Winograd's form of a convolution on the processor.
#[test]
fn the_processor_in_bf16_learns_as_the_reference_does() {
    let config = config(small(), 33);
    let processor = losses(Rc::new(Cpu::storing(Precision::Bf16)), &config, 4, 6, 1e-5);
    let expected = losses(oracle(Precision::Bf16), &config, 4, 6, 1e-5);
    compare("losses", &processor, &expected, 0.0, 3e-3).unwrap();
    let wide = losses(Rc::new(Cpu::new()), &config, 4, 6, 1e-5);
    assert!(compare("losses", &processor, &wide, 0.0, 1e-5).is_err(), "nothing was narrow");
}

/// Fifty-three batch norms over few values amplify the last bit some thirtyfold: rounding to bfloat16 alone moves these losses by
/// five percent, and a number that rounds the other way because its sum was taken in another order by up to three.
#[test]
fn the_full_network_learns_as_it_does_elsewhere() {
    // Rounding to tf32 moves them by half a percent, which the tolerance covers; and the reference is slow.
    let like_f32 = &[Precision::F32, Precision::Tf32];
    check_losses(&config(resnet50::NETWORK, 64), 4, 3, 1e-6, like_f32, [1e-3, 1e-2, 5e-2]);
}

/// Twenty steps of the paper's start, at Keras's learning rate, each from the weights that the processor has then: what a free run
/// cannot show there, since it leaves any other after a few steps, the processor's own with one bit changed as well.
#[test]
#[ignore = "minutes; prints a table"]
fn every_step_of_a_run_from_the_processors_weights() {
    let config = config(resnet50::NETWORK, 64);
    let cpu = Rc::new(Cpu::new());
    let mut learner = Learner::new(Rc::clone(&cpu), config.clone(), 7).unwrap();
    let mut followers = [Precision::F32, Precision::Bf16].map(|precision| {
        let device = Rc::new(cuda::device(precision));
        Model::new(device, config.clone(), 7).unwrap()
    });
    let mut rounding = Model::new(oracle(Precision::Bf16), config.clone(), 7).unwrap();
    println!("step,loss,f32,bf16,rounding_reference");
    for step in 0..20 {
        let data = Data::draw(step, 8, 64);
        let tensors = learner.model().architecture().tensors.clone();
        for tensor in &tensors {
            let values = learner.model().read(tensor).unwrap();
            followers.iter_mut().for_each(|model| model.write(tensor, &values).unwrap());
            rounding.write(tensor, &values).unwrap();
        }
        let pixels = cpu.upload_pixels(&data.pixels, &data.placements).unwrap();
        learner.submit(pixels, 8, &FORMAT, &data.labels, &[1.0; GENRES], 1e-3).unwrap();
        let expected = learner.outcome().unwrap().loss;
        let off = followers.each_mut().map(|model| loss(model, &data) / expected - 1.0);
        let rounded = loss(&mut rounding, &data) / expected - 1.0;
        println!("{},{expected:.6},{:.2e},{:.2e},{rounded:.2e}", step + 1, off[0], off[1]);
        assert!(off[0].abs() <= 1e-3, "f32 is off by {:.2e} in step {}", off[0], step + 1);
        assert!(off[1].abs() <= 2e-2, "bf16 is off by {:.2e} in step {}", off[1], step + 1);
    }
}

/// The loss of a training step.
fn loss<D: Device>(model: &mut Model<D>, data: &Data) -> f64 {
    let device = Rc::clone(model.device());
    let (pixels, images) = (device.upload_pixels(&data.pixels, &data.placements).unwrap(), data.placements.len());
    let mut batch = Batch::new(&*device, pixels, images, &FORMAT, &data.labels, &[1.0; GENRES]).unwrap();
    model.gradients(&mut batch).unwrap();
    batch.loss(&device).unwrap()
}

/// The gradient of every trainable tensor after one pass, in their order, with its name.
fn gradients<D: Device>(device: Rc<D>, config: &ModelConfig, data: &Data) -> Vec<(String, Vec<f64>)> {
    let mut model = Model::new(Rc::clone(&device), config.clone(), 5).unwrap();
    let pixels = device.upload_pixels(&data.pixels, &data.placements).unwrap();
    let images = data.placements.len();
    let mut batch = Batch::new(&*device, pixels, images, &FORMAT, &data.labels, &[1.0; GENRES]).unwrap();
    model.gradients(&mut batch).unwrap();
    let mut named = Vec::new();
    for tensor in &model.architecture().tensors {
        if let Place::Weights(span) = tensor.place {
            let values = device.download(model.parameters().gradients.view(span)).unwrap();
            named.push((tensor.name.clone(), values.into_iter().map(Into::into).collect()));
        }
    }
    named
}

/// How far a gradient is off, relative to its own size: as vectors, since where a pre-activation is zero up to rounding, a ReLU may
/// open on one device and not on the other.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(expected).map(|(f, e)| f - e)) / norm(&mut expected.iter().copied()).max(1e-12)
}

/// Whether every gradient is what `expected` says.
fn check_gradients(
    device: Rc<Cuda>,
    config: &ModelConfig,
    data: &Data,
    expected: &[(String, Vec<f64>)],
    tolerance: f64,
) {
    for ((name, found), (_, expected)) in gradients(Rc::clone(&device), config, data).iter().zip(expected) {
        let off = distance(found, expected);
        println!("{name} on {}: off by {off:.2e} of its norm", device.name());
        // A convolution's bias in front of a batch norm has none.
        let zero = expected.iter().all(|&g| g == 0.0) && found.iter().all(|&g| g == 0.0);
        assert!(zero || off <= tolerance, "{name} on {}: off by {off:.2e} of its norm", device.name());
    }
}

#[test]
fn gradients_are_the_references() {
    for network in [resnet50::MINIATURE, small()] {
        let (config, data) = (config(network, 33), Data::draw(1, 4, 33));
        let expected = gradients(Rc::new(Reference::EXACT), &config, &data);
        check_gradients(Rc::new(cuda::device(Precision::F32)), &config, &data, &expected, 1e-4);
    }
}

#[test]
fn narrow_gradients_are_the_rounded_ones() {
    for network in [resnet50::MINIATURE, small()] {
        let (config, data) = (config(network, 33), Data::draw(1, 4, 33));
        for precision in [Precision::Tf32, Precision::Bf16] {
            let expected = gradients(oracle(precision), &config, &data);
            check_gradients(Rc::new(cuda::device(precision)), &config, &data, &expected, 1e-2);
        }
    }
}

#[test]
fn the_same_bits_every_time() {
    let config = config(small(), 33);
    let run = || losses(Rc::new(cuda::device(Precision::Bf16)), &config, 4, 5, 1e-3);
    assert_eq!(run(), run());
}

/// Batches of another size in between, as validation brings them, take nothing that a replayed step writes to.
#[test]
fn a_replayed_step_keeps_to_its_own_memory() {
    let config = config(small(), 33);
    let run = |disturbed: bool| {
        let device = Rc::new(cuda::device(Precision::Bf16));
        let mut learner = Learner::new(Rc::clone(&device), config.clone(), 5).unwrap();
        let mut losses = Vec::new();
        let mut kept = Vec::new();
        for step in 0..6 {
            let data = Data::draw(step, 4, 33);
            let pixels = device.upload_pixels(&data.pixels, &data.placements).unwrap();
            learner.submit(pixels, 4, &FORMAT, &data.labels, &[1.0; GENRES], 1e-3).unwrap();
            losses.push(learner.outcome().unwrap().loss);
            if disturbed {
                let other = Data::draw(50 + step, 3, 33);
                learner.model().score(other.posters(), &other.labels, &[1.0; GENRES]).unwrap();
                // Somebody's buffers, of sizes that the step uses too.
                for len in [4 * 17 * 17 * 16, 4 * 9 * 9 * 32, 4 * 7] {
                    let mut buffer = device.allocate(len, Storage::Activation).unwrap();
                    device.fill(Cuda::view_mut(&mut buffer, 0..len), 7.0).unwrap();
                    kept.push((buffer, len));
                }
            }
        }
        for (buffer, len) in &kept {
            let values = device.download(Cuda::view(buffer, 0..*len)).unwrap();
            assert!(values.iter().all(|&value| value == 7.0), "a replayed step wrote to a buffer of {len} elements");
        }
        losses
    };
    assert_eq!(run(true), run(false));
}

/// As the trainer does it: the next batch is on its way while a step runs.
#[test]
fn staged_batches_arrive_whole() {
    let config = config(small(), 33);
    let device = Rc::new(cuda::device(Precision::F32));
    let mut learner = Learner::new(Rc::clone(&device), config.clone(), 5).unwrap();
    let upload = |data: &Data| device.upload_pixels(&data.pixels, &data.placements).unwrap();
    let mut found = Vec::new();
    let mut staged = Data::draw(0, 4, 33);
    let mut pixels = upload(&staged);
    for step in 1..=6 {
        learner.submit(pixels, 4, &FORMAT, &staged.labels, &[1.0; GENRES], 1e-4).unwrap();
        staged = Data::draw(step, 4, 33);
        pixels = upload(&staged);
        found.push(learner.outcome().unwrap().loss);
    }
    assert_eq!(found, losses(Rc::new(cuda::device(Precision::F32)), &config, 4, 6, 1e-4));
}

/// A capture may not wait for an event from outside, so the work's first run has waited for all.
#[test]
fn captured_work_reads_pixels_as_they_arrived() {
    let (device, shape) = (cuda::device(Precision::F32), ImageShape { n: 2, size: 9 });
    let data = Data::draw(0, 2, 9);
    let pixels = device.upload_pixels(&data.pixels, &data.placements).unwrap();
    let mut x = device.allocate(shape.len(), Storage::Activation).unwrap();
    let mut plan = <Cuda as Memory>::Plan::default();
    let mut found = Vec::new();
    for _ in 0..3 {
        let whole = 0..shape.len();
        device.fill(Cuda::view_mut(&mut x, whole.clone()), 0.0).unwrap();
        let work = || device.image_forward(Cuda::view_mut(&mut x, whole.clone()), &pixels, &FORMAT, &shape);
        device.repeat(&mut plan, work).unwrap();
        found.push(device.download(Cuda::view(&x, whole)).unwrap());
    }
    assert!(found[0].iter().any(|&value| value != 0.0));
    assert!(found[1] == found[0] && found[2] == found[0]);
}

/// What the simulated GPU has complained of so far.
fn complaints() -> String {
    type Take = unsafe extern "C" fn(*mut c_char, usize) -> usize;
    // SAFETY: the driver is open; this takes another reference.
    let library = unsafe { libloading::Library::new("libcuda.so") }.unwrap();
    // SAFETY: gpusim declares it so.
    let take = unsafe { library.get::<Take>(b"gpusimTakeReport") }.unwrap();
    let mut text = vec![0u8; 1 << 20];
    // SAFETY: the buffer is that long.
    let length = unsafe { take(text.as_mut_ptr().cast(), text.len()) };
    text.truncate(length);
    String::from_utf8(text).unwrap()
}

#[test]
fn a_captured_step_goes_before_its_kernels() {
    let config = config(resnet50::MINIATURE, 21);
    // As in a run, nobody but the learner has the device, nor the kernels that were compiled for it.
    cuda::gpu();
    let device = Cuda::new(Precision::F32).unwrap();
    let mut learner = Learner::new(Rc::new(device), config.clone(), 5).unwrap();
    for step in 0..3 {
        let data = Data::draw(step, 3, config.image_size);
        let pixels = learner.model().device().upload_pixels(&data.pixels, &data.placements).unwrap();
        learner.submit(pixels, 3, &FORMAT, &data.labels, &[1.0; GENRES], 1e-5).unwrap();
    }
    drop(learner);
    if cuda::is_real() {
        not_checked("that a graph goes before its kernels' module, because only the simulated GPU complains of it");
        return;
    }
    let complaints = complaints();
    assert!(!complaints.contains("is unloaded"), "{complaints}");
}

#[test]
fn probabilities_are_the_references() {
    let config = config(small(), 33);
    let data = Data::draw(3, 5, 33);
    // What bf16 stores is rounded so far that the order of a sum is forgotten. In tf32 a sum keeps its last bits, by which a factor
    // may round the other way.
    for (precision, tolerance) in PRECISIONS.into_iter().zip([1e-4, 3e-3, 1e-4]) {
        let expected = Model::new(oracle(precision), config.clone(), 5).unwrap().predict(data.posters()).unwrap();
        let device = Rc::new(cuda::device(precision));
        let found = Model::new(Rc::clone(&device), config.clone(), 5).unwrap().predict(data.posters()).unwrap();
        let [found, expected] = [found, expected].map(|values| values.into_iter().map(f64::from).collect::<Vec<_>>());
        compare(&format!("on {}", device.name()), &found, &expected, tolerance, 0.0).unwrap();
    }
}

#[test]
fn too_much_memory_is_refused_with_what_to_lower() {
    let device = cuda::device(Precision::F32);
    let error = device.allocate(1 << 44, Storage::Full).err().expect("64 TiB");
    assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
    assert!(error.to_string().contains("--batch"), "{error}");
}
