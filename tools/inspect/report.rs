//! What `inspect` says of a file of posters.

use crate::console::put_path;
use onesheet::data::Split;
use onesheet::data::inspection::{Group, Inspection};
use onesheet::data::tensor_file::TensorFile;
use serde_json::{Value, json};

/// The version of the lines that `--json` prints.
const SCHEMA: u32 = 1;

/// Most groups, and posters of a group, that are listed for people.
const LISTED: usize = 10;

/// The widest table of genres that come together.
const MOST_TOGETHER: usize = 12;

/// For people.
pub fn text(file: &TensorFile, inspection: &Inspection) -> String {
    let Inspection { repeated, alike, placeholders, of_one_colour, .. } = inspection;
    let mut text = head(file, inspection) + "\n" + &genres(file, inspection);
    if (2..=MOST_TOGETHER).contains(&file.genres().len()) {
        text += &format!("\nposters that have both genres\n{}", together(file, inspection));
    }
    for (what, groups) in [
        ("films with more than one poster", repeated),
        ("pictures that are there more than once", alike),
        ("pictures that stand for many films, as placeholders do", placeholders),
    ] {
        text += &format!("\n{what}: {}\n{}", groups.len(), listed(file, groups));
    }
    text += &format!("\nposters of almost one colour: {}\n", of_one_colour.len());
    for &at in of_one_colour.iter().take(LISTED) {
        text += &format!("  {}\n", named(file, at));
    }
    text += &more(of_one_colour.len());
    text + &match inspection.leaks() {
        0 => "\nno film and no picture is in more than one split\n".to_owned(),
        1 => "\n1 film or picture is in more than one split, and tests what was trained on\n".to_owned(),
        leaks => format!("\n{leaks} films and pictures are in more than one split, and test what was trained on\n"),
    }
}

fn head(file: &TensorFile, inspection: &Inspection) -> String {
    let (path, size) = (file.path().display(), file.size());
    let mut text = format!(
        "{path}: {} posters of {} films, {size}×{size} pixels, {} genres\n",
        file.len(),
        inspection.films,
        file.genres().len()
    );
    // A digest says nothing to people.
    let told = file.provenance().iter().filter(|(key, _)| !key.ends_with("_blake3"));
    let made: Vec<String> = told.map(|(key, value)| format!("{key} {value}")).collect();
    if !made.is_empty() {
        text += &format!("made with {}\n", made.join(", "));
    }
    let counts = inspection.genres_of_a_poster.iter().enumerate().filter(|(_, posters)| **posters > 0);
    let counts: Vec<String> = counts.map(|(genres, posters)| format!("{posters} have {genres}")).collect();
    text + &format!("genres of a poster: {}\n", counts.join(", "))
}

fn genres(file: &TensorFile, inspection: &Inspection) -> String {
    let count =
        |posters: u32, of: u32| format!("{posters} ({:.1} %)", 100.0 * f64::from(posters) / f64::from(of.max(1)));
    let all: u32 = inspection.splits.iter().sum();
    let mut rows = vec![["genre", "train", "validation", "test", "all"].map(String::from).to_vec()];
    for (genre, splits) in file.genres().iter().zip(&inspection.genres) {
        let parts = splits.iter().zip(&inspection.splits).map(|(&posters, &of)| count(posters, of));
        rows.push([genre.clone()].into_iter().chain(parts).chain([count(splits.iter().sum(), all)]).collect());
    }
    let posters = inspection.splits.iter().chain([&all]).map(u32::to_string);
    rows.push(["posters".to_owned()].into_iter().chain(posters).collect());
    table(&rows)
}

fn together(file: &TensorFile, inspection: &Inspection) -> String {
    let mut rows = vec![[String::new()].into_iter().chain(file.genres().iter().cloned()).collect::<Vec<_>>()];
    for (genre, counts) in file.genres().iter().zip(&inspection.together) {
        rows.push([genre.clone()].into_iter().chain(counts.iter().map(u32::to_string)).collect());
    }
    table(&rows)
}

/// Cells in columns, the first of which is of words.
fn table(rows: &[Vec<String>]) -> String {
    let wide = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(wide).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(at, (cell, &wide))| match at {
            0 => format!("{cell:wide$}"),
            _ => format!("  {cell:>wide$}"),
        });
        text += &format!("{}\n", cells.collect::<String>());
    }
    text
}

fn named(file: &TensorFile, at: u32) -> String {
    format!("{} ({})", file.ids()[at as usize], file.split(at as usize).name())
}

fn listed(file: &TensorFile, groups: &[Group]) -> String {
    // Leaks first.
    let mut sorted: Vec<&Group> = groups.iter().collect();
    sorted.sort_by_key(|group| !group.is_leak());
    let mut text = String::new();
    for group in sorted.iter().take(LISTED) {
        let posters = group.posters.iter().take(LISTED).map(|&at| named(file, at));
        let posters: Vec<String> = posters.collect();
        let rest = group.posters.len() - posters.len();
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let leak = if group.is_leak() { "  ← a leak" } else { "" };
        text += &format!("  {}{rest}{leak}\n", posters.join(", "));
    }
    text + &more(groups.len())
}

fn more(count: usize) -> String {
    if count > LISTED { format!("  and {} more; --json lists them all\n", count - LISTED) } else { String::new() }
}

/// For programs, an object a line.
pub fn json(file: &TensorFile, inspection: &Inspection) -> String {
    let by_split = |counts: &[u32; 3]| -> Value {
        Split::ALL.iter().zip(counts).map(|(split, count)| (split.name().to_owned(), json!(count))).collect()
    };
    let mut head = json!({
        "schema": SCHEMA, "kind": "file", "size": file.size(), "posters": by_split(&inspection.splits),
        "films": inspection.films, "genres_of_a_poster": inspection.genres_of_a_poster,
        "made_with": file.provenance(), "leaks": inspection.leaks(),
    });
    put_path(&mut head, "data", file.path());
    let mut lines = vec![head];
    for (at, genre) in file.genres().iter().enumerate() {
        let others = file.genres().iter().zip(&inspection.together[at]);
        let others: Value = others.map(|(other, count)| (other.clone(), json!(count))).collect();
        let posters = by_split(&inspection.genres[at]);
        lines
            .push(json!({ "schema": SCHEMA, "kind": "genre", "genre": genre, "posters": posters, "together": others }));
    }
    let poster =
        |&at: &u32| json!({ "place": at, "id": file.ids()[at as usize], "split": file.split(at as usize).name() });
    for (kind, groups) in [
        ("repeated_film", &inspection.repeated),
        ("alike", &inspection.alike),
        ("placeholder", &inspection.placeholders),
    ] {
        for group in groups {
            let posters: Vec<Value> = group.posters.iter().map(poster).collect();
            lines.push(json!({
                "schema": SCHEMA, "kind": kind, "films": group.films, "leak": group.is_leak(), "posters": posters,
            }));
        }
    }
    let plain: Vec<Value> = inspection.of_one_colour.iter().map(poster).collect();
    lines.push(json!({ "schema": SCHEMA, "kind": "of_one_colour", "posters": plain }));
    lines.iter().map(|line| format!("{line}\n")).collect()
}
