//! Onesheet's tensors without a checkpoint around them: its names, its layouts.

use super::compare::Comparison;
use super::safetensors_file::SafetensorsFile;
use super::{ImportError, Source, Wanted, WeightTensor, Weights};
use crate::network::NamedShape;

/// Reads the base, and the head unless the file has none of it or one of another size.
pub(super) fn read(mut file: SafetensorsFile, wanted: &Wanted) -> Result<Weights, ImportError> {
    // Only a checkpoint has digests, and by its metadata it is known as one and read as one.
    if file.contains("digests") {
        let reason = "it has the digests of a checkpoint, but not its settings".to_owned();
        return Err(ImportError::Damaged { path: file.path().to_owned(), reason });
    }
    let has_head = wanted.head.iter().any(|(name, _)| file.contains(name));
    let head = if has_head { &wanted.head[..] } else { &[] };
    let all = || wanted.base.iter().chain(head);

    let (path, held) = (file.path().to_owned(), file.tensors());
    let comparison = Comparison::new(&path, wanted, &held);
    let missing = all().filter(|(name, _)| !file.contains(name)).map(|(name, _)| name.clone()).collect();
    comparison.missing(missing, all().count(), held.first().map(|(name, _)| name.clone()))?;
    comparison.keras_surplus(held.iter().map(|(name, _)| name.as_str()))?;

    let is_head_taken = head.iter().all(|(name, shape)| file.shape(name) == Some(shape));
    let notes = if is_head_taken { Vec::new() } else { vec![HEAD_IS_NEW.to_owned()] };
    let taken: Vec<&NamedShape> = all().take(wanted.base.len() + if is_head_taken { head.len() } else { 0 }).collect();
    let mut weights = Weights { tensors: Default::default(), source: Source::Onesheet, notes };
    for (name, shape) in taken {
        let data = file.read(name, shape, &comparison)?;
        weights.tensors.insert(name.clone(), WeightTensor { shape: shape.clone(), data });
    }
    Ok(weights)
}

const HEAD_IS_NEW: &str =
    "the head of these weights is of another size, so only the base is taken and the head starts new";
