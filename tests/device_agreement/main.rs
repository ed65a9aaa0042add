//! Rung 2: the processor against the reference, for every kernel, in `f32` and with activations stored in bfloat16.
//!
//! Inputs are rounded to `f32` first, those that are activations to bfloat16, so that both devices start from the same numbers;
//! the reference then computes in `f64` by another algorithm. Tolerances follow from `f32` and the number of terms summed.
//! Buffers of the device under test are full of NaN, so an element it forgets fails its comparison.
//!
//! What decides between two answers (the sign behind a ReLU, the winner of a window) is computed from numbers on a coarse
//! grid, exactly on every device; ties therefore occur, and count.

mod batch_norm;
mod case;
mod conv;
mod depthwise;
mod folded;
mod head;
mod network;
#[path = "../support/not_checked.rs"]
mod not_checked;
mod pool;
#[path = "../support/mod.rs"]
mod support;
mod threads;

use onesheet::device::cpu::Cpu;
use onesheet::device::reference::Reference;
use onesheet::device::{
    Activation, ConvBackwardData, ConvForward, ConvKernels, ConvShape, DepthwiseBackwardData, DepthwiseForward,
    DepthwiseKernels, DepthwiseShape, Device, Memory, OutputGradient, Precision, ReduceEpilogue,
};

pub use case::*;
use not_checked::not_checked;

/// The most that rounding to bfloat16 changes a number by, relative to its size. Of a sum's terms half of it is allowed for.
const BF16_ROUNDING: f64 = 1.0 / 256.0;

/// Whether the processor and the reference agree on a case, in `f32` and with activations stored in bfloat16.
pub fn compare(case: &impl Case) -> Result<(), String> {
    let expected = case.run(&Reference::EXACT);
    for (device, stored) in [(Cpu::new(), 0.0), (Cpu::storing(Precision::Bf16), BF16_ROUNDING)] {
        let device = device.poisoned();
        for (found, expected) in case.run(&device).iter().zip(&expected) {
            let what = format!("{} of {case:?} on {}", expected.name, device.name());
            let atol = expected.tolerance + 0.5 * stored * expected.spread;
            let rtol = if expected.activation { 4.0 * EPSILON + stored } else { 4.0 * EPSILON };
            support::compare(&what, &found.values, &expected.values, atol, rtol)?;
        }
    }
    Ok(())
}

/// [`compare`], or panic with its message.
#[track_caller]
pub fn agree(case: &impl Case) {
    if let Err(mismatch) = compare(case) {
        panic!("{mismatch}");
    }
}

/// A case that answers differently by so much in `f32`.
#[derive(Debug)]
struct Wrong {
    by: f64,
}

impl Case for Wrong {
    fn run<D: Device>(&self, _: &D) -> Vec<Output> {
        let error = if size_of::<D::Real>() == size_of::<f32>() { self.by } else { 0.0 };
        vec![Output::new("one", vec![1.0 + error], 1e-6)]
    }
}

#[test]
fn a_wrong_answer_is_seen() {
    assert_eq!(compare(&Wrong { by: 1e-7 }), Ok(()));
    assert!(compare(&Wrong { by: 1e-5 }).is_err());
    assert!(compare(&Wrong { by: f64::NAN }).is_err());
}

/// What a convolution multiplies is rounded to bfloat16 when what is owed to it has been paid, as tensor cores take it. A gradient of
/// weights is stored at full width and shows it: to the last bits it is that of exact sums of rounded factors, and not that of `f32`.
#[test]
fn factors_are_rounded_where_the_kernels_round_them() {
    use conv::{Conv, Fusions, PLAIN};
    // Channels and filters in eights, which tensor cores ask for; the processor rounds whatever their number.
    let gradient = |case: &Conv, outputs: Vec<Output>| {
        let found = outputs.into_iter().find(|output| output.name == "dw");
        found.unwrap_or_else(|| panic!("{case:?} has no gradient of weights"))
    };
    for (input, k, filter, stride, pad) in [
        ([3, 13, 11, 40], 48, [1, 1], 1, 0),
        ([2, 12, 15, 32], 24, [1, 1], 2, 0),
        ([2, 13, 17, 8], 16, [3, 3], 2, 1),
        ([1, 25, 22, 8], 24, [5, 5], 1, 2),
    ] {
        let shape = ConvShape::new(input, k, filter, stride, pad).unwrap();
        let case = Conv { shape, fusions: Fusions { norm: Some(Activation::Relu), ..PLAIN }, seed: 77 };
        let expected = gradient(&case, case.run(&Reference::rounding(Precision::Bf16)));
        let is_near = |device: Cpu| {
            let found = gradient(&case, case.run(&device));
            support::compare("dw", &found.values, &expected.values, expected.tolerance, 4.0 * EPSILON)
        };
        assert_eq!(is_near(Cpu::storing(Precision::Bf16)), Ok(()), "{case:?}");
        assert!(is_near(Cpu::new()).is_err(), "nothing was rounded in {case:?}");
    }
}

/// Statistics and sums are taken of numbers as they are stored, not as they were before they were rounded: on one device, so
/// that its own rounding is no excuse.
#[test]
fn sums_are_those_of_what_is_stored() {
    let device = Cpu::storing(Precision::Bf16);
    let (shape, alone) = (ConvShape::new([2, 9, 7, 6], 6, [3; 2], 1, 1).unwrap(), [2, 9, 7, 6]);
    let depthwise = DepthwiseShape::new(alone, [3; 2], 1, 1).unwrap();
    let (len, channels) = (shape.output_len(), shape.k);
    let x = Array::activation(&device, &narrow(1, len));
    let norm = Array::new(&device, &[vec![1.0; channels], vec![0.5; channels], vec![0.25; 2 * channels]].concat());
    let w = Array::weights(&device, &numbers(2, shape.weights_len()));
    let filters = w.suffix(shape.weights_len() - depthwise.weights_len());
    for is_depthwise in [false, true] {
        let (mut y, mut dx) = (Array::blank_activation(&device, len), Array::blank_activation(&device, len));
        let [mut stats, mut sums] = [(); 2].map(|()| Array::blank(&device, 2 * channels));
        let activation = Activation::Relu;
        let epilogue = Some(ReduceEpilogue { sums: sums.view_mut(), y: x.view(), norm: norm.view(), activation });
        let (stats_of, transform, dy) = (Some(stats.view_mut()), None, OutputGradient::Ready(x.view()));
        if is_depthwise {
            let operands = DepthwiseForward { y: y.view_mut(), stats: stats_of, x: x.view(), transform, w: filters };
            device.depthwise_forward(operands, &depthwise).unwrap();
            let operands = DepthwiseBackwardData { dx: dx.view_mut(), accumulate: false, epilogue, dy, w: filters };
            device.depthwise_backward_data(operands, &depthwise).unwrap();
        } else {
            let (x, w, bias) = (x.view(), w.view(), None);
            device
                .conv_forward(
                    ConvForward {
                        y: y.view_mut(),
                        stats: stats_of,
                        x,
                        transform,
                        w,
                        bias,
                        activation: Activation::Linear,
                    },
                    &shape,
                )
                .unwrap();
            let operands = ConvBackwardData { dx: dx.view_mut(), accumulate: false, epilogue, dy, w };
            device.conv_backward_data(operands, &shape).unwrap();
        }
        let of = |array: &Array<Cpu>| array.output(&device, "it", 0.0).values;
        let (stored, passed, stats, sums) = (of(&y), of(&dx), of(&stats), of(&sums));
        let total = |values: &[f64], c: usize| values.iter().skip(c).step_by(channels).sum::<f64>();
        for c in 0..channels {
            let mean = total(&stored, c) / (len / channels) as f64;
            assert!((stats[c] - mean).abs() < 1e-6, "mean of channel {c}, depthwise {is_depthwise}");
            assert!((sums[c] - total(&passed, c)).abs() < 1e-4, "sum of channel {c}, depthwise {is_depthwise}");
        }
    }
}

/// With a name that is unknown in `ONESHEET_PROCESSOR`, all of this would be about the whole processor.
#[test]
fn the_processor_is_the_one_that_was_asked_for() {
    Cpu::check_environment().unwrap();
    let kind = match std::env::var("ONESHEET_PROCESSOR").as_deref() {
        Err(_) => "AMX",
        Ok("avx512-bf16") => "AVX-512 BF16",
        Ok(_) => return,
    };
    if !Cpu::storing(Precision::Bf16).name().contains(kind) {
        not_checked(&format!("kernels in bfloat16 by {kind}, because this processor has none"));
    }
}

#[test]
fn unwritten_elements_are_seen() {
    let device = Cpu::new().poisoned();
    let recycled = Array::new(&device, &[1.0; 3]);
    drop(recycled);
    let blank = Array::blank(&device, 3).output(&device, "blank", 0.0);
    assert!(support::compare("blank", &blank.values, &[1.0; 3], 1.0, 1.0).is_err());
}
