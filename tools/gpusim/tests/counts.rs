//! Counters and modelled times of kernels so small that the numbers are known by hand.

use gpusim::count::{Gpu, Summary};
use gpusim::program::Class;
use gpusim::simulator::{Arguments, Simulator};

fn a100() -> &'static Gpu {
    Gpu::named("A100").unwrap()
}

/// What `blocks` blocks of `threads` threads of a kernel with this body do. %in and %out are 1 MiB of device memory
/// each, %tile 16 KiB of shared memory, all written; %tid and %id are the thread's number in its block and of all.
fn measure(body: &str, blocks: u32, threads: u32, gpu: &Gpu) -> Summary {
    let ptx = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n\
         .visible .entry k(.param .u64 po, .param .u64 pi) {{\n\
         .reg .b64 %out, %in, %at, %far; .reg .b64 %d<2>; .reg .b32 %r<10>, %tid, %id, %tile; .reg .pred %p;\n\
         .shared .align 128 .b8 tile[16384];\n\
         ld.param.u64 %out, [po]; ld.param.u64 %in, [pi];\n\
         mov.u32 %tile, tile; mov.u32 %tid, %tid.x; mov.u32 %id, %ctaid.x; mad.lo.u32 %id, %id, {threads}, %tid;\n\
         {body}\n\
         ret; }}"
    );
    let mut gpu_in_software = Simulator::new(&ptx).unwrap();
    let memory = [0; 2].map(|_| gpu_in_software.upload(&vec![0; 1 << 20]).unwrap());
    let arguments = Arguments::new().pointer(memory[0]).pointer(memory[1]);
    let summary = gpu_in_software.measure("k", [blocks, 1, 1], [threads, 1, 1], 0, &arguments, gpu);
    summary.unwrap_or_else(|fault| panic!("{body}: {fault}"))
}

/// A copy of one word a thread, `stride` words apart, that begins `offset` bytes into the arrays.
fn copy(stride: u32, offset: u32) -> String {
    format!(
        "mul.wide.u32 %at, %id, {}; add.u64 %far, %in, %at; ld.global.b32 %r0, [%far+{offset}];\n\
         add.u64 %far, %out, %at; st.global.b32 [%far+{offset}], %r0;",
        4 * stride
    )
}

#[test]
fn sectors_of_a_request() {
    // 32 lanes of 4 bytes are 4 sectors side by side, 8 with a gap between, one a lane when far apart, and 5 when they
    // begin within a sector.
    for (stride, offset, sectors) in [(1, 0, 4), (2, 0, 8), (8, 0, 32), (32, 0, 32), (0, 0, 1), (1, 4, 5)] {
        // Stride 0 stores one value from all lanes of one warp; the other strides run on two blocks of two warps.
        let (blocks, threads) = if stride == 0 { (1, 32) } else { (2, 64) };
        let warps = u64::from(blocks * threads / 32);
        let summary = measure(&copy(stride, offset), blocks, threads, a100());
        assert_eq!(summary.requests, 2 * warps, "stride {stride}");
        assert_eq!(summary.sectors, 2 * warps * sectors, "stride {stride}, offset {offset}");
        let side_by_side = if stride == 0 { 1 } else { 4 };
        assert_eq!(summary.ideal_sectors, 2 * warps * side_by_side, "stride {stride}, offset {offset}");
    }
}

#[test]
fn wide_requests_take_as_many_sectors_as_they_have_bytes() {
    let body = "mul.wide.u32 %at, %id, 16; add.u64 %in, %in, %at; ld.global.v4.b32 {%r0,%r1,%r2,%r3}, [%in];";
    let summary = measure(body, 1, 32, a100());
    assert_eq!((summary.requests, summary.sectors, summary.touched_sectors), (1, 16, 16));
}

#[test]
fn a_sector_is_touched_once_by_however_many() {
    // Four warps read the same 128 bytes, three times each.
    let read = "ld.global.b32 %r1, [%in];";
    let body = format!("and.b32 %r0, %tid, 31; mul.wide.u32 %at, %r0, 4; add.u64 %in, %in, %at; {read} {read} {read}");
    let summary = measure(&body, 2, 64, a100());
    assert_eq!((summary.requests, summary.sectors, summary.touched_sectors), (12, 48, 4));
    // Warps whose data begins within a sector share the one at the border: 17 sectors for 16.
    assert_eq!(measure(&copy(1, 4), 2, 64, a100()).touched_sectors, 2 * 17);
}

#[test]
fn a_sector_that_is_read_and_written_moves_twice() {
    let at = "mul.wide.u32 %at, %id, 4; add.u64 %in, %in, %at;";
    let twice = "ld.global.b32 %r1, [%in]; st.global.b32 [%in], %r1;";
    let summary = measure(&format!("{at} {twice} {twice}"), 2, 64, a100());
    assert_eq!((summary.sectors, summary.touched_sectors, summary.written_sectors), (64, 32, 16));
    // What it reads back of its own is still in the cache.
    let back = "st.global.b32 [%in], %tid; ld.global.b32 %r1, [%in];";
    let summary = measure(&format!("{at} {back}"), 2, 64, a100());
    assert_eq!((summary.sectors, summary.touched_sectors, summary.written_sectors), (32, 16, 16));
}

#[test]
fn atomics_and_strong_accesses_touch_memory_too() {
    let at = "mul.wide.u32 %at, %id, 4; add.u64 %out, %out, %at;";
    for access in [
        "red.global.add.u32 [%out], 1;",
        "atom.global.add.u32 %r0, [%out], 1;",
        "ld.relaxed.gpu.global.u32 %r0, [%out];",
        "st.relaxed.gpu.global.u32 [%out], 1;",
        "ld.volatile.global.u32 %r0, [%out];",
    ] {
        let summary = measure(&format!("{at} {access}"), 2, 64, a100());
        assert_eq!((summary.requests, summary.sectors, summary.touched_sectors), (4, 16, 16), "{access}");
    }
    // All lanes on one counter.
    let summary = measure("red.global.add.u32 [%out], 1;", 2, 64, a100());
    assert_eq!((summary.requests, summary.sectors, summary.touched_sectors), (4, 4, 1));
}

#[test]
fn shared_memory_wavefronts() {
    // (bytes a lane, words between lanes, wavefronts, without conflicts)
    for (bytes, stride, wavefronts, ideal) in [
        (4, 1, 1, 1),
        (4, 2, 2, 1),
        (4, 3, 1, 1),
        (4, 32, 32, 1),
        (4, 33, 1, 1),
        (4, 0, 1, 1),
        (8, 2, 2, 2),
        (8, 4, 4, 2),
        (16, 4, 4, 4),
        (16, 8, 8, 4),
    ] {
        let vector = ["", ".v2", "", ".v4"][bytes / 4 - 1];
        let list = ["%r1", "{%r1,%r2}", "", "{%r1,%r2,%r3,%r4}"][bytes / 4 - 1];
        let fill = "mov.u32 %r1, 7; mov.u32 %r2, 7; mov.u32 %r3, 7; mov.u32 %r4, 7;";
        let address = format!("mad.lo.u32 %r0, %tid, {}, %tile;", 4 * stride);
        let store = format!("{fill} {address} st.shared{vector}.b32 [%r0], {list};");
        let summary = measure(&store, 1, 32, a100());
        let found = (summary.wavefronts, summary.ideal_wavefronts);
        assert_eq!(found, (wavefronts, ideal), "store of {bytes} bytes, stride {stride}");
        let both = format!("{store} bar.sync 0; ld.shared{vector}.b32 {list}, [%r0];");
        let summary = measure(&both, 1, 32, a100());
        let found = (summary.wavefronts, summary.ideal_wavefronts);
        assert_eq!(found, (2 * wavefronts, 2 * ideal), "load of {bytes} bytes, stride {stride}");
    }
}

#[test]
fn instructions_by_class() {
    let none = measure("", 1, 32, a100()).warp_instructions;
    let of = |body: &str| {
        let summary = measure(body, 1, 64, a100());
        let more = |(class, n): (Class, u64)| (class, n - 2 * none.get(&class).copied().unwrap_or(0));
        summary.warp_instructions.into_iter().map(more).filter(|&(_, n)| n > 0).collect::<Vec<_>>()
    };
    for (body, class) in [
        ("add.u32 %r0, %tid, 1;", Class::Integer),
        ("setp.lt.u32 %p, %tid, 1;", Class::Integer),
        ("selp.b32 %r0, %tid, 1, %p;", Class::Integer),
        ("lop3.b32 %r0, %tid, %id, %r1, 0x96;", Class::Integer),
        ("fma.rn.f32 %r0, %r1, %r2, %r3;", Class::Float),
        ("fma.rn.f16x2 %r0, %r1, %r2, %r3;", Class::Float),
        ("add.f64 %d0, %d1, %d1;", Class::Double),
        ("ex2.approx.f32 %r0, %r1;", Class::Special),
        ("rsqrt.approx.f32 %r0, %r1;", Class::Special),
        ("cvt.rn.f32.u32 %r0, %tid;", Class::Convert),
        ("mov.b32 %r0, %r1;", Class::Move),
        ("ld.global.b32 %r0, [%in];", Class::Memory),
        ("atom.global.add.u32 %r0, [%out], 1;", Class::Atomic),
        ("red.global.add.u32 [%out], 1;", Class::Atomic),
        ("shfl.sync.bfly.b32 %r0, %r1, 1, 31, 0xffffffff;", Class::Exchange),
        ("vote.sync.ballot.b32 %r0, %p, 0xffffffff;", Class::Exchange),
        ("bar.sync 0;", Class::Barrier),
        ("membar.gl;", Class::Barrier),
    ] {
        assert_eq!(of(body), [(class, 2)], "{body}");
    }
    // (A branch to the end of the kernel would be an end itself.)
    assert_eq!(of("bra next; next: add.u32 %r0, %tid, 1;"), [(Class::Integer, 2), (Class::Control, 2)]);
}

#[test]
fn lanes_that_a_branch_leaves_are_not_active() {
    let whole = measure("", 1, 32, a100());
    assert_eq!(whole.active_lanes, 1.0);
    // 24 lanes branch, past two additions of the other 8; all instructions around have 32 lanes.
    let body = "setp.ge.u32 %p, %tid, 8; @%p bra past; add.u32 %r0, %tid, 1; add.u32 %r0, %r0, 1; past: bar.sync 0;";
    let parted = measure(body, 1, 32, a100());
    let all: u64 = parted.warp_instructions.values().sum();
    assert_eq!(parted.active_lanes, (all * 32 - 8 - 2 * 24) as f64 / (all * 32) as f64);
    // A warp that isn't full.
    assert_eq!(measure("", 1, 8, a100()).active_lanes, 0.25);
}

const MMA_F16: &str = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r0,%r1,%r2,%r3}, {%r4,%r5,%r6,%r7}, {%r8,%r9}, \
                       {%r0,%r1,%r2,%r3};";
const MMA_TF32: &str = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r0,%r1,%r2,%r3}, {%r4,%r5,%r6,%r7}, {%r8,%r9}, \
                        {%r0,%r1,%r2,%r3};";
const MMA_S8: &str = "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r0,%r1,%r2,%r3}, {%r4,%r5,%r6,%r7}, {%r8,%r9}, \
                      {%r0,%r1,%r2,%r3};";
const MMA_F64: &str = "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%d0,%d1}, {%d0}, {%d1}, {%d0,%d1};";

/// The seconds of a floor, which must be there.
fn floor(summary: &Summary, by: &str) -> f64 {
    summary.floors.iter().find(|floor| floor.by == by).unwrap_or_else(|| panic!("no floor: {by}")).seconds
}

/// Equal but for rounding.
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-12 * expected, "{found:e} for {expected:e}");
}

#[test]
fn tensor_operations_and_their_time() {
    // (instruction, 2·M·N·K, FLOP/s of all 108 multiprocessors)
    for (body, flops, rate) in
        [(MMA_F16, 4096, 312e12), (MMA_TF32, 2048, 156e12), (MMA_S8, 8192, 624e12), (MMA_F64, 512, 19.5e12)]
    {
        // Three warps a block on two multiprocessors, or on all.
        for blocks in [2, 216] {
            let summary = measure(body, blocks, 96, a100());
            let (products, busy) = (3 * u64::from(blocks), f64::from(blocks.min(108)) / 108.0);
            assert_eq!(summary.tensor_flops, products * flops, "{body}");
            close(floor(&summary, "tensor cores"), (products * flops) as f64 / (rate * busy));
            assert_eq!(summary.warp_instructions[&Class::Matrix], products);
        }
    }
}

#[test]
fn floors_are_the_data_sheets() {
    // 54 blocks of 64 threads on A100 keep half of its multiprocessors busy: 54 of them at 1410 MHz.
    let cycle = 1.0 / 1410e6;
    let body = "fma.rn.f32 %r0, %r1, %r2, %r3; fma.rn.f32 %r0, %r1, %r2, %r0; fma.rn.f64 %d0, %d1, %d1, %d0;\n\
                ex2.approx.f32 %r0, %r1; mad.lo.u32 %r0, %tid, 128, %tile; st.shared.b32 [%r0], %tid;";
    let summary = measure(&format!("{body} {}", copy(1, 0)), 54, 64, a100());
    // 54 · 64 words are read, as many written, at 2.04 TB/s.
    close(floor(&summary, "device memory"), f64::from(54 * 64 * 4 * 2) / 2.04e12);
    // Each block has two warps, and a multiprocessor to itself. L2 gives it 64 bytes a cycle.
    close(floor(&summary, "L2 cache"), f64::from(64 * 4 * 2) / 64.0 * cycle);
    // 32 rows of the banks a warp.
    close(floor(&summary, "shared memory"), 2.0 * 32.0 * cycle);
    // 64 lanes of singles, 32 of doubles, 16 of special functions.
    close(floor(&summary, "single precision"), 2.0 * 2.0 * 32.0 / 64.0 * cycle);
    close(floor(&summary, "double precision"), 2.0 * 32.0 / 32.0 * cycle);
    close(floor(&summary, "special functions"), 2.0 * 32.0 / 16.0 * cycle);
    // Four instructions a cycle.
    let all: u64 = summary.warp_instructions.values().sum();
    close(floor(&summary, "issue"), all as f64 / 54.0 / 4.0 * cycle);
    let integers = summary.warp_instructions[&Class::Integer];
    close(floor(&summary, "integers"), integers as f64 / 54.0 * 32.0 / 64.0 * cycle);
}

#[test]
fn the_modelled_time_is_the_largest_floor_of_the_gpu_named() {
    let far_apart = "mad.lo.u32 %r0, %tid, 128, %tile; st.shared.b32 [%r0], %tid;";
    let products = MMA_F16.repeat(64);
    let exponentials = "ex2.approx.f32 %r0, %r1;".repeat(64);
    let sums = "add.f64 %d0, %d1, %d0;".repeat(64);
    for (body, blocks, by) in [
        (copy(1, 0).as_str(), 1000, "device memory"),
        // One multiprocessor can't draw on more than its path to the second-level cache.
        (copy(8, 0).as_str(), 1, "L2 cache"),
        (far_apart, 4, "shared memory"),
        (&products, 4, "tensor cores"),
        (&exponentials, 4, "special functions"),
        (&sums, 4, "double precision"),
    ] {
        let mut times = Vec::new();
        for gpu in Gpu::ALL {
            let summary = measure(body, blocks, 64, gpu);
            assert_eq!(summary.gpu, gpu.name);
            assert!(summary.floors.is_sorted_by(|a, b| a.seconds >= b.seconds), "{:?}", summary.floors);
            assert_eq!(summary.modelled_seconds(), summary.floors[0].seconds);
            assert_eq!(summary.modelled_seconds(), summary.seconds[gpu.name]);
            times.push(summary.modelled_seconds());
            if gpu.name == "A100" {
                assert_eq!(summary.floors[0].by, by, "{:?}", summary.floors);
            }
        }
        assert!(times.iter().all(|&time| time > 0.0) && times.iter().any(|&time| time != times[0]), "{times:?}");
    }
}

#[test]
fn a_summary_reads_as_a_table() {
    let table = measure(&copy(2, 0), 1, 32, a100()).to_string();
    // Shared memory has room for nine blocks of a warp.
    for text in ["(as PTX declares them: an upper bound)", " 14.1 % (9 blocks a multiprocessor)"] {
        assert!(table.contains(text), "no `{text}` in\n{table}");
    }
    for text in [
        "kernel `k` <<<(1,1,1), (32,1,1)>>>",
        "16 (8.00 a request, 50 % coalesced)",
        "active lanes",
        "us modelled on A100",
    ] {
        assert!(table.contains(text), "no `{text}` in\n{table}");
    }
}
