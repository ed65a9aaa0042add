//! What convolutions must read and write: every operand once.

use super::{Counting, View, Why};
use crate::device::cuda::choose::conv::{self as choose, Aligned};
use crate::device::{
    ConvBackwardBias, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvKernels, ConvShape, DeviceError, Memory,
    OutputGradient, Storage,
};

impl ConvKernels for Counting {
    fn conv_forward(&self, operands: ConvForward<View, View>, shape: &ConvShape) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvForward { y, stats, x, transform, w, bias, activation: _ } = operands;
        let reads = self.part(x, shape.seen()) + self.owed(transform) + self.narrow(w) + self.optional(bias);
        let kernel = self.choose("conv_forward", |target| {
            let owed = transform.map(|transform| transform.activation);
            let choice = choose::forward(target, shape, owed, Aligned::ALL)?;
            Ok((choice.kernel.name(owed), Why::from(&choice)))
        })?;
        self.launch_chosen(kernel, reads, self.bytes(y) + self.optional(stats), shape.flops());
        Ok(())
    }

    fn conv_form_gradient(
        &self,
        owed: OutputGradient<View>,
        shape: &ConvShape,
    ) -> Result<Option<Self::Buffer>, DeviceError> {
        owed.check("conv_form_gradient", shape.output_len(), shape.k)?;
        if !self.is_gpu() || matches!(owed, OutputGradient::Ready(_)) {
            return Ok(None);
        }
        let dy = self.allocate(shape.output_len(), Storage::Activation)?;
        let written = self.bytes(Counting::view(&dy, 0..shape.output_len()));
        self.launch("conv_form_gradient", self.gradient(owed), written, 4 * shape.output_len() as u64);
        Ok(Some(dy))
    }

    fn conv_backward_data(&self, operands: ConvBackwardData<View, View>, shape: &ConvShape) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardData { dx, accumulate, epilogue, dy, w } = operands;
        // Without an epilogue, pixels that no tap reaches stay as they are.
        let touched = self.part(dx, if accumulate && epilogue.is_none() { shape.seen() } else { dx.len });
        let old = if accumulate { touched } else { 0 };
        let has_epilogue = epilogue.is_some();
        let [masks, sums] = self.epilogue(epilogue);
        let reads = self.gradient(dy) + self.narrow(w) + old + masks;
        let kernel = self.choose("conv_backward_data", |target| {
            let choice = choose::backward_data(target, shape, has_epilogue, Aligned::ALL)?;
            Ok((choice.kernel.name(), Why::from(&choice)))
        })?;
        self.launch_chosen(kernel, reads, touched + sums, shape.flops());
        Ok(())
    }

    fn conv_backward_weights(
        &self,
        operands: ConvBackwardWeights<View, View>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardWeights { dw, dy, x, transform } = operands;
        let reads = self.gradient(dy) + self.part(x, shape.seen()) + self.owed(transform) + self.bytes(dw);
        let kernel = self.choose("conv_backward_weights", |target| {
            let owed = transform.map(|transform| transform.activation);
            let choice = choose::backward_weights(target, shape, owed, Aligned::ALL);
            Ok((choice.kernel.name(owed), Why::from(&choice)))
        })?;
        self.launch_chosen(kernel, reads, self.bytes(dw), shape.flops());
        Ok(())
    }

    fn conv_backward_bias(&self, operands: ConvBackwardBias<View, View>, shape: &ConvShape) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardBias { dbias, dy } = operands;
        let reads = self.gradient(dy) + self.bytes(dbias);
        self.launch("conv_backward_bias", reads, self.bytes(dbias), shape.output_len() as u64);
        Ok(())
    }
}
