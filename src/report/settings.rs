//! What the run is: its posters, its settings, and who worked on it with which version.

use super::document::{Section, Table, head};
use crate::data::Split;
use crate::data::tensor_file::TensorFile;
use crate::training::config::RunConfig;
use crate::training::history::Entry;
use maud::{Markup, html};

pub fn sections(config: &RunConfig, posters: &TensorFile) -> [Section; 2] {
    [
        Section { id: "films".into(), title: "Films".into(), body: films(posters) },
        Section { id: "settings".into(), title: "Settings".into(), body: settings(config) },
    ]
}

/// The posters of each genre in each split.
fn films(posters: &TensorFile) -> Markup {
    let splits = Split::ALL.map(|split| posters.indices(split));
    let counts = splits.each_ref().map(|indices| posters.class_counts(indices));
    let row = |name: &str, counts: [u32; 3]| {
        let all: u32 = counts.iter().sum();
        let cells = counts.into_iter().chain([all]).map(|count| html! { (count) });
        (html! { (name) }, cells.collect::<Vec<_>>())
    };
    let genres = posters.genres().iter().enumerate();
    let mut rows: Vec<_> = genres.map(|(at, name)| row(name, counts.each_ref().map(|counts| counts[at]))).collect();
    rows.push(row("posters", splits.each_ref().map(|indices| indices.len() as u32)));
    let columns = ["genre"].into_iter().chain(Split::ALL.map(Split::name)).chain(["all"]);
    let columns: Vec<String> = columns.map(String::from).collect();
    html! {
        p { code { (posters.path().display()) } ", " (posters.size()) "×" (posters.size()) " pixels" }
        (Table { caption: "Posters of each genre", head: &columns, rows, totals: 1 }.markup())
        @if !posters.provenance().is_empty() {
            (pairs("How the posters were prepared", posters.provenance().iter().map(|(key, value)| (key.clone(), value.clone()))))
        }
    }
}

fn settings(config: &RunConfig) -> Markup {
    let table = toml::Table::try_from(config).unwrap_or_default();
    let settings = table.into_iter().filter(|(key, _)| key != "history");
    let settings = settings.flat_map(|(key, value)| match value {
        toml::Value::Table(parts) => parts.into_iter().collect(),
        value => vec![(key, value)],
    });
    let text = |value: toml::Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    let entry = |entry: &Entry| {
        let cells = [entry.version.clone(), entry.device.clone(), entry.changed.join("; ")];
        (html! { (entry.step) }, cells.map(|cell| html! { (cell) }).to_vec())
    };
    let history = Table {
        caption: "Who worked on the run, from which step on",
        head: &head(["from step", "version", "device", "changed"]),
        rows: config.history.iter().map(entry).collect(),
        totals: 0,
    };
    html! {
        div.text { (history.markup()) }
        (pairs("Settings, as in config.toml", settings.map(|(key, value)| (key, text(value)))))
    }
}

/// Names and their values.
fn pairs(caption: &str, pairs: impl Iterator<Item = (String, String)>) -> Markup {
    let rows = pairs.map(|(key, value)| (html! { code { (key) } }, vec![html! { (value) }])).collect();
    html! { div.text { (Table { caption, head: &head(["name", "value"]), rows, totals: 0 }.markup()) } }
}
