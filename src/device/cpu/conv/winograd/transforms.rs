//! The transforms of Winograd's minimal filtering, F(2×2, 3×3) and F(4×4, 3×3), on tiles of many channels at once.
//!
//! `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` for `M`×`M` outputs of a 3×3 filter `g` over the (M+2)×(M+2) inputs `d` (Winograd 1980; Lavin and
//! Gray 2016). Both are Cook-Toom algorithms: polynomials multiplied by their values at a few points. F(2) has 0, ±1 and ∞. F(4) takes
//! 0, ±1/√2, ±√2 and ∞, not the usual ±1 and ±2: as the two pairs are each other's inverses, no row of a matrix grows large, and the
//! error is some 0.4 times that of the usual points.
//!
//! Each is a rule for one dimension, applied to the columns of a tile and then to the rows, for several channels at a time.

use crate::device::cpu::panels::COLUMNS;
use crate::device::cpu::simd::simd;
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};
use std::ops::{Add, Mul, Sub};

/// Channels that a tile is transformed in at a time.
const LANES: usize = COLUMNS;

/// Side of the largest tile of inputs.
const MOST: usize = 6;

/// A number of each of some channels. Loops of a known length over a copy are what the compiler makes vectors of.
#[derive(Clone, Copy)]
struct Lanes([f32; LANES]);

impl Lanes {
    #[inline(always)]
    fn with(self, other: Lanes, each: impl Fn(f32, f32) -> f32) -> Lanes {
        let mut result = self;
        for (x, y) in result.0.iter_mut().zip(other.0) {
            *x = each(*x, y);
        }
        result
    }
}

impl Add for Lanes {
    type Output = Lanes;

    #[inline(always)]
    fn add(self, other: Lanes) -> Lanes {
        self.with(other, |x, y| x + y)
    }
}

impl Sub for Lanes {
    type Output = Lanes;

    #[inline(always)]
    fn sub(self, other: Lanes) -> Lanes {
        self.with(other, |x, y| x - y)
    }
}

impl Mul<Lanes> for f32 {
    type Output = Lanes;

    #[inline(always)]
    fn mul(self, lanes: Lanes) -> Lanes {
        lanes.with(lanes, |x, _| self * x)
    }
}

const ZERO: Lanes = Lanes([0.0; LANES]);

/// A line of a tile; a rule leaves alone what it has no use for.
type Line = [Lanes; MOST];

/// A rule in one dimension: from so many numbers at the front of its argument to so many at the front of its result.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Rule {
    /// `Bᵀ d`, M+2 to M+2.
    Input,
    /// `G g`, 3 to M+2.
    Filter,
    /// `Aᵀ m`, M+2 to M.
    Output,
    /// `A y`, M to M+2: the gradient of the output's rule.
    OutputGradient,
    /// `Gᵀ u`, M+2 to 3: the gradient of the filter's rule.
    FilterGradient,
}

impl Rule {
    /// Numbers in and numbers out, with `M` outputs a tile.
    pub(super) fn extents(self, m: usize) -> [usize; 2] {
        match self {
            Rule::Input => [m + 2, m + 2],
            Rule::Filter => [3, m + 2],
            Rule::Output => [m + 2, m],
            Rule::OutputGradient => [m, m + 2],
            Rule::FilterGradient => [m + 2, 3],
        }
    }
}

/// The rule for F(2).
#[inline(always)]
fn two(rule: Rule, [a, b, c, d, ..]: Line) -> Line {
    let [w, x, y, z] = match rule {
        Rule::Input => [a - c, b + c, c - b, d - b],
        Rule::Filter => {
            let (even, odd) = (0.5 * (a + c), 0.5 * b);
            [a, even + odd, even - odd, c]
        }
        Rule::Output => [a + b + c, b - c + d, ZERO, ZERO],
        Rule::OutputGradient => [a, a + b, a - b, b],
        Rule::FilterGradient => {
            let (even, odd) = (0.5 * (b + c), 0.5 * (b - c));
            [a + even, odd, even + d, ZERO]
        }
    };
    [w, x, y, z, ZERO, ZERO]
}

/// The rule for F(4): even and odd powers of each pair of points apart.
#[inline(always)]
fn four(rule: Rule, [a, b, c, d, e, f]: Line) -> Line {
    const A: f32 = FRAC_1_SQRT_2;
    const B: f32 = SQRT_2;
    match rule {
        Rule::Input => {
            let (near, near_odd) = (e - 2.0 * c, A * (d - 2.0 * b));
            let (far, far_odd) = (e - 0.5 * c, B * (d - 0.5 * b));
            [a - 2.5 * c + e, near + near_odd, near - near_odd, far + far_odd, far - far_odd, b - 2.5 * d + f]
        }
        Rule::Filter => {
            let (near, near_odd) = ((-2.0 / 3.0) * (a + 0.5 * c), (A * -2.0 / 3.0) * b);
            let (far, far_odd) = ((1.0 / 6.0) * (a + 2.0 * c), (B / 6.0) * b);
            [a, near + near_odd, near - near_odd, far + far_odd, far - far_odd, c]
        }
        Rule::Output => {
            let (near, near_odd, far, far_odd) = (b + c, b - c, d + e, d - e);
            let second = A * near_odd + B * far_odd;
            let fourth = (0.5 * A) * near_odd + (2.0 * B) * far_odd + f;
            [a + near + far, second, 0.5 * near + 2.0 * far, fourth, ZERO, ZERO]
        }
        Rule::OutputGradient => {
            let (near, near_odd) = (a + 0.5 * c, A * (b + 0.5 * d));
            let (far, far_odd) = (a + 2.0 * c, B * (b + 2.0 * d));
            [a, near + near_odd, near - near_odd, far + far_odd, far - far_odd, d]
        }
        Rule::FilterGradient => {
            let (near, near_odd) = ((-2.0 / 3.0) * (b + c), (A * -2.0 / 3.0) * (b - c));
            let (far, far_odd) = ((1.0 / 6.0) * (d + e), (B / 6.0) * (d - e));
            [a + near + far, near_odd + far_odd, 0.5 * near + 2.0 * far + f, ZERO, ZERO, ZERO]
        }
    }
}

/// Where the pieces of a tile lie: a piece is some channels, and this is how far it is to the one below and to the one on the right.
#[derive(Clone, Copy)]
pub(super) struct Strides {
    pub(super) down: usize,
    pub(super) right: usize,
    /// How far it is from 16 channels, which are neighbours, to the next 16.
    pub(super) panel: usize,
}

impl Strides {
    /// Of pieces whose channels are neighbours.
    pub(super) fn of_rows(down: usize, right: usize) -> Self {
        Strides { down, right, panel: COLUMNS }
    }

    /// Where a channel lies in its piece.
    #[inline(always)]
    fn channel(&self, channel: usize) -> usize {
        channel / COLUMNS * self.panel + channel % COLUMNS
    }
}

/// What is done to a tile.
#[derive(Clone, Copy)]
pub(super) struct Transform {
    pub(super) rule: Rule,
    /// Outputs of a tile, each way: 2 or 4.
    pub(super) m: usize,
    /// Channels of a piece.
    pub(super) channels: usize,
    pub(super) from: Strides,
    pub(super) to: Strides,
    /// Rows and columns of the result that are wanted, from the first on.
    pub(super) wanted: [usize; 2],
    /// Whether the result is added to what is there.
    pub(super) accumulate: bool,
}

simd! {
    /// Transforms the tile that begins with `from` into the one that begins with `to`.
    pub(super) fn transform(how: Transform, from: &[f32], to: &mut [f32]) {
        match (how.m, how.rule) {
            (2, Rule::Input) => channels::<2>(Rule::Input, how, from, to),
            (2, Rule::Filter) => channels::<2>(Rule::Filter, how, from, to),
            (2, Rule::Output) => channels::<2>(Rule::Output, how, from, to),
            (2, Rule::OutputGradient) => channels::<2>(Rule::OutputGradient, how, from, to),
            (2, Rule::FilterGradient) => channels::<2>(Rule::FilterGradient, how, from, to),
            (_, Rule::Input) => channels::<4>(Rule::Input, how, from, to),
            (_, Rule::Filter) => channels::<4>(Rule::Filter, how, from, to),
            (_, Rule::Output) => channels::<4>(Rule::Output, how, from, to),
            (_, Rule::OutputGradient) => channels::<4>(Rule::OutputGradient, how, from, to),
            (_, Rule::FilterGradient) => channels::<4>(Rule::FilterGradient, how, from, to),
        }
    }
}

/// All channels, some at a time. With a rule that is known where this is called, nothing of the choice is left in the loops.
#[inline(always)]
fn channels<const M: usize>(rule: Rule, how: Transform, from: &[f32], to: &mut [f32]) {
    let full = how.channels / LANES * LANES;
    for first in (0..full).step_by(LANES) {
        group::<M, LANES>(rule, how, &from[how.from.channel(first)..], &mut to[how.to.channel(first)..], LANES);
    }
    if full < how.channels {
        let lanes = how.channels - full;
        group::<M, 1>(rule, how, &from[how.from.channel(full)..], &mut to[how.to.channel(full)..], lanes);
    }
}

/// One group of channels, in places of `lanes`; with `WHOLE` of LANES their number is known.
#[inline(always)]
fn group<const M: usize, const WHOLE: usize>(rule: Rule, how: Transform, from: &[f32], to: &mut [f32], lanes: usize) {
    let lanes = if WHOLE == LANES { LANES } else { lanes };
    let [side, made] = rule.extents(M);
    let apply = |line| if M == 2 { two(rule, line) } else { four(rule, line) };
    // Columns first.
    let mut lines = [[ZERO; MOST]; MOST];
    for column in 0..side {
        let mut line = [ZERO; MOST];
        for (row, piece) in line.iter_mut().enumerate().take(side) {
            piece.0[..lanes].copy_from_slice(&from[row * how.from.down + column * how.from.right..][..lanes]);
        }
        let line = apply(line);
        for row in 0..made {
            lines[row][column] = line[row];
        }
    }
    let [rows, columns] = how.wanted;
    for (row, line) in lines.into_iter().enumerate().take(rows.min(made)) {
        let line = apply(line);
        for (column, piece) in line.iter().enumerate().take(made) {
            if column < columns {
                let to = &mut to[row * how.to.down + column * how.to.right..][..lanes];
                if how.accumulate {
                    to.iter_mut().zip(piece.0).for_each(|(to, x)| *to += x);
                } else {
                    to.copy_from_slice(&piece.0[..lanes]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::simd::tests::{check_bits, numbers};

    /// What a rule makes of a square of one channel.
    fn applied(m: usize, rule: Rule, x: &[f32]) -> Vec<f32> {
        let [from, to] = rule.extents(m);
        let mut y = vec![0.0; to * to];
        let (from, to_strides) = (Strides::of_rows(from, 1), Strides::of_rows(to, 1));
        let how = Transform { rule, m, channels: 1, from, to: to_strides, wanted: [to; 2], accumulate: false };
        transform(how, x, &mut y);
        y
    }

    #[test]
    fn a_tile_of_outputs_is_a_convolution() {
        for m in [2, 4] {
            let (d, g) = (numbers(1, (m + 2) * (m + 2)), numbers(2, 9));
            let (v, u) = (applied(m, Rule::Input, &d), applied(m, Rule::Filter, &g));
            let product: Vec<f32> = v.iter().zip(&u).map(|(v, u)| v * u).collect();
            let y = applied(m, Rule::Output, &product);
            for p in 0..m {
                for q in 0..m {
                    let term = |i: usize| f64::from(d[(p + i / 3) * (m + 2) + q + i % 3]) * f64::from(g[i]);
                    let (sum, size) = (0..9).map(term).fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                    assert!((f64::from(y[p * m + q]) - sum).abs() <= 2e-6 * size, "{m}: {} for {sum}", y[p * m + q]);
                }
            }
        }
    }

    /// The rounding error that the choice of M rests on: of a sum over 64 channels, beside that of the plain product. Numbers are
    /// even between -1 and 1.
    #[test]
    fn errors_are_as_small_as_said() {
        const CHANNELS: usize = 64;
        const TILES: usize = 40;
        let even = |seed, len| numbers(seed, len).into_iter().map(|x| (x.to_bits() << 9) as i32 as f32 / 2f32.powi(31));
        let even = |seed, len| even(seed, len).collect::<Vec<f32>>();
        let rms = |errors: &[f64]| (errors.iter().map(|error| error * error).sum::<f64>() / errors.len() as f64).sqrt();
        for (m, bound) in [(2, 2.0e-7), (4, 4.0e-7)] {
            let (mut found, mut plain, mut size) = (Vec::new(), Vec::new(), Vec::new());
            for tile in 0..TILES as u32 {
                let mut product = vec![0.0f32; (m + 2) * (m + 2)];
                let (mut exact, mut direct) = (vec![0.0f64; m * m], vec![0.0f32; m * m]);
                for channel in 0..CHANNELS as u32 {
                    let seed = 2 * (tile * CHANNELS as u32 + channel);
                    let (d, g) = (even(seed, (m + 2) * (m + 2)), even(seed + 1, 9));
                    let (v, u) = (applied(m, Rule::Input, &d), applied(m, Rule::Filter, &g));
                    product.iter_mut().zip(v.iter().zip(&u)).for_each(|(sum, (v, u))| *sum = v.mul_add(*u, *sum));
                    for (at, (exact, direct)) in exact.iter_mut().zip(&mut direct).enumerate() {
                        for tap in 0..9 {
                            let d = d[(at / m + tap / 3) * (m + 2) + at % m + tap % 3];
                            *exact += f64::from(d) * f64::from(g[tap]);
                            *direct = d.mul_add(g[tap], *direct);
                        }
                    }
                }
                let y = applied(m, Rule::Output, &product);
                found.extend(y.iter().zip(&exact).map(|(y, exact)| f64::from(*y) - exact));
                plain.extend(direct.iter().zip(&exact).map(|(y, exact)| f64::from(*y) - exact));
                size.extend(exact);
            }
            let [found, plain] = [found, plain].map(|errors| rms(&errors) / rms(&size));
            assert!(found <= bound && plain <= 7.0e-7, "M = {m}: {found:e}, and {plain:e} of the plain product");
        }
    }

    /// Gradients' rules are the others' transposes: `x·(rule y) = (transpose x)·y`.
    #[test]
    fn gradients_have_the_transposed_rules() {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>();
        for m in [2, 4] {
            for (rule, transpose) in [(Rule::Output, Rule::OutputGradient), (Rule::Filter, Rule::FilterGradient)] {
                let [from, to] = rule.extents(m);
                let (x, y) = (numbers(3, from * from), numbers(4, to * to));
                let (one, other) = (dot(&y, &applied(m, rule, &x)), dot(&applied(m, transpose, &y), &x));
                assert!((one - other).abs() <= 1e-5 * one.abs(), "{one} {other}");
            }
        }
    }

    #[test]
    fn all_levels_give_the_same_bits() {
        const CHANNELS: usize = LANES + 5;
        let rules = [Rule::Input, Rule::Filter, Rule::Output, Rule::OutputGradient, Rule::FilterGradient];
        let cases = || [2, 4].into_iter().flat_map(|m| rules.map(|rule| (m, rule)));
        check_bits("fa1ab0fd2596054e", || {
            let mut bits = Vec::new();
            for ((m, rule), accumulate) in cases().flat_map(|case| [(case, false), (case, true)]) {
                let [from, to] = rule.extents(m);
                let strides = |side| Strides::of_rows(side * CHANNELS, CHANNELS);
                let how = Transform {
                    rule,
                    m,
                    channels: CHANNELS,
                    from: strides(from),
                    to: strides(to),
                    wanted: [to, to - 1],
                    accumulate,
                };
                let untouched = numbers(6, to * to * CHANNELS);
                let mut y = untouched.clone();
                transform(how, &numbers(5, from * from * CHANNELS), &mut y);
                let unwanted = (to - 1) * CHANNELS;
                assert_eq!(y[unwanted].to_bits(), untouched[unwanted].to_bits());
                bits.extend(y.into_iter().map(|y| u64::from(y.to_bits())));
            }
            bits
        });
    }
}
