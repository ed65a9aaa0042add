//! Kernels written in Triton (tests/triton/compile.py): its code generator is proven on hardware, so what it emits must
//! give the right numbers here, and raise no alarm.

use gpusim::simulator::{Arguments, Simulator};
use gpusim::tensor_map::{Element, Swizzle, TensorMap};
use half::{bf16, f16};

/// A compiled kernel and what its launch needs.
struct Compiled {
    gpu: Simulator,
    name: &'static str,
    shared: u32,
    threads: u32,
}

impl Compiled {
    fn new(name: &'static str, ptx: &str) -> Self {
        let head: Vec<&str> = ptx.lines().next().unwrap().split(' ').collect();
        let ["//", "shared", shared, "threads", threads] = head[..] else { panic!("{head:?}") };
        let mut gpu = Simulator::new(ptx).unwrap();
        // What Triton masks it addresses all the same, outside its operands too.
        gpu.masked_anywhere = true;
        Self { gpu, name, shared: shared.parse().unwrap(), threads: threads.parse().unwrap() }
    }

    /// Launches; Triton adds two scratch pointers that these kernels don't use.
    fn launch(&mut self, grid: [u32; 3], arguments: Arguments) {
        self.launch_with_scratch(grid, arguments, 0);
    }

    /// Launches a kernel that uses the first of them.
    fn launch_with_scratch(&mut self, grid: [u32; 3], arguments: Arguments, scratch: u64) {
        let arguments = arguments.pointer(scratch).pointer(0);
        if let Err(error) = self.gpu.launch(self.name, grid, [self.threads, 1, 1], self.shared, &arguments) {
            panic!("{error}");
        }
    }

    fn upload(&mut self, values: &[f32], kind: Kind) -> u64 {
        self.gpu.upload(&values.iter().flat_map(|&v| kind.bytes(v)).collect::<Vec<u8>>()).unwrap()
    }

    fn floats(&self, address: u64, n: usize) -> Vec<f32> {
        let bytes = self.gpu.read(address, 4 * n);
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

/// An element type.
#[derive(Clone, Copy)]
enum Kind {
    F32,
    Tf32,
    F16,
    Bf16,
}

impl Kind {
    fn bytes(self, value: f32) -> Vec<u8> {
        match self {
            Self::F32 | Self::Tf32 => value.to_le_bytes().to_vec(),
            Self::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
            Self::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        }
    }

    /// What the hardware multiplies for this value.
    fn seen(self, value: f32) -> f64 {
        match self {
            Self::F32 => value.into(),
            // The tensor core ignores the low 13 bits; Triton rounds or not, depending on its version.
            Self::Tf32 => f32::from_bits(value.to_bits() & !0x1fff).into(),
            Self::F16 => f16::from_f32(value).into(),
            Self::Bf16 => bf16::from_f32(value).into(),
        }
    }
}

fn noise(n: usize, seed: u32) -> Vec<f32> {
    let scatter = |i: u32| (i.wrapping_add(seed * 7919).wrapping_mul(2_654_435_761) >> 8) as f32;
    (0..n as u32).map(|i| scatter(i) / (1 << 23) as f32 - 1.0).collect()
}

fn compare(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (at, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(f) - e).abs();
        assert!(error <= tolerance * e.abs().max(1.0), "element {at}: {f} for {e}");
    }
}

/// A·B of m×k and k×n numbers.
fn product(a: &[f32], b: &[f32], [m, n, k]: [usize; 3], kind: Kind) -> Vec<f64> {
    (0..m * n).map(|at| (0..k).map(|i| kind.seen(a[at / n * k + i]) * kind.seen(b[i * n + at % n])).sum()).collect()
}

/// A product whose extents fill no tile.
fn matmul(ptx: &str, kind: Kind, tolerance: f64) {
    let (m, n, k) = (100, 80, 90);
    let mut compiled = Compiled::new("matmul", ptx);
    let (a, b) = (noise(m * k, 1), noise(k * n, 2));
    let (da, db) = (compiled.upload(&a, kind), compiled.upload(&b, kind));
    let c = compiled.gpu.allocate(4 * m * n).unwrap();
    let arguments = Arguments::new().pointer(c).pointer(da).pointer(db).int(m as i32).int(n as i32).int(k as i32);
    compiled.launch([2, 2, 1], arguments);
    compare(&compiled.floats(c, m * n), &product(&a, &b, [m, n, k], kind), tolerance);
}

#[test]
fn a_product_in_singles() {
    matmul(include_str!("ptx/triton/matmul_f32.ptx"), Kind::F32, 1e-5);
}

#[test]
fn a_product_in_singles_for_hopper() {
    matmul(include_str!("ptx/triton/matmul_f32_sm90.ptx"), Kind::F32, 1e-5);
}

#[test]
fn a_product_in_tf32() {
    matmul(include_str!("ptx/triton/matmul_tf32.ptx"), Kind::Tf32, 1e-2);
}

#[test]
fn a_product_in_halves() {
    matmul(include_str!("ptx/triton/matmul_f16.ptx"), Kind::F16, 1e-5);
}

#[test]
fn a_product_in_bfloat16() {
    matmul(include_str!("ptx/triton/matmul_bf16.ptx"), Kind::Bf16, 1e-5);
}

#[test]
fn products_of_a_warpgroup() {
    matmul(include_str!("ptx/triton/matmul_f16_sm90.ptx"), Kind::F16, 1e-5);
    matmul(include_str!("ptx/triton/matmul_bf16_sm90.ptx"), Kind::Bf16, 1e-5);
    matmul(include_str!("ptx/triton/matmul_tf32_sm90.ptx"), Kind::Tf32, 1e-2);
}

/// A product through tensor maps. `rows` are a tile's; parts of k are added up by `splits` blocks.
fn matmul_tma(ptx: &str, kind: Kind, element: Element, rows: u32, splits: u32) {
    // Nothing is a multiple of its tile, but rows are of 16 bytes.
    let (m, n, k) = (150, 88, 200);
    let mut compiled = Compiled::new("matmul_tma", ptx);
    let (a, b) = (noise(m * k, 1), noise(k * n, 2));
    let (da, db) = (compiled.upload(&a, kind), compiled.upload(&b, kind));
    let d = compiled.upload(&vec![0.0; m * n], Kind::F32);
    // A map is followed by extents and strides, outermost first, which these kernels don't read.
    let matrix = |arguments: Arguments, address: u64, element: Element, extents: [usize; 2], box_: [u32; 2]| {
        let [rows, columns] = extents.map(|extent| extent as u64);
        let stride = columns * u64::from(element.bytes());
        let swizzle = Swizzle::Within128;
        let map = TensorMap::tiled(element, address, &[columns, rows], &[stride], &box_, &[1, 1], swizzle, false);
        let arguments = arguments.tensor_map(&map.unwrap()).int(rows as i32).int(columns as i32);
        arguments.with(columns.to_le_bytes()).with(1u64.to_le_bytes())
    };
    let arguments = matrix(Arguments::new(), d, Element::F32, [m, n], [32, rows]);
    let arguments = matrix(arguments, da, element, [m, k], [64, rows]);
    let arguments = matrix(arguments, db, element, [k, n], [64, 64]);
    compiled.launch([(m as u32).div_ceil(rows), 2, splits], arguments.int(k as i32));
    // Two hundred products are summed in singles.
    compare(&compiled.floats(d, m * n), &product(&a, &b, [m, n, k], kind), 3e-5);
}

#[test]
fn a_product_through_tensor_maps_that_blocks_make() {
    let (m, n, k) = (150, 88, 200);
    let mut compiled = Compiled::new("matmul_made_maps", include_str!("ptx/triton/matmul_made_maps.ptx"));
    let (a, b) = (noise(m * k, 1), noise(k * n, 2));
    let (da, db) = (compiled.upload(&a, Kind::F16), compiled.upload(&b, Kind::F16));
    let d = compiled.gpu.allocate(4 * m * n).unwrap();
    let scratch = compiled.gpu.allocate(3 * 2 * 3 * 128).unwrap();
    let arguments = Arguments::new().pointer(d).pointer(da).pointer(db).int(m as i32).int(n as i32).int(k as i32);
    compiled.launch_with_scratch([3, 2, 1], arguments, scratch);
    compare(&compiled.floats(d, m * n), &product(&a, &b, [m, n, k], Kind::F16), 3e-5);
}

#[test]
fn products_through_tensor_maps() {
    matmul_tma(include_str!("ptx/triton/matmul_tma.ptx"), Kind::F16, Element::F16, 64, 1);
    matmul_tma(include_str!("ptx/triton/matmul_tma_split.ptx"), Kind::Bf16, Element::Bf16, 128, 3);
}

#[test]
fn a_softmax() {
    let (rows, n) = (5, 300);
    let mut compiled = Compiled::new("softmax", include_str!("ptx/triton/softmax.ptx"));
    let x: Vec<f32> = noise(rows * n, 3).iter().map(|v| v * 10.0).collect();
    let input = compiled.upload(&x, Kind::F32);
    let out = compiled.gpu.allocate(4 * rows * n).unwrap();
    compiled.launch([rows as u32, 1, 1], Arguments::new().pointer(out).pointer(input).int(n as i32));
    let expected: Vec<f64> = x
        .chunks(n)
        .flat_map(|row| {
            let largest = row.iter().copied().fold(f32::MIN, f32::max);
            let e: Vec<f64> = row.iter().map(|&v| f64::from(v - largest).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.into_iter().map(move |v| v / sum)
        })
        .collect();
    compare(&compiled.floats(out, rows * n), &expected, 1e-6);
}

#[test]
fn a_layer_norm() {
    let (rows, n) = (4, 400);
    let mut compiled = Compiled::new("layer_norm", include_str!("ptx/triton/layer_norm.ptx"));
    let (x, scale, shift) = (noise(rows * n, 4), noise(n, 5), noise(n, 6));
    let pointers = [&x, &scale, &shift].map(|values| compiled.upload(values, Kind::F32));
    let out = compiled.gpu.allocate(4 * rows * n).unwrap();
    let arguments = pointers.into_iter().fold(Arguments::new().pointer(out), Arguments::pointer);
    compiled.launch([rows as u32, 1, 1], arguments.int(n as i32));
    let mut expected = Vec::new();
    for row in x.chunks(n) {
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n as f64;
        let normal = |i: usize| (f64::from(row[i]) - mean) / (variance + 1e-5).sqrt();
        expected.extend((0..n).map(|i| normal(i) * f64::from(scale[i]) + f64::from(shift[i])));
    }
    compare(&compiled.floats(out, rows * n), &expected, 1e-5);
}

#[test]
fn a_sum_by_atomics() {
    let n = 5000;
    let mut compiled = Compiled::new("sum_atomic", include_str!("ptx/triton/sum_atomic.ptx"));
    let x = noise(n, 7);
    let (total, input) = (compiled.upload(&[0.0], Kind::F32), compiled.upload(&x, Kind::F32));
    compiled.launch([5, 1, 1], Arguments::new().pointer(total).pointer(input).int(n as i32));
    let expected: f64 = x.iter().map(|&v| f64::from(v)).sum();
    compare(&compiled.floats(total, 1), &[expected], 1e-4);
}

#[test]
fn a_convolution() {
    let (p, c, k) = (19usize, 32usize, 32usize);
    let mut compiled = Compiled::new("convolution", include_str!("ptx/triton/convolution.ptx"));
    let (x, w) = (noise(p * p * c, 8), noise(k * 9 * c, 9));
    let (dx, dw) = (compiled.upload(&x, Kind::Bf16), compiled.upload(&w, Kind::Bf16));
    let out = compiled.gpu.allocate(4 * p * p * k).unwrap();
    let blocks = (p * p).div_ceil(64) as u32;
    compiled.launch([blocks, 1, 1], Arguments::new().pointer(out).pointer(dx).pointer(dw));
    let seen = |v: f32| Kind::Bf16.seen(v);
    let mut expected = Vec::new();
    for pixel in 0..p * p {
        for filter in 0..k {
            let mut sum = 0.0;
            for tap in 0..9 {
                let (h, v) = (pixel / p + tap / 3, pixel % p + tap % 3);
                if (1..=p).contains(&h) && (1..=p).contains(&v) {
                    let (from, weight) = (((h - 1) * p + v - 1) * c, filter * 9 * c + tap * c);
                    sum += (0..c).map(|i| seen(x[from + i]) * seen(w[weight + i])).sum::<f64>();
                }
            }
            expected.push(sum);
        }
    }
    compare(&compiled.floats(out, p * p * k), &expected, 1e-5);
}
