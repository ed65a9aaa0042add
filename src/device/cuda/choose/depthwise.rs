//! Depthwise convolution.

use super::{Choice, Refusal, Target};
use crate::device::DepthwiseShape;

/// A pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepthwisePass {
    /// The output.
    Forward,
    /// The gradient of the input.
    BackwardData,
    /// The gradient of the filters.
    BackwardWeights,
}

/// How its kernel goes over the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepthwiseWalk {
    /// A thread slides down a column of pixels, 16 bytes of channels at once, the filter in its registers.
    Columns,
    /// A thread looks for the taps of a pixel, element by element.
    Pixels,
}

impl DepthwiseWalk {
    /// The kernel's name.
    pub fn name(self, pass: DepthwisePass, stride: usize) -> &'static str {
        use DepthwisePass::{BackwardData, BackwardWeights, Forward};
        match (self, pass, stride) {
            (DepthwiseWalk::Columns, Forward, 1) => "depthwise_forward_3x3",
            (DepthwiseWalk::Columns, Forward, _) => "depthwise_forward_3x3_stride2",
            (DepthwiseWalk::Columns, BackwardData, 1) => "depthwise_backward_data_3x3",
            (DepthwiseWalk::Columns, BackwardData, _) => "depthwise_backward_data_3x3_stride2",
            (DepthwiseWalk::Columns, BackwardWeights, 1) => "depthwise_backward_weights_3x3",
            (DepthwiseWalk::Columns, BackwardWeights, _) => "depthwise_backward_weights_3x3_stride2",
            (DepthwiseWalk::Pixels, Forward, _) => "depthwise_forward_scalar",
            (DepthwiseWalk::Pixels, BackwardData, _) => "depthwise_backward_data_scalar",
            (DepthwiseWalk::Pixels, BackwardWeights, _) => "depthwise_backward_weights_scalar",
        }
    }
}

/// How to compute a pass whose operands are all aligned to 16 bytes or are not.
pub fn depthwise(target: &Target, shape: &DepthwiseShape, pass: DepthwisePass, aligned: bool) -> Choice<DepthwiseWalk> {
    let multiple = target.lane();
    let refusal = if [shape.r, shape.s] != [3, 3] || shape.stride > 2 {
        Some(Refusal::NotThisFilter)
    } else if !shape.c.is_multiple_of(multiple) {
        Some(Refusal::Channels { channels: shape.c, multiple })
    } else if !aligned {
        Some(Refusal::Unaligned)
    } else {
        None
    };
    match refusal {
        None => Choice {
            kernel: DepthwiseWalk::Columns,
            reason: "each pixel is loaded once for all taps of a column",
            refused: Vec::new(),
        },
        Some(refusal) => Choice {
            kernel: DepthwiseWalk::Pixels,
            reason: "it takes every filter",
            refused: vec![(DepthwiseWalk::Columns.name(pass, shape.stride), refusal)],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Padding;
    use crate::device::cuda::Precision;

    #[test]
    fn mobilenets_filters_slide_and_others_look_for_their_taps() {
        let target = Target { capability: (8, 0), multiprocessors: 108, precision: Precision::Bf16 };
        let pass = DepthwisePass::Forward;
        let of = |c, window, stride, aligned| {
            let pad = Padding { before: 0, after: 1 };
            let shape = DepthwiseShape::new([2, 9, 9, c], [window; 2], stride, pad).unwrap();
            depthwise(&target, &shape, pass, aligned)
        };
        for (stride, name) in [(1, "depthwise_forward_3x3"), (2, "depthwise_forward_3x3_stride2")] {
            assert_eq!(of(32, 3, stride, true).kernel.name(pass, stride), name);
        }
        for (choice, refusal) in [
            (of(32, 5, 1, true), Refusal::NotThisFilter),
            (of(32, 3, 3, true), Refusal::NotThisFilter),
            (of(36, 3, 1, true), Refusal::Channels { channels: 36, multiple: 8 }),
            (of(32, 3, 1, false), Refusal::Unaligned),
        ] {
            assert_eq!(choice.kernel, DepthwiseWalk::Pixels);
            assert_eq!(choice.refused[0].1, refusal);
        }
    }
}
