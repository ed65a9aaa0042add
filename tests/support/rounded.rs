//! An oracle for narrow numbers: the processor, with everything rounded that the CUDA device rounds in a precision.
//!
//! Rounding to bfloat16 alone moves the loss of a freshly drawn ResNet-50 by several percent, so a comparison with plain `f32` could
//! not tell a wrong kernel from a right one. Against this device what is left are sums in another order, and now and then
//! a number that such a sum rounds the other way.

use onesheet::device::cpu::Cpu;
use onesheet::device::cuda::Precision;
use onesheet::device::image::HostPixels;
use onesheet::device::*;
use std::cell::Cell;
use std::ops::Range;

/// The processor computing as CUDA does in a precision.
pub struct Rounded {
    pub inner: Cpu,
    pub precision: Precision,
    /// Whether numbers come back as late as they may: whoever can go on without them must.
    pub late: bool,
    /// A kernel that finds the gradients of a layer's parameters, and how many calls of it go well before one leaves a NaN.
    pub spoilt: Cell<Option<(&'static str, usize)>>,
}

/// A buffer that knows what it holds.
pub struct Buffer {
    inner: <Cpu as Memory>::Buffer,
    storage: Storage,
}

#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
}

pub struct ViewMut<'a> {
    data: &'a mut [f32],
    storage: Storage,
}

impl Elements for View<'_> {
    fn count(&self) -> usize {
        self.data.len()
    }
}

impl Elements for ViewMut<'_> {
    fn count(&self) -> usize {
        self.data.len()
    }
}

impl Rounded {
    /// What an activation keeps of a number.
    fn stored(&self, x: f32) -> f32 {
        if self.precision == Precision::Bf16 { half::bf16::from_f32(x).to_f32() } else { x }
    }

    /// What a convolution's product keeps of a factor: everything on CUDA cores, which take what tensor cores can't.
    fn factor(&self, x: f32, shape: &ConvShape) -> f32 {
        let lane = if self.precision == Precision::Bf16 { 8 } else { 4 };
        let stem = shape.c == 3 && shape.r == 7 && shape.k.is_multiple_of(8);
        let tensor_cores = stem || shape.c.is_multiple_of(lane) && shape.k.is_multiple_of(lane);
        match self.precision {
            Precision::F32 => x,
            _ if !tensor_cores => x,
            Precision::Tf32 => tf32(x),
            Precision::Bf16 => half::bf16::from_f32(x).to_f32(),
        }
    }

    /// What a dense layer's product keeps of one.
    fn dense_factor(&self, x: f32) -> f32 {
        if self.precision == Precision::F32 { x } else { tf32(x) }
    }

    /// Puts a NaN into what a kernel found, if it is the one to spoil and its time has come.
    fn spoil(&self, kernel: &str, gradient: &mut [f32]) {
        match self.spoilt.get() {
            Some((name, 0)) if name == kernel => {
                gradient[0] = f32::NAN;
                self.spoilt.set(None);
            }
            Some((name, calls)) if name == kernel => self.spoilt.set(Some((name, calls - 1))),
            _ => {}
        }
    }

    fn store(&self, values: &mut [f32]) {
        values.iter_mut().for_each(|x| *x = self.stored(*x));
    }

    fn factors(&self, values: &[f32], shape: &ConvShape) -> Vec<f32> {
        values.iter().map(|&x| self.factor(x, shape)).collect()
    }

    fn dense_factors(&self, values: &[f32]) -> Vec<f32> {
        values.iter().map(|&x| self.dense_factor(x)).collect()
    }

    /// The convolution's input as its products see it.
    fn input(&self, x: &[f32], transform: Option<InputTransform<View<'_>>>, shape: &ConvShape) -> Vec<f32> {
        let Some(InputTransform { norm, activation }) = transform else { return self.factors(x, shape) };
        let mut paid = vec![0.0; x.len()];
        let rows = Rows { rows: x.len() / shape.c, channels: shape.c };
        let operands = BatchNormApply { a: &mut paid[..], y: x, norm: norm.data, activation };
        self.inner.batch_norm_apply(operands, rows).unwrap();
        self.factors(&paid, shape)
    }

    /// The output's gradient as it is formed and stored.
    fn gradient(&self, dy: OutputGradient<View<'_>>, filters: usize) -> Vec<f32> {
        match dy {
            OutputGradient::Ready(dy) => dy.data.to_vec(),
            OutputGradient::Owed { dz, y, k } => {
                let form = |i: usize| {
                    let c = i % filters;
                    k.data[c] * dz.data[i] + (k.data[filters + c] * y.data[i] + k.data[2 * filters + c])
                };
                (0..dz.data.len()).map(|i| self.stored(form(i))).collect()
            }
        }
    }
}

/// Ten bits of mantissa, ties away from zero.
fn tf32(x: f32) -> f32 {
    if x.is_finite() { f32::from_bits((x.to_bits() + 0x1000) & !0x1fff) } else { x }
}

impl Memory for Rounded {
    type Real = f32;
    type Buffer = Buffer;
    type View<'a> = View<'a>;
    type ViewMut<'a> = ViewMut<'a>;
    type Arriving = Vec<f32>;
    type Pixels = HostPixels;
    type Plan = ();

    fn name(&self) -> String {
        format!("{} rounding as {:?} does", self.inner.name(), self.precision)
    }

    fn allocate(&self, len: usize, storage: Storage) -> Result<Buffer, DeviceError> {
        Ok(Buffer { inner: self.inner.allocate(len, storage)?, storage })
    }

    fn view(buffer: &Buffer, range: Range<usize>) -> View<'_> {
        View { data: Cpu::view(&buffer.inner, range) }
    }

    fn view_mut(buffer: &mut Buffer, range: Range<usize>) -> ViewMut<'_> {
        ViewMut { data: Cpu::view_mut(&mut buffer.inner, range), storage: buffer.storage }
    }

    fn split_mut<'a>(view: ViewMut<'a>, at: usize) -> (ViewMut<'a>, ViewMut<'a>)
    where
        Self: 'a,
    {
        let ViewMut { data, storage } = view;
        let (first, second) = data.split_at_mut(at);
        (ViewMut { data: first, storage }, ViewMut { data: second, storage })
    }

    fn upload(&self, to: ViewMut<'_>, from: &[f32]) -> Result<(), DeviceError> {
        self.inner.upload(to.data, from)?;
        if to.storage == Storage::Activation {
            self.store(to.data);
        }
        Ok(())
    }

    fn download(&self, from: View<'_>) -> Result<Vec<f32>, DeviceError> {
        self.inner.download(from.data)
    }

    fn fetch(&self, from: View<'_>) -> Result<Vec<f32>, DeviceError> {
        self.inner.fetch(from.data)
    }

    fn is_here(&self, _: &Vec<f32>) -> bool {
        !self.late
    }

    fn receive(&self, arriving: Vec<f32>) -> Result<Vec<f32>, DeviceError> {
        self.inner.receive(arriving)
    }

    fn upload_pixels(&self, pixels: &[u8], placements: &[Placement]) -> Result<HostPixels, DeviceError> {
        self.inner.upload_pixels(pixels, placements)
    }

    fn copy_pixels(&self, to: &mut HostPixels, from: HostPixels) -> Result<(), DeviceError> {
        self.inner.copy_pixels(to, from)
    }

    fn repeat<E: From<DeviceError>>(&self, (): &mut (), work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        work()
    }

    fn fill(&self, to: ViewMut<'_>, value: f32) -> Result<(), DeviceError> {
        self.inner.fill(to.data, value)
    }

    fn copy(&self, to: ViewMut<'_>, from: View<'_>) -> Result<(), DeviceError> {
        self.inner.copy(to.data, from.data)
    }

    fn add(&self, to: ViewMut<'_>, from: View<'_>) -> Result<(), DeviceError> {
        self.inner.add(to.data, from.data)?;
        if to.storage == Storage::Activation {
            self.store(to.data);
        }
        Ok(())
    }
}

impl ConvKernels for Rounded {
    fn conv_forward(&self, operands: ConvForward<View<'_>, ViewMut<'_>>, shape: &ConvShape) -> Result<(), DeviceError> {
        let ConvForward { y, stats, x, transform, w, bias } = operands;
        let (x, w) = (self.input(x.data, transform, shape), self.factors(w.data, shape));
        self.inner.conv_forward(
            ConvForward { y: y.data, stats: None, x: &x, transform: None, w: &w, bias: bias.map(|bias| bias.data) },
            shape,
        )?;
        self.store(y.data);
        if let Some(stats) = stats {
            let pixels = (y.data.len() / shape.k) as f64;
            for k in 0..shape.k {
                let channel = || y.data.iter().skip(k).step_by(shape.k).map(|&y| f64::from(y));
                let mean = channel().sum::<f64>() / pixels;
                stats.data[k] = mean as f32;
                stats.data[shape.k + k] = (channel().map(|y| (y - mean).powi(2)).sum::<f64>() / pixels) as f32;
            }
        }
        Ok(())
    }

    fn conv_backward_data(
        &self,
        operands: ConvBackwardData<View<'_>, ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        let ConvBackwardData { dx, accumulate, epilogue, dy, w } = operands;
        let (dy, w) = (self.factors(&self.gradient(dy, shape.k), shape), self.factors(w.data, shape));
        self.inner.conv_backward_data(
            ConvBackwardData { dx: dx.data, accumulate, epilogue: None, dy: OutputGradient::Ready(&dy), w: &w },
            shape,
        )?;
        self.store(dx.data);
        if let Some(ReduceEpilogue { sums, y, norm, activation }) = epilogue {
            let (da, rows) = (dx.data.to_vec(), Rows { rows: dx.data.len() / shape.c, channels: shape.c });
            let (sums, y, norm) = (sums.data, y.data, norm.data);
            let operands = BatchNormBackwardReduce { dz: dx.data, sums, da: &da[..], y, norm, activation };
            self.inner.batch_norm_backward_reduce(operands, rows)?;
        }
        Ok(())
    }

    fn conv_backward_weights(
        &self,
        operands: ConvBackwardWeights<View<'_>, ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        let ConvBackwardWeights { dw, dy, x, transform } = operands;
        let (dy, x) = (self.factors(&self.gradient(dy, shape.k), shape), self.input(x.data, transform, shape));
        self.inner.conv_backward_weights(
            ConvBackwardWeights { dw: dw.data, dy: OutputGradient::Ready(&dy), x: &x, transform: None },
            shape,
        )?;
        self.spoil("conv_backward_weights", dw.data);
        Ok(())
    }

    fn conv_backward_bias(
        &self,
        operands: ConvBackwardBias<View<'_>, ViewMut<'_>>,
        shape: &ConvShape,
    ) -> Result<(), DeviceError> {
        let ConvBackwardBias { dbias, dy } = operands;
        let dy = self.gradient(dy, shape.k);
        self.inner.conv_backward_bias(ConvBackwardBias { dbias: dbias.data, dy: OutputGradient::Ready(&dy) }, shape)
    }
}

impl DepthwiseKernels for Rounded {
    fn depthwise_forward(
        &self,
        operands: DepthwiseForward<View<'_>, ViewMut<'_>>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        let DepthwiseForward { y, stats, x, transform, w } = operands;
        let transform = transform.map(|transform| transform.map(|norm| norm.data));
        // Products are of f32, on CUDA cores.
        let operands = DepthwiseForward { y: &mut *y.data, stats: None, x: x.data, transform, w: w.data };
        self.inner.depthwise_forward(operands, shape)?;
        self.store(y.data);
        match stats {
            Some(stats) => {
                let rows = Rows { rows: y.data.len() / shape.c, channels: shape.c };
                let operands = BatchNormStatistics { stats: stats.data, y: &*y.data };
                self.inner.batch_norm_statistics(operands, rows)
            }
            None => Ok(()),
        }
    }

    fn depthwise_backward_data(
        &self,
        operands: DepthwiseBackwardData<View<'_>, ViewMut<'_>>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        let DepthwiseBackwardData { dx, accumulate, epilogue, dy, w } = operands;
        let dy = dy.map(|view| view.data);
        let operands = DepthwiseBackwardData { dx: &mut *dx.data, accumulate, epilogue: None, dy, w: w.data };
        self.inner.depthwise_backward_data(operands, shape)?;
        self.store(dx.data);
        if let Some(ReduceEpilogue { sums, y, norm, activation }) = epilogue {
            let (da, rows) = (dx.data.to_vec(), Rows { rows: dx.data.len() / shape.c, channels: shape.c });
            let (sums, y, norm) = (sums.data, y.data, norm.data);
            let operands = BatchNormBackwardReduce { dz: dx.data, sums, da: &da[..], y, norm, activation };
            self.inner.batch_norm_backward_reduce(operands, rows)?;
        }
        Ok(())
    }

    fn depthwise_backward_weights(
        &self,
        operands: DepthwiseBackwardWeights<View<'_>, ViewMut<'_>>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        let DepthwiseBackwardWeights { dw, dy, x, transform } = operands;
        let transform = transform.map(|transform| transform.map(|norm| norm.data));
        let dy = dy.map(|view| view.data);
        let operands = DepthwiseBackwardWeights { dw: &mut *dw.data, dy, x: x.data, transform };
        self.inner.depthwise_backward_weights(operands, shape)?;
        self.spoil("depthwise_backward_weights", dw.data);
        Ok(())
    }
}

impl BatchNormKernels for Rounded {
    fn batch_norm_finalise(
        &self,
        operands: BatchNormFinalise<View<'_>, ViewMut<'_>>,
        channels: usize,
        constants: BatchNormConstants,
    ) -> Result<(), DeviceError> {
        let BatchNormFinalise { norm, running_mean, running_variance, stats, gamma, beta, bias } = operands;
        let operands = BatchNormFinalise {
            norm: norm.data,
            running_mean: running_mean.data,
            running_variance: running_variance.data,
            stats: stats.data,
            gamma: gamma.data,
            beta: beta.data,
            bias: bias.map(|bias| bias.data),
        };
        self.inner.batch_norm_finalise(operands, channels, constants)
    }

    fn batch_norm_fold(
        &self,
        operands: BatchNormFold<View<'_>, ViewMut<'_>>,
        channels: usize,
        epsilon: f64,
    ) -> Result<(), DeviceError> {
        let BatchNormFold { norm, running_mean, running_variance, gamma, beta, bias } = operands;
        let operands = BatchNormFold {
            norm: norm.data,
            running_mean: running_mean.data,
            running_variance: running_variance.data,
            gamma: gamma.data,
            beta: beta.data,
            bias: bias.map(|bias| bias.data),
        };
        self.inner.batch_norm_fold(operands, channels, epsilon)
    }

    fn batch_norm_statistics(
        &self,
        operands: BatchNormStatistics<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        let BatchNormStatistics { stats, y } = operands;
        self.inner.batch_norm_statistics(BatchNormStatistics { stats: stats.data, y: y.data }, shape)
    }

    fn batch_norm_apply(
        &self,
        operands: BatchNormApply<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        let BatchNormApply { a, y, norm, activation } = operands;
        let operands = BatchNormApply { a: &mut *a.data, y: y.data, norm: norm.data, activation };
        self.inner.batch_norm_apply(operands, shape)?;
        self.store(a.data);
        Ok(())
    }

    fn batch_norm_backward_reduce(
        &self,
        operands: BatchNormBackwardReduce<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        let BatchNormBackwardReduce { dz, sums, da, y, norm, activation } = operands;
        let (dz, sums, da, y, norm) = (dz.data, sums.data, da.data, y.data, norm.data);
        self.inner.batch_norm_backward_reduce(BatchNormBackwardReduce { dz, sums, da, y, norm, activation }, shape)
    }

    fn batch_norm_backward_finalise(
        &self,
        operands: BatchNormBackwardFinalise<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        let BatchNormBackwardFinalise { k, dgamma, dbeta, sums, gamma, norm } = operands;
        let operands = BatchNormBackwardFinalise {
            k: k.data,
            dgamma: dgamma.data,
            dbeta: &mut *dbeta.data,
            sums: sums.data,
            gamma: gamma.data,
            norm: norm.data,
        };
        self.inner.batch_norm_backward_finalise(operands, shape)?;
        self.spoil("batch_norm_backward_finalise", dbeta.data);
        Ok(())
    }

    fn residual_forward(
        &self,
        operands: ResidualForward<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        let ResidualForward { out, y, norm, shortcut, shortcut_norm } = operands;
        let operands = ResidualForward {
            out: &mut *out.data,
            y: y.data,
            norm: norm.data,
            shortcut: shortcut.data,
            shortcut_norm: shortcut_norm.map(|norm| norm.data),
        };
        self.inner.residual_forward(operands, shape)?;
        self.store(out.data);
        Ok(())
    }

    fn residual_backward(
        &self,
        operands: ResidualBackward<View<'_>, ViewMut<'_>>,
        shape: Rows,
    ) -> Result<(), DeviceError> {
        let ResidualBackward { dz, sums, dout, out, y, norm, projection } = operands;
        let projection =
            projection.map(|Projection { sums, y, norm }| Projection { sums: sums.data, y: y.data, norm: norm.data });
        let (dz, sums, dout, out, y, norm) = (dz.data, sums.data, dout.data, out.data, y.data, norm.data);
        self.inner.residual_backward(ResidualBackward { dz, sums, dout, out, y, norm, projection }, shape)
    }
}

impl PoolKernels for Rounded {
    fn max_pool_forward(
        &self,
        operands: MaxPoolForward<View<'_>, ViewMut<'_>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        let MaxPoolForward { y, x, transform } = operands;
        let transform = transform.map(|transform| transform.map(|norm| norm.data));
        self.inner.max_pool_forward(MaxPoolForward { y: &mut *y.data, x: x.data, transform }, shape)?;
        self.store(y.data);
        Ok(())
    }

    fn max_pool_backward(
        &self,
        operands: MaxPoolBackward<View<'_>, ViewMut<'_>>,
        shape: &PoolShape,
    ) -> Result<(), DeviceError> {
        let MaxPoolBackward { dx, dy, x, transform } = operands;
        let transform = transform.map(|transform| transform.map(|norm| norm.data));
        let operands = MaxPoolBackward { dx: &mut *dx.data, dy: dy.data, x: x.data, transform };
        self.inner.max_pool_backward(operands, shape)?;
        self.store(dx.data);
        Ok(())
    }

    fn global_average_pool_forward(
        &self,
        GlobalPoolForward { y, x }: GlobalPoolForward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        self.inner.global_average_pool_forward(GlobalPoolForward { y: y.data, x: x.data }, shape)
    }

    fn global_average_pool_backward(
        &self,
        GlobalAveragePoolBackward { dx, dy }: GlobalAveragePoolBackward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        let operands = GlobalAveragePoolBackward { dx: &mut *dx.data, dy: dy.data };
        self.inner.global_average_pool_backward(operands, shape)?;
        self.store(dx.data);
        Ok(())
    }

    fn global_max_pool_forward(
        &self,
        GlobalPoolForward { y, x }: GlobalPoolForward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        self.inner.global_max_pool_forward(GlobalPoolForward { y: y.data, x: x.data }, shape)
    }

    fn global_max_pool_backward(
        &self,
        GlobalMaxPoolBackward { dx, dy, x }: GlobalMaxPoolBackward<View<'_>, ViewMut<'_>>,
        shape: &GlobalPoolShape,
    ) -> Result<(), DeviceError> {
        let operands = GlobalMaxPoolBackward { dx: &mut *dx.data, dy: dy.data, x: x.data };
        self.inner.global_max_pool_backward(operands, shape)?;
        self.store(dx.data);
        Ok(())
    }
}

impl DenseKernels for Rounded {
    fn dense_forward(
        &self,
        DenseForward { y, relu, x, w, b }: DenseForward<View<'_>, ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        let (x, w) = (self.dense_factors(x.data), self.dense_factors(w.data));
        self.inner.dense_forward(DenseForward { y: y.data, relu, x: &x[..], w: &w, b: b.data }, shape)
    }

    fn dense_backward_data(
        &self,
        DenseBackwardData { dx, dz, w }: DenseBackwardData<View<'_>, ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        let (dz, w) = (self.dense_factors(dz.data), self.dense_factors(w.data));
        self.inner.dense_backward_data(DenseBackwardData { dx: dx.data, dz: &dz[..], w: &w }, shape)
    }

    fn dense_backward_weights(
        &self,
        DenseBackwardWeights { dw, db, dz, x }: DenseBackwardWeights<View<'_>, ViewMut<'_>>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        let (dz, x) = (self.dense_factors(dz.data), self.dense_factors(x.data));
        let operands = DenseBackwardWeights { dw: dw.data, db: &mut *db.data, dz: &dz[..], x: &x };
        self.inner.dense_backward_weights(operands, shape)?;
        self.spoil("dense_backward_weights", db.data);
        Ok(())
    }

    fn relu_backward(
        &self,
        ReluBackward { dz, dy, y }: ReluBackward<View<'_>, ViewMut<'_>>,
    ) -> Result<(), DeviceError> {
        self.inner.relu_backward(ReluBackward { dz: dz.data, dy: dy.data, y: y.data })
    }
}

impl LossKernels for Rounded {
    fn bce_forward_backward(
        &self,
        operands: BceForwardBackward<View<'_>, ViewMut<'_>>,
        shape: &LossShape,
    ) -> Result<(), DeviceError> {
        let operands = BceForwardBackward {
            loss: operands.loss.data,
            dlogits: operands.dlogits.data,
            logits: operands.logits.data,
            targets: operands.targets.data,
            weights: operands.weights.data,
        };
        self.inner.bce_forward_backward(operands, shape)
    }

    fn sigmoid(&self, Sigmoid { p, z }: Sigmoid<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        self.inner.sigmoid(Sigmoid { p: p.data, z: z.data })
    }
}

impl AdamKernels for Rounded {
    fn squared_norm(&self, SquaredNorm { sum, x }: SquaredNorm<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        self.inner.squared_norm(SquaredNorm { sum: sum.data, x: x.data })
    }

    fn adam(&self, operands: AdamStep<View<'_>, ViewMut<'_>>, constants: &AdamConstants) -> Result<(), DeviceError> {
        let operands = AdamStep {
            w: operands.w.data,
            m: operands.m.data,
            v: operands.v.data,
            gradients: operands.gradients.data,
            outcome: operands.outcome.data,
            rate: operands.rate.data,
        };
        self.inner.adam(operands, constants)
    }

    fn restore(&self, Restore { to, from, outcome }: Restore<View<'_>, ViewMut<'_>>) -> Result<(), DeviceError> {
        self.inner.restore(Restore { to: to.data, from: from.data, outcome: outcome.data })
    }
}

impl ImageKernels for Rounded {
    fn image_forward(
        &self,
        x: ViewMut<'_>,
        pixels: &HostPixels,
        format: &PixelFormat,
        shape: &ImageShape,
    ) -> Result<(), DeviceError> {
        self.inner.image_forward(x.data, pixels, format, shape)?;
        self.store(x.data);
        Ok(())
    }
}
