//! What the benches of CUDA kernels share: the device they run on, and what the simulated one counts.

pub mod counters;

use anyhow::{Context, bail};
use counters::Counters;
use onesheet::device::Precision;
use onesheet::device::cuda::{Cuda, simulated};
use onesheet::training::config::{DeviceChoice, PrecisionChoice};

/// Which device, and how wide.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Options {
    /// `cuda` (an NVIDIA GPU) or `sim` (the simulated one)
    #[arg(long, value_enum, default_value = "cuda")]
    pub device: DeviceChoice,
    /// How wide the numbers are
    #[arg(long, value_enum, default_value = "bf16")]
    pub precision: PrecisionChoice,
    /// Images a batch [default: 128, on the simulated GPU 1]
    #[arg(long)]
    pub batch: Option<usize>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The device that a bench runs on.
pub struct Gpu {
    /// It.
    pub device: Cuda,
    /// What launches on it did, if it is the simulated one.
    pub counters: Option<Counters>,
}

/// A figure as a table shows it: to four decimals.
pub fn figure(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

impl Options {
    /// Opens the device.
    pub fn open(&self) -> anyhow::Result<Gpu> {
        let precision = self.precision();
        match self.device {
            DeviceChoice::Cuda => {
                let device = Cuda::new(precision).context("--device cuda; --device sim needs no GPU")?;
                Ok(Gpu { device, counters: None })
            }
            DeviceChoice::Sim => {
                simulated::open().context("--device sim")?;
                let device = Cuda::new(precision).context("--device sim")?;
                Ok(Gpu { device, counters: Some(Counters::start()?) })
            }
            DeviceChoice::Auto | DeviceChoice::Cpu => bail!("this bench is for CUDA kernels: --device cuda or sim"),
        }
    }

    fn precision(&self) -> Precision {
        self.precision.on_gpu()
    }

    /// Images a batch.
    pub fn batch(&self) -> usize {
        self.batch.unwrap_or(if self.device == DeviceChoice::Sim { 1 } else { 128 })
    }
}
