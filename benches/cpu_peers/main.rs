//! Networks on the processor beside PyTorch, ONNX Runtime and OpenVINO: a training step and an inference, from the same
//! weights on the same posters.
//!
//! ```text
//! cargo bench --bench cpu_peers -- [--network resnet50,mobilenet,…] [--precision f32,bf16] [--work train,infer]
//!     [--batch 32,1] [--peer pytorch,onnxruntime,openvino] [--rounds 5] [--seconds 0.5] [--threads N] [--image-size 150]
//!     [--venv target/peers-venv] [--python python3] [--csv target/cpu_peers.csv]
//! ```
//!
//! All six networks unless told otherwise. It makes a virtual environment with the versions in `requirements.txt` (6 GB,
//! because PyPI's PyTorch comes with CUDA), unless the folder has them already; if pip is told of an index that has PyTorch
//! for processors alone, that does as well.
//!
//! All contestants have the network in memory at once and wait, asleep, for their turns. A round is a turn of each, and each
//! round begins with another. A turn is one call, or calls until `--seconds` are over. Times are medians over the rounds; a
//! first round does not count. At the end it says how much of the machine other programs took meanwhile. PyTorch's threads wait
//! for each other in loops, which is quickest on a quiet machine and slowest by far on a busy one; `OMP_WAIT_POLICY=PASSIVE`
//! in the environment lets them sleep.
//!
//! Ours comes from the library: it gets the pixels' bytes, and ends with probabilities. The others get the numbers that we
//! make of those bytes, and end with logits. PyTorch runs eagerly with channels last, bf16 by autocast, Adam fused and with
//! Keras's constants; ONNX Runtime and OpenVINO run what PyTorch exports. Before it is timed, each contestant's logits, or
//! the losses of its first three steps, are compared with ours in f32: the largest difference over the largest value is the
//! table's `error`. If somebody computes something else, the bench says so and ends with exit code 1.

mod check;
mod contestant;
mod environment;
mod exchange;
mod machine;
mod report;

use anyhow::{Context, ensure};
use check::Expected;
use clap::{Parser, ValueEnum, value_parser};
use contestant::{Contestant, Ours, Peer, Work};
use exchange::Data;
use machine::Machine;
use onesheet::device::Precision;
use onesheet::device::cpu::Cpu;
use onesheet::network::{Architecture, NETWORKS, Network};
use report::{Report, Series, Times};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

#[derive(Parser)]
struct Arguments {
    /// Which networks
    #[arg(long, value_delimiter = ',', default_values_t = NETWORKS)]
    network: Vec<Network>,
    /// How wide the numbers are; both if this processor multiplies bf16, else f32
    #[arg(long, value_enum, value_delimiter = ',')]
    precision: Vec<Width>,
    /// What is timed
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Work::Train, Work::Infer])]
    work: Vec<Work>,
    /// Posters a step or an inference
    #[arg(long, value_delimiter = ',', default_values_t = [32, 1], value_parser = value_parser!(u16).range(1..))]
    batch: Vec<u16>,
    /// Who takes part beside us
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Name::Pytorch, Name::Onnxruntime, Name::Openvino])]
    peer: Vec<Name>,
    /// Rounds that count
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds of a turn, if one call does not take longer
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    seconds: f64,
    /// Threads of each; as many as there are cores unless told otherwise
    #[arg(long, value_parser = value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Height and width of the posters
    #[arg(long, default_value_t = 150)]
    image_size: usize,
    /// The virtual environment of the others; made if it is not there
    #[arg(long, default_value = "target/peers-venv", value_name = "DIR")]
    venv: PathBuf,
    /// The Python that makes it
    #[arg(long, default_value = "python3")]
    python: String,
    /// Where the figures go
    #[arg(long, default_value = "target/cpu_peers.csv", value_name = "FILE")]
    csv: PathBuf,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// How wide the numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Width {
    F32,
    Bf16,
}

impl Width {
    fn precision(self) -> Precision {
        match self {
            Width::F32 => Precision::F32,
            Width::Bf16 => Precision::Bf16,
        }
    }
}

/// Who takes part beside us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Training and inference
    Pytorch,
    /// Inference, f32
    Onnxruntime,
    /// Inference
    Openvino,
}

impl Name {
    fn name(self) -> &'static str {
        match self {
            Name::Pytorch => "pytorch",
            Name::Onnxruntime => "onnxruntime",
            Name::Openvino => "openvino",
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=60.0).contains(&seconds) { Ok(seconds) } else { Err("it is between 0 and 60".into()) }
}

/// Seconds of cores that were taken beside a contestant's turn.
#[derive(Default)]
struct Load {
    /// By contestants that should have been asleep.
    waiting: f64,
    /// By everything else on the machine.
    others: f64,
    /// Seconds that the turns took.
    turns: f64,
}

/// What all networks have in common.
struct Contest {
    arguments: Arguments,
    batches: Vec<usize>,
    threads: usize,
    python: PathBuf,
    report: Report,
    /// Who computes something else than we do.
    differing: Vec<String>,
    /// Whether everybody had the machine to himself.
    load: Load,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    let machine = Machine::here();
    let threads = arguments.threads.map_or(machine.cores, usize::from);
    ensure!(threads <= machine.cores, "--threads {threads}: this process may use {} cores", machine.cores);
    if arguments.precision.is_empty() {
        arguments.precision.push(Width::F32);
        match Cpu::multiplies_bf16() {
            true => arguments.precision.push(Width::Bf16),
            false => {
                eprintln!("no bf16, which this processor does not multiply; --precision bf16 runs it all the same")
            }
        }
    }
    for &network in &arguments.network {
        Architecture::new(&exchange::config(network, arguments.image_size)).context("--image-size")?;
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global()?;
    let python = environment::python(&arguments.venv, &arguments.python)?;
    let batches = arguments.batch.iter().map(|&batch| batch.into()).collect();
    let report = Report::new(machine, &arguments.csv)?;
    let (networks, differing, load) = (arguments.network.clone(), Vec::new(), Load::default());
    let mut contest = Contest { arguments, batches, threads, python, report, differing, load };
    for network in networks {
        contest.compare(network)?;
    }
    let Contest { arguments, differing, load: Load { waiting, others, turns }, .. } = contest;
    eprintln!("figures in {}", arguments.csv.display());
    let [waiting, others] = [waiting, others].map(|seconds| 100.0 * seconds / turns);
    eprintln!("beside each turn, contestants who wait took {waiting:.1} % of a core, and other programs {others:.1} %");
    if others > 10.0 {
        eprintln!(
            "that is too much for figures to keep: PyTorch's threads wait for each other in loops and suffer most"
        );
    }
    ensure!(differing.is_empty(), "these compute something else than we do in f32: {}", differing.join("; "));
    Ok(())
}

impl Contest {
    fn compare(&mut self, network: Network) -> anyhow::Result<()> {
        let image_size = self.arguments.image_size;
        let data = Data::new(self.batches.iter().copied().max().context("--batch: there is none")?, image_size);
        let weights = exchange::weights(network, image_size, &data)?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("network.safetensors");
        let ours = |precision| Ours::new(network, image_size, precision, &weights, &data);
        let expected = {
            let ours = ours(Precision::F32)?;
            exchange::write(&file, ours.model(), &weights, &data)?;
            Expected::new(&mut Contestant::Ours(Box::new(ours)), &self.batches)?
        };
        for precision in self.arguments.precision.clone().into_iter().map(Width::precision) {
            let mut contestants = vec![Contestant::Ours(Box::new(ours(precision)?))];
            for peer in self.arguments.peer.clone() {
                match self.start(peer, precision, &file)? {
                    Ok(peer) => contestants.push(Contestant::Peer(peer)),
                    Err(why) => eprintln!("{network}, {}: without {}: {why}", precision.name(), peer.name()),
                }
            }
            for work in self.arguments.work.clone() {
                let mut entered: Vec<_> = contestants.iter_mut().filter(|contestant| contestant.does(work)).collect();
                let errors = entered.iter_mut().map(|contestant| {
                    let error = expected.error(contestant, work)?;
                    let agrees = error <= check::tolerance(work, precision);
                    if !agrees {
                        let (name, precision) = (contestant.name(), precision.name());
                        self.differing
                            .push(format!("{name}, {network} {} {precision} (error {error:.0e})", work.name()));
                    }
                    Ok(error)
                });
                let errors = errors.collect::<anyhow::Result<Vec<f64>>>()?;
                for batch in self.batches.clone() {
                    let times = self.series(&mut entered, work, batch)?;
                    let names = entered.iter().map(|contestant| contestant.name().to_owned());
                    let results = names.zip(times).zip(&errors);
                    let results: Vec<_> =
                        results.map(|((name, seconds), &error)| Times { name, seconds, error }).collect();
                    let (network, work, precision) = (network.name, work.name(), precision.name());
                    self.report.add(Series { network, work, batch, precision, threads: self.threads }, &results)?;
                }
            }
        }
        Ok(())
    }

    /// A contestant in a process of its own, or why it does not take part.
    fn start(&self, name: Name, precision: Precision, file: &Path) -> anyhow::Result<Result<Peer, String>> {
        if name == Name::Onnxruntime && precision == Precision::Bf16 {
            return Ok(Err("it has no bf16 on processors".into()));
        }
        let threads = self.threads.to_string();
        let mut command = Command::new(&self.python);
        command.arg(environment::file("peers.py")?).arg("--file").arg(file);
        command.args(["--peer", name.name(), "--precision", precision.name(), "--threads", &threads, "--batch"]);
        command.args(self.batches.iter().map(usize::to_string)).env("OMP_NUM_THREADS", threads);
        // No folder of byte code beside the sources.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Peer::start(&mut command, name == Name::Pytorch).with_context(|| name.name())
    }

    /// The times of each contestant, round by round.
    fn series(
        &mut self,
        entered: &mut [&mut Contestant<'_>],
        work: Work,
        batch: usize,
    ) -> anyhow::Result<Vec<Vec<f64>>> {
        let mut times = vec![Vec::new(); entered.len()];
        for round in 0..=usize::from(self.arguments.rounds) {
            for turn in 0..entered.len() {
                let at = (round + turn) % entered.len();
                let (before, start) = (taken(entered), Instant::now());
                let seconds = entered[at].seconds(work, batch, self.arguments.seconds)?;
                self.load.turns += start.elapsed().as_secs_f64();
                if let Some(((by_all_before, before), (by_all, after))) = before.zip(taken(entered)) {
                    let own: Vec<f64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
                    let contestants: f64 = own.iter().sum();
                    self.load.waiting += contestants - own[at];
                    self.load.others += (by_all - by_all_before - contestants).max(0.0);
                }
                // The first round finds memory and caches cold.
                if round > 0 {
                    times[at].push(seconds);
                }
            }
        }
        Ok(times)
    }
}

/// Seconds that were taken of all cores until now: by everybody, and by each contestant.
fn taken(contestants: &[&mut Contestant<'_>]) -> Option<(f64, Vec<f64>)> {
    let each = contestants.iter().map(|contestant| machine::taken(contestant.process()));
    Some((machine::taken_by_all()?, each.collect::<Option<_>>()?))
}
