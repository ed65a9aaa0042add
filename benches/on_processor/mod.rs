//! What the benches of networks on the processor share: which network they run, and how.

use anyhow::Context;
use clap::Parser;
use onesheet::device::cpu::Cpu;
use onesheet::network::{Network, resnet50};
use onesheet::training::config::PrecisionChoice;

/// Which network, and how.
#[derive(Clone, Copy, Debug, Parser)]
pub struct Arguments {
    /// Which network
    #[arg(long, default_value_t = resnet50::NETWORK)]
    pub network: Network,
    /// How wide the numbers are
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: PrecisionChoice,
    /// Images at a time
    #[arg(long, default_value_t = 32)]
    pub batch: usize,
    /// Height and width of the posters
    #[arg(long, default_value_t = 150)]
    pub image_size: usize,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    /// The processor, in this precision. The calling thread takes part in the work, as it does in the tools.
    pub fn device(&self) -> anyhow::Result<Cpu> {
        rayon::ThreadPoolBuilder::new().use_current_thread().build_global()?;
        let precision = self.precision.on_processor(Cpu::is_fastest_in_bf16());
        Ok(Cpu::storing(precision.context("the processor has no tf32; --precision f32 or bf16")?))
    }
}
