//! Where each training poster lands: mirrored or not, and moved a little.
//!
//! Only the draw is made here, a few bytes per sample; the device applies it while it turns `u8` pixels into activations.

use crate::device::Placement;
use crate::random::{Philox, Stream};

/// What training does to posters before it looks at them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Augmentation {
    /// Nothing.
    #[default]
    None,
    /// A mirror image every other time, and a shift of up to a sixteenth of the size each way (at most 127 pixels).
    FlipShift,
}

impl Augmentation {
    /// The placement of image `sample` of `size` x `size` pixels in `epoch`: a pure function of its arguments.
    pub fn place(self, seed: u64, epoch: u32, sample: u32, size: usize) -> Placement {
        match self {
            Augmentation::None => Placement::default(),
            Augmentation::FlipShift => {
                let mut sequence = Philox::new(seed).sequence(Stream::Augmentation, epoch, sample);
                let reach = (size / 16).min(i8::MAX as usize) as i32;
                let flip = sequence.below(2) == 1;
                let mut shift = || (sequence.below(2 * reach as u32 + 1) as i32 - reach) as i8;
                Placement { flip, shift_y: shift(), shift_x: shift() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_the_identity() {
        assert_eq!(Augmentation::None.place(1, 2, 3, 150), Placement { flip: false, shift_y: 0, shift_x: 0 });
    }

    #[test]
    fn every_placement_occurs_about_equally_often() {
        let mut counts = std::collections::BTreeMap::new();
        for sample in 0..18_000 {
            let Placement { flip, shift_y, shift_x } = Augmentation::FlipShift.place(1, 0, sample, 16);
            *counts.entry((flip, shift_y, shift_x)).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 2 * 3 * 3);
        assert_eq!(counts.first_key_value().map(|(key, _)| *key), Some((false, -1, -1)));
        assert_eq!(counts.last_key_value().map(|(key, _)| *key), Some((true, 1, 1)));
        assert!(counts.values().all(|count| count.abs_diff(1000) <= 130), "{counts:?}");
    }

    #[test]
    fn epochs_samples_and_seeds_differ() {
        let places = |seed, epoch| -> Vec<Placement> {
            (0..50).map(|sample| Augmentation::FlipShift.place(seed, epoch, sample, 150)).collect()
        };
        assert_eq!(places(1, 0), places(1, 0));
        assert_ne!(places(1, 0), places(1, 1));
        assert_ne!(places(1, 0), places(2, 0));
        assert!(places(1, 0).iter().any(|place| *place != places(1, 0)[0]));
    }

    #[test]
    fn extreme_sizes_stay_in_range() {
        for sample in 0..200 {
            let tiny = Augmentation::FlipShift.place(1, 0, sample, 15);
            assert_eq!((tiny.shift_y, tiny.shift_x), (0, 0));
            let huge = Augmentation::FlipShift.place(1, 0, sample, usize::MAX);
            assert!(huge.shift_y >= -127 && huge.shift_x >= -127);
        }
    }
}
