//! What a run adds to the paper's protocol. Each part is off by default and possible on its own, so that a table can show what it
//! gives.

use super::bounds::{OutOfBounds, within};
use crate::data::distortion::Distortion;
use crate::network::KernelInit;
use crate::optim::Curve;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The parts of a training recipe: the table `[recipe]` of a run's settings, which is left out where all of them are off, as in runs
/// from before there were any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// What becomes of the learning rate behind the warm-up.
    pub schedule: Curve,
    /// What the kernels lose of themselves in a step, apart from the gradient, as a share of the learning rate:
    /// [`Adam::decaying`](crate::optim::Adam::decaying).
    pub weight_decay: f64,
    /// The share of the learning rate that all in front of the head learns at: [`Adam::with_base_at`](crate::optim::Adam::with_base_at).
    pub base_rate: f64,
    /// The largest Euclidean norm that the gradient of all parameters keeps: [`Adam::clipping`](crate::optim::Adam::clipping).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// The weight of the old value in a moving average of the weights, which then answers; 0 for none:
    /// [`WeightAverage`](crate::optim::WeightAverage).
    pub ema: f64,
    /// Training posters, as they are, from which batch norm's running averages are formed anew behind each epoch, for the model that then
    /// answers; 0 for none: [`Model::average`](crate::model::Model::average).
    pub precise_bn: usize,
    /// Batches whose gradients a step adds up, before it moves anything; 1 for a step a batch. A batch norm sees each by itself.
    pub accumulate: usize,
    /// What kernels start from.
    pub init: KernelInit,
    /// How training posters are cut out, turned and coloured at random: [`Distortion`].
    pub crop: f64,
    /// In degrees.
    pub rotate: f64,
    /// As a share.
    pub colour: f64,
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            schedule: Curve::Constant,
            weight_decay: 0.0,
            base_rate: 1.0,
            clip_norm: None,
            ema: 0.0,
            precise_bn: 0,
            accumulate: 1,
            init: KernelInit::Glorot,
            crop: 0.0,
            rotate: 0.0,
            colour: 0.0,
        }
    }
}

impl Recipe {
    /// Whether all parts are off.
    pub fn is_default(&self) -> bool {
        *self == Recipe::default()
    }

    /// What becomes of training posters.
    pub(super) fn distortion(&self) -> Distortion {
        let Recipe { crop, rotate, colour, .. } = *self;
        Distortion { crop, rotate, colour }
    }

    /// Reads a recipe, also from runs that could have parts which were tried and dropped since. Where these were off, they are passed over.
    pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut parts = toml::Table::deserialize(from)?;
        let dropped: [(&str, toml::Value); 4] =
            [("loss", "bce".into()), ("label_smoothing", 0.0.into()), ("cutout", 0.0.into()), ("mixup", 0.0.into())];
        for (part, off) in dropped {
            if parts.get(part) == Some(&off) {
                parts.remove(part);
            }
        }
        parts.try_into().map_err(D::Error::custom)
    }

    /// Looks at every number.
    ///
    /// # Errors
    /// The first that is out of bounds.
    pub(super) fn check(&self) -> Result<(), OutOfBounds> {
        let Recipe {
            schedule: _,
            weight_decay,
            base_rate,
            clip_norm,
            ema,
            precise_bn: _,
            accumulate,
            init: _,
            crop,
            rotate,
            colour,
        } = *self;
        within((0.0..=1.0).contains(&weight_decay), "weight_decay", weight_decay, "from 0 to 1")?;
        within(base_rate > 0.0 && base_rate <= 1.0, "base_rate", base_rate, "above 0 and at most 1")?;
        let is_norm = |norm: f64| norm > 0.0 && norm.is_finite();
        within(clip_norm.is_none_or(is_norm), "clip_norm", clip_norm, "a number above 0")?;
        within((0.0..1.0).contains(&ema), "ema", ema, BELOW_1)?;
        within((0.0..1.0).contains(&crop), "crop", crop, BELOW_1)?;
        within((0.0..=180.0).contains(&rotate), "rotate", rotate, "from 0 to 180")?;
        within((0.0..1.0).contains(&colour), "colour", colour, BELOW_1)?;
        within((1..=10_000).contains(&accumulate), "accumulate", accumulate, "from 1 to 10000")
    }
}

/// What a share that must leave something may be.
const BELOW_1: &str = "from 0 to below 1";

/// The parts that are on, one behind the other.
impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recipe {
            schedule,
            weight_decay,
            base_rate,
            clip_norm,
            ema,
            precise_bn,
            accumulate,
            init,
            crop,
            rotate,
            colour,
        } = *self;
        let parts = [
            (schedule == Curve::Cosine).then(|| "learning rate falls along a cosine to a hundredth".to_owned()),
            (weight_decay > 0.0).then(|| format!("weight decay {weight_decay}")),
            (base_rate != 1.0).then(|| format!("in front of the head {base_rate} of the learning rate")),
            clip_norm.map(|norm| format!("gradient norm at most {norm}")),
            (init == KernelInit::He).then(|| "kernels start from He's normal".to_owned()),
            (crop > 0.0).then(|| format!("windows of posters, their sides shorter by up to {crop}")),
            (rotate > 0.0).then(|| format!("posters turned by up to {rotate} degrees")),
            (colour > 0.0).then(|| format!("brightness, contrast and saturation up to {colour} more or less")),
            (accumulate > 1).then(|| format!("{accumulate} batches a step")),
            (ema > 0.0).then(|| format!("a moving average of the weights answers, decay {ema}")),
            (precise_bn > 0)
                .then(|| format!("batch norm's averages formed anew from {precise_bn} posters behind each epoch")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_out_of_bounds_is_named() {
        let plain = Recipe::default;
        for (recipe, setting) in [
            (Recipe { weight_decay: -0.1, ..plain() }, "weight_decay"),
            (Recipe { weight_decay: f64::NAN, ..plain() }, "weight_decay"),
            (Recipe { clip_norm: Some(0.0), ..plain() }, "clip_norm"),
            (Recipe { clip_norm: Some(f64::INFINITY), ..plain() }, "clip_norm"),
            (Recipe { ema: 1.0, ..plain() }, "ema"),
            (Recipe { accumulate: 0, ..plain() }, "accumulate"),
            (Recipe { crop: 1.0, ..plain() }, "crop"),
            (Recipe { rotate: 181.0, ..plain() }, "rotate"),
            (Recipe { colour: 1.5, ..plain() }, "colour"),
        ] {
            assert_eq!(recipe.check().unwrap_err().setting, setting, "{recipe:?}");
        }
        assert!(plain().check().is_ok());
    }
}
