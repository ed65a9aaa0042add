//! Every kernel of a network, layer by layer: the convolutions in each pass, and what is bound by memory.
//!
//! ```text
//! cargo bench --bench kernels --features cudnn -- [--network resnet50] [--precision bf16|tf32|f32] [--batch 128] [--only conv3,adam]
//! cargo bench --bench kernels -- --device sim [--precision …] [--batch 1] [--only conv3,adam]
//! ```
//!
//! CSV on standard output, a line a layer and pass. `plain` is the pass alone. `fused` is what the network runs: batch norm's
//! apply and ReLU in the load path, its statistics or reductions in the epilogue, what it owes to the gradient formed
//! while loading or ahead.
//!
//! On an NVIDIA GPU a time is that of many launches replayed as one graph, divided by their number. They take turns with so
//! many `copies` of the operands and results that these are twice what the L2 cache holds, or with 32 of them: in the
//! network, too, other layers have come in between.
//!
//! cuDNN's `cudnn_plain_ms` is that of the plain pass, on the same numbers and by the same clock, in the `plain` line and in
//! the `fused` one, where our kernel does more in its time; `cudnn_plain_over_ours` above one says that ours is the faster.
//! The algorithms that its heuristics name first are held to our answer before they are timed, and the fastest of the first
//! three that agree counts: `cudnn_algorithm`, and `off_cudnn`, the largest difference of an element beside its own size and
//! the root mean square of all. Where none agrees, the columns are empty, standard error has why, and the bench fails in the
//! end.
//!
//! Our weights' gradient is f32 and added to what is there, in one order; cuDNN's is as wide as its operands, replaces what
//! is there, and may come of atomic additions.
//!
//! On the simulated GPU there are no times: a line has what the launches moved beside what they must, and the floor of the
//! time that follows from it, *modelled*, for each GPU it knows.

mod convolutions;
mod copies;
#[cfg(feature = "cudnn")]
mod cudnn;
mod depthwise;
#[path = "../gpu/mod.rs"]
mod gpu;
#[path = "../layers/mod.rs"]
mod layers;
mod memory_bound;
mod report;
mod time;

use anyhow::ensure;
use clap::Parser;
use gpu::Options;
use onesheet::network::{Network, resnet50};
use report::Report;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    gpu: Options,
    /// Whose kernels
    #[arg(long, default_value_t = resnet50::NETWORK)]
    network: Network,
    /// Height and width of the posters
    #[arg(long, default_value_t = 150)]
    image_size: usize,
    /// Only these layers, separated by commas: each a name, or a part of the names of several
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// Measures something, and writes its lines.
type Measure = Box<dyn FnOnce(&mut Report) -> anyhow::Result<()>>;

/// What can be measured of a layer, by its name.
struct Measurement {
    name: String,
    measure: Measure,
}

/// Those of `all` that are asked for: with a name, or where nothing has that name with a part of it.
fn chosen(all: Vec<Measurement>, only: &[String]) -> anyhow::Result<Vec<Measurement>> {
    if only.is_empty() {
        return Ok(all);
    }
    let mut wanted = vec![false; all.len()];
    for asked in only {
        let exact = all.iter().any(|one| one.name == *asked);
        let fits = |one: &Measurement| if exact { one.name == *asked } else { one.name.contains(asked) };
        let names = || all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
        ensure!(
            !asked.is_empty() && all.iter().any(fits),
            "--only {asked}: no layer has that in its name; there are {}",
            names()
        );
        wanted.iter_mut().zip(&all).for_each(|(wanted, one)| *wanted |= fits(one));
    }
    Ok(all.into_iter().zip(wanted).filter_map(|(one, wanted)| wanted.then_some(one)).collect())
}

fn main() -> anyhow::Result<()> {
    let Arguments { gpu: options, network, image_size, only } = Arguments::parse();
    let mut all = convolutions::all(network, options.batch(), image_size);
    all.extend(depthwise::all(network, options.batch(), image_size));
    all.extend(memory_bound::all(network, options.batch(), image_size)?);
    let chosen = chosen(all, &only)?;
    let mut report = Report::new(options.open()?)?;
    eprintln!("{}", report.name());
    for Measurement { measure, .. } in chosen {
        measure(&mut report)?;
    }
    report.end()
}
