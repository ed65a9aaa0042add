//! MobileNet's depthwise convolutions on the processor, pass by pass, beside a copy of as many bytes.
//!
//! ```text
//! cargo bench --bench cpu_depthwise [-- BATCH]        CSV on standard output, 32 images unless told
//! ```
//!
//! Each figure is the best of several runs, and the two are taken in turns, so that their ratio means something on a
//! machine that does other work too. Bytes are those that a pass must read and write at least, all it has fused included;
//! `of_copy` is the share of the copy's speed that it reaches.

mod layers;

use layers::{DepthwiseLayer, depthwise};
use onesheet::device::cpu::{Cpu, View, ViewMut};
use onesheet::device::{
    Activation, DepthwiseBackwardData, DepthwiseBackwardWeights, DepthwiseForward, DepthwiseKernels, InputTransform,
    Memory, OutputGradient, ReduceEpilogue,
};
use onesheet::network::mobilenet;
use std::time::{Duration, Instant};

/// The time of one run.
fn time(run: &mut dyn FnMut()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// The best times of the two, run in turns.
fn race(first: &mut dyn FnMut(), second: &mut dyn FnMut()) -> [f64; 2] {
    let mut best = [time(first), time(second)];
    let started = Instant::now();
    for round in 0.. {
        if round >= 5 && started.elapsed() > Duration::from_millis(500) {
            break;
        }
        best = [best[0].min(time(first)), best[1].min(time(second))];
    }
    best.map(|time| time.as_secs_f64())
}

fn main() {
    // Cargo passes `--bench`.
    let batch = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(32);
    let device = Cpu::new();
    let mut total = [[0.0; 2]; 3];
    println!("layer,side,c,stride,count,pass,ms,gb_per_s,copy_gb_per_s,of_copy");
    for DepthwiseLayer { shape, count, name, .. } in depthwise(mobilenet::NETWORK, batch, 150) {
        let c = shape.c;
        let numbers = |len: usize| (0..len).map(|i| (i % 17) as f32 / 16.0 - 0.5).collect::<Vec<f32>>();
        let (x, w, k) = (numbers(shape.input_len()), numbers(shape.weights_len()), numbers(3 * c));
        let (norm, dz, raw) = (numbers(4 * c), numbers(shape.output_len()), numbers(shape.output_len()));
        let (mut y, mut dx, mut dw) = (raw.clone(), x.clone(), w.clone());
        let (mut stats, mut sums) = (vec![0.0; 2 * c], vec![0.0; 2 * c]);
        let activation = Activation::Relu6;
        let transform = Some(InputTransform { norm: View::Full(&norm), activation });
        let dy = OutputGradient::Owed { dz: View::Full(&dz), y: View::Full(&raw), k: View::Full(&k) };

        let mut report = |pass: usize, floats: usize, run: &mut dyn FnMut()| {
            let (from, mut to) = (numbers(floats / 2), vec![0.0; floats / 2]);
            let [ours, copy] = race(run, &mut || {
                device.copy(ViewMut::Full(&mut to), View::Full(&from)).expect("lengths agree");
            });
            total[pass][0] += count as f64 * ours;
            total[pass][1] += count as f64 * copy;
            let pass = ["forward", "data", "weights"][pass];
            let (side, stride) = (shape.h, shape.stride);
            let [rate, copied] = [ours, copy].map(|seconds| 4e-9 * floats as f64 / seconds);
            let (ms, share) = (ours * 1e3, copy / ours);
            println!("{name},{side},{c},{stride},{count},{pass},{ms:.3},{rate:.2},{copied:.2},{share:.2}");
        };
        let (inputs, outputs) = (shape.input_len(), shape.output_len());
        report(0, shape.seen() + outputs, &mut || {
            let (y, stats) = (ViewMut::Full(&mut y), Some(ViewMut::Full(&mut stats)));
            let operands = DepthwiseForward { y, stats, x: View::Full(&x), transform, w: View::Full(&w) };
            device.depthwise_forward(operands, &shape).expect("it fits");
        });
        report(1, 2 * outputs + 2 * inputs, &mut || {
            let (dx, sums) = (ViewMut::Full(&mut dx), ViewMut::Full(&mut sums));
            let (y, norm, w) = (View::Full(&x), View::Full(&norm), View::Full(&w));
            let epilogue = Some(ReduceEpilogue { sums, y, norm, activation });
            let operands = DepthwiseBackwardData { dx, accumulate: false, epilogue, dy, w };
            device.depthwise_backward_data(operands, &shape).expect("it fits");
        });
        report(2, 2 * outputs + shape.seen(), &mut || {
            let operands = DepthwiseBackwardWeights { dw: ViewMut::Full(&mut dw), dy, x: View::Full(&x), transform };
            device.depthwise_backward_weights(operands, &shape).expect("it fits");
        });
    }
    for (name, [ours, copy]) in ["forward", "data", "weights"].into_iter().zip(total) {
        eprintln!("all 13 {name}: {:.1} ms, {:.0} % of a copy's speed", ours * 1e3, 100.0 * copy / ours);
    }
}
