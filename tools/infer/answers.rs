//! What `infer` prints of a poster.

use crate::answering::answers::{Answered, object, rounded};
use crate::answering::{Answering, Rule};
use crate::console::put_path;
use onesheet::files::quoted;
use std::path::Path;

/// What is printed for people: a row a genre under the poster's name, and where it is drawn.
pub fn list(path: &Path, genres: &[Answered<'_>]) -> String {
    let wide = genres.iter().map(|answered| answered.genre.chars().count()).max().unwrap_or(0);
    let mut text = format!("{}\n", path.display());
    for answered in genres {
        let Answered { genre, probability, .. } = answered;
        let bar = "▇".repeat((20.0 * probability).round() as usize);
        let mark = if answered.is_named() { "✓" } else { " " };
        text += &format!("  {mark} {genre:wide$}  {probability:.4}  {bar}\n");
    }
    let pictures = genres.iter().filter_map(|answered| Some((answered.genre, answered.picture.as_ref()?)));
    for (genre, picture) in pictures {
        text += &format!("  where it sees {genre}: {}\n", quoted(picture));
    }
    text + "\n"
}

/// A line of `--json`.
pub fn line(path: &Path, genres: &[Answered<'_>], device: &str, answering: &Answering, rule: &Rule) -> String {
    let mut line = object(genres, device, answering, rule);
    put_path(&mut line, "poster", path);
    format!("{line}\n")
}

/// The first columns of `--csv`; behind them each genre in the model's order.
pub const CSV_HEAD: [&str; 2] = ["poster", "genres"];

/// A row of `--csv`: the genres that are named lie in one cell, the most probable first, as in Kaggle's tables.
pub fn cells(path: &Path, genres: &[Answered<'_>], row: &[f32]) -> Vec<String> {
    let named: Vec<&str> =
        genres.iter().filter(|answered| answered.is_named()).map(|answered| answered.genre).collect();
    let probabilities = row.iter().map(|&probability| rounded(probability).to_string());
    [path.display().to_string(), named.join("|")].into_iter().chain(probabilities).collect()
}

/// A line of CSV, its cells quoted where they must be.
pub fn csv_line(cells: Vec<String>) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells)?;
    Ok(String::from_utf8(writer.into_inner()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answering::answers::ranked;
    use clap::Parser;
    use serde_json::{Value, json};

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        answering: Answering,
    }

    fn genres() -> Vec<String> {
        ["Western", "Drama", "Film noir", "War"].map(String::from).to_vec()
    }

    fn thresholds() -> Vec<f64> {
        vec![0.5, f64::from(0.3f32), f64::from(0.3f32.next_up()), 0.9]
    }

    #[test]
    fn the_row_has_what_is_named_in_one_cell_and_every_probability_in_the_models_order() {
        let (names, thresholds) = (genres(), thresholds());
        let row = [0.123_456_79, 0.3, 0.3, 0.95];
        let genres = ranked(&names, &thresholds, &row);
        let line = csv_line(cells(Path::new("a, \"b\".png"), &genres, &row)).unwrap();
        assert_eq!(line, "\"a, \"\"b\"\".png\",War|Drama,0.1234568,0.3,0.3,0.95\n");
        let none = ranked(&names, &thresholds, &[0.0; 4]);
        assert_eq!(csv_line(cells(Path::new("a.png"), &none, &[0.0; 4])).unwrap(), "a.png,,0,0,0,0\n");
    }

    #[test]
    fn the_list_has_a_row_a_genre_under_the_posters_name() {
        let expected = "\
posters/a b.png
  ✓ War        0.9500  ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇
  ✓ Drama      0.3000  ▇▇▇▇▇▇
    Film noir  0.3000  ▇▇▇▇▇▇
    Western    0.0200\x20\x20

";
        let (names, thresholds) = (genres(), thresholds());
        let genres = ranked(&names, &thresholds, &[0.02, 0.3, 0.3, 0.95]);
        assert_eq!(list(Path::new("posters/a b.png"), &genres), expected);
    }

    #[test]
    fn the_line_has_the_same_as_json() {
        let (names, thresholds) = (genres(), vec![0.5, 0.25, 0.375, 0.9]);
        let genres = ranked(&names, &thresholds, &[0.123_456_79, 0.3, 0.3, 0.95]);
        let answering = Words::parse_from(["infer", "--calibrated"]).answering;
        let rule = Rule { thresholds: thresholds.clone(), origin: "tuned", temperature: 1.25 };
        let line = line(Path::new("a.png"), &genres, "a device", &answering, &rule);
        assert_eq!(line.matches('\n').count(), 1);
        let expected = json!({
            "schema": 1, "kind": "poster", "device": "a device", "poster": "a.png", "thresholds": "tuned", "calibrated": true,
            "temperature": 1.25, "mirror": false,
            "genres": [
                { "genre": "War", "probability": 0.95, "threshold": 0.9, "named": true },
                { "genre": "Drama", "probability": 0.3, "threshold": 0.25, "named": true },
                { "genre": "Film noir", "probability": 0.3, "threshold": 0.375, "named": false },
                { "genre": "Western", "probability": 0.1234568, "threshold": 0.5, "named": false },
            ],
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
    }
}
