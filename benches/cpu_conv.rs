//! Every distinct convolution of the network on the processor, pass by pass, beside a plain matrix product of the same size.
//!
//! ```text
//! cargo bench --bench cpu_conv -- [--network resnet50] [--precision f32|bf16] [--batch 32] [--image-size 150]
//! ```
//!
//! CSV on standard output. Each figure is the best of several runs, and the two are taken in turns, so that their ratio
//! means something on a machine that does other work too. `of_product` is the share of the plain product's speed that the
//! pass reaches, all it has fused included: im2col, the batch norm owed to its input, statistics, masks and sums. `of_peak`
//! is the share of what this machine was measured to do at the beginning, in products of that precision that stay in its caches.
//!
//! Both shares may pass 1 where a pass multiplies less than its formula (Winograd); and `of_product` may in bf16, since that product
//! is of f32 there too, and a processor that has instructions for bf16 is faster with them.

mod layers;
mod on_processor;

use clap::Parser;
use gemm::Parallelism;
use layers::{Layer, layers};
use on_processor::Arguments;
use onesheet::device::cpu::Cpu;
use onesheet::device::{
    Activation, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvKernels, InputTransform, Memory,
    OutputGradient, ReduceEpilogue, Storage,
};
use onesheet::tensor::Tensor;
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

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 17) as f32 / 16.0 - 0.5).collect()
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Arguments { network, batch, image_size, .. } = arguments;
    let device = arguments.device()?;
    let tensor = |storage, len| -> anyhow::Result<Tensor<Cpu>> {
        let mut tensor = Tensor::new(&device, [len], storage)?;
        device.upload(tensor.view_mut(), &numbers(len))?;
        Ok(tensor)
    };
    let peak = device.rates()?;
    eprintln!("{}; {:.1} GFLOP/s ({})", device.name(), peak.flops / 1e9, peak.source);
    let (mut total, mut flops) = ([0.0; 3], 0.0);
    println!("layer,h,c,k,filter,stride,count,pass,ms,gflops,of_peak,product_ms,of_product");
    for Layer { name, shape, count, owed, .. } in layers(network, batch, image_size) {
        let (pixels, columns) = (shape.n * shape.p * shape.q, shape.r * shape.s * shape.c);
        let activation = |len| tensor(Storage::Activation, len);
        let full = |len| tensor(Storage::Full, len);
        let (x, w, k) =
            (activation(shape.input_len())?, tensor(Storage::Weights, shape.weights_len())?, full(3 * shape.k)?);
        let (norm, dz, raw) = (full(4 * shape.c)?, activation(shape.output_len())?, activation(shape.output_len())?);
        let (mut y, mut dx) = (activation(shape.output_len())?, activation(shape.input_len())?);
        let (mut dw, mut stats, mut sums) = (full(shape.weights_len())?, full(2 * shape.k)?, full(2 * shape.c)?);
        let (patches, outputs, filters) =
            (numbers(pixels * columns), numbers(shape.output_len()), numbers(shape.weights_len()));
        let (mut product_y, mut product_patches, mut product_w) =
            (outputs.clone(), vec![0.0; pixels * columns], filters.clone());

        let transform = owed.map(|activation| InputTransform { norm: norm.view(), activation });
        let gradient = OutputGradient::Owed { dz: dz.view(), y: raw.view(), k: k.view() };
        let mut report = |pass: usize, (ours, plain): (Duration, Duration)| {
            let [ms, product_ms] = [ours, plain].map(|time| time.as_secs_f64() * 1e3);
            total[pass] += count as f64 * ms;
            flops += count as f64 * 2.0 * shape.macs() as f64;
            let rate = 2.0 * shape.macs() as f64 / ms * 1e3;
            println!(
                "{name},{},{},{},{},{},{count},{},{ms:.3},{:.1},{:.2},{product_ms:.3},{:.2}",
                shape.h,
                shape.c,
                shape.k,
                shape.r,
                shape.stride,
                ["forward", "data", "weights"][pass],
                rate / 1e9,
                rate / peak.flops,
                product_ms / ms,
            );
        };
        let forward = race(
            &mut || {
                let (y, stats) = (y.view_mut(), Some(stats.view_mut()));
                let (x, w) = (x.view(), w.view());
                let operands = ConvForward { y, stats, x, transform, w, bias: None, activation: Activation::Linear };
                device.conv_forward(operands, &shape).expect("lengths agree")
            },
            &mut || product(&mut product_y, [pixels, shape.k, columns], (&patches, false), (&filters, true)),
        );
        report(0, forward);
        if shape.c > 3 {
            let data = race(
                &mut || {
                    let (sums, y, norm) = (sums.view_mut(), x.view(), norm.view());
                    let epilogue = owed.map(|activation| ReduceEpilogue { sums, y, norm, activation });
                    let (dx, w) = (dx.view_mut(), w.view());
                    let operands = ConvBackwardData { dx, accumulate: false, epilogue, dy: gradient, w };
                    device.conv_backward_data(operands, &shape).expect("lengths agree");
                },
                &mut || product(&mut product_patches, [pixels, columns, shape.k], (&outputs, false), (&filters, false)),
            );
            report(1, data);
        }
        let weights = race(
            &mut || {
                let operands = ConvBackwardWeights { dw: dw.view_mut(), dy: gradient, x: x.view(), transform };
                device.conv_backward_weights(operands, &shape).expect("lengths agree")
            },
            &mut || product(&mut product_w, [shape.k, columns, pixels], (&outputs, true), (&patches, false)),
        );
        report(2, weights);
    }
    let all: f64 = total.iter().sum();
    eprintln!(
        "all: forward {:.0} ms, data {:.0} ms, weights {:.0} ms; {:.0} GFLOP/s, {:.2} of the peak; {:.2} images/s of convolutions",
        total[0],
        total[1],
        total[2],
        flops / all / 1e6,
        flops / all * 1e3 / peak.flops,
        batch as f64 / all * 1e3,
    );
    Ok(())
}
