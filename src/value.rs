//! What flows between the steps of a network: a tensor with what is still owed to it, and the gradient on its way back.
//!
//! A batch norm touches no pixel. It computes a scale and a shift per channel, and leaves it to whoever reads the value to apply them
//! while loading; its gradient is left half computed in the same way. So each debt has a place where it is paid if nobody can pay
//! while loading: [`Value::values`] going forward, [`batch_norm`](crate::ops::batch_norm) going back. A convolution that has applied its
//! activation owes nothing going forward; going back, whoever forms the gradient may undo the activation while storing it, or else
//! [`conv`](crate::ops::conv) does.

use crate::device::{Activation, BatchNormApply, Device, DeviceError, InputTransform, OutputGradient, Rows, Storage};
use crate::tensor::{Shape, Tensor};

/// Where the tape keeps the gradient of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub(crate) usize);

/// A tensor, and what is still owed to it.
pub struct Value<D: Device> {
    pub(crate) slot: Option<Slot>,
    pub(crate) raw: Tensor<D>,
    pub(crate) owed: Owed<D>,
}

/// What has to be done to a tensor before it is the value that it stands for, or to its gradient.
pub(crate) enum Owed<D: Device> {
    Nothing,
    /// `activation(scale·x + shift)` per channel.
    Norm {
        norm: Tensor<D>,
        activation: Activation,
    },
    /// Nothing: the tensor is the value. But an activation gave it, and its gradient may be masked and summed up while it is stored, as
    /// that of [`Owed::Norm`] is. `norm` is the [identity](crate::autograd::Tape::identity).
    Mask {
        norm: Tensor<D>,
        activation: Activation,
    },
}

impl<D: Device> Value<D> {
    /// A tensor to which nothing is owed. With a slot, the tape keeps its gradient.
    pub fn ready(values: Tensor<D>, slot: Option<Slot>) -> Self {
        Value { slot, raw: values, owed: Owed::Nothing }
    }

    /// The extents, batch first.
    pub fn shape(&self) -> Shape {
        self.raw.shape()
    }

    /// Where a backward pass leaves its gradient, or begins with it.
    pub fn slot(&self) -> Option<Slot> {
        self.slot
    }

    /// The values, computed now if they are still owed.
    ///
    /// # Errors
    /// The device's.
    pub fn values(&self, device: &D) -> Result<Tensor<D>, DeviceError> {
        let Owed::Norm { norm, activation } = &self.owed else { return Ok(self.raw.clone()) };
        let mut values = Tensor::new(device, self.shape(), Storage::Activation)?;
        let (a, y) = (values.view_mut(), self.raw.view());
        let operands = BatchNormApply { a, y, norm: norm.view(), activation: *activation };
        device.batch_norm_apply(operands, self.shape().into())?;
        Ok(values)
    }

    /// The same value with nothing owed.
    ///
    /// # Errors
    /// The device's.
    pub fn settled(self, device: &D) -> Result<Self, DeviceError> {
        Ok(Value { raw: self.values(device)?, owed: Owed::Nothing, ..self })
    }

    /// What a kernel that pays while loading needs to know.
    pub(crate) fn transform(&self) -> Option<InputTransform<D::View<'_>>> {
        match &self.owed {
            Owed::Norm { norm, activation } => Some(InputTransform { norm: norm.view(), activation: *activation }),
            Owed::Nothing | Owed::Mask { .. } => None,
        }
    }

    /// What a kernel that undoes an activation while storing the gradient needs to know of it: `norm [4, C]`, and what follows.
    pub(crate) fn mask(&self) -> Option<(&Tensor<D>, Activation)> {
        match &self.owed {
            Owed::Norm { norm, activation } | Owed::Mask { norm, activation } => Some((norm, *activation)),
            Owed::Nothing => None,
        }
    }
}

impl<D: Device> Clone for Value<D> {
    fn clone(&self) -> Self {
        let owed = match &self.owed {
            Owed::Norm { norm, activation } => Owed::Norm { norm: norm.clone(), activation: *activation },
            Owed::Mask { norm, activation } => Owed::Mask { norm: norm.clone(), activation: *activation },
            Owed::Nothing => Owed::Nothing,
        };
        Value { slot: self.slot, raw: self.raw.clone(), owed }
    }
}

/// One row per pixel.
impl From<Shape> for Rows {
    fn from(shape: Shape) -> Self {
        let channels = shape.channels();
        Rows { rows: shape.len() / channels.max(1), channels }
    }
}

/// The gradient of a value, in the form in which its last kernel left it.
pub enum Gradient<D: Device> {
    /// The gradient itself.
    Ready(Tensor<D>),
    /// In front of an activation, behind a batch norm or a bias: what the activation lets pass, and `sums [2, C]` reduced in the same
    /// pass.
    Reduced {
        /// Gradient behind the activation.
        dz: Tensor<D>,
        /// Σ dz and Σ dz·(y − mean).
        sums: Tensor<D>,
    },
    /// Behind a batch norm: `dy = k₀·dz + k₁·y + k₂`, formed by a convolution's backward pass while loading.
    Owed {
        /// Gradient of the batch norm's output.
        dz: Tensor<D>,
        /// The batch norm's input.
        y: Tensor<D>,
        /// `k [3, C]`.
        k: Tensor<D>,
    },
}

impl<D: Device> Gradient<D> {
    /// What a convolution leaves of its input: with the `sums` of a batch norm in front, or without one.
    pub(crate) fn of_input(dx: Tensor<D>, sums: Option<Tensor<D>>) -> Self {
        match sums {
            Some(sums) => Gradient::Reduced { dz: dx, sums },
            None => Gradient::Ready(dx),
        }
    }

    /// The gradient of its output, as a convolution's backward pass takes it.
    pub(crate) fn of_output(&self) -> OutputGradient<D::View<'_>> {
        match self {
            Gradient::Ready(dy) | Gradient::Reduced { dz: dy, .. } => OutputGradient::Ready(dy.view()),
            Gradient::Owed { dz, y, k } => OutputGradient::Owed { dz: dz.view(), y: y.view(), k: k.view() },
        }
    }

    /// The tensor of a gradient that owes nothing. Activations are idempotent in their gradient, so one that has been through them
    /// may go through them again.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] if a batch norm owes it: only the convolution that the batch norm follows can form it.
    pub(crate) fn into_tensor(self) -> Result<Tensor<D>, DeviceError> {
        match self {
            Gradient::Ready(tensor) | Gradient::Reduced { dz: tensor, .. } => Ok(tensor),
            Gradient::Owed { .. } => {
                let reason = "a batch norm's input has to be a convolution's output that nobody else reads".to_owned();
                Err(DeviceError::Shape { kernel: "batch norm", reason })
            }
        }
    }
}
