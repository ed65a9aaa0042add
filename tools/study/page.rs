//! The page of a study: its tables, its curves, and from each run the way to its own page.

use super::Study;
use super::run::Run;
use super::tables::{self, LEGEND, Part, Rows};
use maud::{Markup, html};
use onesheet::report::chart::{Axis, Chart, Colour, MARKS, SERIES, Series};
use onesheet::report::document::{Section, Table, document};
use onesheet::training::run_folder::{EpochRow, epochs_of, report_file};

/// A drawing of which two stand beside each other.
const SIZE: (u32, u32) = (390, 280);

/// All of it.
///
/// # Errors
/// A run's log that cannot be read.
pub fn page(study: &Study) -> anyhow::Result<String> {
    let title = format!("Study {}", study.name);
    let done = study.runs.iter().filter(|run| run.stages().count() > 0).count();
    let opening = html! {
        h1 { (title) }
        p.lede {
            (study.runs.len()) " runs, " (done) " of them with scores; posters of " (study.file.path().display()) "."
        }
    };
    let mut sections = vec![Section { id: "runs".into(), title: "Runs".into(), body: runs(study) }];
    sections.extend(curves(study)?);
    for (number, Part { title, tables }) in tables::parts(study).into_iter().enumerate() {
        let body = html! {
            @if tables.is_empty() { p { "No run has scores yet." } }
            @for (measure, rows) in &tables { (table(&title, measure, rows)) }
        };
        sections.push(Section { id: format!("table-{}", number + 1), title, body });
    }
    let body = html! { p { "The best of a row is " strong { "bold" } "; " (LEGEND) } };
    sections.push(Section { id: "legend".into(), title: "How to read them".into(), body });
    Ok(document(&format!("{title} – Onesheet"), &opening, &sections, None::<&()>))
}

/// What each run is and how far it has come; its name leads to its page, if it has one.
fn runs(study: &Study) -> Markup {
    let rows = tables::runs(study);
    let named = std::iter::zip(&study.runs, &rows[1..]).map(|(run, cells)| {
        let has_page = run.prepared.as_ref().is_some_and(|run| report_file(&run.folder).exists());
        let name = html! {
            @if has_page { a href=(format!("{}/report.html", run.label)) { (run.label) } } @else { (run.label) }
        };
        (name, cells[1..].iter().map(|cell| html! { (cell) }).collect())
    });
    let table = Table { caption: "The runs of the study", head: &rows[0], rows: named.collect(), totals: 0 };
    html! { div.text { (table.markup()) } }
}

/// The validation mAP and loss of all runs; none before an epoch of one is done.
fn curves(study: &Study) -> anyhow::Result<Option<Section>> {
    let mut logs: Vec<(&Run, usize, Vec<EpochRow>)> = Vec::new();
    for (at, run) in study.runs.iter().enumerate() {
        let epochs = run.prepared.as_ref().map_or(Ok(Vec::new()), |run| epochs_of(&run.folder))?;
        if !epochs.is_empty() {
            logs.push((run, at, epochs));
        }
    }
    let Some(last) = logs.iter().filter_map(|(_, _, epochs)| Some(epochs.last()?.epoch)).max() else { return Ok(None) };
    let chart = |title, y: Axis, value: fn(&EpochRow) -> f64| {
        let told: Vec<String> = logs
            .iter()
            .filter_map(|(run, _, epochs)| {
                let end = epochs.last()?;
                Some(format!("{} has {:.4} after epoch {}.", run.label, value(end), end.epoch))
            })
            .collect();
        let series = logs.iter().map(|(run, at, epochs)| Series {
            name: run.label.clone(),
            colour: Colour::Series(*at),
            mark: MARKS[(at + at / SERIES) % MARKS.len()],
            points: epochs.iter().map(|row| (f64::from(row.epoch), value(row))).collect(),
        });
        let (told, series) = (told.join(" "), series.collect());
        Chart { title, told, x: Axis::counted("epoch", last), y, size: SIZE, series, place: None }.figure()
    };
    let highest = logs.iter().flat_map(|(_, _, epochs)| epochs).map(|row| row.validation_loss).fold(0.0, f64::max);
    let body = html! {
        div.pair {
            (chart("Validation mAP by epoch", Axis::share("mAP"), |row| row.mean_average_precision))
            (chart("Validation loss by epoch", Axis::up_to("loss", highest), |row| row.validation_loss))
        }
    };
    Ok(Some(Section { id: "curves".into(), title: "Learning curves".into(), body }))
}

/// One of the tables, its title and what it measures above it.
fn table(title: &str, measure: &str, rows: &Rows) -> Markup {
    // Not the section's own name: who jumps from region to region tells them apart by their names.
    let measure = if measure.is_empty() { "In numbers" } else { measure };
    let caption = format!("{measure}. {title}");
    let named = rows[1..].iter().map(|row| (html! { (row[0]) }, row[1..].iter().map(|cell| shown(cell)).collect()));
    Table { caption: &caption, head: &rows[0], rows: named.collect(), totals: 1 }.markup()
}

/// A cell, of which Markdown's marks are taken.
fn shown(cell: &str) -> Markup {
    let is_worse = cell.ends_with(" ↓");
    let text = cell.trim_end_matches(" ↓");
    let is_best = text.starts_with("**");
    html! {
        span class=[is_best.then_some("best")] { (text.trim_matches('*')) }
        @if is_worse { span aria-hidden="true" { " ↓" } span.hidden { " (worse than the coin)" } }
        @if is_best { span.hidden { " (best)" } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_of_markdown_are_those_of_the_page() {
        let shown = |cell| shown(cell).into_string();
        assert_eq!(shown("0.5 "), "<span>0.5 </span>");
        assert_eq!(shown("**0.5**"), "<span class=\"best\">0.5</span><span class=\"hidden\"> (best)</span>");
        let worse = "<span aria-hidden=\"true\"> ↓</span><span class=\"hidden\"> (worse than the coin)</span>";
        assert_eq!(shown("0.25 ↓"), format!("<span>0.25</span>{worse}"));
    }
}
