//! What `ld` and `st` do: elements of each lane to and from register rows.

use super::access::{Mode, lanes};
use super::lanes::{Lane, set_wide_row, wide_row};
use super::memory::{HEAD, MODES, SPACES, addresses};
use super::processor::{Body, best};
use super::{Core, Done, Exec, Stop};
use crate::program::Inst;
use crate::ptx::ast::Space;
use std::marker::PhantomData;

/// The implementation for `count` elements a lane of `size` bytes, which is that of their registers too; 0 where it is
/// not.
pub(super) fn choose(store: bool, size: usize, count: usize) -> Exec {
    match (store, size, count) {
        (false, 2, 1) => best::<Load<u16, 1>>(),
        (false, 4, 1) => best::<Load<u32, 1>>(),
        (false, 4, 2) => best::<Load<u32, 2>>(),
        (false, 4, 4) => best::<Load<u32, 4>>(),
        (false, 8, 1) => best::<Load<u64, 1>>(),
        (false, 8, 2) => best::<Load<u64, 2>>(),
        (true, 2, 1) => best::<Store<u16, 1>>(),
        (true, 4, 1) => best::<Store<u32, 1>>(),
        (true, 4, 2) => best::<Store<u32, 2>>(),
        (true, 4, 4) => best::<Store<u32, 4>>(),
        (true, 8, 1) => best::<Store<u64, 1>>(),
        (true, 8, 2) => best::<Store<u64, 2>>(),
        (false, ..) => load_lanes,
        (true, ..) => store_lanes,
    }
}

/// Does each lane's place of so many bytes begin where the one before ends?
#[inline(always)]
fn in_a_row(at: &[u64; 32], bytes: usize) -> bool {
    let mut elsewhere = 0;
    for lane in 0..32 {
        elsewhere |= at[lane] ^ at[0].wrapping_add((lane * bytes) as u64);
    }
    elsewhere == 0
}

/// Loads of `N` elements a lane. They are fetched a lane at a time and then sorted by register.
struct Load<T, const N: usize>(PhantomData<T>);

impl<T: Lane, const N: usize> Body for Load<T, N> {
    #[inline(always)]
    unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
        // SAFETY: the decoder put an address row in operand 0 and N rows of T behind; `locate` found every active lane's
        // bytes readable.
        unsafe {
            let at = core.locate_elements(inst, mask)?;
            let mut elements = [[T::default(); N]; 32];
            if mask == u32::MAX && in_a_row(&at, size_of::<[T; N]>()) {
                elements = (at[0] as *const [[T; N]; 32]).read_unaligned();
            } else if mask == u32::MAX {
                for lane in 0..32 {
                    elements[lane] = (at[lane] as *const [T; N]).read_unaligned();
                }
            } else {
                lanes(mask).for_each(|lane| elements[lane] = (at[lane] as *const [T; N]).read_unaligned());
            }
            for (e, pair) in inst.wide[HEAD..].chunks_exact(2).enumerate().take(N) {
                let mut row = [T::default(); 32];
                for lane in 0..32 {
                    row[lane] = elements[lane][e];
                }
                core.set_row(pair[0], row, mask);
            }
        }
        Ok(())
    }
}

/// Stores of `N` elements a lane.
struct Store<T, const N: usize>(PhantomData<T>);

impl<T: Lane, const N: usize> Body for Store<T, N> {
    #[inline(always)]
    unsafe fn run(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
        // SAFETY: the decoder put an address row in operand 0 and N rows of T behind; `locate` found every active lane's
        // bytes writable.
        unsafe {
            let at = core.locate_elements(inst, mask)?;
            let mut elements = [[T::default(); N]; 32];
            for (e, pair) in inst.wide[HEAD..].chunks_exact(2).enumerate().take(N) {
                let row = core.row::<T>(pair[0]);
                for lane in 0..32 {
                    elements[lane][e] = row[lane];
                }
            }
            if mask == u32::MAX && in_a_row(&at, size_of::<[T; N]>()) {
                (at[0] as *mut [[T; N]; 32]).write_unaligned(elements);
            } else if mask == u32::MAX {
                for lane in 0..32 {
                    (at[lane] as *mut [T; N]).write_unaligned(elements[lane]);
                }
            } else {
                lanes(mask).for_each(|lane| (at[lane] as *mut [T; N]).write_unaligned(elements[lane]));
            }
        }
        Ok(())
    }
}

/// Loads of elements that are smaller than their registers, or of unusual numbers of them.
unsafe fn load_lanes(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let wide = &inst.wide;
    let (bytes, signed) = (wide[2], wide[3] != 0);
    // SAFETY: the decoder put an address row in operand 0.
    let at = unsafe { core.locate_elements(inst, mask)? };
    for (element, pair) in wide[HEAD..].chunks_exact(2).enumerate() {
        let (slot, size) = (pair[0], pair[1]);
        let from = at.map(|address| address.wrapping_add(element as u64 * u64::from(bytes)));
        // SAFETY: `locate` found every active lane's bytes readable; the slot is a row of `size` bytes per element.
        unsafe {
            match (bytes, size) {
                (4, 4) => {
                    let values = gather::<u32>(&from, mask);
                    core.set_row(slot, values, mask);
                }
                (8, 8) => {
                    let values = gather::<u64>(&from, mask);
                    core.set_row(slot, values, mask);
                }
                (2, 2) => {
                    let values = gather::<u16>(&from, mask);
                    core.set_row(slot, values, mask);
                }
                _ => {
                    let raw = match bytes {
                        1 => gather::<u8>(&from, mask).map(u64::from),
                        2 => gather::<u16>(&from, mask).map(u64::from),
                        4 => gather::<u32>(&from, mask).map(u64::from),
                        _ => gather::<u64>(&from, mask),
                    };
                    let unused = 64 - bytes * 8;
                    let values = raw.map(|v| if signed { ((v << unused) as i64 >> unused) as u64 } else { v });
                    set_wide_row(core, slot, size, values, mask);
                }
            }
        }
    }
    Ok(())
}

/// Stores of elements that are smaller than their registers, or of unusual numbers of them.
unsafe fn store_lanes(core: &mut Core<'_>, inst: &Inst, mask: u32) -> Done {
    let (wide, bytes) = (&inst.wide, inst.wide[2]);
    // SAFETY: the decoder put an address row in operand 0.
    let at = unsafe { core.locate_elements(inst, mask)? };
    for (element, pair) in wide[HEAD..].chunks_exact(2).enumerate() {
        // SAFETY: the slot is a row of `size` bytes per element; `locate` found every active lane's bytes writable.
        unsafe {
            let values = wide_row(core, pair[0], pair[1]);
            for lane in lanes(mask) {
                let to = at[lane] as *mut u8;
                let to = to.add(element * bytes as usize);
                match bytes {
                    1 => to.write(values[lane] as u8),
                    2 => to.cast::<u16>().write_unaligned(values[lane] as u16),
                    4 => to.cast::<u32>().write_unaligned(values[lane] as u32),
                    _ => to.cast::<u64>().write_unaligned(values[lane]),
                }
            }
        }
    }
    Ok(())
}

/// Reads a value a lane.
///
/// # Safety
/// Every active lane's address is readable.
#[inline]
unsafe fn gather<T: Copy + Default>(from: &[u64; 32], mask: u32) -> [T; 32] {
    let mut out = [T::default(); 32];
    let read = |lane: usize| {
        // SAFETY: the caller's promise.
        unsafe { (from[lane] as *const T).read_unaligned() }
    };
    if mask == u32::MAX {
        for (lane, value) in out.iter_mut().enumerate() {
            *value = read(lane);
        }
    } else {
        lanes(mask).for_each(|lane| out[lane] = read(lane));
    }
    out
}

impl Core<'_> {
    /// Where the elements of a load or a store are, all of it checked and counted.
    ///
    /// # Safety
    /// The instruction has an address row in operand 0.
    #[inline(always)]
    unsafe fn locate_elements(&mut self, inst: &Inst, mask: u32) -> Result<[u64; 32], Stop> {
        let wide = &inst.wide;
        let (space, mode, bytes) = (SPACES[wide[0] as usize], MODES[wide[1] as usize], wide[2]);
        let count = (wide.len() - HEAD) as u32 / 2;
        // SAFETY: the caller's promise.
        let mut at = unsafe { addresses(self, inst.a[0], wide[4] != 0, inst.imm) };
        self.locate_wide(space, &mut at, mask, bytes, count, mode)?;
        match mode {
            Mode::StrongRead => {
                self.launch.order.look(&mut self.warp.clocks);
                if wide[5] != 0 {
                    self.warp.clocks.fence_after_look();
                }
            }
            Mode::StrongWrite => {
                if wide[5] != 0 {
                    self.warp.clocks.fence_before_release();
                }
                self.launch.order.release(self.common.linear, &self.warp.clocks);
            }
            _ => {}
        }
        Ok(at)
    }

    /// [`Core::locate`] for `count` elements of `bytes`; more than 16 bytes a lane count as two requests.
    fn locate_wide(&mut self, space: Space, at: &mut [u64; 32], mask: u32, bytes: u32, count: u32, mode: Mode) -> Done {
        if bytes * count > 16 {
            let mut second = at.map(|address| address.wrapping_add(16));
            self.locate(space, &mut second, mask, bytes * count - 16, mode)?;
            return self.locate(space, at, mask, 16, mode);
        }
        self.locate(space, at, mask, bytes * count, mode)
    }
}
