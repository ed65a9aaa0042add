//! Each flag of `train` as it is typed, and the whole of the settings that it gives.

use super::*;
use clap::error::ErrorKind;
use clap::{Arg, Command, FromArgMatches};
use std::collections::BTreeSet;
use std::env::current_dir;

fn command() -> Command {
    Args::augment_args(Command::new("train"))
}

/// The arguments in `words`, as they are typed behind `onesheet train`.
fn parsed(words: &str) -> Result<Args, clap::Error> {
    let matches = command().try_get_matches_from(["train"].into_iter().chain(words.split_whitespace()))?;
    Args::from_arg_matches(&matches)
}

fn typed(words: &str) -> Args {
    parsed(words).unwrap_or_else(|error| panic!("{words}: {error}"))
}

/// `base` with a change.
fn with(base: RunConfig, change: impl FnOnce(&mut RunConfig)) -> RunConfig {
    let mut config = base;
    change(&mut config);
    config
}

fn here(name: &str) -> Option<PathBuf> {
    Some(current_dir().unwrap().join(name))
}

/// A flag as typed, and what it changes in the settings.
type Row = (&'static str, fn(&mut RunConfig));

/// Flags that a run has settled once it began.
const SETTLED_ROWS: [Row; 13] = [
    ("--weights w.h5", |config| config.weights = here("w.h5")),
    ("--seed 9223372036854775807", |config| config.seed = i64::MAX as u64),
    ("--batch 3", |config| config.batch = 3),
    ("--warmup-epochs 2.5", |config| config.warmup_epochs = 2.5),
    ("--zero-init-residual false", |config| config.zero_init_residual = false),
    ("--image-size 96", |config| config.image_size = 96),
    ("--pooling max", |config| config.pooling = Pooling::Max),
    ("--trainable last:17", |config| config.trainable = Trainable::Last(17)),
    ("--class-weights none", |config| config.class_weights = ClassWeights::None),
    ("--pixels unit", |config| config.pixels = Pixels::Unit),
    ("--pixels raw", |config| config.pixels = Pixels::Raw),
    ("--momentum 0.25", |config| config.momentum = 0.25),
    ("--augment", |config| config.augment = true),
];

/// Flags that change nothing of what a run has done.
const OPEN_ROWS: [Row; 17] = [
    ("--device cpu", |config| config.device = DeviceChoice::Cpu),
    ("--device cuda", |config| config.device = DeviceChoice::Cuda),
    ("--device sim", |config| config.device = DeviceChoice::Sim),
    ("--precision f32", |config| config.precision = Precision::F32),
    ("--precision tf32", |config| config.precision = Precision::Tf32),
    ("--precision bf16", |config| config.precision = Precision::Bf16),
    ("--epochs 7", |config| config.epochs = 7),
    ("--max-steps 11", |config| config.max_steps = Some(11)),
    ("--max-steps 0", |config| config.max_steps = Some(0)),
    ("--max-steps none", |config| config.max_steps = None),
    ("--lr 0.125", |config| config.learning_rate = 0.125),
    ("--save-every 0.75", |config| config.save_every = 0.75),
    ("--on-bad-numbers skip", |config| config.on_bad_numbers = OnBadNumbers::Skip),
    ("--on-bad-numbers rollback", |config| config.on_bad_numbers = OnBadNumbers::Rollback),
    ("--check-numerics", |config| config.check_numerics = true),
    ("--check-numerics=true", |config| config.check_numerics = true),
    ("--io read", |config| config.io = Access::Read),
];

/// Flags that are no settings: they say what the tool does and prints.
const NO_SETTINGS: [&str; 4] = ["--run other", "--summary", "--json", "--quiet"];

fn name_of(words: &str) -> &str {
    words.split([' ', '=']).next().unwrap()
}

fn names<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    words.into_iter().map(name_of).collect()
}

fn rows() -> impl Iterator<Item = Row> {
    SETTLED_ROWS.into_iter().chain(OPEN_ROWS)
}

#[test]
fn a_flag_changes_its_own_setting_and_no_other() {
    for (words, change) in rows() {
        let config = typed(words).config(None).unwrap();
        assert_eq!(config, with(RunConfig::demonstration(), change), "{words}");
        let config = typed(&format!("--data d {words}")).config(None).unwrap();
        let expected = with(RunConfig { data: here("d"), ..RunConfig::default() }, change);
        assert_eq!(config, expected, "--data d {words}");
        // A preset first, whatever the order in which they are typed.
        let config = typed(&format!("{words} --data d --experiment resnet-r")).config(None).unwrap();
        let preset = RunConfig { data: here("d"), ..RunConfig::preset(Experiment::ResnetR) };
        assert_eq!(config, with(preset, change), "{words} --experiment resnet-r");
    }
    for words in NO_SETTINGS {
        assert_eq!(typed(words).config(None).unwrap(), RunConfig::demonstration(), "{words}");
    }
    // What is off in the defaults and in the presets can be seen to be switched on, and the other way round.
    for (words, change) in [
        ("--warmup-epochs 0", (|config| config.warmup_epochs = 0.0) as fn(&mut RunConfig)),
        ("--check-numerics=false", |_| {}),
        ("--momentum 0", |config| config.momentum = 0.0),
        ("--save-every 0", |config| config.save_every = 0.0),
    ] {
        assert_eq!(typed(words).config(None).unwrap(), with(RunConfig::demonstration(), change), "{words}");
    }
    let config = typed("--data d --experiment resnet-r --zero-init-residual true --trainable all --pooling avg");
    let expected = with(RunConfig::preset(Experiment::ResnetR), |config| {
        config.data = here("d");
        config.zero_init_residual = true;
        config.pooling = Pooling::Average;
    });
    assert_eq!(config.config(None).unwrap(), expected);
}

#[test]
fn every_flag_has_a_row() {
    let command = command();
    let flags = command.get_arguments().filter_map(Arg::get_long).map(|long| format!("--{long}"));
    let flags: BTreeSet<String> = flags.collect();
    let apart = ["--data", "--experiment", "--profile", "--resume"];
    let shown = names(rows().map(|(words, _)| words).chain(NO_SETTINGS).chain(apart));
    assert_eq!(flags.iter().map(String::as_str).collect::<BTreeSet<_>>(), shown);
    assert_eq!(flags.len(), command.get_arguments().count(), "each argument has a long name");
}

/// The paper's settings, written out once more.
#[test]
fn an_experiment_is_its_whole_preset() {
    for (name, experiment, trainable) in [
        ("resnet-r", Experiment::ResnetR, Trainable::All),
        ("resnet-img", Experiment::ResnetImg, Trainable::All),
        ("resnet-tl", Experiment::ResnetTl, Trainable::Last(40)),
    ] {
        let config = typed(&format!("--experiment {name} --data d --weights w")).config(None).unwrap();
        let expected = RunConfig {
            experiment: Some(experiment),
            data: here("d"),
            weights: here("w"),
            device: DeviceChoice::Auto,
            precision: Precision::Auto,
            seed: 0,
            batch: 128,
            epochs: 20,
            max_steps: None,
            learning_rate: 0.001,
            warmup_epochs: 0.0,
            zero_init_residual: false,
            image_size: 150,
            pooling: Pooling::Max,
            trainable,
            class_weights: ClassWeights::Balanced,
            pixels: Pixels::Raw,
            momentum: 0.99,
            augment: false,
            threshold: 0.3,
            save_every: 10.0,
            on_bad_numbers: OnBadNumbers::Stop,
            check_numerics: false,
            io: Access::Map,
            history: Vec::new(),
        };
        assert_eq!(config, expected, "{name}");
    }
}

#[test]
fn the_size_is_the_files_unless_it_is_typed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posters.safetensors");
    onesheet::data::synthetic::write(&path, 1, 40, 1).unwrap();
    let file = TensorFile::open(&path).unwrap();
    let size = |words: &str| typed(words).config(Some(&file)).unwrap().image_size;
    assert_eq!(
        [size("--data d"), size("--experiment resnet-r --data d"), size("--data d --image-size 48")],
        [40, 40, 48]
    );
}

#[test]
fn a_profile_ends_the_run_behind_its_steps() {
    for (words, done, limit) in [
        ("--profile", 0, 13),
        ("--profile=2", 0, 5),
        ("--profile=2 --max-steps 4", 0, 4),
        ("--profile=2 --max-steps 6", 0, 5),
        ("--profile=2 --max-steps none", 0, 5),
        ("--profile=2", 100, 105),
        ("--profile=1000 --max-steps 110", 100, 110),
    ] {
        let limited = |config: RunConfig| RunConfig { max_steps: Some(limit), ..config };
        let begun = RunConfig { seed: 4, ..RunConfig::default() };
        assert_eq!(typed(words).resumed(&begun, done), limited(begun.clone()), "{words}, {done} steps done");
        if done == 0 {
            assert_eq!(typed(words).config(None).unwrap(), limited(RunConfig::demonstration()), "{words}");
        }
    }
}

#[test]
fn a_run_that_goes_on_keeps_its_settings_but_for_those_typed() {
    // Different from every default, and from every value typed below.
    let begun = RunConfig {
        experiment: Some(Experiment::ResnetTl),
        data: Some("/before/posters".into()),
        weights: Some("/before/weights".into()),
        device: DeviceChoice::Auto,
        precision: Precision::Auto,
        seed: 5,
        batch: 6,
        epochs: 70,
        max_steps: Some(80),
        learning_rate: 0.09,
        warmup_epochs: 0.1,
        zero_init_residual: true,
        image_size: 111,
        pooling: Pooling::Max,
        trainable: Trainable::Last(12),
        class_weights: ClassWeights::None,
        pixels: Pixels::Unit,
        momentum: 0.13,
        augment: true,
        threshold: 0.14,
        save_every: 15.0,
        on_bad_numbers: OnBadNumbers::Stop,
        check_numerics: false,
        io: Access::Map,
        history: Vec::new(),
    };
    assert_eq!(typed("--resume r").resumed(&begun, 79), begun);
    for (words, change) in OPEN_ROWS {
        let resumed = typed(&format!("--resume r {words}")).resumed(&begun, 79);
        assert_eq!(resumed, with(begun.clone(), change), "{words}");
    }
    let moved = typed("--resume r --data d").resumed(&begun, 79);
    assert_eq!(moved, RunConfig { data: here("d"), ..begun.clone() });
    // What was switched on can be switched off again.
    let checked = RunConfig { check_numerics: true, io: Access::Read, ..begun.clone() };
    assert_eq!(typed("--resume r --check-numerics=false --io map").resumed(&checked, 79), begun);

    // A limit that is reached is done with, unless another is typed.
    let limit = |words: &str, done| typed(words).resumed(&begun, done).max_steps;
    assert_eq!([limit("--resume r", 80), limit("--resume r", 81)], [None, None]);
    assert_eq!([limit("--resume r --max-steps 5", 80), limit("--resume r --max-steps 90", 80)], [Some(5), Some(90)]);
    assert_eq!(limit("--resume r --profile=1", 80), Some(84));
    for words in ["--resume r", "--resume r --quiet", "--resume r --json"] {
        assert_eq!(typed(words).resumed(&begun, 0), begun, "{words}");
    }
}

#[test]
fn what_is_settled_is_refused_beside_resume_and_the_rest_is_not() {
    for words in
        SETTLED_ROWS.map(|(words, _)| words).into_iter().chain(["--experiment resnet-r", "--run x", "--summary"])
    {
        for both in [format!("--resume r {words}"), format!("{words} --resume r")] {
            assert_eq!(parsed(&both).map(|_| ()).unwrap_err().kind(), ErrorKind::ArgumentConflict, "{both}");
        }
    }
    let open = OPEN_ROWS.map(|(words, _)| words);
    for words in open.into_iter().chain(["--data d", "--profile", "--json", "--quiet", "-q"]) {
        assert_eq!(typed(&format!("--resume r {words}")).resume, Some("r".into()), "{words}");
    }
    // The help names them too.
    let resume =
        command().get_arguments().find(|arg| arg.get_long() == Some("resume")).unwrap().get_help().unwrap().to_string();
    let told: BTreeSet<&str> = resume.split([' ', ',', '\n']).filter(|word| word.starts_with("--")).collect();
    assert_eq!(told, names(open.into_iter().chain(["--data"])));
}

#[test]
fn of_a_flag_typed_twice_the_last_counts() {
    for (first, last) in [("--batch 3", "--batch 4"), ("--device sim", "--device cpu"), ("--run a", "--run b")] {
        let [twice, once] = [format!("{first} {last}"), last.to_owned()].map(|words| typed(&words));
        assert_eq!(twice.config(None).unwrap(), once.config(None).unwrap());
        assert_eq!(twice.run, once.run);
    }
}

#[test]
fn what_is_no_setting_reaches_the_tool() {
    let told = |words: &str| {
        let Args { run, resume, summary, json, quiet, profile, .. } = typed(words);
        let path = |path: Option<PathBuf>| path.map_or(String::new(), |path| path.display().to_string());
        (path(run), path(resume), summary, json, quiet, profile)
    };
    let (none, quiet) = (String::new, (String::new(), String::new(), false, false, true, None));
    assert_eq!(told(""), (none(), none(), false, false, false, None));
    assert_eq!(told("--run x"), ("x".into(), none(), false, false, false, None));
    assert_eq!(told("--resume y"), (none(), "y".into(), false, false, false, None));
    assert_eq!(told("--summary"), (none(), none(), true, false, false, None));
    assert_eq!(told("--json"), (none(), none(), false, true, false, None));
    assert_eq!([told("--quiet"), told("-q")], [quiet.clone(), quiet]);
    assert_eq!(told("--profile"), (none(), none(), false, false, false, Some(10)));
    assert_eq!(told("--profile=1000"), (none(), none(), false, false, false, Some(1000)));
}

#[test]
fn values_are_taken_to_their_bounds_and_refused_behind_them() {
    for words in [
        "--seed 0",
        "--seed 9223372036854775807",
        "--epochs 1",
        "--epochs 4294967295",
        "--max-steps 18446744073709551615",
        "--profile=1",
        "--profile=1000",
        "--lr 5e-324",
        "--lr 1.7976931348623157e308",
        "--warmup-epochs 0",
        "--warmup-epochs 999999.999",
        "--image-size 32",
        "--image-size 1024",
        "--momentum 0",
        "--momentum 0.9999999999999999",
        "--save-every 0",
        "--save-every 999999.999",
        "--trainable last:0",
        "--trainable last:176",
    ] {
        typed(words);
    }
    for (words, why) in [
        ("--seed -1", "-1"),
        ("--seed 9223372036854775808", "9223372036854775808"),
        ("--epochs 0", "1.."),
        ("--epochs 4294967296", "1.."),
        ("--max-steps -1", "-1"),
        ("--max-steps 1.5", "a limit is a number of steps, or `none`"),
        ("--max-steps None", "a limit is a number of steps, or `none`"),
        ("--profile=0", "1..=1000"),
        ("--profile=1001", "1..=1000"),
        ("--lr 0", "a learning rate is a number above 0"),
        ("--lr=-0.001", "a learning rate is a number above 0"),
        ("--lr inf", "a learning rate is a number above 0"),
        ("--lr nan", "a learning rate is a number above 0"),
        ("--lr fast", "a learning rate is a number above 0"),
        ("--warmup-epochs=-0.5", "a warm-up takes a number of epochs from 0 on"),
        ("--warmup-epochs 1e6", "a warm-up takes a number of epochs from 0 on"),
        ("--warmup-epochs nan", "a warm-up takes a number of epochs from 0 on"),
        ("--image-size 31", "32..=1024"),
        ("--image-size 1025", "32..=1024"),
        ("--momentum 1", "a momentum is a number from 0 to below 1"),
        ("--momentum=-0.1", "a momentum is a number from 0 to below 1"),
        ("--momentum nan", "a momentum is a number from 0 to below 1"),
        ("--save-every=-1", "an interval is a number of minutes from 0 on"),
        ("--save-every 1e6", "an interval is a number of minutes from 0 on"),
        ("--save-every nan", "an interval is a number of minutes from 0 on"),
        ("--trainable last:177", "neither `all` nor `last:N`"),
        ("--pooling min", "neither `avg` nor `max`"),
        ("--device gpu", "[possible values: auto, cpu, cuda, sim]"),
        ("--precision f16", "[possible values: auto, f32, tf32, bf16]"),
        ("--experiment resnet", "[possible values: resnet-r, resnet-img, resnet-tl]"),
        ("--class-weights all", "[possible values: balanced, none]"),
        ("--pixels bgr", "[possible values: raw, imagenet, unit]"),
        ("--on-bad-numbers go", "[possible values: stop, skip, rollback]"),
        ("--io write", "[possible values: map, read]"),
        ("--zero-init-residual 1", "[possible values: true, false]"),
        ("--check-numerics true", "unexpected argument"),
        ("--batch -3", "-3"),
        ("poster.jpg", "unexpected argument"),
    ] {
        let error = parsed(words).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(why), "{words}: {error}");
    }
}

#[test]
fn an_experiment_says_what_it_lacks() {
    let refusal = |words: &str| typed(words).config(None).map(|_| ()).map_err(|error| error.0);
    for experiment in ["resnet-img", "resnet-tl"] {
        for (words, data) in [("", "posters.safetensors"), ("--data d", "d")] {
            let error = refusal(&format!("--experiment {experiment} {words}")).unwrap_err();
            let command = format!("onesheet train --data {data} --experiment {experiment} --weights FILE, where");
            assert!(error.starts_with(&format!("{experiment} starts from ImageNet weights: {command}")), "{error}");
        }
        let error = refusal(&format!("--experiment {experiment} --weights w")).unwrap_err();
        assert!(error.starts_with(&format!("{experiment} needs posters: ")), "{error}");
    }
    let error = refusal("--experiment resnet-r").unwrap_err();
    assert!(error.starts_with("resnet-r needs posters: onesheet train --data posters.safetensors"), "{error}");
    for words in [
        "",
        "--data d",
        "--weights w",
        "--experiment resnet-r --data d",
        "--experiment resnet-tl --data d --weights w",
        // Its layers are printed without either.
        "--experiment resnet-tl --summary",
        "--experiment resnet-r --summary",
    ] {
        assert_eq!(refusal(words), Ok(()), "{words}");
    }
}

#[test]
fn a_run_without_a_name_is_called_by_its_date_and_what_it_tries() {
    for (words, what) in [
        ("", "synthetic"),
        ("--data d", "resnet"),
        ("--experiment resnet-r", "resnet-r"),
        ("--experiment resnet-tl --data d", "resnet-tl"),
    ] {
        let name = typed(words).default_run_name();
        let (date, end) = name.split_at("2026-11-22-091530".len());
        assert_eq!(end, format!("-{what}"), "{words}");
        assert!(date.starts_with("20") && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'), "{name}");
    }
}

#[test]
fn timestamps_are_dates() {
    // From `date --utc --date=@SECONDS`.
    let dates = [
        (0, "1970-01-01-000000"),
        (951_782_399, "2000-02-28-235959"),
        (951_782_400, "2000-02-29-000000"),
        (1_709_164_800, "2024-02-29-000000"),
        (1_795_338_930, "2026-11-22-091530"),
        (4_107_542_400, "2100-03-01-000000"),
    ];
    for (seconds, date) in dates {
        assert_eq!(timestamp(seconds), date);
    }
}
