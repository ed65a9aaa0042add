//! A processor that can be told to misbehave: to answer late, and to leave a NaN in a gradient.

use onesheet::device::cpu::{Buffer, Cpu, View, ViewMut};
use onesheet::device::image::HostPixels;
use onesheet::device::*;
use std::cell::Cell;
use std::ops::Range;

/// The processor, and what it does wrong.
#[derive(Default)]
pub struct Faulty {
    pub cpu: Cpu,
    /// Whether numbers come back as late as they may: whoever can go on without them must.
    pub late: bool,
    /// A kernel that adds to the gradients of a layer's parameters, and how many calls of it go well before one leaves a NaN.
    pub spoilt: Cell<Option<(&'static str, usize)>>,
}

impl Faulty {
    /// Puts a NaN where a kernel is about to add a gradient, if it is the one to spoil and its time has come.
    fn spoil(&self, kernel: &str, gradient: &mut ViewMut<'_>) {
        match self.spoilt.get() {
            Some((name, 0)) if name == kernel => {
                let ViewMut::Full(gradient) = gradient else { unreachable!("gradients of parameters have full width") };
                gradient[0] = f32::NAN;
                self.spoilt.set(None);
            }
            Some((name, calls)) if name == kernel => self.spoilt.set(Some((name, calls - 1))),
            _ => {}
        }
    }
}

impl Memory for Faulty {
    type Real = f32;
    type Buffer = Buffer;
    type View<'a> = View<'a>;
    type ViewMut<'a> = ViewMut<'a>;
    type Arriving = Vec<f32>;
    type Pixels = HostPixels;
    type Plan = ();

    fn name(&self) -> String {
        self.cpu.name()
    }

    fn allocate(&self, len: usize, storage: Storage) -> Result<Buffer, DeviceError> {
        self.cpu.allocate(len, storage)
    }

    fn view(buffer: &Buffer, range: Range<usize>) -> View<'_> {
        Cpu::view(buffer, range)
    }

    fn view_mut(buffer: &mut Buffer, range: Range<usize>) -> ViewMut<'_> {
        Cpu::view_mut(buffer, range)
    }

    fn split_mut<'a>(view: ViewMut<'a>, at: usize) -> (ViewMut<'a>, ViewMut<'a>)
    where
        Self: 'a,
    {
        Cpu::split_mut(view, at)
    }

    fn upload(&self, to: ViewMut<'_>, from: &[f32]) -> Result<(), DeviceError> {
        self.cpu.upload(to, from)
    }

    fn download(&self, from: View<'_>) -> Result<Vec<f32>, DeviceError> {
        self.cpu.download(from)
    }

    fn fetch(&self, from: View<'_>) -> Result<Vec<f32>, DeviceError> {
        self.cpu.fetch(from)
    }

    fn is_here(&self, _: &Vec<f32>) -> bool {
        !self.late
    }

    fn receive(&self, arriving: Vec<f32>) -> Result<Vec<f32>, DeviceError> {
        self.cpu.receive(arriving)
    }

    fn upload_pixels(&self, pixels: &[u8], placements: &[Placement]) -> Result<HostPixels, DeviceError> {
        self.cpu.upload_pixels(pixels, placements)
    }

    fn copy_pixels(&self, to: &mut HostPixels, from: HostPixels) -> Result<(), DeviceError> {
        self.cpu.copy_pixels(to, from)
    }

    fn repeat<E: From<DeviceError>>(&self, plan: &mut (), work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        self.cpu.repeat(plan, work)
    }

    fn fill(&self, to: ViewMut<'_>, value: f32) -> Result<(), DeviceError> {
        self.cpu.fill(to, value)
    }

    fn copy(&self, to: ViewMut<'_>, from: View<'_>) -> Result<(), DeviceError> {
        self.cpu.copy(to, from)
    }

    fn add(&self, to: ViewMut<'_>, from: View<'_>) -> Result<(), DeviceError> {
        self.cpu.add(to, from)
    }
}

/// The kernels of a family, those that can be spoilt with the gradient they add to.
macro_rules! kernels {
    ($family:ident: $($kernel:ident($operands:ident $(, $argument:ident: $type:ty)*) $(spoils $gradient:ident)?;)*) => {
        impl $family for Faulty {$(
            #[allow(unused_mut)]
            fn $kernel(
                &self,
                mut operands: $operands<View<'_>, ViewMut<'_>>
                $(, $argument: $type)*
            ) -> Result<(), DeviceError> {
                $(self.spoil(stringify!($kernel), &mut operands.$gradient);)?
                self.cpu.$kernel(operands $(, $argument)*)
            }
        )*}
    };
}

kernels! { ConvKernels:
    conv_forward(ConvForward, shape: &ConvShape);
    conv_backward_data(ConvBackwardData, shape: &ConvShape);
    conv_backward_weights(ConvBackwardWeights, shape: &ConvShape) spoils dw;
    conv_backward_bias(ConvBackwardBias, shape: &ConvShape);
}

kernels! { DepthwiseKernels:
    depthwise_forward(DepthwiseForward, shape: &DepthwiseShape);
    depthwise_backward_data(DepthwiseBackwardData, shape: &DepthwiseShape);
    depthwise_backward_weights(DepthwiseBackwardWeights, shape: &DepthwiseShape) spoils dw;
}

kernels! { BatchNormKernels:
    batch_norm_finalise(BatchNormFinalise, channels: usize, constants: BatchNormConstants);
    batch_norm_fold(BatchNormFold, channels: usize, epsilon: f64);
    batch_norm_statistics(BatchNormStatistics, shape: Rows);
    batch_norm_apply(BatchNormApply, shape: Rows);
    batch_norm_backward_reduce(BatchNormBackwardReduce, shape: Rows);
    batch_norm_backward_finalise(BatchNormBackwardFinalise, shape: Rows) spoils dbeta;
    residual_forward(ResidualForward, shape: Rows);
    residual_backward(ResidualBackward, shape: Rows);
}

kernels! { PoolKernels:
    max_pool_forward(MaxPoolForward, shape: &PoolShape);
    max_pool_backward(MaxPoolBackward, shape: &PoolShape);
    global_average_pool_forward(GlobalPoolForward, shape: &GlobalPoolShape);
    global_average_pool_backward(GlobalAveragePoolBackward, shape: &GlobalPoolShape);
    global_max_pool_forward(GlobalPoolForward, shape: &GlobalPoolShape);
    global_max_pool_backward(GlobalMaxPoolBackward, shape: &GlobalPoolShape);
}

kernels! { DenseKernels:
    dense_forward(DenseForward, shape: &DenseShape);
    dense_backward_data(DenseBackwardData, shape: &DenseShape);
    dense_backward_weights(DenseBackwardWeights, shape: &DenseShape) spoils db;
    relu_backward(ReluBackward);
}

kernels! { LossKernels:
    bce_forward_backward(BceForwardBackward, shape: &LossShape);
    sigmoid(Sigmoid);
}

kernels! { AdamKernels:
    squared_norm(SquaredNorm);
    adam(AdamStep, constants: &AdamConstants);
    restore(Restore);
    average(Average);
}

impl FoldedKernels for Faulty {
    type Folded = <Cpu as FoldedKernels>::Folded;

    fn folds(&self) -> bool {
        self.cpu.folds()
    }

    fn fold<R: Real>(&self, filters: Foldable<'_, R>, shape: &FoldedShape) -> Result<Self::Folded, DeviceError> {
        self.cpu.fold(filters, shape)
    }

    fn folded_forward(
        &self,
        operands: FoldedForward<'_, Self::Folded, View<'_>, ViewMut<'_>>,
        shape: &FoldedShape,
    ) -> Result<(), DeviceError> {
        self.cpu.folded_forward(operands, shape)
    }
}

impl ImageKernels for Faulty {
    fn image_forward(
        &self,
        x: ViewMut<'_>,
        pixels: &HostPixels,
        format: &PixelFormat,
        shape: &ImageShape,
    ) -> Result<(), DeviceError> {
        self.cpu.image_forward(x, pixels, format, shape)
    }
}
