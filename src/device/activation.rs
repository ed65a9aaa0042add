//! The functions between layers that look at one value at a time.

/// What is done to each value behind a batch norm or a bias. All let NaN through, and so do their gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// Nothing.
    Linear,
    /// `max(0, z)`. Its gradient is 1 above 0, and 0 at 0 and below.
    #[default]
    Relu,
    /// `min(max(0, z), 6)`. Its gradient is 1 strictly between 0 and 6, as in TensorFlow.
    Relu6,
}

impl Activation {
    /// The least and the largest value that it gives.
    pub fn bounds(self) -> [f32; 2] {
        match self {
            Activation::Linear => [f32::NEG_INFINITY, f32::INFINITY],
            Activation::Relu => [0.0, f32::INFINITY],
            Activation::Relu6 => [0.0, 6.0],
        }
    }
}
