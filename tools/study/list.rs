//! The list of a study's runs, a TOML document: its name, and for each run a label and the settings of `train`.

use crate::exit::Usage;
use crate::train;
use clap::{Arg, Args as _, Command, FromArgMatches};
use onesheet::data::Split;
use onesheet::files;
use serde::Deserialize;
use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

/// The lists that come with the program, by what is typed behind `--runs`.
pub const LISTS: [(&str, &str); 4] = [
    ("paper", include_str!("paper.toml")),
    ("networks", include_str!("networks.toml")),
    ("discussion", include_str!("discussion.toml")),
    ("recipe", include_str!("recipe.toml")),
];

/// Flags of `train` that are no settings of one run among others.
const NO_SETTINGS: [&str; 11] =
    ["data", "epochs", "max-steps", "time-limit", "run", "resume", "profile", "find-lr", "summary", "json", "quiet"];

/// The runs of a study, in their order.
#[derive(Debug)]
pub struct List {
    /// What the study is called.
    pub name: String,
    /// What the runs are scored on: all splits, unless the list keeps some for later.
    pub scored: Vec<Split>,
    /// At least one.
    pub runs: Vec<Entry>,
}

/// A run as the list has it.
#[derive(Debug)]
pub struct Entry {
    /// Its name in the tables and of its folder; no two share one.
    pub label: String,
    /// Which films it is trained on.
    pub films: Films,
    /// Its settings, as flags of `train`.
    pub words: Vec<OsString>,
}

/// Which films of the data a run is trained and scored on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Films {
    /// All of them, as often as they come.
    #[default]
    All,
    /// Each where it comes first and nowhere else, so that none is on two sides of the split.
    Once,
    /// Those of one decade apart from the others.
    ByDecade,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: String,
    scored: Option<Vec<String>>,
    #[serde(rename = "run")]
    runs: Vec<toml::Table>,
}

impl List {
    /// One of [`LISTS`], or that in a file.
    ///
    /// # Errors
    /// [`Usage`] for a file that cannot be read or that holds no such list, with the run and the setting.
    pub fn read(runs: &Path) -> Result<List, Usage> {
        let shipped = LISTS.into_iter().find(|(name, _)| runs.as_os_str() == *name);
        if let Some((name, text)) = shipped {
            return List::parse(name, text);
        }
        let mut text = String::new();
        files::open(runs).and_then(|mut file| file.read_to_string(&mut text)).map_err(|error| {
            let names = LISTS.map(|(name, _)| name).join(", ");
            Usage(format!("--runs is one of {names}, or a TOML file; cannot read {}: {error}", runs.display()))
        })?;
        List::parse(&runs.display().to_string(), &text)
    }

    /// The list in `text`, which comes from `place`.
    fn parse(place: &str, text: &str) -> Result<List, Usage> {
        let Document { name, scored, runs } =
            toml::from_str(text).map_err(|error| Usage(format!("{place} is no list of runs: {error}")))?;
        if !is_file_name(&name) {
            return Err(Usage(format!("{place}: the name `{name}` {FILE_NAME}")));
        }
        if runs.is_empty() {
            return Err(Usage(format!("{place} has no [[run]]")));
        }
        let split = |name: String| {
            Split::ALL.into_iter().find(|split| split.name() == name).ok_or_else(|| {
                Usage(format!("{place}: `scored` is a list of train, validation and test; `{name}` is none of them"))
            })
        };
        let scored = match scored {
            Some(names) => names.into_iter().map(split).collect::<Result<_, _>>()?,
            None => Split::ALL.to_vec(),
        };
        let mut taken = HashSet::new();
        let mut entries = Vec::new();
        for (number, table) in (1..).zip(runs) {
            let label = table.get("label").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
            let run = if label.is_empty() { format!("run {number}") } else { format!("run `{label}`") };
            let wrong = |why: String| Usage(format!("{place}, {run}: {why}"));
            if !is_file_name(&label) {
                return Err(wrong(format!("its `label` {FILE_NAME}")));
            }
            // On some disks names that differ by case are one.
            if !taken.insert(label.to_lowercase()) {
                return Err(wrong("another run has that label".into()));
            }
            entries.push(entry(label, table).map_err(wrong)?);
        }
        Ok(List { name, scored, runs: entries })
    }
}

/// What a name may be that a folder gets.
const FILE_NAME: &str = "is to be letters, digits, dashes, dots and underscores, and begin with a letter or digit";

fn is_file_name(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
}

/// A run of these settings, each looked at by `train` itself.
fn entry(label: String, mut settings: toml::Table) -> Result<Entry, String> {
    settings.remove("label");
    let films = match settings.remove("films") {
        Some(films) => films.try_into().map_err(|_| "`films` is all, once or by-decade".to_owned())?,
        None => Films::All,
    };
    let mut words = Vec::new();
    for (key, value) in &settings {
        words.push(word(key, value)?);
    }
    train_args(&words)?;
    Ok(Entry { label, films, words })
}

/// The flag of `train` that makes this setting.
fn word(key: &str, value: &toml::Value) -> Result<OsString, String> {
    let flag = match key {
        "learning_rate" => "lr".to_owned(),
        key => key.replace('_', "-"),
    };
    if NO_SETTINGS.contains(&flag.as_str()) {
        return Err(format!(
            "`{key}` is not for one run; where `study` has a flag of that name, it is for all of them"
        ));
    }
    let command = train::Args::augment_args(Command::new("train"));
    let known = || command.get_arguments().filter_map(Arg::get_long);
    if known().all(|name| name != flag) {
        let names = known().filter(|name| !NO_SETTINGS.contains(name));
        let names = names.map(|name| name.replace('-', "_"));
        let names = names.chain(["learning_rate", "label", "films"].map(String::from));
        let nearest = names.min_by_key(|name| strsim::damerau_levenshtein(name, key)).unwrap_or_default();
        return Err(format!("there is no setting `{key}`; the nearest one is `{nearest}`"));
    }
    let value = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => value.to_string(),
        _ => return Err(format!("`{key}` is a text, a number, or true or false")),
    };
    Ok(format!("--{flag}={value}").into())
}

/// What `train` makes of these words.
///
/// # Errors
/// Its own.
pub fn train_args(words: &[OsString]) -> Result<train::Args, String> {
    let command = train::Args::augment_args(Command::new("train").no_binary_name(true));
    let args = command.try_get_matches_from(words).and_then(|matches| train::Args::from_arg_matches(&matches));
    args.map_err(|error| {
        let text = error.render().to_string();
        let first = text.split("\n\n").next().unwrap_or_default();
        first.strip_prefix("error: ").unwrap_or(first).to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::training::config::ClassWeights;
    use onesheet::training::experiment::Experiment;

    fn words(settings: &str) -> Result<Vec<OsString>, String> {
        let list = List::parse("a list", &format!("name = \"a\"\n[[run]]\nlabel = \"b\"\n{settings}"));
        list.map(|mut list| list.runs.remove(0).words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_lists_that_come_with_the_program_can_be_trained() {
        for (name, _) in LISTS {
            let list = List::read(Path::new(name)).unwrap();
            assert_eq!(list.name, name);
            for run in list.runs {
                assert!(train_args(&run.words).unwrap().experiment.is_some(), "{}", run.label);
            }
        }
        let paper = List::read(Path::new("paper")).unwrap().runs;
        let experiments = paper.iter().map(|run| train_args(&run.words).unwrap().experiment.unwrap());
        let expected = [Experiment::ResnetR, Experiment::ResnetImg, Experiment::ResnetTl];
        assert_eq!(experiments.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn settings_have_their_names_in_config_toml_or_as_flags() {
        let settings =
            "learning_rate = 0.01\nwarmup-epochs = 2\naugment = true\nrecompute = true\nclass_weights = \"none\"";
        let args = train_args(&words(settings).unwrap()).unwrap();
        assert_eq!(
            (args.lr, args.warmup_epochs, args.augment, args.recompute),
            (Some(0.01), Some(2.0), Some(true), Some(true))
        );
        assert_eq!(args.class_weights, Some(ClassWeights::None));
        let args = train_args(&words("augment = false").unwrap()).unwrap();
        assert_eq!(args.augment, Some(false));
    }

    #[test]
    fn what_is_no_setting_is_refused_by_name() {
        for (settings, told) in [
            (
                "learning_rat = 1",
                "a list, run `b`: there is no setting `learning_rat`; the nearest one is `learning_rate`",
            ),
            ("film = 1", "the nearest one is `films`"),
            ("epochs = 3", "`epochs` is not for one run"),
            ("resume = \"x\"", "`resume` is not for one run"),
            ("augment = 1", "invalid value '1' for '--augment[=<BOOL>]'"),
            ("batch = [1]", "`batch` is a text, a number"),
            ("batch = \"many\"", "invalid value 'many' for '--batch <N|auto>'"),
            ("network = \"resnet\"", "invalid value 'resnet' for '--network <NAME>'"),
            ("films = \"some\"", "`films` is all, once or by-decade"),
            ("[[run]]\nlabel = \"B\"", "run `B`: another run has that label"),
            ("[[run]]\nlabel = \"../x\"", "its `label` is to be letters"),
            ("[[run]]\nseed = 1", "run 2: its `label` is to be letters"),
        ] {
            let error = words(settings).unwrap_err();
            assert!(error.contains(told), "{settings}: {error}");
        }
        for (text, told) in [
            ("name = \"a\"\nrun = []", "a list has no [[run]]"),
            (
                "name = \"a\"\nscored = [\"tests\"]\n[[run]]\nlabel = \"b\"",
                "a list: `scored` is a list of train, validation and test; `tests` is none of them",
            ),
        ] {
            assert_eq!(List::parse("a list", text).unwrap_err().to_string(), told);
        }
        let error = List::read(Path::new("papers")).unwrap_err().to_string();
        assert!(error.contains("one of paper, networks, discussion, recipe, or a TOML file"), "{error}");
    }
}
