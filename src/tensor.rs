//! Tensors: a shape and a counted handle on device memory.

use crate::device::{Device, DeviceError, Storage};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

/// Up to four extents, outermost first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    extents: [usize; 4],
    rank: usize,
}

impl Shape {
    /// The extents as a slice.
    pub fn extents(&self) -> &[usize] {
        &self.extents[..self.rank]
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.extents().iter().product()
    }

    /// Whether an extent is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last extent, which in every layout here is the channels.
    pub fn channels(&self) -> usize {
        self.extents().last().copied().unwrap_or(1)
    }
}

impl<const RANK: usize> From<[usize; RANK]> for Shape {
    fn from(given: [usize; RANK]) -> Self {
        const { assert!(RANK <= 4) };
        let mut extents = [1; 4];
        extents[..RANK].copy_from_slice(&given);
        Shape { extents, rank: RANK }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.extents())
    }
}

/// A shape and a counted handle on device memory. Clones share the memory; writing asks for the only handle, so nothing
/// that the tape saved can change under it.
pub struct Tensor<D: Device> {
    shape: Shape,
    storage: Storage,
    buffer: Rc<D::Buffer>,
}

impl<D: Device> Tensor<D> {
    /// Memory for a tensor of `shape`, its content unspecified.
    pub fn new(device: &D, shape: impl Into<Shape>, storage: Storage) -> Result<Self, DeviceError> {
        let shape = shape.into();
        let buffer = Rc::new(device.allocate(shape.len(), storage)?);
        Ok(Tensor { shape, storage, buffer })
    }

    /// A full-width tensor with the host's `values`.
    pub fn from_host(device: &D, shape: impl Into<Shape>, values: &[D::Real]) -> Result<Self, DeviceError> {
        let mut tensor = Tensor::new(device, shape, Storage::Full)?;
        device.upload(tensor.view_mut(), values)?;
        Ok(tensor)
    }

    /// The extents.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// All elements.
    pub fn view(&self) -> D::View<'_> {
        D::view(&self.buffer, 0..self.shape.len())
    }

    /// The elements of some rows, where a row is all but the first extent.
    pub fn rows(&self, rows: Range<usize>) -> D::View<'_> {
        let row: usize = self.shape.extents()[1..].iter().product();
        D::view(&self.buffer, rows.start * row..rows.end * row)
    }

    /// All elements, exclusively.
    ///
    /// # Panics
    /// If another handle shares the memory. Only a tensor fresh from [`Tensor::new`] or [`Tensor::into_unique`] is written.
    pub fn view_mut(&mut self) -> D::ViewMut<'_> {
        let len = self.shape.len();
        let buffer = Rc::get_mut(&mut self.buffer).expect("a tensor is written only while nobody shares it");
        D::view_mut(buffer, 0..len)
    }

    /// This tensor if nobody shares it, else a copy: what an in-place accumulation writes to.
    pub fn into_unique(mut self, device: &D) -> Result<Self, DeviceError> {
        if Rc::get_mut(&mut self.buffer).is_some() {
            return Ok(self);
        }
        let mut copy = Tensor::new(device, self.shape, self.storage)?;
        device.copy(copy.view_mut(), self.view())?;
        Ok(copy)
    }

    /// The elements on the host.
    pub fn to_host(&self, device: &D) -> Result<Vec<D::Real>, DeviceError> {
        device.download(self.view())
    }
}

impl<D: Device> Clone for Tensor<D> {
    fn clone(&self) -> Self {
        Tensor { shape: self.shape, storage: self.storage, buffer: Rc::clone(&self.buffer) }
    }
}
