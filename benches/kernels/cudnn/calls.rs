//! A convolution as cuDNN's library takes it: descriptors, the heuristics' choices, and the calls.
//!
//! cudarc's own descriptors keep to themselves what the heuristics want to see, of which it passes on one choice.

use super::super::convolutions::Pass;
use super::Memory;
use cudarc::cudnn::result::{self, CudnnError};
use cudarc::cudnn::sys::{
    self, cudnnConvolutionBwdDataAlgo_t as DataAlgorithm, cudnnConvolutionBwdFilterAlgo_t as FilterAlgorithm,
    cudnnConvolutionFwdAlgo_t as ForwardAlgorithm, cudnnConvolutionMode_t as Mode, cudnnDataType_t as DataType,
    cudnnMathType_t as Math, cudnnStatus_t as Status, cudnnTensorFormat_t as Format,
};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut};
use onesheet::device::ConvShape;
use onesheet::device::cuda::Precision;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::sync::Arc;

/// As many answers as cuDNN's heuristics could have: an algorithm may be there once for each kind of arithmetic.
const ANSWERS: usize = 32;

/// Something of cuDNN's that is destroyed when dropped.
struct Owned<D: Copy> {
    raw: D,
    destroy: unsafe fn(D) -> Result<(), CudnnError>,
}

impl<D: Copy> Drop for Owned<D> {
    fn drop(&mut self) {
        // SAFETY: it was created by the call that `destroy` undoes, and nobody else destroys it. There is no one to tell of
        // an error.
        let _ = unsafe { (self.destroy)(self.raw) };
    }
}

/// cuDNN's handle, and the stream that it works on.
pub struct Handle {
    raw: Owned<sys::cudnnHandle_t>,
    pub stream: Arc<CudaStream>,
}

impl Handle {
    pub fn new(stream: Arc<CudaStream>) -> Result<Self, CudnnError> {
        let raw = Owned { raw: result::create_handle()?, destroy: result::destroy_handle };
        // SAFETY: both are live, and the stream stays so beside the handle.
        unsafe { result::set_stream(raw.raw, stream.cu_stream() as sys::cudaStream_t) }?;
        Ok(Handle { raw, stream })
    }
}

/// One of cuDNN's ways to do a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Forward(ForwardAlgorithm),
    BackwardData(DataAlgorithm),
    BackwardWeights(FilterAlgorithm),
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Algorithm::Forward(algorithm) => write!(f, "{algorithm:?}"),
            Algorithm::BackwardData(algorithm) => write!(f, "{algorithm:?}"),
            Algorithm::BackwardWeights(algorithm) => write!(f, "{algorithm:?}"),
        }
    }
}

/// A convolution's descriptors. Tensors are NHWC, filters KRSC; sums are f32.
pub struct Convolution {
    handle: Rc<Handle>,
    x: Owned<sys::cudnnTensorDescriptor_t>,
    y: Owned<sys::cudnnTensorDescriptor_t>,
    w: Owned<sys::cudnnFilterDescriptor_t>,
    conv: Owned<sys::cudnnConvolutionDescriptor_t>,
}

impl Convolution {
    pub fn new(
        handle: &Rc<Handle>,
        shape: &ConvShape,
        groups: usize,
        precision: Precision,
    ) -> Result<Self, CudnnError> {
        let [n, h, w, c, k, r, s, p, q, stride, pad] =
            [shape.n, shape.h, shape.w, shape.c, shape.k, shape.r, shape.s, shape.p, shape.q, shape.stride, shape.pad]
                .map(|extent| extent as c_int);
        let (element, math) = match precision {
            Precision::F32 => (DataType::CUDNN_DATA_FLOAT, Math::CUDNN_FMA_MATH),
            // Of f32 tensors, the default is TF32.
            Precision::Tf32 => (DataType::CUDNN_DATA_FLOAT, Math::CUDNN_DEFAULT_MATH),
            Precision::Bf16 => (DataType::CUDNN_DATA_BFLOAT16, Math::CUDNN_TENSOR_OP_MATH),
        };
        let tensor = || -> Result<_, CudnnError> {
            Ok(Owned { raw: result::create_tensor_descriptor()?, destroy: result::destroy_tensor_descriptor })
        };
        let described = Convolution {
            handle: Rc::clone(handle),
            x: tensor()?,
            y: tensor()?,
            w: Owned { raw: result::create_filter_descriptor()?, destroy: result::destroy_filter_descriptor },
            conv: Owned {
                raw: result::create_convolution_descriptor()?,
                destroy: result::destroy_convolution_descriptor,
            },
        };
        let (nhwc, sums) = (Format::CUDNN_TENSOR_NHWC, DataType::CUDNN_DATA_FLOAT);
        // SAFETY: the descriptors are live. Extents are in the order N C H W whatever the layout.
        unsafe {
            result::set_tensor4d_descriptor(described.x.raw, nhwc, element, [n, c, h, w])?;
            result::set_tensor4d_descriptor(described.y.raw, nhwc, element, [n, k, p, q])?;
            result::set_filter4d_descriptor(described.w.raw, element, nhwc, [k, c / groups as c_int, r, s])?;
            let mode = Mode::CUDNN_CROSS_CORRELATION;
            result::set_convolution2d_descriptor(described.conv.raw, pad, pad, stride, stride, 1, 1, mode, sums)?;
            result::set_convolution_group_count(described.conv.raw, groups as c_int)?;
            result::set_convolution_math_type(described.conv.raw, math)?;
        }
        Ok(described)
    }

    /// The algorithms that cuDNN's heuristics name for a pass, the one that they take for the fastest first.
    pub fn choices(&self, pass: Pass) -> Result<Vec<Algorithm>, CudnnError> {
        let Convolution { handle, x, y, w, conv } = self;
        let (handle, x, y, w, conv) = (handle.raw.raw, x.raw, y.raw, w.raw, conv.raw);
        let named: Vec<(Status, Algorithm)> = match pass {
            Pass::Forward => answers(
                // SAFETY: the descriptors are live, and there is room for as many results as are asked for.
                |most, found, results| unsafe {
                    result::get_convolution_forward_algorithm(handle, x, w, conv, y, most, found, results)
                },
                |found| (found.status, Algorithm::Forward(found.algo)),
            )?,
            Pass::BackwardData => answers(
                // SAFETY: the descriptors are live, and there is room for as many results as are asked for.
                |most, found, results| unsafe {
                    result::get_convolution_backward_data_algorithm(handle, w, y, conv, x, most, found, results)
                },
                |found| (found.status, Algorithm::BackwardData(found.algo)),
            )?,
            Pass::BackwardWeights => answers(
                // SAFETY: the descriptors are live, and there is room for as many results as are asked for.
                |most, found, results| unsafe {
                    result::get_convolution_backward_filter_algorithm(handle, x, y, conv, w, most, found, results)
                },
                |found| (found.status, Algorithm::BackwardWeights(found.algo)),
            )?,
        };
        let mut choices = Vec::new();
        for (status, algorithm) in named {
            if status == Status::CUDNN_STATUS_SUCCESS && !choices.contains(&algorithm) {
                choices.push(algorithm);
            }
        }
        Ok(choices)
    }

    /// Bytes that an algorithm wants beside the operands.
    pub fn workspace(&self, algorithm: Algorithm) -> Result<usize, CudnnError> {
        let Convolution { handle, x, y, w, conv } = self;
        let (handle, x, y, w, conv) = (handle.raw.raw, x.raw, y.raw, w.raw, conv.raw);
        // SAFETY: the descriptors are live.
        unsafe {
            match algorithm {
                Algorithm::Forward(algorithm) => {
                    result::get_convolution_forward_workspace_size(handle, x, w, conv, y, algorithm)
                }
                Algorithm::BackwardData(algorithm) => {
                    result::get_convolution_backward_data_workspace_size(handle, w, y, conv, x, algorithm)
                }
                Algorithm::BackwardWeights(algorithm) => {
                    result::get_convolution_backward_filter_workspace_size(handle, x, y, conv, w, algorithm)
                }
            }
        }
    }

    /// Launches the pass, which replaces `memory.result`.
    ///
    /// # Safety
    /// The memory is as the descriptors have it, the workspace at least as large as [`workspace`](Self::workspace) says, and
    /// what is launched is waited for before either is given up.
    pub unsafe fn launch(
        &self,
        algorithm: Algorithm,
        workspace: &mut CudaSlice<u8>,
        memory: &mut Memory,
    ) -> Result<(), CudnnError> {
        let Convolution { handle, x, y, w, conv } = self;
        let stream = &handle.stream;
        let (handle, x, y, w, conv) = (handle.raw.raw, x.raw, y.raw, w.raw, conv.raw);
        let place = |slice: &CudaSlice<u8>| slice.device_ptr(stream).0 as *const c_void;
        let (from_x, from_w, from_dy) = (place(&memory.x), place(&memory.w), place(&memory.dy));
        let to = memory.result.device_ptr_mut(stream).0 as *mut c_void;
        let (bytes, room) = (workspace.len(), workspace.device_ptr_mut(stream).0 as *mut c_void);
        let (one, zero) = (1.0f32, 0.0f32);
        let (one, zero) = ((&raw const one).cast::<c_void>(), (&raw const zero).cast::<c_void>());
        // SAFETY: the caller's promise; the scales are floats, as they are for tensors of float and of bfloat16.
        unsafe {
            match algorithm {
                Algorithm::Forward(algorithm) => result::convolution_forward(
                    handle, one, x, from_x, w, from_w, conv, algorithm, room, bytes, zero, y, to,
                ),
                Algorithm::BackwardData(algorithm) => result::convolution_backward_data(
                    handle, one, w, from_w, y, from_dy, conv, algorithm, room, bytes, zero, x, to,
                ),
                Algorithm::BackwardWeights(algorithm) => result::convolution_backward_filter(
                    handle, one, x, from_x, y, from_dy, conv, algorithm, room, bytes, zero, w, to,
                ),
            }
        }
    }
}

/// What `ask` answers: it is told how many results there is room for, where to put their number, and where themselves.
fn answers<P, A>(
    ask: impl FnOnce(c_int, *mut c_int, *mut P) -> Result<(), CudnnError>,
    read: impl Fn(&P) -> A,
) -> Result<Vec<A>, CudnnError> {
    let mut results = [const { MaybeUninit::<P>::uninit() }; ANSWERS];
    let mut found = 0;
    ask(ANSWERS as c_int, &raw mut found, results.as_mut_ptr().cast())?;
    let found = found.clamp(0, ANSWERS as c_int) as usize;
    // SAFETY: cuDNN has filled so many.
    Ok(results[..found].iter().map(|result| read(unsafe { result.assume_init_ref() })).collect())
}
