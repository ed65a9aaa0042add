//! The table in which thresholds are tried out: the page's script computes it again from the answers.

use super::Answered;
use super::document::Section;
use crate::metrics::{Averages, ConfusionCounts};
use maud::{Markup, html};

pub fn section(answered: &Answered<'_>) -> Section {
    let (about, scores) = (&answered.kept.about, &answered.scores);
    let caption = "Scores at the thresholds that are set here";
    let body = html! {
        p {
            "A genre is named where its probability is at least its threshold. Move a threshold, with the mouse or the arrow keys, and the scores on the "
            (scores.posters) " validation posters are computed anew. Tuned thresholds have the highest F1 on these very posters, so on others they \
             promise more than they keep."
        }
        p.buttons hidden {
            button type="button" data-set="thresholds" { "The model's thresholds" }
            " "
            button type="button" data-set="tuned" { "Tuned thresholds" }
        }
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table #thresholds-table {
                caption { span { (caption) } }
                thead {
                    tr {
                        @for name in ["genre and threshold", "F1", "precision", "recall", "named", "of the genre", "coin F1", "yes F1"] {
                            th scope="col" { (name) }
                        }
                    }
                }
                tbody {
                    @for (at, name) in about.genres.iter().enumerate() {
                        (genre(at, name, about.thresholds[at], &scores.genres[at].counts))
                    }
                    (mean("weighted mean", "weighted", &scores.weighted))
                    (mean("plain mean", "macro", &scores.unweighted))
                }
            }
        }
        p {
            "Every genre of a poster right: " output #exact-match { (format!("{:.2} %", 100.0 * scores.exact_match)) }
            ". Decisions that are right: " output #binary-accuracy { (format!("{:.2} %", 100.0 * scores.binary_accuracy())) } "."
        }
    };
    Section { id: "thresholds".into(), title: "Thresholds".into(), body }
}

fn genre(at: usize, name: &str, threshold: f64, counts: &ConfusionCounts) -> Markup {
    let id = format!("threshold-{at}");
    let cell = |score: &str, value: f64| html! { td data-score=(score) { (format!("{value:.4}")) } };
    html! {
        tr data-genre=(at) {
            th scope="row" {
                label for=(id) { (name) }
                span.slider {
                    input id=(id) type="range" min="0" max="1" step="0.01" value=(threshold) hidden;
                    output for=(id) { (format!("{threshold:.3}")) }
                }
            }
            (cell("f1", counts.f1()))
            (cell("precision", counts.precision()))
            (cell("recall", counts.recall()))
            td data-score="named" { (counts.true_positives + counts.false_positives) }
            td { (counts.support()) }
            td { (format!("{:.4}", counts.coin_f1())) }
            td { (format!("{:.4}", counts.always_yes_f1())) }
        }
    }
}

fn mean(name: &str, id: &str, averages: &Averages) -> Markup {
    let cell = |score: &str, value: f64| html! { td data-score=(score) { (format!("{value:.4}")) } };
    html! {
        tr.total data-mean=(id) {
            th scope="row" { (name) }
            (cell("f1", averages.f1))
            (cell("precision", averages.precision))
            (cell("recall", averages.recall))
            td {} td {}
            td { (format!("{:.4}", averages.coin_f1)) }
            td { (format!("{:.4}", averages.always_yes_f1)) }
        }
    }
}
