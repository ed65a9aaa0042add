//! How wide the numbers are.

/// What activations are stored in, and what convolutions multiply. Sums, statistics, parameters and losses are `f32` in
/// each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// `f32` throughout; on a GPU without tensor cores.
    F32,
    /// `f32` storage; tensor cores multiply with 10 bits of mantissa.
    Tf32,
    /// Activations and their gradients in bfloat16, and a copy of the weights as well, for the products of convolutions.
    Bf16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Precision; 3] = [Precision::Bf16, Precision::Tf32, Precision::F32];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }

    /// Bytes of an activation and of its gradient, and of the weights that convolutions read.
    pub fn bytes(self) -> usize {
        match self {
            Precision::F32 | Precision::Tf32 => 4,
            Precision::Bf16 => 2,
        }
    }
}
