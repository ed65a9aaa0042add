//! Networks as data: each is Keras's own list of layers, in a file of its own.
//!
//! Everything else is derived from the list: where the parameters lie and what they start from, the summary, how far
//! `last:N` reaches, the names in checkpoints and weight files, and the [`plan`](crate::plan) that computes it.

mod architecture;
mod builder;
pub mod import;
mod initialisers;
mod layer;
pub mod resnet50;
pub mod summary;

pub use architecture::{Architecture, ModelConfig, NamedTensor, Place, Trainable};
pub use builder::{Builder, Value};
pub use initialisers::Initialiser;
pub use layer::{Convolution, Layer, Op};

use crate::device::DeviceError;

/// A network: how its list of layers is written, up to the last feature map, and the head behind it.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// What people call it.
    pub title: &'static str,
    /// Writes the base's layers; returns its last feature map `[H, W, C]`, which a global pooling ends.
    pub base: fn(&mut Builder) -> Result<Value, DeviceError>,
    /// Widths of the hidden dense layers.
    pub head: &'static [usize],
}

/// The paper's head.
pub const HEAD: [usize; 2] = [1024, 128];

/// By their titles, which no two share.
impl PartialEq for Network {
    fn eq(&self, other: &Self) -> bool {
        self.title == other.title
    }
}
