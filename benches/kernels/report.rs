//! A line of the table, and how it is come by.

use super::gpu::counters::Counted;
use super::gpu::{Gpu, figure};
use super::time;
use onesheet::device::cuda::Cuda;
use onesheet::device::cuda::kernels::Planned;
use onesheet::device::{DeviceError, Memory};
use serde::Serialize;
use std::io::{self, Stdout};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The layer's name.
    pub layer: String,
    /// How often the network has it.
    pub count: usize,
    /// The pass, or the kernel's method.
    pub pass: &'static str,
    /// The extents.
    pub shape: String,
}

/// What cuDNN has to say about the plain pass of a layer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Milliseconds.
    pub ms: f64,
    /// The algorithm that takes them.
    pub algorithm: String,
    /// How far our answer is off the algorithm's.
    pub off: f64,
}

/// A line. What a device does not know is empty.
#[derive(Serialize)]
struct Row {
    layer: String,
    count: usize,
    pass: &'static str,
    shape: String,
    kernels: String,
    device: String,
    planned_mb: f64,
    gflop: f64,
    ms: Option<f64>,
    tflop_per_s: Option<f64>,
    gb_per_s: Option<f64>,
    cudnn_plain_ms: Option<f64>,
    cudnn_plain_over_ours: Option<f64>,
    cudnn_algorithm: Option<String>,
    off_cudnn: Option<String>,
    dram_mb: Option<f64>,
    coalesced_percent: Option<f64>,
    bank_conflicts: Option<u64>,
    tensor_gflop: Option<f64>,
    modelled_us_a100: Option<f64>,
    modelled_us_rtx_4090: Option<f64>,
    modelled_us_h100: Option<f64>,
    modelled_us_b200: Option<f64>,
}

/// The table, on its way to standard output.
pub struct Report {
    gpu: Gpu,
    only: String,
    not_compared: usize,
    rows: csv::Writer<Stdout>,
}

impl Report {
    /// A table of the layers whose name contains `only`.
    pub fn new(gpu: Gpu, only: String) -> Self {
        Report { gpu, only, not_compared: 0, rows: csv::Writer::from_writer(io::stdout()) }
    }

    /// The device's name.
    pub fn name(&self) -> String {
        self.gpu.device.name()
    }

    /// The device.
    pub fn device(&self) -> Cuda {
        self.gpu.device.clone()
    }

    /// Whether it is the simulated one.
    pub fn is_simulated(&self) -> bool {
        self.gpu.counters.is_some()
    }

    /// Whether a layer was asked for.
    pub fn wants(&self, layer: &str) -> bool {
        layer.contains(&self.only)
    }

    /// Says why a pass has no figures of cuDNN's.
    #[cfg(feature = "cudnn")]
    pub fn not_compared(&mut self, subject: &Subject, error: &anyhow::Error) {
        eprintln!("{} of {} NOT COMPARED with cuDNN: {error:#}", subject.pass, subject.layer);
        self.not_compared += 1;
    }

    /// Ends the table.
    ///
    /// # Errors
    /// If cuDNN was there, and yet a pass was not compared with it.
    pub fn end(self) -> anyhow::Result<()> {
        let passes = self.not_compared;
        anyhow::ensure!(passes == 0, "passes not compared with cuDNN: {passes}; standard error has why");
        Ok(())
    }

    /// Measures `run` and writes its line. `cudnn` is what cuDNN says about the plain pass.
    pub fn line(
        &mut self,
        subject: Subject,
        cudnn: Option<&Peer>,
        mut run: impl FnMut(&Cuda) -> Result<(), DeviceError>,
    ) -> anyhow::Result<()> {
        let device = self.device();
        if let Some(counters) = &self.gpu.counters {
            counters.forget()?;
        }
        let (done, plan) = device.planned(|| run(&device));
        done?;
        let counted = match &self.gpu.counters {
            Some(counters) => Some(counters.take(&plan)?.values().fold(Counted::default(), |mut total, counted| {
                total.merge(counted);
                total
            })),
            None => None,
        };
        let ms = if counted.is_none() { Some(time::of(&device, run)?) } else { None };
        self.write(subject, &plan, ms, cudnn, counted)
    }

    fn write(
        &mut self,
        subject: Subject,
        plan: &[Planned],
        ms: Option<f64>,
        cudnn: Option<&Peer>,
        counted: Option<Counted>,
    ) -> anyhow::Result<()> {
        let Subject { layer, count, pass, shape } = subject;
        let bytes: u64 = plan.iter().map(|planned| planned.launch.work.reads + planned.launch.work.writes).sum();
        let flops: u64 = plan.iter().map(|planned| planned.launch.work.flops).sum();
        let kernels: Vec<&str> = plan.iter().map(|planned| planned.kernel).collect();
        let counted = counted.as_ref();
        let us = |gpu: &str| counted.and_then(|counted| counted.modelled_us.get(gpu).copied().map(figure));
        self.rows.serialize(Row {
            layer,
            count,
            pass,
            shape,
            kernels: kernels.join(" "),
            device: self.name(),
            planned_mb: figure(bytes as f64 / 1e6),
            gflop: figure(flops as f64 / 1e9),
            ms: ms.map(figure),
            tflop_per_s: ms.map(|ms| figure(flops as f64 / ms / 1e9)),
            gb_per_s: ms.map(|ms| figure(bytes as f64 / ms / 1e6)),
            cudnn_plain_ms: cudnn.map(|cudnn| figure(cudnn.ms)),
            cudnn_plain_over_ours: ms.zip(cudnn).map(|(ours, cudnn)| figure(cudnn.ms / ours)),
            cudnn_algorithm: cudnn.map(|cudnn| cudnn.algorithm.clone()),
            off_cudnn: cudnn.map(|cudnn| format!("{:.1e}", cudnn.off)),
            dram_mb: counted.map(|counted| figure(counted.dram_bytes as f64 / 1e6)),
            coalesced_percent: counted.map(|counted| figure(counted.coalesced())),
            bank_conflicts: counted.map(|counted| counted.bank_conflicts),
            tensor_gflop: counted.map(|counted| figure(counted.tensor_flops as f64 / 1e9)),
            modelled_us_a100: us("A100"),
            modelled_us_rtx_4090: us("RTX 4090"),
            modelled_us_h100: us("H100"),
            modelled_us_b200: us("B200"),
        })?;
        Ok(self.rows.flush()?)
    }
}
