//! cudarc's safe API, unmodified, on the simulated GPU: everything that a program with hand-written kernels needs.

mod driver;

use cudarc::driver::sys::{self, CUgraphInstantiate_flags_enum as Instantiate, CUresult, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DevicePtr, DevicePtrMut, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::ffi::c_char;
use std::sync::Arc;

fn context() -> Arc<CudaContext> {
    driver::open(|| {});
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
    assert_eq!(context.total_mem().unwrap(), 80 << 30);
    assert!(context.has_async_alloc());
    // An A100's data sheet, and what CUDA's guide says of its capability.
    use sys::CUdevice_attribute::*;
    for (attribute, expected) in [
        (CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024),
        (CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 2048),
        (CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, 32),
        (CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 108),
        (CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, 64 << 10),
        (CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 64 << 10),
        (CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 48 << 10),
        (CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 163 << 10),
        (CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 164 << 10),
        (CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 40 << 20),
        (CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1_410_000),
        (CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 5120),
        (CU_DEVICE_ATTRIBUTE_SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO, 2),
    ] {
        assert_eq!(context.attribute(attribute).unwrap(), expected, "{attribute:?}");
    }
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
fn memory_is_what_the_gpu_has_and_goes_back_as_it_came() {
    // A context of its own: other tests capture in the primary one.
    driver::open(|| {});
    let context = CudaContext::new_non_primary(0, 0).unwrap();
    context.bind_to_thread().unwrap();
    let done = |result: CUresult| assert_eq!(result, CUresult::CUDA_SUCCESS);
    let (mut device, mut managed, mut none, mut free, mut total) = (0, 0, 0, 0, 0);
    // SAFETY: plain calls with places of ours; nobody uses the memory.
    unsafe {
        done(sys::cuMemAlloc_v2(&raw mut device, 64 << 20));
        done(sys::cuMemGetInfo_v2(&raw mut free, &raw mut total));
        assert!(total == 80 << 30 && free <= total - (64 << 20), "{free} of {total}");
        assert_eq!(sys::cuMemAlloc_v2(&raw mut none, total), CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        done(sys::cuMemAllocManaged(&raw mut managed, 64, 1));
        assert_eq!(sys::cuMemFreeHost(managed as *mut _), CUresult::CUDA_ERROR_INVALID_VALUE);
        done(sys::cuMemFree_v2(managed));
        done(sys::cuMemFree_v2(device));
    }
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

/// What launches did since the last call.
fn counters() -> String {
    text_of(b"gpusimTakeCounters")
}

/// What a function of the library's own gives.
fn text_of(function: &[u8]) -> String {
    type Take = unsafe extern "C" fn(*mut c_char, usize) -> usize;
    let library = std::env::current_exe().unwrap().with_file_name("libgpusim.so");
    // SAFETY: `context` has opened the library, and it has this function.
    let library = unsafe { libloading::Library::new(library) }.unwrap();
    // SAFETY: as declared there.
    let take = unsafe { library.get::<Take>(function) }.unwrap();
    let mut buffer = vec![0u8; 1 << 20];
    // SAFETY: the buffer is that long.
    let length = unsafe { take(buffer.as_mut_ptr().cast(), buffer.len()) };
    assert!(length < buffer.len());
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn a_program_can_fetch_what_its_launches_did() {
    let context = context();
    let stream = stream(&context);
    counters();
    let n = 29 * 32i32;
    let (a, b) = (stream.alloc_zeros::<f32>(n as usize).unwrap(), stream.alloc_zeros::<f32>(n as usize).unwrap());
    let mut c = stream.alloc_zeros::<f32>(n as usize).unwrap();
    let add = kernel(&context, "add");
    let mut launch = stream.launch_builder(&add);
    launch.arg(&mut c).arg(&a).arg(&b).arg(&n);
    // SAFETY: the arguments are the kernel's.
    unsafe { launch.launch(LaunchConfig { grid_dim: (29, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 0 }) }
        .unwrap();
    stream.synchronize().unwrap();
    // Other tests of this process launch, too.
    let lines = counters();
    let mut mine = lines.lines().filter(|line| line.contains("\"grid\":[29,1,1]"));
    let line: serde_json::Value = serde_json::from_str(mine.next().unwrap()).unwrap();
    assert_eq!((&line["kernel"], &line["requests"]), (&"add".into(), &(3 * 29).into()));
    assert_eq!((&line["touched_sectors"], &line["written_sectors"]), (&(3 * 29 * 4).into(), &(29 * 4).into()));
    assert!(mine.next().is_none() && !counters().contains("[29,1,1]"));
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

/// Launches `add`: `sum` = `a` + `b`.
fn add(stream: &Arc<CudaStream>, add: &CudaFunction, sum: u64, a: u64, b: u64, n: i32) {
    let mut launch = stream.launch_builder(add);
    launch.arg(&sum).arg(&a).arg(&b).arg(&n);
    // SAFETY: the arguments are the kernel's.
    unsafe { launch.launch(LaunchConfig::for_num_elems(n as u32)) }.unwrap();
}

#[test]
fn a_graph_allocates_its_own_memory() {
    let context = context();
    let stream = stream(&context);
    let kernel = kernel(&context, "add");
    let n = 64;
    let one = stream.clone_htod(&vec![1.0f32; n]).unwrap();
    let mut out = stream.alloc_zeros::<f32>(n).unwrap();
    let (one_at, out_at) = (one.device_ptr(&stream).0, out.device_ptr_mut(&stream).0);
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    {
        // SAFETY: it is written before it is read.
        let mut between = unsafe { stream.alloc::<f32>(n) }.unwrap();
        let between_at = between.device_ptr_mut(&stream).0;
        add(&stream, &kernel, between_at, one_at, one_at, n as i32);
        add(&stream, &kernel, out_at, between_at, one_at, n as i32);
        // Dropped, it is freed: the graph's last node.
    }
    let graph = stream.end_capture(Instantiate::CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY).unwrap().unwrap();
    for _ in 0..3 {
        stream.memset_zeros(&mut out).unwrap();
        graph.launch().unwrap();
        assert_eq!(stream.clone_dtoh(&out).unwrap(), vec![3.0; n]);
    }
    // A second executable of the graph would have the same memory.
    let mut second = std::ptr::null_mut();
    // SAFETY: the graph is there, and the place is ours.
    let outcome = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut second, graph.cu_graph(), 0) };
    assert_eq!(outcome, CUresult::CUDA_ERROR_INVALID_VALUE);
}

/// A captured graph that allocates `n` singles and does no more with them than `work`; gives them with the graph.
fn allocating(
    stream: &Arc<CudaStream>,
    n: usize,
    flags: Instantiate,
    work: impl FnOnce(u64),
) -> (cudarc::driver::CudaGraph, u64) {
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    // SAFETY: a kernel writes it before anybody reads.
    let memory = unsafe { cudarc::driver::result::malloc_async(stream.cu_stream(), 4 * n) }.unwrap();
    work(memory);
    (stream.end_capture(flags).unwrap().unwrap(), memory)
}

#[test]
fn memory_of_a_graph_can_outlive_its_launch() {
    let context = context();
    let stream = stream(&context);
    let kernel = kernel(&context, "add");
    let one = stream.clone_htod(&[1.0f32; 32]).unwrap();
    let one_at = one.device_ptr(&stream).0;
    let (graph, memory) =
        allocating(&stream, 32, Instantiate::CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY, |memory| {
            add(&stream, &kernel, memory, one_at, one_at, 32);
        });
    let mut host = [0.0f32; 32];
    // SAFETY: the memory is there after a launch, until it is freed; before and after, the calls say that it isn't.
    unsafe {
        use cudarc::driver::result::{free_async, memcpy_dtoh_sync};
        assert!(memcpy_dtoh_sync(&mut host, memory).is_err(), "nothing is there yet");
        graph.launch().unwrap();
        memcpy_dtoh_sync(&mut host, memory).unwrap();
        assert_eq!(host, [2.0; 32]);
        assert_eq!(graph.launch().unwrap_err().0, CUresult::CUDA_ERROR_INVALID_VALUE, "it is still there");
        free_async(memory, stream.cu_stream()).unwrap();
        assert!(memcpy_dtoh_sync(&mut host, memory).is_err(), "it is gone");
        graph.launch().unwrap();
        free_async(memory, stream.cu_stream()).unwrap();
    }
    let (graph, memory) =
        allocating(&stream, 32, Instantiate::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH, |memory| {
            add(&stream, &kernel, memory, one_at, one_at, 32);
        });
    graph.launch().unwrap();
    graph.launch().unwrap();
    // SAFETY: the memory is there.
    unsafe { cudarc::driver::result::free_async(memory, stream.cu_stream()) }.unwrap();
}

#[test]
fn memory_of_a_graph_begins_without_a_value_in_each_replay() {
    driver::open(|| {});
    let done = |result: CUresult| assert_eq!(result, CUresult::CUDA_SUCCESS);
    let ptx = std::ffi::CString::new(PTX).unwrap();
    // SAFETY: plain calls with places of ours, in a context of its own, which the fault ends.
    unsafe {
        use std::ptr::null_mut;
        let (mut context, mut module, mut add, mut stream) = (null_mut(), null_mut(), null_mut(), null_mut());
        done(sys::cuInit(0));
        done(sys::cuCtxCreate_v2(&raw mut context, 0, 0));
        done(sys::cuModuleLoadData(&raw mut module, ptx.as_ptr().cast()));
        done(sys::cuModuleGetFunction(&raw mut add, module, c"add".as_ptr()));
        done(sys::cuStreamCreate(&raw mut stream, 1));
        let (mut memory, mut written, mut n) = (0u64, 0u64, 32i32);
        done(sys::cuMemAlloc_v2(&raw mut written, 128));
        done(sys::cuMemsetD32_v2(written, 0, 32));
        done(sys::cuStreamBeginCapture_v2(stream, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
        done(sys::cuMemAllocAsync(&raw mut memory, 128, stream));
        let mut sum = |to: u64, from: u64| {
            let (mut to, mut from) = (to, from);
            let mut arguments =
                [(&raw mut to).cast(), (&raw mut from).cast(), (&raw mut from).cast(), (&raw mut n).cast()];
            let (arguments, extra) = (arguments.as_mut_ptr(), null_mut());
            done(sys::cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, stream, arguments, extra));
        };
        // Written, read and freed: each replay can do that.
        sum(memory, written);
        sum(written, memory);
        done(sys::cuMemFreeAsync(memory, stream));
        // Allocated again, and read: what the first allocation held is gone.
        done(sys::cuMemAllocAsync(&raw mut memory, 128, stream));
        sum(written, memory);
        let (mut graph, mut executable) = (null_mut(), null_mut());
        done(sys::cuStreamEndCapture(stream, &raw mut graph));
        done(sys::cuGraphInstantiateWithFlags(&raw mut executable, graph, 0));
        done(sys::cuGraphLaunch(executable, stream));
        assert_eq!(sys::cuStreamSynchronize(stream), CUresult::CUDA_ERROR_LAUNCH_FAILED);
        done(sys::cuCtxDestroy_v2(context));
    }
}

#[test]
fn a_capture_ends_where_the_driver_would_end_it() {
    use CUstreamCaptureMode::{
        CU_STREAM_CAPTURE_MODE_RELAXED as RELAXED, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL as STRICT,
    };
    // A context of its own: other tests capture in the primary one.
    driver::open(|| {});
    let context = CudaContext::new_non_primary(0, 0).unwrap();
    let stream = stream(&context);
    let allocate = || {
        // SAFETY: nobody uses the memory.
        unsafe {
            cudarc::driver::result::malloc_sync(64).and_then(|address| cudarc::driver::result::free_sync(address))
        }
    };
    for (mode, call, ends) in [
        (STRICT, &allocate as &dyn Fn() -> _, true),
        (RELAXED, &allocate, false),
        (RELAXED, &|| context.synchronize(), true),
    ] {
        stream.begin_capture(mode).unwrap();
        let outcome: Result<(), cudarc::driver::DriverError> = call();
        assert_eq!(
            outcome.map_err(|error| error.0),
            if ends { Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
        );
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).map(drop).map_err(|error| error.0);
        assert_eq!(graph, if ends { Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED) } else { Ok(()) });
    }
}

#[test]
fn a_module_that_goes_before_its_graph_is_named() {
    let context = context();
    let stream = stream(&context);
    let kernel = kernel(&context, "block_sum");
    let (input, mut output) = (stream.alloc_zeros::<f32>(32).unwrap(), stream.alloc_zeros::<f32>(1).unwrap());
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut output).arg(&input);
    let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 128 };
    // SAFETY: the arguments are the kernel's.
    unsafe { launch.launch(config) }.unwrap();
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().unwrap();
    drop(kernel);
    let said = text_of(b"gpusimTakeReport");
    assert!(said.contains("is unloaded") && said.contains("`block_sum`"), "{said}");
    drop(graph);
}

#[test]
fn events_time_and_order_streams() {
    // A context of its own: cudarc waits for all of it, and other tests capture in the primary one.
    driver::open(|| {});
    let context = CudaContext::new_non_primary(0, 0).unwrap();
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
    let resident = |threads, shared| sum.occupancy_max_active_blocks_per_multiprocessor(threads, shared, None).unwrap();
    // 164 KiB are there, of which a block can have 163; and it can have 1024 threads.
    assert_eq!([resident(256, 80 << 10), resident(256, 163 << 10), resident(256, (163 << 10) + 1)], [2, 1, 0]);
    assert_eq!([resident(1024, 0), resident(1025, 0)], [1, 0]);
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
