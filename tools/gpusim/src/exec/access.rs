//! One memory request of a warp: where each lane's bytes are, whether it may, and what it costs.

use super::banks::{repeats, wavefronts};
use super::processor::{Work, with_best};
use super::{Core, Done, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Stop};
use crate::check::{Clash, Stamp};
use crate::fault::{Access, Kind};
use crate::ptx::ast::Space;

/// What a request does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Reads.
    Read,
    /// Reads with an order: volatile, relaxed, acquire. Doesn't race.
    StrongRead,
    /// Writes.
    Write,
    /// Writes with an order. Doesn't race.
    StrongWrite,
    /// Reads and writes at once. Doesn't race.
    Atomic,
}

impl Mode {
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::StrongWrite | Self::Atomic)
    }

    pub fn reads(self) -> bool {
        matches!(self, Self::Read | Self::StrongRead | Self::Atomic)
    }

    fn races(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

/// Lanes of a mask.
pub(super) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        (left != 0).then(|| {
            let lane = left.trailing_zeros();
            left &= left - 1;
            lane as usize
        })
    })
}

impl Core<'_> {
    /// Checks and counts a request of `bytes` a lane, and turns the addresses of its lanes into host addresses.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub(super) fn locate(
        &mut self,
        space: Space,
        addresses: &mut [u64; 32],
        mask: u32,
        bytes: u32,
        mode: Mode,
    ) -> Done {
        match space {
            Space::Global | Space::Const => self.device(space, addresses, mask, bytes, mode),
            Space::Shared => self.shared(addresses, mask, bytes, mode),
            Space::Local => self.local(addresses, mask, bytes, mode),
            Space::Param => self.parameters(addresses, mask, bytes, mode),
            Space::Generic | Space::Reg => self.generic(addresses, mask, bytes, mode),
        }
    }

    /// Each lane's address says which space it is in.
    fn generic(&mut self, addresses: &mut [u64; 32], mask: u32, bytes: u32, mode: Mode) -> Done {
        let mut left = mask;
        while left != 0 {
            let window = addresses[left.trailing_zeros() as usize] >> 56;
            let same = lanes(left).filter(|&lane| addresses[lane] >> 56 == window).fold(0, |m, lane| m | 1 << lane);
            left &= !same;
            let space = match window << 56 {
                SHARED_WINDOW => Space::Shared,
                LOCAL_WINDOW => Space::Local,
                PARAM_WINDOW => Space::Param,
                _ => Space::Global,
            };
            if space != Space::Global {
                lanes(same).for_each(|lane| addresses[lane] &= (1 << 56) - 1);
            }
            self.locate(space, addresses, same, bytes, mode)?;
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn check_aligned(&self, addresses: &[u64; 32], mask: u32, bytes: u32, mode: Mode) -> Done {
        let low = u64::from(bytes) - 1;
        if addresses.iter().fold(0, |all, address| all | address) & low == 0 {
            return Ok(());
        }
        let mut wrong = 0u32;
        for (lane, address) in addresses.iter().enumerate() {
            wrong |= u32::from(address & low != 0) << lane;
        }
        match wrong & mask {
            0 => Ok(()),
            wrong => {
                let lane = wrong.trailing_zeros();
                let address = addresses[lane as usize];
                Err(self.fault(lane, Kind::Misaligned { address, bytes, write: mode.writes() }))
            }
        }
    }

    #[cold]
    fn shared_race(&self, lane: u32, address: u64, clash: Clash) -> Stop {
        let other = Access {
            block: self.common.index,
            thread: clash.lane.map(|lane| self.launch.thread(clash.warp, lane)),
            line: self.line(clash.at),
            write: clash.write,
        };
        self.fault(lane, Kind::Race { address, space: Space::Shared, other })
    }

    fn shared(&mut self, addresses: &mut [u64; 32], mask: u32, bytes: u32, mode: Mode) -> Done {
        with_best(SharedRequest { core: self, addresses, mask, bytes, mode })
    }

    /// The race check's stamp of the instruction in hand, by several lanes.
    #[inline]
    fn stamp(&self) -> Stamp {
        Stamp::new(self.warp.clocks.now(self.warp.number), self.at, self.warp.number)
    }

    /// Checks the accesses of some lanes to shared memory; `together` when the warp acts as one.
    #[inline(always)]
    fn shared_lanes(&mut self, offsets: &[u64; 32], mask: u32, bytes: u32, mode: Mode, together: bool) -> Done {
        let stamp = self.stamp();
        for lane in lanes(mask) {
            let named = if together { stamp } else { stamp.of_lane(lane as u32) };
            self.shared_at(offsets[lane], bytes, mode, lane as u32, named)?;
        }
        Ok(())
    }

    /// Checks reads or writes of granules of 16 bytes by a warp that acts as one, a granule a lane from the first on.
    #[inline(always)]
    pub(super) fn shared_granules(&mut self, offsets: &[u64], mode: Mode) -> Done {
        let stamp = self.stamp();
        let mut done = 0;
        while done < offsets.len() {
            if mode == Mode::Read {
                done += self.common.shared.read_plain(&offsets[done..], stamp, &self.warp.clocks);
            }
            if let Some(&offset) = offsets.get(done) {
                self.shared_at(offset, 16, mode, done as u32, stamp)?;
                done += 1;
            }
        }
        Ok(())
    }

    /// Checks the access of a lane to shared memory.
    pub(super) fn shared_lane(&mut self, offset: u64, bytes: u32, mode: Mode, lane: u32) -> Done {
        self.shared_at(offset, bytes, mode, lane, self.stamp().of_lane(lane))
    }

    #[inline(always)]
    fn shared_at(&mut self, offset: u64, bytes: u32, mode: Mode, lane: u32, stamp: Stamp) -> Done {
        let shared = &mut self.common.shared;
        if !shared.holds(offset, bytes) || mode.reads() && !shared.is_initialised(offset, bytes) {
            return Err(self.no_value(offset, bytes, mode, lane));
        }
        if mode.writes() {
            shared.mark(offset, bytes);
        }
        if let Some(line) = shared.promised(offset, bytes) {
            return Err(self.fault(lane, Kind::AsyncPending { address: offset, line }));
        }
        if mode.races() {
            let clash = shared.touch(offset, bytes, mode.writes(), stamp, &self.warp.clocks);
            if let Some(clash) = clash {
                return Err(self.shared_race(lane, offset, clash));
            }
        }
        Ok(())
    }

    /// Checks an access (of up to 16 bytes, naturally aligned) by an agent that works beside the warp, on behalf of `lane`.
    pub(super) fn agent_touch(
        &mut self,
        offset: u64,
        bytes: u32,
        write: bool,
        agent: u32,
        clock: u32,
        lane: u32,
    ) -> Done {
        let mode = if write { Mode::Write } else { Mode::Read };
        self.shared_at(offset, bytes, mode, lane, Stamp::new(clock, self.at, agent))
    }

    /// Shared memory that isn't there, or that nobody wrote.
    #[cold]
    fn no_value(&self, address: u64, bytes: u32, mode: Mode, lane: u32) -> Stop {
        let (shared, space) = (&self.common.shared, Space::Shared);
        let kind = if shared.holds(address, bytes) {
            let nearest = "shared memory starts without a value in every block".to_owned();
            Kind::Uninitialised { address, bytes, space, nearest }
        } else {
            let nearest = format!("the block has {} bytes", shared.bytes());
            Kind::OutOfBounds { address, bytes, space, write: mode.writes(), nearest }
        };
        self.fault(lane, kind)
    }

    fn local(&mut self, addresses: &mut [u64; 32], mask: u32, bytes: u32, mode: Mode) -> Done {
        self.check_aligned(addresses, mask, bytes, mode)?;
        let size = self.warp.local_bytes as u64;
        for lane in lanes(mask) {
            let address = addresses[lane];
            if address >= size || u64::from(bytes) > size - address {
                let nearest = format!("the thread has {size} bytes");
                let write = mode.writes();
                return Err(
                    self.fault(lane as u32, Kind::OutOfBounds { address, bytes, space: Space::Local, write, nearest })
                );
            }
        }
        let base = self.warp.local.as_mut_ptr() as u64;
        for (lane, address) in (0..).zip(addresses.iter_mut()) {
            *address = address.wrapping_add(base + lane * size);
        }
        Ok(())
    }

    fn parameters(&mut self, addresses: &mut [u64; 32], mask: u32, bytes: u32, mode: Mode) -> Done {
        self.check_aligned(addresses, mask, bytes, mode)?;
        let size = self.launch.arguments.len() as u64;
        for lane in lanes(mask) {
            let (address, write) = (addresses[lane], mode.writes());
            if write || address >= size || u64::from(bytes) > size - address {
                let nearest = format!("the kernel's parameters have {size} bytes and can only be read");
                return Err(
                    self.fault(lane as u32, Kind::OutOfBounds { address, bytes, space: Space::Param, write, nearest })
                );
            }
        }
        let base = self.launch.arguments.as_ptr() as u64;
        addresses.iter_mut().for_each(|address| *address = address.wrapping_add(base));
        Ok(())
    }
}

/// A request to shared memory, and whose.
struct SharedRequest<'c, 'a> {
    core: &'c mut Core<'a>,
    addresses: &'c mut [u64; 32],
    mask: u32,
    bytes: u32,
    mode: Mode,
}

impl Work for SharedRequest<'_, '_> {
    type Output = Done;

    #[inline(always)]
    fn run(self) -> Done {
        let Self { core, addresses, mask, bytes, mode } = self;
        core.check_aligned(addresses, mask, bytes, mode)?;
        // Lanes that read the same word are looked at once, as if they were one.
        let repeated = if mode == Mode::Read { repeats(addresses, mask) } else { 0 };
        let (once, together) = (mask & !repeated, repeated != 0);
        match bytes {
            // The usual sizes, each compiled for itself.
            4 => core.shared_lanes(addresses, once, 4, mode, together)?,
            16 => core.shared_lanes(addresses, once, 16, mode, together)?,
            _ => core.shared_lanes(addresses, once, bytes, mode, together)?,
        }
        let (wavefronts, ideal) = wavefronts(addresses, mask, bytes);
        core.tally.shared(core.at, wavefronts, ideal);
        let base = core.common.shared.pointer() as u64;
        addresses.iter_mut().for_each(|address| *address = address.wrapping_add(base));
        Ok(())
    }
}
