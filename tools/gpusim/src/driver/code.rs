//! Result codes of the driver API, with their names and strings.

use super::{Answer, api, give};
use std::ffi::c_char;

/// A `CUresult`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($name:ident $number:literal)*) => {
        #[allow(missing_docs, reason = "the names are CUDA's own")]
        impl Code {
            $(pub const $name: Self = Self($number);)*
        }
    };
}

// Those that this driver returns.
codes! {
    SUCCESS 0
    INVALID_VALUE 1
    OUT_OF_MEMORY 2
    NOT_INITIALIZED 3
    NO_DEVICE 100
    INVALID_DEVICE 101
    INVALID_IMAGE 200
    INVALID_CONTEXT 201
    NO_BINARY_FOR_GPU 209
    INVALID_PTX 218
    UNSUPPORTED_PTX_VERSION 222
    FILE_NOT_FOUND 301
    INVALID_HANDLE 400
    ILLEGAL_STATE 401
    NOT_FOUND 500
    NOT_READY 600
    ILLEGAL_ADDRESS 700
    LAUNCH_OUT_OF_RESOURCES 701
    PRIMARY_CONTEXT_ACTIVE 708
    CONTEXT_IS_DESTROYED 709
    ASSERT 710
    ILLEGAL_INSTRUCTION 715
    MISALIGNED_ADDRESS 716
    LAUNCH_FAILED 719
    COOPERATIVE_LAUNCH_TOO_LARGE 720
    NOT_SUPPORTED 801
    STREAM_CAPTURE_UNSUPPORTED 900
    STREAM_CAPTURE_INVALIDATED 901
    STREAM_CAPTURE_MERGE 902
    STREAM_CAPTURE_UNMATCHED 903
    STREAM_CAPTURE_ISOLATION 905
    STREAM_CAPTURE_IMPLICIT 906
    CAPTURED_EVENT 907
    UNKNOWN 999
}

/// Every code's number, name and string, each ended by a zero for C.
const NAMES: &[(u32, &str, &str)] = &[
    (0, "CUDA_SUCCESS\0", "no error\0"),
    (1, "CUDA_ERROR_INVALID_VALUE\0", "invalid argument\0"),
    (2, "CUDA_ERROR_OUT_OF_MEMORY\0", "out of memory\0"),
    (3, "CUDA_ERROR_NOT_INITIALIZED\0", "initialization error\0"),
    (4, "CUDA_ERROR_DEINITIALIZED\0", "deinitialized\0"),
    (5, "CUDA_ERROR_PROFILER_DISABLED\0", "profiler disabled\0"),
    (6, "CUDA_ERROR_PROFILER_NOT_INITIALIZED\0", "profiler not initialized\0"),
    (7, "CUDA_ERROR_PROFILER_ALREADY_STARTED\0", "profiler already started\0"),
    (8, "CUDA_ERROR_PROFILER_ALREADY_STOPPED\0", "profiler already stopped\0"),
    (34, "CUDA_ERROR_STUB_LIBRARY\0", "stub library\0"),
    (36, "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER\0", "call requires newer driver\0"),
    (46, "CUDA_ERROR_DEVICE_UNAVAILABLE\0", "device unavailable\0"),
    (47, "CUDA_ERROR_MULTICAST_RESOURCE_FULL\0", "multicast resource full\0"),
    (100, "CUDA_ERROR_NO_DEVICE\0", "no CUDA-capable device is detected\0"),
    (101, "CUDA_ERROR_INVALID_DEVICE\0", "invalid device ordinal\0"),
    (102, "CUDA_ERROR_DEVICE_NOT_LICENSED\0", "device not licensed\0"),
    (200, "CUDA_ERROR_INVALID_IMAGE\0", "device kernel image is invalid\0"),
    (201, "CUDA_ERROR_INVALID_CONTEXT\0", "invalid device context\0"),
    (202, "CUDA_ERROR_CONTEXT_ALREADY_CURRENT\0", "context already current\0"),
    (205, "CUDA_ERROR_MAP_FAILED\0", "map failed\0"),
    (206, "CUDA_ERROR_UNMAP_FAILED\0", "unmap failed\0"),
    (207, "CUDA_ERROR_ARRAY_IS_MAPPED\0", "array is mapped\0"),
    (208, "CUDA_ERROR_ALREADY_MAPPED\0", "already mapped\0"),
    (209, "CUDA_ERROR_NO_BINARY_FOR_GPU\0", "no kernel image is available for execution on the device\0"),
    (210, "CUDA_ERROR_ALREADY_ACQUIRED\0", "already acquired\0"),
    (211, "CUDA_ERROR_NOT_MAPPED\0", "not mapped\0"),
    (212, "CUDA_ERROR_NOT_MAPPED_AS_ARRAY\0", "not mapped as array\0"),
    (213, "CUDA_ERROR_NOT_MAPPED_AS_POINTER\0", "not mapped as pointer\0"),
    (214, "CUDA_ERROR_ECC_UNCORRECTABLE\0", "ecc uncorrectable\0"),
    (215, "CUDA_ERROR_UNSUPPORTED_LIMIT\0", "unsupported limit\0"),
    (216, "CUDA_ERROR_CONTEXT_ALREADY_IN_USE\0", "context already in use\0"),
    (217, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED\0", "peer access unsupported\0"),
    (218, "CUDA_ERROR_INVALID_PTX\0", "a PTX JIT compilation failed\0"),
    (219, "CUDA_ERROR_INVALID_GRAPHICS_CONTEXT\0", "invalid graphics context\0"),
    (220, "CUDA_ERROR_NVLINK_UNCORRECTABLE\0", "nvlink uncorrectable\0"),
    (221, "CUDA_ERROR_JIT_COMPILER_NOT_FOUND\0", "jit compiler not found\0"),
    (222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION\0", "unsupported ptx version\0"),
    (223, "CUDA_ERROR_JIT_COMPILATION_DISABLED\0", "jit compilation disabled\0"),
    (224, "CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY\0", "unsupported exec affinity\0"),
    (225, "CUDA_ERROR_UNSUPPORTED_DEVSIDE_SYNC\0", "unsupported devside sync\0"),
    (226, "CUDA_ERROR_CONTAINED\0", "contained\0"),
    (227, "CUDA_ERROR_INSUFFICIENT_LOADER_VERSION\0", "insufficient loader version\0"),
    (300, "CUDA_ERROR_INVALID_SOURCE\0", "invalid source\0"),
    (301, "CUDA_ERROR_FILE_NOT_FOUND\0", "file not found\0"),
    (302, "CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND\0", "shared object symbol not found\0"),
    (303, "CUDA_ERROR_SHARED_OBJECT_INIT_FAILED\0", "shared object init failed\0"),
    (304, "CUDA_ERROR_OPERATING_SYSTEM\0", "operating system\0"),
    (400, "CUDA_ERROR_INVALID_HANDLE\0", "invalid resource handle\0"),
    (401, "CUDA_ERROR_ILLEGAL_STATE\0", "the operation cannot be performed in the present state\0"),
    (402, "CUDA_ERROR_LOSSY_QUERY\0", "lossy query\0"),
    (500, "CUDA_ERROR_NOT_FOUND\0", "named symbol not found\0"),
    (600, "CUDA_ERROR_NOT_READY\0", "device not ready\0"),
    (700, "CUDA_ERROR_ILLEGAL_ADDRESS\0", "an illegal memory access was encountered\0"),
    (701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES\0", "too many resources requested for launch\0"),
    (702, "CUDA_ERROR_LAUNCH_TIMEOUT\0", "launch timeout\0"),
    (703, "CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING\0", "launch incompatible texturing\0"),
    (704, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED\0", "peer access already enabled\0"),
    (705, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED\0", "peer access not enabled\0"),
    (708, "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE\0", "cannot set while device is active in this process\0"),
    (709, "CUDA_ERROR_CONTEXT_IS_DESTROYED\0", "context is destroyed\0"),
    (710, "CUDA_ERROR_ASSERT\0", "device-side assert triggered\0"),
    (711, "CUDA_ERROR_TOO_MANY_PEERS\0", "too many peers\0"),
    (712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED\0", "host memory already registered\0"),
    (713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED\0", "host memory not registered\0"),
    (714, "CUDA_ERROR_HARDWARE_STACK_ERROR\0", "hardware stack error\0"),
    (715, "CUDA_ERROR_ILLEGAL_INSTRUCTION\0", "an illegal instruction was encountered\0"),
    (716, "CUDA_ERROR_MISALIGNED_ADDRESS\0", "misaligned address\0"),
    (717, "CUDA_ERROR_INVALID_ADDRESS_SPACE\0", "invalid address space\0"),
    (718, "CUDA_ERROR_INVALID_PC\0", "invalid pc\0"),
    (719, "CUDA_ERROR_LAUNCH_FAILED\0", "unspecified launch failure\0"),
    (720, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE\0", "too many blocks in cooperative launch\0"),
    (721, "CUDA_ERROR_TENSOR_MEMORY_LEAK\0", "tensor memory leak\0"),
    (800, "CUDA_ERROR_NOT_PERMITTED\0", "not permitted\0"),
    (801, "CUDA_ERROR_NOT_SUPPORTED\0", "operation not supported\0"),
    (802, "CUDA_ERROR_SYSTEM_NOT_READY\0", "system not ready\0"),
    (803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH\0", "system driver mismatch\0"),
    (804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE\0", "compat not supported on device\0"),
    (805, "CUDA_ERROR_MPS_CONNECTION_FAILED\0", "mps connection failed\0"),
    (806, "CUDA_ERROR_MPS_RPC_FAILURE\0", "mps rpc failure\0"),
    (807, "CUDA_ERROR_MPS_SERVER_NOT_READY\0", "mps server not ready\0"),
    (808, "CUDA_ERROR_MPS_MAX_CLIENTS_REACHED\0", "mps max clients reached\0"),
    (809, "CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED\0", "mps max connections reached\0"),
    (810, "CUDA_ERROR_MPS_CLIENT_TERMINATED\0", "mps client terminated\0"),
    (811, "CUDA_ERROR_CDP_NOT_SUPPORTED\0", "cdp not supported\0"),
    (812, "CUDA_ERROR_CDP_VERSION_MISMATCH\0", "cdp version mismatch\0"),
    (900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED\0", "operation not permitted when stream is capturing\0"),
    (901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED\0", "operation failed due to a previous error during capture\0"),
    (902, "CUDA_ERROR_STREAM_CAPTURE_MERGE\0", "stream capture merge\0"),
    (903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED\0", "capture was not initiated in this stream\0"),
    (904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED\0", "stream capture unjoined\0"),
    (905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION\0", "dependency created on uncaptured work in another stream\0"),
    (906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT\0", "stream capture implicit\0"),
    (907, "CUDA_ERROR_CAPTURED_EVENT\0", "operation not permitted on an event last recorded in a capturing stream\0"),
    (908, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD\0", "stream capture wrong thread\0"),
    (909, "CUDA_ERROR_TIMEOUT\0", "timeout\0"),
    (910, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE\0", "graph exec update failure\0"),
    (911, "CUDA_ERROR_EXTERNAL_DEVICE\0", "external device\0"),
    (912, "CUDA_ERROR_INVALID_CLUSTER_SIZE\0", "invalid cluster size\0"),
    (913, "CUDA_ERROR_FUNCTION_NOT_LOADED\0", "function not loaded\0"),
    (914, "CUDA_ERROR_INVALID_RESOURCE_TYPE\0", "invalid resource type\0"),
    (915, "CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION\0", "invalid resource configuration\0"),
    (916, "CUDA_ERROR_KEY_ROTATION\0", "key rotation\0"),
    (917, "CUDA_ERROR_STREAM_DETACHED\0", "stream detached\0"),
    (918, "CUDA_ERROR_GRAPH_RECAPTURE_FAILURE\0", "graph recapture failure\0"),
    (919, "CUDA_ERROR_FABRIC_NOT_READY\0", "fabric not ready\0"),
    (999, "CUDA_ERROR_UNKNOWN\0", "unknown error\0"),
];

impl Code {
    fn entry(self) -> Answer<&'static (u32, &'static str, &'static str)> {
        NAMES.iter().find(|(number, ..)| *number == self.0).ok_or(Self::INVALID_VALUE)
    }

    /// Its name, as in the header: `CUDA_ERROR_ILLEGAL_ADDRESS`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().map_or("an unknown code", |(_, name, _)| name.trim_end_matches('\0'))
    }
}

api! {
    fn cuGetErrorName(error: u32, name: *mut *const c_char) {
        // SAFETY: the caller's promise.
        unsafe { give(name, Code(error).entry()?.1.as_ptr().cast()) }
    }

    fn cuGetErrorString(error: u32, string: *mut *const c_char) {
        // SAFETY: the caller's promise.
        unsafe { give(string, Code(error).entry()?.2.as_ptr().cast()) }
    }
}
