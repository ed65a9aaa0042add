//! Who takes part: our model in this process, and the others, each in a Python of its own.

use crate::exchange::{Data, GENRES, config};
use crate::report::median;
use anyhow::{Context, bail, ensure};
use onesheet::device::cpu::Cpu;
use onesheet::device::{Memory, Precision};
use onesheet::model::Model;
use onesheet::network::Network;
use onesheet::training::learner::Learner;
use onesheet::training::recipe::Recipe;
use serde::Deserialize;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Instant;

/// Small, so that the first steps of everybody stay beside each other. The same is in `peers.py`.
const LEARNING_RATE: f64 = 1e-4;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// A training step: forward, backward, Adam, and the loss read
    Train,
    /// An inference, from images in memory to probabilities or logits
    Infer,
}

impl Work {
    pub fn name(self) -> &'static str {
        match self {
            Work::Train => "train",
            Work::Infer => "infer",
        }
    }
}

/// One of those who are compared.
pub enum Contestant<'a> {
    Ours(Box<Ours<'a>>),
    Peer(Peer),
}

impl Contestant<'_> {
    /// Its name and version.
    pub fn name(&self) -> &str {
        match self {
            Contestant::Ours(_) => concat!("Onesheet ", env!("CARGO_PKG_VERSION")),
            Contestant::Peer(peer) => &peer.name,
        }
    }

    /// Whether it can do such work.
    pub fn does(&self, work: Work) -> bool {
        match self {
            Contestant::Ours(_) => true,
            Contestant::Peer(peer) => work == Work::Infer || peer.trains,
        }
    }

    /// The logits of the first `images`, at the weights that everybody starts from.
    pub fn logits(&mut self, images: usize) -> anyhow::Result<Vec<f64>> {
        match self {
            Contestant::Ours(ours) => ours.logits(images),
            Contestant::Peer(peer) => peer.ask(&format!("logits {images}")),
        }
    }

    /// The losses of so many training steps from there.
    pub fn losses(&mut self, images: usize, steps: usize) -> anyhow::Result<Vec<f64>> {
        match self {
            Contestant::Ours(ours) => (0..steps).map(|_| ours.train(images)).collect(),
            Contestant::Peer(peer) => peer.ask(&format!("losses {images} {steps}")),
        }
    }

    /// Seconds that a call takes: the first one's if it takes `seconds`; else the median of calls that take so long together, the
    /// first left out.
    pub fn seconds(&mut self, work: Work, images: usize, seconds: f64) -> anyhow::Result<f64> {
        match self {
            Contestant::Ours(ours) => ours.seconds(work, images, seconds),
            Contestant::Peer(peer) => {
                let numbers = peer.ask(&format!("{} {images} {seconds}", work.name()))?;
                numbers.first().copied().context("a time is one number")
            }
        }
    }

    /// The process that waits while others work.
    pub fn process(&self) -> u32 {
        match self {
            Contestant::Ours(_) => std::process::id(),
            Contestant::Peer(peer) => peer.process.id(),
        }
    }
}

/// Our models: one that learns, and one that stays as everybody's was.
pub struct Ours<'a> {
    device: Rc<Cpu>,
    network: Network,
    model: Model<Cpu>,
    learner: Learner<Cpu>,
    data: &'a Data,
}

impl<'a> Ours<'a> {
    pub fn new(
        network: Network,
        image_size: usize,
        precision: Precision,
        weights: &[Vec<f32>],
        data: &'a Data,
    ) -> anyhow::Result<Self> {
        let device = Rc::new(Cpu::storing(precision));
        let model = || -> anyhow::Result<Model<Cpu>> {
            let mut model = Model::zeros(Rc::clone(&device), config(network, image_size))?;
            for (tensor, values) in model.architecture().tensors.clone().iter().zip(weights) {
                model.write(tensor, values)?;
            }
            Ok(model)
        };
        let (model, learner) = (model()?, Learner::by(&Recipe::default(), model()?)?);
        Ok(Ours { device, network, model, learner, data })
    }

    pub fn model(&self) -> &Model<Cpu> {
        &self.model
    }

    fn logits(&self, images: usize) -> anyhow::Result<Vec<f64>> {
        let logits = self.model.logits(self.data.posters(images, &self.network.pixels.format))?;
        Ok(logits.to_host(&*self.device)?.into_iter().map(f64::from).collect())
    }

    fn train(&mut self, images: usize) -> anyhow::Result<f64> {
        let format = self.network.pixels.format;
        let posters = self.data.posters(images, &format);
        let pixels = self.device.upload_pixels(posters.pixels, posters.placements)?;
        let labels = self.data.labels(images);
        self.learner.submit(pixels, images, &format, labels, &[1.0; GENRES], LEARNING_RATE)?;
        Ok(self.learner.outcome()?.loss)
    }

    fn infer(&self, images: usize) -> anyhow::Result<()> {
        self.model.predict(self.data.posters(images, &self.network.pixels.format))?;
        Ok(())
    }

    fn seconds(&mut self, work: Work, images: usize, seconds: f64) -> anyhow::Result<f64> {
        let mut timed = || -> anyhow::Result<f64> {
            let start = Instant::now();
            match work {
                Work::Train => self.train(images).map(drop)?,
                Work::Infer => self.infer(images)?,
            }
            Ok(start.elapsed().as_secs_f64())
        };
        let first = timed()?;
        if first >= seconds {
            return Ok(first);
        }
        let mut times = Vec::new();
        while times.iter().sum::<f64>() < seconds {
            times.push(timed()?);
        }
        Ok(median(&times))
    }
}

/// A process that waits for requests. See `peers.py`.
pub struct Peer {
    name: String,
    trains: bool,
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What it says.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Name(String),
    Refusal(String),
    Numbers(Vec<f64>),
}

impl Peer {
    /// Starts the `command` and waits until it is ready; or says why it does not take part.
    pub fn start(command: &mut Command, trains: bool) -> anyhow::Result<Result<Peer, String>> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let requests = process.stdin.take().context("its input is piped")?;
        let answers = BufReader::new(process.stdout.take().context("its output is piped")?);
        let mut peer = Peer { name: String::new(), trains, process, requests, answers };
        match peer.answer()? {
            Answer::Name(name) => {
                peer.name = name;
                Ok(Ok(peer))
            }
            Answer::Refusal(why) => Ok(Err(why)),
            Answer::Numbers(_) => bail!("it says numbers before anybody asked"),
        }
    }

    fn ask(&mut self, request: &str) -> anyhow::Result<Vec<f64>> {
        writeln!(self.requests, "{request}").with_context(|| format!("{} has ended", self.name))?;
        match self.answer().with_context(|| format!("{} was asked for `{request}`", self.name))? {
            Answer::Numbers(numbers) => Ok(numbers),
            Answer::Name(_) | Answer::Refusal(_) => bail!("{} does not answer `{request}` with numbers", self.name),
        }
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "it ended without an answer; what it wrote is above");
        serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))
    }
}

/// Nobody stays behind.
impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
