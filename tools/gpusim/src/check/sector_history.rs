//! What a launch did to a sector of device memory, byte by byte.

use super::GlobalRace;
use super::global_race::{Moment, Touch};

/// The last access of one kind, and which bytes it was to.
#[derive(Clone, Copy, Default)]
pub(super) struct Last {
    pub bytes: u32,
    pub moment: Moment,
}

impl Last {
    fn add(&mut self, bytes: u32, moment: Moment) {
        let bytes = if moment == self.moment { bytes | self.bytes } else { bytes };
        *self = Self { bytes, moment };
    }

    fn clashes(&self, bytes: u32, touch: &Touch<'_>) -> bool {
        self.bytes & bytes != 0 && self.moment.is_unseen(touch)
    }
}

// What memory had to do with a sector, or with both of a line.
pub(super) const LOADED: u8 = 1;
pub(super) const STORED: u8 = 2;

/// Must memory move a sector for this access, as it must for the launch's first write of it, and for its first read of
/// one that it hasn't written? Notes it among the flags.
#[inline(always)]
pub(super) fn moves(flags: &mut u8, write: bool) -> bool {
    let (mark, enough) = if write { (STORED, STORED) } else { (LOADED, LOADED | STORED) };
    let moves = *flags & enough == 0;
    *flags |= mark;
    moves
}

/// A sector's history within one launch: masks of bytes, and the last two blocks that wrote and that read some.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct History {
    /// [`LOADED`], [`STORED`].
    pub moved: u8,
    pub writer: u32,
    pub written: u32,
    pub reader: u32,
    pub read: u32,
    /// Bytes that the block before `writer` wrote, and that block.
    pub others_wrote: u32,
    pub other_writer: u32,
    pub others_read: u32,
    pub other_reader: u32,
    pub last_write: Last,
    pub last_read: Last,
}

impl History {
    /// The access that an access to `bytes` races with, and the bytes that both touch.
    #[inline]
    pub fn race(&self, bytes: u32, write: bool, touch: &Touch<'_>) -> Option<(u32, GlobalRace)> {
        // The usual case: nobody else had to do with these bytes, or all only read them.
        let read = if write { self.read | self.others_read } else { 0 };
        if (self.written | self.others_wrote | read) & bytes == 0 {
            return None;
        }
        self.race_with(bytes, write, touch)
    }

    fn race_with(&self, bytes: u32, write: bool, touch: &Touch<'_>) -> Option<(u32, GlobalRace)> {
        // (bytes, block, the last access if it was that block's, is it a write)
        let accesses = [
            (self.written, self.writer, Some(self.last_write), true),
            (self.others_wrote, self.other_writer, None, true),
            (self.read, self.reader, Some(self.last_read), false),
            (self.others_read, self.other_reader, None, false),
        ];
        for (theirs, block, last, their_write) in accesses {
            if !(write || their_write) || theirs & bytes == 0 {
                continue;
            }
            let clash = if block == touch.block {
                last.is_some_and(|last| last.clashes(bytes, touch))
            } else {
                let moment = last.filter(|last| last.bytes & theirs & bytes != 0).map(|last| last.moment);
                !touch.order.ordered(block, moment, touch.clocks)
            };
            if clash {
                let (at, warp) = (last.map(|last| last.moment.at), last.map(|last| last.moment.warp()));
                return Some((theirs & bytes, GlobalRace { block, at, warp, write: their_write, address: 0 }));
            }
        }
        None
    }

    /// Notes an access.
    pub fn note(&mut self, bytes: u32, write: bool, touch: &Touch<'_>) {
        if write {
            if self.writer != touch.block {
                let (mine, others) =
                    ((&mut self.written, &mut self.writer), (&mut self.others_wrote, &mut self.other_writer));
                hand_over(mine, others, touch.block);
            }
            self.written |= bytes;
            self.last_write.add(bytes, touch.moment);
        } else {
            if self.reader != touch.block {
                let (mine, others) =
                    ((&mut self.read, &mut self.reader), (&mut self.others_read, &mut self.other_reader));
                hand_over(mine, others, touch.block);
            }
            self.read |= bytes;
            self.last_read.add(bytes, touch.moment);
        }
    }
}

/// Block `to` touches a sector after another one: the other's bytes become those of the others, with its name. If `to` is
/// the block that stood there, the two change places, so that no block's own bytes are ever held against it; a third
/// block's bytes are forgotten for the same reason.
fn hand_over((bytes, block): (&mut u32, &mut u32), (others, other): (&mut u32, &mut u32), to: u32) {
    if *other == to {
        std::mem::swap(bytes, others);
        *other = *block;
    } else if *bytes != 0 {
        (*others, *other) = (*bytes, *block);
        *bytes = 0;
    }
    *block = to;
}

#[cfg(test)]
mod tests {
    use super::super::{Clocks, LaunchOrder};
    use super::*;

    /// The first access, of (block, bytes, is it a write), that races with those before it.
    fn race(accesses: &[(u32, u32, bool)]) -> Option<usize> {
        let (clocks, order) = (Clocks::new(1), LaunchOrder::default());
        let mut history = History::default();
        accesses.iter().position(|&(block, bytes, write)| {
            let touch = Touch::new(1, block, 0, 0, &clocks, &order);
            let race = history.race(bytes, write, &touch);
            history.note(bytes, write, &touch);
            race.is_some()
        })
    }

    #[test]
    fn neighbours_in_a_sector_do_not_race_however_they_take_turns() {
        let turns = [0, 1, 0, 2, 1, 3, 0, 1];
        let read_then_write =
            turns.map(|block| [(block, 0xf << (4 * block), false), (block, 0xf << (4 * block), true)]);
        assert_eq!(race(read_then_write.as_flattened()), None);
        let reads = turns.map(|block| (block, 0xf << (4 * block), false));
        let writes = turns.map(|block| (block, 0xf << (4 * block), true));
        assert_eq!(race(&[reads, writes].concat()), None);
    }

    #[test]
    fn the_same_byte_is_a_race_also_for_a_block_that_comes_back() {
        assert_eq!(race(&[(0, 0xf, true), (1, 0xf0, true), (1, 0x1, false)]), Some(2));
        assert_eq!(race(&[(0, 0xf, false), (1, 0xf0, false), (0, 0xf, false), (1, 0x1, true)]), Some(3));
        assert_eq!(race(&[(0, 0xf, false), (1, 0xf0, false), (0, 0xf0, true)]), Some(2));
    }
}
