//! What a case is: a call of kernels that is made the same way on any device.

use super::support;
use onesheet::device::{Activation, Device, Memory, Real, Storage};

/// Distance from 1 to the next `f32`.
pub const EPSILON: f64 = f32::EPSILON as f64;

/// What a sum of `terms` products, each of about `magnitude`, may be off by in `f32`.
///
/// Its partial sums walk randomly, to about √terms·magnitude, and each of the `terms` roundings is random as well, which
/// makes terms·magnitude·ε/2 the scale of the error; four times that is far out in its tail.
///
/// Tensor cores cut partial sums off instead, with each group of g products, g being 4 to 16 (how, and who measured it, is
/// in `tools/gpusim/src/exec/tensor_sums.rs`). That loses a third of ε of the partial sum on average, and always towards
/// zero, so that the losses add up. Where factors are uniform in ±1, a partial sum is about √terms·magnitude/5 on its way,
/// which makes terms/g·√terms·magnitude·ε/16 the scale of the error. It reaches this tolerance at 16 000 terms if g is 4
/// (tf32 before sm_90), at 65 000 if g is 8; no sum here has more than 9000. What is cut off the products themselves, half a
/// bit of the largest in the group, has either sign and hides behind the roundings above.
pub fn sum_tolerance(terms: usize, magnitude: f64) -> f64 {
    2.0 * EPSILON * terms as f64 * magnitude
}

/// One output of a kernel.
pub struct Output {
    /// The operand's name.
    pub name: &'static str,
    /// Its elements.
    pub values: Vec<f64>,
    /// How far off each may be for arithmetic in `f32`.
    pub tolerance: f64,
    /// How far off each may be if what kernels multiply is rounded to ε: this times ε, on top.
    pub spread: f64,
    /// Whether it is stored as activations are.
    pub activation: bool,
}

impl Output {
    /// A full-width output of exact operands.
    pub fn new(name: &'static str, values: Vec<f64>, tolerance: f64) -> Self {
        Output { name, values, tolerance, spread: 0.0, activation: false }
    }

    /// An output of `terms` products of about `magnitude` whose factors were rounded on the way. Such errors are independent
    /// of one another; four times their scale is far out in the tail.
    pub fn rounded(self, terms: usize, magnitude: f64) -> Self {
        Output { spread: 4.0 * magnitude * (terms as f64).sqrt(), ..self }
    }
}

/// A call of one or several kernels, made the same way on any device.
pub trait Case: std::fmt::Debug {
    /// Makes the call and returns all that it wrote.
    fn run<D: Device>(&self, device: &D) -> Vec<Output>;
}

/// A buffer and its length.
pub struct Array<D: Memory> {
    buffer: D::Buffer,
    len: usize,
    storage: Storage,
}

impl<D: Memory> Array<D> {
    /// A full-width array that holds `values`.
    pub fn new(device: &D, values: &[f64]) -> Self {
        Array::stored(device, values, Storage::Full)
    }

    /// An array that holds `values`, stored as activations are.
    pub fn activation(device: &D, values: &[f64]) -> Self {
        Array::stored(device, values, Storage::Activation)
    }

    /// An array that holds `values`, stored as weights are.
    pub fn weights(device: &D, values: &[f64]) -> Self {
        Array::stored(device, values, Storage::Weights)
    }

    fn stored(device: &D, values: &[f64], storage: Storage) -> Self {
        let mut array = Array { buffer: device.allocate(values.len(), storage).unwrap(), len: values.len(), storage };
        let values: Vec<D::Real> = values.iter().map(|&value| D::Real::from_f64(value)).collect();
        device.upload(array.view_mut(), &values).unwrap();
        array
    }

    /// A full-width array that a kernel is to fill.
    pub fn blank(device: &D, len: usize) -> Self {
        Array { buffer: device.allocate(len, Storage::Full).unwrap(), len, storage: Storage::Full }
    }

    /// An array that a kernel is to fill, stored as activations are.
    pub fn blank_activation(device: &D, len: usize) -> Self {
        Array { buffer: device.allocate(len, Storage::Activation).unwrap(), len, storage: Storage::Activation }
    }

    /// All of it.
    pub fn view(&self) -> D::View<'_> {
        D::view(&self.buffer, 0..self.len)
    }

    /// All of it, exclusively.
    pub fn view_mut(&mut self) -> D::ViewMut<'_> {
        D::view_mut(&mut self.buffer, 0..self.len)
    }

    /// What stands behind the first `from` elements.
    pub fn suffix(&self, from: usize) -> D::View<'_> {
        D::view(&self.buffer, from..self.len)
    }

    /// What stands behind the first `from` elements, exclusively.
    pub fn suffix_mut(&mut self, from: usize) -> D::ViewMut<'_> {
        D::view_mut(&mut self.buffer, from..self.len)
    }

    /// The elements as an output of a case.
    pub fn output(&self, device: &D, name: &'static str, tolerance: f64) -> Output {
        let values = device.download(self.view()).unwrap().into_iter().map(Into::into).collect();
        Output { activation: self.storage == Storage::Activation, ..Output::new(name, values, tolerance) }
    }
}

/// Numbers in −1..1, rounded to `f32`.
pub fn numbers(seed: u64, len: usize) -> Vec<f64> {
    support::seeded(seed, len, -1.0, 1.0).into_iter().map(|value| f64::from(value as f32)).collect()
}

/// Numbers in −1..1, rounded to bfloat16: exact in every storage and in every factor of a tensor core's product.
pub fn narrow(seed: u64, len: usize) -> Vec<f64> {
    let numbers = support::seeded(seed, len, -1.0, 1.0);
    numbers.into_iter().map(|value| half::bf16::from_f64(value).to_f64()).collect()
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

/// All of them.
pub const ACTIVATIONS: [Activation; 3] = [Activation::Linear, Activation::Relu, Activation::Relu6];

/// The activation of a case of this seed.
pub fn activation_of(seed: u64) -> Activation {
    ACTIVATIONS[(seed % 3) as usize]
}

/// `norm [4, C]` like [`grid_norm`], whose scale and shift take numbers in −1..1 to both bounds of an activation, onto them and
/// beyond.
pub fn norm_before(activation: Activation, seed: u64, channels: usize) -> Vec<f64> {
    let mut norm = grid_norm(seed, channels);
    if activation == Activation::Relu6 {
        norm[..2 * channels].iter_mut().for_each(|value| *value *= 4.0);
    }
    norm
}

/// The largest number that such a norm and its activation give.
pub fn largest_behind(activation: Activation) -> f64 {
    match activation {
        Activation::Linear | Activation::Relu => 2.0,
        Activation::Relu6 => 6.0,
    }
}
