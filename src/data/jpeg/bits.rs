//! The bits of a scan's data, and the Huffman codes in them.

/// Why a scan cannot be followed to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The data end, in a marker or with the file.
    End,
    /// The next bits are no code of the table, or there is no table.
    NoCode,
}

/// Reads bits from the data of a scan, which a marker ends. There 0xff is written as 0xff 0x00.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next `count` bits, the first of them highest.
    buffer: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Bits<'a> {
        Bits { bytes, at, buffer: 0, count: 0 }
    }

    /// Fills the buffer up as far as there are data.
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.bytes.get(self.at..) {
                Some([0xff, 0, ..]) => {
                    self.at += 2;
                    0xff
                }
                Some([byte @ 0..=0xfe, ..]) => {
                    self.at += 1;
                    *byte
                }
                _ => return,
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The next `count` bits, 16 at most, as a number.
    pub(super) fn take(&mut self, count: u8) -> Result<u32, Stop> {
        let count = u32::from(count);
        if count == 0 {
            return Ok(0);
        }
        if self.count < count {
            self.fill();
            if self.count < count {
                return Err(Stop::End);
            }
        }
        let value = self.buffer >> (64 - count);
        self.buffer <<= count;
        self.count -= count;
        Ok(value as u32)
    }

    /// The symbol whose code comes next.
    pub(super) fn symbol(&mut self, table: Option<&Table>) -> Result<u8, Stop> {
        let table = table.ok_or(Stop::NoCode)?;
        // Codes of one length are consecutive numbers, and each length begins where the one before ends.
        let (mut code, mut first, mut index) = (0, 0, 0);
        for &codes in &table.codes {
            let codes = u32::from(codes);
            code |= self.take(1)?;
            if code < first + codes {
                return table.symbols.get((index + code - first) as usize).copied().ok_or(Stop::NoCode);
            }
            index += codes;
            first = (first + codes) << 1;
            code <<= 1;
        }
        Err(Stop::NoCode)
    }

    /// Goes on behind the next restart marker; there must be one before any other marker.
    pub(super) fn restart(&mut self) -> Result<(), Stop> {
        (self.buffer, self.count) = (0, 0);
        loop {
            match self.bytes.get(self.at..) {
                Some([0xff, 0xd0..=0xd7, ..]) => {
                    self.at += 2;
                    return Ok(());
                }
                None | Some([] | [0xff] | [0xff, 1..=0xfe, ..]) => return Err(Stop::End),
                Some(_) => self.at += 1,
            }
        }
    }

    /// Where reading goes on after the scan. A byte of which not even one bit was used counts as unread.
    pub(super) fn position(&self) -> usize {
        let mut at = self.at;
        for _ in 0..self.count / 8 {
            at -= if self.bytes[..at].ends_with(&[0xff, 0]) { 2 } else { 1 };
        }
        at
    }
}

/// A Huffman table: how many codes there are of each length, and what they stand for.
pub(super) struct Table {
    codes: [u8; 16],
    symbols: Vec<u8>,
}

impl Table {
    /// The table at the beginning of `bytes`, and what follows it.
    pub(super) fn read(bytes: &[u8]) -> Option<(Table, &[u8])> {
        let (codes, rest) = bytes.split_first_chunk::<16>()?;
        let symbols = codes.iter().copied().map(usize::from).sum();
        let (symbols, rest) = rest.split_at_checked(symbols)?;
        Some((Table { codes: *codes, symbols: symbols.to_vec() }, rest))
    }
}
