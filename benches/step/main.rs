//! A whole training step of a network, and inference: images a second on an NVIDIA GPU, beside PyTorch if a Python that
//! has it is named (ResNet-50 only); on the simulated GPU what every kernel of the step moves, beside its floor.
//!
//! ```text
//! cargo bench --bench step -- [--network resnet50] [--precision bf16|tf32|f32] [--batch 128] [--image-size 150] [--steps 30]
//!                             [--anchors] [--python PATH]
//! cargo bench --bench step -- --device sim [--network …] [--precision …] [--batch 1] [--image-size 150]
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
//! it includes the way of the posters to the GPU, of the probabilities back, or of the loss while the next step runs, and the optimiser. `--anchors` adds
//! what this GPU can do at best: a copy within its memory, and a large matrix product by the kernels of the 1×1 convolutions.

mod anchors;
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
use onesheet::model::Posters;
use onesheet::network::{ModelConfig, Network, resnet50};
use onesheet::training::learner::Learner;
use pytorch::Way;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Stdout};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

const GENRES: usize = 7;
/// Steps before the first that is timed.
const WARM_UP: usize = 5;
/// Steps that are measured launch by launch, where no fewer are timed.
const PROFILED: usize = 10;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    gpu: Options,
    /// Which network
    #[arg(long, default_value_t = resnet50::NETWORK)]
    network: Network,
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
    /// Measure a copy within the GPU's memory and a large matrix product, too
    #[arg(long)]
    anchors: bool,
    /// A Python with PyTorch, to run the same network on the same GPU
    #[arg(long)]
    python: Option<PathBuf>,
    /// How PyTorch runs it; compiling takes a minute or two
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["eager", "compiled", "reduce-overhead"])]
    pytorch: Vec<Way>,
    /// Seconds that PyTorch has for each
    #[arg(long, default_value_t = 300)]
    pytorch_seconds: u64,
}

/// A line about a whole step, or about an anchor.
#[derive(Serialize)]
struct Row {
    engine: String,
    network: &'static str,
    device: String,
    precision: String,
    batch: usize,
    image_size: usize,
    /// `train`, `infer`, or an anchor's name.
    work: String,
    ms: f64,
    images_per_s: Option<f64>,
    gb_per_s: Option<f64>,
    tflop_per_s: Option<f64>,
}

/// A line about a kernel's launches in one step.
#[derive(Serialize)]
struct KernelRow {
    network: &'static str,
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
    fn new(network: Network, work: &'static str, kernel: String, counted: &Counted) -> Self {
        let us = |gpu: &str| figure(counted.modelled_us.get(gpu).copied().unwrap_or_default());
        KernelRow {
            network: network.name,
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
    fn network(&self) -> Network {
        self.learner.model().architecture().network
    }

    fn format(&self) -> PixelFormat {
        self.network().pixels.format
    }

    fn upload(&self) -> anyhow::Result<<Cuda as Memory>::Pixels> {
        Ok(self.device.upload_pixels(&self.data.pixels, &self.data.placements)?)
    }

    fn submit(&mut self, pixels: <Cuda as Memory>::Pixels) -> anyhow::Result<()> {
        let images = self.data.placements.len();
        self.learner.submit(pixels, images, &self.format(), &self.data.labels, &[1.0; GENRES], 1e-4)?;
        Ok(())
    }

    fn infer(&self) -> anyhow::Result<Vec<f32>> {
        let Data { pixels, placements, .. } = &self.data;
        Ok(self.learner.model().predict(Posters { pixels, placements, format: &self.format() })?)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(
        arguments.python.is_none() || arguments.network == resnet50::NETWORK,
        "--python: what is there in PyTorch is {}",
        resnet50::NETWORK.title
    );
    let Gpu { device, counters } = arguments.gpu.open()?;
    let device = Rc::new(device);
    eprintln!("{}", device.name());
    let config = ModelConfig { image_size: arguments.image_size, ..ModelConfig::new(arguments.network, GENRES) };
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
            arguments.steps.clamp(1, PROFILED)
        }
    };
    match &arguments.profile {
        Some(path) => profile::write(&mut work, path, profiled),
        None => Ok(()),
    }
}

/// What the kernels of one step did, and what they were planned to do.
fn count(work: &mut Work, counters: &Counters) -> anyhow::Result<()> {
    let (device, network) = (Rc::clone(&work.device), work.network());
    let mut rows = csv::Writer::from_writer(io::stdout());
    let mut table = |name, kernels: BTreeMap<String, Counted>| -> anyhow::Result<()> {
        let mut total = Counted::default();
        for (kernel, counted) in kernels {
            total.merge(&counted);
            rows.serialize(KernelRow::new(network, name, kernel, &counted))?;
        }
        rows.serialize(KernelRow::new(network, name, "all".into(), &total))?;
        Ok(rows.flush()?)
    };
    counters.forget()?;
    let pixels = work.upload()?;
    let (done, plan) = device.planned(|| work.submit(pixels));
    done?;
    work.learner.outcome()?;
    table("train", counters.take(&plan)?)?;
    let (done, plan) = device.planned(|| work.infer());
    done?;
    table("infer", counters.take(&plan)?)
}

/// The table of [`Row`]s, on its way to standard output.
struct Table<'a> {
    arguments: &'a Arguments,
    device: String,
    rows: csv::Writer<Stdout>,
}

impl Table<'_> {
    fn step(&mut self, engine: &str, work: &str, ms: f64) -> anyhow::Result<()> {
        let images_per_s = Some(figure(1e3 * self.arguments.gpu.batch() as f64 / ms));
        self.write(Row { images_per_s, ..self.row(engine, work, ms) })
    }

    fn anchor(&mut self, work: &str, ms: f64, bytes: usize, flops: usize) -> anyhow::Result<()> {
        let rate = |of: usize, unit: f64| (of > 0).then(|| figure(of as f64 / unit / (ms / 1e3)));
        let (gb_per_s, tflop_per_s) = (rate(bytes, 1e9), rate(flops, 1e12));
        self.write(Row { gb_per_s, tflop_per_s, ..self.row("onesheet", work, ms) })
    }

    fn row(&self, engine: &str, work: &str, ms: f64) -> Row {
        let Arguments { gpu, network, image_size, .. } = self.arguments;
        Row {
            engine: engine.into(),
            network: network.name,
            device: self.device.clone(),
            precision: format!("{:?}", gpu.precision).to_lowercase(),
            batch: gpu.batch(),
            image_size: *image_size,
            work: work.into(),
            ms: figure(ms),
            images_per_s: None,
            gb_per_s: None,
            tflop_per_s: None,
        }
    }

    fn write(&mut self, row: Row) -> anyhow::Result<()> {
        self.rows.serialize(row)?;
        Ok(self.rows.flush()?)
    }
}

/// Images a second of both engines, and the anchors.
fn measure(work: &mut Work, arguments: &Arguments) -> anyhow::Result<()> {
    let mut table = Table { arguments, device: work.device.name(), rows: csv::Writer::from_writer(io::stdout()) };
    let steps = WARM_UP + arguments.steps.max(1);
    let (mut next, mut is_first) = (Some(work.upload()?), true);
    let train = median(steps, || {
        let pixels = next.take().context("a batch is always on its way")?;
        work.submit(pixels)?;
        next = Some(work.upload()?);
        // As in training: the loss of the step before, while this one runs.
        if !std::mem::take(&mut is_first) {
            work.learner.outcome()?;
        }
        Ok(())
    })?;
    work.learner.outcome()?;
    table.step("onesheet", "train", train)?;
    let infer = median(steps, || work.infer().map(drop))?;
    table.step("onesheet", "infer", infer)?;
    if arguments.anchors {
        for mut anchor in anchors::all(&work.device, arguments.gpu.batch())? {
            let ms = median(steps, || Ok((anchor.run)()?))? / anchors::LAUNCHES as f64;
            table.anchor(&anchor.name, ms, anchor.bytes, anchor.flops)?;
        }
    }
    match &arguments.python {
        Some(python) => beside_pytorch(&mut table, python, steps),
        None => {
            eprintln!("PyTorch NOT COMPARED: --python names a Python that has it");
            Ok(())
        }
    }
}

/// Images a second of PyTorch, in each way that was asked for and works.
///
/// # Errors
/// If one does not work, after the others.
fn beside_pytorch(table: &mut Table<'_>, python: &Path, steps: usize) -> anyhow::Result<()> {
    let Arguments { gpu, image_size, pytorch, pytorch_seconds, .. } = table.arguments;
    let step = pytorch::Step { precision: gpu.precision, batch: gpu.batch(), image_size: *image_size, steps };
    let limit = Duration::from_secs(*pytorch_seconds);
    let mut failures = 0;
    for &way in pytorch {
        let done = pytorch::run(python, way, step, limit, |time| table.step(&time.engine, &time.work, time.ms));
        if let Err(error) = done {
            eprintln!("PyTorch NOT COMPARED: {error:#}");
            failures += 1;
        }
    }
    anyhow::ensure!(failures == 0, "ways of PyTorch that were not compared: {failures}; see above");
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
