//! What a launch did to a line of device memory.
//!
//! Most memory is read and written by whole lines of 64 bytes, whose two sectors then have one history, without masks of
//! bytes: two such lines and a lock share 64 bytes of shadow. The first access to less splits a line for the rest of the
//! launch: from then on its sectors have a [`History`] each.

use super::global_race::{Manner, Moment, Run, Touch};
use super::sector_history::{History, LOADED, Last, STORED, moves};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a line.
pub const LINE: u64 = 64;

/// Of a [`Pair`] whose lock is taken, instead of a launch's number.
const LOCKED: u32 = u32::MAX;

// What has happened to a line in this launch, besides [`LOADED`] and [`STORED`], by accesses that may race.
pub(super) const WRITTEN: u8 = 4;
const READ: u8 = 8;
const OTHERS_READ: u8 = 16;
/// Its sectors have histories of their own.
pub(super) const SPLIT: u8 = 32;

/// The history of a line that was touched as a whole, as [`History`] has it.
#[derive(Clone, Copy, Default)]
pub(super) struct Line {
    pub writer: u32,
    reader: u32,
    other_reader: u32,
    last_write: Moment,
    last_read: Moment,
}

/// Two neighbouring lines.
#[derive(Clone, Copy, Default)]
pub(super) struct Lines {
    pub flags: [u8; 2],
    pub lines: [Line; 2],
}

/// The shadow of two neighbouring lines. Zeroed memory is unlocked and empty.
#[repr(C, align(64))]
pub(super) struct Pair {
    /// The launch that touched them last, or [`LOCKED`].
    launch: AtomicU32,
    lines: UnsafeCell<Lines>,
}

const _: () = assert!(size_of::<Pair>() == 64);

// SAFETY: the lines are only reached while the lock is held.
unsafe impl Sync for Pair {}

/// A [`Pair`] that nobody else looks at; with it, the histories of its sectors.
pub(super) struct Held<'a> {
    pair: &'a Pair,
    launch: u32,
}

impl<'a> Held<'a> {
    #[inline]
    pub fn new(pair: &'a Pair, launch: u32) -> Self {
        let before = loop {
            let found = pair.launch.swap(LOCKED, Ordering::Acquire);
            if found != LOCKED {
                break found;
            }
            std::hint::spin_loop();
        };
        let mut held = Self { pair, launch };
        if before != launch {
            held.lines().flags = [0; 2];
        }
        held
    }

    /// Is it this one?
    #[inline]
    pub fn holds(&self, pair: &Pair) -> bool {
        std::ptr::eq(self.pair, pair)
    }

    #[inline]
    pub fn lines(&mut self) -> &mut Lines {
        // SAFETY: the lock is ours.
        unsafe { &mut *self.pair.lines.get() }
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.pair.launch.store(self.launch, Ordering::Release);
    }
}

impl Lines {
    /// Notes an access that is to a whole line, unsplit, and races with nothing at first sight; gives how many of its
    /// sectors memory must move.
    #[inline(always)]
    pub fn touch_whole(&mut self, run: Run, manner: Manner, touch: &Touch<'_>) -> Option<u64> {
        let which = (run.line / LINE % 2) as usize;
        let flags = &mut self.flags[which];
        let whole = run.bytes == u64::MAX;
        match manner {
            Manner::Read if whole && *flags & (SPLIT | WRITTEN) == 0 => {}
            Manner::Write if whole && *flags & (SPLIT | WRITTEN | READ | OTHERS_READ) == 0 => {}
            // It leaves no trace but in the traffic.
            Manner::OrderedRead | Manner::OrderedWrite if *flags & SPLIT == 0 => {
                let mut after = *flags;
                let moved = moves(&mut after, manner.writes());
                if moved && !whole {
                    return None;
                }
                *flags = after;
                return Some(2 * u64::from(moved));
            }
            _ => return None,
        }
        Some(self.lines[which].note(flags, manner.writes(), touch))
    }
}

impl Line {
    #[inline(always)]
    pub fn note(&mut self, flags: &mut u8, write: bool, touch: &Touch<'_>) -> u64 {
        if write {
            (self.writer, self.last_write) = (touch.block, touch.moment);
            *flags |= WRITTEN;
        } else {
            if *flags & READ != 0 && self.reader != touch.block {
                self.other_reader = self.reader;
                *flags |= OTHERS_READ;
            }
            (self.reader, self.last_read) = (touch.block, touch.moment);
            *flags |= READ;
        }
        2 * u64::from(moves(flags, write))
    }

    /// The same as the history of either sector. A block that is named for no bytes, be it an earlier launch's, is never
    /// held against anybody.
    pub fn history(&self, flags: u8) -> History {
        let all = |flag: u8| if flags & flag != 0 { u32::MAX } else { 0 };
        History {
            moved: flags & (LOADED | STORED),
            writer: self.writer,
            written: all(WRITTEN),
            reader: self.reader,
            read: all(READ),
            others_wrote: 0,
            other_writer: 0,
            others_read: all(OTHERS_READ),
            other_reader: self.other_reader,
            last_write: Last { bytes: all(WRITTEN), moment: self.last_write },
            last_read: Last { bytes: all(READ), moment: self.last_read },
        }
    }
}
