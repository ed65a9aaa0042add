//! Dense layers, with or without ReLU.

use crate::autograd::Tape;
use crate::device::{
    DenseBackwardData, DenseBackwardWeights, DenseForward, DenseShape, Device, DeviceError, ReluBackward, Storage,
};
use crate::parameters::{Parameters, Span};
use crate::tensor::Tensor;
use crate::value::{Gradient, Slot, Value};

/// A dense layer's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dense {
    /// `[outputs, inputs]`.
    pub kernel: Span,
    /// `[outputs]`; follows the kernel in the arena.
    pub bias: Span,
    /// Columns of the input.
    pub inputs: usize,
    /// Columns of the output.
    pub outputs: usize,
    /// Whether a ReLU follows.
    pub relu: bool,
}

impl Dense {
    fn shape<D: Device>(&self, x: &Tensor<D>) -> Result<DenseShape, DeviceError> {
        match *x.shape().extents() {
            [n, inputs] if inputs == self.inputs => Ok(DenseShape { n, inputs, outputs: self.outputs }),
            _ => {
                let reason = format!("{:?} is not [N, {}]", x.shape(), self.inputs);
                Err(DeviceError::Shape { kernel: "dense", reason })
            }
        }
    }
}

/// `y [N, outputs] = x [N, inputs]·kernelᵀ + bias`, then the ReLU if the layer has one.
///
/// # Errors
/// The device's, and [`DeviceError::Shape`] if the input has other columns.
pub fn forward<D: Device>(
    tape: &mut Tape<D>,
    parameters: &Parameters<D>,
    x: &Value<D>,
    layer: Dense,
) -> Result<Value<D>, DeviceError> {
    let (input, x) = (x.values(tape.device())?, x.slot);
    let shape = layer.shape(&input)?;
    let mut y = Tensor::new(tape.device(), [shape.n, shape.outputs], Storage::Full)?;
    let (w, b) = (parameters.weights.view(layer.kernel), parameters.weights.view(layer.bias));
    let operands = DenseForward { y: y.view_mut(), relu: layer.relu, x: input.view(), w, b };
    tape.device().dense_forward(operands, &shape)?;
    tape.check("its output", y.view())?;
    let slot = tape.slot_if(x.is_some() || parameters.is_trainable(layer.kernel));
    if let Some(slot) = slot {
        let output = layer.relu.then(|| y.clone());
        tape.record(move |tape, parameters| backward(tape, parameters, slot, x, input, output, layer));
    }
    Ok(Value::ready(y, slot))
}

/// The gradients of kernel and bias, then that of the input. `output` is a ReLU's, whose sign says what it lets pass.
fn backward<D: Device>(
    tape: &mut Tape<D>,
    parameters: &mut Parameters<D>,
    y: Slot,
    x: Option<Slot>,
    input: Tensor<D>,
    output: Option<Tensor<D>>,
    layer: Dense,
) -> Result<(), DeviceError> {
    let Some(gradient) = tape.take(y) else { return Ok(()) };
    let shape = layer.shape(&input)?;
    let mut dz = gradient.into_tensor()?;
    if let Some(output) = output {
        let mut masked = Tensor::new(tape.device(), dz.shape(), Storage::Full)?;
        let operands = ReluBackward { dz: masked.view_mut(), dy: dz.view(), y: output.view() };
        tape.device().relu_backward(operands)?;
        dz = masked;
    }
    if parameters.is_trainable(layer.kernel) {
        let (dw, db) = parameters.gradients.pair_mut(layer.kernel, layer.bias);
        let operands = DenseBackwardWeights { dw, db, dz: dz.view(), x: input.view() };
        tape.device().dense_backward_weights(operands, &shape)?;
        tape.check("the gradient of its kernel", parameters.gradients.view(layer.kernel))?;
        tape.check("the gradient of its bias", parameters.gradients.view(layer.bias))?;
    }
    let Some(x) = x else { return Ok(()) };
    let mut dx = Tensor::new(tape.device(), input.shape(), Storage::Full)?;
    let w = parameters.weights.view(layer.kernel);
    tape.device().dense_backward_data(DenseBackwardData { dx: dx.view_mut(), dz: dz.view(), w }, &shape)?;
    tape.add(x, Gradient::Ready(dx))
}
