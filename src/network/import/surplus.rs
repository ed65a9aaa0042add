//! Tensors of the network that ours does not have: a file with such is another network's, even if it has all of ours.
//!
//! A ResNet-101 holds every tensor that a ResNet-50 has, names and shapes alike, and so does an SE-ResNet-50. What is no
//! part of the network may be there: another head, the optimiser's state, counters.

use std::collections::HashSet;
use std::path::Path;

use super::ImportError;

/// Refuses the first of `held` that is not in `ours`. Both are names of the network's own tensors in one way of naming
/// them, of which `block` gives the residual block: `layer3.5` of `layer3.5.conv1.weight`.
pub(super) fn refuse<'a>(
    path: &Path,
    held: impl Iterator<Item = &'a str>,
    ours: &HashSet<String>,
    block: fn(&str) -> Option<&str>,
) -> Result<(), ImportError> {
    let mut held = held.filter(|name| !ours.contains(*name));
    let Some(tensor) = held.next() else { return Ok(()) };
    let our_blocks: HashSet<&str> = ours.iter().filter_map(|name| block(name)).collect();
    let squeezes = ["se.", "se_module.", "_se_"].iter().any(|part| tensor.contains(part));
    let looks_like = match block(tensor) {
        Some(block) if !our_blocks.contains(block) => "a block too many: it looks like a deeper ResNet",
        _ if squeezes => "squeeze and excitation: it looks like an SE-ResNet",
        Some(_) => "a layer too many in its block",
        None => "a layer too many outside its blocks",
    };
    Err(ImportError::OtherNetwork { path: path.to_owned(), tensor: shortened(tensor), looks_like })
}

/// A name from a file, for a message: not too long, and without line breaks.
pub(super) fn shortened(name: &str) -> String {
    name.chars().take(100).flat_map(char::escape_debug).collect()
}

/// The block of a tensor under Keras's names of today: `conv4_block7` of `conv4_block7_1_conv/kernel`.
pub(super) fn keras_block(name: &str) -> Option<&str> {
    let (stage, rest) = name.split_once("_block")?;
    let number = rest.split(['_', '/']).next()?;
    Some(&name[..stage.len() + "_block".len() + number.len()])
}

/// Whether a tensor belongs to the base, by Keras's names of today. Layers that Keras numbers by itself (`conv2d_3`) come
/// from whatever else is in the file.
pub(super) fn is_keras_base(name: &str) -> bool {
    let digits = name.strip_prefix("conv").map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    digits.is_some_and(|rest| rest.starts_with('_') && name.as_bytes().get(4).is_some_and(u8::is_ascii_digit))
}
