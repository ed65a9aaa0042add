//! `onesheet plan`: what a training step computes, step by step, what it costs and what each fusion saves.

use crate::console::print;
use crate::device::NO_TF32;
use crate::exit::Usage;
use anyhow::Context;
use clap::Args as ClapArgs;
use clap::builder::PossibleValuesParser;
use onesheet::device::counting::{Counted, Habits, Why};
use onesheet::device::cpu::Cpu;
use onesheet::device::{Pass, Rates, Work};
use onesheet::network::{Architecture, Network, Trainable};
use onesheet::ops::pool::Pooling;
use onesheet::plan::Plan;
use onesheet::plan::cost::{Costs, StepCost, floor, of_pass, total};
use onesheet::plan::fuse::RULES;
use onesheet::plan::gpus::{GPUS, NamedGpu};
use onesheet::training::config::{PrecisionChoice, RunConfig};
use onesheet::training::dry_run;
use onesheet::training::recipe::Recipe;
use serde::Serialize;
use std::fmt::Write;

/// The version of the lines that `--json` prints.
const SCHEMA: u32 = 1;

const EXAMPLES: &str = "Examples:
  onesheet plan                                            # ResNet-50, 128 posters, floors on an H100
  onesheet plan --network resnet50-v1.5 --batch 256 --gpu rtx4090
  onesheet plan --device cpu --recompute                   # with less memory, and what that costs
  onesheet plan --device cpu --without junction --json";

/// Print what a training step computes, step by step: layers, kernels, FLOPs, bytes, floors, memory, and what each fusion saves.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Whose step
    #[arg(long, value_name = "NAME", value_parser = crate::train::networks(), default_value = "resnet50")]
    network: Network,
    /// Height and width of the posters
    #[arg(long, value_name = "PIXELS", default_value_t = 150, value_parser = clap::value_parser!(u16).range(32..=1024))]
    image_size: u16,
    /// Posters a step
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Whose habits it follows; nothing is computed on it
    #[arg(long, value_parser = PossibleValuesParser::new(["cpu", "cuda", "sim"]), default_value = "cuda")]
    device: String,
    /// How wide the numbers are; auto is bf16 on a GPU, and on the processor what this one would train in
    #[arg(long, value_enum, default_value = "auto")]
    precision: PrecisionChoice,
    /// Which of the base's layers are trained: `all`, or `last:N`
    #[arg(long, value_name = "all|last:N", default_value = "all")]
    trainable: Trainable,
    /// The pooling before the head
    #[arg(long, value_name = "avg|max", default_value = "avg")]
    pooling: Pooling,
    /// Leave a rule of fusion out; may be given several times. `all` computes layer by layer
    #[arg(long, value_name = "RULE", value_parser = rules())]
    without: Vec<String>,
    /// Keep fewer values of the forward pass and compute the others again, as `train --recompute` does; the totals have what that saves
    /// and costs
    #[arg(long)]
    recompute: bool,
    /// Whose data sheet the floors are computed from
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(GPUS.map(|gpu| gpu.name)), default_value = "h100")]
    gpu: String,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

fn rules() -> PossibleValuesParser {
    PossibleValuesParser::new(RULES.map(|rule| rule.name).into_iter().chain(["all"]))
}

/// Some launches, as the table and the JSON have them.
#[derive(Serialize)]
struct Cost {
    launches: usize,
    flops: u64,
    bytes: u64,
    floor_us: f64,
}

impl Cost {
    fn of<'a>(launches: impl Iterator<Item = &'a Counted> + Clone, rates: &Rates) -> Self {
        let Work { reads, writes, flops } = total(launches.clone());
        let floor_us = 1e6 * floor(launches.clone(), rates);
        Cost { launches: launches.count(), flops, bytes: reads + writes, floor_us }
    }
}

/// A launch's kernel, and why it is this one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Kernel {
    kernel: &'static str,
    pass: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<(&'static str, String)>,
}

impl Kernel {
    fn of(counted: &Counted) -> Self {
        let (kernel, pass) = (counted.launch.kernel, counted.launch.scope.pass.name());
        match counted.why.clone() {
            Some(Why { reason, refused }) => Kernel { kernel, pass, reason: Some(reason), refused },
            None => Kernel { kernel, pass, reason: None, refused: Vec::new() },
        }
    }
}

#[derive(Serialize)]
struct Step<'a> {
    layers: &'a [String],
    kernels: Vec<Kernel>,
    forward: Cost,
    backward: Cost,
    kept_bytes: usize,
}

/// A plan's totals, with and without a rule.
#[derive(Serialize)]
struct Variant {
    without: String,
    saves: &'static str,
    #[serde(flatten)]
    cost: Cost,
    memory_bytes: usize,
}

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let run = RunConfig {
        network: args.network,
        image_size: args.image_size.into(),
        pooling: args.pooling,
        trainable: args.trainable,
        ..RunConfig::default()
    };
    run.check_network().map_err(|error| Usage(error.to_string()))?;
    let config = run.model(7);
    let gpu = GPUS.iter().find(|gpu| gpu.name == args.gpu).context("clap has looked at the name")?;
    let habits = habits(&args.device, args.precision, gpu)?;
    let every: Vec<&str> = RULES.map(|rule| rule.name).to_vec();
    let without: Vec<&str> = match args.without.iter().any(|rule| rule == "all") {
        true => every.clone(),
        false => args.without.iter().map(String::as_str).collect(),
    };
    let architecture = Architecture::new(&config)?;
    let costs = |without: &[&str], recompute: bool| {
        let plan = Plan::without(&architecture, config.momentum, without)?;
        let plan = if recompute { plan.recomputing() } else { plan };
        dry_run::costs_of(&config, habits, args.batch.into(), plan, &Recipe::default())
            .with_context(|| format!("--network {}", args.network))
    };
    let rates = gpu.rates(habits.precision());
    let planned = costs(&without, args.recompute)?;
    let asked = if without.is_empty() { "-" } else { "as asked" };
    let mut variants = vec![variant(asked.to_owned(), "", &planned, &rates)];
    if args.recompute {
        let saves = "memory: values that are not kept are computed again";
        variants.push(variant("recompute".to_owned(), saves, &costs(&without, false)?, &rates));
    }
    for rule in RULES.iter().filter(|rule| !without.contains(&rule.name)) {
        let more = [&without[..], &[rule.name]].concat();
        let other = costs(&more, args.recompute)?;
        let saves = if other.launches().eq(planned.launches()) { "nothing here" } else { rule.saves };
        variants.push(variant(rule.name.to_owned(), saves, &other, &rates));
    }
    variants.push(variant(
        "all".to_owned(),
        "everything above: a layer is a step",
        &costs(&every, args.recompute)?,
        &rates,
    ));
    let steps: Vec<Step<'_>> = planned.steps.iter().map(|step| self::step(step, &rates)).collect();
    let beside = Cost::of(planned.beside.iter(), &rates);
    if args.json {
        let head = serde_json::json!({
            "schema": SCHEMA, "kind": "plan", "network": args.network.name, "image_size": args.image_size,
            "batch": args.batch, "precision": habits.precision().name(), "gpu": gpu.name, "rates": rates.source,
            "without": without, "recompute": args.recompute, "beside": beside, "kept_bytes": planned.kept(),
        });
        print(format_args!("{head}\n"))?;
        for step in &steps {
            print(format_args!("{}\n", serde_json::json!({ "schema": SCHEMA, "kind": "step", "step": step })))?;
        }
        for variant in &variants {
            print(format_args!("{}\n", serde_json::json!({ "schema": SCHEMA, "kind": "total", "total": variant })))?;
        }
        return Ok(());
    }
    let floors = if args.device == "cpu" { "floors as if at the rates of" } else { "floors on" };
    let title = format!(
        "{}, {}x{} posters, batch {}, {}; {floors} {} ({})\n",
        args.network.title,
        args.image_size,
        args.image_size,
        args.batch,
        habits.precision().name(),
        gpu.name,
        rates.source
    );
    print(format_args!("{title}{}", table(&steps, &beside, &variants, planned.kept())?))?;
    Ok(())
}

/// What a device does in its own way.
fn habits(device: &str, precision: PrecisionChoice, gpu: &NamedGpu) -> anyhow::Result<Habits> {
    match (device, precision) {
        ("cpu", _) => match precision.on_processor(Cpu::is_fastest_in_bf16()) {
            Some(precision) => Ok(Habits::Processor(precision)),
            None => Err(Usage(NO_TF32.into()).into()),
        },
        _ => Ok(Habits::Gpu(gpu.target(precision.on_gpu()))),
    }
}

fn step<'a>(step: &'a StepCost, rates: &Rates) -> Step<'a> {
    let pass = |pass| Cost::of(of_pass(&step.launches, pass).collect::<Vec<_>>().into_iter(), rates);
    let (forward, backward) = (pass(Pass::Forward), pass(Pass::Backward));
    let kernels = step.launches.iter().map(Kernel::of).collect();
    Step { layers: &step.layers, kernels, forward, backward, kept_bytes: step.kept }
}

fn variant(without: String, saves: &'static str, costs: &Costs, rates: &Rates) -> Variant {
    let cost = Cost::of(costs.launches().collect::<Vec<_>>().into_iter(), rates);
    Variant { without, saves, cost, memory_bytes: costs.most_bytes }
}

/// The steps, what is beside them, and the totals.
fn table(steps: &[Step<'_>], beside: &Cost, variants: &[Variant], kept: usize) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let name = |step: &Step<'_>| match step.layers {
        [only] => only.clone(),
        [first, .., last] => format!("{first} .. {last}"),
        [] => String::new(),
    };
    let width = steps.iter().map(|step| name(step).chars().count()).max().unwrap_or_default();
    let (mib, gflop) = (|bytes: u64| bytes as f64 / f64::from(1 << 20), |flops: u64| flops as f64 / 1e9);
    writeln!(
        text,
        "\n{:width$}  {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  kernels",
        "layers", "GFLOP", "forward", "backward", "floor us", "floor us", "kept", "launches"
    )?;
    writeln!(
        text,
        "{:width$}  {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "", "MiB", "MiB", "forward", "backward", "MiB", ""
    )?;
    for step in steps {
        let Step { forward, backward, kept_bytes, kernels, .. } = step;
        writeln!(
            text,
            "{:width$}  {:>9.2} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9}  {}",
            name(step),
            gflop(forward.flops + backward.flops),
            mib(forward.bytes),
            mib(backward.bytes),
            forward.floor_us,
            backward.floor_us,
            mib(*kept_bytes as u64),
            forward.launches + backward.launches,
            kernels.iter().map(|kernel| kernel.kernel).collect::<Vec<_>>().join(", ")
        )?;
    }
    writeln!(
        text,
        "{:width$}  {:>9.2} {:>19.1} {:>19.1} {:>19}",
        "loss, gradients, averages, Adam",
        gflop(beside.flops),
        mib(beside.bytes),
        beside.floor_us,
        beside.launches
    )?;
    write_reasons(&mut text, steps)?;
    writeln!(text, "\nkept for the backward pass: {:.0} MiB\n", mib(kept as u64))?;
    writeln!(
        text,
        "{:12} {:>9} {:>9} {:>9} {:>9} {:>9}  what the rule saves",
        "without", "launches", "TFLOP", "GB", "floor ms", "memory GB"
    )?;
    for Variant { without, saves, cost, memory_bytes } in variants {
        writeln!(
            text,
            "{:12} {:>9} {:>9.3} {:>9.2} {:>9.2} {:>9.2}  {saves}",
            without,
            cost.launches,
            cost.flops as f64 / 1e12,
            cost.bytes as f64 / 1e9,
            cost.floor_us / 1e3,
            *memory_bytes as f64 / 1e9,
        )?;
    }
    Ok(text)
}

/// Why kernels were chosen and others were not: once for each choice, with the layer where it is made first.
fn write_reasons(text: &mut String, steps: &[Step<'_>]) -> std::fmt::Result {
    let chosen = steps.iter().flat_map(|step| step.kernels.iter().map(move |kernel| (kernel, step)));
    let mut seen: Vec<&Kernel> = Vec::new();
    for (kernel, step) in chosen.filter(|(kernel, _)| kernel.reason.is_some()) {
        if seen.is_empty() {
            writeln!(text, "\nwhy these kernels, where there are others")?;
        }
        if !seen.contains(&kernel) {
            seen.push(kernel);
            let Kernel { kernel, reason, refused, .. } = kernel;
            let (first, reason) = (&step.layers[0], reason.unwrap_or_default());
            writeln!(text, "  {kernel}, first in {first}: {reason}")?;
            for (other, refusal) in refused {
                writeln!(text, "    not {other}: {refusal}")?;
            }
        }
    }
    Ok(())
}
