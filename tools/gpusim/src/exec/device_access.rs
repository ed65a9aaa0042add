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
        let Self { core, space, addresses, mask, bytes, mode } = self;
        core.check_aligned(addresses, mask, bytes, mode)?;
        let mut runs = [Run::default(); 32];
        let runs = find_runs(addresses, mask, bytes, &mut runs);
        let (launch, at) = (core.launch, core.at);
        let arena = launch.arena;
        for run in runs {
            if !arena.is_line_initialised(run.line, run.bytes) {
                core.unmarked(space, addresses, mask, bytes, mode, *run)?;
            }
            arena.fetch_cell(run.line);
        }
        let wanted = runs.iter().map(|run| u64::from(run.bytes.count_ones())).sum();
        core.tally.device(at, sectors(runs), wanted);
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

/// The lines of a request, neighbouring lanes in one line together.
#[inline(always)]
fn find_runs<'a>(addresses: &[u64; 32], mask: u32, bytes: u32, runs: &'a mut [Run; 32]) -> &'a [Run] {
    let found = match bytes {
        4 => whole_lines::<16>(addresses, mask, runs),
        8 => whole_lines::<8>(addresses, mask, runs),
        16 => whole_lines::<4>(addresses, mask, runs),
        _ => 0,
    };
    if found > 0 {
        return &runs[..found];
    }
    let mut count = 0;
    let (mut line, mut bits) = (u64::MAX, 0);
    for lane in lanes(mask) {
        let address = addresses[lane];
        if address / LINE * LINE != line {
            line = address / LINE * LINE;
            bits = 0;
            runs[count].lane = lane as u32;
            count += 1;
        }
        bits |= u64::MAX >> (LINE as u32 - bytes) << (address % LINE);
        (runs[count - 1].line, runs[count - 1].bytes) = (line, bits);
    }
    &runs[..count]
}

/// [`find_runs`] where groups of `N` lanes share a line and fill it, which is usual; 0 elsewhere.
#[inline(always)]
fn whole_lines<const N: usize>(addresses: &[u64; 32], mask: u32, runs: &mut [Run; 32]) -> usize {
    let mut elsewhere = mask ^ u32::MAX;
    for lane in 0..32 {
        let expected = addresses[lane / N * N] / LINE * LINE + (lane % N) as u64 * (LINE / N as u64);
        elsewhere |= u32::from(addresses[lane] != expected);
    }
    if elsewhere != 0 {
        return 0;
    }
    for (run, first) in runs.iter_mut().zip((0..32).step_by(N)) {
        *run = Run { line: addresses[first], bytes: u64::MAX, lane: first as u32 };
    }
    32 / N
}

/// How many sectors some runs touch together.
#[inline(always)]
fn sectors(runs: &[Run]) -> u64 {
    if runs.windows(2).all(|pair| pair[0].line < pair[1].line) {
        return runs.iter().map(|run| run.sectors()).sum();
    }
    let mut sorted = [Run::default(); 32];
    let sorted = &mut sorted[..runs.len()];
    sorted.copy_from_slice(runs);
    sorted.sort_unstable_by_key(|run| run.line);
    let lines = sorted.chunk_by(|a, b| a.line == b.line);
    lines.map(|same| Run { bytes: same.iter().fold(0, |all, run| all | run.bytes), ..same[0] }.sectors()).sum()
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
        let runs = find_runs(addresses, u32::MAX, bytes, &mut runs);
        (runs.to_vec(), sectors(runs))
    }

    #[test]
    fn a_coalesced_request_is_of_whole_lines() {
        for (bytes, lines) in [(4, 2), (8, 4), (16, 8)] {
            let (runs, sectors) = touched(&spread(bytes), bytes as u32);
            assert_eq!((runs.len(), sectors), (lines, 2 * lines as u64));
            for (i, run) in runs.into_iter().enumerate() {
                assert_eq!(run, Run { line: 0x1000 + 64 * i as u64, bytes: u64::MAX, lane: (32 / lines * i) as u32 });
            }
        }
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
        assert_eq!(touched(&again, 4).1, 8);
    }
}
