//! The flags of a training recipe.

use clap::Args as ClapArgs;
use onesheet::optim::Curve;
use onesheet::training::recipe::Recipe;

/// What a run adds to the paper's protocol, a flag a part.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Recipe: what a run adds to the paper's protocol")]
pub struct RecipeArgs {
    /// What becomes of the learning rate behind the warm-up; the last step is that of --epochs [default: constant]
    #[arg(long, value_enum)]
    pub schedule: Option<Curve>,
}

impl RecipeArgs {
    /// Sets each part whose flag is given.
    pub fn set(&self, recipe: &mut Recipe) {
        super::set(&mut recipe.schedule, self.schedule);
    }
}
