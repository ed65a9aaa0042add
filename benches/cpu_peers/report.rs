//! The table on standard output and the CSV beside it.

use crate::machine::Machine;
use serde::Serialize;
use std::fs::{self, File};
use std::path::Path;

/// What is measured in one series of rounds.
#[derive(Clone, Copy)]
pub struct Series {
    pub network: &'static str,
    pub work: &'static str,
    pub batch: usize,
    pub precision: &'static str,
    pub threads: usize,
}

/// What came of one contestant.
pub struct Times {
    pub name: String,
    /// A time a round.
    pub seconds: Vec<f64>,
    /// Of its outputs, or of its losses: see [`error`](crate::check::error).
    pub error: f64,
}

/// A line of the CSV.
#[derive(Serialize)]
struct Row<'a> {
    machine: &'a str,
    cores: usize,
    instruction_sets: String,
    threads: usize,
    network: &'a str,
    work: &'a str,
    batch: usize,
    precision: &'a str,
    contestant: &'a str,
    rounds: usize,
    median_s: f64,
    min_s: f64,
    max_s: f64,
    images_per_s: f64,
    /// Its median over ours.
    of_ours: f64,
    error: f64,
}

/// Where results go.
pub struct Report {
    machine: Machine,
    csv: csv::Writer<File>,
}

impl Report {
    /// Begins both.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(machine: Machine, file: &Path) -> anyhow::Result<Self> {
        use anyhow::Context;
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("--csv {}", file.display()))?;
        }
        let csv = csv::Writer::from_path(file).with_context(|| format!("--csv {}", file.display()))?;
        println!("{}, {} cores, {}\n", machine.name, machine.cores, machine.instruction_sets.join(" "));
        println!("| network | work | batch | | contestant | ms | posters/s | its time over ours | error |");
        println!("| --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: |");
        Ok(Report { machine, csv })
    }

    /// The lines of a series, ours first.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add(&mut self, series: Series, contestants: &[Times]) -> anyhow::Result<()> {
        let Series { network, work, batch, precision, threads } = series;
        let ours = median(&contestants[0].seconds);
        for Times { name, seconds, error } in contestants {
            let median = median(seconds);
            let (of_ours, images_per_s) = (median / ours, batch as f64 / median);
            println!(
                "| {network} | {work} | {batch} | {precision} | {name} | {:.1} | {images_per_s:.1} | {of_ours:.2} | {error:.0e} |",
                1e3 * median
            );
            self.csv.serialize(Row {
                machine: &self.machine.name,
                cores: self.machine.cores,
                instruction_sets: self.machine.instruction_sets.join(" "),
                threads,
                network,
                work,
                batch,
                precision,
                contestant: name,
                rounds: seconds.len(),
                median_s: median,
                min_s: seconds.iter().copied().fold(f64::INFINITY, f64::min),
                max_s: seconds.iter().copied().fold(0.0, f64::max),
                images_per_s,
                of_ours,
                error: *error,
            })?;
        }
        // What has been measured stays if the rest is interrupted.
        Ok(self.csv.flush()?)
    }
}

/// The middle one of some numbers, or the mean of the two in the middle.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}
