//! What a run looks like while it runs: the table it opens with, the bar, a line an epoch, and how it ends.

use crate::console::{Console, clock, print, program, since_start};
use crate::device::described;
use indicatif::ProgressBar;
use onesheet::data::Split;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::Device;
use onesheet::files::{Disk, quoted, replace};
use onesheet::model::Architecture;
use onesheet::model::summary::thousands;
use onesheet::profile::Profile;
use onesheet::training::TrainingError;
use onesheet::training::checkpoint;
use onesheet::training::config::{Pixels, RunConfig};
use onesheet::training::run_folder::{EpochRow, best_checkpoint, profile_table};
use onesheet::training::trainer::{Ending, Event, Trainer, is_bad_number};
use serde_json::json;
use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};

/// The version of the lines that `--json` prints.
const SCHEMA: u32 = 1;

/// Off a terminal, the pause before the next line of progress of a run that has lasted so long: a few lines in the first minutes, a
/// few an hour after days.
fn plain_pause(lasted: Duration) -> Duration {
    (lasted / 20).clamp(Duration::from_secs(15), Duration::from_secs(900))
}

/// Says what is about to happen: settings, posters, and the memory of the main buffers.
pub fn open<D: Device>(console: Console, trainer: &Trainer<D>, why: &str, file: &TensorFile, run: &Path) {
    let (config, architecture) = (trainer.config(), trainer.model().architecture());
    let row = |name: &str, value: String| console.say(format_args!("  {name:<14} {value}"));
    let count = |split| thousands(file.indices(split).len());
    let [train, validation, test] = Split::ALL.map(count);

    let parameters = thousands(architecture.total_parameters());
    let trainable = thousands(architecture.trainable_parameters());
    console.say(format_args!("ResNet-50, {parameters} parameters, {trainable} trainable"));
    row("device", described(&**trainer.model().device(), why));
    row("experiment", config.experiment.map_or("own settings".into(), |experiment| experiment.name().into()));
    row("posters", format!("{train} to train on, {validation} for validation, {test} for the test; {}", size(file)));
    row("weights", config.weights.as_ref().map_or(random_start(config).into(), |path| path.display().to_string()));
    row("layers", format!("trainable {}, {} pooling, pixels {}", config.trainable, config.pooling, pixels(config)));
    let steps = trainer.steps_per_epoch();
    let limit = config.max_steps.map_or(String::new(), |limit| format!(", at most {limit} steps in all"));
    row("schedule", format!("{} epochs of {steps} steps of {} posters{limit}", config.epochs, config.batch));
    let warmup = match config.warmup_epochs {
        0.0 => String::new(),
        1.0 => ", reached over the first epoch".into(),
        epochs => format!(", reached over the first {epochs} epochs"),
    };
    row("optimiser", format!("Adam, learning rate {}{warmup}; seed {}", config.learning_rate, config.seed));
    row("batch norm", format!("momentum {}{}", config.momentum, momentum_note(config)));
    let weights = file.genres().iter().zip(trainer.class_weights());
    let weights: Vec<String> = weights.map(|(genre, weight)| format!("{genre} {weight:.2}")).collect();
    for (line, weights) in weights.chunks(4).enumerate() {
        row(if line == 0 { "class weights" } else { "" }, weights.join(", "));
    }
    row("memory", memory(architecture, config.batch));
    row("run", run.display().to_string());
    console.say("");
}

fn size(file: &TensorFile) -> String {
    format!("{0}×{0}", file.size())
}

fn pixels(config: &RunConfig) -> &'static str {
    match config.pixels {
        Pixels::Raw => "raw (RGB, 0 to 255)",
        Pixels::Imagenet => "imagenet (BGR minus the mean)",
        Pixels::Unit => "unit (RGB, 0 to 1)",
    }
}

fn random_start(config: &RunConfig) -> &'static str {
    if config.zero_init_residual { "random, residual blocks start as the identity" } else { "random" }
}

fn momentum_note(config: &RunConfig) -> &'static str {
    match config.data {
        None if config.momentum < 0.99 => ", for at Keras's 0.99 the averages would lag behind so short a run",
        _ => "",
    }
}

/// The main buffers. Of the activations, the outputs of convolutions, poolings and blocks are kept for the backward pass.
fn memory(architecture: &Architecture, batch: usize) -> String {
    let mebibytes = |floats: usize| (4 * floats).div_ceil(1 << 20);
    let kept = architecture.layers.iter().filter(|layer| {
        matches!(layer.kind, "InputLayer" | "Conv2D" | "MaxPooling2D" | "Dense") || layer.name.ends_with("_out")
    });
    let activations: usize = kept.map(|layer| layer.output.iter().product::<usize>()).sum();
    format!(
        "weights {} MiB, gradients {} MiB, Adam {} MiB, activations {} MiB",
        mebibytes(architecture.total_parameters()),
        mebibytes(architecture.weights.len()),
        mebibytes(2 * architecture.weights.len()),
        mebibytes(batch * activations),
    )
}

/// The bar, or plain lines where nobody watches, and the table of epochs on stdout.
pub struct Progress {
    console: Console,
    /// Whether the epochs are objects instead of rows.
    json: bool,
    /// What computes.
    device: String,
    bar: ProgressBar,
    epochs: u32,
    /// Steps until the end, those before a resumption included.
    total: u64,
    /// Posters per second, smoothed.
    rate: f64,
    batch: usize,
    /// When the last plain line was printed.
    spoke: Instant,
    began: Instant,
    /// Whether the first step is still to come that is worth a line.
    awaits_first_step: bool,
    best: Option<EpochRow>,
}

impl Progress {
    /// Prints the head of the table. `done` steps lie before a resumption, an epoch has `steps`.
    pub fn new(console: Console, json: bool, device: String, config: &RunConfig, done: u64, steps: u64) -> Self {
        if !json {
            show(format_args!(
                "{:>5}  {:>10}  {:>9}  {:>8}  {:>11}  {:>8}  {:>6}  {:>6}",
                "epoch", "train loss", "val. loss", "accuracy", "weighted F1", "baseline", "mAP", "time"
            ));
        }
        let total = (u64::from(config.epochs) * steps).min(config.max_steps.unwrap_or(u64::MAX));
        let bar = console.bar(total, "{prefix:>5}  {wide_bar} {pos}/{len}  {msg}");
        bar.set_position(done);
        let (epochs, batch, now) = (config.epochs, config.batch, Instant::now());
        Progress {
            console,
            json,
            device,
            bar,
            epochs,
            total,
            rate: 0.0,
            batch,
            spoke: now,
            began: now,
            awaits_first_step: false,
            best: None,
        }
    }

    /// Has the first step say when it was done: on a GPU, compilation and memory come before it.
    pub fn tell_first_step(&mut self) {
        self.awaits_first_step = true;
    }

    /// Shows what happened.
    pub fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Step { row, epoch, .. } => {
                if std::mem::take(&mut self.awaits_first_step) {
                    let seconds = since_start().as_secs_f64();
                    let told = format!("first step done {seconds:.1} s after the start of the program");
                    self.bar.suspend(|| self.console.say(told));
                }
                let rate = row.images_per_second;
                self.rate = if self.rate == 0.0 { rate } else { 0.9 * self.rate + 0.1 * rate };
                let left = clock((self.total.saturating_sub(row.step) * self.batch as u64) as f64 / self.rate);
                let message = format!("loss {:.4}  {:.1} images/s  {left} left", row.loss, self.rate);
                self.bar.set_prefix(format!("{}/{}", epoch + 1, self.epochs));
                self.bar.set_position(row.step);
                self.bar.set_message(message);
                if !self.console.is_live() && self.spoke.elapsed() >= plain_pause(self.began.elapsed()) {
                    self.spoke = Instant::now();
                    let (loss, rate) = (row.loss, self.rate);
                    let place = format!("epoch {} of {}, step {} of {}", epoch + 1, self.epochs, row.step, self.total);
                    self.console.say(format_args!("{place}: loss {loss:.4}, {rate:.1} images/s, {left} left"));
                }
            }
            Event::LeftOut { why } => {
                self.bar.suspend(|| self.console.say(format_args!("note: {why}; the step is left out")))
            }
            Event::RolledBack { why, step, learning_rate } => self.bar.suspend(|| {
                self.console.say(format_args!(
                    "note: {why}; the run goes back to step {step}, and on at a learning rate of {learning_rate}"
                ));
            }),
            Event::Validation { done, posters } => {
                self.bar.set_message(format!("validation, {done} of {posters} posters"));
            }
            Event::Epoch { row, best, .. } => self.bar.suspend(|| {
                if best {
                    self.best = Some(*row);
                }
                if self.json {
                    show(json!({ "schema": SCHEMA, "kind": "epoch", "best": best, "device": self.device, "row": row }));
                } else {
                    show(line(row, self.epochs, best));
                }
            }),
        }
    }

    /// Takes the bar away after an error, and says what is saved and how the run goes on.
    pub fn fail(self, error: &TrainingError, run: &Path, saved: Option<u64>, config: &RunConfig) {
        self.bar.finish_and_clear();
        let (program, run) = (program(), quoted(run));
        let saved = match saved {
            Some(step) => format!("everything up to step {step} is saved; the run goes on"),
            None => "nothing was saved yet; the run begins anew".into(),
        };
        let (how, flag) = match error {
            error if is_bad_number(error) => (", at a lower rate", format!(" --lr {}", config.learning_rate / 10.0)),
            TrainingError::Device(_) => (", on another --device if need be", String::new()),
            _ => (", once that is mended", String::new()),
        };
        self.console.say(format_args!("{saved}{how}, with"));
        self.console.say(format_args!("  {program} train --resume {run}{flag}"));
    }

    /// Takes the bar away and says where to look and what to type next.
    pub fn close(self, ending: Ending, progress: &checkpoint::Progress, run: &Path) {
        self.bar.finish_and_clear();
        let Progress { console, epochs, best, .. } = self;
        let (time, steps) = (clock(self.began.elapsed().as_secs_f64()), progress.total_steps);
        let model = best_checkpoint(run);
        let (log, run) = (run.join("log.csv"), quoted(run));
        console.say("");
        if ending != Ending::Finished {
            let why = if ending == Ending::Interrupted { "interrupted" } else { "stopped as asked" };
            console.say(format_args!("{why} after step {steps}, everything saved; go on with"));
            console.say(format_args!("  {} train --resume {run}", program()));
            return;
        }
        console.say(format_args!("trained to epoch {epochs}, {steps} steps in all, {time} this time"));
        if let Some(best) = best {
            let baseline = best.coin_f1.max(best.always_yes_f1);
            let verdict = if best.weighted_f1 > baseline { "beats" } else { "does not beat" };
            console.say(format_args!(
                "best epoch {}: weighted F1 {:.4} {verdict} both the coin ({:.4}) and always-yes ({:.4}); mAP {:.4}",
                best.epoch, best.weighted_f1, best.coin_f1, best.always_yes_f1, best.mean_average_precision
            ));
        }
        console.say(format_args!("\nlook at  {} and steps.csv", log.display()));
        // Somebody may have moved it, or the run went on to no further epoch.
        if model.exists() {
            console.say(format_args!("type     {} evaluate --run {run}", program()));
            console.say(format_args!("         {} infer --model {} poster.jpg", program(), quoted(&model)));
        }
    }
}

/// Keeps a profile in the run's folder, and prints its tables.
pub fn profile(profile: &Profile, console: Console, json: bool, run: &Path) -> anyhow::Result<()> {
    let (path, mut csv) = (profile_table(run), Vec::new());
    profile.write(&mut csv, true)?;
    replace(&Disk, &path, &csv)?;
    match json {
        true => profile.rows().for_each(|row| show(json!({ "schema": SCHEMA, "kind": "launch", "row": row }))),
        false => show(format_args!("\n{profile}")),
    }
    console.say(format_args!("launch by launch: {}", path.display()));
    Ok(())
}

/// Prints a line of results. That nobody can read it is no reason to end a run: what it says is in the run's files as well.
fn show(line: impl Display) {
    let _ = print(format_args!("{line}\n"));
}

/// A row of the table, a star behind the best so far; within 80 columns.
fn line(row: &EpochRow, epochs: u32, best: bool) -> String {
    format!(
        "{:>5}  {:>10.4}  {:>9.4}  {:>6.2} %  {:>11.4}  {:>8.4}  {:>6.4}  {:>6}{}",
        format!("{}/{epochs}", row.epoch),
        row.train_loss,
        row.validation_loss,
        100.0 * row.binary_accuracy,
        row.weighted_f1,
        row.coin_f1.max(row.always_yes_f1),
        row.mean_average_precision,
        clock(row.seconds),
        if best { " ★" } else { "" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_off_a_terminal_thin_out() {
        let lines = |hours: u64| {
            let (mut now, mut lines) = (Duration::ZERO, 0);
            while now < Duration::from_secs(3600 * hours) {
                now += plain_pause(now);
                lines += 1;
            }
            lines
        };
        assert_eq!(plain_pause(Duration::from_secs(60)), Duration::from_secs(15));
        assert!((50..100).contains(&lines(1)), "{} in an hour", lines(1));
        assert!((100..200).contains(&lines(24)), "{} in a day", lines(24));
    }
}
