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

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::data::labels::Merged;

    #[test]
    fn flags_are_typed_again_as_they_were_given() {
        let none = TableArgs { id_column: None, genre_column: None, genre_separator: None, aliases: None };
        assert_eq!(none.typed(), "");
        let all = TableArgs {
            id_column: Some("film id".into()),
            genre_column: Some("mood".into()),
            genre_separator: Some("|".parse().unwrap()),
            aliases: Some("other names.csv".into()),
        };
        let expected = " --id-column 'film id' --genre-column mood --genre-separator '|' --aliases 'other names.csv'";
        assert_eq!(all.typed(), expected);
    }

    #[test]
    fn each_flag_of_columns_is_refused_beside_a_folder_and_aliases_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let none = || TableArgs { id_column: None, genre_column: None, genre_separator: None, aliases: None };
        let options = |args: TableArgs| args.options(folder.path(), None, Links::Inside);
        for args in [
            TableArgs { id_column: Some("a".into()), ..none() },
            TableArgs { genre_column: Some("a".into()), ..none() },
            TableArgs { genre_separator: Some(",".parse().unwrap()), ..none() },
        ] {
            let refused = options(args).err().unwrap();
            assert!(refused.is::<Usage>(), "{refused}");
        }
        let aliases = folder.path().join("aliases.csv");
        std::fs::write(&aliases, "alias,genre\nA,B\n").unwrap();
        assert!(options(none()).unwrap().aliases.is_none());
        assert!(options(TableArgs { aliases: Some(aliases), ..none() }).unwrap().aliases.is_some());
    }

    #[test]
    fn each_warning_is_a_line_and_each_merged_spelling_another() {
        let merged = |genre: &str, spellings: &[(&str, usize)]| Merged {
            genre: genre.into(),
            spellings: spellings.iter().map(|&(spelling, rows)| (spelling.into(), rows)).collect(),
        };
        let warnings = [
            Warning::MoreCells { rows: 3, line: 7 },
            Warning::Merged(vec![merged("Sci-Fi", &[("SciFi", 4), ("sci fi", 1)]), merged("War", &[("WAR", 2)])]),
        ];
        let spelling =
            |name, into, total| json!({ "schema": 5, "kind": "merged", "name": name, "into": into, "total": total });
        let expected = [
            json!({ "schema": 5, "kind": "warning", "name": "more cells", "text": warnings[0].to_string() }),
            json!({ "schema": 5, "kind": "warning", "name": "merged", "text": warnings[1].to_string() }),
            spelling("SciFi", "Sci-Fi", 4),
            spelling("sci fi", "Sci-Fi", 1),
            spelling("WAR", "War", 2),
        ];
        assert_eq!(json_lines(&warnings, 5), expected);
    }
}
