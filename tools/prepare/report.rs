//! What `prepare` tells of its work: the counts as a table or as JSON, why rows were skipped, and what was noticed on the way.

use std::path::Path;

use onesheet::data::Split;
use onesheet::data::counts::Counts;
use onesheet::data::labels::Warning;
use onesheet::data::skipped::{self, SkippedRow};
use serde_json::json;

use super::table;
use crate::console::{OutputError, print, put_path};

/// The version of the lines that `--json` prints.
const SCHEMA: u32 = 1;

/// What there is to report.
pub struct Counted<'a> {
    /// What was counted: films, rows or posters.
    pub what: &'static str,
    pub counts: Counts,
    pub skipped: &'a [SkippedRow],
    /// What in the table may be meant otherwise.
    pub warnings: &'a [Warning],
    /// The tensor file and the list of skipped rows.
    pub file: Option<(&'a Path, &'a Path)>,
}

impl Counted<'_> {
    /// Prints the table, or its JSON, to stdout.
    pub fn print(&self, names: &[String], json: bool) -> Result<(), OutputError> {
        print(if json { self.json(names) } else { self.table(names) })
    }

    /// One row per genre, one row for all films; then why rows were skipped.
    fn table(&self, names: &[String]) -> String {
        let wide = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(self.what.len());
        let total = self.counts.total();
        let row = |name: &str, [train, validation, test]: [usize; 3]| {
            let sum = train + validation + test;
            let share = 100.0 * sum as f64 / total as f64;
            format!("{name:wide$}  {train:>8}  {validation:>10}  {test:>8}  {sum:>8}  {share:>6.1} %\n")
        };
        let [train, validation, test] = Split::ALL.map(Split::name);
        let head =
            format!("{:wide$}  {train:>8}  {validation:>10}  {test:>8}  {:>8}  {:>8}\n", "genre", "total", "share");
        let rule = "─".repeat(head.chars().count() - 1) + "\n";
        let mut text = head + &rule;
        for (name, &films) in names.iter().zip(&self.counts.classes) {
            text += &row(name, films);
        }
        text = text + &rule + &row(self.what, self.counts.films);
        if !self.skipped.is_empty() {
            let listed = self.file.map_or(String::new(), |(_, list)| format!(", listed in {}", list.display()));
            text += &format!("\nskipped {} rows{listed}\n", self.skipped.len());
            for (reason, rows) in skipped::count_by_reason(self.skipped) {
                text += &format!("  {reason:<12}{rows:>8}\n");
            }
        }
        text
    }

    /// The same, an object a line.
    fn json(&self, names: &[String]) -> String {
        let row = |kind: &str, name: &str, [train, validation, test]: [usize; 3]| {
            json!({
                "schema": SCHEMA, "kind": kind, "name": name,
                "train": train, "validation": validation, "test": test, "total": train + validation + test,
            })
        };
        let mut lines: Vec<serde_json::Value> =
            names.iter().zip(&self.counts.classes).map(|(name, &films)| row("genre", name, films)).collect();
        lines.push(row("all", self.what, self.counts.films));
        for (reason, rows) in skipped::count_by_reason(self.skipped) {
            lines.push(json!({ "schema": SCHEMA, "kind": "skipped", "name": reason, "total": rows }));
        }
        lines.extend(table::json_lines(self.warnings, SCHEMA));
        if let Some((out, list)) = self.file {
            let mut line = json!({ "schema": SCHEMA, "kind": "file" });
            put_path(&mut line, "out", out);
            put_path(&mut line, "skipped", list);
            lines.push(line);
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// A warning for each class that has posters in the table and none to train on.
    pub fn without_posters<'n>(&'n self, names: &'n [String]) -> impl Iterator<Item = String> + 'n {
        let untrained = names.iter().zip(&self.counts.classes).filter(|(_, films)| films[Split::Train as usize] == 0);
        untrained.map(|(name, _)| {
            format!("warning: no poster to train on is `{name}`; more posters or other --genres are needed")
        })
    }
}

/// The most notes that are printed one by one.
const MOST_NOTES: usize = 20;

/// A line for each note of what was noticed about the posters, or for the first of many.
pub fn notes(notes: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = notes.iter().take(MOST_NOTES).map(|note| format!("note: {note}")).collect();
    if notes.len() > MOST_NOTES {
        lines.push(format!("note: and so in {} more cases", notes.len() - MOST_NOTES));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::data::skipped::Reason;
    use serde_json::Value;

    const NAMES: [&str; 3] = ["Drama", "War", "Science fiction"];

    fn names() -> Vec<String> {
        NAMES.map(String::from).to_vec()
    }

    /// Sixteen films, of which ten are to train on, four for validation and two for the test.
    fn counts() -> Counts {
        Counts { classes: vec![[5, 2, 1], [0, 3, 0], [7, 0, 2]], films: [10, 4, 2] }
    }

    fn skipped() -> Vec<SkippedRow> {
        let rows = [Reason::NoGenre, Reason::BadId, Reason::NoGenre, Reason::Placeholder { films: 2 }];
        rows.into_iter().enumerate().map(|(line, reason)| SkippedRow::new(line as u64, "x", reason)).collect()
    }

    #[test]
    fn the_table_has_every_count_in_its_place() {
        let skipped = skipped();
        let file = Some((Path::new("a.safetensors"), Path::new("a.skipped.csv")));
        let counted = Counted { what: "posters", counts: counts(), skipped: &skipped, warnings: &[], file };
        let table = "\
genre               train  validation      test     total     share
───────────────────────────────────────────────────────────────────
Drama                   5           2         1         8    50.0 %
War                     0           3         0         3    18.8 %
Science fiction         7           0         2         9    56.2 %
───────────────────────────────────────────────────────────────────
posters                10           4         2        16   100.0 %
";
        let reasons = "  bad id             1\n  no genre           2\n  placeholder        1\n";
        assert_eq!(counted.table(&names()), format!("{table}\nskipped 4 rows, listed in a.skipped.csv\n{reasons}"));
        let counted = Counted { file: None, ..counted };
        assert_eq!(counted.table(&names()), format!("{table}\nskipped 4 rows\n{reasons}"));
        let counted = Counted { skipped: &[], ..counted };
        assert_eq!(counted.table(&names()), table);
    }

    #[test]
    fn short_genres_leave_room_for_what_was_counted() {
        let counts = Counts { classes: vec![[1, 0, 0]], films: [1, 0, 0] };
        let counted = Counted { what: "posters", counts, skipped: &[], warnings: &[], file: None };
        let expected = "\
genre       train  validation      test     total     share
───────────────────────────────────────────────────────────
War             1           0         0         1   100.0 %
───────────────────────────────────────────────────────────
posters         1           0         0         1   100.0 %
";
        assert_eq!(counted.table(&["War".into()]), expected);
    }

    #[test]
    fn the_lines_have_the_same_counts_under_their_names() {
        let skipped = skipped();
        let file = Some((Path::new("a.safetensors"), Path::new("a.skipped.csv")));
        let counted = Counted { what: "rows", counts: counts(), skipped: &skipped, warnings: &[], file };
        let lines = counted.json(&names());
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let row = |kind, name, [train, validation, test, total]: [u32; 4]| {
            json!({
                "schema": 1, "kind": kind, "name": name,
                "train": train, "validation": validation, "test": test, "total": total,
            })
        };
        let skipped = |name, total| json!({ "schema": 1, "kind": "skipped", "name": name, "total": total });
        let expected = [
            row("genre", NAMES[0], [5, 2, 1, 8]),
            row("genre", NAMES[1], [0, 3, 0, 3]),
            row("genre", NAMES[2], [7, 0, 2, 9]),
            row("all", "rows", [10, 4, 2, 16]),
            skipped("bad id", 1),
            skipped("no genre", 2),
            skipped("placeholder", 1),
            json!({ "schema": 1, "kind": "file", "out": "a.safetensors", "skipped": "a.skipped.csv" }),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn classes_without_a_poster_to_train_on_are_warned_of() {
        let counts = Counts { classes: vec![[5, 0, 1], [0, 3, 1], [7, 2, 0]], films: [10, 4, 2] };
        let counted = Counted { what: "posters", counts, skipped: &[], warnings: &[], file: None };
        let warnings: Vec<String> = counted.without_posters(&names()).collect();
        assert_eq!(warnings, ["warning: no poster to train on is `War`; more posters or other --genres are needed"]);
    }

    #[test]
    fn many_notes_are_cut_short() {
        let many: Vec<String> = (1..=22).map(|number| number.to_string()).collect();
        let expected = |count: usize| (1..=count).map(|number| format!("note: {number}")).collect::<Vec<_>>();
        assert_eq!(notes(&many[..0]), expected(0));
        assert_eq!(notes(&many[..20]), expected(20));
        let cut =
            |more| expected(20).into_iter().chain([format!("note: and so in {more} more cases")]).collect::<Vec<_>>();
        assert_eq!(notes(&many[..21]), cut(1));
        assert_eq!(notes(&many), cut(2));
    }
}
