//! Depthwise convolution (`kernels/depthwise/`). Filters of 3×3 slide down columns of pixels, by 16 bytes of channels; all others look
//! for their taps pixel by pixel, element by element.

use super::rows::{self, RowBlocks, UNROLL};
use super::{Choice, Refusal, Target};
use crate::device::DepthwiseShape;

/// Threads a block, `ROWS_THREADS` of the kernels.
pub const THREADS: usize = 128;
/// Blocks a multiprocessor that slide: what it holds of the forward kernel. One that is done takes its next columns.
const SLIDING: usize = 3;
/// Blocks a multiprocessor that look for taps.
const LOOKING: usize = 8;
/// Least pixels of a column: two rows more are read than it has.
const LEAST_LENGTH: usize = 8;

/// One of the three passes, and the names of its kernels.
#[derive(Debug, PartialEq, Eq)]
pub struct Pass {
    /// What they begin with.
    pub name: &'static str,
    sliding: &'static str,
    stride_1: &'static str,
    stride_2: &'static str,
    scalar: &'static str,
    /// Whether it writes pixels of the input rather than of the output.
    pub to_input: bool,
}

/// The forward pass.
pub static FORWARD: Pass = Pass {
    name: "depthwise_forward",
    sliding: "depthwise_forward_3x3*",
    stride_1: "depthwise_forward_3x3",
    stride_2: "depthwise_forward_3x3_stride2",
    scalar: "depthwise_forward_scalar",
    to_input: false,
};
/// The data gradient.
pub static BACKWARD_DATA: Pass = Pass {
    name: "depthwise_backward_data",
    sliding: "depthwise_backward_data_3x3*",
    stride_1: "depthwise_backward_data_3x3",
    stride_2: "depthwise_backward_data_3x3_stride2",
    scalar: "depthwise_backward_data_scalar",
    to_input: true,
};
/// The weight gradient.
pub static BACKWARD_WEIGHTS: Pass = Pass {
    name: "depthwise_backward_weights",
    sliding: "depthwise_backward_weights_3x3*",
    stride_1: "depthwise_backward_weights_3x3",
    stride_2: "depthwise_backward_weights_3x3_stride2",
    scalar: "depthwise_backward_weights_scalar",
    to_input: false,
};

/// Strips of columns of pixels, for threads that slide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strips {
    /// Columns of an image.
    pub columns: usize,
    /// Strips that one is cut into.
    pub strips: usize,
    /// Pixels of a strip, of the last one at most.
    pub length: usize,
}

/// A kernel, and how a pass is cut up for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthwiseGrid {
    /// Its name.
    pub kernel: &'static str,
    /// How blocks lie across the channels.
    pub across: RowBlocks,
    /// What they take turns at: strips, or pixels.
    pub rows: usize,
    /// Blocks that share the rows.
    pub blocks: usize,
    /// Of the kernels that slide.
    pub strips: Option<Strips>,
}

/// The kernel of a pass, over activations that are all aligned to 16 bytes or are not.
pub fn depthwise(target: &Target, pass: &Pass, shape: &DepthwiseShape, aligned: bool) -> Choice<DepthwiseGrid> {
    let &DepthwiseShape { n, h, w, c, r, s, stride, pad, p, q } = shape;
    let [height, width] = if pass.to_input { [h, w] } else { [p, q] };
    let wide = rows::walk(target, c, aligned);
    let refusal = match wide.refused.first() {
        _ if [r, s] != [3, 3] || stride > 2 => Some(Refusal::NotThisFilter),
        Some((_, refusal)) => Some(*refusal),
        None => None,
    };
    if let Some(refusal) = refusal {
        let across = RowBlocks::of_groups(c, false).in_blocks_of(THREADS);
        let rows = n * height * width;
        let blocks = across.sharing(target, rows, LOOKING, UNROLL);
        let kernel = DepthwiseGrid { kernel: pass.scalar, across, rows, blocks, strips: None };
        return Choice { kernel, reason: "it takes every filter", refused: vec![(pass.sliding, refusal)] };
    }
    let across = wide.kernel.in_blocks_of(THREADS);
    // The data gradient of stride 2 goes by cells of 2×2 pixels, counted from the padding's first.
    let [height, columns] = match (pass.to_input, stride) {
        (true, 2) => [h, w].map(|side| (side - 1 + pad) / 2 + 1),
        _ => [height, width],
    };
    // Columns so long that twice the blocks which the GPU holds have one for each of their lines.
    let wanted = 2 * SLIDING * target.multiprocessors * across.lines;
    let strips = wanted.div_ceil(across.slices * n * columns).min(height.div_ceil(LEAST_LENGTH));
    let length = height.div_ceil(strips);
    let strips = height.div_ceil(length);
    let rows = n * strips * columns;
    let most = (SLIDING * target.multiprocessors / across.slices).max(1);
    let kernel = DepthwiseGrid {
        kernel: if stride == 1 { pass.stride_1 } else { pass.stride_2 },
        across,
        rows,
        blocks: rows.div_ceil(across.lines).min(most),
        strips: Some(Strips { columns, strips, length }),
    };
    Choice { kernel, reason: "a thread slides down a column, and loads each row of taps once", refused: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::Precision;

    const A100: Target = Target { capability: (8, 0), multiprocessors: 108, precision: Precision::Bf16 };

    fn shape(side: usize, c: usize, window: usize, stride: usize) -> DepthwiseShape {
        let pad = (window - 1) / 2;
        let out = (side + 2 * pad - window) / stride + 1;
        DepthwiseShape { n: 32, h: side, w: side, c, r: window, s: window, stride, pad, p: out, q: out }
    }

    #[test]
    fn filters_of_3x3_slide_and_others_look() {
        let of = |shape, aligned| depthwise(&A100, &FORWARD, &shape, aligned);
        assert_eq!(of(shape(75, 32, 3, 1), true).kernel.kernel, "depthwise_forward_3x3");
        assert_eq!(of(shape(75, 64, 3, 2), true).kernel.kernel, "depthwise_forward_3x3_stride2");
        for (shape, aligned, refusal) in [
            (shape(75, 32, 5, 1), true, Refusal::NotThisFilter),
            (shape(75, 32, 3, 3), true, Refusal::NotThisFilter),
            (shape(75, 36, 3, 1), true, Refusal::Channels { channels: 36, multiple: 8 }),
            (shape(75, 32, 3, 1), false, Refusal::Unaligned),
        ] {
            let choice = of(shape, aligned);
            assert_eq!((choice.kernel.kernel, choice.kernel.strips), ("depthwise_forward_scalar", None));
            assert_eq!(choice.refused, [("depthwise_forward_3x3*", refusal)]);
        }
    }

    #[test]
    fn strips_cover_every_column() {
        for pass in [&FORWARD, &BACKWARD_DATA, &BACKWARD_WEIGHTS] {
            for (side, c, stride) in [(75, 32, 1), (75, 64, 2), (38, 128, 2), (10, 512, 1), (5, 1024, 1), (1, 8, 1)] {
                let shape = shape(side, c, 3, stride);
                let grid = depthwise(&A100, pass, &shape, true).kernel;
                let Strips { columns, strips, length } = grid.strips.unwrap();
                let side = match (pass.to_input, stride) {
                    (true, 2) => side / 2 + 1,
                    (true, _) => side,
                    (false, _) => shape.p,
                };
                assert_eq!(columns, side);
                assert!(strips * length >= side && (strips - 1) * length < side, "{pass:?} {shape:?} {grid:?}");
                assert_eq!(grid.rows, 32 * strips * columns);
                assert!(grid.blocks * grid.across.slices <= (SLIDING * 108).max(grid.across.slices), "{grid:?}");
            }
        }
    }
}
