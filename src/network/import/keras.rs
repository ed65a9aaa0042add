//! Keras's HDF5 files: HWIO and `[in, out]` kernels, in three arrangements.
//!
//! ```text
//! conv1_conv/conv1_conv/kernel:0                  Keras Applications; save_weights of Keras 2 (no ":0" from Keras 3)
//! model_weights/conv1_conv/conv1_conv/kernel:0    save of a whole model as .h5
//! layers/conv2d/vars/0                            save_weights of Keras 3; "name" on vars is the layer's
//! ```
//!
//! and each may sit deeper when the base is nested in another model. So the file is walked instead of looked up: a data
//! set's last two names are its layer and kind, except inside `vars`. That also spares the attribute `weight_names`, which
//! is an empty list of *floats* on a layer without weights. Layers and data sets with the names of 2016 are found under
//! today's: [`keras_2016`].

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use hdf5_reader::error::Error;
use hdf5_reader::group::Group;
use hdf5_reader::{Dataset, Datatype, FileStorage, Hdf5File, OpenOptions};

use super::{
    ImportError, KERAS_PIXELS, Source, Tensors, Wanted, WeightTensor, Weights, keras_2016, surplus, transpose,
};
use crate::device::PixelFormat;

/// No tensor of the network is larger than 10 MB, nor is anything else in the file worth decoding.
const MAX_READ: usize = 16 << 20;
/// Groups may link to each other in a ring, and a small file can name a great many.
const MAX_DEPTH: usize = 8;
const MAX_GROUPS: usize = 10_000;

/// Reads the base under Onesheet's names, in its layouts.
pub(super) fn read(
    path: &Path,
    file: File,
    wanted: &[Wanted<'_>],
    pixels: &PixelFormat,
) -> Result<Weights, ImportError> {
    let damaged = |e: Error| ImportError::Damaged { path: path.to_owned(), reason: e.to_string() };
    let storage = FileStorage::from_file(file).map_err(damaged)?;
    // With no resolvers the reader opens no other file: linked groups are absent, external data is an error.
    let options = OpenOptions::default()
        .with_chunk_cache_bytes(0)
        .with_max_chunk_bytes(MAX_READ)
        .with_max_read_bytes(MAX_READ)
        .with_max_object_header_bytes(MAX_READ);
    let file = Hdf5File::from_storage_with_options(Arc::new(storage), options).map_err(damaged)?;
    let root = file.root_group().map_err(damaged)?;
    // Beside model_weights a whole-model file keeps the optimiser's state.
    let top = root.group("model_weights").unwrap_or(root);

    let ours: HashSet<String> = wanted.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut walk = Walk::default();
    walk.visit(&top, "", 0).map_err(damaged)?;
    if let Some(name) = walk.twice {
        let reason = format!("it holds {name} twice, so there is no telling which is meant");
        return Err(ImportError::Damaged { path: path.to_owned(), reason });
    }
    let missing: Vec<_> =
        wanted.iter().filter(|(name, _)| !walk.found.contains_key(*name)).map(|(name, _)| (*name).to_owned()).collect();
    if missing.len() == wanted.len() && walk.unnamed {
        return Err(ImportError::Unnamed { path: path.to_owned() });
    }
    ImportError::missing(path, missing, wanted.len(), walk.first)?;
    let mut held: Vec<&str> = walk.found.keys().map(String::as_str).collect();
    // Block 7 before block 10, so that the first one too many is named.
    held.sort_unstable_by_key(|name| (name.len(), *name));
    surplus::refuse(path, held.into_iter(), &ours, surplus::keras_block)?;

    let mut tensors = Tensors::new();
    for &(name, shape) in wanted {
        let data = read_tensor(path, name, shape, &walk.found[name])?;
        tensors.insert(name.to_owned(), WeightTensor { shape: shape.to_vec(), data });
    }
    let mut notes = Vec::new();
    if *pixels != KERAS_PIXELS {
        notes.push(OTHER_PIXELS.to_owned());
    }
    Ok(Weights { tensors, source: Source::Keras, notes })
}

/// Not made up for, since it is what the paper's experiments did: raw pixels into these weights.
const OTHER_PIXELS: &str = "Keras's weights were trained on --pixels imagenet; this run feeds them other pixels";

/// The search for the base's data sets.
#[derive(Default)]
struct Walk {
    /// Under today's names.
    found: HashMap<String, Dataset>,
    twice: Option<String>,
    /// Any data set at all, to name one where none is ours.
    first: Option<String>,
    unnamed: bool,
    groups: usize,
}

impl Walk {
    fn visit(&mut self, group: &Group, name: &str, depth: usize) -> Result<(), Error> {
        self.groups += 1;
        if depth > MAX_DEPTH || self.groups > MAX_GROUPS {
            let reason = "its groups are nested too deep or too many for a weights file";
            return Err(Error::InvalidData(reason.to_owned()));
        }
        let (groups, datasets) = group.members()?;
        let layer = if name == "vars" && !datasets.is_empty() {
            let attribute = group.attribute("name").and_then(|name| name.read_string());
            self.unnamed |= attribute.is_err();
            attribute.unwrap_or_default()
        } else {
            name.to_owned()
        };
        let count = datasets.len();
        for dataset in datasets {
            let kind =
                if name == "vars" { numbered(dataset.name(), count) } else { dataset.name().trim_end_matches(":0") };
            let tensor = keras_2016::today(&layer, kind).unwrap_or_else(|| format!("{layer}/{kind}"));
            self.first.get_or_insert_with(|| format!("{layer}/{}", dataset.name()));
            if surplus::is_keras_base(&tensor) && self.found.insert(tensor.clone(), dataset).is_some() {
                self.twice = Some(tensor);
            }
        }
        for child in groups {
            self.visit(&child, child.name(), depth + 1)?;
        }
        Ok(())
    }
}

/// Which of a layer's `count` variables Keras 3 saves under `number`.
fn numbered(number: &str, count: usize) -> &str {
    match (count, number) {
        (2, "0") => "kernel",
        (2, "1") => "bias",
        (4, "0") => "gamma",
        (4, "1") => "beta",
        (4, "2") => "moving_mean",
        (4, "3") => "moving_variance",
        _ => number,
    }
}

/// One tensor, brought from Keras's layout into ours: the last axis, output channels, becomes the first.
fn read_tensor(path: &Path, name: &str, shape: &[usize], dataset: &Dataset) -> Result<Vec<f32>, ImportError> {
    let mut in_file = shape.to_vec();
    in_file.rotate_left(1);
    if !dataset.shape().iter().copied().eq(in_file.iter().map(|&extent| extent as u64)) {
        return Err(ImportError::Shape {
            path: path.to_owned(),
            tensor: name.to_owned(),
            expected: in_file,
            found: dataset.shape().to_vec(),
        });
    }
    if !matches!(dataset.dtype(), Datatype::FloatingPoint { size: 4, .. }) {
        let found = format!("{:?}", dataset.dtype());
        return Err(ImportError::ElementType { path: path.to_owned(), tensor: name.to_owned(), found });
    }
    let mut data = vec![0.0f32; shape.iter().product()];
    dataset
        .read_into(&mut data)
        .map_err(|e| ImportError::Damaged { path: path.to_owned(), reason: format!("{name} cannot be read: {e}") })?;
    match *shape {
        [_] => Ok(data),
        [outputs, ..] => Ok(transpose(&data, data.len() / outputs.max(1), outputs)),
        [] => Ok(data),
    }
}
