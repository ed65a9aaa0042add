//! Rung 2: the processor against the reference, for every kernel.
//!
//! Inputs are rounded to `f32` first, so that both devices start from the same numbers; the reference then computes in
//! `f64` by another algorithm. Tolerances follow from `f32` and the number of terms summed. Buffers of the device under
//! test are full of NaN, so an element it forgets fails its comparison.
//!
//! What decides between two answers (the sign behind a ReLU, the winner of a window) is computed from numbers on a coarse
//! grid, exactly in both precisions; ties therefore occur, and count.

mod batch_norm;
mod conv;
mod head;
mod network;
mod pool;
#[path = "../support/mod.rs"]
mod support;
mod threads;

use onesheet::device::cpu::Cpu;
use onesheet::device::reference::Reference;
use onesheet::device::{Device, Memory, Real, Storage};

/// Distance from 1 to the next `f32`.
pub const EPSILON: f64 = f32::EPSILON as f64;

/// What a sum of `terms` products, each of about `magnitude`, may be off by in `f32`.
///
/// Its partial sums walk randomly, to about √terms·magnitude, and each of the `terms` roundings is random as well, which
/// makes terms·magnitude·ε/2 the scale of the error; four times that is far out in its tail.
pub fn sum_tolerance(terms: usize, magnitude: f64) -> f64 {
    2.0 * EPSILON * terms as f64 * magnitude
}

/// One output of a kernel.
pub struct Output {
    /// The operand's name.
    pub name: &'static str,
    /// Its elements.
    pub values: Vec<f64>,
    /// How far off each may be.
    pub tolerance: f64,
}

/// A call of one or several kernels, made the same way on any device.
pub trait Case: std::fmt::Debug {
    /// Makes the call and returns all that it wrote.
    fn run<D: Device>(&self, device: &D) -> Vec<Output>;
}

/// Whether the processor and the reference agree on a case.
pub fn compare(case: &impl Case) -> Result<(), String> {
    let (found, expected) = (case.run(&Cpu::poisoned()), case.run(&Reference));
    for (found, expected) in found.iter().zip(&expected) {
        let what = format!("{} of {case:?}", expected.name);
        support::compare(&what, &found.values, &expected.values, expected.tolerance, 4.0 * EPSILON)?;
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

/// A buffer and its length.
pub struct Array<D: Memory> {
    buffer: D::Buffer,
    len: usize,
}

impl<D: Memory> Array<D> {
    /// An array that holds `values`.
    pub fn new(device: &D, values: &[f64]) -> Self {
        let mut array = Array::blank(device, values.len());
        let values: Vec<D::Real> = values.iter().map(|&value| D::Real::from_f64(value)).collect();
        device.upload(array.view_mut(), &values).unwrap();
        array
    }

    /// An array that a kernel is to fill.
    pub fn blank(device: &D, len: usize) -> Self {
        Array { buffer: device.allocate(len, Storage::Full).unwrap(), len }
    }

    /// All of it.
    pub fn view(&self) -> D::View<'_> {
        D::view(&self.buffer, 0..self.len)
    }

    /// All of it, exclusively.
    pub fn view_mut(&mut self) -> D::ViewMut<'_> {
        D::view_mut(&mut self.buffer, 0..self.len)
    }

    /// The elements as an output of a case.
    pub fn output(&self, device: &D, name: &'static str, tolerance: f64) -> Output {
        let values = device.download(self.view()).unwrap().into_iter().map(Into::into).collect();
        Output { name, values, tolerance }
    }
}

/// Numbers in −1..1, rounded to `f32`.
pub fn numbers(seed: u64, len: usize) -> Vec<f64> {
    support::seeded(seed, len, -1.0, 1.0).into_iter().map(|value| f64::from(value as f32)).collect()
}

/// Multiples of 1/32 in −1..1: sums and products of a few are exact in `f32`.
pub fn grid(seed: u64, len: usize) -> Vec<f64> {
    support::seeded(seed, len, -32.0, 33.0).into_iter().map(|value| value.floor() / 32.0).collect()
}

/// `norm [4, C]` on the grid, its scales of both signs.
pub fn grid_norm(seed: u64, channels: usize) -> Vec<f64> {
    let mut norm = grid(seed, 4 * channels);
    for istd in &mut norm[3 * channels..] {
        *istd = istd.abs() + 0.5;
    }
    norm
}

/// A case that answers a little differently in `f32`, or not at all.
#[derive(Debug)]
struct Wrong {
    by: f64,
}

impl Case for Wrong {
    fn run<D: Device>(&self, _: &D) -> Vec<Output> {
        let error = if size_of::<D::Real>() == size_of::<f32>() { self.by } else { 0.0 };
        vec![Output { name: "one", values: vec![1.0 + error], tolerance: 1e-6 }]
    }
}

#[test]
fn a_wrong_answer_is_seen() {
    assert_eq!(compare(&Wrong { by: 1e-7 }), Ok(()));
    assert!(compare(&Wrong { by: 1e-5 }).is_err());
    assert!(compare(&Wrong { by: f64::NAN }).is_err());
}

#[test]
fn unwritten_elements_are_seen() {
    let device = Cpu::poisoned();
    let recycled = Array::new(&device, &[1.0; 3]);
    drop(recycled);
    let blank = Array::blank(&device, 3).output(&device, "blank", 0.0);
    assert!(support::compare("blank", &blank.values, &[1.0; 3], 1.0, 1.0).is_err());
}
