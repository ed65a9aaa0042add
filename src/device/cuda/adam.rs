//! Adam: one launch over the arena.

use super::Cuda;
use super::kernels::Launch;
use super::memory::{View, ViewMut};
use super::modules::Module;
use crate::device::adam::{ADAM_FLOPS, check_adam};
use crate::device::{AdamConstants, AdamKernels, DeviceError, Work};
use cudarc::driver::DeviceRepr;

/// Arguments of `adam` in `kernels/adam.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Adam {
    w: u64,
    m: u64,
    v: u64,
    narrow: u64,
    gradients: u64,
    loss: u64,
    rate: u64,
    count: i32,
    head: i32,
    quads: i32,
    towards_g: f32,
    towards_g_square: f32,
    epsilon: f32,
}

// SAFETY: plain numbers, laid out as the kernel declares them.
unsafe impl DeviceRepr for Adam {}

/// How many of `count` elements stand before the first that is on 16 bytes in all arenas: all, if there is none.
fn unaligned_head(arenas: [u64; 4], count: i32) -> i32 {
    let first = arenas[0] % 16;
    match arenas.iter().all(|address| address % 16 == first) {
        true => count.min(((16 - first) % 16 / 4) as i32),
        false => count,
    }
}

impl AdamKernels for Cuda {
    fn adam(
        &self,
        w: ViewMut<'_>,
        m: ViewMut<'_>,
        v: ViewMut<'_>,
        gradients: View<'_>,
        loss: View<'_>,
        rate: View<'_>,
        constants: &AdamConstants,
    ) -> Result<(), DeviceError> {
        check_adam(w.len(), m.len(), v.len(), gradients.len(), loss.len(), rate.len())?;
        let Ok(count) = i32::try_from(w.len()) else {
            return Err(DeviceError::Shape {
                kernel: "adam", reason: format!("{} parameters, at most 2³¹", w.len())
            });
        };
        if count == 0 {
            return Ok(());
        }
        let head = unaligned_head([w.address(), m.address(), v.address(), gradients.address()], count);
        let quads = (count - head) / 4;
        let threads = (count - 3 * quads) as u32;
        let arguments = Adam {
            w: w.address(),
            m: m.address(),
            v: v.address(),
            narrow: w.narrow().unwrap_or(0),
            gradients: gradients.address(),
            loss: loss.address(),
            rate: rate.address(),
            count,
            head,
            quads,
            towards_g: (1.0 - constants.beta1) as f32,
            towards_g_square: (1.0 - constants.beta2) as f32,
            epsilon: constants.epsilon as f32,
        };
        let (parameters, copy) = (count as u64, if w.narrow().is_some() { 2 } else { 0 });
        let work =
            Work { reads: 16 * parameters + 8, writes: (12 + copy) * parameters, flops: ADAM_FLOPS * parameters };
        let launch = Launch { grid: [threads.div_ceil(256), 1, 1], block: 256, shared: 0, work };
        self.launch(Module::Adam, "adam", launch, &arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_begin_where_all_arenas_are_aligned() {
        assert_eq!(unaligned_head([0, 256, 512, 1024], 100), 0);
        assert_eq!(unaligned_head([4, 260, 516, 1028], 100), 3);
        assert_eq!(unaligned_head([12, 28, 12, 44], 100), 1);
        assert_eq!(unaligned_head([4, 4, 4, 4], 2), 2);
        assert_eq!(unaligned_head([4, 256, 516, 1028], 100), 100);
    }
}
