//! What the driver makes of the kernels on a GPU.

use super::{Args, Findings};
use crate::console::Console;
use crate::device::Compiling;
use anyhow::Context;
use onesheet::device::cuda;
use onesheet::device::cuda::gpu::Gpu;
use onesheet::device::cuda::modules::{Compiled, Module};
use onesheet::device::cuda::{Precision, modules};
use onesheet::training::config::DeviceChoice;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A kernel as the driver compiled it.
#[derive(Serialize)]
struct Row {
    file: &'static str,
    file_compiled_s: f64,
    kernel: &'static str,
    threads: u32,
    registers: u32,
    local_bytes: u32,
    shared_bytes: u32,
    resident_blocks: u32,
}

/// Compiles every kernel and tells of what came of it.
pub fn examine(gpu: &Gpu, args: &Args, findings: &mut Findings) -> anyhow::Result<()> {
    let gibibytes = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
    // A driver that does not say how much is free may still compute.
    let free = gpu.free_memory().map_or(String::new(), |free| format!(", {:.1} GiB free", gibibytes(free)));
    let memory = gibibytes(gpu.memory()?);
    let (name, count) = (gpu.name(), gpu.multiprocessors());
    let others = match gpu.devices() {
        1 => String::new(),
        devices => format!("; the first of {devices}, the others for train --gpus {devices}"),
    };
    findings.tell("GPU", format!("{name}, {count} multiprocessors, {memory:.1} GiB{free}{others}"))?;
    let needed = cuda::driver::needed();
    findings.tell("driver", format!("for CUDA {}; the kernels need {needed} or newer", gpu.driver()))?;
    let cache = modules::cache().map_or("none".into(), |folder| folder.display().to_string());
    findings.tell("JIT cache", cache)?;
    let mut compiling = Compiling::new(Console { quiet: args.quiet }, args.device == DeviceChoice::Sim);
    gpu.compile(&Precision::ALL, &mut |progress| compiling.show(gpu, progress))?;

    let mut files: BTreeMap<&str, Arc<Compiled>> = BTreeMap::new();
    for precision in Precision::ALL {
        let compiled = Module::ALL.map(|module| gpu.module(module, precision));
        let compiled = compiled.into_iter().collect::<Result<Vec<_>, _>>()?;
        let kernels: usize = compiled.iter().map(|file| file.kernels().count()).sum();
        // The files are compiled beside each other, so a precision takes as long as the longest of its own.
        let longest = compiled.iter().max_by_key(|file| file.took).context("every precision has files")?;
        let (seconds, name) = (longest.took.as_secs_f64(), longest.name);
        findings.tell(precision.name(), format!("{kernels} kernels, ready after {seconds:.2} s ({name})"))?;
        files.extend(compiled.into_iter().map(|file| (file.name, file)));
    }
    spills(kernels(&files)).into_iter().try_for_each(|kernel| findings.tell("spills", kernel))?;
    for file in files.values().filter(|file| !file.remarks.is_empty()) {
        findings.tell("compiler", format!("{}: {}", file.name, file.remarks))?;
    }
    if let Some(path) = &args.kernels {
        let mut rows = csv::Writer::from_path(path).with_context(|| format!("--kernels {}", path.display()))?;
        kernels(&files).try_for_each(|kernel| rows.serialize(kernel))?;
        rows.flush()?;
    }
    Ok(())
}

/// Which kernels have more in hand than registers hold.
fn spills(kernels: impl Iterator<Item = Row>) -> Vec<String> {
    let spilling = kernels.filter(|kernel| kernel.local_bytes > 0);
    let told: Vec<String> = spilling
        .map(|Row { file, kernel, local_bytes, .. }| {
            format!("{kernel} of {file} has {local_bytes} bytes of local memory a thread")
        })
        .collect();
    if told.is_empty() { vec!["none: no kernel has local memory".into()] } else { told }
}

fn kernels<'a>(files: &'a BTreeMap<&str, Arc<Compiled>>) -> impl Iterator<Item = Row> + 'a {
    files.values().flat_map(|file| {
        file.kernels().map(|(kernel, taken)| Row {
            file: file.name,
            file_compiled_s: (file.took.as_secs_f64() * 1e3).round() / 1e3,
            kernel,
            threads: taken.threads,
            registers: taken.registers,
            local_bytes: taken.local_bytes,
            shared_bytes: taken.shared_bytes,
            resident_blocks: taken.resident_blocks,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernel_with_local_memory_is_named() {
        let row = |kernel, local_bytes| Row {
            file: "conv_bf16",
            file_compiled_s: 1.5,
            kernel,
            threads: 256,
            registers: 128,
            local_bytes,
            shared_bytes: 0,
            resident_blocks: 2,
        };
        let told = spills([row("forward", 0), row("backward", 8), row("fold", 1)].into_iter());
        let expected = ["backward of conv_bf16 has 8 bytes", "fold of conv_bf16 has 1 bytes"];
        assert_eq!(told, expected.map(|begin| format!("{begin} of local memory a thread")));
        assert_eq!(spills([row("forward", 0)].into_iter()), ["none: no kernel has local memory"]);
    }
}
