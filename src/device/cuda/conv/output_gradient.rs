//! The gradient of a convolution's output: forming the one that a batch norm owes, and summing it into the bias's
//! (`kernels/conv/output_gradient.cuh`).

use crate::device::cuda::Cuda;
use crate::device::cuda::arguments::arguments;
use crate::device::cuda::memory::{Buffer, View, ViewMut};
use crate::device::cuda::modules::Module;
use crate::device::cuda::rows::{Walk, WalkShape};
use crate::device::{ConvShape, DeviceError, Memory, OutputGradient, Storage, Work};

arguments! {
    /// Argument of the kernels `conv_form_gradient`.
    struct ConvFormGradient {
        dy: u64,
        dz: u64,
        y: u64,
        k: u64,
        shape: WalkShape,
    }

    /// Argument of the kernels `conv_backward_bias`.
    struct ConvBackwardBias {
        dbias: u64,
        dy: u64,
        partials: u64,
        tickets: u64,
        shape: WalkShape,
    }
}

/// Rows for each thread at the least: it reads its channels' constants, or writes their sums, once.
const ROWS: usize = 8;

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
        let out = Cuda::view(&dy, 0..shape.output_len());
        let activations = [out, dz, y].map(|view| (view.address(), view.element()));
        let walk = Walk::new(self, KERNEL, shape.n * shape.p * shape.q, shape.k, &activations)?;
        let [dy_address, dz, y] = activations.map(|(address, _)| address);
        let arguments = ConvFormGradient { dy: dy_address, dz, y, k: k.address(), shape: walk.shape };
        let work = Work {
            reads: 2 * walk.bytes + 12 * shape.k as u64,
            writes: walk.bytes,
            flops: 4 * shape.output_len() as u64,
        };
        // Three blocks fill a multiprocessor.
        self.launch(Module::Conv, KERNEL, walk.launch(walk.blocks_of(self, 3, ROWS), work), &arguments)?;
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
        let activations = [(dy.address(), dy.element())];
        let walk = Walk::new(self, KERNEL, shape.n * shape.p * shape.q, shape.k, &activations)?;
        let blocks = walk.blocks_of(self, 1, ROWS);
        let partials = blocks * shape.k * size_of::<f32>();
        let workspace = self.workspace(partials)?;
        let arguments = ConvBackwardBias {
            dbias: dbias.address(),
            dy: dy.address(),
            partials: workspace.address(),
            tickets: self.tickets(KERNEL, walk.slices())?,
            shape: walk.shape,
        };
        let bias = 4 * shape.k as u64;
        let work = Work { reads: walk.bytes + bias, writes: partials as u64 + bias, flops: shape.output_len() as u64 };
        self.launch(Module::Conv, KERNEL, walk.launch(blocks, work), &arguments)
    }
}
