//! Memory: buffers from a pool, views of them, and the moves between host and device.

use super::counting::Habits;
use super::{DeviceError, Measured, Pass, Placement, Precision, Profiler, Rates};
use std::fmt::Debug;
use std::ops::Range;

/// A number on the host side of a device: `f32` everywhere but in the reference device, which computes in `f64`.
pub trait Real: Copy + Debug + Default + PartialOrd + Into<f64> + Send + Sync + 'static {
    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;
}

impl Real for f32 {
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Real for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }
}

/// What a buffer holds, which decides how wide its elements may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Activations and their gradients: a device running in mixed precision keeps these narrow.
    Activation,
    /// Trainable parameters: at full width, and on a GPU in mixed precision a narrow copy beside it, which every write keeps
    /// up to date and convolutions read.
    Weights,
    /// Gradients of parameters, optimiser state, statistics, logits, losses: always at full width.
    Full,
}

/// What every view tells of itself, so that a kernel's operands can be checked on any device.
pub trait Elements {
    /// How many elements there are.
    fn count(&self) -> usize;
}

impl<T> Elements for &[T] {
    fn count(&self) -> usize {
        self.len()
    }
}

impl<T> Elements for &mut [T] {
    fn count(&self) -> usize {
        self.len()
    }
}

/// Buffers and views. A buffer is owned and returns to its device's pool when dropped, so that a training step finds the
/// same addresses as the one before it; kernels take views, which are to a buffer what slices are to a `Vec`.
pub trait Memory: Sized + 'static {
    /// The host's number type.
    type Real: Real;
    /// An owned allocation.
    type Buffer;
    /// A shared view of part of a buffer.
    type View<'a>: Copy + Elements;
    /// An exclusive view of part of a buffer.
    type ViewMut<'a>: Elements;
    /// A few numbers on their way to the host.
    type Arriving;
    /// A batch of `u8` pixels on the device, and how each image of it is placed.
    type Pixels;
    /// What [`repeat`](Self::repeat) remembers of a piece of work.
    type Plan: Default;

    /// The machine in words, for progress lines and errors.
    fn name(&self) -> String;

    /// `len` elements with unspecified content.
    fn allocate(&self, len: usize, storage: Storage) -> Result<Self::Buffer, DeviceError>;

    /// The elements of `range`. Panics if the range leaves the buffer: ranges come from layouts, never from users.
    fn view(buffer: &Self::Buffer, range: Range<usize>) -> Self::View<'_>;

    /// The elements of `range`, exclusively. Panics if the range leaves the buffer.
    fn view_mut(buffer: &mut Self::Buffer, range: Range<usize>) -> Self::ViewMut<'_>;

    /// The first `at` elements and the rest, for a kernel that writes two neighbours of one arena. Panics if the view is
    /// shorter.
    fn split_mut<'a>(view: Self::ViewMut<'a>, at: usize) -> (Self::ViewMut<'a>, Self::ViewMut<'a>)
    where
        Self: 'a;

    /// Host to device; the lengths must agree. `from` has been read when this returns; the device may still be at work, and
    /// kernels launched later see what it wrote.
    fn upload(&self, to: Self::ViewMut<'_>, from: &[Self::Real]) -> Result<(), DeviceError>;

    /// Device to host; waits for the kernels that write `from`.
    fn download(&self, from: Self::View<'_>) -> Result<Vec<Self::Real>, DeviceError>;

    /// Starts a copy of a few numbers to the host, behind the kernels launched so far: whatever later ones write to `from`, those
    /// numbers are what arrives.
    fn fetch(&self, from: Self::View<'_>) -> Result<Self::Arriving, DeviceError>;

    /// Whether the host would get them now without waiting.
    fn is_here(&self, arriving: &Self::Arriving) -> bool;

    /// The numbers, once they are here.
    fn receive(&self, arriving: Self::Arriving) -> Result<Vec<Self::Real>, DeviceError>;

    /// Host to device for a batch of pixels, NHWC, with one placement an image. May still be under way when this returns,
    /// beside whatever the device computes; the kernels that read the pixels wait for it.
    fn upload_pixels(&self, pixels: &[u8], placements: &[Placement]) -> Result<Self::Pixels, DeviceError>;

    /// `to = from` for two batches of the same size. `from` is given up here, not after the step that reads `to`: so its
    /// memory takes the next batch while that step runs.
    fn copy_pixels(&self, to: &mut Self::Pixels, from: Self::Pixels) -> Result<(), DeviceError>;

    /// Does `work`, or what it did when this `plan` saw it before. So all calls with one plan must mean the same kernels on
    /// the same memory: what changes from one to the next is written into buffers that outlive the plan, `work` neither
    /// uploads nor downloads, and every buffer it allocates is gone when it returns.
    fn repeat<E: From<DeviceError>>(
        &self,
        plan: &mut Self::Plan,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E>;

    /// `to = value`, everywhere.
    fn fill(&self, to: Self::ViewMut<'_>, value: Self::Real) -> Result<(), DeviceError>;

    /// `to = from`.
    fn copy(&self, to: Self::ViewMut<'_>, from: Self::View<'_>) -> Result<(), DeviceError>;

    /// `to += from`: the fan-in of a gradient whose second part comes from no kernel that could add while storing, and sums that a kernel
    /// took for the gradient of a bias.
    fn add(&self, to: Self::ViewMut<'_>, from: Self::View<'_>) -> Result<(), DeviceError>;

    /// What it does in its own way, so that a step on it can be counted without it.
    fn habits(&self) -> Habits {
        Habits::Processor(Precision::F32)
    }

    /// The switch for timing launches, if this device can. While it is on, [`repeat`](Self::repeat) does all work as it is.
    fn profiler(&self) -> Option<&Profiler> {
        None
    }

    /// Says to which layer and pass the next launches belong. Of no consequence while they are not timed.
    fn enter(&self, layer: &str, pass: Pass) {
        if let Some(profiler) = self.profiler() {
            profiler.enter(layer, pass);
        }
    }

    /// The launches timed since the last call, in their order; waits for them.
    fn measured(&self) -> Result<Vec<Measured>, DeviceError> {
        Ok(Vec::new())
    }

    /// How fast this device can be at most, or why nobody knows.
    fn rates(&self) -> Result<Rates, DeviceError> {
        Err(DeviceError::Unavailable(format!("{} is not made for speed", self.name())))
    }
}
