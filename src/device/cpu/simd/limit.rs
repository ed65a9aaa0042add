//! Less of the processor than there is, so that one machine tests the kernels of lesser ones: `ONESHEET_PROCESSOR` names the most that they
//! may use.

use super::{Level, Products};
use std::ffi::OsStr;
use std::sync::OnceLock;

/// The variable.
const VARIABLE: &str = "ONESHEET_PROCESSOR";

/// The most that kernels may use.
type Most = (Level, Products);

/// What the variable may be, from the least to nearly all.
#[cfg(target_arch = "x86_64")]
const NAMES: [(&str, Most); 4] = [
    ("portable", (Level::Portable, Products::Widened)),
    ("avx2", (Level::Avx2, Products::Widened)),
    ("avx512", (Level::Avx512, Products::Widened)),
    ("avx512-bf16", (Level::Avx512, Products::Avx512Bf16)),
];
/// What the variable may be.
#[cfg(not(target_arch = "x86_64"))]
const NAMES: [(&str, Most); 1] = [("portable", (Level::Portable, Products::Widened))];

/// As much of `level` as kernels may use.
#[inline]
pub(super) fn limited(level: Level) -> Level {
    most().map_or(level, |(most, _)| level.min(most))
}

/// As much of `products` as kernels may use.
#[inline]
pub(super) fn limited_products(products: Products) -> Products {
    most().map_or(products, |(_, most)| products.min(most))
}

/// What the variable says, read once.
#[inline]
fn most() -> Option<Most> {
    static MOST: OnceLock<Option<Most>> = OnceLock::new();
    *MOST.get_or_init(|| std::env::var_os(VARIABLE).and_then(|value| named(&value)))
}

/// What a value of the variable allows; none for one that it can't have.
fn named(value: &OsStr) -> Option<Most> {
    NAMES.into_iter().find(|(name, _)| value == *name).map(|(_, most)| most)
}

/// Why the variable's `value` can't be followed, if it can't. Without one, or with an empty one, there is nothing to follow.
fn refused(value: Option<&OsStr>) -> Option<String> {
    let value = value.filter(|value| !value.is_empty() && named(value).is_none())?;
    let names = NAMES.map(|(name, _)| name).join(", ");
    Some(format!("{VARIABLE}={} is unknown; what it may be: {names}", value.display()))
}

/// Why what the environment says can't be followed, if it can't.
pub(in crate::device::cpu) fn refusal() -> Option<String> {
    refused(std::env::var_os(VARIABLE).as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::simd::{level, products};

    /// Or else what CI computes as a lesser processor would be this one's.
    #[test]
    fn the_environment_takes_away_and_never_adds() {
        assert_eq!(refusal(), None);
        let Some((most_level, most_products)) = most() else { return };
        assert!(level() <= most_level && products() <= most_products);
    }

    #[test]
    fn a_value_that_is_unknown_is_refused() {
        for (name, most) in NAMES {
            assert_eq!((named(name.as_ref()), refused(Some(name.as_ref()))), (Some(most), None));
        }
        assert_eq!((refused(None), refused(Some("".as_ref()))), (None, None));
        let told = refused(Some("AVX2".as_ref())).unwrap();
        assert!(told.starts_with("ONESHEET_PROCESSOR=AVX2 is unknown; what it may be: portable"), "{told}");
    }
}
