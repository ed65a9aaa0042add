//! What the poolings must read and write: every operand once.

use super::{Counting, View, Why};
use crate::device::cuda::choose::pool as choose;
use crate::device::{
    DeviceError, GlobalAveragePoolBackward, GlobalMaxPoolBackward, GlobalPoolForward, GlobalPoolShape, MaxPoolBackward,
    MaxPoolForward, PoolKernels, PoolShape,
};

impl PoolKernels for Counting {
    fn max_pool_forward(&self, operands: MaxPoolForward<View, View>, shape: &PoolShape) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let MaxPoolForward { y, x, transform } = operands;
        self.launch("max_pool_forward", self.bytes(x) + self.owed(transform), self.bytes(y), shape.flops());
        Ok(())
    }

    fn max_pool_backward(&self, operands: MaxPoolBackward<View, View>, shape: &PoolShape) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let MaxPoolBackward { dx, dy, x, transform } = operands;
        let flops = shape.flops() + dy.len as u64;
        let kernel = self.choose("max_pool_backward", |_| {
            let choice = choose::max_pool_backward(shape.window, shape.stride);
            Ok((choice.kernel.name(), Why::from(&choice)))
        })?;
        self.launch_chosen(kernel, self.all([x, dy]) + self.owed(transform), self.bytes(dx), flops);
        Ok(())
    }

    fn global_average_pool_forward(
        &self,
        operands: GlobalPoolForward<View, View>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check("global_average_pool_forward", shape)?;
        let GlobalPoolForward { y, x } = operands;
        self.launch("global_average_pool_forward", self.bytes(x), self.bytes(y), x.len as u64);
        Ok(())
    }

    fn global_average_pool_backward(
        &self,
        operands: GlobalAveragePoolBackward<View, View>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let GlobalAveragePoolBackward { dx, dy } = operands;
        self.launch("global_average_pool_backward", self.bytes(dy), self.bytes(dx), dy.len as u64);
        Ok(())
    }

    fn global_max_pool_forward(
        &self,
        operands: GlobalPoolForward<View, View>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check("global_max_pool_forward", shape)?;
        let GlobalPoolForward { y, x } = operands;
        self.launch("global_max_pool_forward", self.bytes(x), self.bytes(y), x.len as u64);
        Ok(())
    }

    fn global_max_pool_backward(
        &self,
        operands: GlobalMaxPoolBackward<View, View>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let GlobalMaxPoolBackward { dx, dy, x } = operands;
        self.launch("global_max_pool_backward", self.all([dy, x]), self.bytes(dx), x.len as u64);
        Ok(())
    }
}
