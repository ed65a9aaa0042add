//! MobileNet's depthwise convolutions: forward, data gradient, weights' gradient, plain and as the network fuses them.
//!
//! cuDNN's are grouped convolutions, a group a channel. It pads all sides alike, so those of stride 2, which Keras pads below and to
//! the right alone, stand without it.

use super::Measurement;
#[cfg(feature = "cudnn")]
use super::convolutions::Operands;
use super::convolutions::{Pass, numbers, tensor};
use super::copies::{Copies, copied};
#[cfg(feature = "cudnn")]
use super::cudnn;
use super::layers::{DepthwiseLayer, depthwise};
use super::report::{Report, Subject};
use onesheet::device::cuda::Cuda;
use onesheet::device::{
    Activation, DepthwiseBackwardData, DepthwiseBackwardWeights, DepthwiseForward, DepthwiseKernels, DepthwiseShape,
    DeviceError, InputTransform, OutputGradient, ReduceEpilogue, Storage,
};
#[cfg(feature = "cudnn")]
use onesheet::device::{ConvShape, Memory};
use onesheet::network::Network;
use onesheet::tensor::Tensor;

const ACTIVATION: Activation = Activation::Relu6;

/// A layer's operands on the device, and room for its results.
struct OnDevice {
    shape: DepthwiseShape,
    x: Tensor<Cuda>,
    w: Tensor<Cuda>,
    dy: Tensor<Cuda>,
    /// The output in front of its batch norm, of which the gradient is owed.
    raw: Tensor<Cuda>,
    /// `k [3, C]`.
    k: Tensor<Cuda>,
    /// `norm [4, C]` of the input.
    norm: Tensor<Cuda>,
    y: Tensor<Cuda>,
    dx: Tensor<Cuda>,
    dw: Tensor<Cuda>,
    /// `stats [2, C]`.
    stats: Tensor<Cuda>,
    /// `sums [2, C]`.
    sums: Tensor<Cuda>,
}

impl OnDevice {
    fn new(device: &Cuda, shape: DepthwiseShape) -> Result<Self, DeviceError> {
        let filled = |seed, len, storage| tensor(device, &numbers(seed, len), storage);
        let x = filled(1, shape.input_len(), Storage::Activation)?;
        let dy = filled(3, shape.output_len(), Storage::Activation)?;
        Ok(OnDevice {
            shape,
            w: filled(2, shape.weights_len(), Storage::Weights)?,
            // What these are is no matter to the clock.
            raw: copied(device, &dy)?,
            y: copied(device, &dy)?,
            dx: copied(device, &x)?,
            dw: filled(4, shape.weights_len(), Storage::Full)?,
            k: filled(5, 3 * shape.c, Storage::Full)?,
            norm: filled(6, 4 * shape.c, Storage::Full)?,
            stats: filled(7, 2 * shape.c, Storage::Full)?,
            sums: filled(8, 2 * shape.c, Storage::Full)?,
            x,
            dy,
        })
    }

    fn copied(device: &Cuda, from: &Self) -> Result<Self, DeviceError> {
        let again = |tensor| copied(device, tensor);
        Ok(OnDevice {
            shape: from.shape,
            x: again(&from.x)?,
            w: again(&from.w)?,
            dy: again(&from.dy)?,
            raw: again(&from.raw)?,
            k: again(&from.k)?,
            norm: again(&from.norm)?,
            y: again(&from.y)?,
            dx: again(&from.dx)?,
            dw: again(&from.dw)?,
            stats: again(&from.stats)?,
            sums: again(&from.sums)?,
        })
    }

    /// A pass by itself, or with all that the network fuses to it.
    fn run(&mut self, device: &Cuda, pass: Pass, fused: bool) -> Result<(), DeviceError> {
        let OnDevice { shape, x, w, dy, raw, k, norm, y, dx, dw, stats, sums } = self;
        let transform = fused.then(|| InputTransform { norm: norm.view(), activation: ACTIVATION });
        let dy = match fused {
            true => OutputGradient::Owed { dz: dy.view(), y: raw.view(), k: k.view() },
            false => OutputGradient::Ready(dy.view()),
        };
        let (x, w) = (x.view(), w.view());
        match pass {
            Pass::Forward => {
                let stats = fused.then(|| stats.view_mut());
                device.depthwise_forward(DepthwiseForward { y: y.view_mut(), stats, x, transform, w }, shape)
            }
            Pass::BackwardData => {
                let (sums, norm) = (sums.view_mut(), norm.view());
                let epilogue = fused.then_some(ReduceEpilogue { sums, y: x, norm, activation: ACTIVATION });
                let operands = DepthwiseBackwardData { dx: dx.view_mut(), accumulate: false, epilogue, dy, w };
                device.depthwise_backward_data(operands, shape)
            }
            Pass::BackwardWeights => {
                let operands = DepthwiseBackwardWeights { dw: dw.view_mut(), dy, x, transform };
                device.depthwise_backward_weights(operands, shape)
            }
        }
    }

    /// What the plain pass makes of nothing but the operands, filters as cuDNN has them: `[C, R, S]`.
    #[cfg(feature = "cudnn")]
    fn answer(&mut self, device: &Cuda, pass: Pass) -> Result<Vec<f32>, DeviceError> {
        device.fill(self.dw.view_mut(), 0.0)?;
        self.run(device, pass, false)?;
        match pass {
            Pass::Forward => self.y.to_host(device),
            Pass::BackwardData => self.dx.to_host(device),
            Pass::BackwardWeights => Ok(by_channel(&self.dw.to_host(device)?, self.shape.c)),
        }
    }
}

/// From `[R, S, C]` to `[C, R, S]`.
#[cfg(feature = "cudnn")]
fn by_channel(w: &[f32], channels: usize) -> Vec<f32> {
    (0..channels).flat_map(|c| w.iter().skip(c).step_by(channels).copied()).collect()
}

/// A measurement for each layer that differs from those before it.
pub fn all(network: Network, batch: usize, image_size: usize) -> Vec<Measurement> {
    let measurement = |layer: DepthwiseLayer| Measurement {
        name: layer.name.clone(),
        measure: Box::new(move |report| measure(report, &layer)),
    };
    depthwise(network, batch, image_size).into_iter().map(measurement).collect()
}

fn measure(report: &mut Report, layer: &DepthwiseLayer) -> anyhow::Result<()> {
    let (device, shape) = (report.device(), layer.shape);
    let DepthwiseShape { n, h, w, c, r, s, stride, .. } = shape;
    let subject = |pass| Subject {
        layer: layer.name.clone(),
        count: layer.count,
        pass,
        shape: format!("{n}x{h}x{w}x{c} {r}x{s}/{stride}"),
    };
    let mut on_device = Copies::new(OnDevice::new(&device, shape)?, OnDevice::copied);
    #[cfg(feature = "cudnn")]
    let mut peer = match ConvShape::new([n, h, w, c], c, [r, s], stride, shape.pad)? {
        grouped if [grouped.p, grouped.q] == [shape.p, shape.q] => {
            let filters = by_channel(&numbers(2, shape.weights_len()), c);
            let operands =
                Operands { x: numbers(1, shape.input_len()), w: filters, dy: numbers(3, shape.output_len()) };
            cudnn::Layer::new(report, &grouped, c, &operands)?
        }
        _ => None,
    };
    #[cfg(not(feature = "cudnn"))]
    report.without_cudnn();
    for (pass, plain, fused) in [
        (Pass::Forward, "depthwise_forward plain", "depthwise_forward fused"),
        (Pass::BackwardData, "depthwise_backward_data plain", "depthwise_backward_data fused"),
        (Pass::BackwardWeights, "depthwise_backward_weights plain", "depthwise_backward_weights fused"),
    ] {
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
            report
                .line(subject(plain), cudnn.as_ref(), &mut on_device, |device, layer| layer.run(device, pass, false))?;
        }
        report.line(subject(fused), cudnn.as_ref(), &mut on_device, |device, layer| layer.run(device, pass, true))?;
    }
    Ok(())
}
