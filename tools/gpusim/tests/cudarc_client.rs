//! cudarc's safe API, unmodified, on the simulated GPU: everything that a program with hand-written kernels needs.

use cudarc::driver::sys::{self, CUresult, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::sync::{Arc, Once};

/// Opens the simulated GPU, so that cudarc's own search for `libcuda.so` finds it.
fn context() -> Arc<CudaContext> {
    static OPEN: Once = Once::new();
    OPEN.call_once(|| {
        let library = std::env::current_exe().unwrap().with_file_name("libgpusim.so");
        // SAFETY: the library has no initialisers.
        let library = unsafe { libloading::Library::new(&library) }.unwrap_or_else(|e| panic!("{library:?}: {e}"));
        std::mem::forget(library);
    });
    CudaContext::new(0).unwrap()
}

const PTX: &str = include_str!("ptx/basics.ptx");

fn kernel(context: &Arc<CudaContext>, name: &str) -> CudaFunction {
    context.load_module(Ptx::from_src(PTX)).unwrap().load_function(name).unwrap()
}

/// A stream of its own, without cudarc's event tracking, as a program with one stream has it.
fn stream(context: &Arc<CudaContext>) -> Arc<CudaStream> {
    // SAFETY: each test uses one stream only.
    unsafe { context.disable_event_tracking() };
    context.new_stream().unwrap()
}

#[test]
fn the_device_says_what_it_is() {
    let context = context();
    assert_eq!(CudaContext::device_count().unwrap(), 1);
    assert!(context.name().unwrap().contains("gpusim"));
    assert_eq!(context.compute_capability().unwrap(), (8, 0));
    assert_eq!(context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE).unwrap(), 32);
    assert!(context.total_mem().unwrap() > 1 << 30);
    assert!(context.has_async_alloc());
}

#[test]
fn memory_goes_there_and_back() {
    let stream = stream(&context());
    let host: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let device = stream.clone_htod(&host).unwrap();
    let mut other = stream.alloc_zeros::<f32>(1000).unwrap();
    stream.memcpy_dtod(&device.slice(10..20), &mut other.slice_mut(0..10)).unwrap();
    let back = stream.clone_dtoh(&other).unwrap();
    assert_eq!(back[..10], host[10..20]);
    assert!(back[10..].iter().all(|&x| x == 0.0));
}

#[test]
fn a_kernel_adds_vectors() {
    let context = context();
    let stream = stream(&context);
    let add = kernel(&context, "add");
    let n = 10_007usize;
    let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let b: Vec<f32> = (0..n).map(|i| 0.5 * i as f32).collect();
    let (da, db) = (stream.clone_htod(&a).unwrap(), stream.clone_htod(&b).unwrap());
    let mut dc = stream.alloc_zeros::<f32>(n).unwrap();
    let mut launch = stream.launch_builder(&add);
    let count = n as i32;
    launch.arg(&mut dc).arg(&da).arg(&db).arg(&count);
    // SAFETY: the arguments are the kernel's.
    unsafe { launch.launch(LaunchConfig::for_num_elems(n as u32)) }.unwrap();
    let c = stream.clone_dtoh(&dc).unwrap();
    for i in 0..n {
        assert_eq!(c[i], a[i] + b[i], "element {i}");
    }
}

#[test]
fn a_block_reduces_in_dynamic_shared_memory() {
    let context = context();
    let stream = stream(&context);
    let sum = kernel(&context, "block_sum");
    let host: Vec<f32> = (0..1024).map(|i| (i % 7) as f32).collect();
    let input = stream.clone_htod(&host).unwrap();
    let mut output = stream.alloc_zeros::<f32>(4).unwrap();
    let config = LaunchConfig { grid_dim: (4, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 1024 };
    let mut launch = stream.launch_builder(&sum);
    launch.arg(&mut output).arg(&input);
    // SAFETY: the arguments are the kernel's.
    unsafe { launch.launch(config) }.unwrap();
    let found = stream.clone_dtoh(&output).unwrap();
    let expected: Vec<f32> = host.chunks(256).map(|chunk| chunk.iter().sum()).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_captured_graph_replays() {
    let context = context();
    let stream = stream(&context);
    let add = kernel(&context, "add");
    let n = 64;
    let one = stream.clone_htod(&vec![1.0f32; n]).unwrap();
    let mut sum = stream.alloc_zeros::<f32>(n).unwrap();
    let zero = sum.clone();
    let count = n as i32;
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    for _ in 0..3 {
        let mut launch = stream.launch_builder(&add);
        launch.arg(&mut sum).arg(&zero).arg(&one).arg(&count);
        // SAFETY: the arguments are the kernel's.
        unsafe { launch.launch(LaunchConfig::for_num_elems(n as u32)) }.unwrap();
    }
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().unwrap();
    assert_eq!(stream.clone_dtoh(&sum).unwrap(), vec![0.0; n], "a capture runs nothing");
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&sum).unwrap(), vec![1.0; n]);
    stream.memset_zeros(&mut sum).unwrap();
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&sum).unwrap(), vec![1.0; n]);
}

#[test]
fn events_time_and_order_streams() {
    let context = context();
    let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let start = first.record_event(timed).unwrap();
    let data = first.clone_htod(&[7u32; 100]).unwrap();
    let end = first.record_event(timed).unwrap();
    second.wait(&end).unwrap();
    assert_eq!(second.clone_dtoh(&data).unwrap(), vec![7; 100]);
    end.synchronize().unwrap();
    assert!(start.elapsed_ms(&end).unwrap() >= 0.0);
}

#[test]
fn functions_have_attributes_and_an_occupancy() {
    let context = context();
    let sum = kernel(&context, "block_sum");
    use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MAX_DYNAMIC;
    assert_eq!(sum.get_attribute(MAX_DYNAMIC).unwrap(), 48 << 10);
    sum.set_attribute(MAX_DYNAMIC, 100 << 10).unwrap();
    assert_eq!(sum.get_attribute(MAX_DYNAMIC).unwrap(), 100 << 10);
    assert!(sum.set_attribute(MAX_DYNAMIC, 1 << 20).is_err());
    assert_eq!(sum.occupancy_max_active_blocks_per_multiprocessor(256, 80 << 10, None).unwrap(), 2);
}

#[test]
fn mistakes_are_errors_with_names() {
    let context = context();
    let module = context.load_module(Ptx::from_src(PTX)).unwrap();
    let missing = module.load_function("missing").unwrap_err();
    assert_eq!(missing.0, CUresult::CUDA_ERROR_NOT_FOUND);
    assert_eq!(missing.error_string().unwrap().to_str().unwrap(), "named symbol not found");
    let broken = context.load_module(Ptx::from_src(".version 8.0\n.target sm_80\n.entry k() { bogus }")).unwrap_err();
    assert_eq!(broken.0, CUresult::CUDA_ERROR_INVALID_PTX);
    let unsupported = context.load_module(Ptx::from_src(
        ".version 8.0\n.target sm_80\n.address_size 64\n.entry k() { .reg .b32 %r<2>; frob.b32 %r1, %r1; ret; }",
    ));
    let function = unsupported.unwrap().load_function("k");
    assert_eq!(function.unwrap_err().0, CUresult::CUDA_ERROR_NOT_SUPPORTED);
}
