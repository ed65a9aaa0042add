//! What the end of a step must read and write: every operand once, and what Adam updates both ways.

use super::{Counting, View};
use crate::device::adam::{ADAM_FLOPS, AVERAGE_FLOPS, SQUARED_NORM_FLOPS};
use crate::device::{AdamConstants, AdamKernels, AdamStep, Average, DeviceError, Restore, SquaredNorm};

impl AdamKernels for Counting {
    fn squared_norm(&self, operands: SquaredNorm<View, View>) -> Result<(), DeviceError> {
        operands.check()?;
        let SquaredNorm { sum, x } = operands;
        self.launch("squared_norm", self.bytes(x), self.bytes(sum), SQUARED_NORM_FLOPS * x.len as u64);
        Ok(())
    }

    fn adam(&self, operands: AdamStep<View, View>, _: &AdamConstants) -> Result<(), DeviceError> {
        operands.check()?;
        let AdamStep { w, m, v, gradients, decaying, outcome, rates } = operands;
        // The copy that convolutions read is written as well, where there is one.
        let copy = if self.has_narrow_weights() { self.narrow(w) } else { 0 };
        let moved = self.all([w, m, v]);
        let marks = decaying.map_or(0, |marks| self.bytes(marks));
        let reads = moved + marks + self.all([gradients, outcome, rates]);
        self.launch("adam", reads, moved + copy, ADAM_FLOPS * w.len as u64);
        Ok(())
    }

    fn restore(&self, operands: Restore<View, View>) -> Result<(), DeviceError> {
        operands.check()?;
        self.launch("restore", self.bytes(operands.outcome), 0, 0);
        Ok(())
    }

    fn average(&self, operands: Average<View, View>) -> Result<(), DeviceError> {
        operands.check()?;
        let Average { to, from, outcome, towards } = operands;
        let copy = if self.has_narrow_weights() { self.narrow(to) } else { 0 };
        let reads = self.all([to, from, outcome, towards]);
        self.launch("average", reads, self.bytes(to) + copy, AVERAGE_FLOPS * to.len as u64);
        Ok(())
    }
}
