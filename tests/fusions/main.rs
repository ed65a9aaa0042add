//! Each rule of the plan off, and all of them, on the devices that networks run on: the same loss and gradients as with all rules on. And
//! to the same bits if values are computed again in the backward pass.

#[path = "../support/cuda.rs"]
mod cuda;
mod folded;
#[path = "../support/networks.rs"]
mod networks;

use networks::SUMS;
use onesheet::device::cpu::Cpu;
use onesheet::device::{Device, PixelFormat, Placement, Precision};
use onesheet::model::{Batch, Model};
use onesheet::network::{Architecture, MINIATURES, ModelConfig, Network, mobilenet, resnet50};
use onesheet::plan::Plan;
use onesheet::plan::fuse::RULES;
use std::rc::Rc;

const SIZE: usize = 33;
const BATCH: usize = 3;

/// The loss of a step, and the gradients of all weights that training moves.
fn step<D: Device>(device: D, network: Network, without: &[&str]) -> (f64, Vec<f64>) {
    let (loss, gradients, _) =
        step_by(device, network, |architecture| Plan::without(architecture, 0.9, without).unwrap());
    (loss, gradients)
}

/// The same by a plan, and the running averages.
fn step_by<D: Device>(
    device: D,
    network: Network,
    plan: impl FnOnce(&Architecture) -> Plan,
) -> (f64, Vec<f64>, Vec<f64>) {
    let device = Rc::new(device);
    let config = ModelConfig { image_size: SIZE, momentum: 0.9, ..ModelConfig::new(network, 4) };
    let mut model = Model::new(Rc::clone(&device), config, 7).unwrap();
    model.set_plan(plan(model.architecture()));
    let pixels: Vec<u8> = (0..BATCH * SIZE * SIZE * 3).map(|i| (i * 7919 % 251) as u8).collect();
    let labels: Vec<u8> = (0..BATCH * 4).map(|i| u8::from(i % 3 == 0)).collect();
    let format = PixelFormat { order: [2, 1, 0], scale: 1.0 / 127.5, shift: [-1.0; 3] };
    let pixels = device.upload_pixels(&pixels, &[Placement::default(); BATCH]).unwrap();
    let mut batch = Batch::new(&*device, pixels, BATCH, &format, &labels, &[1.0, 0.5, 2.0, 1.5]).unwrap();
    model.gradients(&mut batch).unwrap();
    let loss = batch.loss(&device).unwrap();
    let [gradients, averages] = [&model.parameters().gradients, &model.parameters().averages]
        .map(|arena| device.download(arena.from_offset(0)).unwrap().into_iter().map(Into::into).collect());
    (loss, gradients, averages)
}

/// The relative distance of two vectors.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// How far each rule off is from all on, at most `loss` and `gradients`, relatively.
fn check<D: Device>(device: impl Fn() -> D, loss: f64, gradients: f64) {
    for network in MINIATURES.into_iter().chain([SUMS]) {
        let fused = step(device(), network, &[]);
        let eager = RULES.map(|rule| rule.name).to_vec();
        for without in RULES.map(|rule| vec![rule.name]).into_iter().chain([eager]) {
            let other = step(device(), network, &without);
            let off = [(other.0 / fused.0 - 1.0).abs(), distance(&other.1, &fused.1)];
            assert!(off[0] <= loss && off[1] <= gradients, "{network} without {without:?} is off by {off:?}");
        }
    }
}

#[test]
fn on_the_processor() {
    check(Cpu::new, 1e-5, 1e-4);
}

#[test]
fn on_cuda_in_f32() {
    check(|| cuda::device(Precision::F32), 1e-5, 1e-4);
}

/// Narrow sums are rounded in other places without a rule, so what is compared is how far each is from the processor: about as far as
/// with all rules on.
#[test]
fn on_cuda_in_bf16() {
    for network in MINIATURES.into_iter().chain([SUMS]) {
        let exact = step(Cpu::new(), network, &[]);
        let off = |without: &[&str]| {
            let narrow = step(cuda::device(Precision::Bf16), network, without);
            ((narrow.0 / exact.0 - 1.0).abs(), distance(&narrow.1, &exact.1))
        };
        let (_, fused) = off(&[]);
        let eager = RULES.map(|rule| rule.name).to_vec();
        for without in RULES.map(|rule| vec![rule.name]).into_iter().chain([eager]) {
            let (loss, gradients) = off(&without);
            assert!(loss <= 0.02 && gradients <= 2.0 * fused, "{network} without {without:?}: {gradients} for {fused}");
        }
    }
}

/// Whether loss, gradients and averages are to the bit those of a step that keeps everything, by all rules and by none.
fn recompute<D: Device>(device: impl Fn() -> D, network: Network) {
    let eager = RULES.map(|rule| rule.name);
    for without in [&[], &eager[..]] {
        let plan = |architecture: &Architecture| Plan::without(architecture, 0.9, without).unwrap();
        let kept = step_by(device(), network, plan);
        let again = step_by(device(), network, |architecture| {
            let recomputing = plan(architecture).recomputing();
            assert_ne!(recomputing, plan(architecture), "{network} has no segments");
            recomputing
        });
        assert!(kept.1.iter().any(|&gradient| gradient != 0.0));
        assert!(again.0 == kept.0 && again.1 == kept.1, "{network}: loss or gradients without {without:?}");
        assert!(again.2 == kept.2, "{network}: running averages without {without:?}");
    }
}

#[test]
fn values_computed_again_change_no_bit_on_the_processor() {
    for network in MINIATURES.into_iter().chain([SUMS]) {
        recompute(|| Cpu::new().poisoned(), network);
        recompute(|| Cpu::storing(Precision::Bf16).poisoned(), network);
    }
}

#[test]
fn values_computed_again_change_no_bit_on_cuda() {
    recompute(|| cuda::device(Precision::Bf16), resnet50::MINIATURE);
}

/// A step that left something out would be seen.
#[test]
fn a_distance_is_noticed() {
    let (_, gradients) = step(Cpu::new(), mobilenet::MINIATURE, &[]);
    let mut wrong = gradients.clone();
    wrong.iter_mut().for_each(|gradient| *gradient *= 1.001);
    assert!(distance(&wrong, &gradients) > 5e-4);
}
