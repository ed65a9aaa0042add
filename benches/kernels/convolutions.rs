//! The convolutions: forward, data gradient, weights' gradient, plain and as the network fuses them.

use super::Measurement;
use super::copies::{Copies, copied};
#[cfg(feature = "cudnn")]
use super::cudnn;
use super::layers::{Layer, layers};
use super::report::{Report, Subject};
use onesheet::device::cuda::Cuda;
use onesheet::device::{
    Activation, ConvBackwardData, ConvBackwardWeights, ConvForward, ConvKernels, ConvShape, DeviceError,
    InputTransform, Memory, OutputGradient, ReduceEpilogue, Storage,
};
use onesheet::network::Network;
use onesheet::tensor::Tensor;
use rayon::prelude::*;

/// One of the three products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// `y` from `x` and `w`.
    Forward,
    /// `dx` from `dy` and `w`.
    BackwardData,
    /// `dw` from `dy` and `x`.
    BackwardWeights,
}

/// The operands of a layer on the host: what both engines read.
pub struct Operands {
    /// `[N, H, W, C]`.
    pub x: Vec<f32>,
    /// `[K, R, S, C]`; of groups, the channels of one.
    pub w: Vec<f32>,
    /// `[N, P, Q, K]`.
    pub dy: Vec<f32>,
}

impl Operands {
    fn new(shape: &ConvShape) -> Self {
        Operands {
            x: numbers(1, shape.input_len()),
            w: numbers(2, shape.weights_len()),
            dy: numbers(3, shape.output_len()),
        }
    }
}

/// Multiples of 1/128 in −1..1: exact in every precision.
pub fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let number = |i: usize| {
        let mixed = (i as u64 ^ seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as i8 as f32 / 128.0
    };
    (0..len).into_par_iter().map(number).collect()
}

/// A tensor with these values.
pub fn tensor(device: &Cuda, values: &[f32], storage: Storage) -> Result<Tensor<Cuda>, DeviceError> {
    let mut tensor = Tensor::new(device, [values.len()], storage)?;
    device.upload(tensor.view_mut(), values)?;
    Ok(tensor)
}

/// A layer's operands on the device, and room for its results.
struct OnDevice {
    shape: ConvShape,
    owed: Option<Activation>,
    undone: Option<Activation>,
    /// What it applies itself, behind a bias; then nobody wants statistics.
    activation: Activation,
    accumulates: bool,
    x: Tensor<Cuda>,
    w: Tensor<Cuda>,
    dy: Tensor<Cuda>,
    /// The output in front of its batch norm, of which the gradient is owed.
    raw: Tensor<Cuda>,
    /// `k [3, K]`.
    k: Tensor<Cuda>,
    /// `norm [4, C]` of the input.
    norm: Tensor<Cuda>,
    /// `bias [K]`.
    bias: Tensor<Cuda>,
    /// `dy` formed ahead, where the device does so.
    formed: Option<<Cuda as Memory>::Buffer>,
    y: Tensor<Cuda>,
    dx: Tensor<Cuda>,
    dw: Tensor<Cuda>,
    /// `stats [2, K]`.
    stats: Tensor<Cuda>,
    /// `sums [2, C]`.
    sums: Tensor<Cuda>,
}

impl OnDevice {
    fn new(device: &Cuda, layer: &Layer, operands: &Operands) -> Result<Self, DeviceError> {
        let shape = layer.shape;
        let filled = |seed, len| tensor(device, &numbers(seed, len), Storage::Full);
        let x = tensor(device, &operands.x, Storage::Activation)?;
        let dy = tensor(device, &operands.dy, Storage::Activation)?;
        let mut dw = Tensor::new(device, [shape.weights_len()], Storage::Full)?;
        device.fill(dw.view_mut(), 0.0)?;
        let mut operands = OnDevice {
            shape,
            owed: layer.owed,
            undone: layer.undone,
            activation: layer.activation,
            accumulates: layer.accumulates,
            w: tensor(device, &operands.w, Storage::Weights)?,
            // What these are is no matter to the clock.
            raw: copied(device, &dy)?,
            dx: copied(device, &x)?,
            k: filled(5, 3 * shape.k)?,
            norm: filled(6, 4 * shape.c)?,
            bias: filled(7, shape.k)?,
            formed: None,
            y: Tensor::new(device, [shape.output_len()], Storage::Activation)?,
            stats: Tensor::new(device, [2 * shape.k], Storage::Full)?,
            sums: Tensor::new(device, [2 * shape.c], Storage::Full)?,
            x,
            dy,
            dw,
        };
        operands.formed = operands.form(device)?;
        Ok(operands)
    }

    fn copied(device: &Cuda, from: &Self) -> Result<Self, DeviceError> {
        let again = |tensor| copied(device, tensor);
        let mut copy = OnDevice {
            x: again(&from.x)?,
            w: again(&from.w)?,
            dy: again(&from.dy)?,
            raw: again(&from.raw)?,
            k: again(&from.k)?,
            norm: again(&from.norm)?,
            bias: again(&from.bias)?,
            formed: None,
            y: Tensor::new(device, from.y.shape(), Storage::Activation)?,
            dx: again(&from.dx)?,
            dw: again(&from.dw)?,
            stats: Tensor::new(device, from.stats.shape(), Storage::Full)?,
            sums: Tensor::new(device, from.sums.shape(), Storage::Full)?,
            ..*from
        };
        copy.formed = copy.form(device)?;
        Ok(copy)
    }

    fn form(&self, device: &Cuda) -> Result<Option<<Cuda as Memory>::Buffer>, DeviceError> {
        let owed = OutputGradient::Owed { dz: self.dy.view(), y: self.raw.view(), k: self.k.view() };
        device.conv_form_gradient(owed, &self.shape)
    }

    fn plain(&mut self, device: &Cuda, pass: Pass) -> Result<(), DeviceError> {
        let (shape, dy) = (&self.shape, OutputGradient::Ready(self.dy.view()));
        let (x, w, transform) = (self.x.view(), self.w.view(), None);
        match pass {
            Pass::Forward => {
                let operands = ConvForward {
                    y: self.y.view_mut(),
                    stats: None,
                    x,
                    transform,
                    w,
                    bias: None,
                    activation: Activation::Linear,
                };
                device.conv_forward(operands, shape)
            }
            Pass::BackwardData => {
                let operands = ConvBackwardData { dx: self.dx.view_mut(), accumulate: false, epilogue: None, dy, w };
                device.conv_backward_data(operands, shape)
            }
            Pass::BackwardWeights => {
                let operands = ConvBackwardWeights { dw: self.dw.view_mut(), dy, x, transform };
                device.conv_backward_weights(operands, shape)
            }
        }
    }

    fn fused(&mut self, device: &Cuda, pass: Pass) -> Result<(), DeviceError> {
        let shape = &self.shape;
        let dy = match &self.formed {
            Some(dy) => OutputGradient::Ready(Cuda::view(dy, 0..shape.output_len())),
            None => OutputGradient::Owed { dz: self.dy.view(), y: self.raw.view(), k: self.k.view() },
        };
        let transform = self.owed.map(|activation| InputTransform { norm: self.norm.view(), activation });
        let (x, w) = (self.x.view(), self.w.view());
        match pass {
            Pass::Forward => {
                let (activation, has_bias) = (self.activation, self.activation != Activation::Linear);
                let bias = has_bias.then(|| self.bias.view());
                let stats = (!has_bias).then(|| self.stats.view_mut());
                let operands = ConvForward { y: self.y.view_mut(), stats, x, transform, w, bias, activation };
                device.conv_forward(operands, shape)
            }
            Pass::BackwardData => {
                let sums = self.sums.view_mut();
                let epilogue =
                    self.undone.map(|activation| ReduceEpilogue { sums, y: x, norm: self.norm.view(), activation });
                let accumulate = self.accumulates;
                let operands = ConvBackwardData { dx: self.dx.view_mut(), accumulate, epilogue, dy, w };
                device.conv_backward_data(operands, shape)
            }
            Pass::BackwardWeights => {
                let operands = ConvBackwardWeights { dw: self.dw.view_mut(), dy, x, transform };
                device.conv_backward_weights(operands, shape)
            }
        }
    }

    /// What the plain pass makes of nothing but the operands.
    #[cfg(feature = "cudnn")]
    fn answer(&mut self, device: &Cuda, pass: Pass) -> Result<Vec<f32>, DeviceError> {
        device.fill(self.dw.view_mut(), 0.0)?;
        self.plain(device, pass)?;
        match pass {
            Pass::Forward => &self.y,
            Pass::BackwardData => &self.dx,
            Pass::BackwardWeights => &self.dw,
        }
        .to_host(device)
    }
}

/// A measurement for each layer that differs from those before it.
pub fn all(network: Network, batch: usize, image_size: usize) -> Vec<Measurement> {
    let measurement = |layer: Layer| Measurement {
        name: layer.name.clone(),
        measure: Box::new(move |report| measure(report, &layer)),
    };
    layers(network, batch, image_size).into_iter().map(measurement).collect()
}

fn measure(report: &mut Report, layer: &Layer) -> anyhow::Result<()> {
    let device = report.device();
    let ConvShape { n, h, w, c, k, r, s, stride, .. } = layer.shape;
    let subject = |pass| Subject {
        layer: layer.name.clone(),
        count: layer.count,
        pass,
        shape: format!("{n}x{h}x{w}x{c} {k}x{r}x{s}/{stride}"),
    };
    let operands = Operands::new(&layer.shape);
    let first = OnDevice::new(&device, layer, &operands)?;
    let formed_ahead = first.formed.is_some();
    let mut on_device = Copies::new(first, OnDevice::copied);
    #[cfg(feature = "cudnn")]
    let mut peer = cudnn::Layer::new(report, &layer.shape, 1, &operands)?;
    #[cfg(not(feature = "cudnn"))]
    report.without_cudnn();
    // The host needs its memory for the answers now.
    drop(operands);
    if formed_ahead {
        report.line(subject("form gradient"), None, &mut on_device, |device, layer| layer.form(device))?;
    }
    for (pass, plain, fused) in [
        (Pass::Forward, "forward plain", "forward fused"),
        (Pass::BackwardData, "backward_data plain", "backward_data fused"),
        (Pass::BackwardWeights, "backward_weights plain", "backward_weights fused"),
    ] {
        // Nobody asks for the gradient of the posters.
        if pass == Pass::BackwardData && c == 3 {
            continue;
        }
        #[cfg(feature = "cudnn")]
        let cudnn = match &mut peer {
            Some(peer) => {
                let ours = on_device.first().answer(&device, pass)?;
                let answer = peer.compare(pass, &ours);
                answer.inspect_err(|error| report.not_compared(&subject(plain), error)).ok()
            }
            None => None,
        };
        #[cfg(not(feature = "cudnn"))]
        let cudnn = None;
        // The simulated GPU has nothing to compare with.
        if !report.is_simulated() {
            report.line(subject(plain), cudnn.as_ref(), &mut on_device, |device, layer| layer.plain(device, pass))?;
        }
        report.line(subject(fused), cudnn.as_ref(), &mut on_device, |device, layer| layer.fused(device, pass))?;
    }
    Ok(())
}
