//! Random numbers as pure functions: Philox4x32-10, a counter-based generator.
//!
//! Nothing here carries state from one step of training to the next. A number is named by (seed, stream, who, index) and is the
//! same whoever asks and whenever, so a checkpoint stores a seed and a step, threads need no order among themselves, and a
//! CUDA kernel can draw the same numbers in a dozen lines.
//!
//! Source: Salmon, Moraes, Dror, Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC 2011; the constants and the known
//! answers in the tests are those of their Random123 library.

/// What a number is for. Two streams of one seed never share a counter, so adding a draw to one leaves the others alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// The order of the training set, by epoch.
    Shuffle = 1,
    /// Flips and shifts, by epoch and sample.
    Augmentation = 2,
    /// Initial weights, by tensor and element.
    Initialiser = 3,
    /// Synthetic posters, by poster.
    Synthetic = 4,
    /// Windows, turns, colours and covers, by epoch and sample.
    Distortion = 5,
    /// The films of a resample, by resample.
    Bootstrap = 6,
}

/// The Philox4x32-10 block function under one key: ten rounds that scramble a counter of 128 bits.
#[derive(Clone, Copy, Debug)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// The generator of `seed`: its low word is the first word of the key.
    pub fn new(seed: u64) -> Philox {
        Philox { key: [seed as u32, (seed >> 32) as u32] }
    }

    /// The four random words of `counter`.
    pub fn block(&self, counter: [u32; 4]) -> [u32; 4] {
        const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
        const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
        let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, self.key);
        for _ in 0..10 {
            let left = MULTIPLIERS[0] * u64::from(c0);
            let right = MULTIPLIERS[1] * u64::from(c2);
            (c0, c1, c2, c3) =
                ((right >> 32) as u32 ^ c1 ^ k0, right as u32, (left >> 32) as u32 ^ c3 ^ k1, left as u32);
            k0 = k0.wrapping_add(WEYL[0]);
            k1 = k1.wrapping_add(WEYL[1]);
        }
        [c0, c1, c2, c3]
    }

    /// The sequence of (`stream`, `major`, `minor`), for instance (augmentation, epoch, sample).
    /// Its block number `n` is `block([n, minor, major, stream])`.
    pub fn sequence(&self, stream: Stream, major: u32, minor: u32) -> Sequence {
        Sequence { philox: *self, counter: [0, minor, major, stream as u32], words: [0; 4], unread: 0 }
    }
}

/// The numbers of one (seed, stream, major, minor), read from the start.
#[derive(Clone, Debug)]
pub struct Sequence {
    philox: Philox,
    counter: [u32; 4],
    words: [u32; 4],
    unread: usize,
}

impl Sequence {
    /// The next 32 random bits.
    pub fn bits(&mut self) -> u32 {
        if self.unread == 0 {
            self.words = self.philox.block(self.counter);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.unread = 4;
        }
        self.unread -= 1;
        self.words[3 - self.unread]
    }

    /// Uniform in [0, 1), a multiple of 2⁻²⁴: every value an `f32` holds exactly, none rounded up to 1.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `low..high`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// An integer in `0..bound`, each equally likely; 0 if `bound` is 0.
    ///
    /// Lemire's multiplication: the high word of `bits · bound`, drawn again for the few low words that would favour some results.
    pub fn below(&mut self, bound: u32) -> u32 {
        let mut product = u64::from(self.bits()) * u64::from(bound);
        if (product as u32) < bound {
            let unfair = bound.wrapping_neg() % bound;
            while (product as u32) < unfair {
                product = u64::from(self.bits()) * u64::from(bound);
            }
        }
        (product >> 32) as u32
    }

    /// Normal with mean 0 and variance 1, by Box and Muller: √(-2 ln(1-u)) cos(2πv), with two uniforms a number.
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.uniform()).cos()
    }
}

/// The order of `n` samples in `epoch`: 0..n shuffled (Fisher and Yates, from the end), every order equally likely.
pub fn permutation(seed: u64, epoch: u32, n: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n).collect();
    let mut sequence = Philox::new(seed).sequence(Stream::Shuffle, epoch, 0);
    for last in (1..n).rev() {
        order.swap(last as usize, sequence.below(last + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines `philox4x32 10` of Random123's `kat_vectors`.
    #[test]
    fn known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, answer) in cases {
            let seed = u64::from(key[0]) | u64::from(key[1]) << 32;
            assert_eq!(Philox::new(seed).block(counter), answer);
        }
    }

    #[test]
    fn sequences_are_pure_and_apart() {
        let draw = |seed, stream, major, minor| {
            let mut sequence = Philox::new(seed).sequence(stream, major, minor);
            std::array::from_fn::<u32, 8, _>(|_| sequence.bits())
        };
        let base = draw(1, Stream::Shuffle, 2, 3);
        assert_eq!(base, draw(1, Stream::Shuffle, 2, 3));
        for other in [
            draw(2, Stream::Shuffle, 2, 3),
            draw(1 << 32 | 1, Stream::Shuffle, 2, 3),
            draw(1, Stream::Augmentation, 2, 3),
            draw(1, Stream::Shuffle, 3, 3),
            draw(1, Stream::Shuffle, 2, 4),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut sequence = Philox::new(7).sequence(Stream::Initialiser, 0, 0);
        let n = 200_000;
        let moments = |values: &[f64]| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64)
        };
        let uniform: Vec<f64> = (0..n).map(|_| f64::from(sequence.uniform())).collect();
        assert!(uniform.iter().all(|u| (0.0..1.0).contains(u)));
        let (mean, variance) = moments(&uniform);
        assert!((mean - 0.5).abs() <= 0.003 && (variance - 1.0 / 12.0).abs() <= 0.001, "{mean} {variance}");
        let normal: Vec<f64> = (0..n).map(|_| f64::from(sequence.normal())).collect();
        let (mean, variance) = moments(&normal);
        assert!(mean.abs() <= 0.01 && (variance - 1.0).abs() <= 0.02, "{mean} {variance}");
        assert!(normal.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn bounded_integers_are_fair() {
        let mut sequence = Philox::new(3).sequence(Stream::Synthetic, 0, 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[sequence.below(7) as usize] += 1;
        }
        // Chi-squared with 6 degrees of freedom: 22.5 is exceeded once in a thousand seeds.
        let chi2: f64 = counts.iter().map(|&c| (f64::from(c) - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi2 <= 22.5, "{counts:?}");
        // A bound above half the range, where plain multiplication would favour every other result.
        let bound = 3 << 30;
        let low = (0..30_000).filter(|_| sequence.below(bound) < bound / 3).count();
        assert!(low.abs_diff(10_000) <= 400, "{low}");
        assert_eq!((sequence.below(0), sequence.below(1)), (0, 0));
    }

    #[test]
    fn permutations_hold_everyone_once() {
        for n in [0, 1, 2, 1000] {
            let mut order = permutation(5, 0, n);
            assert_eq!(order, permutation(5, 0, n));
            order.sort_unstable();
            assert!(order.into_iter().eq(0..n));
        }
        assert_ne!(permutation(5, 0, 1000), permutation(5, 1, 1000));
        assert_ne!(permutation(5, 0, 1000), permutation(6, 0, 1000));
        // All six orders of three, equally often.
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            *counts.entry(permutation(11, epoch, 3)).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|c| c.abs_diff(1000) <= 120), "{counts:?}");
    }
}
