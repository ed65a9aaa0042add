//! A whole training step of the full ResNet-50 at 150×150 on the processor: forward, backward and Adam.
//!
//! ```text
//! cargo bench --bench cpu_step [-- BATCH]        CSV on standard output, 32 images unless told
//! ```

use onesheet::device::cpu::Cpu;
use onesheet::device::{Memory, PixelFormat, Placement};
use onesheet::model::{Batch, Model};
use onesheet::network::{ModelConfig, resnet50};
use onesheet::optim::Adam;
use std::rc::Rc;
use std::time::Instant;

const GENRES: usize = 7;
const STEPS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo passes `--bench`.
    let images = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(32);
    let device = Rc::new(Cpu::new());
    let mut model = Model::new(Rc::clone(&device), ModelConfig::new(resnet50::NETWORK, GENRES), 1)?;
    let mut adam = Adam::new(&*device, model.architecture().weights)?;
    eprintln!("{}", device.name());

    let format = PixelFormat { order: [2, 1, 0], scale: 1.0, shift: [-103.939, -116.779, -123.68] };
    let pixels: Vec<u8> = (0..images * 150 * 150 * 3).map(|i| (i % 251) as u8).collect();
    let labels: Vec<u8> = (0..images * GENRES).map(|i| u8::from(i % 3 == 0)).collect();
    println!("step,batch,seconds,images_per_second,loss");
    for step in 0..STEPS {
        let start = Instant::now();
        let pixels = device.upload_pixels(&pixels, &vec![Placement::default(); images])?;
        let mut batch = Batch::new(&*device, pixels, images, &format, &labels, &[1.0; GENRES])?;
        model.gradients(&mut batch)?;
        batch.set_rate(&device, adam.begin_step(1e-3))?;
        adam.step(&device, model.parameters_mut(), batch.outcome_view(), batch.rate())?;
        let loss = batch.loss(&device)?;
        let seconds = start.elapsed().as_secs_f64();
        println!("{step},{images},{seconds:.3},{:.2},{loss:.4}", images as f64 / seconds);
    }
    Ok(())
}
