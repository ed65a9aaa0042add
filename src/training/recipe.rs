//! What a run adds to the paper's protocol. Each part is off by default and possible on its own, so that a table can show what it
//! gives.

use super::bounds::OutOfBounds;
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
        Ok(())
    }
}

/// The parts that are on, one behind the other.
impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recipe { schedule } = *self;
        let parts =
            [(schedule == Curve::Cosine).then(|| "learning rate falls along a cosine to a hundredth".to_owned())];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}
