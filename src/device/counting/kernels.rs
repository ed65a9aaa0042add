//! What each kernel must read and write: every operand once.

use super::{Counting, Habits, View, Why};
use crate::device::adam::{ADAM_FLOPS, SQUARED_NORM_FLOPS};
use crate::device::cuda::choose::conv::{self as choose, Aligned};
use crate::device::cuda::choose::{Target, pool as choose_pool};
use crate::device::loss::SIGMOID_FLOPS;
use crate::device::{
    AdamConstants, AdamKernels, ConvBackwardBias, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvKernels,
    ConvShape, DenseKernels, DenseShape, DeviceError, GlobalPoolShape, ImageKernels, ImageShape, InputTransform,
    LossKernels, LossShape, Memory, OutputGradient, PixelFormat, PoolKernels, PoolShape, ReduceEpilogue, Storage,
};

impl Counting {
    /// Bytes of some elements of an operand, where a kernel does not look at all of them.
    pub(super) fn part(&self, view: View, len: usize) -> u64 {
        self.bytes(View { len, ..view })
    }

    /// Bytes of the weights as convolutions read them.
    fn narrow(&self, w: View) -> u64 {
        self.bytes(View { storage: Storage::Activation, ..w })
    }

    pub(super) fn optional(&self, view: Option<View>) -> u64 {
        view.map_or(0, |view| self.bytes(view))
    }

    /// Of `norm [4, C]` the scale and the shift.
    pub(super) fn owed(&self, transform: Option<InputTransform<View>>) -> u64 {
        transform.map_or(0, |InputTransform { norm, .. }| self.part(norm, norm.len / 2))
    }

    pub(super) fn gradient(&self, dy: OutputGradient<View>) -> u64 {
        match dy {
            OutputGradient::Ready(dy) => self.bytes(dy),
            OutputGradient::Owed { dz, y, k } => [dz, y, k].map(|view| self.bytes(view)).iter().sum(),
        }
    }

    /// The kernel that a GPU chooses, and why; elsewhere there is one, of this name.
    pub(super) fn choose(
        &self,
        name: &'static str,
        choice: impl FnOnce(&Target) -> Result<(&'static str, Why), DeviceError>,
    ) -> Result<(&'static str, Option<Why>), DeviceError> {
        match &self.habits {
            Habits::Processor => Ok((name, None)),
            Habits::Gpu(target) => choice(target).map(|(kernel, why)| (kernel, Some(why))),
        }
    }

    pub(super) fn all<const N: usize>(&self, views: [View; N]) -> u64 {
        views.map(|view| self.bytes(view)).iter().sum()
    }
}

impl ConvKernels for Counting {
    fn conv_forward(&self, operands: ConvForward<View, View>, shape: &ConvShape) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvForward { y, stats, x, transform, w, bias } = operands;
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
        dz: View,
        y: View,
        k: View,
        shape: &ConvShape,
    ) -> Result<Option<Self::Buffer>, DeviceError> {
        if self.habits == Habits::Processor {
            return Ok(None);
        }
        let dy = self.allocate(shape.output_len(), Storage::Activation)?;
        let written = self.bytes(Counting::view(&dy, 0..shape.output_len()));
        self.launch("conv_form_gradient", self.all([dz, y, k]), written, 4 * shape.output_len() as u64);
        Ok(Some(dy))
    }

    fn conv_backward_data(&self, operands: ConvBackwardData<View, View>, shape: &ConvShape) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let ConvBackwardData { dx, accumulate, epilogue, dy, w } = operands;
        // Without an epilogue, pixels that no tap reaches stay as they are.
        let touched = self.part(dx, if accumulate && epilogue.is_none() { shape.seen() } else { dx.len });
        let (mut reads, mut writes) = (self.gradient(dy) + self.narrow(w), touched);
        if accumulate {
            reads += touched;
        }
        let has_epilogue = epilogue.is_some();
        if let Some(ReduceEpilogue { sums, y, norm, .. }) = epilogue {
            reads += self.bytes(y) + self.part(norm, norm.len / 4 * 3);
            writes += self.bytes(sums);
        }
        let kernel = self.choose("conv_backward_data", |target| {
            let choice = choose::backward_data(target, shape, has_epilogue, Aligned::ALL)?;
            Ok((choice.kernel.name(), Why::from(&choice)))
        })?;
        self.launch_chosen(kernel, reads, writes, shape.flops());
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

impl PoolKernels for Counting {
    fn max_pool_forward(
        &self,
        y: View,
        x: View,
        transform: Option<InputTransform<View>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        self.launch("max_pool_forward", self.bytes(x) + self.owed(transform), self.bytes(y), shape.flops());
        Ok(())
    }

    fn max_pool_backward(
        &self,
        dx: View,
        dy: View,
        x: View,
        transform: Option<InputTransform<View>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        let flops = shape.flops() + dy.len as u64;
        let kernel = self.choose("max_pool_backward", |_| {
            let choice = choose_pool::max_pool_backward(shape.window, shape.stride);
            Ok((choice.kernel.name(), Why::from(&choice)))
        })?;
        self.launch_chosen(kernel, self.all([x, dy]) + self.owed(transform), self.bytes(dx), flops);
        Ok(())
    }

    fn global_average_pool_forward(&self, y: View, x: View, _: &GlobalPoolShape) -> Result<(), DeviceError> {
        self.launch("global_average_pool_forward", self.bytes(x), self.bytes(y), x.len as u64);
        Ok(())
    }

    fn global_average_pool_backward(&self, dx: View, dy: View, _: &GlobalPoolShape) -> Result<(), DeviceError> {
        self.launch("global_average_pool_backward", self.bytes(dy), self.bytes(dx), dy.len as u64);
        Ok(())
    }

    fn global_max_pool_forward(&self, y: View, x: View, _: &GlobalPoolShape) -> Result<(), DeviceError> {
        self.launch("global_max_pool_forward", self.bytes(x), self.bytes(y), x.len as u64);
        Ok(())
    }

    fn global_max_pool_backward(&self, dx: View, dy: View, x: View, _: &GlobalPoolShape) -> Result<(), DeviceError> {
        self.launch("global_max_pool_backward", self.all([dy, x]), self.bytes(dx), x.len as u64);
        Ok(())
    }
}

impl DenseKernels for Counting {
    fn dense_forward(
        &self,
        y: View,
        x: View,
        w: View,
        b: View,
        _: bool,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        self.launch("dense_forward", self.all([x, w, b]), self.bytes(y), shape.flops());
        Ok(())
    }

    fn dense_backward_data(&self, dx: View, dz: View, w: View, shape: &DenseShape) -> Result<(), DeviceError> {
        self.launch("dense_backward_data", self.all([dz, w]), self.bytes(dx), shape.flops());
        Ok(())
    }

    fn dense_backward_weights(
        &self,
        dw: View,
        db: View,
        dz: View,
        x: View,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        self.launch("dense_backward_weights", self.all([dz, x, dw, db]), self.all([dw, db]), shape.flops());
        Ok(())
    }

    fn relu_backward(&self, dz: View, dy: View, y: View) -> Result<(), DeviceError> {
        self.launch("relu_backward", self.all([dy, y]), self.bytes(dz), 0);
        Ok(())
    }
}

impl LossKernels for Counting {
    fn bce_forward_backward(
        &self,
        loss: View,
        dlogits: View,
        logits: View,
        targets: View,
        weights: View,
        shape: &LossShape,
    ) -> Result<(), DeviceError> {
        let reads = self.all([logits, targets, weights]);
        self.launch("bce_forward_backward", reads, self.all([loss, dlogits]), shape.flops());
        Ok(())
    }

    fn sigmoid(&self, p: View, z: View) -> Result<(), DeviceError> {
        self.launch("sigmoid", self.bytes(z), self.bytes(p), SIGMOID_FLOPS * z.len as u64);
        Ok(())
    }
}

impl AdamKernels for Counting {
    fn squared_norm(&self, sum: View, x: View) -> Result<(), DeviceError> {
        self.launch("squared_norm", self.bytes(x), self.bytes(sum), SQUARED_NORM_FLOPS * x.len as u64);
        Ok(())
    }

    fn adam(
        &self,
        w: View,
        m: View,
        v: View,
        gradients: View,
        outcome: View,
        rate: View,
        _: &AdamConstants,
    ) -> Result<(), DeviceError> {
        // The copy that convolutions read is written as well, where there is one.
        let copy = if self.habits.precision().bytes() < 4 { self.narrow(w) } else { 0 };
        let moved = self.all([w, m, v]);
        let reads = moved + self.all([gradients, outcome, rate]);
        self.launch("adam", reads, moved + copy, ADAM_FLOPS * w.len as u64);
        Ok(())
    }

    fn restore(&self, _: View, _: View, outcome: View) -> Result<(), DeviceError> {
        self.launch("restore", self.bytes(outcome), 0, 0);
        Ok(())
    }
}

impl ImageKernels for Counting {
    fn image_forward(
        &self,
        x: View,
        pixels: &Self::Pixels,
        _: &PixelFormat,
        shape: &ImageShape,
    ) -> Result<(), DeviceError> {
        self.launch("image_forward", pixels.len as u64, self.bytes(x), shape.flops());
        Ok(())
    }
}
