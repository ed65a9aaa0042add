//! Table 5, which the paper has not: how well each run puts the posters in order, and its decisions at thresholds tuned for it.
//!
//! No constant wins by mAP and ROC-AUC, as always-yes does by F1. The thresholds are those with the highest F1 on the validation
//! posters: on these no genre can then be below always-yes, whatever the run; what they are worth shows on the test posters.

use super::{Column, baselines, bold_if};
use onesheet::data::Split;
use onesheet::metrics::Scores;

/// The splits that are shown: nobody asks how well a run ranks the posters that it has learned by heart.
pub const SHOWN: [Split; 2] = [Split::Validation, Split::Test];

const HEAD: [&str; 6] = ["run", "mAP", "ROC-AUC", "weighted F1", "weighted F1, tuned", "accuracy, %"];

/// Of a run: mAP, ROC-AUC, weighted F1 at its own thresholds and at tuned ones, accuracy.
fn figures(column: &Column<'_>) -> [Option<f64>; 5] {
    let Scores { unweighted, weighted, .. } = column.scores;
    let tuned = column.tuned.map(|scores| scores.weighted.f1);
    let accuracy = column.scores.binary_accuracy();
    [unweighted.average_precision, unweighted.roc_auc, Some(weighted.f1), tuned, Some(100.0 * accuracy)]
}

/// Of a rule that names every genre of every poster: its order is chance.
fn always_yes(scores: &Scores) -> [Option<f64>; 5] {
    let shares: f64 = scores.genres.iter().map(|genre| genre.counts.share()).sum();
    let share = shares / scores.genres.len() as f64;
    let f1 = scores.weighted.always_yes_f1;
    [Some(share), Some(0.5), Some(f1), Some(f1), Some(100.0 * share)]
}

/// The table with its head: a row a run and epoch, then always-yes.
pub fn rows(columns: &[Column<'_>]) -> Vec<Vec<String>> {
    let runs: Vec<_> = columns.iter().map(figures).collect();
    let best = |at: usize| runs.iter().filter_map(|figures| figures[at]).max_by(f64::total_cmp);
    let shown = |at: usize, figure: Option<f64>| match figure {
        Some(figure) if at == 4 => format!("{figure:.2}"),
        Some(figure) => format!("{figure:.4}"),
        None => "–".into(),
    };
    let mut rows = vec![HEAD.map(String::from).to_vec()];
    for (column, figures) in columns.iter().zip(&runs) {
        let mut row = vec![format!("{}, {}", column.run, column.place())];
        row.extend(figures.iter().enumerate().map(|(at, &figure)| {
            let text = shown(at, figure);
            bold_if(text == shown(at, best(at)) && figure.is_some(), text)
        }));
        rows.push(row);
    }
    let baselines = baselines(columns);
    for column in &baselines {
        let name =
            if baselines.len() == 1 { "always yes".into() } else { format!("always yes, posters of {}", column.run) };
        let figures = always_yes(column.scores).into_iter().enumerate().map(|(at, figure)| shown(at, figure));
        rows.push([name].into_iter().chain(figures).collect());
    }
    rows
}

/// The same for programs.
pub fn csv_rows(columns: &[(Split, Column<'_>)]) -> Vec<Vec<String>> {
    const NAMES: [&str; 8] =
        ["run", "place", "split", "mean_average_precision", "roc_auc", "weighted_f1", "weighted_f1_tuned", "accuracy"];
    let mut rows = vec![NAMES.map(String::from).to_vec()];
    for (split, column) in columns {
        let mut figures = figures(column);
        figures[4] = Some(column.scores.binary_accuracy());
        let mut row = vec![column.run.to_owned(), column.place(), split.name().to_owned()];
        row.extend(figures.map(|figure| figure.map_or(String::new(), |figure| figure.to_string())));
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_each_figure_is_bold_and_always_yes_stands_below() {
        // Two genres: of the first 2 of 4 posters are, of the second 3.
        let targets = [1, 1, 1, 0, 0, 1, 0, 1];
        let right = Scores::new(&[0.9, 0.9, 0.8, 0.1, 0.1, 0.8, 0.2, 0.7], &targets, &[0.5, 0.5]);
        let yes = Scores::new(&[0.9; 8], &targets, &[0.5, 0.5]);
        let column = |run, scores, tuned| Column { run, epoch: Some(1), step: Some(9), scores, tuned };
        let columns = [column("a", &right, Some(&right)), column("b", &yes, None)];
        let found = super::super::table(&rows(&columns));
        let expected = "\
| run | mAP | ROC-AUC | weighted F1 | weighted F1, tuned | accuracy, % |
| --- | ---: | ---: | ---: | ---: | ---: |
| a, epoch 1 | **1.0000** | **1.0000** | **1.0000** | **1.0000** | **100.00** |
| b, epoch 1 | 0.6250 | 0.5000 | 0.7810 | – | 62.50 |
| always yes | 0.6250 | 0.5000 | 0.7810 | 0.7810 | 62.50 |
";
        assert_eq!(found, expected);
        let told = csv_rows(&[(Split::Test, column("b", &yes, None))]);
        assert_eq!(told[1], ["b", "epoch 1", "test", "0.625", "0.5", &yes.weighted.f1.to_string(), "", "0.625"]);
    }
}
