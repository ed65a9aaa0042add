//! The tape.
//!
//! Going forward, each operation of [`ops`](crate::ops) records a rule: a closure that owns what its gradient needs and nothing more.
//! [`Tape::backward`] calls the rules in reverse and frees each as it goes. The tape knows no operation, and an operation's rule
//! stands beside its forward pass. A rule may record others, which are called next: so a part of the forward pass is done again.
//!
//! Gradients of parameters accumulate in the arenas of [`Parameters`]; gradients of activations live in *slots* of the
//! tape, from the consumer that fills one until the producer that takes it. A value whose gradient nobody needs (the
//! images, everything behind a frozen prefix, everything at inference) has no slot, and nothing is recorded for it.

use crate::checks::{Checks, NonFinite};
use crate::device::{Device, DeviceError, Pass, Profiler, Real, Scope, Storage};
use crate::parameters::Parameters;
use crate::tensor::Tensor;
use crate::value::{Gradient, Slot};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Takes the gradient of an operation's output from its slot, and gives the inputs and the parameters theirs.
type Rule<D> = Box<dyn FnOnce(&mut Tape<D>, &mut Parameters<D>) -> Result<(), DeviceError>>;

/// The record of one forward pass, and the gradients of its backward pass.
pub struct Tape<D: Device> {
    device: Rc<D>,
    recording: bool,
    /// Looks at every result, if somebody wants that.
    checks: Option<Checks>,
    /// With the layer each belongs to, if somebody measures or checks the layers.
    rules: Vec<(Rule<D>, Option<Rc<str>>)>,
    gradients: Vec<Option<Gradient<D>>>,
    /// By their channels.
    identities: BTreeMap<usize, Tensor<D>>,
}

impl<D: Device> Tape<D> {
    /// A tape that records for [`Tape::backward`].
    pub fn recording(device: Rc<D>) -> Self {
        let (rules, gradients, identities) = (Vec::new(), Vec::new(), BTreeMap::new());
        Tape { device, recording: true, checks: None, rules, gradients, identities }
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
        Tape { recording: false, ..Tape::recording(device) }
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

    /// The `norm [4, C]` of a batch norm that changes nothing, so that its kernels compute the activation alone. Made once for each
    /// number of channels.
    pub(crate) fn identity(&mut self, channels: usize) -> Result<Tensor<D>, DeviceError> {
        if let Some(norm) = self.identities.get(&channels) {
            return Ok(norm.clone());
        }
        let mut norm = Tensor::new(&*self.device, [4, channels], Storage::Full)?;
        let (scale, rest) = D::split_mut(norm.view_mut(), channels);
        self.device.fill(scale, D::Real::from_f64(1.0))?;
        self.device.fill(rest, D::Real::default())?;
        self.identities.insert(channels, norm.clone());
        Ok(norm)
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

    /// Records an operation's rule.
    pub(crate) fn record(
        &mut self,
        rule: impl FnOnce(&mut Tape<D>, &mut Parameters<D>) -> Result<(), DeviceError> + 'static,
    ) {
        let layer = match &self.checks {
            Some(checks) => Some(checks.layer().into()),
            None => self.device.profiler().and_then(Profiler::scope).map(|Scope { layer, .. }| layer),
        };
        self.rules.push((Box::new(rule), layer));
    }

    /// Rules recorded so far.
    pub(crate) fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Forgets the rules behind the first so many, and says whether there were any. What they belong to is to be done again.
    pub(crate) fn forget(&mut self, behind: usize) -> bool {
        let any = self.rules.len() > behind;
        self.rules.truncate(behind);
        any
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

    /// Adds a gradient to what has arrived for a value. A sum is [`Gradient::Ready`]: a batch norm in front reduces the total once
    /// more.
    pub(crate) fn add(&mut self, slot: Slot, gradient: Gradient<D>) -> Result<(), DeviceError> {
        let total = match self.take(slot) {
            None => gradient,
            Some(earlier) => {
                let mut total = earlier.into_tensor()?.into_unique(&self.device)?;
                self.device.add(total.view_mut(), gradient.into_tensor()?.view())?;
                Gradient::Ready(total)
            }
        };
        self.put(slot, total)
    }

    /// The gradient that [`Tape::backward`] left for an input.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] if the input went into a batch norm at once.
    pub fn gradient(&mut self, slot: Slot) -> Result<Option<Tensor<D>>, DeviceError> {
        self.take(slot).map(Gradient::into_tensor).transpose()
    }

    /// Calls every recorded rule, last to first, from the `seed` gradient of `output`.
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
        while let Some((rule, layer)) = self.rules.pop() {
            if let Some(layer) = layer {
                self.enter_pass(&layer, Pass::Backward);
            }
            rule(self, parameters)?;
        }
        Ok(())
    }
}
