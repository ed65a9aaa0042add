//! cudarc on a simulated H100: tensor maps made by the driver, and registers taken from a table of ptxas.

mod driver;

use cudarc::driver::sys::{self, CUfunction_attribute_enum as Attribute, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::sync::{Arc, Mutex, PoisonError};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ptx/hopper.resources");

fn library() -> &'static libloading::Library {
    driver::open(|| {
        // SAFETY: every test begins here, and they wait for each other.
        unsafe {
            std::env::set_var("GPUSIM_GPU", "H100");
            // The test of wrong tables sets its own.
            if std::env::var_os("GPUSIM_RESOURCES").is_none() {
                std::env::set_var("GPUSIM_RESOURCES", TABLE);
            }
        }
    })
}

fn context() -> Arc<CudaContext> {
    library();
    CudaContext::new(0).unwrap()
}

/// What tests that ask what the driver said hold, so that they hear only their own.
static QUIET: Mutex<()> = Mutex::new(());

/// What the driver has said since the last call.
fn said() -> String {
    let mut buffer = vec![0u8; 1 << 16];
    // SAFETY: the function has this type, and the buffer this size.
    let length = unsafe {
        let take: libloading::Symbol<unsafe extern "C" fn(*mut u8, usize) -> usize> =
            library().get(b"gpusimTakeReport").unwrap();
        take(buffer.as_mut_ptr(), buffer.len())
    };
    buffer.truncate(length);
    String::from_utf8(buffer).unwrap()
}

fn kernel(context: &Arc<CudaContext>, ptx: &str, name: &str) -> CudaFunction {
    context.load_module(Ptx::from_src(ptx)).unwrap().load_function(name).unwrap()
}

const HOPPER: &str = include_str!("ptx/hopper.ptx");
const TENSOR_MAP: &str = include_str!("ptx/tensor_map.ptx");

/// A tensor map as a kernel's parameter.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct TensorMap(sys::CUtensorMap);

// SAFETY: it is 128 bytes without pointers that the host follows.
unsafe impl DeviceRepr for TensorMap {}

/// A map of `rows` rows of 64 singles, copied by boxes of 32 by 4.
fn encode(address: u64, rows: u64, swizzle: sys::CUtensorMapSwizzle) -> Result<TensorMap, CUresult> {
    let mut map = std::mem::MaybeUninit::<TensorMap>::uninit();
    // SAFETY: two extents, one stride, two of the box and two steps are given; the driver fills the map.
    unsafe {
        let result = sys::cuTensorMapEncodeTiled(
            map.as_mut_ptr().cast(),
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
            2,
            address as *mut _,
            [64, rows].as_ptr(),
            [256].as_ptr(),
            [32, 4].as_ptr(),
            [1, 1].as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        );
        if result == CUresult::CUDA_SUCCESS { Ok(map.assume_init()) } else { Err(result) }
    }
}

#[test]
fn a_map_that_the_driver_made_brings_a_box() {
    use sys::CUtensorMapSwizzle::{CU_TENSOR_MAP_SWIZZLE_64B as TOO_NARROW, CU_TENSOR_MAP_SWIZZLE_NONE as NONE};
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let context = context();
    let stream = context.default_stream();
    let load = kernel(&context, TENSOR_MAP, "load_2d");
    let host: Vec<f32> = (0..64 * 10).map(|i| i as f32).collect();
    let (first, second) = (stream.clone_htod(&host).unwrap(), stream.clone_htod(&host[64..]).unwrap());
    let mut out = stream.alloc_zeros::<f32>(128).unwrap();
    let mut map = encode(first.device_ptr(&stream).0, 10, NONE).unwrap();
    let (bytes, x, y) = (512i32, 40i32, 7i32);
    let mut bring = |map: &TensorMap| {
        let mut launch = stream.launch_builder(&load);
        launch.arg(&mut out).arg(map).arg(&bytes).arg(&x).arg(&y);
        let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 512 };
        // SAFETY: the arguments are the kernel's.
        unsafe { launch.launch(config) }.unwrap();
        stream.clone_dtoh(&out).unwrap()
    };
    let expected = |offset: usize| {
        let element = |i: usize| {
            let (x, y) = (40 + i % 32, 7 + i / 32);
            if x < 64 && y < 10 { (y * 64 + x + offset) as f32 } else { 0.0 }
        };
        (0..128).map(element).collect::<Vec<f32>>()
    };
    assert_eq!(bring(&map), expected(0));
    // The same tensor elsewhere, a row shorter: its last is outside.
    map = encode(second.device_ptr(&stream).0, 9, NONE).unwrap();
    let shorter: Vec<f32> = expected(64).into_iter().enumerate().map(|(i, v)| if i < 64 { v } else { 0.0 }).collect();
    assert_eq!(bring(&map), shorter);
    // SAFETY: the map is one; the address is the first tensor's.
    let replaced =
        unsafe { sys::cuTensorMapReplaceAddress((&raw mut map).cast(), first.device_ptr(&stream).0 as *mut _) };
    assert_eq!(replaced, CUresult::CUDA_SUCCESS);
    let shorter: Vec<f32> = expected(0).into_iter().enumerate().map(|(i, v)| if i < 64 { v } else { 0.0 }).collect();
    assert_eq!(bring(&map), shorter);
    said();
    assert_eq!(encode(first.device_ptr(&stream).0 + 4, 10, NONE).err(), Some(CUresult::CUDA_ERROR_INVALID_VALUE));
    let text = said();
    assert!(text.contains("cuTensorMapEncodeTiled: globalAddress") && text.contains("a multiple of 16"), "{text}");
    assert_eq!(encode(0, 10, TOO_NARROW).err(), Some(CUresult::CUDA_ERROR_INVALID_VALUE));
    let text = said();
    assert!(text.contains("boxDim[0] is 32"), "{text}");
}

#[test]
fn registers_are_those_of_the_table() {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let context = context();
    let product = kernel(&context, HOPPER, "product");
    let table = std::fs::read_to_string(TABLE).unwrap();
    let of_product = table.split("'product'").nth(1).unwrap();
    let used = of_product.split("Used ").nth(1).unwrap().split(' ').next().unwrap().parse::<i32>().unwrap();
    assert_eq!(product.get_attribute(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS).unwrap(), used);
    assert_eq!(product.get_attribute(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES).unwrap(), 0);
    // Four warps a block; a warp gets registers by 256; a multiprocessor has 65,536, and shared memory for 17 blocks.
    let warps = 65_536 / (used as u32 * 32).next_multiple_of(256);
    let blocks = product.occupancy_max_active_blocks_per_multiprocessor(128, 0, None).unwrap();
    assert_eq!(blocks, (warps / 4).min(16));
    // A kernel that the table doesn't have: what PTX declares, and the driver says so.
    said();
    let gemm = kernel(&context, TENSOR_MAP, "gemm");
    let text = said();
    assert!(text.contains("kernel `gemm`: the table of resources doesn't have it for sm_90"), "{text}");
    assert!(gemm.get_attribute(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS).unwrap() > 42);
}

#[test]
fn a_table_that_cannot_be_read_is_an_error_that_names_it() {
    let wrong = std::env::current_exe().unwrap().with_file_name("not a table");
    for (path, what) in [
        (wrong.join("nothing"), "os error"),
        (std::env::current_exe().unwrap(), "UTF-8"),
        (concat!(env!("CARGO_MANIFEST_DIR"), "/README.md").into(), "no kernel is in it"),
    ] {
        let outcome = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "registers_are_those_of_the_table"])
            .env("GPUSIM_RESOURCES", &path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&outcome.stderr).into_owned() + &String::from_utf8_lossy(&outcome.stdout);
        assert!(!outcome.status.success());
        assert!(said.contains(&format!("GPUSIM_RESOURCES={}", path.display())) && said.contains(what), "{said}");
    }
}
