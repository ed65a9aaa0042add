//! A whole training step of the full ResNet-50 at 150×150 on the processor: forward, backward and Adam.
//!
//! ```text
//! cargo bench --bench cpu_step [-- BATCH]        CSV on standard output, 32 images unless told
//! ```

use onesheet::device::cpu::Cpu;
use onesheet::device::{Memory, PixelFormat, Placement};
use onesheet::model::{Model, ModelConfig, Posters};
use onesheet::optim::adam::{Adam, AdamConfig};
use std::rc::Rc;
use std::time::Instant;

const GENRES: usize = 7;
const STEPS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo passes `--bench`.
    let batch = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(32);
    let device = Rc::new(Cpu::new());
    let mut model = Model::new(Rc::clone(&device), ModelConfig::resnet50(GENRES), 1)?;
    let mut adam = Adam::new(&*device, model.architecture().weights, AdamConfig::default())?;
    eprintln!("{}", device.name());

    let format = PixelFormat { order: [2, 1, 0], scale: 1.0, shift: [-103.939, -116.779, -123.68] };
    let pixels: Vec<u8> = (0..batch * 150 * 150 * 3).map(|i| (i % 251) as u8).collect();
    let labels: Vec<u8> = (0..batch * GENRES).map(|i| u8::from(i % 3 == 0)).collect();
    let posters = Posters { pixels: &pixels, placements: &vec![Placement::default(); batch], format: &format };
    println!("step,batch,seconds,images_per_second,loss");
    for step in 0..STEPS {
        let start = Instant::now();
        let loss = model.train_step(posters, &labels, &[1.0; GENRES])?;
        adam.step(&device, model.parameters_mut(), 1e-3)?;
        let seconds = start.elapsed().as_secs_f64();
        println!("{step},{batch},{seconds:.3},{:.2},{loss:.4}", batch as f64 / seconds);
    }
    Ok(())
}
