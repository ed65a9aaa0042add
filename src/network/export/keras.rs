//! A network's weights as Keras keeps them: HDF5 in the arrangement of Keras Applications' own files, which every Keras loads.
//!
//! ```text
//! layer_names                        attribute: the layers with weights, in Keras's order
//! conv1_conv                         a group for each, with the attribute weight_names
//! conv1_conv/conv1_conv/kernel:0     float32, [R, S, C, K]
//! ```
//!
//! Layouts are Keras's: `[R, S, C, K]` of kernels, `[R, S, C, 1]` of depthwise ones, `[inputs, outputs]` of dense ones.

use super::super::import::transpose;
use super::super::{Architecture, NamedTensor};
use hdf5_writer::{AttributeBuilder, DatasetBuilder, Error, Hdf5Builder, WriteOptions};
use std::borrow::Cow;

/// The arrangement is that of Keras 2; to say so spares the weights what is done to those of Keras 1.
const KERAS: &str = "2.15.0";

/// The file of the network whose tensors are what `read` says, in the engine's layout, with more names and values as attributes.
///
/// # Errors
/// What `read` returns, and [`hdf5_writer::Error`] where HDF5 has no room for something.
pub fn encode<'a, E: From<Error>>(
    architecture: &Architecture,
    metadata: &[(String, String)],
    read: impl Fn(&NamedTensor) -> Result<Cow<'a, [f32]>, E>,
) -> Result<Vec<u8>, E> {
    let mut file = Hdf5Builder::new();
    for (name, value) in [("backend", "tensorflow"), ("keras_version", KERAS)] {
        file = file.attribute(AttributeBuilder::fixed_string(name, value));
    }
    for (name, value) in metadata {
        file = file.attribute(AttributeBuilder::fixed_string(name, value));
    }
    let mut layers = Vec::new();
    for layer in &architecture.layers {
        let tensors = architecture.tensors_of(layer);
        if tensors.is_empty() {
            continue;
        }
        let mut weights = Vec::new();
        for tensor in tensors {
            let (shape, values) = arranged(&tensor.shape, read(tensor)?);
            let weight = format!("{}:0", tensor.name);
            let values = DatasetBuilder::typed_data(format!("{}/{weight}", layer.name), shape, &values)?;
            file = file.dataset(values);
            weights.push(weight);
        }
        file = file.group_attribute(&*layer.name, AttributeBuilder::fixed_string_vector("weight_names", &weights)?);
        layers.push(&*layer.name);
    }
    file = file.attribute(AttributeBuilder::fixed_string_vector("layer_names", &layers)?);
    Ok(file.into_plan()?.encode(WriteOptions::default())?)
}

/// Shape and values in Keras's layout: of a kernel the first axis, its outputs, becomes the last.
fn arranged<'a>(shape: &[usize], values: Cow<'a, [f32]>) -> (Vec<u64>, Cow<'a, [f32]>) {
    let mut keras: Vec<u64> = shape.iter().map(|&extent| extent as u64).collect();
    match *shape {
        [outputs, _] | [outputs, _, _, _] => {
            keras.rotate_left(1);
            let rest = values.len() / outputs.max(1);
            (keras, transpose(&values, outputs, rest).into())
        }
        // The one filter of each channel has an axis of its own there.
        [_, _, _] => {
            keras.push(1);
            (keras, values)
        }
        _ => (keras, values),
    }
}
