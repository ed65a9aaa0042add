//! What the depthwise convolutions must read and write: every operand once. Filters are read at full width.

use super::{Counting, View, Why};
use crate::device::cuda::choose::depthwise::{self as choose, Pass};
use crate::device::{
    DepthwiseBackwardData, DepthwiseBackwardWeights, DepthwiseForward, DepthwiseKernels, DepthwiseShape, DeviceError,
};

impl Counting {
    /// The kernel of a pass, and why it is that one.
    fn choose_depthwise(
        &self,
        pass: &'static Pass,
        shape: &DepthwiseShape,
    ) -> Result<(&'static str, Option<Why>), DeviceError> {
        self.choose(pass.name, |target| {
            let choice = choose::depthwise(target, pass, shape, true);
            Ok((choice.kernel.kernel, Why::from(&choice)))
        })
    }
}

impl DepthwiseKernels for Counting {
    fn depthwise_forward(
        &self,
        operands: DepthwiseForward<View, View>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DepthwiseForward { y, stats, x, transform, w } = operands;
        let reads = self.part(x, shape.seen()) + self.owed(transform) + self.bytes(w);
        let kernel = self.choose_depthwise(&choose::FORWARD, shape)?;
        self.launch_chosen(kernel, reads, self.bytes(y) + self.optional(stats), shape.flops());
        Ok(())
    }

    fn depthwise_backward_data(
        &self,
        operands: DepthwiseBackwardData<View, View>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DepthwiseBackwardData { dx, accumulate, epilogue, dy, w } = operands;
        let old = if accumulate { self.bytes(dx) } else { 0 };
        let [masks, sums] = self.epilogue(epilogue);
        let reads = self.gradient(dy) + self.bytes(w) + old + masks;
        let kernel = self.choose_depthwise(&choose::BACKWARD_DATA, shape)?;
        self.launch_chosen(kernel, reads, self.bytes(dx) + sums, shape.flops());
        Ok(())
    }

    fn depthwise_backward_weights(
        &self,
        operands: DepthwiseBackwardWeights<View, View>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DepthwiseBackwardWeights { dw, dy, x, transform } = operands;
        let reads = self.gradient(dy) + self.part(x, shape.seen()) + self.owed(transform) + self.bytes(dw);
        let kernel = self.choose_depthwise(&choose::BACKWARD_WEIGHTS, shape)?;
        self.launch_chosen(kernel, reads, self.bytes(dw), shape.flops());
        Ok(())
    }
}
