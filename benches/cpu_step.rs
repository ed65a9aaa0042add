//! A whole training step of a network at 150×150 on the processor, forward, backward and Adam; and inference.
//!
//! ```text
//! cargo bench --bench cpu_step -- [--network resnet50] [--precision f32|bf16] [--batch 32] [--image-size 150] [--trainable all|last:40]
//! ```
//!
//! CSV on standard output, a line a step. The first of each kind finds caches and memory cold.
//!
//! `of_peak` and `of_copy` are shares of what this machine was measured to do just before: the speed of a matrix product
//! that stays in its caches, and of a sum in place that does not. They are of the multiplications and additions, and of the
//! bytes, that the plan counts: what multiplies less than its formula (Winograd), or finds its operands in a cache, may
//! pass 1. The peak is that of a product in the step's precision.

mod on_processor;

use clap::Parser;
use on_processor::Arguments;
use onesheet::device::counting::Counted;
use onesheet::device::{Memory, Pass, Placement};
use onesheet::model::{Batch, Model, Posters};
use onesheet::network::{ModelConfig, Trainable};
use onesheet::optim::Adam;
use onesheet::plan::cost;
use onesheet::training::dry_run;
use std::rc::Rc;
use std::time::Instant;

/// What is measured.
#[derive(Parser)]
struct Step {
    #[command(flatten)]
    arguments: Arguments,
    /// Which layers learn: all, or last:N
    #[arg(long, default_value = "all")]
    trainable: Trainable,
}

const GENRES: usize = 7;
const STEPS: usize = 5;

fn main() -> anyhow::Result<()> {
    let Step { arguments, trainable } = Step::parse();
    let Arguments { network, batch: images, image_size, .. } = arguments;
    let device = Rc::new(arguments.device()?);
    let config = ModelConfig { image_size, trainable, ..ModelConfig::new(network, GENRES) };
    let costs = dry_run::costs(&config, device.habits(), images, &[])?;
    let mut model = Model::new(Rc::clone(&device), config, 1)?;
    let mut adam = Adam::new(&*device, model.architecture().weights)?;
    let rates = device.rates()?;
    eprintln!("{}; {:.1} GFLOP/s, {:.2} GB/s ({})", device.name(), rates.flops / 1e9, rates.bytes / 1e9, rates.source);

    let format = network.pixels.format;
    let placements = vec![Placement::default(); images];
    let pixels: Vec<u8> = (0..images * image_size * image_size * 3).map(|i| (i % 251) as u8).collect();
    let labels: Vec<u8> = (0..images * GENRES).map(|i| u8::from(i % 3 == 0)).collect();
    let launches: Vec<&Counted> = costs.launches().collect();
    let training = cost::total(launches.iter().copied());
    let inference = cost::total(cost::of_pass(launches, Pass::Forward));
    println!("network,work,step,batch,seconds,images_per_second,gflop_per_s,of_peak,gb_per_s,of_copy,loss");
    let report = |work, step, start: Instant, loss: Option<f64>| {
        let seconds = start.elapsed().as_secs_f64();
        let counted = if loss.is_some() { training } else { inference };
        let [flops, bytes] = [counted.flops, counted.bytes() as u64].map(|count| count as f64 / seconds);
        let loss = loss.map_or(String::new(), |loss| format!("{loss:.4}"));
        println!(
            "{network},{work},{step},{images},{seconds:.3},{:.2},{:.1},{:.2},{:.2},{:.2},{loss}",
            images as f64 / seconds,
            flops / 1e9,
            flops / rates.flops,
            bytes / 1e9,
            bytes / rates.bytes,
        );
    };
    for step in 0..STEPS {
        let start = Instant::now();
        let pixels = device.upload_pixels(&pixels, &placements)?;
        let mut batch = Batch::new(&*device, pixels, images, &format, &labels, &[1.0; GENRES])?;
        model.gradients(&mut batch)?;
        batch.set_rates(&device, adam.begin_step(1e-3))?;
        adam.step(&device, model.parameters_mut(), batch.outcome_view(), batch.rates())?;
        let loss = batch.loss(&device)?;
        report("train", step, start, Some(loss));
    }
    for step in 0..STEPS {
        let start = Instant::now();
        model.predict(Posters { pixels: &pixels, placements: &placements, format: &format })?;
        report("infer", step, start, None);
    }
    Ok(())
}
