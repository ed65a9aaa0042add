//! Tables too large to be read whole, such as IMDb's `title.basics.tsv` with its ten million titles: of these the rows of
//! some films only.
//!
//! What is left of such a table is a table like any other, in which the other rows are blank lines, so that line numbers stay
//! right. A row of it is one line.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::Options;
use super::encoding::{decode, is_utf16, text};
use super::error::LabelError;
use super::header::Header;
use super::records::{Cutter, LONGEST};
use crate::data::films::FilmId;

/// The header of `table`, which comes from `path`, and the rows of the films `wanted`, with a digest of all of it. `None` for UTF-16, which has no
/// lines of bytes.
pub(super) fn read_wanted(
    path: &Path,
    table: impl Read,
    options: &Options,
    wanted: &HashSet<FilmId>,
) -> Result<Option<(Vec<u8>, blake3::Hash)>, LabelError> {
    let failed = |source| LabelError::Read { path: path.to_owned(), source };
    let mut table = BufReader::with_capacity(1 << 20, table);
    let mut digest = blake3::Hasher::new();
    let mut line = Vec::new();
    next_line(&mut table, &mut line, &mut digest).map_err(failed)?;
    if is_utf16(&line) {
        return Ok(None);
    }
    let mut kept = decode(&line).into_owned();
    let header = Header::read(path, &kept, options)?;
    let (mut cutter, width) = (Cutter::new(header.separator), header.names.len());
    while next_line(&mut table, &mut line, &mut digest).map_err(failed)? {
        let row = line.strip_suffix(b"\n").unwrap_or(&line);
        let is_wanted = cutter.fill(row, width).is_ok()
            && cutter.cells().get(header.id).is_some_and(|cell| {
                let cell = text(cell);
                FilmId::of_file(cell.trim()).or_else(|| FilmId::parse(&cell)).is_some_and(|id| wanted.contains(&id))
            });
        if is_wanted {
            kept.extend_from_slice(row);
        }
        kept.push(b'\n');
    }
    Ok(Some((kept, digest.finalize())))
}

/// Reads the next line with its line break; of one that is too long to be a row only the beginning, which is too long as well.
/// `false` at the end of the table.
fn next_line(table: &mut impl BufRead, line: &mut Vec<u8>, digest: &mut blake3::Hasher) -> io::Result<bool> {
    line.clear();
    loop {
        let block = table.fill_buf()?;
        let end = block.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let part = &block[..end.unwrap_or(block.len())];
        digest.update(part);
        let room = (LONGEST + 2).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let read = part.len();
        table.consume(read);
        if end.is_some() || read == 0 {
            return Ok(!line.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_other_films_become_blank_lines() {
        let long = "x".repeat(3 << 20);
        let table = format!(
            "\u{feff}tconst\tgenres\ntt0000001\tDrama\ntt0000002\t{long}\n{long}\ntt0000003\tWar\r\ntt4\tWar\n2\tWar"
        );
        let wanted = ["1", "2", "3"].map(|id| FilmId::parse(id).unwrap()).into();
        let read = |table: &[u8]| read_wanted(Path::new("table"), table, &Options::default(), &wanted).unwrap();
        let (kept, digest) = read(table.as_bytes()).unwrap();
        let kept = String::from_utf8(kept).unwrap();
        assert_eq!(kept, "tconst\tgenres\ntt0000001\tDrama\n\n\ntt0000003\tWar\r\n\n2\tWar\n");
        assert_eq!(digest, blake3::hash(table.as_bytes()));
        assert!(read(b"\xff\xfeI\0").is_none());
    }
}
