//! The losses and scores of a run, epoch by epoch.

use super::best_of;
use super::chart::{Axis, Chart, Colour, Mark, Series};
use super::document::{Section, Table, details, head, number, percent};
use crate::training::run_folder::EpochRow;
use maud::html;

/// Nothing before the first epoch is done.
pub fn section(epochs: &[EpochRow]) -> Option<Section> {
    let (best, last) = (best_of(epochs)?, epochs.last()?);
    let series = |name: &str, colour, mark, value: fn(&EpochRow) -> f64| Series {
        name: name.to_owned(),
        colour,
        mark,
        points: epochs.iter().map(|row| (f64::from(row.epoch), value(row))).collect(),
    };
    let x = Axis::counted("epoch", last.epoch);
    let place = Some((f64::from(best.epoch), format!("best epoch, {}", best.epoch)));
    let highest = epochs.iter().flat_map(|row| [row.train_loss, row.validation_loss]).fold(0.0, f64::max);
    let loss = Chart {
        title: "Loss by epoch",
        told: format!(
            "The validation loss is {:.4} after the first epoch, {:.4} after the best one, epoch {}, and {:.4} after the last, epoch {}. \
             The training loss ends at {:.4}.",
            epochs[0].validation_loss,
            best.validation_loss,
            best.epoch,
            last.validation_loss,
            last.epoch,
            last.train_loss
        ),
        x: x.clone(),
        y: Axis::up_to("loss", highest),
        size: SIZE,
        series: vec![
            series("training", Colour::Series(1), Mark::Square, |row| row.train_loss),
            series("validation", Colour::Series(0), Mark::Circle, |row| row.validation_loss),
        ],
        place: place.clone(),
    };
    let scores = Chart {
        title: "Validation scores by epoch",
        told: format!(
            "The mean average precision is {:.4} after the first epoch and highest after epoch {}, {:.4}. The weighted F1 of that epoch is {:.4}; \
             the better baseline has {:.4}.",
            epochs[0].mean_average_precision,
            best.epoch,
            best.mean_average_precision,
            best.weighted_f1,
            best.coin_f1.max(best.always_yes_f1)
        ),
        x,
        y: Axis::share("score"),
        size: SIZE,
        series: vec![
            series("better baseline's weighted F1", Colour::Quiet, Mark::None, |row| {
                row.coin_f1.max(row.always_yes_f1)
            }),
            series("binary accuracy", Colour::Series(3), Mark::Triangle, |row| row.binary_accuracy),
            series("weighted F1", Colour::Series(1), Mark::Square, |row| row.weighted_f1),
            series("mAP", Colour::Series(0), Mark::Circle, |row| row.mean_average_precision),
        ],
        place,
    };
    let row = |row: &EpochRow| {
        let name = html! { (row.epoch) @if row.epoch == best.epoch { span aria-hidden="true" { " ★" } span.hidden { " (best)" } } };
        let cells = vec![
            number(row.train_loss),
            number(row.validation_loss),
            html! { (percent(row.binary_accuracy)) },
            number(row.weighted_f1),
            number(row.coin_f1.max(row.always_yes_f1)),
            number(row.mean_average_precision),
            html! { (format!("{:e}", row.learning_rate)) },
            html! { (format!("{:.1}", row.seconds)) },
        ];
        (name, cells)
    };
    let table = Table {
        caption: "Every epoch; ★ is the one with the highest mAP",
        head: &head([
            "epoch",
            "training loss",
            "validation loss",
            "accuracy",
            "weighted F1",
            "baseline",
            "mAP",
            "learning rate",
            "seconds",
        ]),
        rows: epochs.iter().map(row).collect(),
        totals: 0,
    };
    let body = html! {
        div.pair { (loss.figure()) (scores.figure()) }
        (details("The numbers", &table.markup()))
    };
    Some(Section { id: "curves".into(), title: "Learning curves".into(), body })
}

/// Of a drawing of which two stand beside each other.
const SIZE: (u32, u32) = (390, 260);
