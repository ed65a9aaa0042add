//! What is asked of a network beside its plain answer: a poster's mirror image as well, and probabilities of logits that were changed
//! on the host.

use super::Posters;
use crate::device::{Device, DeviceError, Placement, Real, Storage};
use crate::ops::loss;
use crate::tensor::Tensor;

/// The mean of the `logits` `[N, C]` of posters and of those of their mirror images.
///
/// Of the logits and not of the probabilities, because a temperature divides logits: whether it does so before the mean is taken or after
/// it makes no difference then, and with probabilities it would.
///
/// # Errors
/// Those of `logits`.
pub fn mirrored_mean<E>(
    posters: Posters<'_>,
    mut logits: impl FnMut(Posters<'_>) -> Result<Vec<f32>, E>,
) -> Result<Vec<f32>, E> {
    let mirrored = |placement: &Placement| Placement { flip: !placement.flip, ..*placement };
    let placements: Vec<Placement> = posters.placements.iter().map(mirrored).collect();
    let mut sum = logits(posters)?;
    let others = logits(Posters { placements: &placements, ..posters })?;
    sum.iter_mut().zip(others).for_each(|(logit, other)| *logit = 0.5 * (*logit + other));
    Ok(sum)
}

/// A tensor's values on the host, as `f32`.
///
/// # Errors
/// The device's.
pub fn on_host<D: Device>(device: &D, tensor: &Tensor<D>) -> Result<Vec<f32>, DeviceError> {
    Ok(tensor.to_host(device)?.into_iter().map(|value| value.into() as f32).collect())
}

/// The probabilities of `logits`, by the device's own sigmoid: the same bits as of logits that never left it.
///
/// # Errors
/// The device's.
pub fn probabilities<D: Device>(device: &D, logits: &[f32]) -> Result<Vec<f32>, DeviceError> {
    let values: Vec<D::Real> = logits.iter().map(|&logit| D::Real::from_f64(logit.into())).collect();
    let mut tensor = Tensor::new(device, [values.len()], Storage::Full)?;
    device.upload(tensor.view_mut(), &values)?;
    on_host(device, &loss::sigmoid(device, &tensor)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Cpu;
    use crate::training::config::Pixels;

    #[test]
    fn each_poster_is_seen_as_it_is_and_turned_round() {
        let placements = [Placement { flip: true, ..Placement::default() }, Placement::default()];
        let posters = Posters { pixels: &[], placements: &placements, format: &Pixels::Raw.format() };
        let mut flips = Vec::new();
        let mean = mirrored_mean(posters, |posters| {
            flips.push(posters.placements.iter().map(|placement| placement.flip).collect::<Vec<_>>());
            Ok::<_, ()>(if flips.len() == 1 { vec![1.0, -2.0] } else { vec![2.0, -8.0] })
        });
        assert_eq!((mean.unwrap(), flips), (vec![1.5, -5.0], vec![vec![true, false], vec![false, true]]));
    }

    #[test]
    fn logits_that_come_back_to_a_device_have_the_probabilities_that_they_had() {
        let device = Cpu::new();
        let logits: Vec<f32> = (0..50).map(|at| (at as f32 - 25.0) / 3.0).collect();
        let stayed = Tensor::from_host(&device, [5, 10], &logits).unwrap();
        let stayed = on_host(&device, &loss::sigmoid(&device, &stayed).unwrap()).unwrap();
        assert_eq!(probabilities(&device, &logits).unwrap(), stayed);
    }
}
