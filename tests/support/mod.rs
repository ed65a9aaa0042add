//! What the test files share: a comparison that cannot be fooled, and numbers from a seed.

#![allow(dead_code, reason = "each test file takes what it needs")]

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// The generator every test draws from; its sequence is the same on every machine and in every version of `rand`.
pub fn generator(seed: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed)
}

/// `len` numbers, uniform in `lo..hi`.
pub fn seeded(seed: u64, len: usize, lo: f64, hi: f64) -> Vec<f64> {
    let mut generator = generator(seed);
    (0..len).map(|_| generator.random_range(lo..hi)).collect()
}

/// Whether `|found − expected| <= atol + rtol·|expected|` holds for every element; the message names the worst one.
/// A NaN on either side and two different lengths are mismatches, and so is an infinity: its difference is no number.
pub fn compare(what: &str, found: &[f64], expected: &[f64], atol: f64, rtol: f64) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{what}: found {} elements, expected {}", found.len(), expected.len()));
    }
    // How many times over its allowance an element is; what is no number at all counts as infinitely far off.
    let excess = |i: usize| {
        let (error, allowed) = ((found[i] - expected[i]).abs(), atol + rtol * expected[i].abs());
        match error / allowed {
            _ if error.is_finite() && error <= allowed => 0.0,
            ratio if ratio.is_finite() => ratio,
            _ => f64::INFINITY,
        }
    };
    let wrong = (0..found.len()).filter(|&i| excess(i) > 0.0).count();
    match (0..found.len()).max_by(|&i, &j| excess(i).total_cmp(&excess(j))) {
        Some(worst) if wrong > 0 => Err(format!(
            "{what}: {wrong} of {} elements differ; the worst is [{worst}]: found {:e}, expected {:e} (atol {atol:e}, rtol {rtol:e})",
            found.len(),
            found[worst],
            expected[worst],
        )),
        _ => Ok(()),
    }
}

/// [`compare`], or panic with its message.
#[track_caller]
pub fn assert_close(what: &str, found: &[f64], expected: &[f64], atol: f64, rtol: f64) {
    if let Err(mismatch) = compare(what, found, expected, atol, rtol) {
        panic!("{mismatch}");
    }
}
