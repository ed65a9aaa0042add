//! What a run adds to the paper's protocol. Each part is off by default and possible on its own, so that a table can show what it
//! gives.

use super::bounds::{OutOfBounds, within};
use crate::optim::Curve;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The parts of a training recipe: the table `[recipe]` of a run's settings, which is left out where all of them are off, as in runs
/// from before there were any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// What becomes of the learning rate behind the warm-up.
    pub schedule: Curve,
    /// What the kernels lose of themselves in a step, apart from the gradient, as a share of the learning rate:
    /// [`Adam::decaying`](crate::optim::Adam::decaying).
    pub weight_decay: f64,
    /// The largest Euclidean norm that the gradient of all parameters keeps: [`Adam::clipping`](crate::optim::Adam::clipping).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
}

impl Recipe {
    /// Whether all parts are off.
    pub fn is_default(&self) -> bool {
        *self == Recipe::default()
    }

    /// Looks at every number.
    ///
    /// # Errors
    /// The first that is out of bounds.
    pub(super) fn check(&self) -> Result<(), OutOfBounds> {
        let Recipe { schedule: _, weight_decay, clip_norm } = *self;
        within((0.0..=1.0).contains(&weight_decay), "weight_decay", weight_decay, "from 0 to 1")?;
        let is_norm = |norm: f64| norm > 0.0 && norm.is_finite();
        within(clip_norm.is_none_or(is_norm), "clip_norm", clip_norm, "a number above 0")
    }
}

/// The parts that are on, one behind the other.
impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recipe { schedule, weight_decay, clip_norm } = *self;
        let parts = [
            (schedule == Curve::Cosine).then(|| "learning rate falls along a cosine to a hundredth".to_owned()),
            (weight_decay > 0.0).then(|| format!("weight decay {weight_decay}")),
            clip_norm.map(|norm| format!("gradient norm at most {norm}")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}
