//! The gradient of a convolution's output: forming the one that a batch norm owes, and summing it into the bias's
//! (`kernels/conv/output_gradient.cuh`).

use super::geometry::extent;
use crate::device::cuda::kernels::Launch;
use crate::device::cuda::memory::{Buffer, View, ViewMut};
use crate::device::cuda::modules::Module;
use crate::device::cuda::{Cuda, Precision};
use crate::device::{ConvShape, DeviceError, Memory, OutputGradient, Storage, Work};
use cudarc::driver::DeviceRepr;

/// Argument of the kernels `conv_form_gradient`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ConvFormGradient {
    dy: u64,
    dz: u64,
    y: u64,
    k: u64,
    rows: i32,
    channels: i32,
}

// SAFETY: plain numbers, laid out as the kernel declares them.
unsafe impl DeviceRepr for ConvFormGradient {}

/// Argument of the kernels `conv_backward_bias`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ConvBackwardBias {
    dbias: u64,
    dy: u64,
    partials: u64,
    tickets: u64,
    rows: i32,
    channels: i32,
}

// SAFETY: plain numbers, laid out as the kernel declares them.
unsafe impl DeviceRepr for ConvBackwardBias {}

/// A matrix [rows, channels] as blocks of 256 threads walk it, a vector or one element at once.
struct Walk {
    rows: usize,
    channels: usize,
    /// Bytes of an element.
    bytes: usize,
    vectors: bool,
    /// Elements at once.
    lane: usize,
}

impl Walk {
    /// Over the output of a convolution. Operands at these addresses allow vectors or they do not.
    fn new(device: &Cuda, shape: &ConvShape, addresses: &[u64]) -> Self {
        let (rows, channels) = (shape.n * shape.p * shape.q, shape.k);
        let bytes = if device.precision() == Precision::Bf16 { 2 } else { 4 };
        let lane = 16 / bytes;
        let vectors = channels.is_multiple_of(lane) && addresses.iter().all(|address| address.is_multiple_of(16));
        Walk { rows, channels, bytes, vectors, lane: if vectors { lane } else { 1 } }
    }

    /// Blocks over rows and over channels: at most `most` of the former, with `rows` or more for each thread.
    fn grid(&self, rows: usize, most: usize) -> [u32; 3] {
        let columns = self.channels / self.lane;
        let at_once = 256 / columns.min(256);
        let blocks = self.rows.div_ceil(at_once * rows).min(most);
        [blocks as u32, columns.div_ceil(256) as u32, 1]
    }
}

impl Cuda {
    /// `dy = k₀[c]·dz + k₁[c]·y + k₂[c]` in a buffer of its own.
    pub(super) fn form_gradient(
        &self,
        dz: View<'_>,
        y: View<'_>,
        k: View<'_>,
        shape: &ConvShape,
    ) -> Result<Buffer, DeviceError> {
        const KERNEL: &str = "conv_form_gradient";
        let dy = self.allocate(shape.output_len(), Storage::Activation)?;
        let addresses = [dy.address(), dz.address(), y.address(), k.address()];
        let walk = Walk::new(self, shape, &addresses);
        let (rows, channels) = (extent(KERNEL, walk.rows)?, extent(KERNEL, walk.channels)?);
        let [dy_address, dz, y, k] = addresses;
        let arguments = ConvFormGradient { dy: dy_address, dz, y, k, rows, channels };
        // A thread reads k once: eight rows repay that, and three blocks fill a multiprocessor.
        let grid = walk.grid(8, 3 * self.multiprocessors() as usize);
        let kernel = if walk.vectors { KERNEL } else { "conv_form_gradient_scalar" };
        let bytes = (shape.output_len() * walk.bytes) as u64;
        let work = Work { reads: 2 * bytes + 12 * shape.k as u64, writes: bytes, flops: 4 * shape.output_len() as u64 };
        self.launch(Module::Conv, kernel, Launch { grid, block: 256, shared: 0, work }, &arguments)?;
        Ok(dy)
    }

    /// A gradient that is ready: the one given, or formed now and kept in `formed`.
    pub(super) fn ready<'a>(
        &self,
        dy: OutputGradient<View<'a>>,
        shape: &ConvShape,
        formed: &'a mut Option<Buffer>,
    ) -> Result<View<'a>, DeviceError> {
        match dy {
            OutputGradient::Ready(dy) => Ok(dy),
            OutputGradient::Owed { dz, y, k } => {
                let formed = formed.insert(self.form_gradient(dz, y, k, shape)?);
                Ok(Cuda::view(formed, 0..shape.output_len()))
            }
        }
    }

    /// `dbias[k] += Σ_{n,p,q} dy`.
    pub(super) fn backward_bias(&self, dbias: ViewMut<'_>, dy: View<'_>, shape: &ConvShape) -> Result<(), DeviceError> {
        const KERNEL: &str = "conv_backward_bias";
        let walk = Walk::new(self, shape, &[dy.address()]);
        let grid = walk.grid(8, self.multiprocessors() as usize);
        let workspace = self.workspace(grid[0] as usize * walk.channels * size_of::<f32>())?;
        let arguments = ConvBackwardBias {
            dbias: dbias.address(),
            dy: dy.address(),
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, grid[1] as usize)?,
            rows: extent(KERNEL, walk.rows)?,
            channels: extent(KERNEL, walk.channels)?,
        };
        let kernel = if walk.vectors { KERNEL } else { "conv_backward_bias_scalar" };
        let work = Work {
            reads: (shape.output_len() * walk.bytes + 4 * shape.k) as u64,
            writes: 4 * u64::from(grid[0] + 1) * shape.k as u64,
            flops: shape.output_len() as u64,
        };
        self.launch(Module::Conv, kernel, Launch { grid, block: 256, shared: 0, work }, &arguments)
    }
}
