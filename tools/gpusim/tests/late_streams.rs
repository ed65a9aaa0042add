//! Streams that run as late as they may (`GPUSIM_STREAMS=late`): bugs that only this order shows, and what a program may
//! rely on in it.

mod driver;

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaGraph, CudaStream, LaunchConfig, PushKernelArg, result,
};
use cudarc::nvrtc::Ptx;
use std::ffi::c_char;
use std::process::Command;
use std::sync::Arc;

/// Elements of every array.
const N: usize = 64;
const BYTES: usize = 4 * N;

/// A context of a test's own, since faults end it, with two streams that keep no order with the default stream.
struct Gpu {
    context: Arc<CudaContext>,
    first: Arc<CudaStream>,
    second: Arc<CudaStream>,
    add: CudaFunction,
}

fn gpu() -> Gpu {
    driver::open(|| {
        // An empty value means streams that run at once: see `the_planted_bugs_go_unseen_otherwise`.
        if std::env::var_os("GPUSIM_STREAMS").is_none() {
            // SAFETY: before the driver is there, and tests begin with this.
            unsafe { std::env::set_var("GPUSIM_STREAMS", "late") };
        }
    });
    let context = CudaContext::new_non_primary(0, 0).unwrap();
    // SAFETY: tests order their streams themselves, or mean not to.
    unsafe { context.disable_event_tracking() };
    let add = context.load_module(Ptx::from_src(include_str!("ptx/basics.ptx"))).unwrap().load_function("add").unwrap();
    let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    Gpu { context, first, second, add }
}

/// Page-locked host memory of `N` singles, freed with its context.
struct Pinned(*mut f32);

impl Pinned {
    fn new(value: f32) -> Self {
        // SAFETY: plain memory, which `fill` writes.
        let mut pinned = Self(unsafe { result::malloc_host(BYTES, 0) }.unwrap().cast());
        pinned.fill(value);
        pinned
    }

    /// As a host does it that knows of no stream.
    fn fill(&mut self, value: f32) {
        // SAFETY: `N` singles are there.
        (0..N).for_each(|i| unsafe { self.0.add(i).write_volatile(value) });
    }

    /// What is there now: the same everywhere.
    fn value(&self) -> f32 {
        // SAFETY: `N` singles are there.
        let values: Vec<f32> = (0..N).map(|i| unsafe { self.0.add(i).read_volatile() }).collect();
        assert!(values.iter().all(|&value| value == values[0]), "{values:?}");
        values[0]
    }

    fn bytes(&self) -> &'static [u8] {
        // SAFETY: as above; the memory is there until its context ends.
        unsafe { std::slice::from_raw_parts(self.0.cast(), BYTES) }
    }

    fn bytes_mut(&mut self) -> &'static mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.cast(), BYTES) }
    }
}

fn code<T>(result: Result<T, cudarc::driver::DriverError>) -> CUresult {
    result.map_or_else(|error| error.0, |_| CUresult::CUDA_SUCCESS)
}

impl Gpu {
    /// Device memory that nobody has written.
    fn memory(&self) -> u64 {
        self.context.bind_to_thread().unwrap();
        // SAFETY: plain memory.
        unsafe { result::malloc_sync(BYTES) }.unwrap()
    }

    /// Sends page-locked memory to the device.
    fn send(&self, to: u64, from: &Pinned, stream: &CudaStream) {
        // SAFETY: both ends are `BYTES` long and outlive the stream's work.
        unsafe { result::memcpy_htod_async(to, from.bytes(), stream.cu_stream()) }.unwrap();
    }

    /// Fetches device memory into page-locked memory.
    fn fetch(&self, to: &mut Pinned, from: u64, stream: &CudaStream) {
        // SAFETY: as in `send`.
        unsafe { result::memcpy_dtoh_async(to.bytes_mut(), from, stream.cu_stream()) }.unwrap();
    }

    /// `to` = `a` + `b`, of `n` elements.
    fn add(&self, to: u64, a: u64, b: u64, n: usize, stream: &Arc<CudaStream>) {
        let count = n as i32;
        let mut launch = stream.launch_builder(&self.add);
        launch.arg(&to).arg(&a).arg(&b).arg(&count);
        // SAFETY: the arguments are the kernel's; where the memory is too short, that is the test.
        unsafe { launch.launch(LaunchConfig::for_num_elems(n as u32)) }.unwrap();
    }

    /// The value that device memory holds, by a copy that waits for the default stream only.
    fn now(&self, from: u64) -> f32 {
        let mut values = [0f32; N];
        // SAFETY: the memory is there.
        unsafe { result::memcpy_dtoh_sync(&mut values, from) }.unwrap();
        assert!(values.iter().all(|&value| value == values[0]), "{values:?}");
        values[0]
    }
}

/// A kernel that doesn't wait for the copy that brings what it reads: on which stream it came, nobody asks.
fn missing_wait(waits: bool) -> (CUresult, f32) {
    let gpu = gpu();
    let (from, mut out) = (Pinned::new(1.0), Pinned::new(0.0));
    let (a, b) = (gpu.memory(), gpu.memory());
    gpu.send(a, &from, &gpu.first);
    if waits {
        gpu.second.wait(&gpu.first.record_event(None).unwrap()).unwrap();
    }
    gpu.add(b, a, a, N, &gpu.second);
    gpu.fetch(&mut out, b, &gpu.second);
    (code(gpu.second.synchronize()), out.value())
}

/// A host that writes its staging memory anew before the copy from it is done.
fn early_overwrite(waits: bool) -> f32 {
    let gpu = gpu();
    let (mut staging, mut out) = (Pinned::new(1.0), Pinned::new(0.0));
    let a = gpu.memory();
    gpu.send(a, &staging, &gpu.first);
    if waits {
        gpu.first.record_event(None).unwrap().synchronize().unwrap();
    }
    staging.fill(2.0);
    gpu.fetch(&mut out, a, &gpu.first);
    gpu.first.synchronize().unwrap();
    out.value()
}

#[test]
fn a_missing_wait_is_found() {
    assert_eq!(missing_wait(false), (CUresult::CUDA_ERROR_LAUNCH_FAILED, 0.0));
    assert_eq!(missing_wait(true), (CUresult::CUDA_SUCCESS, 2.0));
}

#[test]
fn staging_memory_written_too_early_is_found() {
    assert_eq!(early_overwrite(false), 2.0);
    assert_eq!(early_overwrite(true), 1.0);
}

/// Runs a test of this program that is ignored otherwise, as a process of its own; gives what it said.
fn child(test: &str, streams: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", test, "--ignored", "--nocapture"];
    let output = Command::new(program).args(arguments).env("GPUSIM_STREAMS", streams).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    said
}

#[test]
fn the_planted_bugs_go_unseen_otherwise() {
    child("planted_bugs_without_the_mode", "");
}

#[test]
#[ignore = "the part of `the_planted_bugs_go_unseen_otherwise` that runs in a process of its own"]
fn planted_bugs_without_the_mode() {
    assert_eq!(missing_wait(false), (CUresult::CUDA_SUCCESS, 2.0));
    assert_eq!(early_overwrite(false), 1.0);
}

#[test]
fn the_end_of_the_process_does_what_is_left() {
    let said = child("work_left_behind", "late");
    assert!(said.contains("kernel `add`") && said.contains("CUDA_ERROR_LAUNCH_FAILED"), "{said}");
}

#[test]
#[ignore = "the part of `the_end_of_the_process_does_what_is_left` that runs in a process of its own"]
fn work_left_behind() {
    let gpu = gpu();
    let a = gpu.memory();
    gpu.add(a, a, a, N, &gpu.first);
    // Nobody ends the context.
    std::mem::forget(gpu);
}

#[test]
fn pageable_memory_is_read_and_written_before_the_call_returns() {
    let gpu = gpu();
    let (a, mut host) = (gpu.memory(), vec![1f32; N]);
    // SAFETY: the memory is there; CUDA says what it does with pageable memory.
    unsafe {
        result::memcpy_htod_async(a, &host, gpu.first.cu_stream()).unwrap();
        host.fill(2.0);
        result::memcpy_dtoh_async(&mut host, a, gpu.first.cu_stream()).unwrap();
        assert_eq!(host, [1.0; N]);
        // The synchronous call has read it, too, but may not have written the device's yet.
        host.fill(3.0);
        result::memcpy_htod_sync(a, &host).unwrap();
        host.fill(4.0);
    }
    let mut out = Pinned::new(0.0);
    gpu.fetch(&mut out, a, &gpu.second);
    gpu.second.synchronize().unwrap();
    assert_eq!(out.value(), 1.0, "a stream that keeps no order with the default stream has not waited for the copy");
    assert_eq!(gpu.now(a), 3.0);
}

#[test]
fn only_what_somebody_waits_for_is_done() {
    let gpu = gpu();
    let from = Pinned::new(1.0);
    let outs = [(); 2].map(|()| Pinned::new(0.0));
    let [mut one, mut two] = outs;
    let (a, b) = (gpu.memory(), gpu.memory());
    for (to, memory, stream) in [(&mut one, a, &gpu.first), (&mut two, b, &gpu.second)] {
        gpu.send(memory, &from, stream);
        gpu.fetch(to, memory, stream);
    }
    assert_eq!((one.value(), two.value()), (0.0, 0.0));
    gpu.second.synchronize().unwrap();
    assert_eq!((one.value(), two.value()), (0.0, 1.0));
    gpu.context.synchronize().unwrap();
    assert_eq!((one.value(), two.value()), (1.0, 1.0));
}

#[test]
fn events_are_reached_with_what_is_before_them() {
    let gpu = gpu();
    let (from, mut out) = (Pinned::new(1.0), Pinned::new(0.0));
    let a = gpu.memory();
    let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let begin = gpu.first.record_event(timed).unwrap();
    gpu.send(a, &from, &gpu.first);
    let sent = gpu.first.record_event(timed).unwrap();
    gpu.fetch(&mut out, a, &gpu.first);
    let mut milliseconds = 0.0;
    // SAFETY: events and place are there.
    let elapsed = unsafe { sys::cuEventElapsedTime_v2(&raw mut milliseconds, begin.cu_event(), sent.cu_event()) };
    assert_eq!(elapsed, CUresult::CUDA_ERROR_NOT_READY);
    sent.synchronize().unwrap();
    assert!(begin.elapsed_ms(&sent).unwrap() >= 0.0);
    assert_eq!(out.value(), 0.0);
    // Whoever asks again and again gets a yes in the end, and not at once.
    let fetched = gpu.first.record_event(None).unwrap();
    // SAFETY: the event is there.
    let query = |event: &CudaEvent| unsafe { sys::cuEventQuery(event.cu_event()) };
    assert_eq!(query(&sent), CUresult::CUDA_SUCCESS);
    assert_eq!(query(&fetched), CUresult::CUDA_ERROR_NOT_READY);
    let answers = (0..5).map(|_| query(&fetched)).collect::<Vec<_>>();
    assert_eq!(answers.last(), Some(&CUresult::CUDA_SUCCESS), "{answers:?}");
    assert_eq!(out.value(), 1.0);
    gpu.fetch(&mut out, a, &gpu.first);
    // SAFETY: the stream is there.
    let query = || unsafe { sys::cuStreamQuery(gpu.first.cu_stream()) };
    assert_eq!([query(), query()], [CUresult::CUDA_ERROR_NOT_READY, CUresult::CUDA_SUCCESS]);
}

/// A stream that keeps order with the legacy default stream.
fn blocking_stream() -> sys::CUstream {
    result::stream::create(result::stream::StreamKind::Default).unwrap()
}

#[test]
fn the_legacy_default_stream_keeps_order_with_blocking_streams() {
    let gpu = gpu();
    let from = Pinned::new(1.0);
    let (a, b) = (gpu.memory(), gpu.memory());
    let blocking = blocking_stream();
    // SAFETY: memory and stream are there.
    unsafe {
        result::memcpy_htod_async(a, from.bytes(), blocking).unwrap();
        // Waits for the copy above: on the default stream, and it is synchronous.
        assert_eq!(gpu.now(a), 1.0);
        // A memset without a stream is on the default stream, too, and nobody waits for it; the next copy does.
        assert_eq!(sys::cuMemsetD32_v2(b, 2f32.to_bits(), N), CUresult::CUDA_SUCCESS);
        result::memcpy_dtod_async(a, b, BYTES, blocking).unwrap();
        let mut out = Pinned::new(0.0);
        result::memcpy_dtoh_async(out.bytes_mut(), a, blocking).unwrap();
        assert_eq!(out.value(), 0.0);
        result::stream::synchronize(blocking).unwrap();
        assert_eq!(out.value(), 2.0);
        // Work that is left when the stream goes is done all the same.
        assert_eq!(sys::cuMemsetD32Async(a, 3f32.to_bits(), N, blocking), CUresult::CUDA_SUCCESS);
        result::stream::destroy(blocking).unwrap();
        assert_eq!(gpu.now(a), 3.0);
    }
}

#[test]
fn errors_of_late_work_come_from_a_later_call() {
    let gpu = gpu();
    let a = gpu.memory();
    gpu.add(a, a, a, N, &gpu.first);
    let b = gpu.memory();
    // SAFETY: the memory is there.
    unsafe { result::memset_d8_async(b, 0, BYTES, gpu.second.cu_stream()) }.unwrap();
    gpu.second.synchronize().unwrap();
    assert_eq!(code(gpu.first.synchronize()), CUresult::CUDA_ERROR_LAUNCH_FAILED);
    assert_eq!(code(gpu.second.synchronize()), CUresult::CUDA_ERROR_LAUNCH_FAILED);
}

#[test]
fn freeing_waits_or_keeps_its_place() {
    let gpu = gpu();
    let (from, mut out) = (Pinned::new(1.0), Pinned::new(0.0));
    let (a, b) = (gpu.memory(), gpu.memory());
    gpu.send(a, &from, &gpu.first);
    gpu.fetch(&mut out, a, &gpu.first);
    // SAFETY: both are freed once; what still uses `a` has been done then, and what comes behind on `b`'s stream has not.
    unsafe {
        result::free_sync(a).unwrap();
        assert_eq!(out.value(), 1.0);
        result::memset_d8_async(b, 0, BYTES, gpu.first.cu_stream()).unwrap();
        gpu.fetch(&mut out, b, &gpu.first);
        result::free_async(b, gpu.first.cu_stream()).unwrap();
        gpu.first.synchronize().unwrap();
        assert_eq!(out.value(), 0.0);
        let c = gpu.memory();
        result::memset_d8_async(c, 0, BYTES, gpu.first.cu_stream()).unwrap();
        result::free_async(c, gpu.first.cu_stream()).unwrap();
        gpu.add(c, c, c, N, &gpu.first);
    }
    assert_eq!(code(gpu.first.synchronize()), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
}

#[test]
fn late_work_that_goes_wrong_fails_its_context() {
    let gpu = gpu();
    let a = gpu.memory();
    // SAFETY: freed twice, which the driver can only tell when it does it.
    unsafe {
        result::free_async(a, gpu.first.cu_stream()).unwrap();
        result::free_async(a, gpu.first.cu_stream()).unwrap();
    }
    assert_eq!(code(gpu.first.synchronize()), CUresult::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(code(gpu.second.synchronize()), CUresult::CUDA_ERROR_INVALID_VALUE);
}

#[test]
#[ignore = "a minute, for 30 GiB twice"]
fn memory_that_streams_have_yet_to_free_is_no_reason_to_refuse() {
    let gpu = gpu();
    let bytes = 30 << 30;
    // SAFETY: nobody uses the memory.
    unsafe {
        let first = result::malloc_sync(bytes).unwrap();
        result::free_async(first, gpu.first.cu_stream()).unwrap();
        let second = result::malloc_sync(bytes).unwrap();
        result::free_sync(second).unwrap();
    }
}

#[test]
fn a_graph_is_launched_late() {
    let gpu = gpu();
    let (mut from, mut out) = (Pinned::new(1.0), Pinned::new(0.0));
    let (a, b) = (gpu.memory(), gpu.memory());
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    gpu.first.begin_capture(mode).unwrap();
    gpu.send(a, &from, &gpu.first);
    gpu.add(b, a, a, N, &gpu.first);
    gpu.fetch(&mut out, b, &gpu.first);
    let graph: CudaGraph = gpu.first.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().unwrap();
    graph.launch().unwrap();
    from.fill(2.0);
    assert_eq!(out.value(), 0.0);
    gpu.first.synchronize().unwrap();
    assert_eq!(out.value(), 4.0, "the host wrote too early");
    graph.launch().unwrap();
    // The launch goes on without its graph.
    drop(graph);
    out.fill(0.0);
    gpu.first.synchronize().unwrap();
    assert_eq!(out.value(), 4.0);
}

#[test]
fn the_end_of_a_context_does_what_is_left() {
    let memory = {
        let gpu = gpu();
        let memory = gpu.memory();
        gpu.add(memory, memory, memory, N, &gpu.second);
        memory
    };
    let said = report();
    assert!(said.contains(&format!("at {memory:#x}")), "{said}");
}

/// What the driver has said.
fn report() -> String {
    type Take = unsafe extern "C" fn(*mut c_char, usize) -> usize;
    // SAFETY: as the library declares it.
    let take = unsafe { driver::open(|| {}).get::<Take>(b"gpusimTakeReport") }.unwrap();
    let mut buffer = vec![0u8; 1 << 20];
    // SAFETY: the buffer is that long.
    let length = unsafe { take(buffer.as_mut_ptr().cast(), buffer.len()) };
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}
