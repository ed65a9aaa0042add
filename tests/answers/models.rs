//! Two models in one run folder that have nothing in common but their genres: neither pixels, nor pooling, nor thresholds, nor
//! the way in which posters become squares. Their answers differ from poster to poster and from each other.

use onesheet::data::Split;
use onesheet::data::synthetic;
use onesheet::data::tensor_file::{Description, TensorFile, TensorFileWriter};
use onesheet::device::Placement;
use onesheet::device::cpu::Cpu;
use onesheet::model::{Model, Posters};
use onesheet::ops::pool::Pooling;
use onesheet::training::checkpoint::{Checkpoint, Metadata, Progress};
use onesheet::training::config::{Pixels, RunConfig};
use onesheet::training::learner::{self, Keep, Learner};
use onesheet::training::run_folder::{best_checkpoint, last_checkpoint};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;

/// Their order is nobody's: neither the alphabet's, nor that of posters drawn in code.
pub const GENRES: [&str; 5] = ["Western", "Drama", "Musical", "Action", "Crime"];

/// The side of a poster as the network sees it.
pub const SIDE: usize = 32;

/// Posters that `infer` is asked about, before they are squares.
pub const POSTERS: usize = 23;

/// A folder with a run of two checkpoints, the posters that they were trained on, and others.
pub struct Bench {
    pub folder: PathBuf,
}

impl Bench {
    pub fn run(&self) -> PathBuf {
        self.folder.join("runs/two")
    }

    /// The posters that the best checkpoint names as its own.
    pub fn named(&self) -> PathBuf {
        self.folder.join("named.safetensors")
    }

    /// The posters of the run's own folder, which the last checkpoint, that names none, has.
    pub fn own(&self) -> PathBuf {
        self.run().join("posters.safetensors")
    }

    /// Posters that only `--data` leads to.
    pub fn other(&self) -> PathBuf {
        self.folder.join("other.safetensors")
    }

    pub fn best(&self) -> Loaded {
        Loaded::open(&best_checkpoint(&self.run()))
    }

    pub fn last(&self) -> Loaded {
        Loaded::open(&last_checkpoint(&self.run()))
    }
}

/// Made once: nothing drops a static, so it lies in Cargo's folder for tests.
pub fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("answers");
        let _ = fs::remove_dir_all(&folder);
        let bench = Bench { folder };
        fs::create_dir_all(best_checkpoint(&bench.run()).parent().unwrap()).unwrap();
        make(&bench);
        bench
    })
}

fn make(bench: &Bench) {
    let config = |pixels, pooling, data| RunConfig { pixels, pooling, data, image_size: SIDE, ..RunConfig::default() };
    let progress = |epoch, best| Progress { epoch, step: 0, total_steps: 100, best, ..Progress::default() };
    let genres = GENRES.map(String::from).to_vec();
    let best = Metadata {
        genres: genres.clone(),
        thresholds: vec![0.5; 5],
        resize: "nearest".into(),
        exif: "ignore".into(),
        alpha: "white".into(),
        data_digest: String::new(),
        tuned: None,
        progress: progress(3, Some(0.75)),
        config: config(Pixels::Unit, Pooling::Max, Some(bench.named())),
    };
    let last = Metadata {
        thresholds: vec![0.35, 0.6, 0.45, 0.7, 0.25],
        resize: "area".into(),
        exif: "apply".into(),
        alpha: "drop".into(),
        progress: progress(8, Some(0.75)),
        config: config(Pixels::Imagenet, Pooling::Average, None),
        ..best.clone()
    };
    let [mut best, last] = [(best, 5), (last, 6)].map(|(metadata, seed)| (learner(&metadata, seed), metadata));

    // What is true of the posters is what the best model says of them, but for a few; so it beats both baselines, and the last
    // model, which says something else, does not.
    let labels = |poster: u32, pixels: &[u8]| -> Vec<u8> {
        let answers = probabilities(best.0.model(), pixels, Pixels::Unit);
        let label = |(genre, p): (usize, &f32)| u8::from((*p >= 0.5) ^ (poster as usize + genre).is_multiple_of(7));
        answers.iter().enumerate().map(label).collect()
    };
    write_posters(&bench.named(), 70, 1, ["nearest", "ignore", "white"], labels);
    write_posters(&bench.own(), 30, 2, ["area", "apply", "drop"], labels);
    write_posters(&bench.other(), 25, 3, ["nearest", "apply", "white"], labels);

    // Some thresholds are exactly the probability of a poster, the others the next number above one: two of posters that are files,
    // two of test posters.
    crate::infer::draw_posters(&bench.folder);
    let squares = crate::infer::squares(&bench.folder, &best.1);
    let of_files = crate::infer::answers(best.0.model(), &squares, Pixels::Unit).concat();
    let file = TensorFile::open(&bench.named()).unwrap();
    let of_posters = ask(best.0.model(), &file, &file.indices(Split::Test), 32, Pixels::Unit).probabilities;
    best.1.thresholds = vec![
        f64::from(nearest(&of_files, 0, 0.35)),
        f64::from(nearest(&of_files, 1, 0.6).next_up()),
        f64::from(nearest(&of_posters, 2, 0.45)),
        f64::from(nearest(&of_posters, 3, 0.55).next_up()),
        0.3125,
    ];
    for ((learner, metadata), path) in [(best, best_checkpoint(&bench.run())), (last, last_checkpoint(&bench.run()))] {
        learner.save(&path, &metadata, Keep::Weights).unwrap();
    }
}

/// The probability of `genre` that is nearest to `wanted`.
fn nearest(probabilities: &[f32], genre: usize, wanted: f32) -> f32 {
    let column = probabilities.iter().skip(genre).step_by(GENRES.len()).copied();
    column.min_by(|a, b| (a - wanted).abs().total_cmp(&(b - wanted).abs())).unwrap()
}

/// A network of random weights whose last layer is scaled so that the logits of drawn posters have the mean 0 and the deviation 2.
fn learner(metadata: &Metadata, seed: u64) -> Learner<Cpu> {
    let config = metadata.config.model(GENRES.len());
    let mut learner = Learner::new(Rc::new(Cpu::fastest()), config, seed).unwrap();
    let pixels: Vec<u8> = (0..24).flat_map(|index| synthetic::draw(9, index, SIDE).0).collect();
    let placements = [Placement::default(); 24];
    let format = metadata.config.pixels.format();
    let model = learner.model_mut();
    let posters = Posters { pixels: &pixels, placements: &placements, format: &format };
    let logits = model.logits(posters).unwrap().to_host(&**model.device()).unwrap();
    let [kernel, bias] = ["genres/kernel", "genres/bias"].map(|name| {
        let tensors = &model.architecture().tensors;
        tensors.iter().find(|tensor| tensor.name == name).unwrap().clone()
    });
    let (mut weights, mut shifts) = (model.read(&kernel).unwrap(), model.read(&bias).unwrap());
    let inputs = weights.len() / GENRES.len();
    for genre in 0..GENRES.len() {
        let column = || logits.iter().skip(genre).step_by(GENRES.len()).map(|&logit| f64::from(logit));
        let mean = column().sum::<f64>() / 24.0;
        let deviation = (column().map(|logit| (logit - mean).powi(2)).sum::<f64>() / 24.0).sqrt();
        let scale = 2.0 / deviation;
        weights[genre * inputs..][..inputs].iter_mut().for_each(|weight| *weight *= scale as f32);
        shifts[genre] = (-scale * mean) as f32;
    }
    model.write(&kernel, &weights).unwrap();
    model.write(&bias, &shifts).unwrap();
    learner
}

/// Posters in splits of different sizes that lie between each other: of ten, three are to train on, two for validation, and five
/// for the test. Musicals are for the others: the validation has none.
fn write_posters(path: &Path, count: u32, seed: u64, made: [&str; 3], labels: impl Fn(u32, &[u8]) -> Vec<u8>) {
    let genres = GENRES.map(String::from).to_vec();
    let provenance = ["resize", "exif", "alpha"].into_iter().zip(made);
    let provenance = provenance.map(|(key, name)| (key.to_owned(), name.to_owned())).collect();
    let description = Description { size: SIDE, genres, capacity: count as usize, provenance };
    let mut writer = TensorFileWriter::create(path, description).unwrap();
    for poster in 0..count {
        let (pixels, _) = synthetic::draw(seed, poster, SIDE);
        let split = [1, 2, 2, 0, 2, 1, 0, 2, 2, 0][poster as usize % 10];
        let split = Split::ALL[split];
        let mut labels = labels(poster, &pixels);
        if split == Split::Validation {
            labels[2] = 0;
        }
        writer.push(&format!("film-{poster}"), &pixels, &labels, split).unwrap();
    }
    writer.finish().unwrap();
}

/// A checkpoint and the model in it.
pub struct Loaded {
    pub metadata: Metadata,
    pub model: Model<Cpu>,
}

impl Loaded {
    fn open(path: &Path) -> Loaded {
        let checkpoint = Checkpoint::open(path).unwrap();
        let model = learner::load(Rc::new(Cpu::fastest()), &checkpoint).unwrap();
        Loaded { metadata: checkpoint.metadata().clone(), model }
    }
}

/// What `model` says of posters `[N, SIDE, SIDE, 3]`.
pub fn probabilities(model: &Model<Cpu>, pixels: &[u8], convention: Pixels) -> Vec<f32> {
    let placements = vec![Placement::default(); pixels.len() / (SIDE * SIDE * 3)];
    model.predict(Posters { pixels, placements: &placements, format: &convention.format() }).unwrap()
}

/// What a model says of posters of a file, and what is true.
pub struct Asked {
    pub loss: f64,
    pub probabilities: Vec<f32>,
    pub targets: Vec<u8>,
}

/// Asks `model` about `posters` of `file`, `batch` at a time.
pub fn ask(model: &Model<Cpu>, file: &TensorFile, posters: &[u32], batch: usize, convention: Pixels) -> Asked {
    let (mut probabilities, mut targets) = (Vec::new(), Vec::new());
    for chunk in posters.chunks(batch) {
        let pixels: Vec<u8> =
            chunk.iter().flat_map(|&poster| file.image_checked(poster as usize).unwrap().into_owned()).collect();
        probabilities.extend(self::probabilities(model, &pixels, convention));
        targets.extend(chunk.iter().flat_map(|&poster| file.labels(poster as usize)));
    }
    // Binary cross-entropy by its definition.
    let term = |(&p, &target): (&f32, &u8)| -f64::from(if target == 1 { p } else { 1.0 - p }).ln();
    let loss = probabilities.iter().zip(&targets).map(term).sum::<f64>() / probabilities.len() as f64;
    Asked { loss, probabilities, targets }
}
