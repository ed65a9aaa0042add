//! How fast the simulated GPU computes, checks on: `cargo bench -p gpusim`, or `… -- mma` for the lines with that word.
//!
//! Rates are a core: work over processor time, so that other programs on the machine matter little.

use gpusim::exec::TensorSums;
use gpusim::program::Module;
use gpusim::simulator::{Arguments, Simulator};

/// Extent of the matrix products.
const N: usize = 512;

const PROGRAMS: &str = include_str!("../tests/ptx/programs.ptx");

/// Seconds of processor time that this process has used.
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Processor seconds of the fastest of a few runs.
fn fastest(mut run: impl FnMut()) -> f64 {
    let once = |run: &mut dyn FnMut()| {
        let start = processor_seconds();
        run();
        processor_seconds() - start
    };
    (0..7).map(|_| once(&mut run)).fold(f64::INFINITY, f64::min)
}

/// C = A·B of matrices of ones, in tiles of `tile`², `threads` a block.
fn product(ptx: &str, kernel: &str, one: &[u8], tile: usize, threads: u32, sums: TensorSums) -> f64 {
    let mut gpu = Simulator::new(ptx).unwrap();
    gpu.sums = sums;
    let ones = one.repeat(N * N);
    let (a, b) = (gpu.upload(&ones).unwrap(), gpu.upload(&ones).unwrap());
    let c = gpu.allocate(4 * N * N).unwrap();
    let arguments = Arguments::new().pointer(c).pointer(a).pointer(b).int(N as i32).int(N as i32);
    let tiles = (N / tile) as u32;
    fastest(|| {
        gpu.launch(kernel, [tiles, tiles, 1], [threads, 1, 1], 0, &arguments).unwrap();
    })
}

/// Reads `bytes` of bf16, applies a scale, a shift and a ReLU, and writes as many.
fn stream(bytes: usize) -> f64 {
    let mut gpu = Simulator::new(PROGRAMS).unwrap();
    let from = gpu.upload(&half::bf16::ONE.to_le_bytes().repeat(bytes / 2)).unwrap();
    let to = gpu.allocate(bytes).unwrap();
    let factors = gpu.upload(&1f32.to_le_bytes().repeat(64)).unwrap();
    let vectors = (bytes / 16) as i32;
    let arguments = Arguments::new().pointer(to).pointer(from).pointer(factors).pointer(factors).int(vectors);
    fastest(|| {
        gpu.launch("affine_relu", [128, 1, 1], [256, 1, 1], 0, &arguments).unwrap();
    })
}

/// Launches a kernel of one small block so many times.
fn launches(count: usize) -> f64 {
    let mut gpu = Simulator::new(include_str!("../tests/ptx/basics.ptx")).unwrap();
    let (a, c) = (gpu.upload(&[0; 1024]).unwrap(), gpu.allocate(1024).unwrap());
    let arguments = Arguments::new().pointer(c).pointer(a).pointer(a).int(256);
    fastest(|| {
        for _ in 0..count {
            gpu.launch("add", [1, 1, 1], [256, 1, 1], 0, &arguments).unwrap();
        }
    })
}

/// Parses a module and decodes all its kernels.
fn load(ptx: &str) -> f64 {
    fastest(|| {
        let mut module = Module::parse(ptx).unwrap();
        let names: Vec<String> = module.kernel_names().map(str::to_owned).collect();
        for name in names {
            module.kernel(&name).unwrap();
        }
    })
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let rate = |what: &str, work: f64, unit: &str, seconds: &dyn Fn() -> f64| {
        if words.iter().all(|word| what.contains(word.as_str())) {
            println!("{what:<44}{:>8.2} {unit}", work / seconds());
        }
    };
    let gflop = 2e-9 * (N * N * N) as f64;
    let tensor = include_str!("../tests/ptx/tensor.ptx");
    let (single, half) = (1f32.to_le_bytes(), half::f16::ONE.to_le_bytes());
    let brain = half::bf16::ONE.to_le_bytes();
    let a_core = "GFLOP/s a core";
    let (in_order, truncated) = (TensorSums::InOrder, TensorSums::of_hardware((8, 0)));
    rate("FFMA GEMM 512³, gemm_4", gflop, a_core, &|| product(PROGRAMS, "gemm_4", &single, 64, 256, in_order));
    rate("FFMA GEMM 512³, gemm_8", gflop, a_core, &|| product(PROGRAMS, "gemm_8", &single, 128, 256, in_order));
    rate("mma.sync GEMM 512³, gemm_bf16", gflop, a_core, &|| product(tensor, "gemm_bf16", &brain, 64, 128, in_order));
    rate("mma.sync GEMM 512³, gemm_f16", gflop, a_core, &|| product(tensor, "gemm_f16", &half, 64, 128, in_order));
    let cut_off = || product(tensor, "gemm_bf16", &brain, 64, 128, truncated);
    rate("mma.sync GEMM 512³, gemm_bf16, truncated sums", gflop, a_core, &cut_off);
    let bytes = 32 << 20;
    rate("streaming, affine_relu in bf16, 64 MiB", 2e-9 * bytes as f64, "GB/s a core", &|| stream(bytes));
    rate("launches of one block of 256 threads", 1e-3, "thousand/s", &|| launches(1000) / 1000.0);
    let ptx = include_str!("../tests/ptx/triton/matmul_f32.ptx");
    let lines = ptx.lines().count() as f64;
    rate("loading PTX, parsed and decoded", 1e-6 * lines, "million lines/s", &|| load(ptx));
}
