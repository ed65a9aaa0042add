//! Which addresses belong to which allocation, now and before.

use std::collections::{BTreeMap, VecDeque};

/// Allocations begin at multiples of this, as the driver's do.
const ALIGN: u64 = 512;

/// Bytes between two allocations that belong to none.
const GAP: u64 = 512;

/// So many freed allocations are remembered.
const REMEMBERED: usize = 4096;

/// A live or a freed allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// First byte.
    pub address: u64,
    /// Bytes asked for.
    pub bytes: u64,
    /// Counts allocations from 1, so that a report can tell two apart.
    pub serial: u64,
    /// What it is, in a word: `device`, `pinned host`, a variable's name.
    pub what: String,
}

impl Allocation {
    fn describe(&self, address: u64) -> String {
        let Self { bytes, serial, what, .. } = self;
        let place = if address < self.address {
            format!("{} bytes before", self.address - address)
        } else if address < self.address + bytes {
            format!("{} bytes into", address - self.address)
        } else {
            format!("{} bytes past the end of", address - self.address - bytes)
        };
        format!("{place} allocation {serial} ({what}, {bytes} bytes at {:#x})", self.address)
    }
}

/// The map of a device's memory.
pub struct Allocations {
    live: BTreeMap<u64, Allocation>,
    freed: VecDeque<Allocation>,
    /// Free ranges: start to length.
    free: BTreeMap<u64, u64>,
    /// Where to look first: behind the last allocation, so that freed memory is used again as late as can be.
    cursor: u64,
    serial: u64,
    used: u64,
}

impl Allocations {
    /// A map of `bytes` free bytes from `base` on.
    #[must_use]
    pub fn new(base: u64, bytes: u64) -> Self {
        Self {
            live: BTreeMap::new(),
            freed: VecDeque::new(),
            free: BTreeMap::from([(base, bytes)]),
            cursor: base,
            serial: 0,
            used: 0,
        }
    }

    /// Bytes in live allocations.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Takes `bytes`; none where no free range is large enough.
    pub fn allocate(&mut self, bytes: u64, what: &str) -> Option<u64> {
        let address = self.reserve(bytes)?;
        self.occupy(address, bytes, what);
        Some(address)
    }

    /// Takes addresses for `bytes`, with no memory there yet.
    pub fn reserve(&mut self, bytes: u64) -> Option<u64> {
        let span = bytes.checked_next_multiple_of(ALIGN)?.checked_add(GAP)?;
        // The free range that the cursor is in, from there on, then those behind it, then those before.
        let around = self.free.range(..self.cursor).next_back().and_then(|(&first, &length)| {
            let start = self.cursor.max(first);
            Some((first, start, (first + length).checked_sub(start)?))
        });
        let whole = |(&first, &length): (&u64, &u64)| (first, first, length);
        let others = self.free.range(self.cursor..).chain(self.free.range(..self.cursor)).map(whole);
        let (first, start, length) = around.into_iter().chain(others).find(|&(.., length)| length >= span)?;
        self.free.remove(&first);
        if start > first {
            self.free.insert(first, start - first);
        }
        if length > span {
            self.free.insert(start + span, length - span);
        }
        self.cursor = start + span;
        Some(start)
    }

    /// Puts memory at reserved addresses.
    pub fn occupy(&mut self, address: u64, bytes: u64, what: &str) {
        self.serial += 1;
        self.used += bytes;
        self.live.insert(address, Allocation { address, bytes, serial: self.serial, what: what.to_owned() });
    }

    /// Gives back the allocation at `address`; none if there is none.
    pub fn free(&mut self, address: u64) -> Option<Allocation> {
        let allocation = self.vacate(address)?;
        self.release(address, allocation.bytes);
        Some(allocation)
    }

    /// Takes the memory at `address` away; its addresses stay reserved.
    pub fn vacate(&mut self, address: u64) -> Option<Allocation> {
        let allocation = self.live.remove(&address)?;
        self.used -= allocation.bytes;
        if self.freed.len() == REMEMBERED {
            self.freed.pop_front();
        }
        self.freed.push_back(allocation.clone());
        Some(allocation)
    }

    /// Gives reserved addresses back.
    pub fn release(&mut self, address: u64, bytes: u64) {
        let mut start = address;
        let mut length = bytes.next_multiple_of(ALIGN) + GAP;
        if let Some((&before, &size)) = self.free.range(..start).next_back()
            && before + size == start
        {
            self.free.remove(&before);
            start = before;
            length += size;
        }
        if let Some(&size) = self.free.get(&(start + length)) {
            self.free.remove(&(start + length));
            length += size;
        }
        self.free.insert(start, length);
    }

    /// The live allocation that all these bytes are in.
    #[must_use]
    pub fn find(&self, address: u64, bytes: u64) -> Option<&Allocation> {
        let (_, found) = self.live.range(..=address).next_back()?;
        let inside = address - found.address;
        (inside < found.bytes.max(1) && bytes <= found.bytes - inside).then_some(found)
    }

    /// The allocation that these bytes were in before it was freed, in words.
    #[must_use]
    pub fn freed(&self, address: u64) -> Option<String> {
        let was = self.freed.iter().rev().find(|a| address >= a.address && address - a.address < a.bytes)?;
        Some(was.describe(address))
    }

    /// Where `address` is, seen from the nearest live allocation, in words.
    #[must_use]
    pub fn nearest(&self, address: u64) -> String {
        let before = self.live.range(..=address).next_back().map(|(_, a)| a);
        let after = self.live.range(address..).next().map(|(_, a)| a);
        let distance = |a: &Allocation| {
            if address < a.address { a.address - address } else { address.saturating_sub(a.address + a.bytes) }
        };
        match before.into_iter().chain(after).min_by_key(|a| distance(a)) {
            Some(nearest) => nearest.describe(address),
            None => "nothing is allocated".to_owned(),
        }
    }

    /// All live allocations, by address.
    pub fn live(&self) -> impl Iterator<Item = &Allocation> {
        self.live.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_memory_is_used_again_last() {
        let mut map = Allocations::new(0x10000, 8192);
        let first = map.allocate(100, "device").unwrap();
        let second = map.allocate(100, "device").unwrap();
        assert!(second >= first + 100 + GAP);
        map.free(first).unwrap();
        assert!(map.allocate(100, "device").unwrap() > second);
        // What was allocated last, too, though it and all behind it are one free range.
        let third = map.allocate(100, "device").unwrap();
        map.free(third).unwrap();
        assert!(map.allocate(100, "device").unwrap() > third);
        assert!(map.freed(first + 99).unwrap().contains("99 bytes into allocation 1"));
        assert!(map.find(first, 1).is_none());
    }

    #[test]
    fn free_ranges_grow_together() {
        let mut map = Allocations::new(0, 4096);
        let all: Vec<u64> = (0..4).map(|_| map.allocate(512, "device").unwrap()).collect();
        assert_eq!(map.allocate(1, "device"), None);
        for address in [all[1], all[3], all[0], all[2]] {
            map.free(address).unwrap();
        }
        assert_eq!(map.allocate(3584, "device"), Some(0));
        assert_eq!(map.used(), 3584);
    }

    #[test]
    fn what_lies_in_front_of_the_cursor_is_kept_whole() {
        let mut map = Allocations::new(0x10000, 8192);
        let first = map.allocate(3072, "device").unwrap();
        map.free(first).unwrap();
        // All is one free range, and the next two allocations take what is behind the first.
        assert!(map.allocate(100, "device").is_some() && map.allocate(3072, "device").is_some());
        assert_eq!(map.allocate(3072, "device"), Some(first));
        assert_eq!(map.allocate(1, "device"), None);
    }

    #[test]
    fn an_access_must_end_inside() {
        let mut map = Allocations::new(0, 4096);
        let at = map.allocate(10, "device").unwrap();
        assert!(map.find(at + 6, 4).is_some());
        assert!(map.find(at + 7, 4).is_none());
        assert!(map.nearest(at + 10).contains("0 bytes past the end of allocation 1"));
    }

    #[test]
    fn an_address_is_told_by_the_nearest_allocation() {
        let mut map = Allocations::new(0x10000, 1 << 20);
        assert_eq!(map.nearest(0x10000), "nothing is allocated");
        let (first, second) = (map.allocate(100, "device").unwrap(), map.allocate(100, "pinned host").unwrap());
        assert!(second >= first + 200, "there is a gap with a middle");
        assert!(map.nearest(first + 104).starts_with("4 bytes past the end of allocation 1 (device, 100 bytes"));
        assert!(map.nearest(second - 4).starts_with("4 bytes before allocation 2 (pinned host, 100 bytes"));
        assert!(map.nearest(second + 99).starts_with("99 bytes into allocation 2"));
        assert!(map.nearest(first - 1).starts_with("1 bytes before allocation 1"));
        // Freed, it is remembered by its first byte and its last.
        let was = map.free(first).unwrap();
        assert_eq!((was.address, was.bytes, map.used()), (first, 100, 100));
        assert!(map.freed(first).is_some() && map.freed(first + 99).is_some());
        assert!(map.freed(first - 1).is_none() && map.freed(first + 100).is_none());
        assert!(map.free(first).is_none() && map.free(second + 1).is_none());
        assert_eq!(map.live().map(|live| live.address).collect::<Vec<_>>(), [second]);
    }

    #[test]
    fn what_was_freed_before_the_last_allocation_is_found_when_all_else_is_taken() {
        let mut map = Allocations::new(0, 4096);
        let all: Vec<u64> = (0..4).map(|_| map.allocate(512, "device").unwrap()).collect();
        // Neighbours, the later one first, make room for one as large as both.
        map.free(all[2]).unwrap();
        map.free(all[1]).unwrap();
        assert_eq!(map.allocate(1024 + GAP + 1, "device"), None);
        assert_eq!(map.allocate(1024 + GAP, "device"), Some(all[1]));
        assert_eq!(map.allocate(1, "device"), None);
        map.free(all[0]).unwrap();
        assert_eq!(map.allocate(512, "device"), Some(all[0]));
        assert!(map.find(all[1], 1024 + GAP).is_some() && map.find(all[1] + 1024 + GAP, 1).is_none());
    }
}
