//! The flags that end a run before its last epoch.

use clap::Args as ClapArgs;
use onesheet::training::config::RunConfig;

/// Each may be given anew, or taken away, when a run goes on.
#[derive(Debug, ClapArgs)]
pub struct LimitArgs {
    /// Stop after so many steps in all, with a checkpoint to go on from. A run that has reached its limit goes on without it;
    /// `none` takes one away that is not reached yet
    #[arg(long, value_name = "N|none", value_parser = steps)]
    pub max_steps: Option<Limit<u64>>,
    /// Stop after so many minutes of each start, with a checkpoint to go on from; `none` takes the limit away
    #[arg(long, value_name = "MINUTES|none", value_parser = minutes)]
    pub time_limit: Option<Limit<f64>>,
    /// End when the validation mAP, by which the best epoch is chosen, was not above its best for N epochs; `none` takes that away
    #[arg(long, value_name = "N|none", value_parser = patience)]
    pub patience: Option<Limit<u32>>,
}

/// Where a flag ends a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit<T> {
    /// Nowhere
    None,
    /// There
    At(T),
}

impl<T> Limit<T> {
    /// The number or `none` in `text`, or what it should have been.
    fn read(text: &str, number: Option<T>, what: &str) -> Result<Self, String> {
        match number {
            Some(number) => Ok(Limit::At(number)),
            None if text == "none" => Ok(Limit::None),
            None => Err(what.into()),
        }
    }

    fn set(limit: Option<Self>, setting: &mut Option<T>) {
        match limit {
            Some(Limit::None) => *setting = None,
            Some(Limit::At(number)) => *setting = Some(number),
            None => {}
        }
    }
}

fn steps(text: &str) -> Result<Limit<u64>, String> {
    Limit::read(text, text.parse().ok(), "a limit is a number of steps, or `none`")
}

fn minutes(text: &str) -> Result<Limit<f64>, String> {
    let minutes = text.parse().ok().filter(|&minutes| minutes > 0.0 && minutes < f64::INFINITY);
    Limit::read(text, minutes, "a limit is a number of minutes above 0, or `none`")
}

fn patience(text: &str) -> Result<Limit<u32>, String> {
    Limit::read(
        text,
        text.parse().ok().filter(|&epochs| epochs > 0),
        "patience is a number of epochs from 1 on, or `none`",
    )
}

impl LimitArgs {
    /// Sets each limit whose flag is given.
    pub fn set(&self, config: &mut RunConfig) {
        Limit::set(self.max_steps, &mut config.max_steps);
        Limit::set(self.time_limit, &mut config.time_limit);
        Limit::set(self.patience, &mut config.patience);
    }
}
