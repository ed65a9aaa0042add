//! A network that only answers: filters with their batch norms folded in, made ready once, and memory that every call finds again.

use super::{Posters, on_host};
use crate::device::{
    BatchNormApply, Device, DeviceError, Foldable, FoldedForward, FoldedShape, GlobalPoolForward, GlobalPoolShape,
    ImageShape, MaxPoolForward, Pass, PoolShape, Real, ResidualForward, Rows, Storage,
};
use crate::network::{Architecture, ModelConfig, Place};
use crate::ops::loss;
use crate::ops::pool::Pooling;
use crate::plan::Plan;
use crate::plan::fold::{Folded, FoldedStep, FoldedWork, Room, Trained};
use crate::tensor::Tensor;
use std::borrow::Cow;
use std::rc::Rc;

/// Most posters that go through the network together: what lies between two layers then fits a processor's last cache.
const GROUP: usize = 16;

/// A network ready to answer, on a device that [folds](crate::device::FoldedKernels::folds).
pub struct Predictor<D: Device> {
    device: Rc<D>,
    image_size: usize,
    genres: usize,
    steps: Vec<Ready<D>>,
    rooms: Vec<Room>,
    /// Their memory, for so many images. It is away while a step writes it.
    buffers: Vec<Option<D::Buffer>>,
    images: usize,
}

/// A step, and what it needs at hand.
struct Ready<D: Device> {
    step: FoldedStep,
    name: String,
    /// Of a convolution.
    filters: Option<D::Folded>,
    /// The `norm [4, C]` that changes nothing, of an activation or a sum by itself.
    identity: Option<Tensor<D>>,
}

impl<D: Device> Predictor<D> {
    /// A network whose tensors are what `read` says. What it answers about a poster does not depend on how many are asked about at a time.
    ///
    /// # Errors
    /// The device's and `read`'s, and [`DeviceError::Shape`] if there is something in the network that cannot be folded.
    pub fn new<'a, R: Real, E: From<DeviceError>>(
        device: Rc<D>,
        architecture: &Architecture,
        config: &ModelConfig,
        read: impl Fn(Place) -> Result<Cow<'a, [R]>, E>,
    ) -> Result<Self, E> {
        let plan = Plan::new(architecture, config.momentum)?;
        let Folded { steps, rooms } = Folded::new(&plan, &architecture.layers)?;
        let ready = |step: FoldedStep| -> Result<Ready<D>, E> {
            let filters = match step.work {
                FoldedWork::Conv { weights, shape, .. } => {
                    Some(fold(&*device, weights, shape, step.value.storage, &read)?)
                }
                _ => None,
            };
            let identity = match step.work {
                FoldedWork::Activation { channels, .. } | FoldedWork::Sum { channels, .. } => {
                    let mut norm = vec![D::Real::default(); 4 * channels];
                    norm[..channels].fill(D::Real::from_f64(1.0));
                    Some(Tensor::from_host(&*device, [4, channels], &norm)?)
                }
                _ => None,
            };
            Ok(Ready { name: architecture.layers[step.layer].name.clone(), step, filters, identity })
        };
        Ok(Predictor {
            steps: steps.into_iter().map(ready).collect::<Result<_, E>>()?,
            device: Rc::clone(&device),
            image_size: config.image_size,
            genres: config.genres,
            buffers: rooms.iter().map(|_| None).collect(),
            rooms,
            images: 0,
        })
    }

    /// The probabilities `[N, C]`.
    ///
    /// # Errors
    /// The device's, and [`DeviceError::Length`] if there are not as many pixels as the posters have.
    pub fn predict(&mut self, posters: Posters<'_>) -> Result<Vec<f32>, DeviceError> {
        let logits = self.logits(posters)?;
        on_host(&*self.device, &loss::sigmoid(&*self.device, &logits)?)
    }

    /// The logits `[N, C]`.
    ///
    /// # Errors
    /// As for [`predict`](Self::predict).
    pub fn logits(&mut self, posters: Posters<'_>) -> Result<Tensor<D>, DeviceError> {
        let Posters { pixels, placements, .. } = posters;
        let mut logits = Tensor::new(&*self.device, [placements.len(), self.genres], Storage::Full)?;
        let mut rest = logits.view_mut();
        let bytes = 3 * self.image_size * self.image_size;
        for (at, placements) in placements.chunks(GROUP).enumerate() {
            let first = (at * GROUP * bytes).min(pixels.len());
            let is_last = (at + 1) * GROUP >= posters.placements.len();
            let end = if is_last { pixels.len() } else { (first + GROUP * bytes).min(pixels.len()) };
            let group = Posters { pixels: &pixels[first..end], placements, ..posters };
            let (own, behind) = D::split_mut(rest, placements.len() * self.genres);
            rest = behind;
            self.group(group, own)?;
        }
        drop(rest);
        Ok(logits)
    }

    /// The logits of a group of posters.
    fn group(&mut self, posters: Posters<'_>, logits: D::ViewMut<'_>) -> Result<(), DeviceError> {
        let images = posters.placements.len();
        if images > self.images {
            for (buffer, room) in self.buffers.iter_mut().zip(&self.rooms) {
                // The old one goes first: a larger one may take its memory.
                *buffer = None;
                *buffer = Some(self.device.allocate(images * room.len, room.storage)?);
            }
            self.images = images;
        }
        for ready in &self.steps {
            self.device.enter(&ready.name, Pass::Forward);
            let buffer = &mut self.buffers[ready.step.writes];
            let mut out = buffer.take().expect("a room is in its place between two steps");
            let computed = ready.compute(&*self.device, &self.buffers, &mut out, posters, self.image_size);
            self.buffers[ready.step.writes] = Some(out);
            computed?;
        }
        let last = &self.steps[self.steps.len() - 1].step;
        let room = self.buffers[last.writes].as_ref().expect("every step has put its room back");
        self.device.copy(logits, D::view(room, 0..images * last.value.len))
    }
}

impl<D: Device> Ready<D> {
    /// Leaves the step's value in `out`.
    fn compute(
        &self,
        device: &D,
        rooms: &[Option<D::Buffer>],
        out: &mut D::Buffer,
        posters: Posters<'_>,
        image_size: usize,
    ) -> Result<(), DeviceError> {
        let n = posters.placements.len();
        let Ready { step, filters, identity, .. } = self;
        let y = D::view_mut(out, 0..n * step.value.len);
        let input = |at: usize, len: usize| {
            let room = rooms[step.reads[at]].as_ref().expect("a step reads no room that it writes");
            D::view(room, 0..len)
        };
        let identity = || identity.as_ref().expect("made for this step").view();
        match step.work {
            FoldedWork::Images => {
                let pixels = device.upload_pixels(posters.pixels, posters.placements)?;
                device.image_forward(y, &pixels, posters.format, &ImageShape { n, size: image_size })
            }
            FoldedWork::Conv { shape, accumulate, activation, .. } => {
                let shape = shape.of(n);
                let filters = filters.as_ref().expect("made ready for this step");
                let operands = FoldedForward { y, accumulate, x: input(0, shape.input_len()), filters, activation };
                device.folded_forward(operands, &shape)
            }
            FoldedWork::MaxPool(shape) => {
                let shape = PoolShape { n, ..shape };
                let operands = MaxPoolForward { y, x: input(0, shape.input_len()), transform: None };
                device.max_pool_forward(operands, &shape)
            }
            FoldedWork::GlobalPool(pooling, shape) => {
                let shape = GlobalPoolShape { n, ..shape };
                let operands = GlobalPoolForward { y, x: input(0, shape.input_len()) };
                match pooling {
                    Pooling::Average => device.global_average_pool_forward(operands, &shape),
                    Pooling::Max => device.global_max_pool_forward(operands, &shape),
                }
            }
            FoldedWork::Activation { activation, channels } => {
                let rows = Rows { rows: n * step.value.len / channels, channels };
                let operands = BatchNormApply { a: y, y: input(0, rows.len()), norm: identity(), activation };
                device.batch_norm_apply(operands, rows)
            }
            FoldedWork::Sum { relu, channels } => {
                let rows = Rows { rows: n * step.value.len / channels, channels };
                let operands = ResidualForward {
                    out: y,
                    y: input(0, rows.len()),
                    norm: identity(),
                    shortcut: input(1, rows.len()),
                    shortcut_norm: None,
                    relu,
                };
                device.residual_forward(operands, rows)
            }
        }
    }
}

/// Folds a batch norm, if there is one, into its convolution: `w' = w·γ/√(σ² + ε)`, and `β + (bias − μ)·γ/√(σ² + ε)` behind.
fn fold<'a, D: Device, R: Real, E: From<DeviceError>>(
    device: &D,
    Trained { kernel, bias, norm }: Trained,
    shape: FoldedShape,
    storage: Storage,
    read: &impl Fn(Place) -> Result<Cow<'a, [R]>, E>,
) -> Result<D::Folded, E> {
    let row = |place: Place| -> Result<Vec<f64>, E> { Ok(read(place)?.iter().map(|&x| x.into()).collect()) };
    let channels = shape.channels();
    let bias = bias.or(norm.and_then(|norm| norm.bias));
    let mut behind = bias.map_or_else(|| Ok(vec![0.0; channels]), |bias| row(Place::Weights(bias)))?;
    let mut scale = vec![1.0; channels];
    if let Some(norm) = norm {
        let [gamma, beta] = [norm.gamma, norm.beta].map(|span| row(Place::Weights(span)));
        let [mean, variance] = [norm.mean, norm.variance].map(|span| row(Place::Averages(span)));
        let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
        for c in 0..channels {
            scale[c] = gamma[c] / (variance[c] + norm.constants.epsilon).sqrt();
            behind[c] = beta[c] + (behind[c] - mean[c]) * scale[c];
        }
    }
    let w = read(Place::Weights(kernel))?;
    Ok(device.fold(Foldable { w: &w, scale: &scale, bias: &behind, storage }, &shape)?)
}
