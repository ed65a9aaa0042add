//! A small network on a device: its gradients beside those in double precision, and a few steps.

use onesheet::data::synthetic;
use onesheet::device::counting::Habits;
use onesheet::device::reference::Reference;
use onesheet::device::{Device, Placement, Precision};
use onesheet::model::{Batch, Model};
use onesheet::network::{Architecture, ModelConfig, Network, resnet50, vgg16};
use onesheet::training::config::{Pixels, RunConfig};
use onesheet::training::learner::Learner;
use onesheet::training::run_folder::KEPT;
use onesheet::training::{TrainingError, dry_run};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Posters of the one batch, and their side.
const POSTERS: usize = 4;
const SIDE: usize = 32;
/// Steps on it.
const STEPS: usize = 5;
const SEED: u64 = 1;

/// What came of it.
pub struct Checked {
    /// How far the gradient of all parameters is from that in double precision, as a share of its length.
    distance: f64,
    tolerance: f64,
    /// The losses of the steps.
    losses: Vec<f64>,
    took: Duration,
}

impl Checked {
    /// What is wrong with it, if anything is.
    pub fn fault(&self) -> Option<String> {
        // A distance that is no number is a fault.
        if self.distance > self.tolerance || self.distance.is_nan() {
            return Some(format!("the gradients may differ by {:.0e}", self.tolerance));
        }
        let falls = self.losses.last() < self.losses.first() && self.losses.iter().all(|loss| loss.is_finite());
        (!falls).then(|| "the loss does not fall".to_owned())
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, last] = [self.losses.first(), self.losses.last()].map(|loss| loss.copied().unwrap_or(f64::NAN));
        let milliseconds = 1e3 * self.took.as_secs_f64() / STEPS as f64;
        write!(
            f,
            "gradients as in float64 but for {:.0e}; loss {first:.3} to {last:.3} in {STEPS} steps of {milliseconds:.1} ms",
            self.distance
        )
    }
}

/// A small network, and how far its gradients on a right device are from those in double precision at most: some ten times what was
/// measured. Batch norms over four posters blow narrow roundings up, so there the network is one without.
fn subject(precision: Precision) -> (Network, f64) {
    match precision {
        Precision::F32 => (resnet50::MINIATURE, 1e-4),
        Precision::Tf32 => (vgg16::MINIATURE, 0.02),
        Precision::Bf16 => (vgg16::MINIATURE, 0.05),
    }
}

/// Tries a small network on `device`, which computes in this `precision`.
///
/// # Errors
/// The device's, and a number that is none.
pub fn check<D: Device>(device: Rc<D>, precision: Precision) -> Result<Checked, TrainingError> {
    let (network, tolerance) = subject(precision);
    let exact = gradient(Rc::new(Reference::EXACT), network)?;
    let found = gradient(Rc::clone(&device), network)?;
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let distance =
        norm(&mut exact.iter().zip(&found).map(|(exact, found)| exact - found)) / norm(&mut exact.iter().copied());
    let (pixels, labels) = posters();
    let mut learner = Learner::new(Rc::clone(&device), config(network), SEED)?;
    let mut losses = Vec::new();
    let began = Instant::now();
    for _ in 0..STEPS {
        let pixels = device.upload_pixels(&pixels, &[Placement::default(); POSTERS])?;
        learner.submit(pixels, POSTERS, &Pixels::Unit.format(), &labels, &[1.0; synthetic::GENRES.len()], 1e-3)?;
        losses.push(learner.outcome()?.loss);
    }
    Ok(Checked { distance, tolerance, losses, took: began.elapsed() })
}

fn config(network: Network) -> ModelConfig {
    ModelConfig { image_size: SIDE, ..ModelConfig::new(network, synthetic::GENRES.len()) }
}

/// A batch of drawn posters: pixels and labels.
fn posters() -> (Vec<u8>, Vec<u8>) {
    let drawn = (0..POSTERS).map(|index| synthetic::draw(SEED, index as u32, SIDE));
    let (pixels, labels): (Vec<_>, Vec<_>) = drawn.unzip();
    (pixels.concat(), labels.concat())
}

/// The gradient of every parameter.
fn gradient<D: Device>(device: Rc<D>, network: Network) -> Result<Vec<f64>, TrainingError> {
    let (pixels, labels) = posters();
    let mut model = Model::new(Rc::clone(&device), config(network), SEED)?;
    let pixels = device.upload_pixels(&pixels, &[Placement::default(); POSTERS])?;
    let weights = [1.0; synthetic::GENRES.len()];
    let mut batch = Batch::new(&*device, pixels, POSTERS, &Pixels::Unit.format(), &labels, &weights)?;
    model.gradients(&mut batch)?;
    let gradients = device.download(model.parameters().gradients.from_offset(0))?;
    Ok(gradients.into_iter().map(Into::into).collect())
}

/// The bytes that a run with these settings takes of memory on the processor, and of the disk: the states that it keeps and the one that is
/// being written, with both moments, and two models.
///
/// # Errors
/// Those of settings that fit no network.
pub fn needs(config: &RunConfig) -> Result<(u64, u64), TrainingError> {
    let model = config.model(synthetic::GENRES.len());
    let costs = dry_run::costs(&model, Habits::Processor(Precision::F32), config.batch, &[])?;
    let weights = 4 * Architecture::new(&model).map_err(onesheet::device::DeviceError::from)?.total_parameters() as u64;
    Ok((costs.most_bytes as u64, ((KEPT as u64 + 1) * 3 + 2) * weights))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::device::cpu::Cpu;

    #[test]
    fn the_processor_computes_right_and_what_does_not_is_found() {
        let mut checked = check(Rc::new(Cpu::new()), Precision::F32).unwrap();
        assert_eq!(checked.fault(), None, "{checked}");
        // Ten times nearer than it must be, so that the limit is none that a right device meets by chance.
        assert!(checked.distance < 0.1 * checked.tolerance, "{checked}");
        checked.losses = vec![0.7, 0.6, f64::NAN, 0.5];
        assert_eq!(checked.fault().unwrap(), "the loss does not fall");
        checked.losses = vec![0.7, 0.7];
        assert_eq!(checked.fault().unwrap(), "the loss does not fall");
        for distance in [f64::NAN, 2e-4] {
            checked.distance = distance;
            assert_eq!(checked.fault().unwrap(), "the gradients may differ by 1e-4");
        }
    }

    #[test]
    fn a_device_that_rounds_is_within_its_own_tolerance_and_no_narrower_one() {
        for precision in [Precision::Tf32, Precision::Bf16] {
            let checked = check(Rc::new(Reference::rounding(precision)), precision).unwrap();
            assert_eq!(checked.fault(), None, "{checked}");
            let (_, narrower) = subject(Precision::F32);
            assert!(narrower < checked.distance && checked.distance < 0.3 * checked.tolerance, "{checked}");
        }
    }

    #[test]
    fn resnet_50_takes_what_the_readme_says() {
        let (memory, disk) = needs(&RunConfig::default()).unwrap();
        assert!((4_400_000_000..4_600_000_000).contains(&memory), "{memory}");
        assert_eq!(disk, 14 * 4 * 25_817_991);
    }
}
