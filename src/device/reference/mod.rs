//! The oracle: every kernel as plain loops in `f64`, straight from its formula.
//!
//! Nothing here is clever, and nothing is shared with a fast device: convolutions are seven nested loops, variances take
//! two passes, reductions run from the first element to the last. Fresh memory is NaN and no kernel swallows one, so
//! that a number read before it was written shows in the result. It is exact, as far as `f64` is, or rounds as a precision
//! does (`rounding`).

mod adam;
mod batch_norm;
mod conv;
mod dense;
mod depthwise;
mod folded;
mod image;
mod loss;
mod pool;
mod rounding;

use super::image::HostPixels;
use super::{
    Activation, DeviceError, InputTransform, Memory, OutputGradient, Placement, Precision, Storage, check_lengths,
};
use std::ops::Range;

/// The `f64` device that all others are tested against.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    /// The precision whose roundings it makes, if any.
    rounding: Option<Precision>,
}

impl Reference {
    /// As exact as `f64` is.
    pub const EXACT: Reference = Reference { rounding: None };

    /// One that rounds what the CUDA device rounds in a precision: what is stored as an activation, and the factors of products.
    /// Nothing else is rounded, neither sums nor what is stored at full width.
    pub const fn rounding(precision: Precision) -> Self {
        Reference { rounding: Some(precision) }
    }
}

impl Memory for Reference {
    type Real = f64;
    type Buffer = Vec<f64>;
    type View<'a> = &'a [f64];
    type ViewMut<'a> = &'a mut [f64];
    type Arriving = Vec<f64>;
    type Pixels = HostPixels;
    type Plan = ();

    fn name(&self) -> String {
        match self.rounding {
            None => "reference (f64, plain loops)".to_string(),
            Some(precision) => format!("reference (f64, plain loops, rounding as in {})", precision.name()),
        }
    }

    fn allocate(&self, len: usize, _storage: Storage) -> Result<Vec<f64>, DeviceError> {
        Ok(vec![f64::NAN; len])
    }

    fn view(buffer: &Vec<f64>, range: Range<usize>) -> &[f64] {
        &buffer[range]
    }

    fn view_mut(buffer: &mut Vec<f64>, range: Range<usize>) -> &mut [f64] {
        &mut buffer[range]
    }

    fn split_mut<'a>(view: &'a mut [f64], at: usize) -> (&'a mut [f64], &'a mut [f64])
    where
        Self: 'a,
    {
        view.split_at_mut(at)
    }

    fn upload(&self, to: &mut [f64], from: &[f64]) -> Result<(), DeviceError> {
        check_lengths("upload", &[("from", from.len(), to.len())])?;
        to.copy_from_slice(from);
        Ok(())
    }

    fn download(&self, from: &[f64]) -> Result<Vec<f64>, DeviceError> {
        Ok(from.to_vec())
    }

    fn fetch(&self, from: &[f64]) -> Result<Vec<f64>, DeviceError> {
        self.download(from)
    }

    fn is_here(&self, _: &Vec<f64>) -> bool {
        true
    }

    fn receive(&self, arriving: Vec<f64>) -> Result<Vec<f64>, DeviceError> {
        Ok(arriving)
    }

    fn upload_pixels(&self, pixels: &[u8], placements: &[Placement]) -> Result<HostPixels, DeviceError> {
        Ok(HostPixels { pixels: pixels.to_vec(), placements: placements.to_vec() })
    }

    fn copy_pixels(&self, to: &mut HostPixels, from: HostPixels) -> Result<(), DeviceError> {
        *to = from;
        Ok(())
    }

    fn repeat<E: From<DeviceError>>(&self, (): &mut (), work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        work()
    }

    fn fill(&self, to: &mut [f64], value: f64) -> Result<(), DeviceError> {
        to.fill(value);
        Ok(())
    }

    fn copy(&self, to: &mut [f64], from: &[f64]) -> Result<(), DeviceError> {
        check_lengths("copy", &[("from", from.len(), to.len())])?;
        to.copy_from_slice(from);
        Ok(())
    }

    fn add(&self, to: &mut [f64], from: &[f64]) -> Result<(), DeviceError> {
        check_lengths("add", &[("from", from.len(), to.len())])?;
        // A sum of two readers' gradients of an activation is stored as they are. What holds other numbers than an activation can, such as
        // the gradient of a bias, has its full width.
        let is_stored = |values: &[f64]| {
            let mut rounded = values.to_vec();
            self.store(&mut rounded);
            rounded == values
        };
        let stored = is_stored(to) && is_stored(from);
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
        if stored {
            self.store(to);
        }
        Ok(())
    }
}

/// `max(0, x)`, except that NaN stays NaN where `f64::max` would drop it.
fn relu(x: f64) -> f64 {
    if x <= 0.0 { 0.0 } else { x }
}

/// `d·[x > 0]`: what a ReLU fed `x` passes on of a gradient `d`. NaN where `x` is.
fn relu_gradient(x: f64, d: f64) -> f64 {
    if x > 0.0 {
        d
    } else if x.is_nan() {
        x
    } else {
        0.0
    }
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Linear => x,
        Activation::Relu => relu(x),
        Activation::Relu6 if x >= 6.0 => 6.0,
        Activation::Relu6 => relu(x),
    }
}

/// What an activation fed `x` passes on of a gradient `d`. NaN where `x` is.
fn activation_gradient(activation: Activation, x: f64, d: f64) -> f64 {
    match activation {
        Activation::Linear if x.is_nan() => x,
        Activation::Linear => d,
        Activation::Relu => relu_gradient(x, d),
        Activation::Relu6 if x >= 6.0 => 0.0,
        Activation::Relu6 => relu_gradient(x, d),
    }
}

/// `activation(scale[c]·x + shift[c])` of each element, or `x` itself if nothing is owed.
fn paid(x: &[f64], channels: usize, transform: Option<InputTransform<&[f64]>>) -> Vec<f64> {
    x.iter().enumerate().map(|(i, &x)| transformed(x, i % channels, channels, transform)).collect()
}

/// `activation(scale[c]·x + shift[c])`, or `x` itself if nothing is owed.
fn transformed(x: f64, channel: usize, channels: usize, transform: Option<InputTransform<&[f64]>>) -> f64 {
    match transform {
        Some(InputTransform { norm, activation }) => activate(activation, norm[channel] * x + norm[channels + channel]),
        None => x,
    }
}

/// All pairs below `(height, width)`, in reading order.
fn grid(height: usize, width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..height).flat_map(move |i| (0..width).map(move |j| (i, j)))
}

/// Element `i` of `dy`.
fn gradient(dy: &OutputGradient<&[f64]>, i: usize, channels: usize) -> f64 {
    match *dy {
        OutputGradient::Ready(dy) => dy[i],
        OutputGradient::Owed { dz, y, k } => {
            let c = i % channels;
            k[c] * dz[i] + k[channels + c] * y[i] + k[2 * channels + c]
        }
    }
}

/// `stats [2, C]` = mean and biased variance of each channel of `y [rows, C]`.
fn moments(stats: &mut [f64], y: &[f64], channels: usize) {
    let rows = (y.len() / channels) as f64;
    for c in 0..channels {
        let channel = || y.iter().skip(c).step_by(channels);
        let mean = channel().sum::<f64>() / rows;
        stats[c] = mean;
        stats[channels + c] = channel().map(|y| (y - mean).powi(2)).sum::<f64>() / rows;
    }
}

/// `sums [2, C]` = (Σ dz, Σ dz·(y − mean)), what batch norm's backward pass needs to know of its gradient.
fn reduce_sums(sums: &mut [f64], dz: &[f64], y: &[f64], norm: &[f64], channels: usize) {
    let mean = &norm[2 * channels..3 * channels];
    sums.fill(0.0);
    for i in 0..dz.len() {
        let c = i % channels;
        sums[c] += dz[i];
        sums[channels + c] += dz[i] * (y[i] - mean[c]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_starts_as_nan() {
        let buffer = Reference::EXACT.allocate(3, Storage::Activation).unwrap();
        assert!(buffer.len() == 3 && buffer.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn bytes_move_and_add_up() {
        let mut buffer = Reference::EXACT.allocate(5, Storage::Full).unwrap();
        Reference::EXACT.fill(Reference::view_mut(&mut buffer, 0..5), 1.0).unwrap();
        Reference::EXACT.upload(Reference::view_mut(&mut buffer, 1..3), &[2.0, 3.0]).unwrap();
        Reference::EXACT.add(Reference::view_mut(&mut buffer, 2..4), &[10.0, 20.0]).unwrap();
        Reference::EXACT.copy(Reference::view_mut(&mut buffer, 4..5), &[7.0]).unwrap();
        assert_eq!(Reference::EXACT.download(Reference::view(&buffer, 0..5)).unwrap(), [1.0, 2.0, 13.0, 21.0, 7.0]);
        let mut pixels = Reference::EXACT.upload_pixels(&[3, 1], &[]).unwrap();
        Reference::EXACT.copy_pixels(&mut pixels, Reference::EXACT.upload_pixels(&[5, 4], &[]).unwrap()).unwrap();
        assert_eq!(pixels.pixels, [5, 4]);
    }

    #[test]
    fn a_sum_of_activations_is_rounded_as_they_are_and_one_of_full_width_is_not() {
        let device = Reference::rounding(Precision::Bf16);
        let (mut activation, mut full) = ([1.0], [1.0]);
        // Halfway between two numbers of bfloat16, the even one of which is 1.
        device.add(&mut activation, &[1.0 / 256.0]).unwrap();
        device.add(&mut full, &[1.0 / 768.0]).unwrap();
        assert_eq!((activation, full), ([1.0], [1.0 + 1.0 / 768.0]));
    }

    #[test]
    fn unequal_lengths_are_refused() {
        let mut two = vec![0.0; 2];
        assert!(matches!(
            Reference::EXACT.upload(&mut two, &[1.0; 3]),
            Err(DeviceError::Length { kernel: "upload", operand: "from", found: 3, expected: 2 })
        ));
        assert!(Reference::EXACT.copy(&mut two, &[1.0]).is_err());
        assert!(Reference::EXACT.add(&mut two, &[1.0]).is_err());
        assert_eq!(two, [0.0, 0.0]);
    }

    #[test]
    fn nothing_swallows_nan() {
        assert!(relu(f64::NAN).is_nan() && relu_gradient(f64::NAN, 1.0).is_nan());
        assert_eq!([relu(-2.0), relu(0.0), relu(2.0)], [0.0, 0.0, 2.0]);
        assert_eq!([relu_gradient(-2.0, 5.0), relu_gradient(0.0, 5.0), relu_gradient(2.0, 5.0)], [0.0, 0.0, 5.0]);
        for activation in [Activation::Linear, Activation::Relu, Activation::Relu6] {
            assert!(activate(activation, f64::NAN).is_nan());
            assert!(activation_gradient(activation, f64::NAN, 1.0).is_nan());
        }
    }

    #[test]
    fn relu6_ends_at_6_and_so_does_its_gradient() {
        let points = [-2.0, 0.0, 5.0, 6.0, 7.0];
        assert_eq!(points.map(|x| activate(Activation::Relu6, x)), [0.0, 0.0, 5.0, 6.0, 6.0]);
        assert_eq!(points.map(|x| activation_gradient(Activation::Relu6, x, 3.0)), [0.0, 0.0, 3.0, 0.0, 0.0]);
        assert_eq!(points.map(|x| activate(Activation::Linear, x)), points);
        assert_eq!(points.map(|x| activation_gradient(Activation::Linear, x, 3.0)), [3.0; 5]);
    }
}
