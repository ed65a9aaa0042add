//! Trains a network from Rust, on posters drawn in code: `cargo run --release --example train -- FOLDER`.

use onesheet::data::synthetic;
use onesheet::data::tensor_file::TensorFile;
use onesheet::device::cpu::Cpu;
use onesheet::network::shallow;
use onesheet::training::config::RunConfig;
use onesheet::training::run_folder::{RunFolder, best_checkpoint};
use onesheet::training::trainer::{Event, Trainer};
use std::error::Error;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Trains in `folder`, and leaves a run there as `onesheet train` does.
pub fn train(folder: &Path, posters: usize) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    // Or a file that `onesheet prepare` has made.
    let data = folder.join("posters.safetensors");
    synthetic::write(&data, posters, 64, 1)?;
    let config =
        RunConfig { network: shallow::NETWORK, data: Some(data.clone()), epochs: 2, ..RunConfig::demonstration() };
    let mut trainer = Trainer::new(Rc::new(Cpu::fastest()), config.clone(), Arc::new(TensorFile::open(&data)?))?;
    let mut run = RunFolder::create(&folder.join("run"), &config)?;
    let ending = trainer.run(&mut run, &AtomicBool::new(false), &mut |event| {
        if let Event::Epoch { row, best, .. } = event {
            let star = if best { " ★" } else { "" };
            println!("epoch {}: loss {:.4}, mAP {:.4}{star}", row.epoch, row.train_loss, row.mean_average_precision);
        }
    })?;
    println!("{ending:?}: {}", best_checkpoint(run.path()).display());
    Ok(())
}

#[allow(dead_code, reason = "a test takes the function above")]
fn main() -> Result<(), Box<dyn Error>> {
    train(Path::new(&std::env::args().nth(1).unwrap_or("runs/example".into())), 400)
}
