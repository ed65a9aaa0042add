//! The same bits with one, two and four threads, in `f32` and in bfloat16.

use super::Case;
use super::batch_norm::Passes;
use super::conv::{Conv, FUSED, Fusions, PLAIN};
use super::depthwise::{self, Depthwise};
use super::head::{Adam, Dense, Elements, Image, Norm, SOUND, check_bad_numbers};
use super::pool::{Global, MaxPool};
use onesheet::device::cpu::Cpu;
use onesheet::device::{
    Activation, ConvShape, DenseShape, GlobalPoolShape, ImageShape, Outside, PixelFormat, PoolShape, Precision, Rows,
};

/// All outputs of a case as bits, computed by that many threads.
fn bits(case: &(impl Case + Sync), precision: Precision, threads: usize) -> Vec<u64> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let outputs = case.run(&Cpu::storing(precision));
        outputs.into_iter().flat_map(|output| output.values).map(f64::to_bits).collect()
    })
}

/// Panics unless one, two and four threads give the same bits, in each precision.
#[track_caller]
fn repeats(case: impl Case + Sync) {
    [Precision::F32, Precision::Bf16].into_iter().for_each(|precision| repeats_in(precision, &case));
}

/// The same in one precision.
#[track_caller]
pub fn repeats_in(precision: Precision, case: &(impl Case + Sync)) {
    let alone = bits(case, precision, 1);
    for threads in [2, 4] {
        assert!(alone == bits(case, precision, threads), "{threads} threads change {case:?} in {precision:?}");
    }
}

/// A case whose answer depends on the number of threads.
#[derive(Debug)]
struct Unsteady;

impl Case for Unsteady {
    fn run<D: onesheet::device::Device>(&self, _: &D) -> Vec<super::Output> {
        let values = vec![rayon::current_num_threads() as f64];
        vec![super::Output::new("threads", values, 0.0)]
    }
}

#[test]
#[should_panic(expected = "2 threads change Unsteady")]
fn a_dependence_on_threads_is_seen() {
    repeats(Unsteady);
}

#[test]
fn a_norm_loses_no_bad_number() {
    check_bad_numbers(&Cpu::new());
}

#[test]
fn convolutions_repeat() {
    let conv = |input, k, filter, stride, pad| ConvShape::new(input, k, [filter, filter], stride, pad).unwrap();
    let shapes = [
        conv([4, 19, 17, 64], 70, 1, 1, 0),
        conv([3, 20, 21, 48], 64, 3, 1, 1),
        conv([5, 11, 13, 40], 33, 1, 2, 0),
        conv([2, 5, 5, 256], 300, 3, 1, 1),
        conv([2, 41, 40, 3], 64, 7, 2, 3),
    ];
    for shape in shapes {
        for fusions in [PLAIN, FUSED, Fusions { ends: true, ..PLAIN }] {
            repeats(Conv { shape, fusions, seed: 5 });
        }
    }
}

#[test]
fn depthwise_convolutions_repeat() {
    for case in depthwise::of_the_networks(3) {
        repeats(Depthwise { fusions: depthwise::FUSED, ..case });
    }
}

#[test]
fn all_else_repeats() {
    for projected in [false, true] {
        let activation = Activation::Relu;
        for relu in [false, true] {
            repeats(Passes { shape: Rows { rows: 3001, channels: 96 }, activation, projected, relu, seed: 1 });
        }
    }
    repeats(MaxPool {
        shape: PoolShape::new([5, 21, 20, 64], 3, 2, 1, Outside::Zeros).unwrap(),
        norm: Some(Activation::Relu),
        seed: 2,
    });
    repeats(Global { shape: GlobalPoolShape { n: 9, pixels: 25, c: 300 }, seed: 3 });
    for (n, inputs, outputs) in [(32, 2048, 1024), (5, 1024, 128), (1, 2048, 1024), (64, 128, 7)] {
        repeats(Dense { shape: DenseShape { n, inputs, outputs }, relu: true, offset: 0, seed: 4 });
    }
    repeats(Elements { len: 100_001, seed: 5 });
    repeats(Adam { len: 100_001, frozen: [0, 0], outcome: SOUND, decays: true, clip_norm: 0.5, seed: 6 });
    repeats(Norm { len: 1_000_001, frozen: 1, all: None, seed: 8 });
    let format = PixelFormat { order: [2, 1, 0], scale: 0.5, shift: [1.0, 2.0, 3.0] };
    repeats(Image { shape: ImageShape { n: 9, size: 31 }, format, seed: 7 });
}
