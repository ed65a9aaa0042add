//! The learning rate over a run.

/// A rate that rises in a straight line over the first steps and stays.
///
/// Adam's first steps follow the signs of gradients whose moments have seen next to nothing: at the full rate they throw a
/// fresh network about (Goyal et al. 2017, section 2.2, for SGD; Ma and Yarats 2021 for Adam).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warmup {
    /// The rate in the end.
    pub rate: f64,
    /// Steps until then; 0 for the full rate at once.
    pub steps: u64,
}

impl Warmup {
    /// The rate of the `step`-th step, counted from 1: rate · min(1, step / steps).
    pub fn rate_at(&self, step: u64) -> f64 {
        if step < self.steps { self.rate * step as f64 / self.steps as f64 } else { self.rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_in_equal_steps_and_stays() {
        let warmup = Warmup { rate: 0.5, steps: 4 };
        assert_eq!([1, 2, 3, 4, 5, 1000].map(|step| warmup.rate_at(step)), [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]);
    }

    #[test]
    fn without_warmup_the_first_step_has_the_full_rate() {
        assert_eq!(Warmup { rate: 1e-3, steps: 0 }.rate_at(1), 1e-3);
    }
}
