//! The kernels that are bound by memory: input, batch norm, junctions, pooling; the head, the loss and the optimiser.

use super::convolutions::{numbers, tensor};
use super::report::{Report, Subject};
use onesheet::device::cuda::Cuda;
use onesheet::device::{
    AdamConstants, AdamKernels, BatchNormConstants, BatchNormKernels, DenseKernels, DenseShape, GlobalPoolShape,
    ImageKernels, ImageShape, InputTransform, LossKernels, LossShape, Memory, PixelFormat, Placement, PoolKernels,
    PoolShape, ReduceEpilogue, Rows, Storage,
};
use onesheet::model::{Architecture, ModelConfig};
use onesheet::tensor::Tensor;

const GENRES: usize = 7;

/// A tensor of so many numbers.
fn filled(device: &Cuda, seed: u64, len: usize, storage: Storage) -> anyhow::Result<Tensor<Cuda>> {
    Ok(tensor(device, &numbers(seed, len), storage)?)
}

/// Measures all of them.
pub fn all(report: &mut Report, batch: usize, image_size: usize) -> anyhow::Result<()> {
    let stem = image_size.div_ceil(2);
    let pool = PoolShape::new([batch, stem, stem, 64], 3, 2, 1)?;
    input(report, batch, image_size)?;
    max_pool(report, &pool)?;
    let mut side = pool.p;
    for (stage, (channels, blocks)) in [(256, 3), (512, 4), (1024, 6), (2048, 3)].into_iter().enumerate() {
        side = if stage == 0 { side } else { side.div_ceil(2) };
        let shape = Rows { rows: batch * side * side, channels };
        junctions(report, &format!("conv{}", stage + 2), blocks, shape)?;
    }
    global_pool(report, GlobalPoolShape { n: batch, pixels: side * side, c: 2048 })?;
    for (name, inputs, outputs) in [("head_1024", 2048, 1024), ("head_128", 1024, 128), ("genres", 128, GENRES)] {
        dense(report, name, DenseShape { n: batch, inputs, outputs })?;
    }
    loss(report, LossShape { n: batch, classes: GENRES })?;
    adam(report)
}

fn subject(layer: &str, count: usize, pass: &'static str, shape: String) -> Subject {
    Subject { layer: layer.into(), count, pass, shape }
}

fn input(report: &mut Report, n: usize, size: usize) -> anyhow::Result<()> {
    if !report.wants("input") {
        return Ok(());
    }
    let (device, shape) = (report.device(), ImageShape { n, size });
    let format = PixelFormat { order: [2, 1, 0], scale: 1.0, shift: [-103.939, -116.779, -123.68] };
    let bytes: Vec<u8> = (0..shape.len()).map(|i| (i % 251) as u8).collect();
    let placements: Vec<Placement> = (0..n).map(|i| Placement { flip: i % 2 == 1, shift_y: 2, shift_x: -3 }).collect();
    let pixels = device.upload_pixels(&bytes, &placements)?;
    let mut x = Tensor::new(&device, [shape.len()], Storage::Activation)?;
    let subject = subject("input", 1, "image_forward", format!("{n}x{size}x{size}x3"));
    report.line(subject, None, |device| device.image_forward(x.view_mut(), &pixels, &format, &shape))
}

fn max_pool(report: &mut Report, shape: &PoolShape) -> anyhow::Result<()> {
    if !report.wants("pool1_pool") {
        return Ok(());
    }
    let device = report.device();
    let x = filled(&device, 1, shape.input_len(), Storage::Activation)?;
    let dy = filled(&device, 2, shape.output_len(), Storage::Activation)?;
    let norm = filled(&device, 3, 4 * shape.c, Storage::Full)?;
    let mut y = Tensor::new(&device, [shape.output_len()], Storage::Activation)?;
    let mut dx = Tensor::new(&device, [shape.input_len()], Storage::Activation)?;
    let transform = Some(InputTransform { norm: norm.view() });
    let extents = format!("{}x{}x{}x{} 3x3/2", shape.n, shape.h, shape.w, shape.c);
    report.line(subject("pool1_pool", 1, "max_pool_forward", extents.clone()), None, |device| {
        device.max_pool_forward(y.view_mut(), x.view(), transform, shape)
    })?;
    report.line(subject("pool1_pool", 1, "max_pool_backward", extents), None, |device| {
        device.max_pool_backward(dx.view_mut(), dy.view(), x.view(), transform, shape)
    })
}

/// A stage's junctions, of which the first has a projection, and the small kernels of their batch norms.
fn junctions(report: &mut Report, stage: &str, blocks: usize, shape: Rows) -> anyhow::Result<()> {
    let names = [format!("{stage}_block1_out"), format!("{stage}_block2_out")];
    let device = report.device();
    let Rows { rows, channels } = shape;
    let extents = format!("{rows}x{channels}");
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let activation = |seed| filled(&device, seed, shape.len(), Storage::Activation);
    let full = |seed, rows: usize| filled(&device, seed, rows * channels, Storage::Full);
    let (y, shortcut, dout) = (activation(1)?, activation(2)?, activation(3)?);
    let (norm, other, stats) = (full(4, 4)?, full(5, 4)?, tensor(&device, &vec![1.0; 2 * channels], Storage::Full)?);
    let (gamma, beta) = (full(6, 1)?, full(7, 1)?);
    let [mut mean, mut variance, mut dgamma, mut dbeta] = [full(8, 1)?, full(9, 1)?, full(10, 1)?, full(11, 1)?];
    let [mut sums, mut other_sums] = [full(12, 2)?, full(13, 2)?];
    let (mut out, mut dz) = (activation(14)?, activation(15)?);
    let (mut new_norm, mut k) = (full(16, 4)?, full(17, 3)?);

    for (name, count, projected) in [(&names[0], 1, true), (&names[1], blocks - 1, false)] {
        let shortcut_norm = projected.then(|| other.view());
        report.line(subject(name, count, "residual_forward", extents.clone()), None, |device| {
            device.residual_forward(out.view_mut(), y.view(), norm.view(), shortcut.view(), shortcut_norm, shape)
        })?;
        report.line(subject(name, count, "residual_backward", extents.clone()), None, |device| {
            let sums_of_shortcut = other_sums.view_mut();
            let projection =
                projected.then(|| ReduceEpilogue { sums: sums_of_shortcut, y: shortcut.view(), norm: other.view() });
            let (dz, sums) = (dz.view_mut(), sums.view_mut());
            device.residual_backward(dz, sums, dout.view(), out.view(), y.view(), norm.view(), projection, shape)
        })?;
    }
    report.line(subject(&names[0], blocks + 1, "batch_norm_finalise", extents.clone()), None, |device| {
        let constants = BatchNormConstants { momentum: 0.99, epsilon: 1.001e-5 };
        let (norm, mean, variance) = (new_norm.view_mut(), mean.view_mut(), variance.view_mut());
        let (gamma, beta) = (gamma.view(), beta.view());
        device.batch_norm_finalise(norm, mean, variance, stats.view(), gamma, beta, None, channels, constants)
    })?;
    report.line(subject(&names[0], blocks + 1, "batch_norm_backward_finalise", extents), None, |device| {
        let (k, dgamma, dbeta) = (k.view_mut(), dgamma.view_mut(), dbeta.view_mut());
        device.batch_norm_backward_finalise(k, dgamma, dbeta, sums.view(), gamma.view(), norm.view(), shape)
    })
}

fn global_pool(report: &mut Report, shape: GlobalPoolShape) -> anyhow::Result<()> {
    if !report.wants("avg_pool") {
        return Ok(());
    }
    let device = report.device();
    let x = filled(&device, 1, shape.input_len(), Storage::Activation)?;
    let dy = filled(&device, 2, shape.output_len(), Storage::Full)?;
    let mut y = Tensor::new(&device, [shape.output_len()], Storage::Full)?;
    let mut dx = Tensor::new(&device, [shape.input_len()], Storage::Activation)?;
    let extents = format!("{}x{}x{}", shape.n, shape.pixels, shape.c);
    report.line(subject("avg_pool", 1, "global_average_pool_forward", extents.clone()), None, |device| {
        device.global_average_pool_forward(y.view_mut(), x.view(), &shape)
    })?;
    report.line(subject("avg_pool", 1, "global_average_pool_backward", extents), None, |device| {
        device.global_average_pool_backward(dx.view_mut(), dy.view(), &shape)
    })
}

fn dense(report: &mut Report, name: &str, shape: DenseShape) -> anyhow::Result<()> {
    if !report.wants(name) {
        return Ok(());
    }
    let device = report.device();
    let DenseShape { n, inputs, outputs } = shape;
    let full = |seed, len| filled(&device, seed, len, Storage::Full);
    let (x, w, b, dz) = (full(1, n * inputs)?, full(2, outputs * inputs)?, full(3, outputs)?, full(4, n * outputs)?);
    let (mut y, mut dx) = (full(5, n * outputs)?, full(6, n * inputs)?);
    let (mut dw, mut db) = (full(7, outputs * inputs)?, full(8, outputs)?);
    let mut masked = full(9, n * outputs)?;
    let subject = |pass| subject(name, 1, pass, format!("{n}x{inputs} {outputs}"));
    report.line(subject("dense_forward"), None, |device| {
        device.dense_forward(y.view_mut(), x.view(), w.view(), b.view(), true, &shape)
    })?;
    report.line(subject("dense_backward_data"), None, |device| {
        device.dense_backward_data(dx.view_mut(), dz.view(), w.view(), &shape)
    })?;
    report.line(subject("dense_backward_weights"), None, |device| {
        device.dense_backward_weights(dw.view_mut(), db.view_mut(), dz.view(), x.view(), &shape)
    })?;
    report.line(subject("relu_backward"), None, |device| device.relu_backward(masked.view_mut(), dz.view(), y.view()))
}

fn loss(report: &mut Report, shape: LossShape) -> anyhow::Result<()> {
    if !report.wants("loss") {
        return Ok(());
    }
    let device = report.device();
    let terms = shape.n * shape.classes;
    let logits = filled(&device, 1, terms, Storage::Full)?;
    let targets: Vec<f32> = (0..terms).map(|i| f32::from((i as u8).is_multiple_of(3))).collect();
    let (targets, weights) =
        (tensor(&device, &targets, Storage::Full)?, tensor(&device, &[1.0; GENRES], Storage::Full)?);
    let (mut loss, mut dlogits) =
        (Tensor::new(&device, [1], Storage::Full)?, Tensor::new(&device, [terms], Storage::Full)?);
    let subject = subject("loss", 1, "bce_forward_backward", format!("{}x{}", shape.n, shape.classes));
    report.line(subject, None, |device| {
        let (loss, dlogits) = (loss.view_mut(), dlogits.view_mut());
        device.bce_forward_backward(loss, dlogits, logits.view(), targets.view(), weights.view(), &shape)
    })
}

fn adam(report: &mut Report) -> anyhow::Result<()> {
    if !report.wants("adam") {
        return Ok(());
    }
    let device = report.device();
    // All parameters of the network; a sixteenth of them where each takes a while.
    let parameters = Architecture::new(&ModelConfig::resnet50(GENRES))?.weights.len();
    let parameters = if report.is_simulated() { parameters / 16 } else { parameters };
    let mut w = filled(&device, 1, parameters, Storage::Weights)?;
    let (mut m, gradients) =
        (filled(&device, 2, parameters, Storage::Full)?, filled(&device, 3, parameters, Storage::Full)?);
    let mut v = tensor(&device, &vec![1.0; parameters], Storage::Full)?;
    let (loss, rate) = (tensor(&device, &[1.0], Storage::Full)?, tensor(&device, &[1e-6], Storage::Full)?);
    report.line(subject("adam", 1, "adam", parameters.to_string()), None, |device| {
        let (w, m, v) = (w.view_mut(), m.view_mut(), v.view_mut());
        device.adam(w, m, v, gradients.view(), loss.view(), rate.view(), &AdamConstants::default())
    })
}
