//! How fast the simulated GPU computes, checks on: `cargo bench -p gpusim`.

use gpusim::simulator::{Arguments, Simulator};
use std::time::Instant;

/// Seconds of the fastest of a few launches.
fn fastest(mut launch: impl FnMut()) -> f64 {
    let once = |launch: &mut dyn FnMut()| {
        let start = Instant::now();
        launch();
        start.elapsed().as_secs_f64()
    };
    (0..5)
        .map(|_| once(&mut launch))
        .fold(f64::INFINITY, f64::min)
}

fn report(what: &str, flop: f64, seconds: f64) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{what:<28}{:>8.2} GFLOP/s on {cores} cores",
        flop / seconds / 1e9
    );
}

fn main() {
    let n = 512usize;
    let flop = 2.0 * (n * n * n) as f64;
    let mut gpu = Simulator::new(include_str!("../tests/ptx/programs.ptx")).unwrap();
    let ones: Vec<u8> = (0..n * n).flat_map(|_| 1f32.to_le_bytes()).collect();
    let (a, b) = (gpu.upload(&ones).unwrap(), gpu.upload(&ones).unwrap());
    let c = gpu.allocate(4 * n * n).unwrap();
    let arguments = Arguments::new()
        .pointer(c)
        .pointer(a)
        .pointer(b)
        .int(n as i32)
        .int(n as i32);
    let tiles = (n / 64) as u32;
    let seconds = fastest(|| {
        gpu.launch("gemm", [tiles, tiles, 1], [256, 1, 1], 0, &arguments)
            .unwrap();
    });
    report("FFMA GEMM, f32, 512³", flop, seconds);

    let mut gpu = Simulator::new(include_str!("../tests/ptx/tensor.ptx")).unwrap();
    let ones: Vec<u8> = (0..n * n)
        .flat_map(|_| half::bf16::ONE.to_le_bytes())
        .collect();
    let (a, b) = (gpu.upload(&ones).unwrap(), gpu.upload(&ones).unwrap());
    let c = gpu.allocate(4 * n * n).unwrap();
    let arguments = Arguments::new()
        .pointer(c)
        .pointer(a)
        .pointer(b)
        .int(n as i32)
        .int(n as i32);
    for name in ["gemm_bf16", "gemm_f16"] {
        let seconds = fastest(|| {
            gpu.launch(name, [tiles, tiles, 1], [128, 1, 1], 0, &arguments)
                .unwrap();
        });
        report(&format!("mma.sync, {name}, 512³"), flop, seconds);
    }
}
