//! Separable convolution: a depthwise convolution and a 1×1 convolution behind it.
//!
//! No batch norm stands between the two. So nothing is owed to the value there nor to its gradient, and the backward pass of each is what
//! that one records.

use super::conv::{self, Conv};
use super::depthwise::{self, Depthwise};
use crate::autograd::Tape;
use crate::device::{Device, DeviceError};
use crate::parameters::Parameters;
use crate::tensor::Tensor;
use crate::value::Value;

/// The two convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Separable {
    /// Of each channel by itself.
    pub depthwise: Depthwise,
    /// Across the channels: 1×1, with stride 1.
    pub pointwise: Conv,
}

/// `y [N, P, Q, K] = conv(depthwise(x))`; with `statistics`, also the batch statistics of `y` for
/// [`batch_norm::train`](super::batch_norm::train), taken while it is stored.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the input does not fit the layer.
pub fn forward<D: Device>(
    tape: &mut Tape<D>,
    parameters: &Parameters<D>,
    x: &Value<D>,
    layer: Separable,
    statistics: bool,
) -> Result<(Value<D>, Option<Tensor<D>>), DeviceError> {
    let (between, _) = depthwise::forward(tape, parameters, x, layer.depthwise, false)?;
    conv::forward(tape, parameters, &between, layer.pointwise, statistics)
}
