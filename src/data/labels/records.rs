//! Cutting a table into rows, and rows into cells.
//!
//! A row is one line, or several where a quoted cell holds line breaks. A quote that is left open must not swallow the
//! table, so a row goes over several lines only if that is certain: every quoted cell ends before a separator or a line's
//! end, the row has the header's number of cells, and it has neither more than [`MOST_LINES`] lines nor more than [`LONGEST`]
//! bytes. Where it is not, the quote costs its own line.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};

/// The longest row that is read, in bytes; longer ones are skipped.
pub(super) const LONGEST: usize = 64 << 10;
/// The most lines of a row.
const MOST_LINES: u64 = 64;

/// The cells of a row, or why it has none.
pub(super) type Cells<'a> = Result<Vec<&'a [u8]>, String>;

/// The rows of a table, one after the other, with the number of each one's first line.
pub(super) struct Records<'a> {
    rest: &'a [u8],
    /// The number of the line that `rest` begins with.
    line: u64,
    /// How many cells the header has.
    width: usize,
    cutter: Cutter,
}

impl<'a> Records<'a> {
    /// The rows of `rest`, which begins on the line after the header; the header has `width` cells.
    pub(super) fn new(rest: &'a [u8], separator: u8, width: usize) -> Records<'a> {
        Records { rest, line: 2, width, cutter: Cutter::new(separator) }
    }

    /// The next row.
    pub(super) fn next(&mut self) -> Option<(u64, Cells<'_>)> {
        if self.rest.is_empty() {
            return None;
        }
        let first = self.line;
        let (mut row, mut lines) = (head(self.rest), 1);
        let mut filled = self.cutter.fill(row, self.width);
        if filled.is_err()
            && row.len() <= LONGEST
            && let Some(over) = over_lines(self.rest, self.cutter.separator, self.width)
        {
            (row, lines) = over;
            filled = self.cutter.fill(row, self.width);
        }
        self.rest = self.rest.get(row.len() + 1..).unwrap_or_default();
        self.line += lines;
        Some((first, filled.map(|()| self.cutter.cells())))
    }
}

/// The first line of `text`, without its line break.
pub(super) fn head(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len());
    &text[..end]
}

/// The row that `text` begins with, if it goes over several lines and certainly so, and the number of its lines.
fn over_lines(text: &[u8], separator: u8, width: usize) -> Option<(&[u8], u64)> {
    let (mut at, mut lines) = (0, 1);
    for cell in 1..=width {
        if text.get(at) == Some(&b'"') {
            at += 1;
            loop {
                match (text.get(at)?, text.get(at + 1)) {
                    (b'"', Some(b'"')) => at += 1,
                    (b'"', _) => break,
                    (b'\n', _) => lines += 1,
                    _ => {}
                }
                at += 1;
                if lines > MOST_LINES || at > LONGEST {
                    return None;
                }
            }
            at += 1;
        } else {
            at += text[at..].iter().position(|&byte| byte == separator || byte == b'\n').unwrap_or(text.len() - at);
        }
        match text[at..] {
            [byte, ..] if byte == separator => at += 1,
            [] | [b'\n', ..] | [b'\r', b'\n', ..] if cell == width => {
                at += usize::from(text[at..].starts_with(b"\r"));
                return (at <= LONGEST).then(|| (&text[..at], lines));
            }
            _ => return None,
        }
    }
    None
}

/// Cuts rows into cells; one for a whole table, because its making costs more than its use.
pub(super) struct Cutter {
    separator: u8,
    core: Reader,
    /// The row, with the line break back on.
    input: Vec<u8>,
    /// The cells without their quotes, one after the other, and where each ends.
    cells: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
}

impl Cutter {
    pub(super) fn new(separator: u8) -> Cutter {
        let core = ReaderBuilder::new().delimiter(separator).terminator(Terminator::Any(b'\n')).build();
        Cutter { separator, core, input: Vec::new(), cells: Vec::new(), ends: Vec::new(), count: 0 }
    }

    /// Cuts a row, its last line break already cut off, of a table of `width` columns.
    pub(super) fn fill(&mut self, row: &[u8], width: usize) -> Result<(), String> {
        self.count = 0;
        if row.len() > LONGEST {
            return Err(format!("{} bytes long; a row has {LONGEST} at most", row.len()));
        }
        let row = row.strip_suffix(b"\r").unwrap_or(row);
        if row.is_empty() {
            return Ok(());
        }
        // Between tabs a quote is often a letter like any other, as in IMDb's own tables. Where the tabs alone make as many cells
        // as there are columns, they are the cells, unless the last one may go on.
        let cells = || row.split(|&byte| byte == b'\t');
        let goes_on = |cell: &[u8]| cell.starts_with(b"\"") && (cell.len() == 1 || !cell.ends_with(b"\""));
        if self.separator == b'\t' && cells().count() == width && !cells().next_back().is_some_and(goes_on) {
            self.fill_between_tabs(row);
            return Ok(());
        }
        self.input.clear();
        self.input.extend_from_slice(row);
        self.input.push(b'\n');
        // Quotes only shorten, and two cells have a separator between them: there is always room.
        self.cells.resize(self.input.len(), 0);
        self.ends.resize(self.input.len() + 1, 0);
        self.core.reset();
        let (result, _, _, count) = self.core.read_record(&self.input, &mut self.cells, &mut self.ends);
        if result != ReadRecordResult::Record {
            return Err("a quote that is never closed".to_owned());
        }
        self.count = count;
        Ok(())
    }

    fn fill_between_tabs(&mut self, row: &[u8]) {
        self.cells.clear();
        self.ends.clear();
        for cell in row.split(|&byte| byte == b'\t') {
            match cell {
                [b'"', inside @ .., b'"'] => {
                    let mut letters = inside.iter().peekable();
                    while let Some(&letter) = letters.next() {
                        self.cells.push(letter);
                        if letter == b'"' {
                            letters.next_if_eq(&&b'"');
                        }
                    }
                }
                _ => self.cells.extend_from_slice(cell),
            }
            self.ends.push(self.cells.len());
        }
        self.count = self.ends.len();
    }

    /// The cells of the row that was cut last.
    pub(super) fn cells(&self) -> Vec<&[u8]> {
        let begins = std::iter::once(0).chain(self.ends[..self.count].iter().copied());
        begins.zip(&self.ends[..self.count]).map(|(begin, &end)| &self.cells[begin..end]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::encoding::text;
    use super::*;

    fn cut(separator: u8, width: usize, rows: &str) -> Vec<(u64, Option<Vec<String>>)> {
        let mut records = Records::new(rows.as_bytes(), separator, width);
        let mut found = Vec::new();
        while let Some((line, cells)) = records.next() {
            let cells = cells.ok().map(|cells| cells.iter().map(|cell| text(cell).into_owned()).collect());
            found.push((line, cells));
        }
        found
    }

    fn cells(cells: &[&str]) -> Option<Vec<String>> {
        Some(cells.iter().map(|cell| cell.to_string()).collect())
    }

    #[test]
    fn a_row_of_one_line() {
        for (row, expected) in [
            ("1,2\r", cells(&["1", "2"])),
            ("1,\"a \"\"b\"\"\",c\"d", cells(&["1", "a \"b\"", "c\"d"])),
            ("1,\"a\" b", cells(&["1", "a b"])),
            (",", cells(&["", ""])),
            ("\"\"", cells(&[""])),
            ("\n", cells(&[])),
            ("1,\"['A', 'B']", None),
            ("\"", None),
        ] {
            assert_eq!(cut(b',', 2, row), [(2, expected)], "{row:?}");
        }
        assert_eq!(cut(b';', 2, "1,2;3"), [(2, cells(&["1,2", "3"]))]);
    }

    #[test]
    fn a_quoted_cell_over_several_lines_is_one_row() {
        let rows = "1,\"a\r\n\"\"b\"\",\n\",c\r\n2,\"d\n\",\"e\nf\"\n3,g,h";
        assert_eq!(
            cut(b',', 3, rows),
            [(2, cells(&["1", "a\r\n\"b\",\n", "c"])), (5, cells(&["2", "d\n", "e\nf"])), (8, cells(&["3", "g", "h"]))]
        );
        let long = format!("1,\"{}\"\n2,b", "\n".repeat(63));
        assert_eq!(cut(b',', 2, &long), [(2, cells(&["1", &"\n".repeat(63)])), (66, cells(&["2", "b"]))]);
    }

    #[test]
    fn an_open_quote_costs_one_line() {
        let (two, many) = (("2,b", cells(&["2", "b"])), "\n".repeat(64));
        for open in [
            "1,\"a",       // never closed
            "1,\"a\nx\"y", // closed before a letter
            "1,\"a\n\",c", // with a cell too many
            "1\n\"a\n\"",  // with a cell too few
            &format!("1,\"{many}\""),
            &format!("1,\"\n{}\"", "x".repeat(LONGEST - 1)),
        ] {
            let found = cut(b',', 2, &format!("{open}\n{}", two.0));
            assert_eq!(found.last(), Some(&(3 + open.matches('\n').count() as u64, two.1.clone())), "{open:.20?}");
            let quote = open.split('\n').position(|line| line.starts_with("1,\"") || line.starts_with("\"a")).unwrap();
            assert_eq!(found[quote], (2 + quote as u64, None), "{open:.20?}");
        }
    }

    #[test]
    fn between_tabs_a_quote_is_a_letter_where_the_cells_are_complete() {
        assert_eq!(cut(b'\t', 4, "1\t\"a\t\"b\tc"), [(2, cells(&["1", "\"a", "\"b", "c"]))]);
        assert_eq!(
            cut(b'\t', 3, "1\t\"a\t\"b\"\n2\tc\"\td"),
            [(2, cells(&["1", "\"a", "b"])), (3, cells(&["2", "c\"", "d"]))]
        );
        assert_eq!(cut(b'\t', 2, "1\t\"a\n2\tb"), [(2, None), (3, cells(&["2", "b"]))]);
        assert_eq!(cut(b'\t', 2, "1\t\"a \"\"b\"\"\""), [(2, cells(&["1", "a \"b\""]))]);
        assert_eq!(cut(b'\t', 2, "1\t\"a\tb\""), [(2, cells(&["1", "a\tb"]))]);
        assert_eq!(cut(b'\t', 2, "1\t\"a\nb\""), [(2, cells(&["1", "a\nb"]))]);
    }
}
