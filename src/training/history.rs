//! What happened to a run's settings: each start of a trainer, and what it changed.

use super::config::RunConfig;
use serde::{Deserialize, Serialize};

/// This program and its version.
pub const VERSION: &str = concat!("onesheet ", env!("CARGO_PKG_VERSION"));

/// A trainer began to work on the run, or changed a setting under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Steps done by then.
    pub step: u64,
    /// What computes from here on, and why it where there was a choice.
    pub device: String,
    /// The version of this program.
    pub version: String,
    /// The settings that differ from before, as `name: before -> after`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}

impl Entry {
    /// The entry of a trainer that begins after `step` steps on `device` with the settings `now`, where they were `before`.
    pub fn new(step: u64, device: String, before: &RunConfig, now: &RunConfig) -> Entry {
        let version = VERSION.to_owned();
        Entry { step, device, version, changed: changes(before, now) }
    }
}

/// The settings that differ, as `name: before -> after`.
pub fn changes(before: &RunConfig, now: &RunConfig) -> Vec<String> {
    // The parts of the recipe, which may be left out as a whole, stand among the others here.
    let table = |config: &RunConfig| {
        let mut table = toml::Table::try_from(config).unwrap_or_default();
        table.remove("recipe");
        table.extend(toml::Table::try_from(&config.recipe).unwrap_or_default());
        table
    };
    let (before, now) = (table(before), table(now));
    let mut names: Vec<&String> = before.keys().chain(now.keys()).filter(|name| *name != "history").collect();
    names.sort();
    names.dedup();
    let text = |value: Option<&toml::Value>| value.map_or("none".into(), toml::Value::to_string);
    let changed = names.into_iter().filter(|&name| before.get(name) != now.get(name));
    changed.map(|name| format!("{name}: {} -> {}", text(before.get(name)), text(now.get(name)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::Curve;

    #[test]
    fn changes_are_named_with_both_values() {
        let before = RunConfig { max_steps: Some(5), ..RunConfig::default() };
        let now = RunConfig { max_steps: None, learning_rate: 1e-4, data: Some("b c".into()), ..RunConfig::default() };
        let expected = ["data: none -> \"b c\"", "learning_rate: 0.001 -> 0.0001", "max_steps: 5 -> none"];
        assert_eq!(changes(&before, &now), expected);
        assert!(changes(&now, &now).is_empty());
        let mut falling = now.clone();
        falling.recipe.schedule = Curve::Cosine;
        assert_eq!(changes(&now, &falling), ["schedule: \"constant\" -> \"cosine\""]);
    }
}
