//! The page that posters are dropped on.

use super::body::{KINDS, MOST_POSTERS};
use super::web::Web;
use maud::{DOCTYPE, html};
use onesheet::training::history::VERSION;

/// What the page of a run looks like, and what only this page has.
pub const STYLE: &str = concat!(include_str!("../../src/report/page.css"), include_str!("page.css"));

/// What the page does.
pub const SCRIPT: &str = include_str!("page.js");

/// The page.
pub fn html(web: &Web) -> String {
    let Web { network, image_size, genres, device, limits, .. } = web;
    let genres = genres.join(", ");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(VERSION);
                title { "Onesheet: the genres of a film from its poster" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="page.css";
                script src="page.js" defer {}
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header {
                    div.wide {
                        p.brand { "Onesheet" }
                        h1 { "What kind of film is it?" }
                        p.lede { "The genres of a film from its poster: " (genres) "." }
                    }
                }
                main #content.wide {
                    section aria-labelledby="ask" {
                        h2 #ask { "Posters" }
                        div #drop data-most-bytes=(limits.max_bytes) {
                            label for="files" { "Drop pictures here, paste them, or pick them" }
                            input #files type="file" multiple accept=(KINDS.join(",")) aria-describedby="kinds";
                            p #kinds { "JPEG, PNG or WebP, up to " (megabytes(limits.max_bytes)) " each." }
                        }
                        p #progress role="status" aria-live="polite" {}
                        noscript { p { "This page needs its script; programs ask /answers, as /openapi.json describes it." } }
                    }
                    section #results aria-labelledby="answers" hidden {
                        h2 #answers { "Genres" }
                        p { "The line across a bar is the genre's threshold. A genre that reaches it is named: its name is bold and has a tick." }
                        p.buttons { button #clear type="button" { "Remove all" } }
                        ul #posters {}
                    }
                }
                footer {
                    p.wide {
                        (network) " at " (image_size) "×" (image_size) " pixels. Computed by " (device) ". Pictures are not kept. "
                        "Programs ask the same as " a href="openapi.json" { "openapi.json" } " describes it, up to " (MOST_POSTERS)
                        " posters at once. " (VERSION) "."
                    }
                }
            }
        }
    };
    page.into_string()
}

/// Bytes for people, in the units in which the limits are given.
fn megabytes(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{:.1} kB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MB", bytes as f64 / f64::from(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        assert_eq!([512, 3 << 19, 20 << 20].map(megabytes), ["0.5 kB", "1.5 MB", "20.0 MB"]);
    }
}
