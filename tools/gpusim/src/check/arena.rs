//! The device's memory: one reserved range of addresses, with its shadows.
//!
//! A device address *is* a host address inside the range, so that pinned and managed memory need nothing special. The
//! shadows (one initialised-bit a byte; for races a cell of two lines and, where they are needed, the histories of
//! sectors) are ranges of their own; the host's kernel commits pages of any of them when they are first touched, and an
//! untouched shadow reads as zero: not initialised, never accessed.
//!
//! Threads of a simulated kernel may race for device memory, as on a GPU; so it is only ever reached through raw
//! pointers, never through references.

use super::line_history::{LINE, Pair};
use super::sector_history::History;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a DRAM sector: the unit of traffic.
pub const SECTOR: u64 = 32;

/// Largest range to ask for; halved until the host grants it.
const LARGEST: usize = 1 << 40;
const SMALLEST: usize = 1 << 34;

/// The reserved range and its shadows.
pub struct Arena {
    base: u64,
    bytes: usize,
    initialised: *const AtomicU64,
    pairs: *const Pair,
    histories: *mut History,
}

// SAFETY: the pointers are to mappings that live as long as this does; they are used atomically or under locks (shadows)
// or as raw device memory whose races are the simulated program's.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

fn reserve(bytes: usize) -> io::Result<*mut u8> {
    // SAFETY: an anonymous mapping at an address of the system's choice touches nothing that exists.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast()) }
}

fn pair_bytes(bytes: usize) -> usize {
    bytes / (2 * LINE as usize) * size_of::<Pair>()
}

fn history_bytes(bytes: usize) -> usize {
    bytes / SECTOR as usize * size_of::<History>()
}

impl Drop for Arena {
    fn drop(&mut self) {
        let mappings = [
            (self.base as *mut libc::c_void, self.bytes),
            (self.initialised as *mut libc::c_void, self.bytes / 8),
            (self.pairs as *mut libc::c_void, pair_bytes(self.bytes)),
            (self.histories.cast(), history_bytes(self.bytes)),
        ];
        for (start, bytes) in mappings {
            // SAFETY: the mapping is ours, and nobody else has it any more.
            unsafe { libc::munmap(start, bytes) };
        }
    }
}

/// Asks for `most` bytes, and as long as that is refused for half as many, down to `least`.
fn most_granted<T>(most: usize, least: usize, ask: impl Fn(usize) -> io::Result<T>) -> io::Result<T> {
    let mut bytes = most;
    loop {
        match ask(bytes) {
            Err(_) if bytes > least => bytes /= 2,
            answer => return answer,
        }
    }
}

impl Arena {
    /// Reserves as large a range as the host grants, for a driver.
    ///
    /// # Errors
    /// The host grants not even the smallest one.
    pub fn largest() -> io::Result<Self> {
        most_granted(LARGEST, SMALLEST, Self::of)
    }

    /// Reserves a range of so many bytes, a multiple of 4096.
    ///
    /// # Errors
    /// The host doesn't grant it.
    pub fn of(bytes: usize) -> io::Result<Self> {
        let base = reserve(bytes)?;
        let initialised = reserve(bytes / 8)?;
        let (pairs, histories) = (reserve(pair_bytes(bytes))?, reserve(history_bytes(bytes))?);
        let (initialised, pairs, histories) = (initialised.cast(), pairs.cast(), histories.cast());
        Ok(Self { base: base as u64, bytes, initialised, pairs, histories })
    }

    /// The first address.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes of the range.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Are all of these bytes in the range?
    #[inline]
    #[must_use]
    pub fn holds(&self, address: u64, bytes: u64) -> bool {
        let offset = address.wrapping_sub(self.base);
        offset < self.bytes as u64 && bytes <= self.bytes as u64 - offset
    }

    #[inline]
    fn word(&self, offset: u64) -> &AtomicU64 {
        debug_assert!(offset < self.bytes as u64);
        // SAFETY: the shadow has a word for every 64 bytes of the range, and the offset is within it.
        unsafe { &*self.initialised.add((offset / 64) as usize) }
    }

    /// The race cell of the lines around `address`.
    #[inline]
    pub(super) fn pair(&self, address: u64) -> &Pair {
        let offset = address - self.base;
        debug_assert!(offset < self.bytes as u64);
        // SAFETY: the shadow has a cell for every two lines of the range; zeroed memory is a valid cell, and all of it
        // but the lock is behind the lock.
        unsafe { &*self.pairs.add((offset / (2 * LINE)) as usize) }
    }

    /// The history of the sector at `address`; whoever uses it holds the lock of its lines.
    #[inline]
    pub(super) fn history(&self, address: u64) -> *mut History {
        let offset = address - self.base;
        debug_assert!(offset < self.bytes as u64);
        // SAFETY: the shadow has a history for every sector of the range.
        unsafe { self.histories.add((offset / SECTOR) as usize) }
    }

    /// Has the processor fetch a line and its shadows, which are about to be touched: all that a request needs then comes
    /// at once, and not each after a look at the one before. Does nothing to a line that isn't there.
    #[inline]
    pub fn fetch(&self, line: u64) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let offset = line.wrapping_sub(self.base) as usize;
            // SAFETY: fetching ahead reads nothing and can't fault, wherever it points.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(self.initialised.wrapping_add(offset / 64).cast());
                _mm_prefetch::<_MM_HINT_T0>(self.pairs.wrapping_add(offset / (2 * LINE as usize)).cast());
                _mm_prefetch::<_MM_HINT_T0>(line as *const i8);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }

    /// Are `bytes` (at most 64, not crossing a multiple of 64) from `address` on all initialised?
    ///
    /// Memory that is not allocated never is, so that one look answers both questions.
    #[inline]
    #[must_use]
    pub fn is_initialised(&self, address: u64, bytes: u32) -> bool {
        let offset = address.wrapping_sub(self.base);
        if offset >= self.bytes as u64 {
            return false;
        }
        let wanted = u64::MAX >> (64 - bytes);
        self.word(offset).load(Ordering::Relaxed) >> (offset % 64) & wanted == wanted
    }

    /// As [`Self::is_initialised`], for the bytes of a line that a mask names.
    #[inline]
    #[must_use]
    pub fn is_line_initialised(&self, line: u64, bytes: u64) -> bool {
        let offset = line.wrapping_sub(self.base);
        offset < self.bytes as u64 && self.word(offset).load(Ordering::Relaxed) & bytes == bytes
    }

    /// Marks the bytes of a line that a mask names as initialised.
    pub fn mark_line(&self, line: u64, bytes: u64) {
        self.word(line - self.base).fetch_or(bytes, Ordering::Relaxed);
    }

    /// As [`Self::is_initialised`], for any range.
    #[must_use]
    pub fn is_range_initialised(&self, address: u64, bytes: u64) -> bool {
        self.holds(address, bytes) && pieces(address, bytes).all(|(at, length)| self.is_initialised(at, length))
    }

    /// Marks bytes of the range as initialised, or as not.
    pub fn mark(&self, address: u64, bytes: u64, initialised: bool) {
        for (at, length) in pieces(address, bytes) {
            let offset = at - self.base;
            let bits = u64::MAX >> (64 - length) << (offset % 64);
            if initialised {
                self.word(offset).fetch_or(bits, Ordering::Relaxed);
            } else {
                self.word(offset).fetch_and(!bits, Ordering::Relaxed);
            }
        }
    }

    /// Gives `to` the marks of `from`.
    pub fn copy_marks(&self, from: u64, to: u64, bytes: u64) {
        if from.wrapping_sub(to).is_multiple_of(64) {
            for (at, length) in pieces(to, bytes) {
                let offset = at - self.base;
                let mask = u64::MAX >> (64 - length) << (offset % 64);
                let marks = self.word(from + (at - to) - self.base).load(Ordering::Relaxed) & mask;
                self.word(offset).fetch_and(!mask | marks, Ordering::Relaxed);
                self.word(offset).fetch_or(marks, Ordering::Relaxed);
            }
        } else {
            for i in 0..bytes {
                self.mark(to + i, 1, self.is_initialised(from + i, 1));
            }
        }
    }

    /// Forgets a range that was freed: its marks go, and so do its whole pages.
    pub fn forget(&self, address: u64, bytes: u64) {
        self.mark(address, bytes, false);
        let page = 4096;
        let (start, end) = (address.next_multiple_of(page), (address + bytes) / page * page);
        if start < end {
            // SAFETY: the pages lie inside our own anonymous mapping; the driver frees only what no launch uses.
            unsafe { libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_DONTNEED) };
        }
    }
}

/// Cuts a range at multiples of 64.
fn pieces(address: u64, bytes: u64) -> impl Iterator<Item = (u64, u32)> {
    let mut at = address;
    let end = address + bytes;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let start = at;
            at = (at / 64 * 64 + 64).min(end);
            (start, (at - start) as u32)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_refuses_is_asked_for_half_as_much() {
        let granted = |limit| {
            let ask = |bytes| if bytes <= limit { Ok(bytes) } else { Err(io::Error::other("too much")) };
            most_granted(1024, 64, ask).ok()
        };
        assert_eq!([2048, 1024, 1023, 64, 63].map(granted), [Some(1024), Some(1024), Some(512), Some(64), None]);
    }

    #[test]
    fn marks_are_exact_to_the_byte() {
        let arena = Arena::of(1 << 20).unwrap();
        let at = arena.base() + 61;
        arena.mark(at, 70, true);
        assert!(!arena.is_range_initialised(at - 1, 2));
        assert!(arena.is_range_initialised(at, 70));
        assert!(!arena.is_range_initialised(at, 71));
        arena.copy_marks(at - 1, arena.base() + 4096, 72);
        assert!(!arena.is_initialised(arena.base() + 4096, 1));
        assert!(arena.is_line_initialised(arena.base(), 0xa << 60));
        assert!(!arena.is_line_initialised(arena.base(), 0xb << 60));
        arena.mark_line(arena.base(), 1 << 60);
        assert!(arena.is_line_initialised(arena.base(), 0xb << 60));
        assert!(arena.is_range_initialised(arena.base() + 4097, 70));
        assert!(!arena.is_initialised(arena.base() + 4097 + 70, 1));
        arena.forget(at, 70);
        assert!(!arena.is_initialised(at + 30, 1));
    }

    /// Copied marks are the source's, whether or not both ranges lie alike between multiples of 64.
    #[test]
    fn marks_are_copied_and_their_neighbours_kept() {
        let arena = Arena::of(1 << 20).unwrap();
        let (from, bytes) = (arena.base() + 10, 150);
        // All around the source is initialised, and four bytes of seven in it.
        arena.mark(from - 10, bytes + 20, true);
        for i in (0..bytes).filter(|i| i % 7 >= 4) {
            arena.mark(from + i, 1, false);
        }
        for (to, marked) in [(0x1000, true), (0x2000, false), (0x3003, true), (0x4003, false)] {
            let to = arena.base() + 10 + to;
            arena.mark(to - 5, bytes + 10, marked);
            arena.copy_marks(from, to, bytes);
            for i in 0..bytes + 10 {
                let expected = if (5..bytes + 5).contains(&i) { (i - 5) % 7 < 4 } else { marked };
                assert_eq!(arena.is_initialised(to - 5 + i, 1), expected, "{i} of {to:#x}");
            }
        }
    }

    #[test]
    fn what_is_forgotten_has_ends() {
        let arena = Arena::of(1 << 20).unwrap();
        let (at, bytes) = (arena.base() + 3000, 10_000);
        arena.mark(at - 100, bytes + 200, true);
        let byte = |address: u64| address as *mut u8;
        // SAFETY: the addresses are in the range, which nobody else uses.
        let neighbours = unsafe {
            byte(at - 1).write(7);
            byte(at + bytes).write(8);
            arena.forget(at, bytes);
            [byte(at - 1).read(), byte(at + bytes).read()]
        };
        assert_eq!(neighbours, [7, 8]);
        assert!(arena.is_range_initialised(at - 100, 100) && arena.is_range_initialised(at + bytes, 100));
        assert!(!(0..bytes).any(|i| arena.is_initialised(at + i, 1)));
    }

    #[test]
    fn the_range_has_a_first_and_a_last_byte() {
        let arena = Arena::of(1 << 20).unwrap();
        let (first, bytes) = (arena.base(), arena.bytes() as u64);
        assert!(arena.holds(first, bytes) && arena.holds(first + bytes - 1, 1));
        assert!(!arena.holds(first - 1, 1) && !arena.holds(first + 1, bytes) && !arena.holds(first + bytes, 0));
        arena.mark(first + bytes - 70, 70, true);
        assert!(arena.is_range_initialised(first + bytes - 70, 70));
        assert!(!arena.is_range_initialised(first + bytes - 70, 71), "the end of the range");
    }

    #[test]
    fn nothing_outside_is_initialised() {
        let arena = Arena::of(1 << 20).unwrap();
        assert!(!arena.is_initialised(arena.base() - 4, 4));
        assert!(!arena.is_initialised(arena.base() + (1 << 20), 4));
        assert!(!arena.is_initialised(0, 4));
    }
}
