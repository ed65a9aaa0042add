//! Pooling: launches of `kernels/pool/pool.cu`.

use super::Cuda;
use super::activation::Bounds;
use super::arguments::arguments;
use super::choose::pool::{self as choose, max_pool_backward};
use super::conv::{Divisor, extent};
use super::kernels::Launch;
use super::memory::{Element, View, ViewMut};
use super::modules::Module;
use super::rows::{Walk, WalkShape};
use crate::device::{DeviceError, GlobalPoolShape, InputTransform, PoolKernels, PoolShape, Work, check_lengths};

/// Blocks a multiprocessor.
const BLOCKS: usize = 4;
/// The widest window whose taps have numbers of a byte.
const WIDEST_WINDOW: usize = 16;

arguments! {
    /// A pooling as the kernels see it.
    struct PoolGeometry {
        h: i32,
        w: i32,
        window: i32,
        stride: i32,
        pad: i32,
        p: i32,
        q: i32,
    }
}

impl PoolGeometry {
    fn new(kernel: &'static str, shape: &PoolShape) -> Result<Self, DeviceError> {
        let of = |count| extent(kernel, count);
        // Pixels are numbered from the padding's first, taps from a window's first.
        let last = (shape.p.max(shape.q) * shape.stride).max(shape.h.max(shape.w));
        of(last + 2 * shape.pad + shape.window + shape.stride)?;
        Ok(PoolGeometry {
            h: of(shape.h)?,
            w: of(shape.w)?,
            window: of(shape.window)?,
            stride: of(shape.stride)?,
            pad: of(shape.pad)?,
            p: of(shape.p)?,
            q: of(shape.q)?,
        })
    }
}

arguments! {
    /// Argument of `max_pool_forward` and `max_pool_winners`.
    struct MaxPoolWindows {
        y: u64,
        winners: u64,
        x: u64,
        norm: u64,
        bounds: Bounds,
        shape: WalkShape,
        geometry: PoolGeometry,
        by_p: Divisor,
        by_q: Divisor,
    }

    /// Argument of `max_pool_backward` and `max_pool_backward_3x3_stride2`.
    struct MaxPoolBackward {
        dx: u64,
        dy: u64,
        winners: u64,
        shape: WalkShape,
        geometry: PoolGeometry,
        by_height: Divisor,
        by_width: Divisor,
        by_stride: Divisor,
        reach: i32,
    }

    /// Argument of `global_average_pool_forward` and `global_max_pool_forward`.
    struct GlobalPoolForward {
        y: u64,
        x: u64,
        shape: WalkShape,
    }

    /// Argument of `global_average_pool_backward`.
    struct GlobalAverageBackward {
        dx: u64,
        dy: u64,
        shape: WalkShape,
    }

    /// Argument of `global_max_pool_backward`.
    struct GlobalMaxBackward {
        dx: u64,
        dy: u64,
        x: u64,
        shape: WalkShape,
    }
}

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
        y: ViewMut<'_>,
        x: View<'_>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        check_lengths(kernel, &[("y", y.len(), shape.output_len()), ("x", x.len(), shape.input_len())])?;
        let (walk, launch) = self.whole_images(kernel, &[(x.address(), x.element())], shape, |bytes| Work {
            reads: bytes,
            writes: (shape.output_len() * size_of::<f32>()) as u64,
            flops: shape.input_len() as u64,
        })?;
        let arguments = GlobalPoolForward { y: y.address(), x: x.address(), shape: walk };
        self.launch(Module::Pool, kernel, launch, &arguments)
    }
}

/// The operands of a max pool's two passes, for [`check_lengths`].
fn check_transform(
    kernel: &'static str,
    operands: [(&'static str, usize, usize); 2],
    transform: Option<InputTransform<View<'_>>>,
    shape: &PoolShape,
) -> Result<(), DeviceError> {
    let norm = transform.map_or(4 * shape.c, |transform| transform.norm.len());
    check_lengths(kernel, &operands)?;
    check_lengths(kernel, &[("transform.norm", norm, 4 * shape.c)])
}

impl PoolKernels for Cuda {
    fn max_pool_forward(
        &self,
        y: ViewMut<'_>,
        x: View<'_>,
        transform: Option<InputTransform<View<'_>>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        let operands = [("y", y.len(), shape.output_len()), ("x", x.len(), shape.input_len())];
        check_transform("max_pool_forward", operands, transform, shape)?;
        self.look_through_windows(WindowOutput::Maxima(&y), x, transform, shape)
    }

    fn max_pool_backward(
        &self,
        dx: ViewMut<'_>,
        dy: View<'_>,
        x: View<'_>,
        transform: Option<InputTransform<View<'_>>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "max_pool_backward";
        let operands = [("dx", dx.len(), shape.input_len()), ("dy", dy.len(), shape.output_len())];
        check_transform(KERNEL, operands, transform, shape)?;
        check_lengths(KERNEL, &[("x", x.len(), shape.input_len())])?;
        if shape.window > WIDEST_WINDOW {
            let reason = format!("windows are {0}x{0}, at most {WIDEST_WINDOW}x{WIDEST_WINDOW} fit", shape.window);
            return Err(DeviceError::Shape { kernel: KERNEL, reason });
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
        let arguments = MaxPoolBackward {
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
        y: ViewMut<'_>,
        x: View<'_>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        self.global_pool_forward("global_average_pool_forward", y, x, shape)
    }

    fn global_average_pool_backward(
        &self,
        dx: ViewMut<'_>,
        dy: View<'_>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "global_average_pool_backward";
        check_lengths(KERNEL, &[("dx", dx.len(), shape.input_len()), ("dy", dy.len(), shape.output_len())])?;
        let (walk, launch) = self.whole_images(KERNEL, &[(dx.address(), dx.element())], shape, |bytes| Work {
            reads: (shape.output_len() * size_of::<f32>()) as u64,
            writes: bytes,
            flops: shape.output_len() as u64,
        })?;
        let arguments = GlobalAverageBackward { dx: dx.address(), dy: dy.address(), shape: walk };
        self.launch(Module::Pool, KERNEL, launch, &arguments)
    }

    fn global_max_pool_forward(&self, y: ViewMut<'_>, x: View<'_>, shape: &GlobalPoolShape) -> Result<(), DeviceError> {
        self.global_pool_forward("global_max_pool_forward", y, x, shape)
    }

    fn global_max_pool_backward(
        &self,
        dx: ViewMut<'_>,
        dy: View<'_>,
        x: View<'_>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        const KERNEL: &str = "global_max_pool_backward";
        let operands = [
            ("dx", dx.len(), shape.input_len()),
            ("dy", dy.len(), shape.output_len()),
            ("x", x.len(), shape.input_len()),
        ];
        check_lengths(KERNEL, &operands)?;
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
