//! The end of a step: launches of `kernels/adam/adam.cu`.

pub(super) mod arguments;

use super::Cuda;
use super::kernels::Launch;
use super::memory::{View, ViewMut};
use super::modules::Module;
use crate::device::adam::{ADAM_FLOPS, AVERAGE_FLOPS, OUTCOME, RATES, SQUARED_NORM_FLOPS};
use crate::device::{AdamConstants, AdamKernels, AdamStep, Average, DeviceError, Restore, SquaredNorm, Work};

/// Groups of four elements that a block of `squared_norm` adds up.
const QUADS: i32 = 4096;

/// Bytes of a step's outcome.
const OUTCOME_BYTES: u64 = (OUTCOME * size_of::<f32>()) as u64;

/// A number of elements as the kernels count them.
fn counted(kernel: &'static str, elements: usize) -> Result<i32, DeviceError> {
    i32::try_from(elements)
        .map_err(|_| DeviceError::Shape { kernel, reason: format!("{elements} elements, at most 2³¹") })
}

/// How many of `count` elements stand before the first that is on 16 bytes in all arenas: all, if there is none.
fn unaligned_head(arenas: &[u64], count: i32) -> i32 {
    let first = arenas[0] % 16;
    match arenas.iter().all(|address| address % 16 == first) {
        true => count.min(((16 - first) % 16 / 4) as i32),
        false => count,
    }
}

impl AdamKernels for Cuda {
    fn squared_norm(&self, operands: SquaredNorm<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        const KERNEL: &str = "squared_norm";
        operands.check()?;
        let SquaredNorm { sum, x } = operands;
        let count = counted(KERNEL, x.len())?;
        let head = unaligned_head(&[x.address()], count);
        let quads = (count - head) / 4;
        let blocks = (quads as u32).div_ceil(QUADS as u32).max(1);
        let workspace = self.workspace(4 * blocks as usize)?;
        let arguments = arguments::SquaredNorm {
            sum: sum.address(),
            x: x.address(),
            partials: workspace.address(),
            ticket: self.tickets(KERNEL, 1)?,
            count,
            head,
            quads,
        };
        let work = Work {
            reads: 4 * count as u64,
            writes: 4 * u64::from(blocks) + 4,
            flops: SQUARED_NORM_FLOPS * count as u64,
        };
        self.launch(Module::Adam, KERNEL, Launch { grid: [blocks, 1, 1], block: 256, shared: 0, work }, &arguments)
    }

    fn adam(&self, operands: AdamStep<View<'_>, ViewMut<'_>>, constants: &AdamConstants) -> Result<(), DeviceError> {
        operands.check()?;
        let AdamStep { w, m, v, gradients, decaying, outcome, rates } = operands;
        let count = counted("adam", w.len())?;
        if count == 0 {
            return Ok(());
        }
        let head = unaligned_head(&[w.address(), m.address(), v.address(), gradients.address()], count);
        let quads = (count - head) / 4;
        let threads = (count - 3 * quads) as u32;
        let arguments = arguments::Adam {
            w: w.address(),
            m: m.address(),
            v: v.address(),
            narrow: w.narrow().unwrap_or(0),
            gradients: gradients.address(),
            decaying: decaying.map_or(0, |marks| marks.address()),
            outcome: outcome.address(),
            rates: rates.address(),
            count,
            head,
            quads,
            towards_g: (1.0 - constants.beta1) as f32,
            towards_g_square: (1.0 - constants.beta2) as f32,
            epsilon: constants.epsilon as f32,
            clip_norm: constants.clip_norm as f32,
        };
        let (parameters, copy) = (count as u64, if w.narrow().is_some() { 2 } else { 0 });
        let marks = decaying.map_or(0, |marks| 4 * marks.len() as u64);
        let work = Work {
            reads: 16 * parameters + marks + OUTCOME_BYTES + 4 * RATES as u64,
            writes: (12 + copy) * parameters,
            flops: ADAM_FLOPS * parameters,
        };
        let launch = Launch { grid: [threads.div_ceil(256), 1, 1], block: 256, shared: 0, work };
        self.launch(Module::Adam, "adam", launch, &arguments)
    }

    fn restore(&self, operands: Restore<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        operands.check()?;
        let Restore { to, from, outcome } = operands;
        let count = counted("restore", to.len())?;
        if count == 0 {
            return Ok(());
        }
        let arguments =
            arguments::Restore { to: to.address(), from: from.address(), outcome: outcome.address(), count };
        // After a sound step, which nearly all are, it reads the outcome and nothing else.
        let work = Work { reads: OUTCOME_BYTES, ..Work::default() };
        let launch = Launch { grid: [(count as u32).div_ceil(256), 1, 1], block: 256, shared: 0, work };
        self.launch(Module::Adam, "restore", launch, &arguments)
    }

    fn average(&self, operands: Average<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        const KERNEL: &str = "average";
        operands.check()?;
        let Average { to, from, outcome, towards } = operands;
        let count = counted(KERNEL, to.len())?;
        if count == 0 {
            return Ok(());
        }
        let head = unaligned_head(&[to.address(), from.address()], count);
        let quads = (count - head) / 4;
        let threads = (count - 3 * quads) as u32;
        let arguments = arguments::Average {
            to: to.address(),
            narrow: to.narrow().unwrap_or(0),
            from: from.address(),
            outcome: outcome.address(),
            towards: towards.address(),
            count,
            head,
            quads,
        };
        let (elements, copy) = (count as u64, if to.narrow().is_some() { 2 } else { 0 });
        let work = Work {
            reads: 8 * elements + OUTCOME_BYTES + 4,
            writes: (4 + copy) * elements,
            flops: AVERAGE_FLOPS * elements,
        };
        let launch = Launch { grid: [threads.div_ceil(256), 1, 1], block: 256, shared: 0, work };
        self.launch(Module::Adam, KERNEL, launch, &arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_begin_where_all_arenas_are_aligned() {
        assert_eq!(unaligned_head(&[0, 256, 512, 1024], 100), 0);
        assert_eq!(unaligned_head(&[4, 260, 516, 1028], 100), 3);
        assert_eq!(unaligned_head(&[12, 28, 12, 44], 100), 1);
        assert_eq!(unaligned_head(&[4, 4, 4, 4], 2), 2);
        assert_eq!(unaligned_head(&[4, 256, 516, 1028], 100), 100);
    }
}
