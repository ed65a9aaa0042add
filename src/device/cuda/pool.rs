//! Pooling: launches of `kernels/pool/pool.cu`.

pub(super) mod arguments;

use super::Cuda;
use super::activation::Bounds;
use super::choose::pool::{self as choose, max_pool_backward};
use super::conv::{Divisor, extent};
use super::kernels::Launch;
use super::memory::{Element, View, ViewMut};
use super::modules::Module;
use super::rows::{Walk, WalkShape};
use crate::device::{
    DeviceError, GlobalAveragePoolBackward, GlobalMaxPoolBackward, GlobalPoolForward, GlobalPoolShape, InputTransform,
    MaxPoolBackward, MaxPoolForward, PoolKernels, PoolShape, Work,
};
use arguments::{GlobalAverageBackward, GlobalMaxBackward, MaxPoolWindows, PoolGeometry};

/// Blocks a multiprocessor.
const BLOCKS: usize = 4;
/// The widest window whose taps have numbers of a byte.
const WIDEST_WINDOW: usize = 16;

/// Where a kernel that looks through windows puts what it finds.
#[derive(Clone, Copy)]
enum WindowOutput<'a> {
    Maxima(&'a ViewMut<'a>),
    /// Bytes at this address.
    Winners(u64),
}

impl Cuda {
    fn look_through_windows(
        &self,
        found: WindowOutput<'_>,
        x: View<'_>,
        transform: Option<InputTransform<View<'_>>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        let input = (x.address(), x.element());
        let (kernel, y, winners, activations) = match found {
            WindowOutput::Maxima(y) => ("max_pool_forward", y.address(), 0, vec![input, (y.address(), y.element())]),
            WindowOutput::Winners(winners) => ("max_pool_winners", 0, winners, vec![input]),
        };
        extent(kernel, shape.input_len())?;
        let walk = Walk::new(self, kernel, shape.n * shape.p * shape.q, shape.c, &activations)?;
        let arguments = MaxPoolWindows {
            y,
            winners,
            x: x.address(),
            norm: transform.map_or(0, |transform| transform.norm.address()),
            bounds: Bounds::of(transform),
            shape: walk.shape,
            geometry: PoolGeometry::new(kernel, shape)?,
            by_p: Divisor::new(shape.p as u32),
            by_q: Divisor::new(shape.q as u32),
        };
        let norm = transform.map_or(0, |_| 2 * shape.c * size_of::<f32>());
        let outputs = shape.output_len() as u64;
        let work = Work {
            reads: (shape.input_len() * x.element().bytes() + norm) as u64,
            writes: if winners == 0 { walk.bytes } else { outputs },
            flops: shape.flops(),
        };
        self.launch(Module::Pool, kernel, walk.launch(walk.blocks(self, BLOCKS), work), &arguments)
    }

    /// The walk of a global pooling over one image, and its launch: a block a slice of each.
    fn whole_images(
        &self,
        kernel: &'static str,
        activations: &[(u64, Element)],
        shape: &GlobalPoolShape,
        work: impl FnOnce(u64) -> Work,
    ) -> Result<(WalkShape, Launch), DeviceError> {
        let walk = Walk::new(self, kernel, shape.n * shape.pixels, shape.c, activations)?;
        Ok((walk.over(shape.pixels).shape, walk.launch(shape.n, work(walk.bytes))))
    }

    fn global_pool_forward(
        &self,
        kernel: &'static str,
        operands: GlobalPoolForward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(kernel, shape)?;
        let GlobalPoolForward { y, x } = operands;
        let (walk, launch) = self.whole_images(kernel, &[(x.address(), x.element())], shape, |bytes| Work {
            reads: bytes,
            writes: (shape.output_len() * size_of::<f32>()) as u64,
            flops: shape.input_len() as u64,
        })?;
        let arguments = arguments::GlobalPoolForward { y: y.address(), x: x.address(), shape: walk };
        self.launch(Module::Pool, kernel, launch, &arguments)
    }
}

impl PoolKernels for Cuda {
    fn max_pool_forward(
        &self,
        operands: MaxPoolForward<View<'_>, ViewMut<'_>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let MaxPoolForward { y, x, transform } = operands;
        self.look_through_windows(WindowOutput::Maxima(&y), x, transform, shape)
    }

    fn max_pool_backward(
        &self,
        operands: MaxPoolBackward<View<'_>, ViewMut<'_>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let MaxPoolBackward { dx, dy, x, transform } = operands;
        if shape.window > WIDEST_WINDOW {
            let reason = format!("windows are {0}x{0}, at most {WIDEST_WINDOW}x{WIDEST_WINDOW} fit", shape.window);
            return Err(DeviceError::Shape { kernel: "max_pool_backward", reason });
        }
        let winners = self.workspace(shape.output_len())?;
        self.look_through_windows(WindowOutput::Winners(winners.address()), x, transform, shape)?;

        let choice = max_pool_backward(shape.window, shape.stride).kernel;
        // A thread's row is a pixel, or a cell of 2x2.
        let [height, width] = match choice {
            choose::PoolGradient::Pixels => [shape.h, shape.w],
            choose::PoolGradient::Cells => [shape.h, shape.w].map(|side| (side + shape.pad).div_ceil(2)),
        };
        let kernel = choice.name();
        let activations = [(dx.address(), dx.element()), (dy.address(), dy.element())];
        extent(kernel, shape.input_len())?;
        let walk = Walk::new(self, kernel, shape.n * height * width, shape.c, &activations)?;
        let arguments = arguments::MaxPoolBackward {
            dx: dx.address(),
            dy: dy.address(),
            winners: winners.address(),
            shape: walk.shape,
            geometry: PoolGeometry::new(kernel, shape)?,
            by_height: Divisor::new(height as u32),
            by_width: Divisor::new(width as u32),
            by_stride: Divisor::new(shape.stride as u32),
            reach: shape.window.div_ceil(shape.stride) as i32,
        };
        let bytes = dx.element().bytes();
        let work = Work {
            reads: (shape.output_len() * (bytes + 1)) as u64,
            writes: (shape.input_len() * bytes) as u64,
            flops: shape.output_len() as u64,
        };
        self.launch(Module::Pool, kernel, walk.launch(walk.blocks(self, BLOCKS), work), &arguments)
    }

    fn global_average_pool_forward(
        &self,
        operands: GlobalPoolForward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        self.global_pool_forward("global_average_pool_forward", operands, shape)
    }

    fn global_average_pool_backward(
        &self,
        operands: GlobalAveragePoolBackward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "global_average_pool_backward";
        operands.check(shape)?;
        let GlobalAveragePoolBackward { dx, dy } = operands;
        let (walk, launch) = self.whole_images(KERNEL, &[(dx.address(), dx.element())], shape, |bytes| Work {
            reads: (shape.output_len() * size_of::<f32>()) as u64,
            writes: bytes,
            flops: shape.output_len() as u64,
        })?;
        let arguments = GlobalAverageBackward { dx: dx.address(), dy: dy.address(), shape: walk };
        self.launch(Module::Pool, KERNEL, launch, &arguments)
    }

    fn global_max_pool_forward(
        &self,
        operands: GlobalPoolForward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        self.global_pool_forward("global_max_pool_forward", operands, shape)
    }

    fn global_max_pool_backward(
        &self,
        operands: GlobalMaxPoolBackward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "global_max_pool_backward";
        operands.check(shape)?;
        let GlobalMaxPoolBackward { dx, dy, x } = operands;
        let activations = [(dx.address(), dx.element()), (x.address(), x.element())];
        let (walk, launch) = self.whole_images(KERNEL, &activations, shape, |bytes| Work {
            reads: bytes + (shape.output_len() * size_of::<f32>()) as u64,
            writes: bytes,
            flops: shape.input_len() as u64,
        })?;
        let arguments = GlobalMaxBackward { dx: dx.address(), dy: dy.address(), x: x.address(), shape: walk };
        self.launch(Module::Pool, KERNEL, launch, &arguments)
    }
}
