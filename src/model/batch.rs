//! What a training step reads and leaves, at addresses that stay from step to step.

use crate::device::{Device, DeviceError, PixelFormat, Real, Storage, check_lengths};
use crate::ops::loss;
use crate::tensor::Tensor;

/// A batch on the device: posters, what else a step is told of them, and room for the loss.
pub struct Batch<D: Device> {
    pub(super) pixels: D::Pixels,
    pub(super) images: usize,
    pub(super) format: PixelFormat,
    classes: usize,
    /// Targets `[N, C]`, 0 or 1, class weights `[C]` and the optimiser's corrected rate `[1]`, one behind the other: all that is new
    /// in a step beside its posters travels at once.
    numbers: Tensor<D>,
    /// `[1]`.
    loss: Tensor<D>,
}

impl<D: Device> Batch<D> {
    /// A batch of N `images` with `labels [N, C]`, 0 or 1; `class_weights [C]` weigh each genre's term of the loss. The rate is 0:
    /// see [`set_rate`](Self::set_rate).
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
            numbers: Tensor::new(device, [(images + 1) * classes + 1], Storage::Full)?,
            loss: Tensor::new(device, [1], Storage::Full)?,
        };
        batch.tell(device, labels, class_weights, 0.0)?;
        Ok(batch)
    }

    /// Puts other posters, as many and in the same format, in the place of these, for a step at the optimiser's corrected `rate`.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn replace(
        &mut self,
        device: &D,
        pixels: D::Pixels,
        labels: &[u8],
        class_weights: &[f32],
        rate: f64,
    ) -> Result<(), DeviceError> {
        device.copy_pixels(&mut self.pixels, pixels)?;
        self.tell(device, labels, class_weights, rate)
    }

    fn tell(&mut self, device: &D, labels: &[u8], class_weights: &[f32], rate: f64) -> Result<(), DeviceError> {
        let lengths = [
            ("labels", labels.len(), self.images * self.classes),
            ("class_weights", class_weights.len(), self.classes),
        ];
        check_lengths("batch", &lengths)?;
        let targets = labels.iter().map(|&label| f64::from(label));
        let weights = class_weights.iter().map(|&weight| f64::from(weight));
        let numbers: Vec<D::Real> = targets.chain(weights).chain([rate]).map(D::Real::from_f64).collect();
        device.upload(self.numbers.view_mut(), &numbers)
    }

    /// Tells the optimiser its corrected rate.
    ///
    /// # Errors
    /// The device's.
    pub fn set_rate(&mut self, device: &D, rate: f64) -> Result<(), DeviceError> {
        let (_, last) = D::split_mut(self.numbers.view_mut(), (self.images + 1) * self.classes);
        device.upload(last, &[D::Real::from_f64(rate)])
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
    pub(super) fn cross_entropy(&mut self, device: &D, logits: &Tensor<D>) -> Result<Tensor<D>, DeviceError> {
        let Batch { numbers, loss, images, classes, .. } = self;
        let terms = *images * *classes;
        let (targets, class_weights) = (numbers.rows(0..terms), numbers.rows(terms..terms + *classes));
        loss::binary_cross_entropy(device, loss, logits, targets, class_weights)
    }

    /// The optimiser's corrected rate, where it looks for it.
    pub fn rate(&self) -> D::View<'_> {
        let at = (self.images + 1) * self.classes;
        self.numbers.rows(at..at + 1)
    }

    /// The loss, where the optimiser looks for it.
    pub fn loss_view(&self) -> D::View<'_> {
        self.loss.view()
    }

    /// The loss that the last step left, once it has been computed.
    ///
    /// # Errors
    /// The device's, those of the step included.
    pub fn loss(&self, device: &D) -> Result<f64, DeviceError> {
        Ok(self.loss.to_host(device)?[0].into())
    }
}
