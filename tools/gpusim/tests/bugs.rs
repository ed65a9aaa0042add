//! Every check has a kernel with that very bug planted (tests/cuda/bugs.cu), and finds it.

use gpusim::fault::{Fault, Kind};
use gpusim::ptx::ast::Space;
use gpusim::simulator::{Arguments, Error, Simulator};

const PTX: &str = include_str!("ptx/bugs.ptx");

struct Bench {
    gpu: Simulator,
    out: u64,
    input: u64,
}

impl Bench {
    /// Memory for 1024 floats to write, and as many to read.
    fn new() -> Self {
        Bench::of(PTX)
    }

    fn of(ptx: &str) -> Self {
        let mut gpu = Simulator::new(ptx).unwrap();
        let out = gpu.allocate(4096).unwrap();
        let input = gpu.upload(&[0; 4096]).unwrap();
        Self { gpu, out, input }
    }

    /// The fault of a kernel; its line is checked to be one of the kernel's.
    fn fault(&mut self, name: &str, grid: u32, block: u32, shared: u32, arguments: &Arguments) -> Fault {
        match self.gpu.launch(name, [grid, 1, 1], [block, 1, 1], shared, arguments) {
            Err(Error::Fault(fault)) => {
                assert_eq!(fault.kernel, name);
                let start = PTX.lines().position(|line| line.contains(&format!(".entry {name}("))).unwrap() as u32;
                assert!(fault.line > start, "{fault}");
                *fault
            }
            Err(other) => panic!("{name}: {other}"),
            Ok(_) => panic!("{name}: the bug was not found"),
        }
    }
}

#[test]
fn an_access_out_of_bounds() {
    let mut bench = Bench::new();
    let arguments = Arguments::new().pointer(bench.out).int(1024);
    let fault = bench.fault("out_of_bounds", 9, 128, 0, &arguments);
    assert_eq!((fault.block, fault.thread), ([8, 0, 0], [0, 0, 0]));
    let Kind::OutOfBounds { address, bytes: 4, space: Space::Global, write: true, nearest } = &fault.kind else {
        panic!("{fault}")
    };
    assert_eq!(*address, bench.out + 4096);
    assert!(nearest.contains("0 bytes past the end of allocation 1 (device, 4096 bytes"), "{nearest}");
}

#[test]
fn a_use_after_free() {
    let mut bench = Bench::new();
    bench.gpu.free(bench.input);
    let arguments = Arguments::new().pointer(bench.out).pointer(bench.input);
    let fault = bench.fault("use_after_free", 1, 32, 0, &arguments);
    assert!(matches!(&fault.kind, Kind::UseAfterFree { write: false, .. }), "{fault}");
}

#[test]
fn a_misaligned_vector() {
    let mut bench = Bench::new();
    let arguments = Arguments::new().pointer(bench.out).pointer(bench.input);
    let fault = bench.fault("misaligned", 1, 32, 0, &arguments);
    assert_eq!(fault.thread, [1, 0, 0]);
    assert!(matches!(fault.kind, Kind::Misaligned { bytes: 16, write: false, .. }), "{fault}");
    let fault = bench.fault("async_misaligned", 1, 32, 0, &arguments);
    assert_eq!(fault.thread, [1, 0, 0]);
    assert!(matches!(fault.kind, Kind::Misaligned { bytes: 16, write: false, .. }), "{fault}");
}

#[test]
fn reads_of_what_nobody_wrote() {
    let mut bench = Bench::new();
    let never = bench.gpu.allocate(4096).unwrap();
    let arguments = Arguments::new().pointer(bench.out).pointer(never);
    let fault = bench.fault("uninitialised_global", 1, 32, 0, &arguments);
    assert!(matches!(fault.kind, Kind::Uninitialised { space: Space::Global, .. }), "{fault}");
    let fault = bench.fault("uninitialised_shared", 1, 64, 0, &Arguments::new().pointer(bench.out));
    assert!(matches!(fault.kind, Kind::Uninitialised { space: Space::Shared, address: 252, .. }), "{fault}");
}

#[test]
fn shared_memory_ends_where_the_launch_says() {
    let mut bench = Bench::new();
    let arguments = Arguments::new().pointer(bench.out);
    assert!(bench.gpu.launch("out_of_bounds_shared", [1, 1, 1], [64, 1, 1], 256, &arguments).is_ok());
    let fault = bench.fault("out_of_bounds_shared", 1, 64, 240, &arguments);
    assert!(matches!(fault.kind, Kind::OutOfBounds { space: Space::Shared, address: 240, .. }), "{fault}");
}

/// The kernel races for memory of `space`, and the report names both accesses.
fn races(name: &str, space: Space, grid: u32, block: u32) {
    let mut bench = Bench::new();
    let arguments = Arguments::new().pointer(bench.out).pointer(bench.input);
    let fault = bench.fault(name, grid, block, 0, &arguments);
    let Kind::Race { space: found, other, .. } = &fault.kind else { panic!("{fault}") };
    assert_eq!(*found, space, "{fault}");
    assert!(other.line > 0 && other.line != u32::MAX, "{fault}");
}

#[test]
fn races_for_shared_memory() {
    races("race_shared", Space::Shared, 1, 128);
    races("race_write_after_read", Space::Shared, 1, 128);
    races("race_in_warp", Space::Shared, 1, 32);
    races("async_without_barrier", Space::Shared, 1, 64);
}

#[test]
fn races_for_device_memory() {
    races("race_between_blocks", Space::Global, 8, 32);
    races("race_global_in_block", Space::Global, 1, 128);
}

/// The sum by the last block, with its fences; without those of all threads but one before the ticket; without those after.
#[test]
fn a_ticket_without_its_fences() {
    let mut bench = Bench::new();
    let arguments = Arguments::new().pointer(bench.out).pointer(bench.input);
    bench.gpu.launch("ticket_with_fences", [8, 1, 1], [64, 1, 1], 0, &arguments).unwrap();
    races("ticket_of_one_fence", Space::Global, 8, 64);
    races("ticket_without_second_fence", Space::Global, 8, 64);
}

/// A fence of the block is none for other blocks.
#[test]
fn a_ticket_with_the_fences_of_a_block() {
    for (kernel, fence, of_block) in [
        ("ticket_with_fences", "membar.gl;", "membar.cta;"),
        ("ticket_with_fences", "membar.gl;", "fence.acq_rel.cta;"),
        ("released_ticket", "fence.acq_rel.gpu;", "fence.acq_rel.cta;"),
        ("released_ticket", "fence.acq_rel.gpu;", "membar.cta;"),
    ] {
        let mut bench = Bench::of(&PTX.replace(fence, of_block));
        let arguments = Arguments::new().pointer(bench.out).pointer(bench.input);
        let fault = bench.fault(kernel, 8, 64, 0, &arguments);
        assert!(matches!(fault.kind, Kind::Race { space: Space::Global, .. }), "{of_block} in {kernel}: {fault}");
    }
}

/// The sum by the last block where thread 0 releases and acquires for all; without the barrier before it, its release or
/// its acquire.
#[test]
fn a_ticket_whose_thread_does_not_speak_for_its_block() {
    let mut bench = Bench::new();
    let arguments = Arguments::new().pointer(bench.out).pointer(bench.input);
    for _ in 0..2 {
        bench.gpu.launch("released_ticket", [8, 1, 1], [64, 1, 1], 0, &arguments).unwrap();
    }
    races("released_ticket_without_barrier", Space::Global, 8, 64);
    races("released_ticket_without_release", Space::Global, 8, 64);
    races("released_ticket_without_acquire", Space::Global, 8, 64);
}

/// A copy of nothing may name memory without a value, but not the place behind the end of an allocation; what lies
/// there behind the bytes that a copy does read is no matter.
#[test]
fn a_copy_of_zeros_from_nowhere() {
    let mut bench = Bench::new();
    let source = bench.gpu.upload(&[0; 4100]).unwrap();
    let never = bench.gpu.allocate(16).unwrap();
    let (out, behind) = (bench.out, source + 4112);
    let arguments = |from: u64, first, size| Arguments::new().pointer(out).pointer(from).int(first).int(size);
    for (from, first, size) in [(source, 1020, 16), (source, 1024, 4), (source, 1024, 0), (never, 0, 0)] {
        bench.gpu.launch("async_source", [1, 1, 1], [32, 1, 1], 0, &arguments(from, first, size)).unwrap();
    }
    let fault = bench.fault("async_source", 1, 32, 0, &arguments(source, 1024, 8));
    let Kind::OutOfBounds { address, bytes: 1, space: Space::Global, write: false, .. } = fault.kind else {
        panic!("{fault}")
    };
    assert_eq!(address, source + 4100);
    let fault = bench.fault("async_source", 1, 32, 0, &arguments(source, 1028, 0));
    let Kind::OutOfBounds { address, bytes: 0, space: Space::Global, write: false, .. } = fault.kind else {
        panic!("{fault}")
    };
    assert_eq!(address, behind);
    bench.gpu.free(never);
    let fault = bench.fault("async_source", 1, 32, 0, &arguments(never, 0, 0));
    assert!(matches!(fault.kind, Kind::UseAfterFree { bytes: 0, write: false, .. }), "{fault}");
}

#[test]
fn barriers_that_not_everybody_reaches() {
    let mut bench = Bench::new();
    let arguments = Arguments::new().pointer(bench.out);
    let fault = bench.fault("divergent_barrier", 1, 32, 0, &arguments);
    assert_eq!(fault.kind, Kind::DivergentBarrier { there: 16, live: 32 });
    let fault = bench.fault("deadlock", 1, 128, 0, &arguments);
    assert!(matches!(&fault.kind, Kind::Deadlock(waits) if waits.contains("warp 0 at barrier 1")), "{fault}");
}

#[test]
fn a_copy_that_nobody_waited_for() {
    let mut bench = Bench::new();
    let arguments = Arguments::new().pointer(bench.out).pointer(bench.input);
    let fault = bench.fault("async_unwaited", 1, 32, 0, &arguments);
    assert!(matches!(fault.kind, Kind::AsyncPending { .. }), "{fault}");
}

#[test]
fn a_shuffle_with_lanes_that_are_not_there() {
    let mut bench = Bench::new();
    let fault = bench.fault("member_mask", 1, 32, 0, &Arguments::new().pointer(bench.out));
    assert!(matches!(fault.kind, Kind::MemberMask { named: u32::MAX, .. }), "{fault}");
}

#[test]
fn a_trap() {
    let mut bench = Bench::new();
    let fault = bench.fault("traps", 1, 32, 0, &Arguments::new().pointer(bench.out));
    assert_eq!((fault.kind, fault.thread), (Kind::Trap, [3, 0, 0]));
}
