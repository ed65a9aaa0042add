//! Onesheet's own exports and checkpoints: its names, its layouts.

use super::safetensors_file::SafetensorsFile;
use super::{ImportError, Tensors, WeightTensor, in_base};

/// Reads the base, and the head unless the file has none of it.
pub(super) fn read(mut file: SafetensorsFile, expected: &[(String, Vec<usize>)]) -> Result<Tensors, ImportError> {
    let has_head = expected.iter().any(|(name, _)| !in_base(name) && file.contains(name));
    let wanted = || expected.iter().filter(|(name, _)| has_head || in_base(name));

    let missing = wanted().filter(|(name, _)| !file.contains(name)).map(|(name, _)| name.clone()).collect();
    ImportError::missing(file.path(), missing, wanted().count())?;
    wanted()
        .map(|(name, shape)| {
            let data = file.read(name, shape)?;
            Ok((name.clone(), WeightTensor { shape: shape.clone(), data }))
        })
        .collect()
}
