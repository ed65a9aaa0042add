//! `--device` and `--precision`: which machine computes, and what to say if it cannot.

use crate::exit::Usage;
use anyhow::Context;
use onesheet::device::cpu::Cpu;
use onesheet::device::cuda::{self, Cuda, simulated};
use onesheet::device::{Device, DeviceError};
use onesheet::training::config::{DeviceChoice, Precision};

/// The device that was asked for.
pub enum Opened {
    /// The processor, and why it.
    Cpu(Cpu, String),
    /// An NVIDIA GPU, or the simulated one.
    Cuda(Cuda),
}

/// Opens a device. `auto` takes an NVIDIA GPU if there is one that the kernels run on.
pub fn open(device: DeviceChoice, precision: Precision) -> anyhow::Result<Opened> {
    let on_gpu = match precision {
        Precision::Auto | Precision::Bf16 => cuda::Precision::Bf16,
        Precision::Tf32 => cuda::Precision::Tf32,
        Precision::F32 => cuda::Precision::F32,
    };
    match device {
        DeviceChoice::Cpu => processor(precision, "--device cpu".into()),
        DeviceChoice::Cuda => Ok(Opened::Cuda(Cuda::new(on_gpu).context("--device cuda")?)),
        DeviceChoice::Sim => {
            simulated::open().context("--device sim")?;
            Ok(Opened::Cuda(Cuda::new(on_gpu).context("--device sim")?))
        }
        DeviceChoice::Auto => match Cuda::new(on_gpu) {
            Ok(device) => Ok(Opened::Cuda(device)),
            Err(DeviceError::Unavailable(reason)) => processor(precision, reason),
            Err(error) => Err(error).context("--device auto"),
        },
    }
}

/// What computes, and why it where there was a choice.
pub fn described<D: Device>(device: &D, why: &str) -> String {
    device.name() + if why.is_empty() { "" } else { "; " } + why
}

fn processor(precision: Precision, why: String) -> anyhow::Result<Opened> {
    match precision {
        Precision::Auto | Precision::F32 => Ok(Opened::Cpu(Cpu::new(), why)),
        Precision::Tf32 | Precision::Bf16 => {
            Err(Usage(format!("{why}; the processor computes in f32 only, so leave --precision out")).into())
        }
    }
}
