//! Every distinct convolution of the network on the processor, pass by pass, beside a plain matrix product of the same size.
//!
//! ```text
//! cargo bench --bench cpu_conv [-- BATCH]        CSV on standard output, 32 images unless told
//! ```
//!
//! Each figure is the best of several runs, and the two are taken in turns, so that their ratio means something on a
//! machine that does other work too. `of_product` is the share of the plain product's speed that the pass reaches, all it
//! has fused included: im2col, the batch norm owed to its input, statistics, masks and sums.

mod layers;

use gemm::Parallelism;
use layers::{Layer, layers};
use onesheet::device::cpu::{Cpu, View, ViewMut};
use onesheet::device::{
    Activation, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvKernels, InputTransform, OutputGradient,
    ReduceEpilogue,
};
use onesheet::network::resnet50::NETWORK;
use std::time::{Duration, Instant};

/// The time of one run.
fn time(run: &mut dyn FnMut()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// The best times of the two, run in turns.
fn race(first: &mut dyn FnMut(), second: &mut dyn FnMut()) -> (Duration, Duration) {
    let mut best = (time(first), time(second));
    let started = Instant::now();
    for round in 0.. {
        if round >= 5 && started.elapsed() > Duration::from_millis(500) {
            break;
        }
        best = (best.0.min(time(first)), best.1.min(time(second)));
    }
    best
}

/// `c [m, n] = a [m, k] · b [k, n]`; an operand is row-major unless its flag says that its columns are contiguous.
fn product(c: &mut [f32], [m, n, k]: [usize; 3], (a, a_columns): (&[f32], bool), (b, b_columns): (&[f32], bool)) {
    assert!(c.len() == m * n && a.len() >= m * k && b.len() >= k * n);
    let strides = |columns, rows, cols| if columns { (rows as isize, 1) } else { (1, cols as isize) };
    let ((a_col, a_row), (b_col, b_row)) = (strides(a_columns, m, k), strides(b_columns, k, n));
    // SAFETY: the operands are contiguous and as long as asserted.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            a_col,
            a_row,
            b.as_ptr(),
            b_col,
            b_row,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}

fn main() {
    // Cargo passes `--bench`.
    let batch = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(32);
    let device = Cpu::new();
    let (mut total, mut flops) = ([0.0; 3], 0.0);
    println!("layer,h,c,k,filter,stride,count,pass,ms,gflops,product_ms,of_product");
    for Layer { name, shape, count, owed, .. } in layers(NETWORK, batch, 150) {
        let numbers = |len: usize| (0..len).map(|i| (i % 17) as f32 / 16.0 - 0.5).collect::<Vec<f32>>();
        let (pixels, columns) = (shape.n * shape.p * shape.q, shape.r * shape.s * shape.c);
        let (x, w, k) = (numbers(shape.input_len()), numbers(shape.weights_len()), numbers(3 * shape.k));
        let (norm, dz, raw) = (numbers(4 * shape.c), numbers(shape.output_len()), numbers(shape.output_len()));
        let (mut y, mut dx, mut dw) = (raw.clone(), x.clone(), w.clone());
        let (mut stats, mut sums) = (vec![0.0; 2 * shape.k], vec![0.0; 2 * shape.c]);
        let (patches, mut product_y, mut product_patches, mut product_w) =
            (numbers(pixels * columns), y.clone(), vec![0.0; pixels * columns], w.clone());

        let transform = owed.map(|activation| InputTransform { norm: View::Full(&norm), activation });
        let gradient = OutputGradient::Owed { dz: View::Full(&dz), y: View::Full(&raw), k: View::Full(&k) };
        let mut report = |pass: usize, (ours, plain): (Duration, Duration)| {
            let [ms, product_ms] = [ours, plain].map(|time| time.as_secs_f64() * 1e3);
            total[pass] += count as f64 * ms;
            flops += count as f64 * 2.0 * shape.macs() as f64;
            println!(
                "{name},{},{},{},{},{},{count},{},{ms:.3},{:.1},{product_ms:.3},{:.2}",
                shape.h,
                shape.c,
                shape.k,
                shape.r,
                shape.stride,
                ["forward", "data", "weights"][pass],
                2.0 * shape.macs() as f64 / ms / 1e6,
                product_ms / ms,
            );
        };
        let forward = race(
            &mut || {
                let (y, stats) = (ViewMut::Full(&mut y), Some(ViewMut::Full(&mut stats)));
                let (x, w) = (View::Full(&x), View::Full(&w));
                let operands = ConvForward { y, stats, x, transform, w, bias: None, activation: Activation::Linear };
                device.conv_forward(operands, &shape).expect("lengths agree")
            },
            &mut || product(&mut product_y, [pixels, shape.k, columns], (&patches, false), (&w, true)),
        );
        report(0, forward);
        if shape.c > 3 {
            let data = race(
                &mut || {
                    let (sums, y, norm) = (ViewMut::Full(&mut sums), View::Full(&x), View::Full(&norm));
                    let epilogue = owed.map(|activation| ReduceEpilogue { sums, y, norm, activation });
                    let (dx, w) = (ViewMut::Full(&mut dx), View::Full(&w));
                    let operands = ConvBackwardData { dx, accumulate: false, epilogue, dy: gradient, w };
                    device.conv_backward_data(operands, &shape).expect("lengths agree");
                },
                &mut || product(&mut product_patches, [pixels, columns, shape.k], (&dz, false), (&w, false)),
            );
            report(1, data);
        }
        let weights = race(
            &mut || {
                let (dw, x) = (ViewMut::Full(&mut dw), View::Full(&x));
                let operands = ConvBackwardWeights { dw, dy: gradient, x, transform };
                device.conv_backward_weights(operands, &shape).expect("lengths agree")
            },
            &mut || product(&mut product_w, [shape.k, columns, pixels], (&dz, true), (&patches, false)),
        );
        report(2, weights);
    }
    let all: f64 = total.iter().sum();
    eprintln!(
        "all: forward {:.0} ms, data {:.0} ms, weights {:.0} ms; {:.0} GFLOP/s; {:.2} images/s of convolutions",
        total[0],
        total[1],
        total[2],
        flops / all / 1e6,
        batch as f64 / all * 1e3,
    );
}
