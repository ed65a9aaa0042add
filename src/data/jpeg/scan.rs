//! A scan: the blocks it has, in their order, and the codes of each.

use super::bits::{Bits, Stop, Table};
use crate::data::pixels::LARGEST_SIDE;

/// The coefficients of a block.
const COEFFICIENTS: usize = 64;

/// Size and colours of an image.
pub(super) struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    pub(super) components: Vec<Component>,
}

/// One colour of an image.
pub(super) struct Component {
    id: u8,
    /// Blocks in a group of blocks of all colours, across and down.
    across: usize,
    down: usize,
    /// Of each coefficient how many low bits are still to come; `None` before its first scan.
    missing: [Option<u8>; COEFFICIENTS],
    /// Of each block which coefficients are not zero, a bit each: a scan that refines them has a bit for each of those.
    /// Only in progressive images, with blocks enough for whole groups.
    not_zero: Vec<u64>,
    blocks_in_row: usize,
}

impl Component {
    /// Whether there is anything of it.
    pub(super) fn is_begun(&self) -> bool {
        self.missing[0].is_some()
    }

    /// Whether nothing can be added to it.
    pub(super) fn is_complete(&self) -> bool {
        self.missing.iter().all(|&bits| bits == Some(0))
    }
}

impl Frame {
    /// The frame that a segment describes.
    pub(super) fn read(segment: &[u8], progressive: bool) -> Option<Frame> {
        let (&[_, high, low, wide, narrow, count], rest) = segment.split_first_chunk()?;
        let (height, width) = (u16::from_be_bytes([high, low]).into(), u16::from_be_bytes([wide, narrow]).into());
        let sizes = rest.get(..3 * usize::from(count))?;
        let mut components: Vec<Component> = sizes
            .chunks_exact(3)
            .map(|size| Component {
                id: size[0],
                across: (size[1] >> 4).into(),
                down: (size[1] & 15).into(),
                missing: [None; COEFFICIENTS],
                not_zero: Vec::new(),
                blocks_in_row: 0,
            })
            .collect();
        let fits = |component: &Component| (1..=4).contains(&component.across) && (1..=4).contains(&component.down);
        let sides = 1..=LARGEST_SIDE as usize;
        if !(1..=4).contains(&components.len()) || !components.iter().all(fits) {
            return None;
        }
        if !sides.contains(&width) || !sides.contains(&height) {
            return None;
        }
        let mut frame = Frame { progressive, width, height, components: Vec::new() };
        let (across, down) = Frame::group(&components);
        let (columns, rows) = (width.div_ceil(8 * across), height.div_ceil(8 * down));
        for component in &mut components {
            component.blocks_in_row = columns * component.across;
            if progressive {
                component.not_zero = vec![0; component.blocks_in_row * rows * component.down];
            }
        }
        frame.components = components;
        Some(frame)
    }

    /// The most blocks that a colour has in a group, across and down.
    fn group(components: &[Component]) -> (usize, usize) {
        let most = |blocks: fn(&Component) -> usize| components.iter().map(blocks).max().unwrap_or(1);
        (most(|component| component.across), most(|component| component.down))
    }
}

/// What a scan brings.
pub(super) struct Scan {
    /// Colours, each with its tables for the first and for the other coefficients.
    parts: Vec<Part>,
    /// The coefficients, first and last.
    first: usize,
    last: usize,
    /// Whether bits were left out of them before, which this scan adds.
    refines: bool,
    /// How many low bits it leaves out.
    leaves: u8,
}

struct Part {
    component: usize,
    tables: [usize; 2],
}

impl Scan {
    /// The scan that a segment describes.
    pub(super) fn read(segment: &[u8], frame: &Frame) -> Option<Scan> {
        let (&count, rest) = segment.split_first()?;
        let (parts, rest) = rest.split_at_checked(2 * usize::from(count))?;
        let part = |part: &[u8]| {
            let component = frame.components.iter().position(|component| component.id == part[0])?;
            Some(Part { component, tables: [(part[1] >> 4).into(), (part[1] & 15).into()] })
        };
        let parts: Vec<Part> = parts.chunks_exact(2).map(part).collect::<Option<_>>()?;
        let (&[first, last, precision], _) = rest.split_first_chunk()?;
        let (first, last) = if frame.progressive { (first.into(), last.into()) } else { (0, COEFFICIENTS - 1) };
        let (refines, leaves) = if frame.progressive { (precision >> 4 > 0, precision & 15) } else { (false, 0) };
        let one_kind = !frame.progressive || if first == 0 { last == 0 } else { parts.len() == 1 };
        let fits = (1..=4).contains(&parts.len()) && first <= last && last < COEFFICIENTS && one_kind;
        fits.then_some(Scan { parts, first, last, refines, leaves })
    }

    /// Groups of blocks, across and down: of one colour each block is a group, and those beyond the edge are left out.
    fn groups(&self, frame: &Frame) -> (usize, usize) {
        let (across, down) = Frame::group(&frame.components);
        match &self.parts[..] {
            [part] => {
                let component = &frame.components[part.component];
                let columns = (frame.width * component.across).div_ceil(8 * across);
                (columns, (frame.height * component.down).div_ceil(8 * down))
            }
            _ => (frame.width.div_ceil(8 * across), frame.height.div_ceil(8 * down)),
        }
    }

    /// The blocks of a colour in a group, across and down.
    fn blocks_in_group(&self, component: &Component) -> (usize, usize) {
        if self.parts.len() == 1 { (1, 1) } else { (component.across, component.down) }
    }

    /// How many blocks the scan has.
    pub(super) fn blocks(&self, frame: &Frame) -> usize {
        let (columns, rows) = self.groups(frame);
        let in_group = |part: &Part| {
            let (across, down) = self.blocks_in_group(&frame.components[part.component]);
            across * down
        };
        columns * rows * self.parts.iter().map(in_group).sum::<usize>()
    }

    /// Reads the codes of all blocks and counts the blocks in `found`.
    pub(super) fn walk(
        &self,
        frame: &mut Frame,
        tables: &[[Option<Table>; 4]; 2],
        restart_interval: usize,
        bits: &mut Bits<'_>,
        found: &mut usize,
    ) -> Result<(), Stop> {
        let (columns, rows) = self.groups(frame);
        // Further blocks that are known to be empty.
        let mut empty = 0;
        for group in 0..columns * rows {
            if restart_interval > 0 && group > 0 && group % restart_interval == 0 {
                bits.restart()?;
                empty = 0;
            }
            for part in &self.parts {
                let component = &mut frame.components[part.component];
                let table = |kind: usize| tables[kind].get(part.tables[kind]).and_then(Option::as_ref);
                let (across, down) = self.blocks_in_group(component);
                let (left, top) = (group % columns * across, group / columns * down);
                for block in 0..across * down {
                    if !frame.progressive {
                        sequential(bits, table(0), table(1))?;
                    } else if self.first == 0 {
                        if self.refines {
                            bits.take(1)?;
                        } else {
                            first_coefficient(bits, table(0))?;
                        }
                    } else {
                        let at = (top + block / across) * component.blocks_in_row + left + block % across;
                        let not_zero = component.not_zero.get_mut(at).ok_or(Stop::NoCode)?;
                        self.others(bits, table(1), not_zero, &mut empty)?;
                    }
                    *found += 1;
                }
            }
        }
        for part in &self.parts {
            frame.components[part.component].missing[self.first..=self.last].fill(Some(self.leaves));
        }
        Ok(())
    }

    /// The coefficients of a block that are not its first, in a progressive image.
    fn others(
        &self,
        bits: &mut Bits<'_>,
        table: Option<&Table>,
        not_zero: &mut u64,
        empty: &mut u32,
    ) -> Result<(), Stop> {
        let mut at = self.first;
        while *empty == 0 && at <= self.last {
            let symbol = bits.symbol(table)?;
            let (run, size) = (symbol >> 4, symbol & 15);
            if size == 0 && run < 15 {
                *empty = (1 << run) + bits.take(run)?;
                break;
            }
            if self.refines {
                // Its sign; the value is one bit.
                bits.take((size > 0).into())?;
                self.refine(bits, *not_zero, &mut at, Some(run))?;
            } else {
                bits.take(size)?;
                at += usize::from(run);
            }
            if size > 0 && at < COEFFICIENTS {
                *not_zero |= 1 << at;
            }
            at += 1;
        }
        if *empty > 0 {
            *empty -= 1;
            if self.refines {
                self.refine(bits, *not_zero, &mut at, None)?;
            }
        }
        Ok(())
    }

    /// Reads a bit for each coefficient from `at` on that is not zero, up to the one behind `zeros` that are, or to the last.
    fn refine(&self, bits: &mut Bits<'_>, not_zero: u64, at: &mut usize, zeros: Option<u8>) -> Result<(), Stop> {
        let mut passed = 0;
        while *at <= self.last {
            if not_zero >> *at & 1 == 1 {
                bits.take(1)?;
            } else if zeros == Some(passed) {
                break;
            } else {
                passed = passed.saturating_add(1);
            }
            *at += 1;
        }
        Ok(())
    }
}

/// The first coefficient of a block: the length of its value, and the value.
fn first_coefficient(bits: &mut Bits<'_>, table: Option<&Table>) -> Result<(), Stop> {
    let size = bits.symbol(table)?;
    if size > 16 {
        return Err(Stop::NoCode);
    }
    bits.take(size).map(drop)
}

/// A whole block of an image that is not progressive.
fn sequential(bits: &mut Bits<'_>, first: Option<&Table>, others: Option<&Table>) -> Result<(), Stop> {
    first_coefficient(bits, first)?;
    let mut at = 1;
    while at < COEFFICIENTS {
        let symbol = bits.symbol(others)?;
        let (run, size) = (symbol >> 4, symbol & 15);
        if size == 0 && run < 15 {
            break;
        }
        bits.take(size)?;
        at += usize::from(run) + 1;
    }
    Ok(())
}
