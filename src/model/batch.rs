//! What a training step reads and leaves, at addresses that stay from step to step.

use crate::device::adam::{OUTCOME, RATES};
use crate::device::{Device, DeviceError, Pass, PixelFormat, Real, Storage, check_lengths};
use crate::ops::loss;
use crate::optim::{NO_RATES, StepRates};
use crate::parameters::Parameters;
use crate::tensor::Tensor;

/// What a step says of itself: three numbers that are all finite if it was sound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The mean loss of the batch.
    pub loss: f64,
    /// The Euclidean norm of the gradient of all trainable parameters, infinite from 1.8e19 on.
    pub gradient_norm: f64,
    /// That of batch norm's running averages.
    pub averages_norm: f64,
}

impl Outcome {
    /// From the numbers that [`Batch::outcome_view`] holds.
    ///
    /// # Panics
    /// If there are not three.
    pub fn new<R: Real>(numbers: &[R]) -> Self {
        let [loss, gradients, averages]: [f64; OUTCOME] = std::array::from_fn(|at| numbers[at].into());
        Outcome { loss, gradient_norm: gradients.sqrt(), averages_norm: averages.sqrt() }
    }

    /// The first of its numbers that is not finite, and what that number is; none if the step was sound. After a bad step the
    /// model is as it was before.
    pub fn fault(&self) -> Option<(&'static str, f64)> {
        let numbers = [
            ("the loss", self.loss),
            ("the gradient norm", self.gradient_norm),
            ("the norm of the running averages", self.averages_norm),
        ];
        numbers.into_iter().find(|(_, number)| !number.is_finite())
    }
}

/// A batch on the device: posters, what else a step is told of them, and room for what it says of itself.
pub struct Batch<D: Device> {
    pub(super) pixels: D::Pixels,
    pub(super) images: usize,
    pub(super) format: PixelFormat,
    classes: usize,
    /// Targets `[N, C]`, class weights `[C]`, the optimiser's rates `[2]` and the moving average's share `[1]`, one behind the other: all
    /// that is new in a step beside its posters travels at once.
    numbers: Tensor<D>,
    /// `[3]`: the loss, and the squared norms of the gradients and of the running averages.
    outcome: Tensor<D>,
}

impl<D: Device> Batch<D> {
    /// A batch of N `images` with `labels [N, C]`, 0 or 1; `class_weights [C]` weigh each genre's term of the cross-entropy. The rates
    /// are 0: see [`set_rates`](Self::set_rates).
    ///
    /// # Errors
    /// The device's, and [`DeviceError::Length`] if there are not N·C labels.
    pub fn new(
        device: &D,
        pixels: D::Pixels,
        images: usize,
        format: &PixelFormat,
        labels: &[u8],
        class_weights: &[f32],
    ) -> Result<Self, DeviceError> {
        let classes = class_weights.len();
        let mut batch = Batch {
            pixels,
            images,
            format: *format,
            classes,
            numbers: Tensor::new(device, [(images + 1) * classes + 2 * RATES + 1], Storage::Full)?,
            outcome: Tensor::new(device, [OUTCOME], Storage::Full)?,
        };
        batch.tell(device, labels, class_weights, NO_RATES, 0.0)?;
        Ok(batch)
    }

    /// Puts other posters, as many and in the same format, in the place of these, for a step at the optimiser's `rates` behind which a
    /// moving average goes so far `towards` the weights.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn replace(
        &mut self,
        device: &D,
        pixels: D::Pixels,
        labels: &[u8],
        class_weights: &[f32],
        rates: StepRates<[f64; RATES]>,
        towards: f64,
    ) -> Result<(), DeviceError> {
        device.copy_pixels(&mut self.pixels, pixels)?;
        self.tell(device, labels, class_weights, rates, towards)
    }

    fn tell(
        &mut self,
        device: &D,
        labels: &[u8],
        class_weights: &[f32],
        rates: StepRates<[f64; RATES]>,
        towards: f64,
    ) -> Result<(), DeviceError> {
        let lengths = [
            ("labels", labels.len(), self.images * self.classes),
            ("class_weights", class_weights.len(), self.classes),
        ];
        check_lengths("batch", &lengths)?;
        let targets = labels.iter().map(|&label| f64::from(label));
        let weights = class_weights.iter().map(|&weight| f64::from(weight));
        let numbers = targets.chain(weights).chain(rates.head).chain(rates.base).chain([towards]);
        let numbers: Vec<D::Real> = numbers.map(D::Real::from_f64).collect();
        device.upload(self.numbers.view_mut(), &numbers)
    }

    /// Tells the optimiser its rates.
    ///
    /// # Errors
    /// The device's.
    pub fn set_rates(&mut self, device: &D, rates: StepRates<[f64; RATES]>) -> Result<(), DeviceError> {
        let (_, behind) = D::split_mut(self.numbers.view_mut(), (self.images + 1) * self.classes);
        let (own, _) = D::split_mut(behind, 2 * RATES);
        let rates: Vec<D::Real> = rates.head.into_iter().chain(rates.base).map(D::Real::from_f64).collect();
        device.upload(own, &rates)
    }

    /// Tells the moving average its share.
    ///
    /// # Errors
    /// The device's.
    pub fn set_towards(&mut self, device: &D, towards: f64) -> Result<(), DeviceError> {
        let (_, last) = D::split_mut(self.numbers.view_mut(), (self.images + 1) * self.classes + 2 * RATES);
        device.upload(last, &[D::Real::from_f64(towards)])
    }

    /// Images.
    pub fn images(&self) -> usize {
        self.images
    }

    /// How its bytes become numbers.
    pub fn format(&self) -> &PixelFormat {
        &self.format
    }

    /// Puts the mean loss of `logits [N, C]` in its place, and returns its gradient.
    pub(super) fn take_loss(&mut self, device: &D, logits: &Tensor<D>) -> Result<Tensor<D>, DeviceError> {
        let Batch { numbers, outcome, images, classes, .. } = self;
        let terms = *images * *classes;
        let (targets, class_weights) = (numbers.rows(0..terms), numbers.rows(terms..terms + *classes));
        loss::forward_backward(device, outcome, logits, targets, class_weights)
    }

    /// The loss.
    pub(super) fn loss_view(&self) -> D::View<'_> {
        self.outcome.rows(0..1)
    }

    /// Puts the squared norms of the gradients and the running averages behind the loss.
    pub(super) fn take_norms(&mut self, device: &D, parameters: &Parameters<D>) -> Result<(), DeviceError> {
        let (_, norms) = D::split_mut(self.outcome.view_mut(), 1);
        let (gradients, averages) = D::split_mut(norms, 1);
        parameters.norms(device, gradients, averages)
    }

    /// Adds the loss that [`Model::add_gradients`](super::Model::add_gradients) left to `sum [1]`.
    ///
    /// # Errors
    /// The device's.
    pub fn add_loss_to(&self, device: &D, sum: &mut Tensor<D>) -> Result<(), DeviceError> {
        device.enter("loss", Pass::Forward);
        device.add(sum.view_mut(), self.loss_view())
    }

    /// Ends a step of several batches of which this is the last: its loss is `sum [1]`, its gradients are those of `parameters`.
    ///
    /// # Errors
    /// The device's.
    pub fn end_gradients(
        &mut self,
        device: &D,
        sum: &Tensor<D>,
        parameters: &Parameters<D>,
    ) -> Result<(), DeviceError> {
        let (loss, _) = D::split_mut(self.outcome.view_mut(), 1);
        device.copy(loss, sum.view())?;
        self.take_norms(device, parameters)
    }

    /// The optimiser's rates, `[2]` of each part of the network, where it looks for them.
    pub fn rates(&self) -> StepRates<D::View<'_>> {
        let head = (self.images + 1) * self.classes;
        let base = head + RATES;
        StepRates { head: self.numbers.rows(head..base), base: self.numbers.rows(base..base + RATES) }
    }

    /// The moving average's share `[1]`, where it looks for it.
    pub fn towards(&self) -> D::View<'_> {
        let at = (self.images + 1) * self.classes + 2 * RATES;
        self.numbers.rows(at..at + 1)
    }

    /// What [`Model::gradients`](super::Model::gradients) left of a step, `[3]`, where the optimiser looks for it: the loss, and the
    /// squared norms of the gradients and of the running averages.
    pub fn outcome_view(&self) -> D::View<'_> {
        self.outcome.view()
    }

    /// What the last step said of itself, once it has been computed.
    ///
    /// # Errors
    /// The device's, those of the step included.
    pub fn outcome(&self, device: &D) -> Result<Outcome, DeviceError> {
        Ok(Outcome::new(&self.outcome.to_host(device)?))
    }

    /// The loss that the last step or scoring left, once it has been computed.
    ///
    /// # Errors
    /// The device's, those of the step included.
    pub fn loss(&self, device: &D) -> Result<f64, DeviceError> {
        Ok(device.download(self.outcome.rows(0..1))?[0].into())
    }
}
