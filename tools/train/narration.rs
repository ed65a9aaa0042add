//! What a run looks like while it runs: the table it opens with, the bar, a line an epoch, and how it ends.

mod opening;

pub use opening::open;

use crate::console::{Console, clock, print, program, since_start};
use indicatif::ProgressBar;
use onesheet::files::{Disk, quoted, replace};
use onesheet::profile::Profile;
use onesheet::training::TrainingError;
use onesheet::training::checkpoint;
use onesheet::training::config::RunConfig;
use onesheet::training::run_folder::{EpochRow, StepRow, best_checkpoint, profile_table, report_file};
use onesheet::training::trainer::{Ending, Event, is_bad_number};
use serde_json::json;
use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};

/// The version of the lines that `--json` prints.
const SCHEMA: u32 = 1;

/// The head of the table of epochs.
const HEAD: &str = "epoch  train loss  val. loss  accuracy  weighted F1  baseline     mAP    time";

/// Off a terminal, the pause before the next line of progress of a run that has lasted so long: a few lines in the first minutes, a
/// few an hour after days.
fn plain_pause(lasted: Duration) -> Duration {
    (lasted / 20).clamp(Duration::from_secs(15), Duration::from_secs(900))
}

/// Whether that pause is over, so long after the last line.
fn is_due(silent: Duration, lasted: Duration) -> bool {
    silent >= plain_pause(lasted)
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
    /// The best epoch's weighted F1 at its tuned thresholds.
    tuned_f1: Option<f64>,
}

impl Progress {
    /// Prints the head of the table. `done` steps lie before a resumption, an epoch has `steps`.
    pub fn new(console: Console, json: bool, device: String, config: &RunConfig, done: u64, steps: u64) -> Self {
        if !json {
            show(HEAD);
        }
        let total = (u64::from(config.epochs) * steps).min(config.max_steps.unwrap_or(u64::MAX));
        let bar = console.bar(total, "{prefix:>5}  {wide_bar} {pos}/{len}  {msg}");
        bar.set_position(done);
        let (epochs, batch, now) = (config.epochs, config.posters_a_step(), Instant::now());
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
            tuned_f1: None,
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
                if let Some(line) = self.first_step() {
                    self.bar.suspend(|| self.console.say(line));
                }
                if let Some(line) = self.step(row, epoch) {
                    let fields = json!({ "epoch": epoch + 1, "epochs": self.epochs, "steps": self.total, "row": row });
                    self.bar.suspend(|| self.console.say_of("step", fields, line));
                }
            }
            Event::LeftOut { why } => {
                let line = format!("note: {why}; the step is left out");
                self.bar.suspend(|| self.console.say_of("left_out", json!({}), line));
            }
            Event::RolledBack { why, step, learning_rate } => {
                let line = format!(
                    "note: {why}; the run goes back to step {step}, and on at a learning rate of {learning_rate}"
                );
                let fields = json!({ "step": step, "learning_rate": learning_rate });
                self.bar.suspend(|| self.console.say_of("rolled_back", fields, line));
            }
            Event::Averages { done, posters } => {
                self.bar.set_message(format!("batch norm's averages, {done} of {posters} posters"));
            }
            Event::Validation { done, posters } => {
                self.bar.set_message(format!("validation, {done} of {posters} posters"));
            }
            Event::Epoch { row, best, tuned_f1, .. } => {
                self.tuned_f1 = tuned_f1.or(self.tuned_f1);
                let line = self.epoch(row, best);
                self.bar.suspend(|| show(line));
            }
        }
    }

    /// What is said of the first step, where it was asked for.
    fn first_step(&mut self) -> Option<String> {
        let seconds = since_start().as_secs_f64();
        let told = || format!("first step done {seconds:.1} s after the start of the program");
        std::mem::take(&mut self.awaits_first_step).then(told)
    }

    /// Moves the bar to a step of `epoch`, from 0; a line where nobody watches it and the last one is long past.
    fn step(&mut self, row: &StepRow, epoch: u32) -> Option<String> {
        let rate = row.images_per_second;
        self.rate = if self.rate == 0.0 { rate } else { 0.9 * self.rate + 0.1 * rate };
        let left = clock((self.total.saturating_sub(row.step) * self.batch as u64) as f64 / self.rate);
        let (loss, rate, of) = (row.loss, self.rate, format!("{}/{}", epoch + 1, self.epochs));
        self.bar.set_prefix(of);
        self.bar.set_position(row.step);
        self.bar.set_message(format!("loss {loss:.4}  {rate:.1} images/s  {left} left"));
        if self.console.is_live() || !is_due(self.spoke.elapsed(), self.began.elapsed()) {
            return None;
        }
        self.spoke = Instant::now();
        let place = format!("epoch {} of {}, step {} of {}", epoch + 1, self.epochs, row.step, self.total);
        Some(format!("{place}: loss {loss:.4}, {rate:.1} images/s, {left} left"))
    }

    /// The line of an epoch, and whether it is the best so far.
    fn epoch(&mut self, row: &EpochRow, best: bool) -> String {
        if best {
            self.best = Some(*row);
        }
        if self.json {
            return json!({ "schema": SCHEMA, "kind": "epoch", "best": best, "device": self.device, "row": row })
                .to_string();
        }
        line(row, self.epochs, best)
    }

    /// Takes the bar away after an error, and says what is saved and how the run goes on.
    pub fn fail(self, error: &TrainingError, run: &Path, saved: Option<u64>, config: &RunConfig) {
        self.bar.finish_and_clear();
        self.console.say(failed(error, run, saved, config));
    }

    /// Takes the bar away and says where to look and what to type next.
    pub fn close(self, ending: Ending, progress: &checkpoint::Progress, run: &Path) {
        self.bar.finish_and_clear();
        self.console.say(self.closing(ending, progress.total_steps, run));
    }

    /// Takes the bar away without a word.
    pub fn clear(self) {
        self.bar.finish_and_clear();
    }

    /// How the run ended after so many steps in all, and what to do next.
    fn closing(&self, ending: Ending, steps: u64, run: &Path) -> String {
        let (program, time) = (program(), clock(self.began.elapsed().as_secs_f64()));
        let model = best_checkpoint(run);
        let (page, run) = (report_file(run), quoted(run));
        let why = match ending {
            Ending::Interrupted => "interrupted",
            Ending::StepLimit | Ending::TimeLimit => "stopped as asked",
            Ending::Finished | Ending::NoBetter => {
                let end = match ending {
                    Ending::NoBetter => "no better epoch for as many as --patience says".into(),
                    _ => format!("trained to epoch {}", self.epochs),
                };
                let mut text = format!("\n{end}, {steps} steps in all, {time} this time\n");
                if let Some(best) = &self.best {
                    text += &format!("{}\n", verdict(best));
                }
                if let Some(f1) = self.tuned_f1 {
                    text += &format!(
                        "its thresholds tuned on validation give a weighted F1 of {f1:.4} there; they are in the model (--thresholds tuned)\n"
                    );
                }
                text += &format!("\nlook at  {} in a browser, log.csv and steps.csv", page.display());
                // Somebody may have moved it, or the run went on to no further epoch.
                if model.exists() {
                    text += &format!("\ntype     {program} evaluate --run {run}");
                    text += &format!("\n         {program} infer --model {} poster.jpg", quoted(&model));
                }
                return text;
            }
        };
        format!("\n{why} after step {steps}, everything saved; go on with\n  {program} train --resume {run}")
    }
}

/// The best epoch beside the two answers that have learned nothing.
fn verdict(best: &EpochRow) -> String {
    let baseline = best.coin_f1.max(best.always_yes_f1);
    let verdict = if best.weighted_f1 > baseline { "beats" } else { "does not beat" };
    format!(
        "best epoch {}: weighted F1 {:.4} {verdict} both the coin ({:.4}) and always-yes ({:.4}); mAP {:.4}",
        best.epoch, best.weighted_f1, best.coin_f1, best.always_yes_f1, best.mean_average_precision
    )
}

/// What of a run that failed is `saved`, and how it goes on.
fn failed(error: &TrainingError, run: &Path, saved: Option<u64>, config: &RunConfig) -> String {
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
    format!("{saved}{how}, with\n  {program} train --resume {run}{flag}")
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
mod tests;
