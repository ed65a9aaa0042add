//! Tensor-core kernels (tests/cuda/tensor.cu, compiled by NVRTC) against plain Rust.

use gpusim::program::Class;
use gpusim::simulator::{Arguments, Simulator};
use half::{bf16, f16};

fn simulator() -> Simulator {
    Simulator::new(include_str!("ptx/tensor.ptx")).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn noise(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// A pipelined product in 16-bit floats: `round` gives an element's bits, `value` what they mean.
fn gemm(name: &str, round: fn(f32) -> u16, value: fn(u16) -> f64) {
    let (m, n, k) = (128, 64, 96);
    let a: Vec<u16> = noise(m * k).into_iter().map(round).collect();
    let b: Vec<u16> = noise(n * k).into_iter().rev().map(round).collect();
    let mut gpu = simulator();
    let bytes = |values: &[u16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (da, db) = (gpu.upload(&bytes(&a)).unwrap(), gpu.upload(&bytes(&b)).unwrap());
    let c = gpu.allocate(4 * m * n).unwrap();
    let arguments = Arguments::new().pointer(c).pointer(da).pointer(db).int(n as i32).int(k as i32);
    let tally = gpu.launch(name, [1, 2, 1], [128, 1, 1], 0, &arguments).unwrap();
    let found = floats(&gpu.read(c, 4 * m * n));
    for row in 0..m {
        for column in 0..n {
            let expected: f64 = (0..k).map(|i| value(a[row * k + i]) * value(b[column * k + i])).sum();
            let error = (f64::from(found[row * n + column]) - expected).abs();
            assert!(
                error <= 1e-5 * expected.abs().max(1.0),
                "{row},{column}: {} for {expected}",
                found[row * n + column]
            );
        }
    }
    let kernel = gpu.kernel(name).unwrap();
    let flops: u64 = kernel.code.iter().zip(&tally.sites).map(|(i, site)| u64::from(i.flops) * site.warps).sum();
    assert_eq!(flops as usize, 2 * m * n * k);
    // Rows of 80 bytes put the eight rows of an ldmatrix into different banks.
    let loads = kernel.code.iter().zip(&tally.sites).filter(|(inst, _)| inst.class == Class::Matrix);
    assert_eq!(loads.map(|(_, site)| site.wavefronts - site.ideal_wavefronts).sum::<u64>(), 0);
}

#[test]
fn a_pipelined_product_in_half_precision() {
    gemm("gemm_f16", |x| f16::from_f32(x).to_bits(), |bits| f16::from_bits(bits).to_f64());
}

#[test]
fn a_pipelined_product_in_bfloat16() {
    gemm("gemm_bf16", |x| bf16::from_f32(x).to_bits(), |bits| bf16::from_bits(bits).to_f64());
}

#[test]
fn a_product_in_tf32() {
    let (a, b) = (noise(128), noise(64));
    let mut gpu = simulator();
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (da, db) = (gpu.upload(&bytes(&a)).unwrap(), gpu.upload(&bytes(&b)).unwrap());
    let c = gpu.allocate(512).unwrap();
    gpu.launch("product_tf32", [1, 1, 1], [32, 1, 1], 0, &Arguments::new().pointer(c).pointer(da).pointer(db)).unwrap();
    let found = floats(&gpu.read(c, 512));
    // Ten bits of mantissa, ties away from zero.
    let tf32 = |x: f32| f64::from(f32::from_bits(x.to_bits().wrapping_add(0x1000) & !0x1fff));
    for at in 0..128 {
        let expected: f64 = (0..8).map(|k| tf32(a[at / 8 * 8 + k]) * tf32(b[k * 8 + at % 8])).sum();
        assert!((f64::from(found[at]) - expected).abs() <= 1e-6, "{at}: {} for {expected}", found[at]);
    }
}

#[test]
fn ldmatrix_transposes() {
    let values: Vec<u16> = (0..64).collect();
    let mut gpu = simulator();
    let input = gpu.upload(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let output = gpu.allocate(128).unwrap();
    let arguments = Arguments::new().pointer(output).pointer(input);
    gpu.launch("transpose_8x8", [1, 1, 1], [32, 1, 1], 0, &arguments).unwrap();
    let found: Vec<u16> = gpu.read(output, 128).chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
    let expected: Vec<u16> = (0..64).map(|i| i % 8 * 8 + i / 8).collect();
    assert_eq!(found, expected);
}
