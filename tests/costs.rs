//! What a plan costs.
use onesheet::device::counting::{Counting, Habits};
use onesheet::device::{Memory, Pass, PixelFormat, Placement, Precision};
use onesheet::network::{ModelConfig, resnet50};
use onesheet::training::learner::Learner;
use std::rc::Rc;

#[test]
fn resnet_50() {
    let device = Rc::new(Counting::new(Habits { precision: Precision::Bf16, forms_gradients: true }));
    let mut learner = Learner::new(Rc::clone(&device), ModelConfig::new(resnet50::NETWORK, 7), 0).unwrap();
    let images = 128;
    let pixels = device.upload_pixels(&vec![0; images * 150 * 150 * 3], &[Placement::default(); 128]).unwrap();
    device.measured().unwrap();
    let format = PixelFormat { order: [0, 1, 2], scale: 1.0, shift: [0.0; 3] };
    learner.submit(pixels, images, &format, &[0; 7 * 128], &[1.0; 7], 1e-3).unwrap();
    let all = device.measured().unwrap();
    let mut by: std::collections::BTreeMap<(String, &str), (usize, u64, u64)> = Default::default();
    for m in &all {
        let e = by.entry((m.kernel.to_string(), m.scope.pass.name())).or_default();
        e.0 += 1;
        e.1 += m.work.bytes();
        e.2 += m.work.flops;
    }
    for (k, v) in &by {
        println!("{k:?} {v:?}");
    }
    let total: u64 = all.iter().map(|m| m.work.bytes()).sum();
    let flops: u64 = all.iter().map(|m| m.work.flops).sum();
    println!(
        "{} launches, {:.3} GB, {:.3} TFLOP, peak {:.3} GB",
        all.len(),
        total as f64 / 1e9,
        flops as f64 / 1e12,
        device.most_bytes() as f64 / 1e9
    );
    let _ = Pass::Forward;
}
