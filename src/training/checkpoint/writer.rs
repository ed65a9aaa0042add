//! Writing a checkpoint as a stream.

use super::{CheckpointError, DIGESTS, METADATA_KEY, Metadata, VERSION};
use crate::files::{Files, Replacement};
use crate::network::NamedShape;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use std::collections::HashMap;
use std::path::Path;

#[cfg(target_endian = "big")]
compile_error!("checkpoints hold little-endian numbers, written as they lie in memory");

/// Writes `tensors` and `metadata` to `path` through `files`, asking `fetch` for the values of one tensor after the other.
///
/// The digests come last in the file because they are known last; so nothing is held back and nothing is written twice.
///
/// # Errors
/// What `fetch` returns, [`CheckpointError::NotFinite`] for a value that is no number, and [`CheckpointError::Save`] when
/// the disk refuses. In each case what `path` held before is still there.
pub fn write<F, E>(
    files: &F,
    path: &Path,
    metadata: &Metadata,
    tensors: &[NamedShape],
    mut fetch: impl FnMut(&str) -> Result<Vec<f32>, E>,
) -> Result<(), E>
where
    F: Files,
    E: From<CheckpointError>,
{
    let text = describe(path, metadata)?;
    let mut file = Replacement::create(files, path).map_err(CheckpointError::from)?;
    file.write(&head(&text, tensors)).map_err(CheckpointError::from)?;

    let mut digests = Vec::with_capacity(32 * (tensors.len() + 1));
    for (name, shape) in tensors {
        let values = fetch(name)?;
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{name} has the elements of its shape");
        if !values.iter().all(|value| value.is_finite()) {
            return Err(CheckpointError::NotFinite { path: path.into(), tensor: name.clone() }.into());
        }
        let bytes = bytemuck::cast_slice(&values);
        digests.extend(blake3::hash(bytes).as_bytes());
        file.write(bytes).map_err(CheckpointError::from)?;
    }
    digests.extend(blake3::hash(text.as_bytes()).as_bytes());
    file.write(&digests).map_err(CheckpointError::from)?;
    Ok(file.commit().map_err(CheckpointError::from)?)
}

/// The metadata as the TOML document kept in the file, its version first.
fn describe(path: &Path, metadata: &Metadata) -> Result<String, CheckpointError> {
    let body = toml::to_string(metadata);
    let body = body.map_err(|cause| CheckpointError::Settings { path: path.into(), cause })?;
    Ok(format!("version = {VERSION}\n{body}"))
}

/// The safetensors header: its length, then JSON padded with spaces so that the data starts at a multiple of eight.
fn head(text: &str, tensors: &[NamedShape]) -> Vec<u8> {
    let mut end = 0;
    let mut info = |dtype, shape: &[usize], bytes: usize| {
        let data_offsets = (end, end + bytes);
        end += bytes;
        TensorInfo { dtype, shape: shape.to_vec(), data_offsets }
    };
    let mut infos = Vec::with_capacity(tensors.len() + 1);
    for (name, shape) in tensors {
        infos.push((name.clone(), info(Dtype::F32, shape, 4 * shape.iter().product::<usize>())));
    }
    let rows = tensors.len() + 1;
    infos.push((DIGESTS.into(), info(Dtype::U8, &[rows, 32], 32 * rows)));

    let metadata = HashMap::from([(METADATA_KEY.to_string(), text.to_string())]);
    let metadata = safetensors::tensor::Metadata::new(Some(metadata), infos).expect("extents and offsets agree");
    let mut json = serde_json::to_vec(&metadata).expect("names and numbers are JSON");
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut head = (json.len() as u64).to_le_bytes().to_vec();
    head.append(&mut json);
    head
}
