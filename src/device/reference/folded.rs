//! Folded convolutions: the trained ones by their definition, with the scale multiplied into the filters.

use super::{Reference, activate};
use crate::device::{
    Activation, ConvForward, ConvKernels, DepthwiseForward, DepthwiseKernels, DeviceError, Foldable, FoldedForward,
    FoldedKernels, FoldedShape, Real,
};

/// Filters times their scale, and the bias.
pub struct Folded {
    w: Vec<f64>,
    bias: Vec<f64>,
}

impl FoldedKernels for Reference {
    type Folded = Folded;

    /// Only where nothing is rounded: rounding, it stands for a GPU, which does not fold.
    fn folds(&self) -> bool {
        self.rounding.is_none()
    }

    fn fold<R: Real>(&self, filters: Foldable<'_, R>, shape: &FoldedShape) -> Result<Folded, DeviceError> {
        filters.check(shape)?;
        let channel_of = |at: usize| match shape {
            FoldedShape::Full(conv) => at / (conv.r * conv.s * conv.c),
            FoldedShape::Depthwise(conv) => at % conv.c,
        };
        let scaled = |(at, &w): (usize, &R)| w.into() * filters.scale[channel_of(at)];
        let w = filters.w.iter().enumerate().map(scaled).collect();
        Ok(Folded { w, bias: filters.bias.to_vec() })
    }

    fn folded_forward(
        &self,
        operands: FoldedForward<'_, Folded, &[f64], &mut [f64]>,
        shape: &FoldedShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let FoldedForward { y: out, accumulate, x, filters: Folded { w, bias }, activation } = operands;
        let mut y = vec![f64::NAN; shape.output_len()];
        match shape {
            FoldedShape::Full(shape) => {
                let activation = Activation::Linear;
                let operands =
                    ConvForward { y: &mut y[..], stats: None, x, transform: None, w, bias: None, activation };
                self.conv_forward(operands, shape)?;
            }
            FoldedShape::Depthwise(shape) => {
                let operands = DepthwiseForward { y: &mut y[..], stats: None, x, transform: None, w };
                self.depthwise_forward(operands, shape)?;
            }
        }
        for (at, (out, y)) in out.iter_mut().zip(y).enumerate() {
            let other_way = if accumulate { *out } else { 0.0 };
            *out = activate(activation, y + bias[at % bias.len()] + other_way);
        }
        Ok(())
    }
}
