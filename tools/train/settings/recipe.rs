//! The flags of a training recipe.

use clap::Args as ClapArgs;
use onesheet::network::KernelInit;
use onesheet::optim::Curve;
use onesheet::training::recipe::Recipe;

/// What a run adds to the paper's protocol, a flag a part.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Recipe: what a run adds to the paper's protocol")]
pub struct RecipeArgs {
    /// What becomes of the learning rate behind the warm-up; the last step is that of --epochs [default: constant]
    #[arg(long, value_enum)]
    pub schedule: Option<Curve>,
    /// What kernels lose of themselves in a step, as a share of the learning rate; biases and batch norms keep theirs [default: 0]
    #[arg(long, value_name = "X", value_parser = weight_decay)]
    pub weight_decay: Option<f64>,
    /// The share of the learning rate that all in front of the head learns at, and decays at: less than 1 where the base comes with weights
    /// and the head is new [default: 1]
    #[arg(long, value_name = "SHARE", value_parser = base_rate)]
    pub base_rate: Option<f64>,
    /// Scale a gradient down whose norm over all parameters is larger; `steps.csv` has the norms [default: as it is]
    #[arg(long, value_name = "NORM", value_parser = norm)]
    pub clip_norm: Option<f64>,
    /// Answer with a moving average of weights and batch norm averages, whose old value weighs so much; `infer` and `evaluate` then
    /// do as well. It warms up [default: 0, without one]
    #[arg(long, value_name = "DECAY", value_parser = ema)]
    pub ema: Option<f64>,
    /// Form batch norm's averages anew behind each epoch, for the model that then answers, from so many training posters as they are, without
    /// --augment and distortions [default: 0, as training left them]
    #[arg(long, value_name = "POSTERS")]
    pub precise_bn: Option<u32>,
    /// Batches whose gradients a step adds up: --batch 32 --accumulate 4 takes steps of 128 posters in the memory of 32. Batch norms
    /// see each batch by itself [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub accumulate: Option<u16>,
    /// What kernels start from, where they do from random numbers [default: glorot]
    #[arg(long, value_enum)]
    pub init: Option<KernelInit>,
    /// Train on a square window of each poster, at random; its side is shorter by up to this share [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub crop: Option<f64>,
    /// Turn training posters by up to so many degrees either way, at random [default: 0]
    #[arg(long, value_name = "DEGREES", value_parser = degrees)]
    pub rotate: Option<f64>,
    /// Multiply their brightness, contrast and saturation by up to this share more or less, at random [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub colour: Option<f64>,
}

/// A part of a whole.
pub fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to below 1, such as 0.3".into()),
    }
}

/// An angle.
pub fn degrees(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(degrees) if (0.0..=180.0).contains(&degrees) => Ok(degrees),
        _ => Err("an angle is a number of degrees from 0 to 180".into()),
    }
}

fn ema(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(decay) if (0.0..1.0).contains(&decay) => Ok(decay),
        _ => Err("a moving average's decay is a number from 0 to below 1, such as 0.999".into()),
    }
}

fn weight_decay(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(decay) if (0.0..=1.0).contains(&decay) => Ok(decay),
        _ => Err("a weight decay is a number from 0 to 1, such as 0.05".into()),
    }
}

fn base_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("the base's share of the learning rate is above 0 and at most 1, such as 0.1; --trainable freezes it"
            .into()),
    }
}

fn norm(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(norm) if norm > 0.0 && norm < f64::INFINITY => Ok(norm),
        _ => Err("a norm is a number above 0, such as 1".into()),
    }
}

impl RecipeArgs {
    /// Sets each part whose flag is given.
    pub fn set(&self, recipe: &mut Recipe) {
        super::set(&mut recipe.schedule, self.schedule);
        super::set(&mut recipe.weight_decay, self.weight_decay);
        super::set(&mut recipe.base_rate, self.base_rate);
        recipe.clip_norm = self.clip_norm.or(recipe.clip_norm);
        super::set(&mut recipe.ema, self.ema);
        super::set(&mut recipe.precise_bn, self.precise_bn.map(|posters| posters as usize));
        super::set(&mut recipe.init, self.init);
        super::set(&mut recipe.crop, self.crop);
        super::set(&mut recipe.rotate, self.rotate);
        super::set(&mut recipe.colour, self.colour);
        super::set(&mut recipe.accumulate, self.accumulate.map(usize::from));
    }
}
