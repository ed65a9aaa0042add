//! What Hopper adds (tests/cuda/hopper.cu, compiled by NVRTC for sm_90a) against plain Rust.

use gpusim::exec::TensorSums;
use gpusim::fault::Kind;
use gpusim::simulator::{Arguments, Error, Simulator};

/// Sums of tensor cores, rounded and as the hardware cuts them off: of small integers both are exact.
fn sums() -> [TensorSums; 2] {
    [TensorSums::InOrder, TensorSums::of_hardware((9, 0))]
}

fn simulator() -> Simulator {
    Simulator::new(include_str!("ptx/hopper.ptx")).unwrap()
}

fn ints(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Runs a kernel of one block whose first argument is where `n` integers go.
fn integers(name: &str, threads: u32, n: usize, rest: impl Fn(Arguments) -> Arguments) -> Vec<i32> {
    let mut gpu = simulator();
    let out = gpu.allocate(4 * n).unwrap();
    gpu.launch(name, [1, 1, 1], [threads, 1, 1], 0, &rest(Arguments::new().pointer(out))).unwrap();
    ints(&gpu.read(out, 4 * n))
}

/// The fault of a kernel that is wrong.
fn fault(name: &str, threads: u32, arguments: impl Fn(&mut Simulator) -> Arguments) -> Kind {
    let mut gpu = simulator();
    let arguments = arguments(&mut gpu);
    match gpu.launch(name, [1, 1, 1], [threads, 1, 1], 0, &arguments) {
        Err(Error::Fault(fault)) => fault.kind,
        Err(other) => panic!("{name}: {other}"),
        Ok(_) => panic!("{name}: nothing was found"),
    }
}

#[test]
fn a_ring_between_two_warps_is_ordered_by_its_barriers() {
    let found = integers("ring", 64, 320, |arguments| arguments.int(10));
    assert_eq!(found, (0..320).map(|i| 3 * (i ^ 1)).collect::<Vec<i32>>());
}

#[test]
fn a_ring_read_without_a_wait_is_a_race() {
    let kind = fault("ring_without_wait", 64, |gpu| Arguments::new().pointer(gpu.allocate(1280).unwrap()).int(2));
    assert!(matches!(kind, Kind::Race { .. }), "{kind}");
}

#[test]
fn arrivals_bytes_and_phases_are_counted() {
    assert_eq!(integers("forms", 1, 8, |arguments| arguments), [3, 0, 0, 1, 0, 1, 1, 1]);
}

#[test]
fn a_wait_that_nobody_ends_is_found() {
    let kind = fault("one_short", 1, |_| Arguments::new());
    assert!(
        matches!(&kind, Kind::Mbarrier { what, .. } if what.contains("phase 0 lacks 1 arrivals and 0 bytes")),
        "{kind}"
    );
}

#[test]
fn more_arrivals_than_expected_are_found() {
    let kind = fault("one_too_many", 32, |_| Arguments::new());
    assert!(matches!(&kind, Kind::Mbarrier { what, .. } if what.contains("3 arrivals where 2 are pending")), "{kind}");
}

#[test]
fn an_arrival_without_order_after_the_initialisation_is_a_race() {
    let kind = fault("unannounced", 64, |_| Arguments::new());
    assert!(matches!(kind, Kind::Race { .. }), "{kind}");
}

#[test]
fn a_cluster_of_one_block_meets_at_its_barrier() {
    let found = integers("cluster", 64, 64, |arguments| arguments);
    let expected: Vec<i32> = (0..64).map(|i| if i % 32 == 0 { 1000 } else { 63 - i }).collect();
    assert_eq!(found, expected);
}

/// Runs `add_one` or a broken form of it on two blocks; gives the result.
fn add_one(name: &str) -> Result<Vec<f32>, Error> {
    let mut gpu = simulator();
    let values: Vec<u8> = (0..640).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let (input, out) = (gpu.upload(&values)?, gpu.allocate(2560)?);
    let arguments = Arguments::new().pointer(out).pointer(input);
    let tally = gpu.launch(name, [2, 1, 1], [64, 1, 1], 0, &arguments)?;
    assert_eq!(tally.touched_sectors, 160, "both arrays, once each");
    Ok(gpu.read(out, 2560).chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

#[test]
fn bulk_copies_bring_and_send() {
    assert_eq!(add_one("add_one").unwrap(), (0..640).map(|i| i as f32 + 1.0).collect::<Vec<f32>>());
}

#[test]
fn a_bulk_copy_that_nobody_waited_for_is_a_race() {
    for name in ["add_one_early", "add_one_late"] {
        match add_one(name) {
            Err(Error::Fault(fault)) => {
                assert!(matches!(fault.kind, Kind::Race { other, .. } if other.thread.is_none()), "{name}: {fault}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Runs a product of 64×16 and 32×16 numbers of 16 bits, twice summed in this way; gives the result and what it should be.
fn product(name: &str, kind: &str, swizzle: i32, sums: TensorSums) -> Result<(Vec<f32>, Vec<f32>), Error> {
    // Small integers: every sum is exact.
    let values = |n: i32, step: i32| (0..n).map(|i| (i * step % 13 - 6) as f32).collect::<Vec<f32>>();
    let (a, b) = (values(64 * 16, 7), values(32 * 16, 5));
    // The kernels are in halves.
    let ptx = include_str!("ptx/hopper.ptx").replace("f32.f16.f16", &format!("f32.{kind}.{kind}"));
    let mut gpu = Simulator::new(&ptx)?;
    gpu.sums = sums;
    let narrow = |v: &f32| {
        if kind == "f16" { half::f16::from_f32(*v).to_le_bytes() } else { half::bf16::from_f32(*v).to_le_bytes() }
    };
    let mut upload = |values: &[f32]| gpu.upload(&values.iter().flat_map(narrow).collect::<Vec<u8>>());
    let (da, db) = (upload(&a)?, upload(&b)?);
    let out = gpu.allocate(4 * 64 * 32)?;
    let arguments = Arguments::new().pointer(out).pointer(da).pointer(db).int(swizzle);
    let tally = gpu.launch(name, [1, 1, 1], [128, 1, 1], 0, &arguments)?;
    let kernel = gpu.kernel(name)?;
    let flops: u64 = kernel.code.iter().zip(&tally.sites).map(|(i, site)| u64::from(i.flops) * site.warps).sum();
    assert_eq!(flops, 2 * 2 * 64 * 32 * 16, "{name}");
    let found =
        gpu.read(out, 4 * 64 * 32).chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let element = |at: usize| 2.0 * (0..16).map(|k| a[at / 32 * 16 + k] * b[at % 32 * 16 + k]).sum::<f32>();
    Ok((found, (0..64 * 32).map(element).collect()))
}

#[test]
fn a_product_of_a_warpgroup_in_every_swizzle() {
    for kind in ["f16", "bf16"] {
        for (swizzle, sums) in [0, 32, 64, 128].into_iter().flat_map(|swizzle| sums().map(|sums| (swizzle, sums))) {
            let (found, expected) = product("product", kind, swizzle, sums).unwrap();
            assert_eq!(found, expected, "{kind}, swizzle {swizzle}, {sums:?}");
            let (found, expected) = product("product_from_registers", kind, swizzle, sums).unwrap();
            let negative: Vec<f32> = expected.iter().map(|v| -v).collect();
            assert_eq!(found, negative, "{kind} from registers, swizzle {swizzle}, {sums:?}");
        }
    }
}

#[test]
fn memory_written_under_a_product_that_nobody_waited_for_is_a_race() {
    match product("product_without_wait", "f16", 128, TensorSums::InOrder) {
        Err(Error::Fault(fault)) => {
            assert!(matches!(fault.kind, Kind::Race { other, .. } if !other.write), "{fault}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn copies_of_threads_arrive_at_a_barrier() {
    let mut gpu = simulator();
    let input = gpu.upload(&(0..32i32).flat_map(i32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    let out = gpu.allocate(128).unwrap();
    let arguments = Arguments::new().pointer(out).pointer(input);
    gpu.launch("behind_copies", [1, 1, 1], [64, 1, 1], 0, &arguments).unwrap();
    assert_eq!(ints(&gpu.read(out, 128)), (0..32).rev().collect::<Vec<i32>>());
    match gpu.launch("behind_copies_without_wait", [1, 1, 1], [64, 1, 1], 0, &arguments) {
        Err(Error::Fault(fault)) => assert!(matches!(fault.kind, Kind::Race { .. }), "{fault}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}
