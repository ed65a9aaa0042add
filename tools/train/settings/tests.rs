//! Each flag of `train` as it is typed, and the whole of the settings that it gives.

mod values;

use super::*;
use clap::error::ErrorKind;
use clap::{Arg, Command, FromArgMatches};
use onesheet::network::{KernelInit, resnet50, resnet50_v1_5};
use onesheet::optim::Curve;
use onesheet::training::recipe::Recipe;
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
const SETTLED_ROWS: [Row; 25] = [
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
    ("--pixels symmetric", |config| config.pixels = Pixels::Symmetric),
    ("--pixels raw", |config| config.pixels = Pixels::Raw),
    ("--momentum 0.25", |config| config.momentum = 0.25),
    ("--augment", |config| config.augment = true),
    ("--schedule cosine", |config| config.recipe.schedule = Curve::Cosine),
    ("--weight-decay 0.05", |config| config.recipe.weight_decay = 0.05),
    ("--base-rate 0.25", |config| config.recipe.base_rate = 0.25),
    ("--clip-norm 2.5", |config| config.recipe.clip_norm = Some(2.5)),
    ("--accumulate 3", |config| config.recipe.accumulate = 3),
    ("--init he", |config| config.recipe.init = KernelInit::He),
    ("--crop 0.25", |config| config.recipe.crop = 0.25),
    ("--rotate 12.5", |config| config.recipe.rotate = 12.5),
    ("--colour 0.375", |config| config.recipe.colour = 0.375),
    ("--ema 0.875", |config| config.recipe.ema = 0.875),
    ("--precise-bn 96", |config| config.recipe.precise_bn = 96),
];

/// Flags that change nothing of what a run has done.
const OPEN_ROWS: [Row; 25] = [
    ("--device cpu", |config| config.device = DeviceChoice::Cpu),
    ("--device cuda", |config| config.device = DeviceChoice::Cuda),
    ("--device sim", |config| config.device = DeviceChoice::Sim),
    ("--precision f32", |config| config.precision = PrecisionChoice::F32),
    ("--precision tf32", |config| config.precision = PrecisionChoice::Tf32),
    ("--precision bf16", |config| config.precision = PrecisionChoice::Bf16),
    ("--gpus 1", |config| config.gpus = 1),
    ("--epochs 7", |config| config.epochs = 7),
    ("--max-steps 11", |config| config.max_steps = Some(11)),
    ("--max-steps 0", |config| config.max_steps = Some(0)),
    ("--max-steps none", |config| config.max_steps = None),
    ("--time-limit 90.5", |config| config.time_limit = Some(90.5)),
    ("--patience 4", |config| config.patience = Some(4)),
    ("--lr 0.125", |config| config.learning_rate = 0.125),
    ("--save-every 0.75", |config| config.save_every = 0.75),
    ("--keep-best 3", |config| config.keep_best = 3),
    ("--on-bad-numbers skip", |config| config.on_bad_numbers = OnBadNumbers::Skip),
    ("--on-bad-numbers rollback", |config| config.on_bad_numbers = OnBadNumbers::Rollback),
    ("--check-numerics", |config| config.check_numerics = true),
    ("--check-numerics=true", |config| config.check_numerics = true),
    ("--recompute", |config| config.recompute = true),
    ("--recompute=true", |config| config.recompute = true),
    ("--io read", |config| config.io = Access::Read),
    ("--tensorboard off", |config| config.tensorboard = TensorBoard::Off),
    ("--tensorboard histograms", |config| config.tensorboard = TensorBoard::Histograms),
];

/// Flags that are no settings: they say what the tool does and prints.
const NO_SETTINGS: [&str; 5] = ["--run other", "--summary", "--json", "--quiet", "--find-lr"];

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
    // Beside --resume this one may stand if it changes nothing.
    let network: Row = ("--network resnet50-v1.5", |config| config.network = resnet50_v1_5::NETWORK);
    for (words, change) in rows().chain([network]) {
        let config = typed(words).config(None).unwrap();
        assert_eq!(config, with(RunConfig::demonstration(), change), "{words}");
        let config = typed(&format!("--data d {words}")).config(None).unwrap();
        let expected = with(RunConfig { data: here("d"), ..RunConfig::default() }, change);
        assert_eq!(config, expected, "--data d {words}");
        // A preset first, whatever the order in which they are typed.
        let config = typed(&format!("{words} --data d --experiment resnet-r")).config(None).unwrap();
        let preset = RunConfig { data: here("d"), ..Experiment::ResnetR.preset(resnet50::NETWORK) };
        assert_eq!(config, with(preset, change), "{words} --experiment resnet-r");
    }
    for words in NO_SETTINGS {
        assert_eq!(typed(words).config(None).unwrap(), RunConfig::demonstration(), "{words}");
    }
    // What is off in the defaults and in the presets can be seen to be switched on, and the other way round.
    for (words, change) in [
        ("--warmup-epochs 0", (|config| config.warmup_epochs = 0.0) as fn(&mut RunConfig)),
        ("--check-numerics=false", |_| {}),
        ("--recompute=false", |_| {}),
        ("--augment=false", |_| {}),
        ("--momentum 0", |config| config.momentum = 0.0),
        ("--save-every 0", |config| config.save_every = 0.0),
    ] {
        assert_eq!(typed(words).config(None).unwrap(), with(RunConfig::demonstration(), change), "{words}");
    }
    let config = typed("--data d --experiment resnet-r --zero-init-residual true --trainable all --pooling avg");
    let expected = with(Experiment::ResnetR.preset(resnet50::NETWORK), |config| {
        config.data = here("d");
        config.zero_init_residual = true;
        config.pooling = Pooling::Average;
    });
    assert_eq!(config.config(None).unwrap(), expected);
    let config =
        typed("--data d --experiment onesheet --augment=false --ema 0 --crop 0 --schedule constant --init glorot");
    let expected = with(Experiment::Onesheet.preset(resnet50::NETWORK), |config| {
        config.data = here("d");
        config.augment = false;
        let Recipe { weight_decay, precise_bn, rotate, colour, .. } = config.recipe;
        config.recipe = Recipe { weight_decay, precise_bn, rotate, colour, ..Recipe::default() };
    });
    assert_eq!(config.config(None).unwrap(), expected);
}

#[test]
fn every_flag_has_a_row() {
    let command = command();
    let flags = command.get_arguments().filter_map(Arg::get_long).map(|long| format!("--{long}"));
    let flags: BTreeSet<String> = flags.collect();
    let apart = ["--data", "--experiment", "--network", "--profile", "--resume"];
    let shown = names(rows().map(|(words, _)| words).chain(NO_SETTINGS).chain(apart));
    assert_eq!(flags.iter().map(String::as_str).collect::<BTreeSet<_>>(), shown);
    assert_eq!(flags.len(), command.get_arguments().count(), "each argument has a long name");
}

/// The paper's settings, written out once more.
#[test]
fn an_experiment_is_its_whole_preset() {
    for (name, experiment, trainable) in [
        ("random", Experiment::Random, Trainable::All),
        ("imagenet", Experiment::Imagenet, Trainable::All),
        ("transfer", Experiment::Transfer, Trainable::Last(40)),
        ("resnet-r", Experiment::ResnetR, Trainable::All),
        ("resnet-img", Experiment::ResnetImg, Trainable::All),
        ("resnet-tl", Experiment::ResnetTl, Trainable::Last(40)),
    ] {
        let config = typed(&format!("--experiment {name} --data d --weights w")).config(None).unwrap();
        let expected = RunConfig {
            experiment: Some(experiment),
            network: resnet50::NETWORK,
            data: here("d"),
            weights: here("w"),
            device: DeviceChoice::Auto,
            precision: PrecisionChoice::Auto,
            gpus: 1,
            seed: 0,
            batch: 128,
            epochs: 20,
            max_steps: None,
            patience: None,
            time_limit: None,
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
            keep_best: 1,
            on_bad_numbers: OnBadNumbers::Stop,
            check_numerics: false,
            recompute: false,
            io: Access::Map,
            tensorboard: TensorBoard::Scalars,
            recipe: Recipe::default(),
            history: Vec::new(),
        };
        assert_eq!(config, expected, "{name}");
    }
}

#[test]
fn gpus_share_each_batch_or_the_batches_of_a_step() {
    let of = |words: &str| typed(words).config(None).map(|config| (config.batch, config.recipe.accumulate));
    assert_eq!(of("--gpus 2").unwrap(), (8, 2), "of 16 posters");
    assert_eq!(of("--gpus 4 --batch 128").unwrap(), (32, 4));
    assert_eq!(of("--gpus 2 --batch 32 --accumulate 4").unwrap(), (32, 4));
    assert_eq!(of("--gpus 3").unwrap_err().to_string(), "--batch 16 posters are not shared evenly by --gpus 3");
    let uneven = "the 4 batches of a step (--accumulate) are not shared evenly by --gpus 3";
    assert_eq!(of("--gpus 3 --accumulate 4").unwrap_err().to_string(), uneven);
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
        assert_eq!(typed(words).resumed(&begun, done).unwrap(), limited(begun.clone()), "{words}, {done} steps done");
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
        network: resnet50_v1_5::NETWORK,
        data: Some("/before/posters".into()),
        weights: Some("/before/weights".into()),
        device: DeviceChoice::Auto,
        precision: PrecisionChoice::Auto,
        gpus: 2,
        seed: 5,
        batch: 6,
        epochs: 70,
        max_steps: Some(80),
        patience: Some(9),
        time_limit: Some(3.5),
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
        keep_best: 2,
        on_bad_numbers: OnBadNumbers::Stop,
        check_numerics: false,
        recompute: false,
        io: Access::Map,
        tensorboard: TensorBoard::Scalars,
        recipe: Recipe { accumulate: 6, ..Recipe::default() },
        history: Vec::new(),
    };
    assert_eq!(typed("--resume r").resumed(&begun, 79).unwrap(), begun);
    for (words, change) in OPEN_ROWS {
        let resumed = typed(&format!("--resume r {words}")).resumed(&begun, 79).unwrap();
        assert_eq!(resumed, with(begun.clone(), change), "{words}");
    }
    let moved = typed("--resume r --data d").resumed(&begun, 79).unwrap();
    assert_eq!(moved, RunConfig { data: here("d"), ..begun.clone() });
    // What was switched on can be switched off again.
    let checked = RunConfig { check_numerics: true, recompute: true, io: Access::Read, ..begun.clone() };
    assert_eq!(
        typed("--resume r --check-numerics=false --recompute=false --io map").resumed(&checked, 79).unwrap(),
        begun
    );

    assert_eq!(typed("--resume r --gpus 3").resumed(&begun, 79).unwrap().gpus, 3);
    let uneven = typed("--resume r --gpus 4").resumed(&begun, 79).unwrap_err();
    assert_eq!(uneven.to_string(), "the 6 batches of a step (--accumulate) are not shared evenly by --gpus 4");

    // A limit that is reached is done with, unless another is typed.
    let limit = |words: &str, done| typed(words).resumed(&begun, done).unwrap().max_steps;
    assert_eq!([limit("--resume r", 80), limit("--resume r", 81)], [None, None]);
    assert_eq!([limit("--resume r --max-steps 5", 80), limit("--resume r --max-steps 90", 80)], [Some(5), Some(90)]);
    assert_eq!(limit("--resume r --profile=1", 80), Some(84));
    let unlimited = RunConfig { patience: None, time_limit: None, ..begun.clone() };
    assert_eq!(typed("--resume r --patience none --time-limit none").resumed(&begun, 79).unwrap(), unlimited);
    for words in ["--resume r", "--resume r --quiet", "--resume r --json"] {
        assert_eq!(typed(words).resumed(&begun, 0).unwrap(), begun, "{words}");
    }
}

#[test]
fn what_is_settled_is_refused_beside_resume_and_the_rest_is_not() {
    for words in SETTLED_ROWS.map(|(words, _)| words).into_iter().chain([
        "--experiment resnet-r",
        "--run x",
        "--summary",
        "--find-lr",
    ]) {
        for both in [format!("--resume r {words}"), format!("{words} --resume r")] {
            assert_eq!(parsed(&both).map(|_| ()).unwrap_err().kind(), ErrorKind::ArgumentConflict, "{both}");
        }
    }
    let open = OPEN_ROWS.map(|(words, _)| words);
    for words in open.into_iter().chain(["--data d", "--network resnet50", "--profile", "--json", "--quiet", "-q"]) {
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
