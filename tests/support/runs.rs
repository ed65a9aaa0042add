//! Whole runs of a miniature network, for tests that stop them, kill them, or damage what they left.

#![allow(dead_code, reason = "each test file takes what it needs")]

use onesheet::data::synthetic;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::Device;
use onesheet::device::cpu::Cpu;
use onesheet::network::resnet50;
use onesheet::training::TrainingError;
use onesheet::training::config::RunConfig;
use onesheet::training::run_folder::{EpochRow, Resumed, RunFolder, StepRow, best_checkpoint, last_checkpoint};
use onesheet::training::trainer::{Ending, Trainer};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// 80 posters, 64 of them to train on: 8 steps an epoch.
pub fn posters(folder: &Path) -> PathBuf {
    let path = folder.join("posters.safetensors");
    synthetic::write(&path, 80, 32, 7).unwrap();
    path
}

pub fn config(posters: &Path) -> RunConfig {
    RunConfig {
        network: resnet50::MINIATURE,
        data: Some(posters.into()),
        batch: 8,
        epochs: 2,
        image_size: 32,
        augment: true,
        momentum: 0.9,
        seed: 3,
        ..RunConfig::default()
    }
}

pub fn trainer(config: &RunConfig) -> Result<Trainer<Cpu>, TrainingError> {
    trainer_on(Cpu::new(), config)
}

pub fn trainer_on<D: Device>(device: D, config: &RunConfig) -> Result<Trainer<D>, TrainingError> {
    let file = TensorFile::open(config.data.as_deref().unwrap()).unwrap();
    Trainer::new(Rc::new(device), config.clone(), Arc::new(file))
}

/// The run in `path` taken up again with `config`.
pub fn resumed(config: &RunConfig, path: &Path) -> Result<(Trainer<Cpu>, RunFolder), TrainingError> {
    resumed_on(Cpu::new(), config, path)
}

pub fn resumed_on<D: Device>(
    device: D,
    config: &RunConfig,
    path: &Path,
) -> Result<(Trainer<D>, RunFolder), TrainingError> {
    let Resumed { mut folder, checkpoint, .. } = RunFolder::resume(path)?;
    let checkpoint = checkpoint.expect("a run that has saved");
    let file = Arc::new(TensorFile::open(config.data.as_deref().unwrap()).unwrap());
    let trainer = Trainer::resume(Rc::new(device), config.clone(), file, &checkpoint)?;
    folder.cut_back(&checkpoint.metadata().progress)?;
    Ok((trainer, folder))
}

/// A run from beginning to end, or to its step limit.
pub fn begin(config: &RunConfig, path: &Path) -> Ending {
    begin_on(Cpu::new(), config, path)
}

pub fn begin_on<D: Device>(device: D, config: &RunConfig, path: &Path) -> Ending {
    let mut folder = RunFolder::create(path, config).unwrap();
    let mut trainer = trainer_on(device, config).unwrap();
    trainer.run(&mut folder, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

pub fn go_on(config: &RunConfig, path: &Path) -> Ending {
    finish_on(Cpu::new(), config, path)
}

pub fn finish_on<D: Device>(device: D, config: &RunConfig, path: &Path) -> Ending {
    let (mut trainer, mut folder) = resumed_on(device, config, path).unwrap();
    trainer.run(&mut folder, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

pub fn rows<R: serde::de::DeserializeOwned>(path: &Path) -> Vec<R> {
    csv::Reader::from_path(path).unwrap().deserialize().collect::<Result<_, _>>().unwrap()
}

/// Everything a run leaves behind but the time it took.
pub fn remains(path: &Path) -> (Vec<u8>, Vec<u8>, Vec<StepRow>, Vec<EpochRow>) {
    let mut steps: Vec<StepRow> = rows(&path.join("steps.csv"));
    steps.iter_mut().for_each(|row| row.images_per_second = 0.0);
    let mut epochs: Vec<EpochRow> = rows(&path.join("log.csv"));
    epochs.iter_mut().for_each(|row| row.seconds = 0.0);
    (fs::read(last_checkpoint(path)).unwrap(), fs::read(best_checkpoint(path)).unwrap(), steps, epochs)
}
