//! Where on a poster a model sees a genre: Grad-CAM.
//!
//! With the last feature map `A [H, W, C]` of a poster, in inference mode, and the logit `z` of a genre, the heat map is
//!
//! `m_hw = max(0, Σ_c w_c · A_hwc)` with `w_c = 1/(H·W) · Σ_hw ∂z/∂A_hwc`
//!
//! (Selvaraju et al. 2017, *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*, equations 1 and 2). A
//! channel speaks for a genre as far as more of it would raise the logit, and the map shows where the channels that speak for it are. What
//! speaks against the genre is left out.
//!
//! The gradient has to go back through the head only. Behind a global average it is the same at each pixel of a channel, and behind a
//! global maximum it is at the pixel that has it; the mean over the pixels is the gradient of the pooled value over `H·W` in both cases.
//! It differs from poster to poster as far as their poolings pass different ReLUs of the head.

use super::{Model, Posters};
use crate::autograd::Tape;
use crate::device::{Device, DeviceError, Real};
use crate::plan;
use crate::tensor::Tensor;
use crate::value::Value;
use std::rc::Rc;

/// How much each part of a poster speaks for a genre, over the grid of the last feature map.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// Rows of the grid.
    pub height: usize,
    /// Columns of the grid.
    pub width: usize,
    /// `[height, width]`, 0 or more, in units of the logit per pixel of the grid.
    pub values: Vec<f32>,
}

impl<D: Device> Model<D> {
    /// The heat maps of N posters for each of some `genres`, which are given by their places among the model's: a row a genre, of N maps.
    /// The base of the network is computed once for all genres. Weights, averages and gradients of the parameters stay as they are.
    ///
    /// # Errors
    /// The device's, and [`DeviceError::Shape`] if the images do not fit or the model has no such genre.
    pub fn explain(&mut self, posters: Posters<'_>, genres: &[usize]) -> Result<Vec<Vec<HeatMap>>, DeviceError> {
        let features = self.features(posters)?;
        let activations = features.to_host(&self.device)?;
        let &[n, height, width, channels] = features.shape().extents() else {
            let reason = format!("the last feature map is {:?}, not [N, H, W, C]", features.shape());
            return Err(DeviceError::Shape { kernel: "explain", reason });
        };
        let len = height * width * channels;
        let maps_of = |genre: &usize| {
            let gradient = self.feature_gradient(&features, *genre)?.to_host(&self.device)?;
            let posters = (0..n).map(|poster| poster * len..(poster + 1) * len);
            let values = posters.map(|own| heat(&activations[own.clone()], &gradient[own], channels));
            Ok(values.map(|values| HeatMap { height, width, values }).collect())
        };
        genres.iter().map(maps_of).collect()
    }

    /// The last feature map `[N, H, W, C]`, in inference mode.
    ///
    /// # Errors
    /// The device's, and [`DeviceError::Shape`] if the images do not fit.
    pub fn features(&self, posters: Posters<'_>) -> Result<Tensor<D>, DeviceError> {
        let pixels = self.device.upload_pixels(posters.pixels, posters.placements)?;
        let images = self.images(&pixels, posters.placements.len(), posters.format)?;
        let mut tape = Tape::inference(Rc::clone(&self.device));
        plan::features(&mut tape, &self.parameters, &self.plan, images)?.values(&self.device)
    }

    /// The gradient `[N, H, W, C]` of each poster's logit of one genre with respect to its last feature map.
    ///
    /// # Errors
    /// The device's, and [`DeviceError::Shape`] if the feature map does not fit or the model has no such genre.
    pub fn feature_gradient(&mut self, features: &Tensor<D>, genre: usize) -> Result<Tensor<D>, DeviceError> {
        let genres = self.config.genres;
        if genre >= genres {
            let reason = format!("there is no genre {genre} among {genres}, which are counted from 0");
            return Err(DeviceError::Shape { kernel: "explain", reason });
        }
        // Nobody asks for the gradients of parameters, so for this pass all of them are frozen.
        let trainable_from = std::mem::replace(&mut self.parameters.trainable_from, self.architecture.weights.len());
        let gradient = self.through_the_head(features, genre);
        self.parameters.trainable_from = trainable_from;
        gradient
    }

    fn through_the_head(&mut self, features: &Tensor<D>, genre: usize) -> Result<Tensor<D>, DeviceError> {
        let mut tape = Tape::recording(Rc::clone(&self.device));
        let input = tape.input_slot();
        let logits = plan::head(&mut tape, &self.parameters, &self.plan, Value::ready(features.clone(), input))?;
        let genres = self.config.genres;
        let posters = logits.shape().len() / genres;
        let seed: Vec<D::Real> =
            (0..posters * genres).map(|at| D::Real::from_f64(f64::from(u8::from(at % genres == genre)))).collect();
        let seed = Tensor::from_host(&*self.device, [posters, genres], &seed)?;
        let gradient = match (logits.slot(), input) {
            (Some(output), Some(input)) => {
                tape.backward(output, seed, &mut self.parameters)?;
                tape.gradient(input)?
            }
            _ => None,
        };
        let reason = || "no gradient has come back to the last feature map".to_owned();
        gradient.ok_or_else(|| DeviceError::Shape { kernel: "explain", reason: reason() })
    }
}

/// The heat map of one poster from its feature map and its gradient, `[H·W, C]` both.
fn heat<R: Real>(activations: &[R], gradient: &[R], channels: usize) -> Vec<f32> {
    let mut weights = vec![0.0; channels];
    for pixel in gradient.chunks_exact(channels) {
        weights.iter_mut().zip(pixel).for_each(|(weight, &gradient)| *weight += gradient.into());
    }
    let pixels = gradient.len() / channels;
    let value = |pixel: &[R]| {
        let sum: f64 = pixel.iter().zip(&weights).map(|(&activation, weight)| activation.into() * weight).sum();
        let mean = sum / pixels as f64;
        // What is no number stays none.
        if mean < 0.0 { 0.0 } else { mean as f32 }
    };
    activations.chunks_exact(channels).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two channels over 1×2 pixels, whose weights are the means 2 and -1.
    #[test]
    fn a_heat_map_by_hand() {
        let gradient = [1.0, -3.0, 3.0, 1.0];
        assert_eq!(heat(&[4.0, 1.0, 1.0, 5.0], &gradient, 2), [7.0, 0.0]);
        assert!(heat(&[f64::NAN, 1.0, 1.0, 5.0], &gradient, 2)[0].is_nan());
    }
}
