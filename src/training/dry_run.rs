//! A training step that is counted, not computed.

use super::TrainingError;
use super::learner::Learner;
use super::recipe::Recipe;
use crate::device::counting::{Counting, Habits};
use crate::device::{DeviceError, PixelFormat};
use crate::model::Model;
use crate::network::{Architecture, ModelConfig};
use crate::plan::Plan;
use crate::plan::cost::Costs;
use std::rc::Rc;

/// What a step on `batch` posters costs, and the memory that it takes, by a plan without some of the
/// [rules](crate::plan::fuse::RULES).
///
/// # Errors
/// [`DeviceError::Shape`] for a network or a rule that there is not, or images that are too small.
pub fn costs(config: &ModelConfig, habits: Habits, batch: usize, without: &[&str]) -> Result<Costs, TrainingError> {
    let plan = Plan::without(&Architecture::new(config).map_err(DeviceError::from)?, config.momentum, without)?;
    costs_of(config, habits, batch, plan, &Recipe::default())
}

/// The same by a given plan of the network, with the parts of a recipe.
///
/// # Errors
/// As for [`costs`].
pub fn costs_of(
    config: &ModelConfig,
    habits: Habits,
    batch: usize,
    plan: Plan,
    recipe: &Recipe,
) -> Result<Costs, TrainingError> {
    let device = Rc::new(Counting::new(habits));
    let (size, genres) = (config.image_size, config.genres);
    let mut model = Model::zeros(Rc::clone(&device), config.clone())?;
    model.set_plan(plan);
    let mut learner = Learner::by(recipe, model)?;
    // That happens once in a run.
    learner.begin_average()?;
    device.counted();
    let format = PixelFormat { order: [0, 1, 2], scale: 1.0, shift: [0.0; 3] };
    let (labels, weights) = (vec![0; batch * genres], vec![1.0; genres]);
    while !learner.submit(device.pixels(batch * size * size * 3), batch, &format, &labels, &weights, 0.0)? {}
    Ok(Costs::new(learner.model().plan(), device.counted(), &device.kept(), device.most_bytes()))
}
