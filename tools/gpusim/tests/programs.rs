//! Whole CUDA C++ kernels (tests/cuda/programs.cu, compiled by NVRTC) against plain Rust.

use gpusim::simulator::{Arguments, Simulator};
use half::bf16;

fn simulator() -> Simulator {
    Simulator::new(include_str!("ptx/programs.ptx")).unwrap()
}

fn bytes<T: Copy, const N: usize>(values: &[T], to: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| to(value)).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn ints(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Values in [-1, 1) without a pattern.
fn noise(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// The worst error of `found`, relative to the larger of 1 and what was expected; NaN if there is one.
fn worst(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(expected)
        .map(|(&f, &e)| (f64::from(f) - e).abs() / e.abs().max(1.0))
        .fold(0.0, |worst, error| if error <= worst { worst } else { error })
}

#[test]
fn the_comparison_sees_a_wrong_value_and_a_nan() {
    assert!(worst(&[1.0, 2.0], &[1.0, 2.5]) > 0.1);
    assert!(worst(&[1.0, f32::NAN], &[1.0, 2.0]).is_nan());
}

#[test]
fn a_transpose_through_shared_memory() {
    let (rows, columns) = (70, 45);
    let values = noise(rows * columns);
    let mut gpu = simulator();
    let mut conflicts = Vec::new();
    for name in ["transpose", "transpose_conflicts"] {
        let input = gpu.upload(&bytes(&values, f32::to_le_bytes)).unwrap();
        let output = gpu.allocate(4 * rows * columns).unwrap();
        let arguments = Arguments::new().pointer(output).pointer(input).int(rows as i32).int(columns as i32);
        let tally = gpu.launch(name, [2, 3, 1], [32, 8, 1], 0, &arguments).unwrap();
        let found = floats(&gpu.read(output, 4 * rows * columns));
        for row in 0..rows {
            for column in 0..columns {
                assert_eq!(found[column * rows + row], values[row * columns + column]);
            }
        }
        conflicts.push(tally.sites.iter().map(|site| site.wavefronts - site.ideal_wavefronts).sum::<u64>());
    }
    assert_eq!(conflicts[0], 0, "the padded tile has no bank conflicts");
    assert!(conflicts[1] > 1000, "the other has {}", conflicts[1]);
}

#[test]
fn a_scan_by_shuffles() {
    let values: Vec<i32> = (0..1000).map(|i| i * 37 % 101 - 50).collect();
    let mut gpu = simulator();
    let input = gpu.upload(&bytes(&values, i32::to_le_bytes)).unwrap();
    let output = gpu.allocate(4000).unwrap();
    let arguments = Arguments::new().pointer(output).pointer(input).int(1000);
    gpu.launch("scan", [1, 1, 1], [1024, 1, 1], 0, &arguments).unwrap();
    let expected: Vec<i32> = values
        .iter()
        .scan(0, |sum, &value| {
            *sum += value;
            Some(*sum)
        })
        .collect();
    assert_eq!(ints(&gpu.read(output, 4000)), expected);
}

#[test]
fn a_histogram_by_atomics() {
    let values: Vec<u8> = (0..50_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut gpu = simulator();
    let input = gpu.upload(&values).unwrap();
    let bins = gpu.upload(&[0; 1024]).unwrap();
    let arguments = Arguments::new().pointer(bins).pointer(input).int(values.len() as i32);
    gpu.launch("histogram", [8, 1, 1], [128, 1, 1], 0, &arguments).unwrap();
    let mut expected = vec![0; 256];
    values.iter().for_each(|&value| expected[usize::from(value)] += 1);
    assert_eq!(ints(&gpu.read(bins, 1024)), expected);
}

/// A product by the kernel that has `tile` rows and columns a block.
fn gemm(name: &str, tile: usize) {
    let (m, n, k) = (2 * tile, 3 * tile, 48);
    let (a, b) = (noise(m * k), noise(k * n));
    let mut gpu = simulator();
    let (da, db) =
        (gpu.upload(&bytes(&a, f32::to_le_bytes)).unwrap(), gpu.upload(&bytes(&b, f32::to_le_bytes)).unwrap());
    let c = gpu.allocate(4 * m * n).unwrap();
    let arguments = Arguments::new().pointer(c).pointer(da).pointer(db).int(n as i32).int(k as i32);
    let tally = gpu.launch(name, [3, 2, 1], [256, 1, 1], 0, &arguments).unwrap();
    let expected: Vec<f64> = (0..m * n)
        .map(|at| (0..k).map(|i| f64::from(a[at / n * k + i]) * f64::from(b[i * n + at % n])).sum())
        .collect();
    let error = worst(&floats(&gpu.read(c, 4 * m * n)), &expected);
    assert!(error <= 1e-5, "{error}");
    // Every operand and result is touched once, in sectors of 8 floats.
    assert_eq!(tally.touched_sectors as usize, (m * k + k * n + m * n) / 8);
}

#[test]
fn tiled_matrix_products() {
    gemm("gemm_4", 64);
    gemm("gemm_8", 128);
}

#[test]
fn a_batch_norm_streams_bf16() {
    // A last block of which part of a warp has nothing to do.
    let (rows, channels) = (77, 64);
    let values: Vec<bf16> = noise(rows * channels).into_iter().map(bf16::from_f32).collect();
    let factors = noise(2 * channels);
    let (scale, shift) = factors.split_at(channels);
    let mut gpu = simulator();
    let x = gpu.upload(&bytes(&values, bf16::to_le_bytes)).unwrap();
    let [a, b] = [scale, shift].map(|factors| gpu.upload(&bytes(factors, f32::to_le_bytes)).unwrap());
    let y = gpu.allocate(2 * values.len()).unwrap();
    let arguments = Arguments::new().pointer(y).pointer(x).pointer(a).pointer(b).int(values.len() as i32 / 8);
    gpu.launch("affine_relu", [2, 1, 1], [256, 1, 1], 0, &arguments).unwrap();
    let found = gpu.read(y, 2 * values.len());
    for (i, (found, value)) in found.chunks_exact(2).zip(&values).enumerate() {
        let expected = value.to_f32().mul_add(scale[i % channels], shift[i % channels]).max(0.0);
        assert_eq!(bf16::from_le_bytes([found[0], found[1]]), bf16::from_f32(expected), "element {i}");
    }
}

#[test]
fn threads_that_loop_a_different_number_of_times() {
    let mut gpu = simulator();
    let output = gpu.allocate(4 * 1000).unwrap();
    let arguments = Arguments::new().pointer(output).int(1000);
    gpu.launch("collatz", [8, 1, 1], [128, 1, 1], 0, &arguments).unwrap();
    let expected: Vec<i32> = (1..=1000u64)
        .map(|start| {
            let mut x = start;
            let mut count = 0;
            while x != 1 {
                x = if x % 2 == 1 { 3 * x + 1 } else { x / 2 };
                count += 1;
            }
            count
        })
        .collect();
    assert_eq!(ints(&gpu.read(output, 4000)), expected);
}

#[test]
fn the_last_block_adds_up_without_a_false_alarm() {
    let values: Vec<f32> = (0..10_000).map(|i| (i % 13) as f32).collect();
    let mut gpu = simulator();
    let input = gpu.upload(&bytes(&values, f32::to_le_bytes)).unwrap();
    let (total, partial) = (gpu.allocate(4).unwrap(), gpu.allocate(4 * 40).unwrap());
    // Twice: the ticket must have been reset.
    for _ in 0..2 {
        let arguments = Arguments::new().pointer(total).pointer(partial).pointer(input).int(10_000);
        gpu.launch("sum_by_ticket", [40, 1, 1], [256, 1, 1], 0, &arguments).unwrap();
        assert_eq!(floats(&gpu.read(total, 4)), [values.iter().sum::<f32>()]);
    }
}

#[test]
fn calls_switches_local_arrays_and_elementary_functions() {
    let n = 500;
    let values = noise(n);
    let mut gpu = simulator();
    let input = gpu.upload(&bytes(&values, f32::to_le_bytes)).unwrap();
    let output = gpu.allocate(4 * n).unwrap();
    let arguments = Arguments::new().pointer(output).pointer(input).int(n as i32);
    gpu.launch("mixture", [4, 1, 1], [128, 1, 1], 0, &arguments).unwrap();
    let expected: Vec<f64> = (0..n)
        .map(|i| {
            let x = f64::from(values[(i + i % 8) % n]);
            match i % 5 {
                0 => (0..i % 7).fold(1.0, |value, _| value * x + 1.0),
                1 => x.exp(),
                2 => (x + 2.0).ln() + (x + 2.0).sqrt(),
                3 => x.sin() * 0.5 + x.tanh(),
                _ => x / 3.0,
            }
        })
        .collect();
    let error = worst(&floats(&gpu.read(output, 4 * n)), &expected);
    assert!(error <= 1e-6, "{error}");
}

#[test]
fn named_barriers_order_makers_and_users() {
    let mut gpu = simulator();
    let output = gpu.allocate(4 * 256).unwrap();
    gpu.launch("produce_consume", [1, 1, 1], [128, 1, 1], 0, &Arguments::new().pointer(output)).unwrap();
    let expected: Vec<i32> = (0..256).map(|i| i / 64 * 100 + 63 - i % 64).collect();
    assert_eq!(ints(&gpu.read(output, 1024)), expected);
}
