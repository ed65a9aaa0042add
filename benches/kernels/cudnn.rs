//! cuDNN's plain convolutions, on the same numbers and by the same clock.
//!
//! Its figure for a pass is that of the fastest of its algorithms, every one of them tried: floating-point atomics and all,
//! with whatever workspace they want. They are those of the convolution calls that cudarc binds; cuDNN's graph API, which
//! PyTorch calls, shows in the bench `step`.

use super::convolutions::{Operands, Pass};
use super::report::{self, Report};
use super::time;
use anyhow::{Context, ensure};
use cudarc::cudnn::sys::{
    self, cudnnConvolutionBwdDataAlgo_t as DataAlgorithm, cudnnConvolutionBwdFilterAlgo_t as FilterAlgorithm,
    cudnnConvolutionFwdAlgo_t as ForwardAlgorithm, cudnnConvolutionMode_t as Mode, cudnnMathType_t as Math,
    cudnnTensorFormat_t as Format,
};
use cudarc::cudnn::{ConvBackwardData, ConvBackwardFilter, ConvForward, Cudnn, CudnnDataType, CudnnError};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DeviceRepr, ValidAsZeroBits};
use onesheet::device::ConvShape;
use onesheet::device::cuda::Precision;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

/// The versions whose status codes cudarc's enumerations hold; any other's could be read as none of them.
const VERSIONS: std::ops::Range<usize> = 90_000..100_000;

/// Status codes for what is not supported.
const NOT_SUPPORTED: std::ops::Range<u32> = 3000..4000;

const FORWARD: [ForwardAlgorithm; 8] = [
    ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
    ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
    ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_GEMM,
    ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_DIRECT,
    ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_FFT,
    ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING,
    ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD,
    ForwardAlgorithm::CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED,
];
const BACKWARD_DATA: [DataAlgorithm; 6] = [
    DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0,
    DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
    DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT,
    DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT_TILING,
    DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD,
    DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED,
];
/// All but Winograd's fused one, which cuDNN names and has not.
const BACKWARD_WEIGHTS: [FilterAlgorithm; 6] = [
    FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
    FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
    FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT,
    FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3,
    FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED,
    FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING,
];

/// cuDNN on a stream of its own.
pub struct Peer {
    cudnn: Arc<Cudnn>,
    stream: Arc<CudaStream>,
    precision: Precision,
}

/// What came of cuDNN's algorithms.
#[derive(Default)]
struct Attempts {
    /// The fastest that agrees with us.
    fastest: Option<report::Peer>,
    /// Why others do not count, each by name. What is not made for the shape is not here.
    left_out: Vec<String>,
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

/// The largest difference of an element, as a part of its own size and the root mean square of all. No number where either
/// has none, and where the lengths differ.
fn difference(ours: &[f32], theirs: &[f32]) -> f64 {
    if ours.len() != theirs.len() {
        return f64::NAN;
    }
    let square: f64 = theirs.iter().map(|&theirs| f64::from(theirs) * f64::from(theirs)).sum();
    let size = (square / theirs.len() as f64).sqrt();
    let part =
        |(&ours, &theirs): (&f32, &f32)| (f64::from(ours) - f64::from(theirs)).abs() / (f64::from(theirs).abs() + size);
    // `f64::max` would pass over what is no number.
    ours.iter().zip(theirs).map(part).fold(0.0, |most, part| if part <= most || most.is_nan() { most } else { part })
}

fn failed(error: CudnnError) -> anyhow::Error {
    anyhow::anyhow!("{:?}", error.0)
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
        let cudnn = Cudnn::new(Arc::clone(&stream)).map_err(failed).context("cuDNN does not start")?;
        Ok(Peer { cudnn, stream, precision })
    }

    /// Holds our answer to those of cuDNN's algorithms, and times each that agrees. Says of every other what it failed of, or
    /// by how much more the two answers differ than their precision explains.
    ///
    /// # Errors
    /// Where none agrees.
    pub fn compare(
        &self,
        pass: Pass,
        shape: &ConvShape,
        operands: &Operands,
        ours: &[f32],
    ) -> anyhow::Result<report::Peer> {
        let Attempts { fastest, left_out } = match self.precision {
            Precision::Bf16 => self.convolve::<half::bf16>(pass, shape, operands, ours)?,
            Precision::F32 | Precision::Tf32 => self.convolve::<f32>(pass, shape, operands, ours)?,
        };
        for reason in left_out {
            eprintln!("{pass:?} of {shape:?}: {reason}");
        }
        fastest.context("none of its algorithms comes to our answer")
    }

    /// What two right answers may differ by: as both round to bfloat16, by its last place, 1/128.
    fn tolerance(&self) -> f64 {
        match self.precision {
            Precision::Bf16 => 1.6e-2,
            Precision::Tf32 => 4e-3,
            Precision::F32 => 4e-4,
        }
    }

    fn convolve<T: Scalar>(
        &self,
        pass: Pass,
        shape: &ConvShape,
        operands: &Operands,
        ours: &[f32],
    ) -> anyhow::Result<Attempts> {
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
        let (x, w, dy) = (upload(&operands.x)?, upload(&operands.w)?, upload(&operands.dy)?);
        let mut result = stream.alloc_zeros::<T>(ours.len())?;
        let scales = (T::narrow(1.0), T::narrow(0.0));
        match pass {
            Pass::Forward => {
                let product = ConvForward { conv: &conv, x: &x_like, w: &w_like, y: &y_like };
                let size = |algorithm| product.get_workspace_size(algorithm);
                // SAFETY: the operands are as described, and the workspace as large as was asked for.
                Ok(self.fastest(&FORWARD, ours, &mut result, size, |algorithm, workspace, y| unsafe {
                    product.launch(algorithm, Some(workspace), scales, &x, &w, y)
                }))
            }
            Pass::BackwardData => {
                let product = ConvBackwardData { conv: &conv, dx: &x_like, w: &w_like, dy: &y_like };
                let size = |algorithm| product.get_workspace_size(algorithm);
                // SAFETY: the operands are as described, and the workspace as large as was asked for.
                Ok(self.fastest(&BACKWARD_DATA, ours, &mut result, size, |algorithm, workspace, dx| unsafe {
                    product.launch(algorithm, Some(workspace), scales, dx, &w, &dy)
                }))
            }
            Pass::BackwardWeights => {
                let product = ConvBackwardFilter { conv: &conv, x: &x_like, dw: &w_like, dy: &y_like };
                let size = |algorithm| product.get_workspace_size(algorithm);
                // SAFETY: the operands are as described, and the workspace as large as was asked for.
                Ok(self.fastest(&BACKWARD_WEIGHTS, ours, &mut result, size, |algorithm, workspace, dw| unsafe {
                    product.launch(algorithm, Some(workspace), scales, &x, dw, &dy)
                }))
            }
        }
    }

    /// Tries the algorithms.
    fn fastest<A: Copy + Debug, T: Scalar>(
        &self,
        algorithms: &[A],
        ours: &[f32],
        result: &mut CudaSlice<T>,
        size: impl Fn(A) -> Result<usize, CudnnError>,
        launch: impl Fn(A, &mut CudaSlice<u8>, &mut CudaSlice<T>) -> Result<(), CudnnError>,
    ) -> Attempts {
        let mut attempt = |algorithm: A, bytes: usize| {
            let mut workspace = self.stream.alloc_zeros::<u8>(bytes.max(1))?;
            self.stream.memset_zeros(result)?;
            launch(algorithm, &mut workspace, result).map_err(failed)?;
            let theirs: Vec<f32> = self.stream.clone_dtoh(result)?.into_iter().map(T::widen).collect();
            let (off, tolerance) = (difference(ours, &theirs), self.tolerance());
            ensure!(off <= tolerance, "our answer is off by {off:.1e}, tolerance {tolerance:e}");
            let ms = self.time(|| launch(algorithm, &mut workspace, result).map_err(failed))?;
            Ok(report::Peer { ms, algorithm: format!("{algorithm:?}"), off })
        };
        let mut attempts = Attempts::default();
        for &algorithm in algorithms {
            let attempted = match size(algorithm) {
                Ok(bytes) => attempt(algorithm, bytes),
                Err(error) if NOT_SUPPORTED.contains(&(error.0 as u32)) => continue,
                Err(error) => Err(failed(error)),
            };
            match attempted {
                Ok(peer) if attempts.fastest.as_ref().is_none_or(|fastest| peer.ms < fastest.ms) => {
                    attempts.fastest = Some(peer);
                }
                Ok(_) => {}
                Err(error) => attempts.left_out.push(format!("{algorithm:?} LEFT OUT: {error:#}")),
            }
        }
        attempts
    }

    /// Milliseconds of a launch, as [`time::of`] takes them of ours.
    fn time(&self, mut launch: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
        let start = Instant::now();
        (0..time::TRIED).try_for_each(|_| launch())?;
        self.stream.synchronize()?;
        let launches = time::launches(start.elapsed());
        self.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED)?;
        let launched = (0..launches).try_for_each(|_| launch());
        let graph = self.stream.end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        // What cuDNN says comes before what the capture makes of it.
        launched?;
        let graph = graph?.context("it launched nothing")?;
        time::fastest(launches, || {
            graph.launch()?;
            Ok(self.stream.synchronize()?)
        })
    }
}
