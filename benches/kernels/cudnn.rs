//! cuDNN's plain convolutions, on the same numbers and timed in the same way.

use super::convolutions::{Operands, Pass};
use super::report::Report;
use super::time;
use anyhow::{Context, ensure};
use cudarc::cudnn::sys::{
    self, cudnnConvolutionMode_t as Mode, cudnnMathType_t as Math, cudnnTensorFormat_t as Format,
};
use cudarc::cudnn::{ConvBackwardData, ConvBackwardFilter, ConvForward, Cudnn, CudnnDataType, CudnnError};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaStream, DeviceRepr, ValidAsZeroBits};
use onesheet::device::ConvShape;
use onesheet::device::cuda::Precision;
use std::sync::Arc;
use std::time::Instant;

/// The versions whose status codes cudarc's enumerations hold; any other's could be read as none of them.
const VERSIONS: std::ops::Range<usize> = 90_000..100_000;

/// cuDNN on a stream of its own.
pub struct Peer {
    cudnn: Arc<Cudnn>,
    stream: Arc<CudaStream>,
    precision: Precision,
}

/// What cuDNN stores.
trait Scalar: CudnnDataType + DeviceRepr + ValidAsZeroBits + Copy {
    /// The nearest to `x`.
    fn narrow(x: f32) -> Self;
    /// Its value.
    fn widen(self) -> f32;
}

impl Scalar for f32 {
    fn narrow(x: f32) -> Self {
        x
    }

    fn widen(self) -> f32 {
        self
    }
}

impl Scalar for half::bf16 {
    fn narrow(x: f32) -> Self {
        half::bf16::from_f32(x)
    }

    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// cuDNN, if it is here; if not, says so. The simulated GPU has none.
pub fn open(report: &Report) -> Option<Peer> {
    if report.is_simulated() {
        return None;
    }
    let peer = Peer::new(report.device().precision());
    match &peer {
        Ok(_) => eprintln!("beside cuDNN {}", cudarc::cudnn::result::get_version()),
        Err(error) => eprintln!("cuDNN NOT COMPARED: {error:#}"),
    }
    peer.ok()
}

impl Peer {
    fn new(precision: Precision) -> anyhow::Result<Self> {
        // SAFETY: asks only whether the library can be opened.
        let present = unsafe { sys::is_culib_present() };
        ensure!(present, "neither libcudnn.so nor libcudnn.so.9 was found; name its folder in LD_LIBRARY_PATH");
        let version = cudarc::cudnn::result::get_version();
        ensure!(VERSIONS.contains(&version), "the libcudnn found is version {version}, and 9 is wanted");
        let context = CudaContext::new(0)?;
        // SAFETY: everything here runs on one stream.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream()?;
        let cudnn =
            Cudnn::new(Arc::clone(&stream)).map_err(|error| anyhow::anyhow!("cuDNN does not start: {:?}", error.0))?;
        Ok(Peer { cudnn, stream, precision })
    }

    /// Holds our answer to cuDNN's; then cuDNN's milliseconds.
    ///
    /// # Errors
    /// cuDNN's, and where the two answers differ by more than their precision explains.
    pub fn compare(&self, pass: Pass, shape: &ConvShape, operands: &Operands, ours: &[f32]) -> anyhow::Result<f64> {
        let (theirs, ms) = match self.precision {
            Precision::Bf16 => self.run::<half::bf16>(pass, shape, operands)?,
            Precision::F32 | Precision::Tf32 => self.run::<f32>(pass, shape, operands)?,
        };
        let square = |x: f32| f64::from(x) * f64::from(x);
        let difference: f64 = ours.iter().zip(&theirs).map(|(&ours, &theirs)| square(ours - theirs)).sum();
        let size: f64 = theirs.iter().map(|&theirs| square(theirs)).sum();
        let (off, tolerance) = (
            (difference / size).sqrt(),
            match self.precision {
                Precision::Bf16 => 1e-2,
                Precision::Tf32 => 2e-3,
                Precision::F32 => 1e-4,
            },
        );
        let agree = ours.len() == theirs.len() && off <= tolerance;
        ensure!(agree, "{pass:?} of {shape:?} is off cuDNN's by {off:e} of its norm, tolerance {tolerance:e}");
        Ok(ms)
    }

    fn run<T: Scalar>(&self, pass: Pass, shape: &ConvShape, operands: &Operands) -> anyhow::Result<(Vec<f32>, f64)> {
        self.convolve::<T>(pass, shape, operands).with_context(|| format!("cuDNN's {pass:?} of {shape:?}"))
    }

    fn convolve<T: Scalar>(
        &self,
        pass: Pass,
        shape: &ConvShape,
        operands: &Operands,
    ) -> anyhow::Result<(Vec<f32>, f64)> {
        let failed = |error: CudnnError| anyhow::anyhow!("{error:?}");
        let [n, h, w, c, k, r, s, p, q, stride, pad] =
            [shape.n, shape.h, shape.w, shape.c, shape.k, shape.r, shape.s, shape.p, shape.q, shape.stride, shape.pad]
                .map(|extent| extent as i32);
        let (cudnn, stream) = (&self.cudnn, &self.stream);
        let mut conv =
            cudnn.create_conv2d::<f32>([pad; 2], [stride; 2], [1; 2], Mode::CUDNN_CROSS_CORRELATION).map_err(failed)?;
        let math = match self.precision {
            Precision::F32 => Math::CUDNN_FMA_MATH,
            // Of f32 tensors, the default is TF32.
            Precision::Tf32 => Math::CUDNN_DEFAULT_MATH,
            Precision::Bf16 => Math::CUDNN_TENSOR_OP_MATH,
        };
        conv.set_math_type(math).map_err(failed)?;
        // The extents are in the order N C H W whatever the layout.
        let nhwc = Format::CUDNN_TENSOR_NHWC;
        let x_like = cudnn.create_4d_tensor::<T>(nhwc, [n, c, h, w]).map_err(failed)?;
        let y_like = cudnn.create_4d_tensor::<T>(nhwc, [n, k, p, q]).map_err(failed)?;
        let w_like = cudnn.create_4d_filter::<T>(nhwc, [k, c, r, s]).map_err(failed)?;

        let upload = |values: &[f32]| stream.clone_htod(&values.iter().map(|&x| T::narrow(x)).collect::<Vec<T>>());
        let (mut x, mut w, mut y) = (upload(&operands.x)?, upload(&operands.w)?, upload(&operands.dy)?);
        let scales = (T::narrow(1.0), T::narrow(0.0));
        let (answer, ms) = match pass {
            Pass::Forward => {
                let product = ConvForward { conv: &conv, x: &x_like, w: &w_like, y: &y_like };
                let algorithm = product.pick_algorithm().map_err(failed)?;
                let mut workspace =
                    stream.alloc_zeros::<u8>(product.get_workspace_size(algorithm).map_err(failed)?.max(1))?;
                // SAFETY: the operands are as described.
                let launch = || unsafe { product.launch(algorithm, Some(&mut workspace), scales, &x, &w, &mut y) };
                let ms = self.time(launch)?;
                (y, ms)
            }
            Pass::BackwardData => {
                let product = ConvBackwardData { conv: &conv, dx: &x_like, w: &w_like, dy: &y_like };
                let algorithm = product.pick_algorithm().map_err(failed)?;
                let mut workspace =
                    stream.alloc_zeros::<u8>(product.get_workspace_size(algorithm).map_err(failed)?.max(1))?;
                // SAFETY: the operands are as described.
                let launch = || unsafe { product.launch(algorithm, Some(&mut workspace), scales, &mut x, &w, &y) };
                let ms = self.time(launch)?;
                (x, ms)
            }
            Pass::BackwardWeights => {
                let product = ConvBackwardFilter { conv: &conv, x: &x_like, dw: &w_like, dy: &y_like };
                let algorithm = product.pick_algorithm().map_err(failed)?;
                let mut workspace =
                    stream.alloc_zeros::<u8>(product.get_workspace_size(algorithm).map_err(failed)?.max(1))?;
                // SAFETY: the operands are as described.
                let launch = || unsafe { product.launch(algorithm, Some(&mut workspace), scales, &x, &mut w, &y) };
                let ms = self.time(launch)?;
                (w, ms)
            }
        };
        Ok((stream.clone_dtoh(&answer)?.into_iter().map(T::widen).collect(), ms))
    }

    /// Milliseconds of a launch, as [`time::of`] takes them of ours.
    fn time(&self, mut launch: impl FnMut() -> Result<(), CudnnError>) -> anyhow::Result<f64> {
        let failed = |error: CudnnError| anyhow::anyhow!("{error:?}");
        launch().map_err(failed)?;
        self.stream.synchronize()?;
        let start = Instant::now();
        launch().map_err(failed)?;
        self.stream.synchronize()?;
        let launches = time::launches(start.elapsed());
        self.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED)?;
        let launched = (0..launches).try_for_each(|_| launch());
        let graph = self.stream.end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        // What cuDNN says comes before what the capture makes of it.
        launched.map_err(failed)?;
        let graph = graph?.context("cuDNN launched nothing")?;
        time::fastest(launches, || {
            graph.launch()?;
            Ok(self.stream.synchronize()?)
        })
    }
}
