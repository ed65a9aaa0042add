//! Norms and samples of many tensors.

use super::support::assert_close;
use super::values::SAMPLES;

/// (found, expected) of many tensors.
#[derive(Default)]
pub struct Rows {
    pub names: Vec<String>,
    pub norms: Vec<(f64, f64)>,
    pub samples: Vec<Vec<(f64, f64)>>,
}

impl Rows {
    pub fn check_norms(&self, key: &str, tolerance: f64) {
        let mut worst = (0.0, "none");
        for (name, &(found, expected)) in self.names.iter().zip(&self.norms) {
            assert_close(&format!("{key}: norm of {name}"), &[found], &[expected], 0.0, tolerance);
            let error = (found - expected).abs() / expected;
            if error > worst.0 {
                worst = (error, name);
            }
        }
        println!("{key}: norms are off by {:.1e} at worst, in {}", worst.0, worst.1);
    }

    /// Errors are in units of `unit(norm of the tensor)`.
    pub fn check_samples(&self, key: &str, tolerance: f64, rms_tolerance: f64, unit: impl Fn(f64) -> f64) {
        let (mut squares, mut worst) = (0.0, (0.0, "none"));
        for ((name, &(_, norm)), samples) in self.names.iter().zip(&self.norms).zip(&self.samples) {
            let unit = unit(norm);
            let (found, expected): (Vec<_>, Vec<_>) = samples.iter().map(|(f, e)| (f / unit, e / unit)).unzip();
            assert_close(&format!("{key}: samples of {name}"), &found, &expected, tolerance, 0.0);
            for (found, expected) in found.iter().zip(&expected) {
                squares += (found - expected).powi(2);
                if (found - expected).abs() > worst.0 {
                    worst = ((found - expected).abs(), name);
                }
            }
        }
        // A network without batch norms has no averages.
        let rms = (squares / (self.names.len() * SAMPLES).max(1) as f64).sqrt();
        println!("{key}: samples are off by {:.1e} at worst, in {}, {rms:.1e} rms", worst.0, worst.1);
        assert!(rms <= rms_tolerance, "{key}: samples are off by {rms:e} rms, allowed {rms_tolerance:e}");
    }
}
