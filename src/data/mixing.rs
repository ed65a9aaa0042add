//! Posters that are mixed in pairs before training looks at them: mixup (Zhang et al. 2018, *mixup: Beyond Empirical Risk Minimization*).
//!
//! Two posters of a batch become `λ·a + (1 − λ)·b` and `μ·b + (1 − μ)·a`, their targets as well, with shares of a Beta(α, α) distribution
//! from ½ on, so that each has more of itself. The first of a batch is mixed with the last, the second with the one before, and so on; one
//! in the middle stays as it is. A poster's share is a pure function of (seed, epoch, poster), and the pairs follow from the batch.

use super::distortion::nearest;
use crate::random::{Philox, Stream};

/// Mixes the posters `indices` of a batch: `pixels [B, …]` and `targets [B, C]`, with shares of Beta(`alpha`, `alpha`); 0 for none.
pub fn mix(alpha: f64, pixels: &mut [u8], targets: &mut [f32], seed: u64, epoch: u32, indices: &[u32]) {
    let posters = indices.len();
    if alpha == 0.0 || posters < 2 {
        return;
    }
    let (image, classes) = (pixels.len() / posters, targets.len() / posters);
    let (first, last) = pixels.split_at_mut(posters / 2 * image);
    let (first_targets, last_targets) = targets.split_at_mut(posters / 2 * classes);
    let images = first.chunks_exact_mut(image).zip(last.rchunks_exact_mut(image));
    let targets = first_targets.chunks_exact_mut(classes).zip(last_targets.rchunks_exact_mut(classes));
    for (at, ((a, b), (targets_of_a, targets_of_b))) in images.zip(targets).enumerate() {
        let [of_a, of_b] = [indices[at], indices[posters - 1 - at]].map(|poster| share(alpha, seed, epoch, poster));
        for (a, b) in a.iter_mut().zip(b) {
            let (one, other) = (f32::from(*a), f32::from(*b));
            (*a, *b) = (nearest(other + of_a * (one - other)), nearest(one + of_b * (other - one)));
        }
        for (a, b) in targets_of_a.iter_mut().zip(targets_of_b) {
            let (one, other) = (*a, *b);
            (*a, *b) = (other + of_a * (one - other), one + of_b * (other - one));
        }
    }
}

/// How much of itself a poster keeps.
fn share(alpha: f64, seed: u64, epoch: u32, poster: u32) -> f32 {
    let mut sequence = Philox::new(seed).sequence(Stream::Mixing, epoch, poster);
    // Jöhnk's: of two uniforms to the power 1/α whose sum is at most 1, the first one's part of it. For α up to 1 that is every second pair
    // or more.
    loop {
        let [x, y] = std::array::from_fn(|_| f64::from(sequence.uniform()).powf(1.0 / alpha));
        // With an α so small, all shares are 0 or 1.
        if x + y == 0.0 {
            return 1.0;
        }
        if x + y <= 1.0 {
            let share = x / (x + y);
            return share.max(1.0 - share) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With α = 1 shares are uniform from ½ to 1; the smaller it is, the more of them are near 1. The moments are those of Beta.
    #[test]
    fn shares_are_of_a_beta_distribution() {
        for (alpha, deviation) in [(1.0, 1.0 / 12.0), (0.5, 0.125), (0.2, 1.0 / 5.6)] {
            let shares: Vec<f64> = (0..20_000).map(|poster| f64::from(share(alpha, 5, 3, poster))).collect();
            assert!(shares.iter().all(|share| (0.5..=1.0).contains(share)));
            // The variance of Beta(α, α) is 1/(4(2α + 1)), about ½, on whichever side of it a share falls.
            let variance = shares.iter().map(|share| (share - 0.5).powi(2)).sum::<f64>() / shares.len() as f64;
            assert!((variance - deviation).abs() < 0.003, "{alpha}: {variance}");
        }
        assert_eq!(share(1e-300, 5, 3, 7), 1.0);
        assert!(share(0.2, 5, 3, 7) == share(0.2, 5, 3, 7) && share(0.2, 5, 4, 7) != share(0.2, 5, 3, 7));
    }

    #[test]
    fn pairs_are_mixed_from_the_ends_and_the_middle_stays() {
        let indices = [11, 5, 8, 2, 9];
        let before: Vec<u8> = (0..10).map(|at| 25 * at).collect();
        let labels: [f32; 10] = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0];
        let (mut pixels, mut targets) = (before.clone(), labels);
        mix(0.4, &mut pixels, &mut targets, 1, 2, &indices);
        for (at, other) in [4, 3, 2, 1, 0].into_iter().enumerate() {
            let own = share(0.4, 1, 2, indices[at]);
            for part in 0..2 {
                let (here, there) = (2 * at + part, 2 * other + part);
                let expected = own * f32::from(before[here]) + (1.0 - own) * f32::from(before[there]);
                assert!((f32::from(pixels[here]) - expected).abs() <= 0.5001, "poster {at}");
                let expected = own * labels[here] + (1.0 - own) * labels[there];
                assert!((targets[here] - expected).abs() <= 1e-6, "poster {at}");
            }
        }
        assert_eq!((&pixels[4..6], &targets[4..6]), (&before[4..6], &labels[4..6]));

        let (mut pixels, mut targets) = (before.clone(), labels);
        mix(0.0, &mut pixels, &mut targets, 1, 2, &indices);
        assert_eq!((&pixels, targets), (&before, labels));
        mix(0.4, &mut pixels, &mut targets, 1, 2, &[3]);
        assert_eq!((pixels, targets), (before, labels), "one alone");
    }
}
