//! How fast the simulated GPU computes, checks on: `cargo bench -p gpusim`.
//!
//! Rates are a core: operations over processor time, so that other work on the machine matters little.

use gpusim::simulator::{Arguments, Simulator};

/// Seconds of processor time that this process has used.
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Processor seconds of the fastest of a few launches.
fn fastest(mut launch: impl FnMut()) -> f64 {
    let once = |launch: &mut dyn FnMut()| {
        let start = processor_seconds();
        launch();
        processor_seconds() - start
    };
    (0..5).map(|_| once(&mut launch)).fold(f64::INFINITY, f64::min)
}

fn report(what: &str, flop: f64, seconds: f64) {
    println!("{what:<28}{:>8.2} GFLOP/s a core", flop / seconds / 1e9);
}

fn main() {
    let n = 512usize;
    let flop = 2.0 * (n * n * n) as f64;
    let mut gpu = Simulator::new(include_str!("../tests/ptx/programs.ptx")).unwrap();
    let ones: Vec<u8> = (0..n * n).flat_map(|_| 1f32.to_le_bytes()).collect();
    let (a, b) = (gpu.upload(&ones).unwrap(), gpu.upload(&ones).unwrap());
    let c = gpu.allocate(4 * n * n).unwrap();
    let arguments = Arguments::new().pointer(c).pointer(a).pointer(b).int(n as i32).int(n as i32);
    for (name, tile) in [("gemm_4", 64), ("gemm_8", 128)] {
        let tiles = (n / tile) as u32;
        let seconds = fastest(|| {
            gpu.launch(name, [tiles, tiles, 1], [256, 1, 1], 0, &arguments).unwrap();
        });
        report(&format!("FFMA, {name}, 512³"), flop, seconds);
    }

    let tiles = (n / 64) as u32;
    let mut gpu = Simulator::new(include_str!("../tests/ptx/tensor.ptx")).unwrap();
    let ones: Vec<u8> = (0..n * n).flat_map(|_| half::bf16::ONE.to_le_bytes()).collect();
    let (a, b) = (gpu.upload(&ones).unwrap(), gpu.upload(&ones).unwrap());
    let c = gpu.allocate(4 * n * n).unwrap();
    let arguments = Arguments::new().pointer(c).pointer(a).pointer(b).int(n as i32).int(n as i32);
    for name in ["gemm_bf16", "gemm_f16"] {
        let seconds = fastest(|| {
            gpu.launch(name, [tiles, tiles, 1], [128, 1, 1], 0, &arguments).unwrap();
        });
        report(&format!("mma.sync, {name}, 512³"), flop, seconds);
    }
}
