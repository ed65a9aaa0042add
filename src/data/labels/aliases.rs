//! Other names of genres, from a table that the user keeps.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use super::encoding::{decode, text};
use super::error::LabelError;
use super::records::{Cutter, Records, head};
use crate::data::genres::spelling_key;
use crate::files;

/// The largest table of aliases, in bytes.
const LARGEST: u64 = 1 << 20;

/// Other names of genres.
///
/// A table of aliases is a CSV with the columns `alias,genre`:
///
/// ```text
/// alias,genre
/// Science Fiction,Sci-Fi
/// Romcom,Romance
/// ```
///
/// An alias also stands for the spellings that differ from it in nothing but case, blanks, `-` and `_`.
#[derive(Clone, Debug)]
pub struct Aliases {
    /// The genre of each alias, by the alias's spelling key.
    genres: HashMap<String, String>,
    digest: blake3::Hash,
}

impl Aliases {
    /// Reads the table of aliases at `path`.
    ///
    /// # Errors
    /// [`LabelError::Aliases`], with the line that cannot be used if that is it: one that is not two names, an alias of two
    /// genres, a genre that is itself an alias of another.
    pub fn read(path: &Path) -> Result<Aliases, LabelError> {
        let failed = |error: std::io::Error| LabelError::Aliases { path: path.to_owned(), why: error.to_string() };
        let mut bytes = Vec::new();
        files::open(path).map_err(failed)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > LARGEST {
            return Err(LabelError::Aliases { path: path.to_owned(), why: format!("larger than {LARGEST} bytes") });
        }
        Aliases::parse(&bytes).map_err(|why| LabelError::Aliases { path: path.to_owned(), why })
    }

    /// Reads the table of aliases `bytes`.
    fn parse(bytes: &[u8]) -> Result<Aliases, String> {
        let table = decode(bytes);
        let header = head(&table);
        let mut cutter = Cutter::new(b',');
        let is_header = |cells: &[&[u8]]| cells.iter().map(|cell| cell.trim_ascii()).eq([&b"alias"[..], b"genre"]);
        if cutter.fill(header, 0).is_err() || !is_header(&cutter.cells()) {
            return Err("its first line should be `alias,genre`".to_owned());
        }
        let mut genres: HashMap<String, (String, u64)> = HashMap::new();
        let mut records = Records::new(table.get(header.len() + 1..).unwrap_or_default(), b',', 2);
        while let Some((line, cells)) = records.next() {
            let cells = cells.map_err(|why| format!("line {line}: {why}"))?;
            let cells: Vec<String> = cells.into_iter().map(|cell| text(cell).trim().to_owned()).collect();
            let (alias, genre) = match &cells[..] {
                [] => continue,
                [alias, genre] if !alias.is_empty() && !genre.is_empty() => (alias, genre),
                _ => return Err(format!("line {line} should be an alias and a genre, `Romcom,Romance`")),
            };
            let (first, first_line) = genres.entry(spelling_key(alias)).or_insert_with(|| (genre.clone(), line));
            if first != genre {
                return Err(format!("line {line} makes `{alias}` `{genre}`, but line {first_line} makes it `{first}`"));
            }
        }
        let mut named: Vec<&(String, u64)> = genres.values().collect();
        named.sort_by_key(|(_, line)| *line);
        for (genre, line) in named {
            if let Some((other, _)) = genres.get(&spelling_key(genre)).filter(|(other, _)| other != genre) {
                return Err(format!(
                    "`{genre}` on line {line} is itself an alias, of `{other}`; name that genre there"
                ));
            }
        }
        let genres = genres.into_iter().map(|(alias, (genre, _))| (alias, genre)).collect();
        Ok(Aliases { genres, digest: blake3::hash(bytes) })
    }

    /// The genre that `name` is an alias of.
    pub(super) fn genre(&self, name: &str) -> Option<&String> {
        self.genres.get(&spelling_key(name))
    }

    /// A digest of the table's bytes.
    pub fn digest(&self) -> blake3::Hash {
        self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_stands_for_its_spellings() {
        let aliases =
            Aliases::parse("\u{feff}alias, genre\nScience Fiction,Sci-Fi\r\nscifi,Sci-Fi\n".as_bytes()).unwrap();
        for name in ["science fiction", "Science-Fiction", "SCI-FI"] {
            assert_eq!(aliases.genre(name).unwrap(), "Sci-Fi");
        }
        assert_eq!(aliases.genre("Fiction"), None);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_line() {
        for (table, why) in [
            ("", "its first line should be `alias,genre`"),
            ("Romcom,Romance\n", "its first line should be `alias,genre`"),
            ("alias,genre\nA,B\nC\n", "line 3 should be"),
            ("alias,genre\nA,B,C\n", "line 2 should be"),
            ("alias,genre\nA,\"B\n", "line 2: a quote that is never closed"),
            ("alias,genre\nA,\n", "line 2 should be"),
            ("alias,genre\nA,B\n\na,C\n", "line 4 makes `a` `C`, but line 2 makes it `B`"),
            ("alias,genre\nA,B\nB,C\n", "`B` on line 2 is itself an alias, of `C`"),
        ] {
            let found = Aliases::parse(table.as_bytes()).unwrap_err();
            assert!(found.starts_with(why), "{table:?}: {found}");
        }
    }
}
