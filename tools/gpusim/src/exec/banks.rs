//! The banks of shared memory: which lanes of a request are served together.

use super::access::lanes;

/// Lanes whose address an active lane before them has too, as far as a look at the usual distances tells.
#[inline(always)]
pub(super) fn repeats(addresses: &[u64; 32], mask: u32) -> u32 {
    [1, 2, 4, 8, 16].into_iter().fold(0, |found, by: usize| {
        let mut same = 0u32;
        for lane in by..32 {
            same |= u32::from(addresses[lane] == addresses[lane - by]) << lane;
        }
        found | same & mask << by
    }) & mask
}

/// Cycles that the 32 banks of four bytes need for a request, and would need without conflicts.
///
/// Lanes of up to 4 bytes are served together, of 8 by half-warps, of 16 by quarter-warps, each from as many banks as it
/// is wide; lanes that read the same word share it.
#[inline(always)]
pub(super) fn wavefronts(addresses: &[u64; 32], mask: u32, bytes: u32) -> (u32, u32) {
    match bytes {
        16 => conflicts::<4>(addresses, mask),
        8 => conflicts::<3>(addresses, mask),
        _ => conflicts::<2>(addresses, mask),
    }
}

/// [`wavefronts`] of lanes of 1 << `SHIFT` bytes.
#[inline(always)]
fn conflicts<const SHIFT: u32>(addresses: &[u64; 32], mask: u32) -> (u32, u32) {
    let group = 128usize >> SHIFT;
    let (mut total, mut ideal) = (0, 0);
    for start in (0..32).step_by(group) {
        let lanes_here = mask & (u32::MAX >> (32 - group)) << start;
        if lanes_here == 0 {
            continue;
        }
        let here = &addresses[start..start + group];
        // All in one row of the banks: no two words share a bank.
        let one_row = || {
            let row = addresses[lanes_here.trailing_zeros() as usize] / 128;
            let mut outside = 0u32;
            for (lane, address) in here.iter().enumerate() {
                outside |= u32::from(address / 128 != row) << (start + lane);
            }
            outside & lanes_here == 0
        };
        let distinct_banks = || {
            let mut banks = 0u32;
            for (lane, address) in here.iter().enumerate() {
                banks |= (lanes_here >> (start + lane) & 1) << ((address >> SHIFT) as usize % group);
            }
            banks.count_ones() == lanes_here.count_ones()
        };
        // Rows of a matrix mostly have banks of their own, single words are mostly in one row.
        if SHIFT == 4 && distinct_banks() || one_row() || SHIFT != 4 && distinct_banks() {
            total += 1;
            ideal += 1;
            continue;
        }
        let mut depth = [0u8; 32];
        let mut first = [0u64; 32];
        let mut deepest = 0;
        for lane in lanes(lanes_here) {
            let unit = addresses[lane] >> SHIFT;
            let bank = unit as usize % group;
            let here = |other: usize| addresses[other] >> SHIFT == unit;
            if depth[bank] == 0 {
                first[bank] = unit;
            } else if first[bank] == unit || lanes(lanes_here & ((1 << lane) - 1)).any(here) {
                continue;
            }
            depth[bank] += 1;
            deepest = deepest.max(depth[bank]);
        }
        total += u32::from(deepest);
        ideal += u32::from(deepest > 0);
    }
    (total, ideal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(step: u64) -> [u64; 32] {
        std::array::from_fn(|lane| 0x1000 + lane as u64 * step)
    }

    #[test]
    fn bank_conflicts_are_counted_as_the_hardware_serves_them() {
        assert_eq!(wavefronts(&spread(4), u32::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&spread(0), u32::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&spread(8), u32::MAX, 4), (2, 1));
        assert_eq!(wavefronts(&spread(128), u32::MAX, 4), (32, 1));
        assert_eq!(wavefronts(&spread(132), u32::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&spread(8), u32::MAX, 8), (2, 2));
        assert_eq!(wavefronts(&spread(16), u32::MAX, 16), (4, 4));
        assert_eq!(wavefronts(&spread(64), u32::MAX, 16), (16, 4));
    }
}
