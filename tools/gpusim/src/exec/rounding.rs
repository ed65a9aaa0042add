//! Rounding: the four directions of IEEE 754, flushing of subnormals, saturation.

/// A rounding direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// To nearest, ties to even.
    Nearest,
    /// Towards zero.
    Zero,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
}

impl Direction {
    /// The direction that a modifier names.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "rn" => Self::Nearest,
            "rz" => Self::Zero,
            "rm" => Self::Down,
            "rp" => Self::Up,
            _ => return None,
        })
    }

    pub fn number(self) -> i64 {
        self as i64
    }

    pub fn from_number(number: i64) -> Self {
        match number & 3 {
            0 => Self::Nearest,
            1 => Self::Zero,
            2 => Self::Down,
            _ => Self::Up,
        }
    }
}

/// Subnormals as zeros, with their sign.
#[inline(always)]
pub(super) fn flush(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits })
}

/// Into [0, 1]; NaN becomes 0.
#[inline(always)]
pub(super) fn saturate(value: f32) -> f32 {
    if value > 0.0 { if value < 1.0 { value } else { 1.0 } } else { 0.0 }
}

/// The sum of two doubles and what it lost.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_there = sum - a;
    (sum, (a - (sum - b_there)) + (b - b_there))
}

/// `high + low` as a single, where `low` is smaller than half the last place of `high`.
pub(super) fn round_single(high: f64, low: f64, direction: Direction) -> f32 {
    let mut near = high as f32;
    let lost = high - f64::from(near);
    let mut above = if lost != 0.0 { lost } else { low };
    if direction == Direction::Nearest {
        // `high` may lie exactly between two singles, where `low` decides.
        let other = if lost > 0.0 { near.next_up() } else { near.next_down() };
        let tie = lost != 0.0 && lost == f64::from(other) - high;
        if tie && low != 0.0 && (low > 0.0) == (lost > 0.0) {
            near = other;
        }
        return near;
    }
    if high.is_nan() || (high.is_infinite() && near.is_infinite()) {
        return near;
    }
    if direction == Direction::Zero && near.is_sign_negative() {
        above = -above;
    }
    match direction {
        Direction::Down if above < 0.0 => near.next_down(),
        Direction::Up if above > 0.0 => near.next_up(),
        Direction::Zero if above < 0.0 && near < 0.0 => near.next_up(),
        Direction::Zero if above < 0.0 && near > 0.0 => near.next_down(),
        _ => near,
    }
}

/// `high + low` as a double, where `high` is the double nearest to it.
pub(super) fn round_double(high: f64, low: f64, direction: Direction) -> f64 {
    let towards_zero = direction == Direction::Zero;
    match low {
        0.0 => high,
        low if low < 0.0 && (direction == Direction::Down || towards_zero && high > 0.0) => high.next_down(),
        low if low > 0.0 && (direction == Direction::Up || towards_zero && high < 0.0) => high.next_up(),
        _ => high,
    }
}

pub(super) fn add(a: f32, b: f32, direction: Direction) -> f32 {
    if direction == Direction::Nearest {
        return a + b;
    }
    let (sum, lost) = two_sum(a.into(), b.into());
    signed_zero(round_single(sum, lost, direction), a, b, direction)
}

/// x − x is −0 when rounding down.
fn signed_zero(sum: f32, a: f32, b: f32, direction: Direction) -> f32 {
    if sum == 0.0 && direction == Direction::Down && a.is_sign_negative() != b.is_sign_negative() { -0.0 } else { sum }
}

pub(super) fn mul(a: f32, b: f32, direction: Direction) -> f32 {
    // 24 bits by 24 bits are exact in 53.
    round_single(f64::from(a) * f64::from(b), 0.0, direction)
}

pub(super) fn fma(a: f32, b: f32, c: f32, direction: Direction) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let (sum, lost) = two_sum(product, c.into());
    if !sum.is_finite() {
        return a.mul_add(b, c);
    }
    signed_zero(round_single(sum, lost, direction), product as f32, c, direction)
}

pub(super) fn div(a: f32, b: f32, direction: Direction) -> f32 {
    let (a, b) = (f64::from(a), f64::from(b));
    let quotient = a / b;
    let lost = (-quotient).mul_add(b, a) / b;
    round_single(quotient, if lost.is_finite() { lost } else { 0.0 }, direction)
}

pub(super) fn sqrt(a: f32, direction: Direction) -> f32 {
    let a = f64::from(a);
    let root = a.sqrt();
    let lost = (-root).mul_add(root, a);
    round_single(root, if lost.is_finite() { lost } else { 0.0 }, direction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_agrees_with_the_processor() {
        let values = [0.1f32, 3.0, 1e-38, 1e38, -7.25, 1.0 + f32::EPSILON, 5e-45, 16_777_217.0];
        for a in values {
            for b in values {
                for c in values {
                    let near = Direction::Nearest;
                    assert_eq!(fma(a, b, c, near).to_bits(), a.mul_add(b, c).to_bits(), "{a} {b} {c}");
                    assert_eq!(mul(a, b, near), a * b);
                    assert_eq!(div(a, b, near), a / b);
                }
            }
        }
    }

    #[test]
    fn directions_enclose_the_exact_value() {
        let (down, up) = (Direction::Down, Direction::Up);
        assert!(add(1.0, 1e-20, down) == 1.0 && add(1.0, 1e-20, up) == 1.0f32.next_up());
        assert!(add(1.0, -1e-20, down) == 1.0f32.next_down() && add(1.0, -1e-20, up) == 1.0);
        assert!(add(1.0, -1e-20, Direction::Zero) == 1.0f32.next_down());
        assert!(add(-1.0, 1e-20, Direction::Zero) == (-1.0f32).next_up());
        let third = 1.0f32 / 3.0;
        assert_eq!(div(1.0, 3.0, down), third.next_down());
        assert_eq!(div(1.0, 3.0, up), third);
        assert!(f64::from(sqrt(2.0, down)) < 2f64.sqrt() && f64::from(sqrt(2.0, up)) > 2f64.sqrt());
        assert_eq!(mul(f32::MAX, 2.0, Direction::Zero), f32::MAX);
        assert_eq!(mul(f32::MAX, 2.0, up), f32::INFINITY);
    }

    #[test]
    fn saturation_maps_everything_into_the_unit_interval() {
        assert_eq!([-1.0, 0.25, 7.0, f32::NAN].map(saturate), [0.0, 0.25, 1.0, 0.0]);
        assert_eq!(flush(-1e-40).to_bits(), (-0.0f32).to_bits());
    }
}
