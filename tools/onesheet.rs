//! The `onesheet` command: one binary, a subcommand a tool.

mod answering;
mod completions;
mod console;
mod device;
mod doctor;
mod evaluate;
mod exit;
mod export;
mod infer;
mod inspect;
mod machine;
mod man;
mod plan;
mod prepare;
mod report;
mod serve;
mod signals;
mod study;
mod train;

use clap::{CommandFactory, Parser, Subcommand};
use console::LogFormat;
use onesheet::device::cpu::Cpu;
use onesheet::files::mapped;
use std::process::ExitCode;

const EXAMPLES: &str = "Examples:
  onesheet train                                     # no data at hand: learn from posters drawn in code
  onesheet prepare --labels MovieGenre.csv --download posters --out posters.safetensors
  onesheet train --data posters.safetensors --experiment resnet-r";

/// Name the genres of a film from its poster: prepare posters, train a network on them, evaluate it, use it.
#[derive(Parser)]
#[command(version, before_help = EXAMPLES, after_help = exit::CODES)]
struct Command {
    /// What is said on stderr: lines to read, or one JSON object a line
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    Prepare(Box<prepare::Args>),
    Inspect(inspect::Args),
    Train(Box<train::Args>),
    Study(Box<study::Args>),
    Evaluate(evaluate::Args),
    Infer(infer::Args),
    Serve(serve::Args),
    Report(report::Args),
    Export(export::Args),
    Plan(Box<plan::Args>),
    Doctor(doctor::Args),
    Completions(completions::Args),
    Man(man::Args),
}

fn main() -> ExitCode {
    console::start_clock();
    // Where the system takes no handler, a file cut short ends the tool without a word, and nothing else changes.
    let _ = mapped::name_faults(exit::DATA.into());
    let Command { log_format, tool } = Command::parse();
    console::write_as(log_format);
    // The thread that asks for work takes part in it: to be woken when it is done takes longer than many a kernel on one poster. If the
    // pool can't be made now, the one made when it is first needed will say why.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
    match run(tool) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn run(tool: Tool) -> anyhow::Result<()> {
    Cpu::check_environment()?;
    match tool {
        Tool::Prepare(args) => prepare::run(*args),
        Tool::Inspect(args) => inspect::run(&args),
        Tool::Train(args) => train::run(&args),
        Tool::Study(args) => study::run(&args),
        Tool::Evaluate(args) => evaluate::run(&args),
        Tool::Infer(args) => infer::run(&args),
        Tool::Serve(args) => serve::run(&args),
        Tool::Report(args) => report::run(&args),
        Tool::Export(args) => export::run(&args),
        Tool::Plan(args) => plan::run(&args),
        Tool::Doctor(args) => doctor::run(&args),
        Tool::Completions(args) => completions::run(&args, Command::command()),
        Tool::Man(args) => man::run(&args, Command::command()),
    }
}
