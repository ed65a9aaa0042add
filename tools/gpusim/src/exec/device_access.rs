//! Requests to device memory: the lines they touch, whether they may, and what they cost.

use super::access::{Mode, lanes};
use super::processor::{Work, with_best};
use super::{Core, Done, Stop};
use crate::check::{GlobalRace, LINE, Manner, Run, Touch};
use crate::fault::{Access, Kind};
use crate::ptx::ast::Space;

impl Mode {
    fn manner(self) -> Manner {
        match self {
            Self::Read => Manner::Read,
            Self::Write => Manner::Write,
            Self::StrongRead => Manner::OrderedRead,
            Self::StrongWrite | Self::Atomic => Manner::OrderedWrite,
        }
    }
}

impl Core<'_> {
    /// [`Core::locate`] for device memory, where a device address is a host address.
    pub(super) fn device(&mut self, space: Space, addresses: &[u64; 32], mask: u32, bytes: u32, mode: Mode) -> Done {
        with_best(DeviceRequest { core: self, space, addresses, mask, bytes, mode })
    }

    /// A line of which not all bytes are marked as initialised: fine for a store, which marks them.
    #[inline(never)]
    fn unmarked(&mut self, space: Space, addresses: &[u64; 32], mask: u32, bytes: u32, mode: Mode, run: Run) -> Done {
        let launch = self.launch;
        let first = run.line + u64::from(run.bytes.trailing_zeros());
        let behind = run.line + LINE - u64::from(run.bytes.leading_zeros());
        let (start, end) = self.common.written;
        if !mode.reads() && first >= start && behind <= end {
            launch.arena.mark_line(run.line, run.bytes);
            return Ok(());
        }
        for lane in lanes(mask) {
            let address = addresses[lane];
            if address / LINE * LINE != run.line || launch.arena.is_initialised(address, bytes) {
                continue;
            }
            let Some(found) = launch.allocations.find(address, bytes.into()) else {
                return Err(self.missed(space, lane as u32, address, bytes, mode));
            };
            self.common.written = (found.address, found.address + found.bytes);
            if mode.reads() {
                let nearest = launch.allocations.nearest(address);
                return Err(self.fault(lane as u32, Kind::Uninitialised { address, bytes, space, nearest }));
            }
            launch.arena.mark(address, bytes.into(), true);
        }
        Ok(())
    }

    #[cold]
    pub(super) fn missed(&self, space: Space, lane: u32, address: u64, bytes: u32, mode: Mode) -> Stop {
        let write = mode.writes();
        let allocations = self.launch.allocations;
        let kind = match allocations.freed(address) {
            Some(nearest) => Kind::UseAfterFree { address, bytes, write, nearest },
            None => Kind::OutOfBounds { address, bytes, space, write, nearest: allocations.nearest(address) },
        };
        self.fault(lane, kind)
    }

    #[cold]
    fn global_race(&self, lane: u32, race: GlobalRace) -> Stop {
        let thread = race.warp.map(|warp| self.launch.thread(warp, 0));
        let other = Access {
            block: self.launch.block_index(race.block),
            thread,
            line: race.at.map_or(0, |at| self.line(at)),
            write: race.write,
        };
        self.fault(lane, Kind::Race { address: race.address, space: Space::Global, other })
    }
}

/// A request to device memory, and whose.
struct DeviceRequest<'c, 'a> {
    core: &'c mut Core<'a>,
    space: Space,
    addresses: &'c [u64; 32],
    mask: u32,
    bytes: u32,
    mode: Mode,
}

impl Work for DeviceRequest<'_, '_> {
    type Output = Done;

    #[inline(always)]
    fn run(self) -> Done {
        let Self { addresses, mask, bytes, .. } = self;
        self.core.check_aligned(addresses, mask, bytes, self.mode)?;
        if mask == u32::MAX && is_span(addresses, bytes) {
            let first = addresses[0];
            let last = std::mem::replace(&mut self.core.common.spans[self.core.at as usize], first);
            let next = first.wrapping_add(first.wrapping_sub(last));
            span(next, bytes).for_each(|run| self.core.launch.arena.fetch(run.line));
            return self.check(span(first, bytes));
        }
        let mut found = [Run::default(); 32];
        let count = match bytes {
            _ if mask != u32::MAX => 0,
            4 => whole_lines::<16>(addresses, &mut found),
            8 => whole_lines::<8>(addresses, &mut found),
            16 => whole_lines::<4>(addresses, &mut found),
            _ => 0,
        };
        let count = if count == 0 { any_lines(addresses, mask, bytes, &mut found) } else { count };
        self.check(found[..count].iter().copied())
    }
}

impl DeviceRequest<'_, '_> {
    /// Checks and counts the lines of a request, each of them once.
    #[inline(always)]
    fn check(self, runs: impl Iterator<Item = Run> + Clone) -> Done {
        let Self { core, space, addresses, mask, bytes, mode } = self;
        let (launch, at) = (core.launch, core.at);
        let arena = launch.arena;
        runs.clone().for_each(|run| arena.fetch(run.line));
        let (mut sectors, mut wanted) = (0, 0);
        for run in runs.clone() {
            if !arena.is_line_initialised(run.line, run.bytes) {
                core.unmarked(space, addresses, mask, bytes, mode, run)?;
            }
            sectors += run.sectors();
            wanted += u64::from(run.bytes.count_ones());
        }
        core.tally.device(at, sectors, wanted);
        let touch =
            Touch::new(launch.serial, core.common.linear, core.warp.number, at, &core.warp.clocks, &launch.order);
        match arena.touch(runs, mode.manner(), &touch) {
            Ok(moved) => {
                core.tally.touched(moved, mode.writes());
                Ok(())
            }
            Err((lane, race)) => Err(core.global_race(lane, race)),
        }
    }
}

/// Do all lanes together touch whole lines in a row?
#[inline(always)]
fn is_span(addresses: &[u64; 32], bytes: u32) -> bool {
    let mut elsewhere = addresses[0] % LINE;
    for (lane, address) in (0..).zip(addresses) {
        elsewhere |= address ^ addresses[0].wrapping_add(lane * u64::from(bytes));
    }
    elsewhere == 0 && bytes > 1
}

/// The lines of a request that [`is_span`].
#[inline(always)]
fn span(first: u64, bytes: u32) -> impl Iterator<Item = Run> + Clone {
    let lanes = LINE as u32 / bytes;
    (0..32 / lanes).map(move |i| Run {
        line: first.wrapping_add(u64::from(i) * LINE),
        bytes: u64::MAX,
        lane: i * lanes,
    })
}

/// The lines where groups of `N` lanes share a line and fill it, as rows of a matrix's tile do; 0 elsewhere.
#[inline(always)]
fn whole_lines<const N: usize>(addresses: &[u64; 32], runs: &mut [Run; 32]) -> usize {
    let mut elsewhere = 0;
    for (group, first) in addresses.chunks_exact(N).zip((0..32).step_by(N)) {
        elsewhere |= group[0] % LINE;
        for (lane, address) in (0..).zip(group) {
            elsewhere |= address ^ group[0].wrapping_add(lane * LINE / N as u64);
        }
        runs[first / N] = Run { line: group[0], bytes: u64::MAX, lane: first as u32 };
    }
    let count = 32 / N;
    let lines = &runs[..count];
    let again = lines.windows(2).any(|pair| pair[0].line >= pair[1].line);
    if elsewhere == 0 && !again { count } else { 0 }
}

/// The lines of any request, each with all its lanes; gives how many there are.
#[inline(always)]
fn any_lines(addresses: &[u64; 32], mask: u32, bytes: u32, runs: &mut [Run; 32]) -> usize {
    let (mut lines, mut touched) = ([0; 32], [0; 32]);
    for lane in 0..32 {
        lines[lane] = addresses[lane] / LINE * LINE;
        touched[lane] = u64::MAX >> (LINE as u32 - bytes) << (addresses[lane] % LINE);
    }
    let (mut left, mut count) = (mask, 0);
    while left != 0 {
        let lane = left.trailing_zeros();
        let line = lines[lane as usize];
        let (mut here, mut all) = (0u32, 0);
        for other in 0..32 {
            let same = lines[other] == line && left >> other & 1 != 0;
            here |= u32::from(same) << other;
            all |= if same { touched[other] } else { 0 };
        }
        runs[count] = Run { line, bytes: all, lane };
        count += 1;
        left &= !here;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(step: u64) -> [u64; 32] {
        std::array::from_fn(|lane| 0x1000 + lane as u64 * step)
    }

    /// The lines that all lanes touch, and their sectors.
    fn touched(addresses: &[u64; 32], bytes: u32) -> (Vec<Run>, u64) {
        let mut runs = [Run::default(); 32];
        let count = any_lines(addresses, u32::MAX, bytes, &mut runs);
        let runs = runs[..count].to_vec();
        let sectors = runs.iter().map(|run| run.sectors()).sum();
        (runs, sectors)
    }

    #[test]
    fn a_coalesced_request_is_a_span() {
        for (bytes, lines) in [(2, 1), (4, 2), (8, 4), (16, 8)] {
            let addresses = spread(bytes.into());
            assert!(is_span(&addresses, bytes));
            assert!(!is_span(&addresses.map(|a| a + 32), bytes));
            let runs: Vec<Run> = span(0x1000, bytes).collect();
            assert_eq!((&runs, 2 * lines), (&touched(&addresses, bytes).0, touched(&addresses, bytes).1));
            assert_eq!(runs.len() as u64, lines);
        }
        assert!(!is_span(&[0x1000; 32], 4));
    }

    #[test]
    fn rows_of_a_tile_are_whole_lines() {
        let addresses = std::array::from_fn(|lane| 0x1000 + lane as u64 / 4 * 512 + lane as u64 % 4 * 16);
        let mut runs = [Run::default(); 32];
        assert_eq!(whole_lines::<4>(&addresses, &mut runs), 8);
        assert_eq!(runs[..8], touched(&addresses, 16).0);
        assert_eq!(whole_lines::<4>(&addresses.map(|a| a + 16), &mut runs), 0);
        assert_eq!(whole_lines::<4>(&addresses.map(|a| a & !512), &mut runs), 0, "a line twice");
    }

    #[test]
    fn a_misaligned_start_costs_a_sector_more() {
        let (runs, sectors) = touched(&spread(4).map(|a| a + 8), 4);
        assert_eq!((runs.len(), sectors), (3, 5));
        assert_eq!((runs[0].bytes, runs[2].bytes), (u64::MAX << 8, 0xff));
        assert_eq!((runs[0].lane, runs[1].lane, runs[2].lane), (0, 14, 30));
    }

    #[test]
    fn a_stride_of_a_sector_touches_one_a_lane() {
        assert_eq!(touched(&spread(32), 4).1, 32);
        assert_eq!(touched(&spread(0), 4).1, 1);
        let again = std::array::from_fn(|lane| 0x1000 + lane as u64 * 32 % 256);
        assert_eq!((touched(&again, 4).0.len(), touched(&again, 4).1), (4, 8));
    }
}
