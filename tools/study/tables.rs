//! The paper's tables of a study's runs, as Markdown and as CSV; [`page`] has them to look at.
//!
//! Table 1 counts the genres. Tables 2, 3 and 4 have the scores on training, validation and test posters, a row a genre and a column a
//! run and epoch, beside what two rules score that never look at a poster. Table 5 is ours: a row a run.

mod paper;
mod ranking;

use super::record::moment;
use super::run::Run;
use super::{Study, page};
use onesheet::data::Split;
use onesheet::files::{Disk, replace};
use onesheet::metrics::Scores;
use onesheet::training::experiment::Experiment;
use serde_json::{Map, Number, Value};

/// Table 2, 3 or 4: its number and its posters.
const SCORED: [(u32, Split); 3] = [(2, Split::Train), (3, Split::Validation), (4, Split::Test)];

/// Writes `tables.md`, `index.html`, `table1.csv` to `table5.csv` and `runs.csv`.
pub fn write(study: &Study) -> anyhow::Result<()> {
    let write = |name: &str, text: &[u8]| replace(&Disk, &study.out.join(name), text);
    write("tables.md", markdown(study).as_bytes())?;
    write("index.html", page::page(study)?.as_bytes())?;
    for (name, rows) in for_programs(study) {
        write(&format!("{name}.csv"), &csv(&rows)?)?;
    }
    Ok(())
}

/// Rows of cells, the first their names.
pub type Rows = Vec<Vec<String>>;

/// All tables for programs, by name.
fn for_programs(study: &Study) -> Vec<(String, Rows)> {
    let ranked =
        ranked(study).into_iter().flat_map(|split| columns(study, split).into_iter().map(move |it| (split, it)));
    let ranked = ranking::csv_rows(&ranked.collect::<Vec<_>>());
    let scored = scored(study).map(|(number, split)| (format!("table{number}"), rows(study, split)));
    let first = [("table1".to_owned(), counts(study))];
    let last = [("table5".to_owned(), ranked), ("runs".to_owned(), runs(study))];
    first.into_iter().chain(scored).chain(last).collect()
}

/// The version of the objects below.
const SCHEMA: u32 = 1;

/// The same as JSON, an object a row, whose `kind` is the table.
pub fn json(study: &Study) -> String {
    let mut text = String::new();
    for (name, rows) in for_programs(study) {
        let (head, rows) = rows.split_first().expect("each table has a head");
        for row in rows {
            let cells = head.iter().zip(row).map(|(name, cell)| {
                let value = match cell.parse::<Number>() {
                    Ok(number) => Value::Number(number),
                    Err(_) if cell.is_empty() => Value::Null,
                    Err(_) => Value::from(cell.as_str()),
                };
                (name.clone(), value)
            });
            let kind = [("schema".to_owned(), SCHEMA.into()), ("kind".to_owned(), name.as_str().into())];
            let object: Map<String, Value> = kind.into_iter().chain(cells).collect();
            text += &format!("{}\n", Value::from(object));
        }
    }
    text
}

/// The tables of scores that this study has.
fn scored(study: &Study) -> impl Iterator<Item = (u32, Split)> {
    SCORED.into_iter().filter(|(_, split)| study.scored.contains(split))
}

/// What Table 5 is of.
fn ranked(study: &Study) -> Vec<Split> {
    ranking::SHOWN.into_iter().filter(|split| study.scored.contains(split)).collect()
}

/// Rows of cells as CSV.
fn csv(rows: &[Vec<String>]) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.write_record(row))?;
    Ok(writer.into_inner().map_err(csv::IntoInnerError::into_error)?)
}

/// Rows of cells as a Markdown table, the first its head. What begins its line is text, all else numbers.
fn table(rows: &[Vec<String>]) -> String {
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    let columns = rows.first().map_or(0, Vec::len);
    lines.insert(1, format!("| --- |{}\n", " ---: |".repeat(columns.saturating_sub(1))));
    lines.concat()
}

/// What the scores stand beside.
pub const LEGEND: &str = "↓ marks what is worse than the fair coin. The coin names each genre of every second poster: its F1 is p/(p + ½), its \
                          accuracy ½, where p is the share of posters that are of the genre. Always-yes names each genre of each poster: \
                          2p/(1 + p), and p. In the last row genres are weighed by their posters for F1, and alike for accuracy. In Table 5 \
                          the best of a column is bold; mAP and ROC-AUC judge the order of the posters, at no threshold; tuned thresholds \
                          are those with the highest F1 on the validation posters.";

/// A table, or two of one number.
pub struct Part {
    /// Its number and what it has.
    pub title: String,
    /// What each table measures, if there are two, and its rows, the first of which are the names of the columns. **The best** is marked as
    /// Markdown has it, and so is what is worse than the coin: ↓.
    pub tables: Vec<(&'static str, Rows)>,
}

/// Tables 1 to 5; those of scores once there are some.
pub fn parts(study: &Study) -> Vec<Part> {
    let title = format!("Table 1: posters of each genre in {}", study.file.path().display());
    let mut parts = vec![Part { title, tables: vec![("", counts(study))] }];
    for (number, split) in scored(study) {
        let columns = columns(study, split);
        let title = format!("Table {number}: scores on {} posters", split.name());
        let rows = |measure: Measure| (measure.title(), measure.rows(study.file.genres(), &columns));
        let tables = if columns.is_empty() { Vec::new() } else { [Measure::F1, Measure::Accuracy].map(rows).to_vec() };
        parts.push(Part { title, tables });
    }
    for split in ranked(study) {
        let columns = columns(study, split);
        if !columns.is_empty() {
            let title = format!("Table 5, {} posters: all genres", split.name());
            parts.push(Part { title, tables: vec![("", ranking::rows(&columns))] });
        }
    }
    parts
}

/// All tables.
pub fn markdown(study: &Study) -> String {
    let mut text = format!("# Study `{}`\n\n", study.name);
    text += &format!("Runs, one folder each beside this file:\n\n{}", table(&runs(study)).replace("---:", "---"));
    for Part { title, tables } in parts(study) {
        text += &format!("\n## {title}\n");
        if tables.is_empty() {
            text += "\nNo run has scores yet.\n";
        }
        for (name, rows) in tables {
            text +=
                &if name.is_empty() { format!("\n{}", table(&rows)) } else { format!("\n{name}:\n\n{}", table(&rows)) };
        }
    }
    text += &format!("\nThe best of a row is **bold**; {LEGEND}\n");
    text
}

/// What each run is, and how far it has come.
pub fn runs(study: &Study) -> Rows {
    let row = |run: &Run| {
        let side = run.prepared.as_ref().map_or("–".into(), |run| run.config.image_size.to_string());
        let experiment = run.experiment.map_or("–", Experiment::name).into();
        vec![run.label.clone(), run.network.to_string(), experiment, side, run.state()]
    };
    let head = ["run", "network", "experiment", "image_size", "state"].map(String::from).to_vec();
    [head].into_iter().chain(study.runs.iter().map(row)).collect()
}

/// Table 1.
fn counts(study: &Study) -> Rows {
    let file = &study.file;
    let splits = Split::ALL.map(|split| file.indices(split));
    let is_papers = paper::has_its_genres(file);
    let row = |name: &str, counts: [u32; 3], paper: u32| {
        let all: u32 = counts.iter().sum();
        let numbers = counts.into_iter().chain([all]).chain(is_papers.then_some(paper));
        [name.to_owned()].into_iter().chain(numbers.map(|number| number.to_string())).collect::<Vec<_>>()
    };
    let mut head: Vec<String> = ["genre", "train", "validation", "test", "all"].map(String::from).to_vec();
    head.extend(is_papers.then(|| "the paper, all".to_owned()));
    let mut rows = vec![head];
    let counts = splits.each_ref().map(|posters| file.class_counts(posters));
    for (genre, name) in file.genres().iter().enumerate() {
        rows.push(row(
            name,
            counts.each_ref().map(|counts| counts[genre]),
            paper::COUNTS.get(genre).copied().unwrap_or_default(),
        ));
    }
    rows.push(row("posters", splits.each_ref().map(|posters| posters.len() as u32), paper::POSTERS));
    rows
}

/// A column of Table 2, 3 or 4.
struct Column<'a> {
    run: &'a str,
    /// After how many epochs, if they were whole ones.
    epoch: Option<u64>,
    /// After how many steps, if it is known.
    step: Option<u64>,
    scores: &'a Scores,
    /// At thresholds tuned on the validation posters.
    tuned: Option<&'a Scores>,
}

impl Column<'_> {
    /// Where in the run it is.
    fn place(&self) -> String {
        moment(self.epoch, self.step.unwrap_or_default())
    }
}

/// The columns on a split: each run that has been scored, at each epoch where it was; and of test posters the paper's.
fn columns(study: &Study, split: Split) -> Vec<Column<'_>> {
    let mut columns = Vec::new();
    for run in &study.runs {
        for stage in run.stages() {
            let tuned = stage.tuned.get(split.name());
            let (epoch, step) = (stage.epoch, Some(stage.step));
            columns.extend(stage.on(split).map(|scores| Column { run: &run.label, epoch, step, scores, tuned }));
        }
    }
    if split == Split::Test && !columns.is_empty() && paper::has_its_genres(&study.file) {
        let (run, epoch) = paper::PUBLISHED;
        columns.push(Column { run, epoch: Some(epoch), step: None, scores: paper::published(), tuned: None });
    }
    columns
}

/// What is scored.
#[derive(Clone, Copy)]
enum Measure {
    F1,
    Accuracy,
}

impl Measure {
    fn title(self) -> &'static str {
        match self {
            Measure::F1 => "F1",
            Measure::Accuracy => "Accuracy, in per cent",
        }
    }

    /// Of a genre, or of all of them: the score, the coin's and always-yes's.
    fn of(self, scores: &Scores, genre: Option<usize>) -> [f64; 3] {
        match (self, genre.map(|genre| scores.genres[genre].counts)) {
            (Measure::F1, Some(counts)) => [counts.f1(), counts.coin_f1(), counts.always_yes_f1()],
            (Measure::F1, None) => [scores.weighted.f1, scores.weighted.coin_f1, scores.weighted.always_yes_f1],
            (Measure::Accuracy, Some(counts)) => [counts.accuracy(), 0.5, counts.share()],
            (Measure::Accuracy, None) => {
                let shares: f64 = scores.genres.iter().map(|genre| genre.counts.share()).sum();
                [scores.binary_accuracy(), 0.5, shares / scores.genres.len() as f64]
            }
        }
    }

    fn shown(self, score: f64) -> String {
        match self {
            Measure::F1 => format!("{score:.4}"),
            Measure::Accuracy => format!("{:.2}", 100.0 * score),
        }
    }

    /// The table with its head: a row a genre, then all of them.
    fn rows(self, genres: &[String], columns: &[Column<'_>]) -> Rows {
        let baselines = baselines(columns);
        let one = baselines.len() == 1;
        let of = |rule: &str, column: &Column<'_>| match one {
            true => rule.to_owned(),
            false => format!("{rule}, posters of {}", column.run),
        };
        let mut head = vec!["genre".to_owned()];
        head.extend(columns.iter().map(|column| format!("{}, {}", column.run, column.place())));
        head.extend(baselines.iter().flat_map(|column| ["fair coin", "always yes"].map(|rule| of(rule, column))));
        let mut rows = vec![head];
        let named = genres.iter().enumerate().map(|(genre, name)| (name.as_str(), Some(genre)));
        let all = match self {
            Measure::F1 => "weighted mean",
            Measure::Accuracy => "mean",
        };
        for (name, genre) in named.chain([(all, None)]) {
            let scores = columns.iter().map(|column| self.of(column.scores, genre));
            let best = scores.clone().map(|[score, ..]| score).fold(0.0, f64::max);
            let cell = |[score, coin, _]: [f64; 3]| {
                let shown = self.shown(score);
                // Two that look the same are both the best.
                let shown = bold_if(shown == self.shown(best), shown);
                if score < coin { shown + " ↓" } else { shown }
            };
            let mut row = vec![name.to_owned()];
            row.extend(scores.map(cell));
            let rules = baselines.iter().map(|column| self.of(column.scores, genre));
            row.extend(rules.flat_map(|[_, coin, yes]| [coin, yes].map(|score| self.shown(score))));
            rows.push(row);
        }
        rows
    }
}

fn bold_if(is_best: bool, shown: String) -> String {
    if is_best { format!("**{shown}**") } else { shown }
}

/// A column for each set of posters that columns are of: on others a rule that looks at no poster has other scores.
fn baselines<'a, 'b>(columns: &'a [Column<'b>]) -> Vec<&'a Column<'b>> {
    let mut baselines: Vec<&Column<'_>> = Vec::new();
    for column in columns {
        if baselines.iter().all(|known| supports(known.scores) != supports(column.scores)) {
            baselines.push(column);
        }
    }
    baselines
}

/// How many posters there are, and how many of each genre.
fn supports(scores: &Scores) -> (u64, Vec<u64>) {
    (scores.posters, scores.genres.iter().map(|genre| genre.counts.support()).collect())
}

/// Table 2, 3 or 4 for programs: a row a genre, run and epoch.
fn rows(study: &Study, split: Split) -> Rows {
    const HEAD: [&str; 11] = [
        "run",
        "epoch",
        "step",
        "genre",
        "posters",
        "of_the_genre",
        "accuracy",
        "f1",
        "coin_f1",
        "always_yes_f1",
        "always_yes_accuracy",
    ];
    let mut rows = vec![HEAD.map(String::from).to_vec()];
    let number = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
    for column in columns(study, split) {
        let scores = column.scores;
        let genres = study.file.genres().iter().enumerate().map(|(genre, name)| (name.as_str(), Some(genre)));
        for (name, genre) in genres.chain([("all", None)]) {
            let [f1, coin, yes] = Measure::F1.of(scores, genre);
            let [accuracy, _, share] = Measure::Accuracy.of(scores, genre);
            let support = number(genre.map(|genre| scores.genres[genre].counts.support()));
            let mut row = vec![column.run.to_owned(), number(column.epoch), number(column.step)];
            row.extend([name.into(), scores.posters.to_string(), support]);
            row.extend([accuracy, f1, coin, yes, share].map(|number| number.to_string()));
            rows.push(row);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four posters: two of the first genre, three of the second.
    fn scores(probabilities: [f32; 8]) -> Scores {
        Scores::new(&probabilities, &[1, 1, 1, 1, 0, 1, 0, 0], &[0.5, 0.5])
    }

    #[test]
    fn the_best_is_bold_and_what_is_worse_than_the_coin_is_marked() {
        let (right, none) = (scores([0.9, 0.9, 0.9, 0.9, 0.1, 0.9, 0.1, 0.1]), scores([0.0; 8]));
        let half = scores([0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let column = |run, scores| Column { run, epoch: Some(1), step: Some(9), scores, tuned: None };
        let genres = ["War", "Drama"].map(String::from);
        let shown = |measure: Measure, columns: &[Column<'_>]| table(&measure.rows(&genres, columns));

        let text = shown(Measure::F1, &[column("a", &right), column("b", &none), column("c", &half)]);
        // 2 of 4 are of the first genre: 0.5/(0.5 + 0.5), 1/1.5. Three are of the second: 0.75/1.25, 1.5/1.75.
        let expected = "\
| genre | a, epoch 1 | b, epoch 1 | c, epoch 1 | fair coin | always yes |
| --- | ---: | ---: | ---: | ---: | ---: |
| War | **1.0000** | 0.0000 ↓ | 0.6667 | 0.5000 | 0.6667 |
| Drama | **1.0000** | 0.0000 ↓ | 0.0000 ↓ | 0.6000 | 0.8571 |
| weighted mean | **1.0000** | 0.0000 ↓ | 0.2667 ↓ | 0.5600 | 0.7810 |
";
        assert_eq!(text, expected);

        let text = shown(Measure::Accuracy, &[column("b", &none), column("c", &half)]);
        let expected = "\
| genre | b, epoch 1 | c, epoch 1 | fair coin | always yes |
| --- | ---: | ---: | ---: | ---: |
| War | 50.00 | **75.00** | 50.00 | 50.00 |
| Drama | **25.00** ↓ | **25.00** ↓ | 50.00 | 75.00 |
| mean | 37.50 ↓ | **50.00** | 50.00 | 62.50 |
";
        assert_eq!(text, expected);

        let fewer = Scores::new(&[0.9, 0.9], &[1, 1], &[0.5, 0.5]);
        let text = shown(Measure::F1, &[column("a", &right), column("d", &fewer)]);
        let head =
            "fair coin, posters of a | always yes, posters of a | fair coin, posters of d | always yes, posters of d |";
        assert!(text.lines().next().unwrap().ends_with(head), "{text}");
        assert!(text.contains("| War | **1.0000** | **1.0000** | 0.5000 | 0.6667 | 0.6667 | 1.0000 |"), "{text}");
    }

    #[test]
    fn no_cell_breaks_its_row() {
        let rows = [["a|b", "c"], ["d\ne", "1"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows), "| a\\|b | c |\n| --- | ---: |\n| d e | 1 |\n");
    }
}
