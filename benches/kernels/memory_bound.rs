//! The kernels that are bound by memory: input, batch norm, junctions, pooling; the head, the loss and the optimiser.

use super::Measurement;
use super::convolutions::{numbers, tensor};
use super::copies::{Copies, copied};
use super::layers::planned;
use super::report::{Report, Subject};
use onesheet::device::adam::OUTCOME;
use onesheet::device::cuda::Cuda;
use onesheet::device::{
    Activation, AdamConstants, AdamKernels, AdamStep, BatchNormBackwardFinalise, BatchNormConstants, BatchNormFinalise,
    BatchNormKernels, BceForwardBackward, DenseBackwardData, DenseBackwardWeights, DenseForward, DenseKernels,
    DenseShape, DeviceError, GlobalAveragePoolBackward, GlobalPoolForward, GlobalPoolShape, ImageKernels, ImageShape,
    InputTransform, LossKernels, LossShape, Masked, MaxPoolBackward, MaxPoolForward, Memory, Outside, PixelFormat,
    Placement, PoolKernels, PoolShape, Projection, ReluBackward, ResidualBackward, ResidualForward, Rows, SquaredNorm,
    Storage,
};
use onesheet::network::Network;
use onesheet::ops::batch_norm::BatchNorm;
use onesheet::ops::dense::Dense;
use onesheet::plan::{Step, Work};
use onesheet::tensor::Tensor;

const GENRES: usize = 7;

/// A tensor of so many numbers.
fn filled(device: &Cuda, seed: u64, len: usize, storage: Storage) -> anyhow::Result<Tensor<Cuda>> {
    Ok(tensor(device, &numbers(seed, len), storage)?)
}

fn measurement(
    name: impl Into<String>,
    measure: impl FnOnce(&mut Report, &str) -> anyhow::Result<()> + 'static,
) -> Measurement {
    let name = name.into();
    Measurement { name: name.clone(), measure: Box::new(move |report| measure(report, &name)) }
}

/// All of them, equal junctions together.
pub fn all(network: Network, batch: usize, image_size: usize) -> anyhow::Result<Vec<Measurement>> {
    let (architecture, plan) = planned(network, image_size);
    let steps = plan.steps();
    // Pixels of all images, and channels.
    let rows = |layer: usize| {
        let [pixels @ .., channels] = &architecture.layers[layer].output[..] else {
            unreachable!("a layer has channels")
        };
        Rows { rows: batch * pixels.iter().product::<usize>(), channels: *channels }
    };
    // What a layer's value still owes.
    let owed = |layer: usize| match steps.iter().find(|step| step.output() == layer)?.work {
        Work::ConvNorm { norm: BatchNorm { activation, .. }, .. } | Work::Activation(activation) => Some(activation),
        _ => None,
    };
    let normalised = |layer: usize| owed(layer) == Some(Activation::Linear);
    let projects = |step: &Step| step.inputs.iter().all(|&input| normalised(input));
    let joins = |step: &&Step| {
        matches!(step.work, Work::Add | Work::Junction) && step.inputs.iter().any(|&input| normalised(input))
    };
    let junctions = || steps.iter().filter(joins);

    let mut all = vec![measurement("input", move |report, name| input(report, name, batch, image_size))];
    let mut seen = Vec::new();
    for step in steps {
        let (name, shape) = (architecture.layers[step.output()].name.clone(), rows(step.output()));
        let from = step.inputs.first().map_or(&[][..], |&input| &architecture.layers[input].output);
        match (step.work, from) {
            (Work::MaxPool { window, stride, pad, outside }, &[h, w, c]) => {
                let pool = PoolShape::new([batch, h, w, c], window, stride, pad, outside)?;
                let owed = owed(step.inputs[0]);
                all.push(measurement(name, move |report, name| max_pool(report, name, owed, &pool)));
            }
            _ if joins(&step) && !seen.contains(&(shape, projects(step), step.work)) => {
                let (projected, relu) = (projects(step), step.work == Work::Junction);
                seen.push((shape, projected, step.work));
                let same = |other: &&Step| rows(other.output()) == shape;
                let like = |other: &&Step| projects(other) == projected && other.work == step.work;
                let count = junctions().filter(same).filter(like).count();
                let norms = steps.iter().filter(same).filter(|other| normalised(other.output())).count();
                all.push(measurement(name, move |report, name| {
                    junction(report, name, count, [projected, relu], shape)?;
                    if projected { finalise(report, name, norms, shape) } else { Ok(()) }
                }));
            }
            (Work::GlobalPool(_), &[h, w, c]) => {
                let shape = GlobalPoolShape { n: batch, pixels: h * w, c };
                all.push(measurement(name, move |report, name| global_pool(report, name, shape)));
            }
            (Work::Dense(Dense { inputs, outputs, .. }), _) => {
                let shape = DenseShape { n: batch, inputs, outputs };
                all.push(measurement(name, move |report, name| dense(report, name, shape)));
            }
            _ => {}
        }
    }
    let parameters = architecture.weights.len();
    all.push(measurement("loss", move |report, name| loss(report, name, LossShape { n: batch, classes: GENRES })));
    all.push(measurement("squared_norm", move |report, name| squared_norm(report, name, parameters)));
    all.push(measurement("adam", move |report, name| adam(report, name, parameters)));
    Ok(all)
}

fn subject(layer: &str, count: usize, pass: &'static str, shape: String) -> Subject {
    Subject { layer: layer.into(), count, pass, shape }
}

/// A batch of posters and room for it as the network's input.
struct Input {
    bytes: Vec<u8>,
    placements: Vec<Placement>,
    pixels: <Cuda as Memory>::Pixels,
    x: Tensor<Cuda>,
}

impl Input {
    fn new(device: &Cuda, bytes: Vec<u8>, placements: Vec<Placement>) -> Result<Self, DeviceError> {
        let pixels = device.upload_pixels(&bytes, &placements)?;
        let x = Tensor::new(device, [bytes.len()], Storage::Activation)?;
        Ok(Input { bytes, placements, pixels, x })
    }
}

fn input(report: &mut Report, name: &str, n: usize, size: usize) -> anyhow::Result<()> {
    let (device, shape) = (report.device(), ImageShape { n, size });
    let format = PixelFormat { order: [2, 1, 0], scale: 1.0, shift: [-103.939, -116.779, -123.68] };
    let bytes: Vec<u8> = (0..shape.len()).map(|i| (i % 251) as u8).collect();
    let placements: Vec<Placement> = (0..n).map(|i| Placement { flip: i % 2 == 1, shift_y: 2, shift_x: -3 }).collect();
    let first = Input::new(&device, bytes, placements)?;
    let mut inputs = Copies::new(first, |device, from| Input::new(device, from.bytes.clone(), from.placements.clone()));
    let subject = subject(name, 1, "image_forward", format!("{n}x{size}x{size}x3"));
    report.line(subject, None, &mut inputs, |device, Input { pixels, x, .. }| {
        device.image_forward(x.view_mut(), pixels, &format, &shape)
    })
}

fn max_pool(report: &mut Report, name: &str, owed: Option<Activation>, shape: &PoolShape) -> anyhow::Result<()> {
    let device = report.device();
    let mut tensors = Copies::of([
        filled(&device, 1, shape.input_len(), Storage::Activation)?,
        filled(&device, 2, shape.output_len(), Storage::Activation)?,
        filled(&device, 3, 4 * shape.c, Storage::Full)?,
        Tensor::new(&device, [shape.output_len()], Storage::Activation)?,
        Tensor::new(&device, [shape.input_len()], Storage::Activation)?,
    ]);
    let PoolShape { window, stride, .. } = shape;
    let same = if shape.outside == Outside::Nothing { " same" } else { "" };
    let extents = format!("{}x{}x{}x{} {window}x{window}/{stride}{same}", shape.n, shape.h, shape.w, shape.c);
    report.line(
        subject(name, 1, "max_pool_forward", extents.clone()),
        None,
        &mut tensors,
        |device, [x, _, norm, y, _]| {
            let transform = owed.map(|activation| InputTransform { norm: norm.view(), activation });
            device.max_pool_forward(MaxPoolForward { y: y.view_mut(), x: x.view(), transform }, shape)
        },
    )?;
    report.line(subject(name, 1, "max_pool_backward", extents), None, &mut tensors, |device, [x, dy, norm, _, dx]| {
        let transform = owed.map(|activation| InputTransform { norm: norm.view(), activation });
        let operands = MaxPoolBackward { dx: dx.view_mut(), dy: dy.view(), x: x.view(), transform };
        device.max_pool_backward(operands, shape)
    })
}

/// A stage's junctions, with a projection or without one, and with a ReLU behind them or without one.
fn junction(
    report: &mut Report,
    name: &str,
    count: usize,
    [projected, relu]: [bool; 2],
    shape: Rows,
) -> anyhow::Result<()> {
    let device = report.device();
    let Rows { rows, channels } = shape;
    let full = |seed, rows: usize| filled(&device, seed, rows * channels, Storage::Full);
    let y = filled(&device, 1, shape.len(), Storage::Activation)?;
    let [shortcut, dout, out, dz] = [(); 4].map(|()| copied(&device, &y));
    let mut tensors =
        Copies::of([y, shortcut?, dout?, out?, dz?, full(4, 4)?, full(5, 4)?, full(12, 2)?, full(13, 2)?]);
    let subject = |pass| subject(name, count, pass, format!("{rows}x{channels}"));
    report.line(
        subject("residual_forward"),
        None,
        &mut tensors,
        |device, [y, shortcut, _, out, _, norm, other, ..]| {
            let operands = ResidualForward {
                out: out.view_mut(),
                y: y.view(),
                norm: norm.view(),
                shortcut: shortcut.view(),
                shortcut_norm: projected.then(|| other.view()),
                relu,
            };
            device.residual_forward(operands, shape)
        },
    )?;
    report.line(
        subject("residual_backward"),
        None,
        &mut tensors,
        |device, [y, shortcut, dout, out, dz, norm, other, sums, other_sums]| {
            let projection = Projection { sums: other_sums.view_mut(), y: shortcut.view(), norm: other.view() };
            let operands = ResidualBackward {
                masked: relu.then(|| Masked { dz: dz.view_mut(), out: out.view() }),
                sums: sums.view_mut(),
                dout: dout.view(),
                y: y.view(),
                norm: norm.view(),
                projection: projected.then_some(projection),
            };
            device.residual_backward(operands, shape)
        },
    )
}

/// The small kernels of a stage's batch norms.
fn finalise(report: &mut Report, name: &str, count: usize, shape: Rows) -> anyhow::Result<()> {
    let device = report.device();
    let Rows { rows, channels } = shape;
    let full = |seed, rows: usize| filled(&device, seed, rows * channels, Storage::Full);
    let (gamma, beta) = (full(6, 1)?, full(7, 1)?);
    let extents = format!("{rows}x{channels}");
    let stats = tensor(&device, &vec![1.0; 2 * channels], Storage::Full)?;
    let mut tensors = Copies::of([copied(&device, &gamma)?, beta, stats, full(8, 1)?, full(9, 1)?, full(16, 4)?]);
    report.line(
        subject(name, count, "batch_norm_finalise", extents.clone()),
        None,
        &mut tensors,
        |device, [gamma, beta, stats, mean, variance, norm]| {
            let constants = BatchNormConstants { momentum: 0.99, epsilon: 1.001e-5 };
            let operands = BatchNormFinalise {
                norm: norm.view_mut(),
                running_mean: mean.view_mut(),
                running_variance: variance.view_mut(),
                stats: stats.view(),
                gamma: gamma.view(),
                beta: beta.view(),
                bias: None,
            };
            device.batch_norm_finalise(operands, channels, constants)
        },
    )?;
    let mut tensors = Copies::of([gamma, full(4, 4)?, full(12, 2)?, full(10, 1)?, full(11, 1)?, full(17, 3)?]);
    report.line(
        subject(name, count, "batch_norm_backward_finalise", extents),
        None,
        &mut tensors,
        |device, [gamma, norm, sums, dgamma, dbeta, k]| {
            let operands = BatchNormBackwardFinalise {
                k: k.view_mut(),
                dgamma: dgamma.view_mut(),
                dbeta: dbeta.view_mut(),
                sums: sums.view(),
                gamma: gamma.view(),
                norm: norm.view(),
            };
            device.batch_norm_backward_finalise(operands, shape)
        },
    )
}

fn global_pool(report: &mut Report, name: &str, shape: GlobalPoolShape) -> anyhow::Result<()> {
    let device = report.device();
    let mut tensors = Copies::of([
        filled(&device, 1, shape.input_len(), Storage::Activation)?,
        filled(&device, 2, shape.output_len(), Storage::Full)?,
        Tensor::new(&device, [shape.output_len()], Storage::Full)?,
        Tensor::new(&device, [shape.input_len()], Storage::Activation)?,
    ]);
    let subject = |pass| subject(name, 1, pass, format!("{}x{}x{}", shape.n, shape.pixels, shape.c));
    report.line(subject("global_average_pool_forward"), None, &mut tensors, |device, [x, _, y, _]| {
        device.global_average_pool_forward(GlobalPoolForward { y: y.view_mut(), x: x.view() }, &shape)
    })?;
    report.line(subject("global_average_pool_backward"), None, &mut tensors, |device, [_, dy, _, dx]| {
        device.global_average_pool_backward(GlobalAveragePoolBackward { dx: dx.view_mut(), dy: dy.view() }, &shape)
    })
}

fn dense(report: &mut Report, name: &str, shape: DenseShape) -> anyhow::Result<()> {
    let device = report.device();
    let DenseShape { n, inputs, outputs } = shape;
    let full = |seed, len| filled(&device, seed, len, Storage::Full);
    let (x, dz) = (full(1, n * inputs)?, full(4, n * outputs)?);
    let (w, dw) = (full(2, outputs * inputs)?, full(7, outputs * inputs)?);
    let (b, db) = (full(3, outputs)?, full(8, outputs)?);
    let (dx, y, masked) = (copied(&device, &x)?, copied(&device, &dz)?, copied(&device, &dz)?);
    let mut tensors = Copies::of([x, w, b, dz, y, dx, dw, db, masked]);
    let subject = |pass| subject(name, 1, pass, format!("{n}x{inputs} {outputs}"));
    report.line(subject("dense_forward"), None, &mut tensors, |device, [x, w, b, _, y, ..]| {
        let operands = DenseForward { y: y.view_mut(), relu: true, x: x.view(), w: w.view(), b: b.view() };
        device.dense_forward(operands, &shape)
    })?;
    report.line(subject("dense_backward_data"), None, &mut tensors, |device, [_, w, _, dz, _, dx, ..]| {
        device.dense_backward_data(DenseBackwardData { dx: dx.view_mut(), dz: dz.view(), w: w.view() }, &shape)
    })?;
    report.line(subject("dense_backward_weights"), None, &mut tensors, |device, [x, _, _, dz, _, _, dw, db, _]| {
        let (dw, db) = (dw.view_mut(), db.view_mut());
        device.dense_backward_weights(DenseBackwardWeights { dw, db, dz: dz.view(), x: x.view() }, &shape)
    })?;
    report.line(subject("relu_backward"), None, &mut tensors, |device, [_, _, _, dz, y, _, _, _, masked]| {
        device.relu_backward(ReluBackward { dz: masked.view_mut(), dy: dz.view(), y: y.view() })
    })
}

fn loss(report: &mut Report, name: &str, shape: LossShape) -> anyhow::Result<()> {
    let device = report.device();
    let terms = shape.n * shape.classes;
    let targets: Vec<f32> = (0..terms).map(|i| f32::from((i as u8).is_multiple_of(3))).collect();
    let mut tensors = Copies::of([
        filled(&device, 1, terms, Storage::Full)?,
        tensor(&device, &targets, Storage::Full)?,
        tensor(&device, &[1.0; GENRES], Storage::Full)?,
        Tensor::new(&device, [1], Storage::Full)?,
        Tensor::new(&device, [terms], Storage::Full)?,
    ]);
    let subject = subject(name, 1, "bce_forward_backward", format!("{}x{}", shape.n, shape.classes));
    report.line(subject, None, &mut tensors, |device, [logits, targets, weights, loss, dlogits]| {
        let operands = BceForwardBackward {
            loss: loss.view_mut(),
            dlogits: dlogits.view_mut(),
            logits: logits.view(),
            targets: targets.view(),
            weights: weights.view(),
        };
        device.bce_forward_backward(operands, &shape)
    })
}

/// As many parameters; a sixteenth of them where each takes a while.
fn measured(report: &Report, parameters: usize) -> usize {
    if report.is_simulated() { parameters / 16 } else { parameters }
}

fn squared_norm(report: &mut Report, name: &str, parameters: usize) -> anyhow::Result<()> {
    let (device, parameters) = (report.device(), measured(report, parameters));
    let gradients = filled(&device, 1, parameters, Storage::Full)?;
    let mut tensors = Copies::of([gradients, Tensor::new(&device, [1], Storage::Full)?]);
    let subject = subject(name, 1, "squared_norm", parameters.to_string());
    report.line(subject, None, &mut tensors, |device, [gradients, sum]| {
        device.squared_norm(SquaredNorm { sum: sum.view_mut(), x: gradients.view() })
    })
}

fn adam(report: &mut Report, name: &str, parameters: usize) -> anyhow::Result<()> {
    let (device, parameters) = (report.device(), measured(report, parameters));
    let m = filled(&device, 2, parameters, Storage::Full)?;
    let gradients = copied(&device, &m)?;
    let mut v = Tensor::new(&device, [parameters], Storage::Full)?;
    device.fill(v.view_mut(), 1.0)?;
    let mut tensors = Copies::of([
        filled(&device, 1, parameters, Storage::Weights)?,
        m,
        v,
        gradients,
        tensor(&device, &[1.0; OUTCOME], Storage::Full)?,
        tensor(&device, &[1e-6, 0.0], Storage::Full)?,
    ]);
    let subject = subject(name, 1, "adam", parameters.to_string());
    report.line(subject, None, &mut tensors, |device, [w, m, v, gradients, outcome, rates]| {
        let operands = AdamStep {
            w: w.view_mut(),
            m: m.view_mut(),
            v: v.view_mut(),
            gradients: gradients.view(),
            decaying: None,
            outcome: outcome.view(),
            rates: rates.view(),
        };
        device.adam(operands, &AdamConstants::default())
    })
}
