//! `--device` and `--precision`: which machine computes, what to say while its kernels are compiled, and what if it cannot.

use crate::console::Console;
use crate::exit::Usage;
use anyhow::Context;
use indicatif::ProgressBar;
use onesheet::device::cpu::Cpu;
use onesheet::device::cuda::gpu::{self, Gpu};
use onesheet::device::cuda::{self, Cuda, modules, simulated};
use onesheet::device::{Device, DeviceError};
use onesheet::training::config::{DeviceChoice, Precision};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The device that was asked for.
pub enum Opened {
    /// The processor, and why it.
    Cpu(Cpu, String),
    /// An NVIDIA GPU, or the simulated one.
    Cuda(Cuda),
}

/// Opens a device. `auto` takes an NVIDIA GPU if there is one that the kernels run on.
pub fn open(device: DeviceChoice, precision: Precision, console: Console) -> anyhow::Result<Opened> {
    let on_gpu = match precision {
        Precision::Auto | Precision::Bf16 => cuda::Precision::Bf16,
        Precision::Tf32 => cuda::Precision::Tf32,
        Precision::F32 => cuda::Precision::F32,
    };
    let opened = || {
        let gpu = Arc::new(Gpu::open()?);
        let mut compiling = Compiling::new(console, device == DeviceChoice::Sim);
        Cuda::on(&gpu, on_gpu, &mut |progress| compiling.show(&gpu, progress))
    };
    match device {
        DeviceChoice::Cpu => processor(precision, "--device cpu".into()),
        DeviceChoice::Cuda => Ok(Opened::Cuda(opened().context("--device cuda")?)),
        DeviceChoice::Sim => {
            simulated::open().context("--device sim")?;
            Ok(Opened::Cuda(opened().context("--device sim")?))
        }
        DeviceChoice::Auto => match opened() {
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

/// The same as the first line of `--json`.
pub fn line_on<D: Device>(device: &D, why: &str) -> serde_json::Value {
    let why = (!why.is_empty()).then_some(why);
    serde_json::json!({ "schema": 1, "kind": "device", "device": device.name(), "why": why })
}

fn processor(precision: Precision, why: String) -> anyhow::Result<Opened> {
    match precision {
        Precision::Auto | Precision::F32 => Ok(Opened::Cpu(Cpu::new(), why)),
        Precision::Tf32 | Precision::Bf16 => {
            Err(Usage(format!("{why}; the processor computes in f32 only, so leave --precision out")).into())
        }
    }
}

/// The line that moves while the driver compiles the kernels, and the one that says what it took.
pub struct Compiling {
    console: Console,
    is_simulated: bool,
    bar: ProgressBar,
    began: Instant,
    longest: (&'static str, Duration),
}

impl Compiling {
    /// Nothing compiled yet.
    pub fn new(console: Console, is_simulated: bool) -> Self {
        let (bar, began) = (ProgressBar::hidden(), Instant::now());
        Compiling { console, is_simulated, bar, began, longest: ("", Duration::ZERO) }
    }

    /// Shows how far it has come.
    pub fn show(&mut self, gpu: &Gpu, progress: gpu::Progress) {
        let gpu::Progress { done, files, last } = progress;
        match last {
            None if self.console.is_live() => {
                self.bar = self.console.bar(files as u64, "{msg} {wide_bar} {pos}/{len} files, {elapsed}");
                self.bar.set_message(format!("compiling the kernels for {}", gpu.name()));
            }
            None => self.console.say(format_args!("compiling the kernels for {}", gpu.name())),
            Some((name, took)) => {
                self.bar.set_position(done as u64);
                if took > self.longest.1 {
                    self.longest = (name, took);
                }
            }
        }
        if done == files {
            self.bar.finish_and_clear();
            self.console.say(self.told(files));
        }
    }

    fn told(&self, files: usize) -> String {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        let (name, longest) = self.longest;
        let took = seconds(self.began.elapsed());
        let told = format!("{files} files of kernels compiled in {took}, {name} in {}", seconds(longest));
        match modules::cache() {
            _ if self.is_simulated => told,
            Some(folder) => format!("{told}; the driver keeps them in {}", folder.display()),
            None => format!("{told}; CUDA_CACHE_DISABLE has the driver keep none"),
        }
    }
}
