//! What a training step reads and leaves, at addresses that stay from step to step.

use crate::device::{Device, DeviceError, PixelFormat, Real, Storage};
use crate::tensor::Tensor;

/// A batch on the device: posters, labels, the genres' weights, and room for the loss.
pub struct Batch<D: Device> {
    pub(super) pixels: D::Pixels,
    pub(super) images: usize,
    pub(super) format: PixelFormat,
    /// `[N, C]`, 0 or 1.
    pub(super) targets: Tensor<D>,
    /// `[C]`.
    pub(super) class_weights: Tensor<D>,
    /// `[1]`.
    pub(super) loss: Tensor<D>,
}

impl<D: Device> Batch<D> {
    /// A batch of N `images` with `labels [N, C]`, 0 or 1; `class_weights [C]` weigh each genre's term of the loss.
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
            targets: Tensor::new(device, [images, classes], Storage::Full)?,
            class_weights: Tensor::new(device, [classes], Storage::Full)?,
            loss: Tensor::new(device, [1], Storage::Full)?,
        };
        batch.label(device, labels, class_weights)?;
        Ok(batch)
    }

    /// Puts other posters, as many and in the same format, in the place of these.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn replace(
        &mut self,
        device: &D,
        pixels: D::Pixels,
        labels: &[u8],
        class_weights: &[f32],
    ) -> Result<(), DeviceError> {
        device.copy_pixels(&mut self.pixels, pixels)?;
        self.label(device, labels, class_weights)
    }

    fn label(&mut self, device: &D, labels: &[u8], class_weights: &[f32]) -> Result<(), DeviceError> {
        let labels: Vec<D::Real> = labels.iter().map(|&label| D::Real::from_f64(f64::from(label))).collect();
        device.upload(self.targets.view_mut(), &labels)?;
        let weights: Vec<D::Real> = class_weights.iter().map(|&w| D::Real::from_f64(f64::from(w))).collect();
        device.upload(self.class_weights.view_mut(), &weights)
    }

    /// Images.
    pub fn images(&self) -> usize {
        self.images
    }

    /// How its bytes become numbers.
    pub fn format(&self) -> &PixelFormat {
        &self.format
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
