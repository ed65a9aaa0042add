//! A page: one file with its style, its script and its data inside, which asks nothing of a network.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Serialize;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Nothing is fetched: pictures come from the page itself, and so do style and script.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'";

/// A part of a page, which its table of contents leads to.
pub struct Section {
    /// Its name in an address.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// What follows the heading.
    pub body: Markup,
}

/// The whole page. `data` is for its script.
pub fn document(title: &str, opening: &Markup, sections: &[Section], data: Option<&impl Serialize>) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(crate::training::history::VERSION);
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header {
                    div.wide {
                        p.brand { "Onesheet" }
                        (opening)
                    }
                }
                nav aria-label="On this page" {
                    ul.wide {
                        @for section in sections {
                            li { a href={ "#" (section.id) } { (section.title.split(':').next().unwrap_or_default()) } }
                        }
                    }
                }
                main #content.wide {
                    @for section in sections {
                        section aria-labelledby=(section.id) {
                            h2 id=(section.id) { (section.title) }
                            (section.body)
                        }
                    }
                }
                footer {
                    p.wide { "Written by " (crate::training::history::VERSION) "." }
                }
                @if let Some(data) = data {
                    script #data type="application/json" { (PreEscaped(json(data))) }
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        }
    };
    page.into_string()
}

/// `data` as JSON that may stand in a script element: nothing in it can end that element or begin a comment.
fn json(data: &impl Serialize) -> String {
    let text = serde_json::to_string(data).expect("keys are text and numbers are finite");
    text.replace('<', "\\u003c")
}

/// Numbers in rows and columns. What begins a row is its name.
pub struct Table<'a> {
    /// What it shows, said above it.
    pub caption: &'a str,
    /// The names of the columns, that of the names of the rows first.
    pub head: &'a [String],
    /// A name, and a cell for each other column.
    pub rows: Vec<(Markup, Vec<Markup>)>,
    /// How many of the last rows are sums or means of the others.
    pub totals: usize,
}

impl Table<'_> {
    /// The table, which scrolls by itself where it is wider than the page.
    pub fn markup(self) -> Markup {
        let Table { caption, head, rows, totals } = self;
        let body = rows.len() - totals.min(rows.len());
        html! {
            div.scroll tabindex="0" role="region" aria-label=(caption) {
                table {
                    caption { span { (caption) } }
                    thead {
                        tr { @for name in head { th scope="col" { (name) } } }
                    }
                    tbody {
                        @for (at, (name, cells)) in rows.iter().enumerate() {
                            tr class=[(at >= body).then_some("total")] {
                                th scope="row" { (name) }
                                @for cell in cells { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Names of columns.
pub fn head<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(String::from).to_vec()
}

/// What is shown when somebody asks for it.
pub fn details(summary: &str, body: &Markup) -> Markup {
    html! {
        details {
            summary { (summary) }
            (body)
        }
    }
}

/// A score, to four digits.
pub fn number(value: f64) -> Markup {
    html! { (format!("{value:.4}")) }
}

/// A score that may not exist.
pub fn optional(value: Option<f64>) -> Markup {
    value.map_or_else(|| html! { "–" }, number)
}

/// A share, in per cent.
pub fn percent(value: f64) -> String {
    format!("{:.1} %", 100.0 * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_a_script_but_its_end() {
        let data = ["</script><!-- <b>&\"", "a"];
        let text = json(&data);
        assert!(!text.contains('<'), "{text}");
        assert_eq!(serde_json::from_str::<[String; 2]>(&text).unwrap(), data);
    }

    #[test]
    fn a_table_names_its_rows_and_columns() {
        let rows = ["<b>&\"", "mean"].map(|name| (html! { (name) }, vec![number(0.25), optional(None)])).to_vec();
        let table = Table { caption: "of \"all\"", head: &head(["genre", "F1", "AP"]), rows, totals: 1 };
        let text = table.markup().into_string();
        for part in [
            "<caption><span>of &quot;all&quot;</span></caption>",
            "<th scope=\"col\">genre</th>",
            "<tr><th scope=\"row\">&lt;b&gt;&amp;&quot;</th><td>0.2500</td><td>–</td></tr>",
            "<tr class=\"total\"><th scope=\"row\">mean</th>",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
