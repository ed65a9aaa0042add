//! Pooling.

use super::{Choice, Refusal};

/// A kernel of a max pool's gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolGradient {
    /// A thread makes a pixel, and asks the windows that it lies in.
    Pixels,
    /// A thread makes a cell of 2×2 pixels from the four windows that meet there.
    Cells,
}

impl PoolGradient {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            PoolGradient::Pixels => "max_pool_backward",
            PoolGradient::Cells => "max_pool_backward_3x3_stride2",
        }
    }
}

/// The kernel of a max pool's gradient, for windows of so many pixels each way.
pub fn max_pool_backward(window: usize, stride: usize) -> Choice<PoolGradient> {
    use PoolGradient::{Cells, Pixels};
    match (window, stride) {
        (3, 2) => Choice { kernel: Cells, reason: "four loads for four pixels", refused: Vec::new() },
        _ => Choice {
            kernel: Pixels,
            reason: "it takes every window",
            refused: vec![(Cells.name(), Refusal::NotThisWindow)],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_pool_has_a_kernel_of_its_own() {
        assert_eq!(max_pool_backward(3, 2).kernel, PoolGradient::Cells);
        for (window, stride) in [(2, 2), (3, 1), (3, 3)] {
            let choice = max_pool_backward(window, stride);
            assert_eq!(choice.kernel, PoolGradient::Pixels);
            assert_eq!(choice.refused, [("max_pool_backward_3x3_stride2", Refusal::NotThisWindow)]);
        }
    }
}
