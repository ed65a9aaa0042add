//! Every kernel of the network, layer by layer: the 53 convolutions in each pass, and what is bound by memory.
//!
//! ```text
//! cargo bench --bench kernels --features cudnn -- [--precision bf16|tf32|f32] [--batch 128] [--only conv3]
//! cargo bench --bench kernels -- --device sim [--precision …] [--batch 1] [--only conv3]
//! ```
//!
//! CSV on standard output, a line a layer and pass. `plain` is the pass alone. `fused` is what the network runs: batch norm's
//! apply and ReLU in the load path, its statistics or reductions in the epilogue, what it owes to the gradient formed
//! while loading or ahead.
//!
//! On an NVIDIA GPU a time is that of many launches replayed as one graph, divided by their number, so caches are as warm as
//! the layer's size allows. cuDNN's `cudnn_plain_ms` is that of the plain pass, on the same numbers and by the same clock, in
//! the `plain` line and in the `fused` one, where our kernel does more in its time; `cudnn_plain_over_ours` above one says
//! that ours is the faster. Each of its algorithms is held to our answer before it is timed, and the fastest that agrees
//! counts: `cudnn_algorithm`, and `off_cudnn`, the largest difference of an element beside its own size and the root mean
//! square of all. Where none agrees, the columns are empty, standard error has why, and the bench fails in the end.
//!
//! Our weights' gradient is f32 and added to what is there, in one order; cuDNN's is as wide as its operands, replaces what
//! is there, and may come of atomic additions.
//!
//! On the simulated GPU there are no times: a line has what the launches moved beside what they must, and the floor of the
//! time that follows from it, *modelled*, for each GPU it knows.

mod convolutions;
#[cfg(feature = "cudnn")]
mod cudnn;
#[path = "../gpu/mod.rs"]
mod gpu;
#[path = "../layers/mod.rs"]
mod layers;
mod memory_bound;
mod report;
mod time;

use clap::Parser;
use gpu::Options;
use report::Report;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    gpu: Options,
    /// Height and width of the posters
    #[arg(long, default_value_t = 150)]
    image_size: usize,
    /// Only layers whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> anyhow::Result<()> {
    let Arguments { gpu: options, image_size, only } = Arguments::parse();
    let mut report = Report::new(options.open()?, only);
    eprintln!("{}", report.name());
    convolutions::all(&mut report, options.batch(), image_size)?;
    memory_bound::all(&mut report, options.batch(), image_size)?;
    report.end()
}
