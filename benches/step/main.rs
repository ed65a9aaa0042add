//! A whole training step of the ResNet-50, and inference: images a second on an NVIDIA GPU, beside PyTorch if a Python that
//! has it is named; on the simulated GPU what every kernel of the step moves, beside its floor.
//!
//! ```text
//! cargo bench --bench step -- [--precision bf16|tf32|f32] [--batch 128] [--image-size 150] [--steps 30] [--python PATH]
//! cargo bench --bench step -- --device sim [--precision …] [--batch 1] [--image-size 150]
//! ```
//!
//! With `--profile FILE` it measures a few more steps launch by launch, uncaptured, and writes FILE; on standard error it sums the
//! times by kernel, by layer and pass. On the simulated GPU they are the simulation's own.
//!
//! `--once` takes one training step as it is, uncaptured, and ends. Nsight Compute then sees that step's kernels and no others:
//!
//! ```text
//! ncu --profile-from-start off --set full --export step target/release/deps/step-… --once [--precision …] [--batch 128]
//! ```
//!
//! CSV on standard output. A time is the median of the steps after the first few, of which the second is captured as a graph;
//! it includes the way of the posters to the GPU, of the loss or the probabilities back, and the optimiser.

#[path = "../gpu/mod.rs"]
mod gpu;
mod profile;
mod pytorch;

use anyhow::Context;
use clap::Parser;
use gpu::counters::{Counted, Counters};
use gpu::{Gpu, Options, figure};
use onesheet::device::cuda::Cuda;
use onesheet::device::{Memory, PixelFormat, Placement};
use onesheet::model::{ModelConfig, Posters};
use onesheet::training::learner::Learner;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

const GENRES: usize = 7;
/// The network's input as its ImageNet weights want it.
const FORMAT: PixelFormat = PixelFormat { order: [2, 1, 0], scale: 1.0, shift: [-103.939, -116.779, -123.68] };
/// Steps before the first that is timed.
const WARM_UP: usize = 5;
/// Steps that are measured launch by launch.
const PROFILED: usize = 10;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    gpu: Options,
    /// Height and width of the posters
    #[arg(long, default_value_t = 150)]
    image_size: usize,
    /// Steps timed
    #[arg(long, default_value_t = 30)]
    steps: usize,
    /// Measure a few more steps launch by launch, and keep the table in this file
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Take one training step, uncaptured and marked for a profiler, and end
    #[arg(long)]
    once: bool,
    /// A Python with PyTorch, to run the same network on the same GPU
    #[arg(long)]
    python: Option<PathBuf>,
}

/// A line about a whole step.
#[derive(Serialize)]
struct Row {
    engine: String,
    device: String,
    precision: String,
    batch: usize,
    image_size: usize,
    /// `train` or `infer`.
    work: String,
    ms: f64,
    images_per_s: f64,
}

/// A line about a kernel's launches in one step.
#[derive(Serialize)]
struct KernelRow {
    work: &'static str,
    kernel: String,
    launches: usize,
    planned_mb: f64,
    dram_mb: f64,
    of_plan: f64,
    coalesced_percent: f64,
    bank_conflicts: u64,
    gflop: f64,
    tensor_gflop: f64,
    modelled_us_a100: f64,
    modelled_us_rtx_4090: f64,
    modelled_us_h100: f64,
    modelled_us_b200: f64,
}

impl KernelRow {
    fn new(work: &'static str, kernel: String, counted: &Counted) -> Self {
        let us = |gpu: &str| figure(counted.modelled_us.get(gpu).copied().unwrap_or_default());
        KernelRow {
            work,
            kernel,
            launches: counted.launches,
            planned_mb: figure(counted.planned_bytes as f64 / 1e6),
            dram_mb: figure(counted.dram_bytes as f64 / 1e6),
            of_plan: figure(counted.dram_bytes as f64 / counted.planned_bytes.max(1) as f64),
            coalesced_percent: figure(counted.coalesced()),
            bank_conflicts: counted.bank_conflicts,
            gflop: figure(counted.flops as f64 / 1e9),
            tensor_gflop: figure(counted.tensor_flops as f64 / 1e9),
            modelled_us_a100: us("A100"),
            modelled_us_rtx_4090: us("RTX 4090"),
            modelled_us_h100: us("H100"),
            modelled_us_b200: us("B200"),
        }
    }
}

/// Posters and labels of one batch, the same in every step.
struct Data {
    pixels: Vec<u8>,
    placements: Vec<Placement>,
    labels: Vec<u8>,
}

impl Data {
    fn new(images: usize, size: usize) -> Self {
        Data {
            pixels: (0..images * size * size * 3).map(|i| ((i * 2_654_435_761) >> 16) as u8).collect(),
            placements: vec![Placement::default(); images],
            labels: (0..images * GENRES).map(|i| u8::from(i % 3 == 0)).collect(),
        }
    }
}

/// A network and its batch.
struct Work {
    device: Rc<Cuda>,
    learner: Learner<Cuda>,
    data: Data,
}

impl Work {
    fn upload(&self) -> anyhow::Result<<Cuda as Memory>::Pixels> {
        Ok(self.device.upload_pixels(&self.data.pixels, &self.data.placements)?)
    }

    fn submit(&mut self, pixels: <Cuda as Memory>::Pixels) -> anyhow::Result<()> {
        let images = self.data.placements.len();
        Ok(self.learner.submit(pixels, images, &FORMAT, &self.data.labels, &[1.0; GENRES], 1e-4)?)
    }

    fn infer(&self) -> anyhow::Result<Vec<f32>> {
        let Data { pixels, placements, .. } = &self.data;
        Ok(self.learner.model().predict(Posters { pixels, placements, format: &FORMAT })?)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Gpu { device, counters } = arguments.gpu.open()?;
    let device = Rc::new(device);
    eprintln!("{}", device.name());
    let config = ModelConfig { image_size: arguments.image_size, ..ModelConfig::resnet50(GENRES) };
    let learner = Learner::new(Rc::clone(&device), config, 1)?;
    let mut work = Work { device, learner, data: Data::new(arguments.gpu.batch(), arguments.image_size) };
    if arguments.once {
        return profile::once(&mut work);
    }
    let profiled = match &counters {
        Some(counters) => {
            count(&mut work, counters)?;
            1
        }
        None => {
            measure(&mut work, &arguments)?;
            PROFILED
        }
    };
    match &arguments.profile {
        Some(path) => profile::write(&mut work, path, profiled),
        None => Ok(()),
    }
}

/// What the kernels of one step did, and what they were planned to do.
fn count(work: &mut Work, counters: &Counters) -> anyhow::Result<()> {
    let device = Rc::clone(&work.device);
    let mut rows = csv::Writer::from_writer(io::stdout());
    let mut table = |name, kernels: BTreeMap<String, Counted>| -> anyhow::Result<()> {
        let mut total = Counted::default();
        for (kernel, counted) in kernels {
            total.merge(&counted);
            rows.serialize(KernelRow::new(name, kernel, &counted))?;
        }
        rows.serialize(KernelRow::new(name, "all".into(), &total))?;
        Ok(rows.flush()?)
    };
    counters.forget()?;
    let pixels = work.upload()?;
    let (done, plan) = device.planned(|| work.submit(pixels));
    done?;
    work.learner.loss()?;
    table("train", counters.take(&plan)?)?;
    let (done, plan) = device.planned(|| work.infer());
    done?;
    table("infer", counters.take(&plan)?)
}

/// Images a second of both engines.
fn measure(work: &mut Work, arguments: &Arguments) -> anyhow::Result<()> {
    let (batch, image_size) = (work.data.placements.len(), arguments.image_size);
    let device = work.device.name();
    let mut rows = csv::Writer::from_writer(io::stdout());
    let mut report = |engine: String, name: String, ms: f64| -> anyhow::Result<()> {
        let (device, precision) = (device.clone(), format!("{:?}", arguments.gpu.precision).to_lowercase());
        let (images_per_s, ms) = (figure(1e3 * batch as f64 / ms), figure(ms));
        rows.serialize(Row { engine, device, precision, batch, image_size, work: name, ms, images_per_s })?;
        Ok(rows.flush()?)
    };
    let steps = WARM_UP + arguments.steps.max(1);
    let mut next = Some(work.upload()?);
    let train = median(steps, || {
        let pixels = next.take().context("a batch is always on its way")?;
        work.submit(pixels)?;
        next = Some(work.upload()?);
        work.learner.loss()?;
        Ok(())
    })?;
    report("onesheet".into(), "train".into(), train)?;
    let infer = median(steps, || work.infer().map(drop))?;
    report("onesheet".into(), "infer".into(), infer)?;
    match &arguments.python {
        Some(python) => {
            let precision = arguments.gpu.precision;
            pytorch::run(python, precision, batch, image_size, steps, |pytorch::Time { engine, work, ms }| {
                report(engine, work, ms)
            })?;
        }
        None => eprintln!("PyTorch NOT COMPARED: --python names a Python that has it"),
    }
    Ok(())
}

/// The median time of a step in milliseconds, without the first few.
fn median(steps: usize, mut step: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..steps {
        let start = Instant::now();
        step()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let timed = &mut times[WARM_UP..];
    timed.sort_by(f64::total_cmp);
    Ok(timed[timed.len() / 2])
}
