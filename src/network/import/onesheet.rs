//! Onesheet's tensors without a checkpoint around them: its names, its layouts.

use super::safetensors_file::SafetensorsFile;
use super::{ImportError, Source, WeightTensor, Weights, in_base, refuse_another_network};

/// Reads the base, and the head unless the file has none of it or one of another size.
pub(super) fn read(mut file: SafetensorsFile, expected: &[(String, Vec<usize>)]) -> Result<Weights, ImportError> {
    // Only a checkpoint has digests, and by its metadata it is known as one and read as one.
    if file.contains("digests") {
        let reason = "it has the digests of a checkpoint, but not its settings".to_owned();
        return Err(ImportError::Damaged { path: file.path().to_owned(), reason });
    }
    let has_head = expected.iter().any(|(name, _)| !in_base(name) && file.contains(name));
    let wanted: Vec<_> = expected.iter().filter(|(name, _)| has_head || in_base(name)).collect();

    let names = file.names();
    let missing = wanted.iter().filter(|(name, _)| !file.contains(name)).map(|(name, _)| name.clone()).collect();
    ImportError::missing(file.path(), missing, wanted.len(), names.first().cloned())?;
    refuse_another_network(file.path(), names.iter().map(String::as_str), expected)?;

    let of_same_size = |(name, shape): &&&(String, Vec<usize>)| in_base(name) || file.shape(name) == Some(shape);
    let is_head_taken = wanted.iter().all(|wanted| of_same_size(&wanted));
    let notes = if has_head && !is_head_taken { vec![HEAD_IS_NEW.to_owned()] } else { Vec::new() };
    let mut weights = Weights { tensors: Default::default(), source: Source::Onesheet, notes };
    for (name, shape) in wanted.into_iter().filter(|(name, _)| is_head_taken || in_base(name)) {
        let data = file.read(name, shape)?;
        weights.tensors.insert(name.clone(), WeightTensor { shape: shape.clone(), data });
    }
    Ok(weights)
}

const HEAD_IS_NEW: &str =
    "the head of these weights is of another size, so only the base is taken and the head starts new";
