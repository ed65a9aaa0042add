//! The tape.
//!
//! Forward calls in [`ops`](crate::ops) push a [`Node`]; [`Tape::backward`] walks the nodes once in reverse and frees each
//! as it goes. A node is an enum variant that lists what its gradient needs and nothing more, so the variants together
//! *are* the memory plan. Each variant's rule lives with its layer family in `ops/`.
//!
//! Gradients of parameters accumulate in the arenas of [`Parameters`]; gradients of activations live in *slots* of the
//! tape, from the consumer that fills one until the producer that takes it. A value whose gradient nobody needs (the
//! images, everything behind a frozen prefix, everything at inference) has no slot, and nothing is recorded for it.

use crate::checks::{Checks, NonFinite};
use crate::device::{Device, DeviceError, Pass, Profiler, Scope};
use crate::ops::{batch_norm, conv, dense, pool, residual};
use crate::parameters::Parameters;
use crate::tensor::{Shape, Tensor};
use std::rc::Rc;

/// Where the tape keeps the gradient of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// A gradient on its way back, in the form its last kernel left it. The forms mirror the pending activations of the
/// forward pass and carry the same fusion: each is paid for by whichever kernel loads it next.
pub enum Gradient<D: Device> {
    /// The gradient itself.
    Ready(Tensor<D>),
    /// In front of a batch norm with ReLU: the mask is applied, and `sums [2, C]` reduced in the same pass.
    Reduced {
        /// Gradient behind the ReLU.
        dz: Tensor<D>,
        /// Σ dz and Σ dz·(y − mean).
        sums: Tensor<D>,
    },
    /// Behind a batch norm: `dy = k₀·dz + k₁·y + k₂`, owed until a convolution's backward pass loads it.
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
    /// The tensor that holds the gradient before the debt.
    pub(crate) fn into_tensor(self) -> Tensor<D> {
        match self {
            Gradient::Ready(tensor) | Gradient::Reduced { dz: tensor, .. } | Gradient::Owed { dz: tensor, .. } => {
                tensor
            }
        }
    }
}

/// One recorded operation: what its gradient needs.
pub enum Node<D: Device> {
    /// [`conv::forward`].
    Conv {
        /// The output's slot.
        y: Slot,
        /// The input, pending or finished.
        x: conv::Activation<D>,
        /// Parameters and geometry.
        layer: conv::Conv,
    },
    /// [`batch_norm::train`] and [`batch_norm::infer`].
    BatchNorm {
        /// The output's slot.
        z: Slot,
        /// The input's slot, if its gradient is wanted.
        y: Option<Slot>,
        /// The input.
        raw: Tensor<D>,
        /// `norm [4, C]`.
        norm: Tensor<D>,
        /// The parameters, if the statistics were the batch's; none in inference form.
        trained: Option<batch_norm::BatchNorm>,
    },
    /// [`residual::join`].
    Junction {
        /// The output's slot.
        out: Slot,
        /// The output, whose sign is the mask.
        activation: Tensor<D>,
        /// The block's last batch norm.
        branch: batch_norm::Normalised<D>,
        /// The other way around the block.
        shortcut: residual::Shortcut<D>,
    },
    /// [`pool::max`].
    MaxPool {
        /// The output's slot.
        y: Slot,
        /// The input, pending or finished.
        x: conv::Activation<D>,
        /// Geometry.
        shape: crate::device::PoolShape,
    },
    /// [`pool::global`].
    GlobalPool {
        /// The output's slot.
        y: Slot,
        /// The input's slot.
        x: Option<Slot>,
        /// The input's shape.
        input: Shape,
        /// The input's values, where the maximum was taken; an average needs none.
        winners: Option<Tensor<D>>,
    },
    /// [`dense::forward`].
    Dense {
        /// The output's slot.
        y: Slot,
        /// The input's slot, if its gradient is wanted.
        x: Option<Slot>,
        /// The input.
        input: Tensor<D>,
        /// The output of a ReLU, whose sign is the mask.
        output: Option<Tensor<D>>,
        /// Parameters.
        layer: dense::Dense,
    },
}

/// The record of one forward pass, and the gradients of its backward pass.
pub struct Tape<D: Device> {
    device: Rc<D>,
    recording: bool,
    /// Looks at every result, if somebody wants that.
    checks: Option<Checks>,
    /// With the layer each belongs to, if somebody measures or checks the layers.
    nodes: Vec<(Node<D>, Option<Rc<str>>)>,
    gradients: Vec<Option<Gradient<D>>>,
}

impl<D: Device> Tape<D> {
    /// A tape that records for [`Tape::backward`].
    pub fn recording(device: Rc<D>) -> Self {
        Tape { device, recording: true, checks: None, nodes: Vec::new(), gradients: Vec::new() }
    }

    /// A tape that records, and looks at every result on its way for [`first_non_finite`](Self::first_non_finite). What an op
    /// leaves to the next one, such as a batch norm's scale and shift, is looked at where it is applied.
    pub fn checking(device: Rc<D>) -> Self {
        Tape { checks: Some(Checks::new()), ..Tape::recording(device) }
    }

    /// The first result that held a number which is not finite, as far as a [`checking`](Self::checking) tape has come.
    pub fn first_non_finite(self) -> Option<NonFinite> {
        self.checks.and_then(Checks::into_found)
    }

    /// A tape that records nothing: inference keeps no activation longer than its consumer needs it.
    pub fn inference(device: Rc<D>) -> Self {
        Tape { device, recording: false, checks: None, nodes: Vec::new(), gradients: Vec::new() }
    }

    /// The device all ops run on.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// A slot for the gradient of an input, for whoever wants one ([`Tape::gradient`]). `None` on a tape that does not
    /// record.
    pub fn input_slot(&mut self) -> Option<Slot> {
        self.slot_if(true)
    }

    /// A slot for an op's output if a backward pass will want it.
    pub(crate) fn slot_if(&mut self, needed: bool) -> Option<Slot> {
        if !(self.recording && needed) {
            return None;
        }
        self.gradients.push(None);
        Some(Slot(self.gradients.len() - 1))
    }

    /// Says which layer the next op is of, for whoever measures or checks the layers.
    pub(crate) fn enter(&self, layer: &str) {
        self.enter_pass(layer, Pass::Forward);
    }

    fn enter_pass(&self, layer: &str, pass: Pass) {
        self.device.enter(layer, pass);
        if let Some(checks) = &self.checks {
            checks.enter(layer, pass);
        }
    }

    /// Looks at a result of the layer, if somebody checks the layers. `tensor` says in words what it is.
    pub(crate) fn check(&self, tensor: &str, result: D::View<'_>) -> Result<(), DeviceError> {
        if let Some(checks) = self.checks.as_ref().filter(|checks| checks.goes_on()) {
            checks.look(tensor, &self.device.download(result)?);
        }
        Ok(())
    }

    /// Records an operation.
    pub(crate) fn push(&mut self, node: Node<D>) {
        let layer = match &self.checks {
            Some(checks) => Some(checks.layer().into()),
            None => self.device.profiler().and_then(Profiler::scope).map(|Scope { layer, .. }| layer),
        };
        self.nodes.push((node, layer));
    }

    /// Takes the gradient that has arrived for a value, if one has.
    pub(crate) fn take(&mut self, slot: Slot) -> Option<Gradient<D>> {
        self.gradients[slot.0].take()
    }

    /// Puts a gradient that includes whatever [`Tape::take`] returned before.
    pub(crate) fn put(&mut self, slot: Slot, gradient: Gradient<D>) -> Result<(), DeviceError> {
        const TENSOR: &str = "the gradient of its input";
        match &gradient {
            Gradient::Ready(gradient) => self.check(TENSOR, gradient.view())?,
            Gradient::Reduced { dz, sums: beside } | Gradient::Owed { dz, k: beside, .. } => {
                self.check(TENSOR, dz.view())?;
                self.check("the sums or factors that go with the gradient of its input", beside.view())?;
            }
        }
        self.gradients[slot.0] = Some(gradient);
        Ok(())
    }

    /// Adds a gradient to what has arrived for a value. A sum is [`Gradient::Ready`]: masks are idempotent and linear, so
    /// a batch norm can mask and reduce the total once more.
    pub(crate) fn add(&mut self, slot: Slot, gradient: Gradient<D>) -> Result<(), DeviceError> {
        let total = match self.take(slot) {
            None => gradient,
            Some(earlier) => {
                let mut total = earlier.into_tensor().into_unique(&self.device)?;
                self.device.add(total.view_mut(), gradient.into_tensor().view())?;
                Gradient::Ready(total)
            }
        };
        self.put(slot, total)
    }

    /// The gradient that [`Tape::backward`] left for an input.
    pub fn gradient(&mut self, slot: Slot) -> Option<Tensor<D>> {
        self.take(slot).map(Gradient::into_tensor)
    }

    /// Runs every recorded node's rule, last to first, from the `seed` gradient of `output`.
    ///
    /// # Errors
    /// Whatever the device reports.
    pub fn backward(
        &mut self,
        output: Slot,
        seed: Tensor<D>,
        parameters: &mut Parameters<D>,
    ) -> Result<(), DeviceError> {
        self.gradients[output.0] = Some(Gradient::Ready(seed));
        while let Some((node, layer)) = self.nodes.pop() {
            if let Some(layer) = layer {
                self.enter_pass(&layer, Pass::Backward);
            }
            match node {
                Node::Conv { y, x, layer } => conv::backward(self, parameters, y, x, layer)?,
                Node::BatchNorm { z, y, raw, norm, trained } => {
                    batch_norm::backward(self, parameters, z, y, raw, norm, trained)?;
                }
                Node::Junction { out, activation, branch, shortcut } => {
                    residual::backward(self, out, activation, branch, shortcut)?;
                }
                Node::MaxPool { y, x, shape } => pool::max_backward(self, y, x, shape)?,
                Node::GlobalPool { y, x, input, winners } => pool::global_backward(self, y, x, input, winners)?,
                Node::Dense { y, x, input, output, layer } => {
                    dense::backward(self, parameters, y, x, input, output, layer)?;
                }
            }
        }
        Ok(())
    }
}
