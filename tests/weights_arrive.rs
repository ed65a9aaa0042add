//! Weights arrive, from a file of known values to the loss of a run's first step: for each kind of file, and through the tool.

#[path = "support/runs.rs"]
mod runs;

use assert_cmd::cargo::cargo_bin;
use onesheet::data::augmentation::Augmentation;
use onesheet::data::distortion::Distortion;
use onesheet::data::loader::{Batch, Loader};
use onesheet::data::tensor_file::TensorFile;
use onesheet::data::{Split, synthetic};
use onesheet::device::cpu::Cpu;
use onesheet::device::{Memory, PixelFormat};
use onesheet::model::{self, Model};
use onesheet::network::{Architecture, NamedTensor, Trainable};
use onesheet::training::checkpoint::{Checkpoint, Metadata, Progress};
use onesheet::training::config::{Pixels, RunConfig};
use onesheet::training::learner::{Keep, Learner};
use onesheet::training::run_folder::{EpochRow, RunFolder, StepRow, last_checkpoint};
use onesheet::training::start;
use runs::{config, posters, rows, trainer_on};
use safetensors::tensor::{Dtype, TensorView};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// The values of a tensor in the layout of its file. `weights_import/make_fixtures.py` makes the same ones.
fn known(tensor: &NamedTensor) -> Vec<f32> {
    let number = tensor.name.bytes().fold(0, |number, byte| (31 * number + usize::from(byte)) % 65521);
    let is_above_zero = tensor.name.ends_with("/gamma") || tensor.name.ends_with("/moving_variance");
    let from = if is_above_zero { 0.5 } else { -0.5 };
    let len = tensor.shape.iter().product();
    (0..len).map(|at| ((37 * at + number) % 509) as f32 / 512.0 + from).collect()
}

fn in_base(tensor: &NamedTensor) -> bool {
    !tensor.name.starts_with("head_") && !tensor.name.starts_with("genres/")
}

/// A kernel `[K, ...]` from Keras's layout, where K is last.
fn from_keras(tensor: &NamedTensor, values: &[f32]) -> Vec<f32> {
    let filters = tensor.shape[0];
    let rest = values.len() / filters;
    (0..values.len()).map(|at| values[at % rest * filters + at / rest]).collect()
}

/// A kernel `[K, R, S, C]` from PyTorch's layout, `[K, C, R, S]`.
fn from_torch(tensor: &NamedTensor, values: &[f32]) -> Vec<f32> {
    let [k, r, s, c] = tensor.shape[..] else { return values.to_vec() };
    let mut ours = Vec::new();
    for (k, r, s, c) in (0..k * r * s * c).map(|at| (at / (r * s * c), at / (s * c) % r, at / c % s, at % c)) {
        ours.push(values[((k * tensor.shape[3] + c) * tensor.shape[1] + r) * tensor.shape[2] + s]);
    }
    ours
}

/// PyTorch's name of one of our tensors: `layer1.0.downsample.1.weight` of `conv2_block1_0_bn/gamma`.
fn torch_name(name: &str) -> String {
    let (layer, kind) = name.split_once('/').unwrap();
    let kind = match kind {
        "kernel" | "gamma" => "weight",
        "moving_mean" => "running_mean",
        "moving_variance" => "running_var",
        _ => "bias",
    };
    match layer.split('_').collect::<Vec<_>>()[..] {
        ["conv1", family] => format!("{family}1.{kind}"),
        [stage, block, place, family] => {
            let stage = stage.strip_prefix("conv").unwrap().parse::<usize>().unwrap() - 1;
            let block = block.strip_prefix("block").unwrap().parse::<usize>().unwrap() - 1;
            let layer = match (place, family) {
                ("0", "conv") => "downsample.0".to_owned(),
                ("0", _) => "downsample.1".to_owned(),
                _ => format!("{family}{place}"),
            };
            format!("layer{stage}.{block}.{layer}.{kind}")
        }
        _ => panic!("{name}"),
    }
}

/// What becomes of PyTorch's stem, which takes `(x / 255 - mean) / std` of red, green and blue, for a run that feeds it
/// `scale x + shift` in another order: its kernel in our layout, and its bias.
fn adapted(kernel: &[f32], filters: usize, pixels: &PixelFormat) -> (Vec<f32>, Vec<f32>) {
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let (mut taps, mut biases) = (Vec::new(), Vec::new());
    for filter in kernel.chunks(kernel.len() / filters) {
        let mut bias = 0.0f64;
        for (at, c) in (0..filter.len()).map(|at| (at / 3 * 3, at % 3)) {
            let colour = pixels.order[c];
            let tap = f64::from(filter[at + colour]) / (255.0 * std[colour] * pixels.scale);
            bias -= tap * (pixels.shift[c] + pixels.scale * 255.0 * mean[colour]);
            taps.push(tap as f32);
        }
        biases.push(bias as f32);
    }
    (taps, biases)
}

/// Writes `values` over the tensors of `model` that have them.
fn set(model: &mut Model<Cpu>, values: impl Fn(&NamedTensor) -> Option<Vec<f32>>) {
    for tensor in model.architecture().tensors.clone() {
        if let Some(values) = values(&tensor) {
            model.write(&tensor, &values).unwrap();
        }
    }
}

/// A safetensors file of f32 tensors.
fn write(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let bytes: Vec<_> = tensors.iter().map(|(_, _, values)| bytes(values)).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A checkpoint of what `learner` holds, for `genres`.
fn save(learner: &Learner<Cpu>, config: &RunConfig, genres: &[String], keep: Keep, path: &Path) {
    let metadata = Metadata {
        genres: genres.to_vec(),
        thresholds: vec![0.3; genres.len()],
        resize: "area".into(),
        exif: "apply".into(),
        alpha: "drop".into(),
        data_digest: String::new(),
        tuned: None,
        progress: Progress::default(),
        config: config.clone(),
    };
    learner.save(path, &metadata, keep).unwrap();
}

/// The first batch of a run.
fn first_batch(config: &RunConfig) -> Batch {
    let file = Arc::new(TensorFile::open(config.data.as_deref().unwrap()).unwrap());
    let augmentation = if config.augment { Augmentation::FlipShift } else { Augmentation::None };
    let train = file.indices(Split::Train).into();
    Loader::train(file, train, config.batch, config.seed, 0, 0, augmentation, Distortion::default())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
}

fn class_weights(config: &RunConfig) -> Vec<f32> {
    let file = TensorFile::open(config.data.as_deref().unwrap()).unwrap();
    let train = file.indices(Split::Train);
    config.class_weights.weights(&file.class_counts(&train), train.len())
}

/// The loss of `model` in a training step.
fn loss(model: &mut Model<Cpu>, config: &RunConfig) -> f64 {
    let (device, batch) = (Rc::clone(model.device()), first_batch(config));
    let pixels = device.upload_pixels(&batch.pixels, &batch.placements).unwrap();
    let (format, weights) = (config.pixels.format(), class_weights(config));
    let mut batch = model::Batch::new(&*device, pixels, config.batch, &format, &batch.labels, &weights).unwrap();
    model.gradients(&mut batch).unwrap();
    batch.loss(&device).unwrap()
}

fn network(config: &RunConfig) -> Model<Cpu> {
    let genres = synthetic::GENRES.len();
    Model::new(Rc::new(Cpu::fastest()), config.model(genres), config.seed).unwrap()
}

/// Begins a run of `config` from the file at `path`, and compares its network and its first loss with those of `expected`.
fn check(what: &str, path: &Path, config: &RunConfig, mut expected: Model<Cpu>, folder: &Path) {
    let config = RunConfig { weights: Some(path.into()), max_steps: Some(1), ..config.clone() };
    let genres = synthetic::GENRES.map(String::from);
    let weights = start::read(path, &config, &genres).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut trainer = trainer_on(Cpu::fastest(), &config).unwrap();
    start::copy(&weights, trainer.model_mut()).unwrap();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for tensor in &expected.architecture().tensors {
        let (found, wanted) = (trainer.model().read(tensor).unwrap(), expected.read(tensor).unwrap());
        assert!(bits(found) == bits(wanted), "{what}: {}", tensor.name);
    }
    let run = folder.join(format!("run of {what}"));
    let mut folder = RunFolder::create(&run, &config).unwrap();
    trainer.run(&mut folder, &AtomicBool::new(false), &mut |_| {}).unwrap();
    let [row] = rows::<StepRow>(&run.join("steps.csv"))[..] else { panic!("{what}: one step") };
    assert_eq!(row.loss.to_bits(), loss(&mut expected, &config).to_bits(), "{what}");
    assert_ne!(row.loss, loss(&mut network(&config), &config), "{what}: random weights have another loss");
}

#[test]
fn a_run_from_our_own_checkpoint_begins_with_its_weights() {
    let folder = TempDir::new().unwrap();
    let config = config(&posters(folder.path()));
    let all = |tensor: &NamedTensor| Some(known(tensor));
    let base = |tensor: &NamedTensor| in_base(tensor).then(|| known(tensor));
    let genres = synthetic::GENRES.map(String::from);
    let mut others = genres.clone();
    others.swap(0, 1);
    let mut learner = Learner::new(Rc::new(Cpu::fastest()), config.model(genres.len()), 99).unwrap();
    set(learner.model_mut(), all);
    for (what, genres, keep, has_head) in [
        ("a whole checkpoint", &genres, Keep::Everything, true),
        ("a checkpoint without moments", &genres, Keep::Weights, true),
        ("a checkpoint of other genres", &others, Keep::Everything, false),
    ] {
        let path = folder.path().join(what);
        save(&learner, &config, genres, keep, &path);
        let mut expected = network(&config);
        set(&mut expected, if has_head { all } else { base });
        check(what, &path, &config, expected, folder.path());
    }

    let path = folder.path().join("tensors.safetensors");
    let tensors = network(&config).architecture().tensors.clone();
    for (what, has_head) in [("tensors without a checkpoint", true), ("tensors of a base", false)] {
        let held = tensors.iter().filter(|tensor| has_head || in_base(tensor));
        write(
            &path,
            &held.map(|tensor| (tensor.name.clone(), tensor.shape.clone(), known(tensor))).collect::<Vec<_>>(),
        );
        let mut expected = network(&config);
        set(&mut expected, if has_head { all } else { base });
        check(what, &path, &config, expected, folder.path());
    }
}

/// Whatever pixels the run feeds them. Frozen layers have them as well, and there the running averages decide the loss.
#[test]
fn a_run_from_keras_weights_begins_with_them() {
    let folder = TempDir::new().unwrap();
    let base = config(&posters(folder.path()));
    let frozen = RunConfig { trainable: Trainable::Last(10), ..base.clone() };
    let raw = RunConfig { pixels: Pixels::Raw, ..base.clone() };
    for name in ["miniature.h5", "miniature.weights.h5", "miniature_2016.h5"] {
        for (what, config) in [("", &base), (", frozen", &frozen), (", raw", &raw)] {
            let mut expected = network(config);
            set(&mut expected, |tensor| in_base(tensor).then(|| from_keras(tensor, &known(tensor))));
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weights_import").join(name);
            check(&format!("{name}{what}"), &path, config, expected, folder.path());
        }
    }
}

#[test]
fn a_run_from_torch_weights_begins_with_them() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("resnet.safetensors");
    let base = config(&posters(folder.path()));
    let has_counterpart = |tensor: &&NamedTensor| in_base(tensor) && !tensor.name.ends_with("_conv/bias");
    let in_file = |tensor: &NamedTensor| {
        let shape = match tensor.shape[..] {
            [k, r, s, c] => vec![k, c, r, s],
            _ => tensor.shape.clone(),
        };
        (torch_name(&tensor.name), shape, known(tensor))
    };
    let tensors = network(&base).architecture().tensors.clone();
    write(&path, &tensors.iter().filter(has_counterpart).map(in_file).collect::<Vec<_>>());
    for pixels in [Pixels::Imagenet, Pixels::Raw, Pixels::Unit] {
        let config = RunConfig { pixels, ..base.clone() };
        let stem = from_torch(&tensors[0], &known(&tensors[0]));
        let (kernel, bias) = adapted(&stem, tensors[0].shape[0], &pixels.format());
        let mut expected = network(&config);
        set(&mut expected, |tensor| match &*tensor.name {
            "conv1_conv/kernel" => Some(kernel.clone()),
            "conv1_conv/bias" => Some(bias.clone()),
            name if name.ends_with("_conv/bias") => Some(vec![0.0; tensor.shape[0]]),
            _ => in_base(tensor).then(|| from_torch(tensor, &known(tensor))),
        });
        check(&format!("torch weights, {pixels:?}"), &path, &config, expected, folder.path());
    }
}

/// `onesheet` in `folder`; it must end well.
fn onesheet(folder: &Path, words: &str) {
    let mut command = Command::new(cargo_bin("onesheet"));
    let output = command.current_dir(folder).args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

fn saved(run: &Path) -> Checkpoint {
    Checkpoint::open(&last_checkpoint(run)).unwrap()
}

/// A step of `learner` on batch `step` of the first epoch, at a rate that rises over the four steps of it; its loss.
fn take_step(learner: &mut Learner<Cpu>, config: &RunConfig, step: usize) -> f64 {
    let file = Arc::new(TensorFile::open(config.data.as_deref().unwrap()).unwrap());
    let train: Arc<[u32]> = file.indices(Split::Train).into();
    let mut batches =
        Loader::train(file, train, config.batch, config.seed, 0, step, Augmentation::None, Distortion::default())
            .unwrap();
    let batch = batches.next().unwrap().unwrap();
    let pixels = learner.model().device().upload_pixels(&batch.pixels, &batch.placements).unwrap();
    let rate = 1e-3 * (step as f64 + 1.0) / 4.0;
    let (format, weights) = (config.pixels.format(), class_weights(config));
    learner.submit(pixels, config.batch, &format, &batch.labels, &weights, rate).unwrap();
    learner.outcome().unwrap().loss
}

/// And what was logged after the checkpoint that a run goes on from is not in its logs any more.
#[test]
fn the_tool_begins_with_the_weights_it_was_given_and_goes_on_from_those_it_saved() {
    let folder = TempDir::new().unwrap();
    let data: PathBuf = folder.path().join("posters.safetensors");
    synthetic::write(&data, 20, 32, 1).unwrap();
    let config = RunConfig { data: Some(data), batch: 4, image_size: 32, seed: 5, ..RunConfig::default() };
    let genres = synthetic::GENRES.map(String::from);
    let model = config.model(genres.len());
    assert!(Architecture::new(&model).unwrap().total_parameters() > 25_000_000);
    let mut learner = Learner::new(Rc::new(Cpu::fastest()), model, 99).unwrap();
    set(learner.model_mut(), |tensor| (!tensor.name.ends_with("/kernel")).then(|| known(tensor)));
    let mine = folder.path().join("mine.safetensors");
    save(&learner, &config, &genres, Keep::Weights, &mine);

    let same = |learner: &Learner<Cpu>, run: &Path, what: &str| {
        let saved = saved(run);
        for tensor in &learner.model().architecture().tensors {
            assert!(
                saved.values(&tensor.name).unwrap() == learner.model().read(tensor).unwrap(),
                "{what}: {}",
                tensor.name
            );
        }
    };
    let run = folder.path().join("runs/run");
    onesheet(
        folder.path(),
        "train --data posters.safetensors --run run --batch 4 --device cpu --seed 5 --weights mine.safetensors --max-steps 1",
    );
    let first = rows::<StepRow>(&run.join("steps.csv"));
    assert_eq!(first.iter().map(|row| row.loss).collect::<Vec<_>>(), [take_step(&mut learner, &config, 0)]);
    same(&learner, &run, "after the first step");
    // A run asks for room for such checkpoints, and for hardly more.
    for (keep, path) in [(Keep::Weights, mine), (Keep::Everything, last_checkpoint(&run))] {
        let (asked, taken) = (learner.saved_bytes(keep), fs::metadata(path).unwrap().len());
        assert!(asked >= taken && asked - taken <= taken / 100, "{asked} bytes for {taken}");
    }

    // A run that was stopped before it saved anything begins anew, and with the same weights.
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    onesheet(folder.path(), "train --resume run --max-steps 1");
    let begun_anew = rows::<StepRow>(&run.join("steps.csv"));
    assert_eq!((begun_anew.len(), begun_anew[0].loss), (1, first[0].loss));
    same(&learner, &run, "begun anew");

    // As if the run had gone on for an epoch, and been killed before it saved again.
    let (steps, epochs) = (run.join("steps.csv"), run.join("log.csv"));
    let text = fs::read_to_string(&steps).unwrap();
    let row = text.lines().last().unwrap().to_owned();
    fs::write(&steps, (2..=4).fold(text, |text, step| text + &row.replacen('1', &step.to_string(), 1) + "\n")).unwrap();
    assert_eq!(rows::<StepRow>(&steps).len(), 4);
    let header = "epoch,step,train_loss,validation_loss,binary_accuracy,weighted_f1,coin_f1,always_yes_f1,mean_average_precision";
    fs::write(&epochs, format!("{header},learning_rate,seconds\n1,4,.1,.2,.3,.4,.5,.6,.7,.8,.9\n")).unwrap();
    assert_eq!(rows::<EpochRow>(&epochs).len(), 1);
    onesheet(folder.path(), "train --resume run --max-steps 2");
    let second = rows::<StepRow>(&steps);
    assert_eq!(second.len(), 2);
    assert_eq!((second[0], second[1].step), (begun_anew[0], 2));
    assert_eq!(second[1].loss, take_step(&mut learner, &config, 1));
    assert_eq!(rows::<EpochRow>(&epochs), []);
    same(&learner, &run, "after the second step");
}
