//! A line of the table, and how it is come by.

use super::copies::{self, Copies};
#[cfg(feature = "cudnn")]
use super::cudnn;
use super::gpu::counters::Counted;
use super::gpu::{Gpu, figure};
use super::time;
use anyhow::Context;
use cudarc::driver::CudaContext;
use cudarc::driver::sys::CUdevice_attribute;
use onesheet::device::cuda::Cuda;
use onesheet::device::cuda::kernels::Planned;
use onesheet::device::{DeviceError, Memory};
use serde::Serialize;
use std::cell::OnceCell;
use std::io::{self, Stdout};
#[cfg(feature = "cudnn")]
use std::rc::Rc;

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
#[derive(Default, Serialize)]
struct Row {
    #[serde(skip)]
    bytes: u64,
    #[serde(skip)]
    flops: u64,
    layer: String,
    count: usize,
    pass: &'static str,
    shape: String,
    kernels: String,
    device: String,
    planned_mb: f64,
    gflop: f64,
    ms: Option<f64>,
    copies: Option<usize>,
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

impl Row {
    fn new(subject: Subject, device: String, plan: &[Planned]) -> Self {
        let Subject { layer, count, pass, shape } = subject;
        let bytes: u64 = plan.iter().map(|planned| planned.launch.work.reads + planned.launch.work.writes).sum();
        let flops: u64 = plan.iter().map(|planned| planned.launch.work.flops).sum();
        let kernels: Vec<&str> = plan.iter().map(|planned| planned.kernel).collect();
        let (planned_mb, gflop) = (figure(bytes as f64 / 1e6), figure(flops as f64 / 1e9));
        let kernels = kernels.join(" ");
        Row { bytes, flops, layer, count, pass, shape, kernels, device, planned_mb, gflop, ..Row::default() }
    }

    /// With what a real GPU took.
    fn timed(&mut self, ms: f64, copies: usize, cudnn: Option<&Peer>) {
        self.ms = Some(figure(ms));
        self.copies = Some(copies);
        self.tflop_per_s = Some(figure(self.flops as f64 / ms / 1e9));
        self.gb_per_s = Some(figure(self.bytes as f64 / ms / 1e6));
        self.cudnn_plain_ms = cudnn.map(|cudnn| figure(cudnn.ms));
        self.cudnn_plain_over_ours = cudnn.map(|cudnn| figure(cudnn.ms / ms));
        self.cudnn_algorithm = cudnn.map(|cudnn| cudnn.algorithm.clone());
        self.off_cudnn = cudnn.map(|cudnn| format!("{:.1e}", cudnn.off));
    }

    /// With what the simulated GPU counted.
    fn counted(&mut self, counted: &Counted) {
        let us = |gpu: &str| counted.modelled_us.get(gpu).copied().map(figure);
        self.dram_mb = Some(figure(counted.dram_bytes as f64 / 1e6));
        self.coalesced_percent = Some(figure(counted.coalesced()));
        self.bank_conflicts = Some(counted.bank_conflicts);
        self.tensor_gflop = Some(figure(counted.tensor_flops as f64 / 1e9));
        self.modelled_us_a100 = us("A100");
        self.modelled_us_rtx_4090 = us("RTX 4090");
        self.modelled_us_h100 = us("H100");
        self.modelled_us_b200 = us("B200");
    }
}

/// The table, on its way to standard output.
pub struct Report {
    gpu: Gpu,
    l2_bytes: u64,
    /// Found, or missed, when the first convolution is measured.
    #[cfg(feature = "cudnn")]
    cudnn: OnceCell<Option<Rc<cudnn::Peer>>>,
    #[cfg(not(feature = "cudnn"))]
    cudnn: OnceCell<()>,
    not_compared: usize,
    rows: csv::Writer<Stdout>,
}

impl Report {
    /// An empty table of what is measured on `gpu`.
    pub fn new(gpu: Gpu) -> anyhow::Result<Self> {
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE;
        let l2_bytes = CudaContext::new(0)
            .and_then(|context| context.attribute(attribute))
            .context("asking the driver how large the L2 cache is")?;
        let (cudnn, rows) = (OnceCell::new(), csv::Writer::from_writer(io::stdout()));
        Ok(Report { gpu, l2_bytes: l2_bytes as u64, cudnn, not_compared: 0, rows })
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

    /// Copies of the operands for launches that move so many bytes each. The simulated GPU has no cache to fill.
    pub fn copies(&self, bytes: u64) -> usize {
        if self.is_simulated() { 1 } else { copies::count(bytes, self.l2_bytes) }
    }

    /// cuDNN, if it is here.
    #[cfg(feature = "cudnn")]
    pub fn cudnn(&self) -> Option<Rc<cudnn::Peer>> {
        self.cudnn.get_or_init(|| cudnn::open(self)).clone()
    }

    /// Says once that there is no cuDNN in this bench.
    #[cfg(not(feature = "cudnn"))]
    pub fn without_cudnn(&self) {
        if !self.is_simulated() && self.cudnn.set(()).is_ok() {
            eprintln!("cuDNN NOT COMPARED: this bench was built without --features cudnn");
        }
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
    pub fn line<T, R>(
        &mut self,
        subject: Subject,
        cudnn: Option<&Peer>,
        operands: &mut Copies<T>,
        run: impl Fn(&Cuda, &mut T) -> Result<R, DeviceError>,
    ) -> anyhow::Result<()> {
        let device = self.device();
        if let Some(counters) = &self.gpu.counters {
            counters.forget()?;
        }
        let (done, plan) = device.planned(|| run(&device, operands.first()));
        done?;
        let counted = match &self.gpu.counters {
            Some(counters) => Some(counters.take(&plan)?.values().fold(Counted::default(), |mut total, counted| {
                total.merge(counted);
                total
            })),
            None => None,
        };
        let mut row = Row::new(subject, self.name(), &plan);
        match &counted {
            Some(counted) => row.counted(counted),
            None => {
                let copies = self.copies(row.bytes);
                row.timed(time::of(&device, operands.take(&device, copies)?, run)?, copies, cudnn);
            }
        }
        self.rows.serialize(row)?;
        Ok(self.rows.flush()?)
    }
}
