//! A whole training step of a network at 150×150 on the processor, forward, backward and Adam; and inference.
//!
//! ```text
//! cargo bench --bench cpu_step -- [--network resnet50] [--precision f32|bf16] [--batch 32] [--image-size 150]
//! ```
//!
//! CSV on standard output, a line a step. The first of each kind finds caches and memory cold.

use anyhow::Context;
use clap::Parser;
use onesheet::device::cpu::Cpu;
use onesheet::device::{Memory, Placement};
use onesheet::model::{Batch, Model, Posters};
use onesheet::network::{ModelConfig, Network, resnet50};
use onesheet::optim::Adam;
use onesheet::training::config::PrecisionChoice;
use std::rc::Rc;
use std::time::Instant;

const GENRES: usize = 7;
const STEPS: usize = 5;

#[derive(Parser)]
struct Arguments {
    /// Which network
    #[arg(long, default_value_t = resnet50::NETWORK)]
    network: Network,
    /// How wide the numbers are
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionChoice,
    /// Images a step
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Height and width of the posters
    #[arg(long, default_value_t = 150)]
    image_size: usize,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let Arguments { network, precision, batch: images, image_size, .. } = Arguments::parse();
    let precision = precision.on_processor().context("the processor has no tf32; --precision f32 or bf16")?;
    let device = Rc::new(Cpu::storing(precision));
    let config = ModelConfig { image_size, ..ModelConfig::new(network, GENRES) };
    let mut model = Model::new(Rc::clone(&device), config, 1)?;
    let mut adam = Adam::new(&*device, model.architecture().weights)?;
    eprintln!("{}", device.name());

    let format = network.pixels.format;
    let placements = vec![Placement::default(); images];
    let pixels: Vec<u8> = (0..images * image_size * image_size * 3).map(|i| (i % 251) as u8).collect();
    let labels: Vec<u8> = (0..images * GENRES).map(|i| u8::from(i % 3 == 0)).collect();
    println!("network,work,step,batch,seconds,images_per_second,loss");
    let report = |work, step, start: Instant, loss: Option<f64>| {
        let seconds = start.elapsed().as_secs_f64();
        let loss = loss.map_or(String::new(), |loss| format!("{loss:.4}"));
        println!("{network},{work},{step},{images},{seconds:.3},{:.2},{loss}", images as f64 / seconds);
    };
    for step in 0..STEPS {
        let start = Instant::now();
        let pixels = device.upload_pixels(&pixels, &placements)?;
        let mut batch = Batch::new(&*device, pixels, images, &format, &labels, &[1.0; GENRES])?;
        model.gradients(&mut batch)?;
        batch.set_rate(&device, adam.begin_step(1e-3))?;
        adam.step(&device, model.parameters_mut(), batch.outcome_view(), batch.rate())?;
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
