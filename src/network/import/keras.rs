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
//! today's ([`keras_2016`]), and layers that Keras has numbered by itself under our numbers ([`automatic`]).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use hdf5_reader::error::Error;
use hdf5_reader::group::Group;
use hdf5_reader::{Dataset, Datatype, FileStorage, Hdf5File, OpenOptions};

use super::compare::{Comparison, Family};
use super::{ImportError, Source, Tensors, Wanted, WeightTensor, Weights, automatic, keras_2016, transpose};
use crate::device::PixelFormat;
use crate::network::NamedShape;

/// No tensor of a network is larger than 13 MB, nor is anything else in the file worth decoding.
const MAX_READ: usize = 16 << 20;
/// Groups may link to each other in a ring, and a small file can name a great many.
const MAX_DEPTH: usize = 8;
const MAX_GROUPS: usize = 10_000;

/// Reads the base under Onesheet's names, in its layouts.
pub(super) fn read(path: &Path, file: File, wanted: &Wanted, pixels: &PixelFormat) -> Result<Weights, ImportError> {
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

    let base = &wanted.base;
    let mut inventory = Inventory::default();
    inventory.visit(&top, "", 0).map_err(damaged)?;
    let Inventory { entries, unnamed, .. } = inventory;
    let first = entries.first().map(|entry| format!("{}/{}", entry.layer, entry.dataset.name()));
    let named = Names::new(base, &entries).of(entries);
    let held: Vec<NamedShape> = named.iter().map(|(name, dataset)| (name.clone(), extents(dataset))).collect();

    let (ours, family) = (base.iter().map(|(name, _)| name).collect::<HashSet<_>>(), Family::of(base));
    let mut found = HashMap::new();
    for (name, dataset) in named.into_iter().filter(|(name, _)| ours.contains(name) || family.has(name)) {
        if found.insert(name.clone(), dataset).is_some() {
            let reason = format!("it holds {name} twice, so there is no telling which is meant");
            return Err(ImportError::Damaged { path: path.to_owned(), reason });
        }
    }
    let missing: Vec<_> =
        base.iter().map(|(name, _)| name).filter(|name| !found.contains_key(*name)).cloned().collect();
    if missing.len() == base.len() && unnamed {
        return Err(ImportError::Unnamed { path: path.to_owned() });
    }
    let comparison = Comparison::new(path, wanted, &held);
    comparison.missing(missing, base.len(), first)?;
    let mut surplus: Vec<&str> = found.keys().map(String::as_str).collect();
    // Block 7 before block 10, so that the first one too many is named.
    surplus.sort_unstable_by_key(|name| (name.len(), *name));
    comparison.keras_surplus(surplus.into_iter())?;

    let mut tensors = Tensors::new();
    for (name, shape) in base {
        let data = read_tensor(&comparison, name, shape, &found[name])?;
        tensors.insert(name.clone(), WeightTensor { shape: shape.clone(), data });
    }
    let mut notes = Vec::new();
    let theirs = wanted.network.pixels;
    // Not made up for, since it is what the paper's experiments did: raw pixels into these weights.
    if *pixels != theirs.format {
        let name = theirs.name;
        notes.push(format!("Keras's weights were trained on --pixels {name}; this run feeds them other pixels"));
    }
    Ok(Weights { tensors, source: Source::Keras, notes })
}

fn extents(dataset: &Dataset) -> Vec<usize> {
    dataset.shape().iter().map(|&extent| extent as usize).collect()
}

/// What the file holds, found by walking through its groups.
#[derive(Default)]
struct Inventory {
    entries: Vec<Entry>,
    /// Whether there are layers that the file does not name.
    unnamed: bool,
    groups: usize,
}

/// One data set.
struct Entry {
    /// The file's name of its layer.
    layer: String,
    /// How many variables the layer has, if they are numbered and not named.
    numbered: Option<usize>,
    dataset: Dataset,
}

impl Inventory {
    fn visit(&mut self, group: &Group, name: &str, depth: usize) -> Result<(), Error> {
        self.groups += 1;
        if depth > MAX_DEPTH || self.groups > MAX_GROUPS {
            let reason = "its groups are nested too deep or too many for a weights file";
            return Err(Error::InvalidData(reason.to_owned()));
        }
        let (groups, datasets) = group.members()?;
        let is_numbered = name == "vars" && !datasets.is_empty();
        let layer = if is_numbered {
            let attribute = group.attribute("name").and_then(|name| name.read_string());
            self.unnamed |= attribute.is_err();
            attribute.unwrap_or_default()
        } else {
            name.to_owned()
        };
        let numbered = is_numbered.then_some(datasets.len());
        let entry = |dataset| Entry { layer: layer.clone(), numbered, dataset };
        self.entries.extend(datasets.into_iter().map(entry));
        for child in groups {
            self.visit(&child, child.name(), depth + 1)?;
        }
        Ok(())
    }
}

/// How a file's data sets are called today.
struct Names {
    /// The base's tensors, by their layers, in Keras's order.
    ours: HashMap<String, Vec<String>>,
    /// Our names of layers that Keras has numbered otherwise.
    automatic: HashMap<String, String>,
}

impl Names {
    fn new(base: &[NamedShape], entries: &[Entry]) -> Self {
        let mut ours: HashMap<String, Vec<String>> = HashMap::new();
        for (layer, kind) in base.iter().filter_map(|(name, _)| name.rsplit_once('/')) {
            ours.entry(layer.to_owned()).or_default().push(kind.to_owned());
        }
        let held = entries.iter().map(|entry| entry.layer.as_str());
        let pairs = automatic::our_names(ours.keys().map(String::as_str), held).into_iter();
        let automatic = pairs.map(|(theirs, ours)| (theirs.to_owned(), ours.to_owned())).collect();
        Names { ours, automatic }
    }

    /// The data sets with their names.
    fn of(&self, entries: Vec<Entry>) -> Vec<(String, Dataset)> {
        entries.into_iter().map(|entry| (self.name(&entry), entry.dataset)).collect()
    }

    fn name(&self, entry: &Entry) -> String {
        let layer = self.automatic.get(&entry.layer).unwrap_or(&entry.layer);
        let (ours, dataset) = (self.ours.get(layer).map_or(&[][..], Vec::as_slice), entry.dataset.name());
        let kind = match entry.numbered {
            Some(count) if count == ours.len() => dataset.parse().ok().and_then(|number: usize| ours.get(number)),
            _ => None,
        };
        let kind = match (kind, entry.numbered) {
            (Some(kind), _) => kind,
            (None, Some(count)) => numbered(dataset, count),
            (None, None) => keras_2016::kind(dataset),
        };
        // A network of today may have a layer that is called like another one was in 2016.
        let is_ours = |kind: &str| ours.iter().any(|own| own == kind);
        match kind {
            _ if is_ours(kind) => format!("{layer}/{kind}"),
            // Keras 3 itself calls a depthwise kernel a kernel; its published files do not.
            "kernel" if is_ours("depthwise_kernel") => format!("{layer}/depthwise_kernel"),
            _ => keras_2016::today(layer, kind).unwrap_or_else(|| format!("{layer}/{kind}")),
        }
    }
}

/// Which of the `count` variables of a layer that is none of ours Keras 3 saves under `number`.
fn numbered(number: &str, count: usize) -> &str {
    match (count, number) {
        (1 | 2, "0") => "kernel",
        (2, "1") => "bias",
        (4, "0") => "gamma",
        (4, "1") => "beta",
        (4, "2") => "moving_mean",
        (4, "3") => "moving_variance",
        _ => number,
    }
}

/// One tensor, brought from Keras's layout into ours: the last axis, output channels, becomes the first. A depthwise kernel's last
/// axis, its one filter per channel, is dropped.
fn read_tensor(
    comparison: &Comparison<'_>,
    name: &str,
    shape: &[usize],
    dataset: &Dataset,
) -> Result<Vec<f32>, ImportError> {
    let path = comparison.path;
    let is_depthwise = name.ends_with("/depthwise_kernel");
    let mut in_file = shape.to_vec();
    if is_depthwise {
        in_file.push(1);
    } else {
        in_file.rotate_left(1);
    }
    comparison.shape(name, &in_file, dataset.shape())?;
    if !matches!(dataset.dtype(), Datatype::FloatingPoint { size: 4, .. }) {
        let found = format!("{:?}", dataset.dtype());
        return Err(ImportError::ElementType { path: path.to_owned(), tensor: name.to_owned(), found });
    }
    let mut data = vec![0.0f32; shape.iter().product()];
    dataset
        .read_into(&mut data)
        .map_err(|e| ImportError::Damaged { path: path.to_owned(), reason: format!("{name} cannot be read: {e}") })?;
    match *shape {
        _ if is_depthwise => Ok(data),
        [_] => Ok(data),
        [outputs, ..] => Ok(transpose(&data, data.len() / outputs.max(1), outputs)),
        [] => Ok(data),
    }
}
