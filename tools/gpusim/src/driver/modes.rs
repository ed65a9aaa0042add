//! What hardware does in its own way or leaves open, and the simulation can do in several: chosen by the environment.

use super::{Answer, Code, report};
use crate::exec::{BlockOrder, TensorSums, is_processor};

/// The ways that were chosen.
pub(super) struct Modes {
    pub sums: TensorSums,
    pub order: BlockOrder,
    /// Do streams run as late as they may?
    pub late: bool,
    /// May a `cp.async` of nothing but zeros name memory that isn't there?
    pub masked_anywhere: bool,
}

impl Modes {
    /// Those that the environment names, for a GPU of this capability.
    pub fn chosen(capability: (u32, u32)) -> Answer<Self> {
        let sums = choice("GPUSIM_TENSOR_SUMS", "truncated", |word| {
            (word == "truncated").then(|| TensorSums::of_hardware(capability))
        })?;
        let order = choice("GPUSIM_BLOCK_ORDER", "reversed, or a number: the seed of a shuffle", |word| match word {
            "reversed" => Some(BlockOrder::Descending),
            seed => seed.parse().ok().map(BlockOrder::Shuffled),
        })?;
        let late = choice("GPUSIM_STREAMS", "late", |word| (word == "late").then_some(true))?;
        let masked = choice("GPUSIM_MASKED_COPIES", "anywhere", |word| (word == "anywhere").then_some(true))?;
        // Read where loops are chosen, by whoever runs a kernel; here it is only looked at.
        choice("GPUSIM_PROCESSOR", "baseline or avx2", |word| is_processor(word).then_some(()))?;
        let (sums, order) = (sums.unwrap_or_default(), order.unwrap_or_default());
        Ok(Self { sums, order, late: late.unwrap_or_default(), masked_anywhere: masked.unwrap_or_default() })
    }
}

/// What a variable of the environment says, if it is set; a value that it can't have is said and refused.
fn choice<T>(name: &str, known: &str, parse: impl FnOnce(&str) -> Option<T>) -> Answer<Option<T>> {
    let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.to_str().and_then(parse) {
        Some(chosen) => Ok(Some(chosen)),
        None => {
            report::say(&format!("{name}={} is unknown; it may be {known}", value.display()));
            Err(Code::INVALID_VALUE)
        }
    }
}
