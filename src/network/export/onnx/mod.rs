//! A network as ONNX: a graph of standard operators (opset 17), the weights inside, which ONNX Runtime and others compute.
//!
//! ```text
//! image          uint8   [N, H, W, 3]   a poster's bytes as they are decoded: red, green, blue; or
//!                float32 [N, 3, H, W]   numbers that the caller has made of them
//! probabilities  float32 [N, C]         of each genre
//! ```
//!
//! N is free. H and W are fixed at the size that the network was trained on, since Keras's `padding="same"` depends on it. Each layer leaves a
//! value of its own name, so that a graph can be read beside `train --summary`; batch norms stay nodes of their own, as runtimes fold them.
//!
//! The file is written as a stream, one tensor in memory at a time.

mod graph;
mod messages;

use super::super::{Architecture, NamedTensor};
use crate::device::PixelFormat;
use crate::files::{Files, Replacement, SaveError};
use graph::Graph;
use std::borrow::Cow;
use std::path::Path;

/// What the graph is given, and what is said of it.
#[derive(Clone, Debug)]
pub struct Form {
    /// How the bytes of posters become the network's numbers; if `None`, the caller makes them.
    pub bytes: Option<PixelFormat>,
    /// What logits are divided by before they become probabilities.
    pub temperature: f64,
    /// The model in a sentence or two.
    pub about: String,
    /// Names and values that lie beside the graph.
    pub metadata: Vec<(String, String)>,
}

/// Writes the network whose tensors are what `read` says, in the engine's layout, to `path`.
///
/// # Errors
/// What `read` returns, and [`SaveError`] when the disk refuses; what `path` held before is then still there.
pub fn write<'a, F: Files, E: From<SaveError>>(
    files: &F,
    path: &Path,
    architecture: &Architecture,
    form: &Form,
    read: impl Fn(&NamedTensor) -> Result<Cow<'a, [f32]>, E>,
) -> Result<(), E> {
    let graph = Graph::new(architecture, form);
    let mut file = Replacement::create(files, path)?;
    file.write(messages::model(&form.about, &form.metadata, graph.len()).bytes())?;
    file.write(graph.described.bytes())?;
    for weight in &graph.weights {
        file.write(weight.head.bytes())?;
        file.write(bytemuck::cast_slice(&weight.layout.of(&read(weight.tensor)?)))?;
    }
    Ok(file.commit()?)
}
