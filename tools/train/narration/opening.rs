//! What a run says before it begins.

use crate::console::{Console, program};
use crate::device::described;
use crate::train::Told;
use onesheet::data::Split;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::Device;
use onesheet::files::quoted;
use onesheet::network::summary::thousands;
use onesheet::network::{Architecture, Op, Trainable};
use onesheet::plan::Plan;
use onesheet::plan::cost::{Costs, total};
use onesheet::training::TrainingError;
use onesheet::training::config::{Pixels, RunConfig};
use onesheet::training::dry_run;
use onesheet::training::experiment::{Experiment, TRANSFER_LAYERS};
use onesheet::training::trainer::Trainer;
use std::path::Path;

/// Says what is about to happen.
pub fn open<D: Device>(
    console: Console,
    trainer: &Trainer<D>,
    why: &str,
    free: Option<u64>,
    file: &TensorFile,
    run: &Path,
    told: Told,
) -> Result<(), TrainingError> {
    console.say(text(trainer, why, free, file, run, told)?);
    Ok(())
}

/// Settings, posters, and the memory of the main buffers: a line each, and one for each genre. So many bytes are `free`.
fn text<D: Device>(
    trainer: &Trainer<D>,
    why: &str,
    free: Option<u64>,
    file: &TensorFile,
    run: &Path,
    told: Told,
) -> Result<String, TrainingError> {
    let (config, architecture) = (trainer.config(), trainer.model().architecture());
    let mut text = String::new();
    let mut row = |name: &str, value: String| text += &format!("  {name:<14} {value}\n");
    let count = |split| thousands(file.indices(split).len());
    let [train, validation, test] = Split::ALL.map(count);

    let parameters = thousands(architecture.total_parameters());
    let trainable = thousands(architecture.trainable_parameters());
    row("device", described(&**trainer.model().device(), why));
    if config.gpus > 1 {
        row("", format!("the first of {} GPUs, each with as many of the posters of a step", config.gpus));
    }
    row("experiment", config.experiment.map_or("own settings".into(), |experiment| experiment.name().into()));
    row("posters", format!("{train} to train on, {validation} for validation, {test} for the test; {}", size(file)));
    row(
        "weights",
        config.weights.as_ref().map_or(random_start(config, architecture).into(), |path| path.display().to_string()),
    );
    let trained = format!("{}{}", config.trainable, transfer_note(config, architecture));
    row("layers", format!("trainable {trained}, {} pooling, pixels {}", config.pooling, pixels(config)));
    let steps = trainer.steps_per_epoch();
    let limit = config.max_steps.map_or(String::new(), |limit| format!(", at most {limit} steps in all"));
    row("schedule", format!("{} epochs of {steps} steps of {} posters{limit}", config.epochs, config.posters_a_step()));
    let warmup = match config.warmup_epochs {
        0.0 => String::new(),
        1.0 => ", reached over the first epoch".into(),
        epochs => format!(", reached over the first {epochs} epochs"),
    };
    row("optimiser", format!("Adam, learning rate {}{warmup}; seed {}", config.learning_rate, config.seed));
    if !config.recipe.is_default() {
        row("recipe", config.recipe.to_string());
    }
    row("batch norm", format!("momentum {}{}", config.momentum, momentum_note(config)));
    for (name, counts) in genres(file, trainer.class_weights()) {
        row(&name, counts);
    }
    let costs = trainer.costs()?;
    row("memory", memory(architecture, &costs));
    if let Some(free) = free {
        // What comes from further GPUs needs room, too.
        let arriving = if config.gpus > 1 { 4 * architecture.trainable_parameters() } else { 0 };
        row("", free_of((costs.most_bytes + arriving) as u64, free));
    }
    if config.recompute {
        row("", recomputed(trainer)?);
    }
    row("run", run.display().to_string());
    if told == Told::WhatNext {
        row("go on with", format!("{} train --resume {}", program(), quoted(run)));
    }
    Ok(format!("{}, {parameters} parameters, {trainable} trainable\n{text}", config.network.title))
}

/// How many posters of each split are of a genre, and how much its errors count: a head, and a row a genre.
fn genres(file: &TensorFile, weights: &[f32]) -> Vec<(String, String)> {
    let counts = Split::ALL.map(|split| file.class_counts(&file.indices(split)));
    let longest = file.genres().iter().map(|genre| genre.chars().count()).max().unwrap_or(0).max("genre".len());
    let mut rows = vec![(format!("{:longest$}", "genre"), "   train  validation    test  class weight".to_owned())];
    for (at, (genre, weight)) in file.genres().iter().zip(weights).enumerate() {
        let [train, validation, test] = counts.each_ref().map(|counts| thousands(counts[at] as usize));
        rows.push((format!("{genre:longest$}"), format!("{train:>8}  {validation:>10}  {test:>6}  {weight:>12.2}")));
    }
    rows
}

/// How much memory is free, and what to do if that is too little.
fn free_of(needed: u64, free: u64) -> String {
    let told = format!("{} MiB free", thousands((free >> 20) as usize));
    if needed <= free { told } else { told + ", less than that: a smaller --batch takes less, and so does --recompute" }
}

fn size(file: &TensorFile) -> String {
    format!("{0}×{0}", file.size())
}

fn pixels(config: &RunConfig) -> &'static str {
    match config.pixels {
        Pixels::Raw => "raw (RGB, 0 to 255)",
        Pixels::Imagenet => "imagenet (BGR minus the mean)",
        Pixels::Unit => "unit (RGB, 0 to 1)",
        Pixels::Symmetric => "symmetric (RGB, -1 to 1)",
    }
}

fn random_start(config: &RunConfig, architecture: &Architecture) -> &'static str {
    let has_blocks = architecture.layers.iter().any(|layer| matches!(layer.op, Op::BatchNorm { ends_block: true, .. }));
    if config.zero_init_residual && has_blocks { "random, residual blocks start as the identity" } else { "random" }
}

/// Why transfer freezes nothing, where that is so.
fn transfer_note(config: &RunConfig, architecture: &Architecture) -> String {
    let transfers = config.experiment.is_some_and(Experiment::transfers) && config.trainable == Trainable::All;
    match architecture.base_layers {
        layers if transfers && layers <= TRANSFER_LAYERS => {
            format!(" (the base has {layers} layers; freeze some with --trainable)")
        }
        _ => String::new(),
    }
}

fn momentum_note(config: &RunConfig) -> &'static str {
    match config.data {
        None if config.momentum < 0.99 => ", for at Keras's 0.99 the averages would lag behind so short a run",
        _ => "",
    }
}

/// What a step takes at most, and the main parts of it. A device's workspaces come on top.
fn memory(architecture: &Architecture, costs: &Costs) -> String {
    let mebibytes = |bytes: usize| bytes.div_ceil(1 << 20);
    let weights = architecture.weights.len();
    format!(
        "{} MiB at most: weights {} MiB, gradients {} MiB, Adam {} MiB, kept for the backward pass {} MiB",
        mebibytes(costs.most_bytes),
        mebibytes(4 * architecture.total_parameters()),
        mebibytes(4 * weights),
        mebibytes(8 * weights),
        mebibytes(costs.kept()),
    )
}

/// What computing values again saves and costs.
fn recomputed<D: Device>(trainer: &Trainer<D>) -> Result<String, TrainingError> {
    let (config, model) = (trainer.config(), trainer.model());
    let plan = Plan::new(model.architecture(), config.momentum)?;
    let kept = dry_run::costs_of(model.config(), model.device().habits(), config.batch, plan, &config.recipe)?;
    let again = trainer.costs()?;
    let flops = |costs: &Costs| total(costs.launches()).flops as f64;
    let more = 100.0 * (flops(&again) / flops(&kept) - 1.0);
    let saved = kept.most_bytes.saturating_sub(again.most_bytes) >> 20;
    Ok(format!("{saved} MiB less than without --recompute, for {more:.0} % more FLOPs"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::data::tensor_file::{Description, TensorFileWriter};
    use onesheet::device::Memory;
    use onesheet::device::Precision;
    use onesheet::device::counting::Habits;
    use onesheet::device::cpu::Cpu;
    use onesheet::network::{ModelConfig, resnet50, vgg16};
    use onesheet::ops::pool::Pooling;
    use std::rc::Rc;
    use std::sync::Arc;
    use tempfile::TempDir;

    /// Ten posters to train on, three for validation and two for the test. Of five genres the first has one training poster, the
    /// second two, and so on.
    fn posters(folder: &TempDir) -> Arc<TensorFile> {
        let path = folder.path().join("posters.safetensors");
        let genres = ["War", "Drama", "Crime", "Music", "Western"].map(String::from).to_vec();
        let description = Description { size: 32, genres, capacity: 15, provenance: Default::default() };
        let mut writer = TensorFileWriter::create(&path, description).unwrap();
        for number in 0..15 {
            let split = Split::ALL[usize::from(number >= 10) + usize::from(number >= 13)];
            let labels: Vec<u8> = (0..5).map(|genre| u8::from(number <= genre)).collect();
            writer.push(&number.to_string(), &[number; 32 * 32 * 3], &labels, split).unwrap();
        }
        writer.finish().unwrap();
        Arc::new(TensorFile::open(&path).unwrap())
    }

    fn told(config: &RunConfig, file: &Arc<TensorFile>) -> String {
        let trainer = Trainer::new(Rc::new(Cpu::new()), config.clone(), Arc::clone(file)).unwrap();
        text(&trainer, "--device cpu", Some(3000 << 20), file, Path::new("runs/a b"), Told::WhatNext).unwrap()
    }

    #[test]
    fn a_run_opens_with_its_settings() {
        let folder = TempDir::new().unwrap();
        let file = posters(&folder);
        let config = RunConfig {
            network: resnet50::MINIATURE,
            data: Some("posters.safetensors".into()),
            batch: 4,
            image_size: 32,
            epochs: 7,
            seed: 11,
            ..RunConfig::default()
        };
        let architecture = Architecture::new(&config.model(5)).unwrap();
        let (total, trainable) = (architecture.total_parameters(), architecture.trainable_parameters());
        assert!(1000 < trainable && trainable < total && total < 1_000_000, "{trainable} of {total}");
        let grouped = |number: usize| format!("{},{:03}", number / 1000, number % 1000);
        let expected = format!(
            "a miniature of ResNet-50, {} parameters, {} trainable
  device         {}; --device cpu
  experiment     own settings
  posters        10 to train on, 3 for validation, 2 for the test; 32×32
  weights        random, residual blocks start as the identity
  layers         trainable all, avg pooling, pixels imagenet (BGR minus the mean)
  schedule       7 epochs of 2 steps of 4 posters
  optimiser      Adam, learning rate 0.001, reached over the first epoch; seed 11
  batch norm     momentum 0.99
  genre             train  validation    test  class weight
  War                   1           0       0          2.00
  Drama                 2           0       0          1.00
  Crime                 3           0       0          0.67
  Music                 4           0       0          0.50
  Western               5           0       0          0.40
  memory         {}
                 3,000 MiB free
  run            runs/a b
  go on with     {} train --resume 'runs/a b'
",
            grouped(total),
            grouped(trainable),
            Cpu::new().name(),
            memory(
                &architecture,
                &dry_run::costs(&config.model(5), Habits::Processor(Precision::F32), 4, &[]).unwrap()
            ),
            program(),
        );
        assert_eq!(told(&config, &file), expected);
    }

    /// Each setting changes its own line and no other.
    #[test]
    fn each_setting_has_its_line() {
        let folder = TempDir::new().unwrap();
        let file = posters(&folder);
        let data = Some("posters.safetensors".into());
        let base = RunConfig { network: resnet50::MINIATURE, data, batch: 4, image_size: 32, ..RunConfig::default() };
        let before = told(&base, &file);
        type Change = fn(&mut RunConfig);
        let lag = "momentum 0.5, for at Keras's 0.99 the averages would lag behind so short a run";
        for (change, expected) in [
            ((|config| config.experiment = Some(Experiment::ResnetR)) as Change, "experiment     resnet-r"),
            (|config| config.weights = Some("a b.h5".into()), "weights        a b.h5"),
            (|config| config.zero_init_residual = false, "weights        random"),
            (
                |config| config.pixels = Pixels::Raw,
                "layers         trainable all, avg pooling, pixels raw (RGB, 0 to 255)",
            ),
            (
                |config| config.pixels = Pixels::Unit,
                "layers         trainable all, avg pooling, pixels unit (RGB, 0 to 1)",
            ),
            (
                |config| config.pooling = Pooling::Max,
                "layers         trainable all, max pooling, pixels imagenet (BGR minus the mean)",
            ),
            (|config| config.epochs = 3, "schedule       3 epochs of 2 steps of 4 posters"),
            (
                |config| config.max_steps = Some(9),
                "schedule       20 epochs of 2 steps of 4 posters, at most 9 steps in all",
            ),
            (|config| config.warmup_epochs = 0.0, "optimiser      Adam, learning rate 0.001; seed 0"),
            (
                |config| config.warmup_epochs = 2.5,
                "optimiser      Adam, learning rate 0.001, reached over the first 2.5 epochs; seed 0",
            ),
            (
                |config| config.learning_rate = 3e-4,
                "optimiser      Adam, learning rate 0.0003, reached over the first epoch; seed 0",
            ),
            (
                |config| config.seed = 5,
                "optimiser      Adam, learning rate 0.001, reached over the first epoch; seed 5",
            ),
            (|config| config.momentum = 0.5, "batch norm     momentum 0.5"),
            (|config| (config.momentum, config.data) = (0.5, None), &format!("batch norm     {lag}")),
        ] {
            let mut config = base.clone();
            change(&mut config);
            let after = told(&config, &file);
            let changed: Vec<&str> = after
                .lines()
                .zip(before.lines())
                .filter(|(after, before)| after != before)
                .map(|line| line.0)
                .collect();
            assert_eq!(changed, [format!("  {expected}")]);
        }
        let again = RunConfig { recompute: true, ..base.clone() };
        let told_again = told(&again, &file);
        let line = told_again.lines().find(|line| line.contains(" MiB less than without --recompute, for ")).unwrap();
        assert!(line.ends_with(" % more FLOPs"), "{line}");
        assert_eq!(told_again.lines().count(), before.lines().count() + 1);
        // At Keras's momentum there is nothing to explain.
        assert_eq!(told(&RunConfig { data: None, ..base.clone() }, &file), before);
        let frozen = told(&RunConfig { trainable: Trainable::Last(3), ..base.clone() }, &file);
        assert!(frozen.contains("  layers         trainable last:3, avg pooling,"), "{frozen}");

        // A base of fewer layers than transfer trains.
        let base = RunConfig { network: vgg16::MINIATURE, experiment: Some(Experiment::Transfer), ..base };
        let transfer = |trainable| RunConfig { trainable, ..base.clone() };
        let whole = told(&transfer(Trainable::All), &file);
        let layers = Architecture::new(&base.model(7)).unwrap().base_layers;
        let note = format!("trainable all (the base has {layers} layers; freeze some with --trainable), avg pooling,");
        assert!(whole.contains(&note), "{whole}");
        assert!(!told(&transfer(Trainable::Last(3)), &file).contains("freeze"));
    }

    #[test]
    fn memory_that_is_too_little_comes_with_what_to_do() {
        assert_eq!(free_of(5 << 20, 5 << 20), "5 MiB free");
        let told = "1,234 MiB free, less than that: a smaller --batch takes less, and so does --recompute";
        assert_eq!(free_of((1234 << 20) + 1, 1234 << 20), told);
    }

    /// Summed up by hand from the published table of ResNet-50 at 150×150: 7,772,019 values of a poster are kept, and beside them a
    /// scale and a shift, a mean and a deviation for each of 26,560 channels.
    #[test]
    fn the_memory_of_the_main_buffers_is_resnet_50s() {
        let config = ModelConfig::new(resnet50::NETWORK, 7);
        let architecture = Architecture::new(&config).unwrap();
        for (batch, kept) in [(1, 31), (16, 475)] {
            let said =
                memory(&architecture, &dry_run::costs(&config, Habits::Processor(Precision::F32), batch, &[]).unwrap());
            let parts = "weights 99 MiB, gradients 99 MiB, Adam 197 MiB, kept for the backward pass";
            assert!(said.ends_with(&format!("{parts} {kept} MiB")), "{said}");
            let most: usize = said.split(' ').next().unwrap().parse().unwrap();
            // Each part is rounded up.
            assert!((95 + 99 + 197 + kept..2 * (99 + 99 + 197 + kept)).contains(&most), "{said}");
        }
    }
}
