//! The flags that say how a label table is read, and what is told of it.

use std::path::{Path, PathBuf};

use clap::Args;
use onesheet::data::labels::{Aliases, GenreSeparator, Options, Warning, is_large};
use onesheet::data::posters::{Links, PosterFolder};
use onesheet::data::prepare::PrepareError;
use onesheet::files::quoted;
use serde_json::{Value, json};

use crate::exit::Usage;

/// How the label table is read, where it does not say so itself.
#[derive(Debug, Args)]
pub struct TableArgs {
    /// The column of the ids; else imdbId, tconst, Id, filename or the like.
    #[arg(long, value_name = "NAME")]
    id_column: Option<String>,
    /// The column of the genres; else Genre, genres, labels or the like, or a column of 0 and 1 for each genre.
    #[arg(long, value_name = "NAME")]
    genre_column: Option<String>,
    /// What separates genres in a cell: `/`, several characters, or `none`. Else the column shows it.
    #[arg(long, value_name = "CHARS")]
    genre_separator: Option<GenreSeparator>,
    /// Other names of genres: a CSV `alias,genre`.
    #[arg(long, value_name = "FILE")]
    aliases: Option<PathBuf>,
}

impl TableArgs {
    /// How to read the table at `labels`, with `posters` where they are known, found as `links` says.
    pub fn options(&self, labels: &Path, posters: Option<&Path>, links: Links) -> anyhow::Result<Options> {
        let columns = self.id_column.is_some() || self.genre_column.is_some() || self.genre_separator.is_some();
        if labels.is_dir() && columns {
            let why = "--labels is a folder; --id-column, --genre-column and --genre-separator are for tables";
            return Err(Usage(why.to_owned()).into());
        }
        let aliases = self.aliases.as_deref().map(Aliases::read).transpose().map_err(PrepareError::Labels)?;
        let wanted = match posters.filter(|_| is_large(labels)) {
            Some(folder) => {
                let failed = |source| PrepareError::Folder { folder: folder.to_owned(), source };
                Some(PosterFolder::index(folder, links).map_err(failed)?.ids().cloned().collect())
            }
            None => None,
        };
        Ok(Options {
            id_column: self.id_column.clone(),
            genre_column: self.genre_column.clone(),
            genre_separator: self.genre_separator.clone(),
            aliases,
            wanted,
        })
    }

    /// The flags that were given, as they are typed.
    pub fn typed(&self) -> String {
        let separator = self.genre_separator.as_ref().map(|separator| separator.flag());
        let flag = |name: &str, value: &str| format!(" --{name} {}", quoted(Path::new(value)));
        let flags = [
            self.id_column.as_ref().map(|name| flag("id-column", name)),
            self.genre_column.as_ref().map(|name| flag("genre-column", name)),
            separator.map(|letters| format!(" --genre-separator {letters}")),
            self.aliases.as_ref().map(|path| format!(" --aliases {}", quoted(path))),
        ];
        flags.into_iter().flatten().collect()
    }
}

/// The lines of `--json` for `warnings`: the warning, and of merged spellings each.
pub fn json_lines(warnings: &[Warning], schema: u32) -> Vec<Value> {
    let mut lines = Vec::new();
    for warning in warnings {
        lines.push(json!({
            "schema": schema, "kind": "warning", "name": warning.kind(), "text": warning.to_string(),
        }));
        let Warning::Merged(genres) = warning else { continue };
        for merged in genres {
            for (spelling, rows) in &merged.spellings {
                lines.push(json!({
                    "schema": schema, "kind": "merged", "name": spelling, "into": merged.genre, "total": rows,
                }));
            }
        }
    }
    lines
}
