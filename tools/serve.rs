//! `onesheet serve`: a page on this machine that names the genres of posters, and the same for programs as JSON.
//!
//! Two threads do it. The main one computes, since the pool of the processor's kernels has it in its number: it takes all posters that wait, up
//! to a batch, and answers them together. The other one has the connections, and lets pictures be decoded beside it. A queue of one batch
//! is between them.

mod body;
mod connections;
mod description;
mod page;
mod problem;
mod questions;
mod web;

use crate::answering::asking::{Asking, BATCH, squaring};
use crate::answering::{Answering, Rule};
use crate::console::Console;
use crate::device::{self, Opened, described};
use crate::evaluate::open_file_or_best;
use crate::exit::Usage;
use crate::signals::Signals;
use anyhow::Context;
use clap::Args as ClapArgs;
use clap::value_parser;
use onesheet::data::pixels::LARGEST_SIDE;
use onesheet::device::Device;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::{DeviceChoice, PrecisionChoice};
use onesheet::training::run_folder::folder_of;
use serde_json::json;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use tokio::sync::mpsc;
use web::Web;

const EXAMPLES: &str = "Examples:
  onesheet serve --model runs/NAME                       # then look at http://127.0.0.1:8080/ in a browser
  onesheet serve --model genres.safetensors --port 0 --thresholds tuned --calibrated
  curl --data-binary @poster.jpg --header 'Content-Type: image/jpeg' 'http://127.0.0.1:8080/answers?top=3'";

/// Name the genres of posters on a page of this machine, and answer programs in JSON.
#[derive(Debug, ClapArgs)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// A checkpoint that `onesheet train` wrote, or a run, whose best one is taken
    #[arg(long, value_name = "RUN|FILE")]
    model: PathBuf,
    /// The address of this machine to listen on. With 127.0.0.1 or ::1 nobody else reaches it, and only requests for `localhost` or an
    /// address like these are answered; with 0.0.0.0 or :: it is everybody who reaches this machine
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// The port to listen on; 0 takes any that is free, and the line that is printed names it
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// How wide its numbers are
    #[arg(long, value_enum, default_value = "auto")]
    precision: PrecisionChoice,
    #[command(flatten)]
    answering: Answering,
    #[command(flatten)]
    limits: Limits,
    /// Print errors only
    #[arg(short, long)]
    quiet: bool,
}

/// What one request, and all of them together, may take.
#[derive(Clone, Copy, Debug, ClapArgs)]
struct Limits {
    /// Most bytes of a request
    #[arg(long, value_name = "BYTES", default_value_t = 20 << 20, value_parser = value_parser!(u64).range(1..=1 << 30))]
    max_bytes: u64,
    /// Most pixels of a picture, looked at before it is decoded; no side may have more than 4096 in any case
    #[arg(long, value_name = "PIXELS", default_value_t = LARGEST_PIXELS, value_parser = value_parser!(u64).range(1..=LARGEST_PIXELS))]
    max_pixels: u64,
    /// Most requests in work at a time; one more is told to come again
    #[arg(long, value_name = "REQUESTS", default_value_t = 32, value_parser = value_parser!(u16).range(1..))]
    max_waiting: u16,
    /// Most seconds until a request is all there
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = value_parser!(u16).range(1..))]
    max_seconds: u16,
}

const LARGEST_PIXELS: u64 = LARGEST_SIDE as u64 * LARGEST_SIDE as u64;

/// Runs the tool.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let signals = Signals::catch().context("cannot catch Ctrl-C")?;
    // First of all, since it takes no time and may fail.
    let listener = listen(SocketAddr::new(args.address, args.port))?;
    let checkpoint = match folder_of(&args.model).is_dir() {
        true => open_file_or_best(&args.model)?,
        // What is neither a file nor a run is a file that is not there.
        false => Checkpoint::open_model(&args.model)?,
    };
    let rule = args.answering.rule(checkpoint.metadata(), &args.model)?;
    match device::open(args.device, args.precision, Console { quiet: args.quiet })? {
        Opened::Cpu(device, why) => serve(&Rc::new(device), &why, &checkpoint, rule, listener, &signals, args),
        Opened::Cuda(device) => serve(&Rc::new(device), "", &checkpoint, rule, listener, &signals, args),
    }
}

/// Takes the port.
fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let why = match TcpListener::bind(address) {
        Ok(listener) => {
            listener.set_nonblocking(true).with_context(|| format!("cannot listen on {address}"))?;
            return Ok(listener);
        }
        Err(why) => why,
    };
    let (ip, port) = (address.ip(), address.port());
    match why.kind() {
        io::ErrorKind::AddrNotAvailable => Err(Usage(format!(
            "{ip} is no address of this machine; --address 127.0.0.1 is this machine alone, 0.0.0.0 all its addresses"
        ))
        .into()),
        io::ErrorKind::AddrInUse => Err(anyhow::Error::from(why).context(format!(
            "another program listens on {address}; choose another --port, or 0 for any that is free"
        ))),
        io::ErrorKind::PermissionDenied => Err(anyhow::Error::from(why)
            .context(format!("port {port} of {ip} is not for everybody; choose a --port from 1024 on"))),
        _ => Err(anyhow::Error::from(why).context(format!("cannot listen on {address}"))),
    }
}

/// Answers until a signal comes.
fn serve<D: Device>(
    device: &Rc<D>,
    why: &str,
    checkpoint: &Checkpoint,
    rule: Rule,
    listener: TcpListener,
    signals: &Signals,
    args: &Args,
) -> anyhow::Result<()> {
    let console = Console { quiet: args.quiet };
    let metadata = checkpoint.metadata();
    let mut asking = Asking::load(device, checkpoint, &args.answering, &rule, true)?;
    // What is made at the first question should not keep the first who asks waiting.
    asking.probabilities(&vec![0; metadata.config.image_size.pow(2) * 3])?;
    let computed_by = described(&**device, why);
    console.say(&computed_by);
    if let Some(told) = rule.told(&args.answering) {
        console.say(told);
    }
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        console.say("anyone who reaches this machine can use it");
    }

    let (questions, waiting) = mpsc::channel(BATCH);
    let web = Web {
        network: metadata.config.network.title,
        image_size: metadata.config.image_size,
        genres: metadata.genres.clone(),
        device: computed_by,
        squaring: squaring(metadata)?,
        answering: args.answering,
        rule: rule.clone(),
        limits: args.limits,
        is_local: address.ip().is_loopback(),
        questions,
        places: tokio::sync::Semaphore::new(args.limits.max_waiting.into()),
    };
    let (stop, seconds) = (Arc::clone(&signals.stop), args.limits.max_seconds);
    let router = web::router(web);
    let connections = thread::Builder::new()
        .name("connections".into())
        .spawn(move || connections::serve(listener, &router, seconds, &stop))
        .context("cannot start a thread for the connections")?;
    let url = format!("http://{address}/");
    console.say_of("listening", json!({ "address": url }), format_args!("listening on {url}; Ctrl-C ends it"));

    // It ends when the connections do, whose thread alone asks; or when the device fails, and with it the connections.
    let answered = questions::answer(&mut asking, &metadata.genres, &rule.thresholds, waiting);
    signals.stop.store(true, Ordering::Relaxed);
    let served = connections.join().map_err(|_| anyhow::anyhow!("the thread with the connections has panicked"))?;
    answered?;
    served.context("cannot serve any longer")?;
    console.say_of("stopped", json!({}), "stopped; what was in work is answered");
    Ok(())
}
