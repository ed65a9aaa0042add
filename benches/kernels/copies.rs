//! Operands in several copies, so that a launch does not find in the L2 cache what the one before it has left there.

use onesheet::device::DeviceError;
use onesheet::device::cuda::Cuda;
use onesheet::tensor::Tensor;

/// Copies at the most. What moves so little that all of these fit the cache is measured out of it.
const MOST: u64 = 32;

/// How many copies it takes if launches that move so many bytes each, of one copy after the other, are to have moved twice
/// what the L2 cache holds before the first copy's turn comes again.
pub fn count(bytes: u64, l2_bytes: u64) -> usize {
    (2 * l2_bytes).div_ceil(bytes.max(1)).clamp(1, MOST) as usize
}

/// A tensor with the same content, in memory of its own.
pub fn copied(device: &Cuda, tensor: &Tensor<Cuda>) -> Result<Tensor<Cuda>, DeviceError> {
    tensor.clone().into_unique(device)
}

/// What launches work on: it comes from the host once, and is copied on the device.
pub struct Copies<T> {
    all: Vec<T>,
    copy: fn(&Cuda, &T) -> Result<T, DeviceError>,
}

impl<const N: usize> Copies<[Tensor<Cuda>; N]> {
    /// Of some tensors.
    pub fn of(tensors: [Tensor<Cuda>; N]) -> Self {
        Self::new(tensors, |device, first| {
            let mut copies = first.clone();
            for (copy, tensor) in copies.iter_mut().zip(first) {
                *copy = copied(device, tensor)?;
            }
            Ok(copies)
        })
    }
}

impl<T> Copies<T> {
    /// Of what `copy` copies.
    pub fn new(first: T, copy: fn(&Cuda, &T) -> Result<T, DeviceError>) -> Self {
        Copies { all: vec![first], copy }
    }

    /// The first.
    pub fn first(&mut self) -> &mut T {
        &mut self.all[0]
    }

    /// So many, made now if there are fewer.
    pub fn take(&mut self, device: &Cuda, count: usize) -> Result<&mut [T], DeviceError> {
        while self.all.len() < count {
            let next = (self.copy)(device, &self.all[0])?;
            self.all.push(next);
        }
        Ok(&mut self.all[..count])
    }
}
