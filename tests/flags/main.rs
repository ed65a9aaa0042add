//! Every flag of every tool reaches what its help promises.
//!
//! The command lines are constants beside the tests that run them, and a flag that is typed in none of them fails the test of its
//! tool. What is expected is written out here or computed by the library from settings that no flag went into.

mod answers;
mod export;
mod first_step;
mod inspect;
mod plan;
mod prepare;
mod report;
mod resume;
mod serve;
#[path = "../support/served.rs"]
mod served;
#[cfg(feature = "fetch")]
#[path = "../support/server.rs"]
mod server;
mod study;
mod train;
mod tuned;

use onesheet::data::synthetic;
use onesheet::device::cpu::Cpu;
use onesheet::training::checkpoint::{Metadata, Progress};
use onesheet::training::config::RunConfig;
use onesheet::training::learner::{Keep, Learner};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use tempfile::TempDir;

/// The side of the posters here, in pixels.
const SIDE: usize = 33;

/// A folder of its own for a test, under the name that the system has for it, and gone with the test.
struct Place {
    _folder: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Place {
        let folder = TempDir::new().unwrap();
        let path = folder.path().canonicalize().unwrap();
        Place { _folder: folder, path }
    }

    /// One with `posters.safetensors` in it: 20 posters, 16 of them to train on. They are the smallest of which the network's
    /// last feature map has more than one pixel: of one, maximum and average are the same.
    fn with_posters() -> Place {
        let place = Place::new();
        synthetic::write(&place.at("posters.safetensors"), 20, SIDE, 1).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The command in this folder, with these words behind it.
    fn onesheet(&self, words: &str) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("onesheet"));
        command.current_dir(&self.path).args(words.split_whitespace());
        command
    }

    /// Runs it to its end.
    fn run(&self, words: &str) -> Told {
        let output = self.onesheet(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let told = Told { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!told.stderr.contains("panicked"), "{words}: {told:?}");
        told
    }

    /// Runs it to its end, which is to be with this exit code.
    #[track_caller]
    fn run_to(&self, code: i32, words: &str) -> Told {
        let told = self.run(words);
        assert_eq!(told.code, Some(code), "onesheet {words}: {told:?}");
        told
    }
}

/// What a command left: its exit code, and what it printed.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Told {
    /// The objects on stdout, one a line.
    fn objects(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The settings in a run's `config.toml`; and of each trainer that worked on it, what it computed on.
fn settings(run: &Path) -> (RunConfig, Vec<String>) {
    let mut config: RunConfig = toml::from_str(&fs::read_to_string(run.join("config.toml")).unwrap()).unwrap();
    let history = std::mem::take(&mut config.history);
    (config, history.into_iter().map(|entry| entry.device).collect())
}

/// Writes a checkpoint of the whole network with initial weights drawn from `seed`, for a model of these settings.
fn write_model(path: &Path, seed: u64, config: RunConfig) {
    let metadata = Metadata {
        genres: synthetic::GENRES.map(String::from).to_vec(),
        thresholds: vec![0.3; 7],
        resize: "area".into(),
        exif: "ignore".into(),
        alpha: "drop".into(),
        data_digest: String::new(),
        tuned: None,
        progress: Progress::default(),
        config,
    };
    let model = metadata.config.model(7);
    Learner::new(Rc::new(Cpu::new()), model, seed).unwrap().save(path, &metadata, Keep::Weights).unwrap();
}

/// Flags that every tool has. What `--log-format` does is shown in `tests/cli/log_format.rs`.
const OF_ALL: [&str; 3] = ["-h", "--help", "--log-format"];

/// The flags in the help of a tool, in their long and their short form.
fn flags_in_help(tool: &str) -> BTreeSet<String> {
    let help = Place::new().run_to(0, &format!("{tool} --help")).stdout;
    // What follows a dash alone is one of a flag's values.
    let options = help.lines().map(str::trim_start).filter(|line| line.starts_with('-') && !line.starts_with("- "));
    let words = options.flat_map(|line| line.split_whitespace().take_while(|word| word.starts_with('-')));
    flags_in(words).into_iter().filter(|flag| !OF_ALL.contains(&flag.as_str())).collect()
}

/// The flags among `words`, without the values behind an equals sign.
fn flags_in<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let is_of_a_name = |letter: char| letter == '-' || letter.is_ascii_lowercase();
    let flags = words.into_iter().filter(|word| word.starts_with('-'));
    flags.map(|word| word[..word.find(|letter| !is_of_a_name(letter)).unwrap_or(word.len())].to_owned()).collect()
}

/// Asserts that what the tests type behind `tool` is all that it takes, and nothing else.
fn assert_all_are_typed<'a>(tool: &str, lines: impl IntoIterator<Item = &'a str>) {
    let typed = flags_in(lines.into_iter().flat_map(str::split_whitespace));
    let taken = flags_in_help(tool);
    assert!(taken.len() > 3, "the help is understood: {taken:?}");
    let untested: Vec<_> = taken.difference(&typed).collect();
    assert!(untested.is_empty(), "no test here shows what these flags of `{tool}` do: {untested:?}");
    let unknown: Vec<_> = typed.difference(&taken).collect();
    assert!(unknown.is_empty(), "the help of `{tool}` does not know {unknown:?}");
}

#[test]
fn no_tool_is_left_out() {
    let help = Place::new().run_to(0, "--help").stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let tools: BTreeSet<&str> = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let tools: Vec<&str> = tools.into_iter().filter(|tool| !["", "help"].contains(tool)).collect();
    assert_eq!(
        tools,
        [
            "completions",
            "doctor",
            "evaluate",
            "export",
            "infer",
            "inspect",
            "man",
            "plan",
            "prepare",
            "report",
            "serve",
            "study",
            "train"
        ]
    );
}
