//! `onesheet doctor`: what this machine has to compute with, whether it computes right, and what to do about what is wrong.

mod checks;
mod gpu;

use crate::console::{OutputError, print};
use crate::device::Bf16;
use crate::exit::Unfit;
use crate::machine;
use anyhow::Context;
use clap::Args as ClapArgs;
use onesheet::device::cpu::Cpu;
use onesheet::device::cuda::gpu::Gpu;
use onesheet::device::cuda::{Cuda, driver, modules, simulated};
use onesheet::device::{Device, DeviceError, Memory, Precision};
use onesheet::files::free_space;
use onesheet::training::config::{DeviceChoice, RunConfig};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

const EXAMPLES: &str = "Examples:
  onesheet doctor                                              # exit code 5 if something computes wrong
  onesheet doctor --device cuda --kernels kernels.csv          # registers, memory and resident blocks of each kernel
  CUDA_CACHE_DISABLE=1 onesheet doctor                         # what a first start costs: the driver compiles everything";

/// Say what this machine computes with, try each device on a small network, and say what to do about what is wrong.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// Write a row a kernel to this CSV file
    #[arg(long, value_name = "FILE")]
    kernels: Option<PathBuf>,
    /// Print JSON, one object a finding
    #[arg(long)]
    json: bool,
    /// Print results only
    #[arg(short, long)]
    quiet: bool,
}

/// The version of the lines that `--json` prints.
const SCHEMA: u32 = 1;

/// What is found, told as it comes.
struct Findings {
    json: bool,
    /// How many are wrong.
    wrong: usize,
}

impl Findings {
    /// Tells of something as it is.
    fn tell(&self, name: &str, value: String) -> Result<(), OutputError> {
        self.print(name, &value, "fine", None)
    }

    /// Tells of something that could be better, and how.
    fn note(&self, name: &str, value: String, advice: &str) -> Result<(), OutputError> {
        self.print(name, &value, "note", Some(advice))
    }

    /// Tells of something that is wrong, and what to do.
    fn fault(&mut self, name: &str, value: String, advice: &str) -> Result<(), OutputError> {
        self.wrong += 1;
        self.print(name, &value, "wrong", Some(advice))
    }

    fn print(&self, name: &str, value: &str, state: &str, advice: Option<&str>) -> Result<(), OutputError> {
        if self.json {
            let finding = json!({ "name": name, "value": value, "state": state, "advice": advice });
            return print(format_args!("{}\n", json!({ "schema": SCHEMA, "kind": "finding", "finding": finding })));
        }
        let wrong = if state == "wrong" { "WRONG: " } else { "" };
        let advice = advice.map_or(String::new(), |advice| format!("{:<10} → {advice}\n", ""));
        print(format_args!("{name:<10} {wrong}{value}\n{advice}"))
    }
}

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut findings = Findings { json: args.json, wrong: 0 };
    let version = env!("CARGO_PKG_VERSION");
    findings.tell("onesheet", format!("{version}; the kernels are PTX {}", modules::ptx_version()))?;
    processor(&mut findings)?;
    room(&findings)?;
    let precisions: &[Precision] =
        if Cpu::multiplies_bf16() { &[Precision::F32, Precision::Bf16] } else { &[Precision::F32] };
    for &precision in precisions {
        check(Rc::new(Cpu::storing(precision)), precision, &mut findings)?;
    }
    let opened = match args.device {
        DeviceChoice::Cpu => return verdict(&findings),
        DeviceChoice::Sim => simulated::open().and_then(|()| Gpu::open()),
        DeviceChoice::Cuda | DeviceChoice::Auto => Gpu::open(),
    };
    match opened {
        Ok(gpu) => {
            gpu::examine(&gpu, args, &mut findings)?;
            let gpu = Arc::new(gpu);
            for precision in Precision::ALL {
                check(Rc::new(Cuda::on(&gpu, precision, &mut |_| {})?), precision, &mut findings)?;
            }
            verdict(&findings)
        }
        Err(DeviceError::Unavailable(reason)) if args.device == DeviceChoice::Auto => {
            let advice = format!(
                "an NVIDIA GPU from Ampere on needs its driver, for CUDA {} or newer, and nothing else; a container must be given \
                 it (docker run --gpus all)",
                driver::needed()
            );
            findings.note("GPU", format!("none that the kernels run on: {reason}"), &advice)?;
            verdict(&findings)
        }
        Err(error) if args.device == DeviceChoice::Sim => Err(error).context("--device sim"),
        Err(error) => Err(error).context("--device cuda"),
    }
}

fn verdict(findings: &Findings) -> anyhow::Result<()> {
    match findings.wrong {
        0 => Ok(()),
        wrong => Err(Unfit(format!("{wrong} of what is told above is wrong")).into()),
    }
}

/// The processor, and what of it the kernels use.
fn processor(findings: &mut Findings) -> anyhow::Result<()> {
    findings.tell("processor", Cpu::fastest().name())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let has = machine::instruction_sets().join(", ");
    findings.tell("machine", format!("{}, {cores} cores for this process; {has}", machine::processor()))?;
    if let Ok(limit) = std::env::var("ONESHEET_PROCESSOR") {
        let advice = "unset it, and kernels use all that the processor has";
        findings.note("limit", format!("ONESHEET_PROCESSOR={limit}"), advice)?;
    }
    if let Some((told, advice)) = bfloat16(Bf16::here()) {
        findings.note("bfloat16", told.into(), advice)?;
    }
    Ok(())
}

/// What is to be said of a processor that computes in f32, and what would be faster.
fn bfloat16(bf16: Bf16) -> Option<(&'static str, &'static str)> {
    match bf16 {
        Bf16::Missing => Some((
            "no instructions for it: f32 is what this processor computes in",
            "a processor with AMX trains several times as fast, and a GPU far faster",
        )),
        Bf16::Slower => Some((
            "slower than f32 on this processor, which computes in f32 unless told otherwise",
            "with AMX, on a processor and a system that have it, bf16 is several times as fast as f32",
        )),
        Bf16::Fastest => None,
    }
}

/// Memory and disk, beside what a run of the whole network takes.
fn room(findings: &Findings) -> anyhow::Result<()> {
    let gibibytes = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    let (memory, disk) = checks::needs(&RunConfig::default())?;
    if let Some(free) = machine::free_memory() {
        let told = format!("{} free; ResNet-50 takes {} at 128 posters in f32", gibibytes(free), gibibytes(memory));
        match free >= memory {
            true => findings.tell("memory", told)?,
            false => findings.note(
                "memory",
                told,
                "take a smaller --batch, or --recompute; `onesheet plan` says what is enough",
            )?,
        }
    }
    let free = free_space(Path::new(".")).context("cannot ask how much space is free here")?;
    let told = format!("{} free here; a run of ResNet-50 keeps {}", gibibytes(free), gibibytes(disk));
    match free >= disk {
        true => findings.tell("disk", told)?,
        false => findings.note("disk", told, "make room, or keep runs on another disk: --run /elsewhere/NAME")?,
    }
    Ok(())
}

/// Tries a device, and tells whether it computes right.
fn check<D: Device>(device: Rc<D>, precision: Precision, findings: &mut Findings) -> anyhow::Result<()> {
    let name = device.name();
    let checked = checks::check(device, precision).with_context(|| format!("a small network on {name}"))?;
    let told = format!("{name}: {checked}");
    match checked.fault() {
        None => findings.tell("check", told)?,
        Some(fault) => {
            let advice = "do not train on this device; please report it, with what `onesheet doctor --json` prints";
            findings.fault("check", format!("{told}; {fault}"), advice)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_computes_in_f32_is_told_why() {
        let told = |bf16| bfloat16(bf16).map(|(told, _)| told);
        assert!(told(Bf16::Missing).unwrap().starts_with("no instructions for it"));
        assert!(told(Bf16::Slower).unwrap().starts_with("slower than f32"));
        assert_eq!(told(Bf16::Fastest), None);
    }

    #[test]
    fn only_what_is_wrong_fails() {
        let mut findings = Findings { json: true, wrong: 0 };
        findings.tell("a", "b".into()).unwrap();
        findings.note("a", "b".into(), "c").unwrap();
        assert!(verdict(&findings).is_ok());
        findings.fault("a", "b".into(), "c").unwrap();
        assert!(verdict(&findings).unwrap_err().is::<Unfit>());
    }
}
