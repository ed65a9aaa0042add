//! What a training step costs, by the steps of its plan.

use super::document::{Section, Table, details, head};
use crate::device::{Pass, Work};
use crate::files::{Disk, open, replace};
use crate::plan::cost::{Costs, of_pass, total};
use crate::training::run_folder::{RunFolderError, plan_table};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// A row of `plan.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PlanRow {
    /// The layers that are computed together, the first and the last where there are more than one.
    layers: String,
    launches: usize,
    forward_flops: u64,
    backward_flops: u64,
    forward_bytes: u64,
    backward_bytes: u64,
    /// Bytes that the forward pass leaves for the backward pass.
    kept_bytes: usize,
}

/// Keeps in the folder `run` what a training step of it costs.
///
/// # Errors
/// [`RunFolderError::Save`].
pub fn write_plan(run: &Path, costs: &Costs) -> Result<(), RunFolderError> {
    let path = plan_table(run);
    let failed = |cause| RunFolderError::Unwritable { path: path.clone(), cause };
    let mut csv = csv::Writer::from_writer(Vec::new());
    for row in rows(costs) {
        csv.serialize(row).map_err(|error| failed(io::Error::other(error)))?;
    }
    let bytes = csv.into_inner().map_err(|error| failed(error.into_error()))?;
    Ok(replace(&Disk, &path, &bytes)?)
}

fn rows(costs: &Costs) -> Vec<PlanRow> {
    let name = |layers: &[String]| match layers {
        [only] => only.clone(),
        [first, .., last] => format!("{first} .. {last}"),
        [] => String::new(),
    };
    let steps = costs.steps.iter().map(|step| {
        let work = |pass| total(of_pass(&step.launches, pass));
        let (forward, backward) = (work(Pass::Forward), work(Pass::Backward));
        PlanRow {
            layers: name(&step.layers),
            launches: step.launches.len(),
            forward_flops: forward.flops,
            backward_flops: backward.flops,
            forward_bytes: forward.bytes(),
            backward_bytes: backward.bytes(),
            kept_bytes: step.kept,
        }
    });
    let Work { reads, writes, flops } = total(&costs.beside);
    let beside = PlanRow {
        layers: "loss, gradients, averages, Adam".into(),
        launches: costs.beside.len(),
        forward_flops: 0,
        backward_flops: flops,
        forward_bytes: 0,
        backward_bytes: reads + writes,
        kept_bytes: 0,
    };
    steps.chain([beside]).collect()
}

/// What is kept in the folder `run`; nothing in one of an earlier version.
///
/// # Errors
/// [`RunFolderError::Log`] for a table that is not ours.
pub fn section(run: &Path) -> Result<Option<Section>, RunFolderError> {
    let path = plan_table(run);
    let file = match open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| RunFolderError::Log { path: path.clone(), cause: error.into() })?,
    };
    let rows = csv::Reader::from_reader(file).deserialize().collect::<Result<Vec<PlanRow>, _>>();
    let rows = rows.map_err(|cause| RunFolderError::Log { path, cause })?;
    let sum = |value: fn(&PlanRow) -> u64| rows.iter().map(value).sum::<u64>();
    let all = PlanRow {
        layers: "a training step".into(),
        launches: rows.iter().map(|row| row.launches).sum(),
        forward_flops: sum(|row| row.forward_flops),
        backward_flops: sum(|row| row.backward_flops),
        forward_bytes: sum(|row| row.forward_bytes),
        backward_bytes: sum(|row| row.backward_bytes),
        kept_bytes: rows.iter().map(|row| row.kept_bytes).sum(),
    };
    let flops = all.forward_flops + all.backward_flops;
    let bytes = all.forward_bytes + all.backward_bytes;
    let table = Table {
        caption: "Layers that are computed together, in the order of the forward pass",
        head: &head([
            "layers",
            "GFLOP forward",
            "GFLOP backward",
            "MiB moved forward",
            "MiB moved backward",
            "MiB kept",
            "launches",
        ]),
        rows: rows.iter().chain([&all]).map(|row| (html! { (row.layers) }, cells(row))).collect(),
        totals: 1,
    };
    let body = html! {
        p {
            "A training step takes " (all.launches) " launches: " (giga(flops)) " GFLOP, " (mebi(bytes)) " MiB read and written, and "
            (mebi(all.kept_bytes as u64)) " MiB kept from the forward pass for the backward pass."
        }
        (details("Step by step of the plan", &table.markup()))
    };
    Ok(Some(Section { id: "cost".into(), title: "Cost of a step".into(), body }))
}

fn giga(flops: u64) -> String {
    format!("{:.2}", flops as f64 / 1e9)
}

fn mebi(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

fn cells(row: &PlanRow) -> Vec<Markup> {
    let flops = [row.forward_flops, row.backward_flops].map(giga);
    let bytes = [row.forward_bytes, row.backward_bytes, row.kept_bytes as u64].map(mebi);
    flops.into_iter().chain(bytes).chain([row.launches.to_string()]).map(|cell| html! { (cell) }).collect()
}
