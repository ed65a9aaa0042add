//! A network of one's own, as a list of layers: `cargo run --release --example custom_network`.
//!
//! Everything else follows from the list: parameters, initial values, the summary, which layers are computed together, gradients. A network
//! that the command line and its checkpoints are to know is a file in `src/network/`; docs/adding-a-network.md says how.

use onesheet::data::synthetic;
use onesheet::device::cpu::Cpu;
use onesheet::device::{DeviceError, Memory, Placement};
use onesheet::network::summary::Summary;
use onesheet::network::{Architecture, Builder, Convolution, ModelConfig, Network, Value, shallow};
use onesheet::training::config::Pixels;
use onesheet::training::learner::Learner;
use std::error::Error;
use std::rc::Rc;

/// Three convolutions, each with a batch norm and a ReLU behind it; the second and the third halve the image.
const NETWORK: Network = Network { name: "mine", title: "a network of my own", base, head: &[32], ..shallow::NETWORK };

fn base(net: &mut Builder) -> Result<Value, DeviceError> {
    let mut x = net.input();
    for (number, (filters, stride)) in [(16, 1), (32, 2), (64, 2)].into_iter().enumerate() {
        let convolution = Convolution { filters, window: 3, stride, pad: 1.into(), bias: false };
        x = net.conv(&format!("conv{number}"), x, convolution)?;
        x = net.batch_norm(&format!("bn{number}"), x, 1e-3)?;
        x = net.relu(&format!("relu{number}"), x)?;
    }
    Ok(x)
}

/// Prints the layers, takes some steps on one batch of drawn posters, and gives their losses.
pub fn learn(steps: usize) -> Result<Vec<f64>, Box<dyn Error>> {
    const POSTERS: usize = 16;
    let config = ModelConfig { image_size: 32, ..ModelConfig::new(NETWORK, synthetic::GENRES.len()) };
    println!("{}", Summary(&Architecture::new(&config)?));
    let drawn = (0..POSTERS as u32).map(|index| synthetic::draw(1, index, config.image_size));
    let (pixels, labels): (Vec<_>, Vec<_>) = drawn.unzip();
    let (pixels, labels) = (pixels.concat(), labels.concat());
    let class_weights = [1.0; synthetic::GENRES.len()];
    let device = Rc::new(Cpu::fastest());
    let mut learner = Learner::new(Rc::clone(&device), config, 7)?;
    let mut losses = Vec::new();
    for _ in 0..steps {
        let pixels = device.upload_pixels(&pixels, &[Placement::default(); POSTERS])?;
        learner.submit(pixels, POSTERS, &Pixels::Unit.format(), &labels, &class_weights, 1e-3)?;
        losses.push(learner.outcome()?.loss);
    }
    Ok(losses)
}

#[allow(dead_code, reason = "a test takes the function above")]
fn main() -> Result<(), Box<dyn Error>> {
    for (step, loss) in learn(20)?.iter().enumerate() {
        println!("step {:>2}: loss {loss:.4}", step + 1);
    }
    Ok(())
}
