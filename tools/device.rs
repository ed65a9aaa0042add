//! `--device` and `--precision`: which machine computes, what to say while its kernels are compiled, and what if it cannot.

use crate::console::Console;
use crate::exit::Usage;
use crate::machine;
use anyhow::Context;
use indicatif::ProgressBar;
use onesheet::device::cpu::Cpu;
use onesheet::device::cuda::gpu::{self, Gpu};
use onesheet::device::cuda::{Cuda, modules, simulated};
use onesheet::device::{Device, DeviceError};
use onesheet::training::config::{DeviceChoice, PrecisionChoice, RunConfig};
use onesheet::training::replicas::Opener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The device that was asked for.
pub enum Opened {
    /// The processor, and why it.
    Cpu(Cpu, String),
    /// An NVIDIA GPU, or the simulated one.
    Cuda(Cuda),
}

impl Opened {
    /// Bytes of memory that are free where it computes, if anybody says.
    pub fn free_memory(&self) -> Option<u64> {
        match self {
            Opened::Cpu(..) => machine::free_memory(),
            Opened::Cuda(device) => device.free_memory().ok().map(|free| free as u64),
        }
    }
}

/// Opens a device. `auto` takes an NVIDIA GPU if there is one that the kernels run on.
pub fn open(device: DeviceChoice, precision: PrecisionChoice, console: Console) -> anyhow::Result<Opened> {
    let opened = || {
        let gpu = Arc::new(Gpu::open()?);
        let mut compiling = Compiling::new(console, device == DeviceChoice::Sim);
        Cuda::on(&gpu, precision.on_gpu(), &mut |progress| compiling.show(&gpu, progress))
    };
    match device {
        DeviceChoice::Cpu => processor(precision, Bf16::here(), "--device cpu".into()),
        DeviceChoice::Cuda => Ok(Opened::Cuda(opened().context("--device cuda")?)),
        DeviceChoice::Sim => {
            simulated::open().context("--device sim")?;
            Ok(Opened::Cuda(opened().context("--device sim")?))
        }
        DeviceChoice::Auto => match opened() {
            Ok(device) => Ok(Opened::Cuda(device)),
            Err(DeviceError::Unavailable(reason)) => processor(precision, Bf16::here(), reason),
            Err(error) => Err(error).context("--device auto"),
        },
    }
}

/// Refuses a run on more GPUs than there are.
///
/// # Errors
/// [`Usage`].
pub fn refuse_too_few(opened: &Opened, config: &RunConfig) -> Result<(), Usage> {
    let gpus = config.gpus;
    match opened {
        _ if gpus == 1 => Ok(()),
        Opened::Cpu(_, why) => Err(Usage(format!("{why}; --gpus {gpus} needs {gpus} NVIDIA GPUs"))),
        // The simulated one is several.
        Opened::Cuda(_) if config.device == DeviceChoice::Sim => Ok(()),
        Opened::Cuda(device) => match device.gpu().devices() {
            here if here < gpus => Err(Usage(format!("--gpus {gpus}: CUDA lists {here} here"))),
            _ => Ok(()),
        },
    }
}

/// What opens the further GPUs of a run, beside the first.
pub fn others(first: &Cuda, config: &RunConfig) -> Vec<Opener<Cuda>> {
    let precision = first.precision();
    let is_simulated = config.device == DeviceChoice::Sim;
    let opener = |ordinal: usize| -> Opener<Cuda> {
        let simulated = is_simulated.then(|| Arc::clone(first.gpu()));
        Box::new(move || {
            let gpu = simulated.map_or_else(|| Gpu::at(ordinal).map(Arc::new), Ok)?;
            Cuda::on(&gpu, precision, &mut |_| {})
        })
    };
    (1..config.gpus).map(opener).collect()
}

/// What computes, and why it where there was a choice.
pub fn described<D: Device>(device: &D, why: &str) -> String {
    device.name() + if why.is_empty() { "" } else { "; " } + why
}

/// What bf16 is on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bf16 {
    /// Nothing: there are no instructions for it.
    Missing,
    /// Possible, and slower than f32.
    Slower,
    /// The fastest precision.
    Fastest,
}

impl Bf16 {
    /// On this one.
    pub fn here() -> Self {
        match (Cpu::multiplies_bf16(), Cpu::is_fastest_in_bf16()) {
            (_, true) => Bf16::Fastest,
            (true, false) => Bf16::Slower,
            (false, false) => Bf16::Missing,
        }
    }
}

fn processor(precision: PrecisionChoice, bf16: Bf16, why: String) -> anyhow::Result<Opened> {
    if precision == PrecisionChoice::Bf16 && bf16 == Bf16::Missing {
        return Err(DeviceError::Unavailable(format!("{why}; {NO_BF16}")).into());
    }
    match precision.on_processor(bf16 == Bf16::Fastest) {
        Some(precision) => Ok(Opened::Cpu(Cpu::storing(precision), why)),
        None => Err(Usage(format!("{why}; {NO_TF32}")).into()),
    }
}

/// What to do about a precision that only GPUs have.
pub const NO_TF32: &str = "tf32 is a format of GPUs: on the processor --precision is f32 or bf16";

/// What to do about a processor that would be slower in bf16 than in f32.
const NO_BF16: &str = "this processor has no instructions for bf16, neither AVX-512 BF16 nor AMX, and would be slower than in f32: \
--precision f32";

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
        if let Some(line) = self.advance(&gpu.name(), progress) {
            self.console.say(line);
        }
    }

    /// Moves the bar; the line that is due now, if one is.
    fn advance(&mut self, gpu: &str, progress: gpu::Progress) -> Option<String> {
        let gpu::Progress { done, files, last } = progress;
        let begun = format!("compiling the kernels for {gpu}");
        let line = match last {
            None if self.console.is_live() => {
                self.bar = self.console.bar(files as u64, "{msg} {wide_bar} {pos}/{len} files, {elapsed}");
                self.bar.set_message(begun);
                None
            }
            None => Some(begun),
            Some((name, took)) => {
                self.bar.set_position(done as u64);
                if took > self.longest.1 {
                    self.longest = (name, took);
                }
                None
            }
        };
        if done < files {
            return line;
        }
        self.bar.finish_and_clear();
        Some(told(files, self.began.elapsed(), self.longest, (!self.is_simulated).then(modules::cache)))
    }
}

/// How long `files` files took, and where the driver keeps what came of them, if it is a real one and keeps it.
fn told(
    files: usize,
    took: Duration,
    (name, longest): (&'static str, Duration),
    cache: Option<Option<PathBuf>>,
) -> String {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let told = format!("{files} files of kernels compiled in {}, {name} in {}", seconds(took), seconds(longest));
    match cache {
        None => told,
        Some(Some(folder)) => format!("{told}; the driver keeps them in {}", folder.display()),
        Some(None) => format!("{told}; CUDA_CACHE_DISABLE has the driver keep none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_with_the_reason_for_it_where_there_is_one() {
        use onesheet::device::Memory;
        let (device, name) = (Cpu::new(), Cpu::new().name());
        assert_eq!(described(&device, ""), name);
        assert_eq!(described(&device, "no GPU"), format!("{name}; no GPU"));
    }

    #[test]
    fn the_processor_computes_in_f32_and_where_it_has_instructions_in_bf16() {
        use onesheet::device::Memory;
        let choices = [
            (PrecisionChoice::Auto, Bf16::Missing, "f32)"),
            (PrecisionChoice::Auto, Bf16::Slower, "f32)"),
            (PrecisionChoice::Auto, Bf16::Fastest, "bf16)"),
            (PrecisionChoice::F32, Bf16::Missing, "f32)"),
            (PrecisionChoice::F32, Bf16::Fastest, "f32)"),
            (PrecisionChoice::Bf16, Bf16::Slower, "bf16)"),
            (PrecisionChoice::Bf16, Bf16::Fastest, "bf16)"),
        ];
        for (precision, bf16, name) in choices {
            let opened = processor(precision, bf16, "--device cpu".into()).unwrap();
            assert!(matches!(opened, Opened::Cpu(cpu, why) if why == "--device cpu" && cpu.name().ends_with(name)));
        }
        for bf16 in [Bf16::Missing, Bf16::Slower, Bf16::Fastest] {
            let refused = processor(PrecisionChoice::Tf32, bf16, "no GPU".into()).err().unwrap();
            assert!(refused.is::<Usage>());
            let expected = "no GPU; tf32 is a format of GPUs: on the processor --precision is f32 or bf16";
            assert_eq!(refused.to_string(), expected);
        }
        let refused = processor(PrecisionChoice::Bf16, Bf16::Missing, "no GPU".into()).err().unwrap();
        assert!(matches!(refused.downcast_ref(), Some(DeviceError::Unavailable(_))));
        let told = refused.to_string();
        assert!(
            told.contains("no GPU; this processor has no instructions for bf16") && told.ends_with("--precision f32")
        );
    }

    #[test]
    fn more_gpus_than_there_are_are_refused() {
        let with = |device, gpus| RunConfig { device, gpus, ..RunConfig::default() };
        let none = Opened::Cpu(Cpu::new(), "no GPU".into());
        let console = Console { quiet: true };
        let one = open(DeviceChoice::Sim, PrecisionChoice::F32, console).unwrap();
        assert!(refuse_too_few(&none, &with(DeviceChoice::Auto, 1)).is_ok());
        assert!(refuse_too_few(&one, &with(DeviceChoice::Cuda, 1)).is_ok());
        assert!(refuse_too_few(&one, &with(DeviceChoice::Sim, 2)).is_ok());
        let refused = |opened, device| refuse_too_few(opened, &with(device, 2)).unwrap_err().to_string();
        assert_eq!(refused(&none, DeviceChoice::Auto), "no GPU; --gpus 2 needs 2 NVIDIA GPUs");
        // The driver in software lists one, as a machine does that has no more.
        assert_eq!(refused(&one, DeviceChoice::Cuda), "--gpus 2: CUDA lists 1 here");
    }

    #[test]
    fn compilation_is_told_of_at_its_beginning_and_its_end() {
        let mut compiling = Compiling::new(Console { quiet: true }, true);
        let mut advance = |done, last: Option<(&'static str, u64)>| {
            let last = last.map(|(name, tenths)| (name, Duration::from_millis(100 * tenths)));
            compiling.advance("Some GPU", gpu::Progress { done, files: 4, last })
        };
        assert_eq!(advance(0, None).as_deref(), Some("compiling the kernels for Some GPU"));
        assert_eq!(advance(1, Some(("short", 3))), None);
        assert_eq!(advance(2, Some(("long", 21))), None);
        assert_eq!(advance(3, Some(("as_long", 21))), None);
        let told = advance(4, Some(("last", 2))).unwrap();
        assert!(told.starts_with("4 files of kernels compiled in ") && told.ends_with(" s, long in 2.1 s"), "{told}");
    }

    #[test]
    fn where_the_compiled_kernels_are_kept_is_told_of_a_real_driver() {
        let told = |cache| told(4, Duration::from_millis(6543), ("conv", Duration::from_millis(1234)), cache);
        let files = "4 files of kernels compiled in 6.5 s, conv in 1.2 s";
        assert_eq!(told(None), files);
        assert_eq!(told(Some(None)), format!("{files}; CUDA_CACHE_DISABLE has the driver keep none"));
        assert_eq!(told(Some(Some("/a/b".into()))), format!("{files}; the driver keeps them in /a/b"));
    }
}
