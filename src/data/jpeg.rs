//! Whether a JPEG file is whole.
//!
//! Decoders paint grey where the data end too early and call it an image. So this module goes through the coded data of
//! each scan as a decoder does, code by code, and counts the blocks of 8×8 coefficients. It makes no pixels and leaves
//! everything else that could be wrong to the decoder. The standard is ITU-T T.81; where it leaves no doubt which bytes
//! belong to the image, so does this: a file is whole exactly when the code of its last block is there. Bytes behind the
//! end marker do no harm, and the end marker itself may be missing.

use std::borrow::Cow;

mod bits;
mod scan;

use bits::Bits;
use scan::{Component, Frame, Scan};

/// The most scans of one image, as in the decoder. With more, a small file would keep us busy for long.
const MOST_SCANS: usize = 100;

/// What is wrong with a JPEG file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Flaw {
    /// The data end before the image does.
    #[error("it is cut off: part {scan} of its data has {found} of {expected} blocks")]
    CutOff {
        /// The scan, from 1.
        scan: usize,
        /// Blocks that are there.
        found: usize,
        /// Blocks of the whole scan.
        expected: usize,
    },
    /// The file ends between two scans, and what it has is not the whole image.
    #[error("it is cut off: it ends before its last part")]
    ScansMissing,
    /// All blocks can be read, but then come bytes that mean nothing, and no end.
    #[error("it has no end: {0} bytes without a meaning follow its data")]
    Filled(usize),
    /// Bits that are no code.
    #[error("part {scan} of its data cannot be decoded after {found} of {expected} blocks")]
    BadCode {
        /// The scan, from 1.
        scan: usize,
        /// Blocks before it.
        found: usize,
        /// Blocks of the whole scan.
        expected: usize,
    },
    /// A segment before the data.
    #[error("its {0} cannot be read")]
    Segment(&'static str),
}

/// The JPEG file in `bytes`, if its image is all there. An end marker that is missing is added: without it, decoders give up
/// the last blocks although they have them. Kinds of JPEG that nobody uses for posters are left to the decoder.
///
/// # Errors
/// [`Flaw`].
pub(super) fn whole(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Flaw> {
    let mut image = Image::default();
    let mut at = 2; // behind the start marker
    while let Some((marker, segment)) = next_segment(bytes, &mut at) {
        match marker {
            0xd9 => return image.end(true, 0).map(|()| Cow::Borrowed(bytes)),
            0xc0..=0xc2 if image.frame.is_none() => {
                image.frame = Some(Frame::read(segment, marker == 0xc2).ok_or(Flaw::Segment("size"))?)
            }
            // Lossless, hierarchical or arithmetic.
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => return Ok(Cow::Borrowed(bytes)),
            0xc0..=0xc2 => return Err(Flaw::Segment("second size")),
            0xc4 => image.read_tables(segment).ok_or(Flaw::Segment("table of codes"))?,
            0xdd => image.restart_interval = restart_interval(segment).ok_or(Flaw::Segment("restart interval"))?,
            0xda => at = image.scan(segment, bytes, at)?,
            _ => {}
        }
    }
    // The first half of an end marker is as good as none.
    let rest = bytes.get(at..).unwrap_or_default();
    image.end(false, rest.iter().filter(|&&byte| byte != 0xff).count())?;
    Ok(Cow::Owned([&bytes[..at], &[0xff, 0xd9]].concat()))
}

/// The marker that follows, with its segment, which is empty for markers without one; `None` where no whole one follows.
/// Bytes that are no marker are skipped; after `None` they are still ahead of `at`.
fn next_segment<'a>(bytes: &'a [u8], at: &mut usize) -> Option<(u8, &'a [u8])> {
    let mut seek = *at;
    let marker = loop {
        let pair = bytes.get(seek..seek + 2)?;
        match pair {
            [0xff, marker @ 1..=0xfe] => break *marker,
            _ => seek += 1,
        }
    };
    let begin = seek + 2;
    if let 0x01 | 0xd0..=0xd9 = marker {
        *at = begin;
        return Some((marker, &[]));
    }
    let length = bytes.get(begin..begin + 2)?;
    let end = begin + usize::from(u16::from_be_bytes([length[0], length[1]]));
    let segment = bytes.get(begin + 2..end)?;
    *at = end;
    Some((marker, segment))
}

fn restart_interval(segment: &[u8]) -> Option<usize> {
    Some(u16::from_be_bytes(segment.get(..2)?.try_into().ok()?).into())
}

/// What is known of the image so far.
#[derive(Default)]
struct Image {
    frame: Option<Frame>,
    /// For the first coefficient of a block, and for the others.
    tables: [[Option<bits::Table>; 4]; 2],
    restart_interval: usize,
    scans: usize,
}

impl Image {
    fn read_tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&place, rest)) = segment.split_first() {
            let (kind, number) = (usize::from(place >> 4), usize::from(place & 15));
            let (table, rest) = bits::Table::read(rest)?;
            *self.tables.get_mut(kind)?.get_mut(number)? = Some(table);
            segment = rest;
        }
        Some(())
    }

    /// Goes through the scan whose head is `segment` and whose data begin at `at`; returns where they end.
    fn scan(&mut self, segment: &[u8], bytes: &[u8], at: usize) -> Result<usize, Flaw> {
        self.scans += 1;
        let frame = self.frame.as_mut().filter(|_| self.scans <= MOST_SCANS).ok_or(Flaw::Segment("order of parts"))?;
        let scan = Scan::read(segment, frame).ok_or(Flaw::Segment("description of its data"))?;
        let expected = scan.blocks(frame);
        let mut bits = Bits::new(bytes, at);
        let mut found = 0;
        let ended = scan.walk(frame, &self.tables, self.restart_interval, &mut bits, &mut found);
        let scan = self.scans;
        match ended {
            Ok(()) => Ok(bits.position()),
            Err(bits::Stop::End) => Err(Flaw::CutOff { scan, found, expected }),
            Err(bits::Stop::NoCode) => Err(Flaw::BadCode { scan, found, expected }),
        }
    }

    /// Judges the image at its end, or at the end of the file with `rest` bytes left over.
    fn end(&self, marked: bool, rest: usize) -> Result<(), Flaw> {
        let components = self.frame.as_ref().map_or(&[][..], |frame| &frame.components);
        // With an end marker it is the encoder's choice to leave out fine detail, but each colour needs its mean.
        let is_there = if marked { Component::is_begun } else { Component::is_complete };
        match rest {
            _ if components.is_empty() || !components.iter().all(is_there) => Err(Flaw::ScansMissing),
            0 => Ok(()),
            rest => Err(Flaw::Filled(rest)),
        }
    }
}
