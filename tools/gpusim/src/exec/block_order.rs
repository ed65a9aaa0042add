//! The order in which the blocks of a launch begin.
//!
//! CUDA promises none, and hardware has none to rely on: blocks begin as multiprocessors have room. Here they would always
//! begin with the first, so that a kernel whose result depends on who is first, or that waits for a block with a higher
//! number, would pass every test. In another order it doesn't.

/// In which order a launch's blocks begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockOrder {
    /// From the first to the last.
    #[default]
    Ascending,
    /// From the last to the first.
    Descending,
    /// In a random order, of this seed and another in each launch.
    Shuffled(u64),
}

/// A launch's blocks in their order.
pub(super) enum Turns {
    Ascending,
    Descending { last: u32 },
    Listed(Vec<u32>),
}

impl BlockOrder {
    /// The turns of so many blocks in the launch of this number.
    pub(super) fn turns(self, blocks: u32, serial: u32) -> Turns {
        match self {
            Self::Ascending => Turns::Ascending,
            Self::Descending => Turns::Descending { last: blocks.saturating_sub(1) },
            Self::Shuffled(seed) => {
                let mut order: Vec<u32> = (0..blocks).collect();
                let mut state = seed ^ u64::from(serial) << 32;
                for i in (1..order.len()).rev() {
                    order.swap(i, (next(&mut state) % (i as u64 + 1)) as usize);
                }
                Turns::Listed(order)
            }
        }
    }
}

impl Turns {
    /// The block whose turn it is.
    pub(super) fn block(&self, turn: u32) -> u32 {
        match self {
            Self::Ascending => turn,
            Self::Descending { last } => last - turn,
            Self::Listed(order) => order[turn as usize],
        }
    }
}

/// The next number of the generator SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
/// generators", 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_has_one_turn() {
        for order in [BlockOrder::Ascending, BlockOrder::Descending, BlockOrder::Shuffled(7)] {
            let turns = order.turns(1000, 3);
            let mut blocks: Vec<u32> = (0..1000).map(|turn| turns.block(turn)).collect();
            assert_eq!(order == BlockOrder::Ascending, blocks.is_sorted());
            blocks.sort_unstable();
            assert_eq!(blocks, (0..1000).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn a_shuffle_is_another_in_each_launch_and_for_each_seed() {
        let blocks = |seed, serial| {
            let turns = BlockOrder::Shuffled(seed).turns(100, serial);
            (0..100).map(|turn| turns.block(turn)).collect::<Vec<u32>>()
        };
        assert_eq!(blocks(7, 3), blocks(7, 3));
        assert!(blocks(7, 3) != blocks(7, 4) && blocks(7, 3) != blocks(8, 3));
    }
}
