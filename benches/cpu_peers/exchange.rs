//! The file that contestants in Python read: a network's layers and weights, and a batch.

use anyhow::Context;
use onesheet::device::cpu::Cpu;
use onesheet::device::{Activation, Memory, Padding, PixelFormat, Placement};
use onesheet::model::{Batch, Model, Posters};
use onesheet::network::{Convolution, Depthwise, Layer, ModelConfig, Network, Op};
use onesheet::ops::pool::Pooling;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

/// Outputs of a network.
pub const GENRES: usize = 7;
const SEED: u64 = 1;
/// Gamma of the batch norm that ends a residual block's branch.
const BRANCH: f32 = 0.25;

/// The posters that everybody gets, and their labels. Ours reads the bytes, the others the numbers that it makes of them.
pub struct Data {
    pub pixels: Vec<u8>,
    pub placements: Vec<Placement>,
    pub labels: Vec<u8>,
    image: usize,
}

impl Data {
    /// So many posters of `size`×`size`.
    pub fn new(images: usize, size: usize) -> Self {
        let image = 3 * size * size;
        Data {
            pixels: (0..images * image).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as u8).collect(),
            placements: vec![Placement::default(); images],
            labels: (0..images * GENRES).map(|i| u8::from(i % 3 == 0)).collect(),
            image,
        }
    }

    /// The first posters.
    pub fn posters<'a>(&'a self, images: usize, format: &'a PixelFormat) -> Posters<'a> {
        let (pixels, placements) = (&self.pixels[..images * self.image], &self.placements[..images]);
        Posters { pixels, placements, format }
    }

    /// The labels of the first posters.
    pub fn labels(&self, images: usize) -> &[u8] {
        &self.labels[..images * GENRES]
    }

    /// The numbers that a network reads in the place of the bytes.
    fn images(&self, format: &PixelFormat) -> Vec<f32> {
        let channel = |pixel: &[u8], c: usize| format.scale * f64::from(pixel[format.order[c]]) + format.shift[c];
        self.pixels.chunks_exact(3).flat_map(|pixel| (0..3).map(move |c| channel(pixel, c) as f32)).collect()
    }
}

/// What everybody's model is made from.
pub fn config(network: Network, image_size: usize) -> ModelConfig {
    ModelConfig { image_size, ..ModelConfig::new(network, GENRES) }
}

/// Every tensor of the model that everybody starts from: initial values, and running averages that are the batch's own statistics,
/// so that an inference sees values of the same size as a training step. Branches of residual blocks weigh less than in a fresh
/// network, which would make large differences of the least roundings.
pub fn weights(network: Network, image_size: usize, data: &Data) -> anyhow::Result<Vec<Vec<f32>>> {
    let device = Rc::new(Cpu::new());
    let config = ModelConfig { momentum: 0.0, ..config(network, image_size) };
    let mut model = Model::new(Rc::clone(&device), config, SEED)?;
    let architecture = model.architecture().clone();
    let is_last = |layer: &&Layer| matches!(layer.op, Op::BatchNorm { ends_block: true, .. });
    for tensor in architecture.layers.iter().filter(is_last).flat_map(|layer| architecture.tensors_of(layer)) {
        if tensor.name.ends_with("/gamma") {
            model.write(tensor, &vec![BRANCH; tensor.shape[0]])?;
        }
    }
    let (images, format) = (data.placements.len(), network.pixels.format);
    let pixels = device.upload_pixels(&data.pixels, &data.placements)?;
    let mut batch = Batch::new(&*device, pixels, images, &format, &data.labels, &[1.0; GENRES])?;
    model.gradients(&mut batch)?;
    Ok(architecture.tensors.iter().map(|tensor| model.read(tensor)).collect::<Result<_, _>>()?)
}

/// Writes the layers of `model`, its `weights` and the batch.
pub fn write(file: &Path, model: &Model<Cpu>, weights: &[Vec<f32>], data: &Data) -> anyhow::Result<()> {
    let architecture = model.architecture();
    let layers: Vec<Value> = architecture.layers.iter().map(described).collect();
    let format = architecture.network.pixels.format;
    let (n, size) = (data.placements.len(), model.config().image_size);
    let (images_shape, labels_shape) = ([n, size, size, 3], [n, GENRES]);
    let images = data.images(&format);
    let labels: Vec<f32> = data.labels.iter().map(|&label| label.into()).collect();
    let own =
        architecture.tensors.iter().zip(weights).map(|(tensor, values)| (&*tensor.name, &tensor.shape[..], values));
    let tensors = own.chain([("images", &images_shape[..], &images), ("labels", &labels_shape[..], &labels)]);
    let views = tensors.map(|(name, shape, values)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytemuck::cast_slice(values));
        Ok((name, view.with_context(|| name.to_owned())?))
    });
    let views: Vec<(&str, TensorView<'_>)> = views.collect::<anyhow::Result<_>>()?;
    let metadata = HashMap::from([("layers".to_owned(), Value::Array(layers).to_string())]);
    serialize_to_file(views, Some(metadata), file).with_context(|| format!("cannot write {}", file.display()))
}

/// A layer in JSON: its name, its op, the layers that it reads, and what the op is told.
fn described(layer: &Layer) -> Value {
    let pad = |pad: Padding| json!([pad.before, pad.after]);
    let mut described = match layer.op {
        Op::Input => json!({ "op": "input" }),
        Op::ZeroPad(zeros) => json!({ "op": "zero_pad", "pad": pad(zeros) }),
        Op::Conv { convolution: Convolution { stride, pad: zeros, .. }, relu } => {
            json!({ "op": "conv", "stride": stride, "pad": pad(zeros), "relu": relu })
        }
        Op::DepthwiseConv(Depthwise { stride, pad: zeros, .. }) => {
            json!({ "op": "depthwise", "stride": stride, "pad": pad(zeros) })
        }
        Op::SeparableConv { depthwise: Depthwise { stride, pad: zeros, .. }, .. } => {
            json!({ "op": "separable", "stride": stride, "pad": pad(zeros) })
        }
        Op::BatchNorm { epsilon, .. } => {
            json!({ "op": "batch_norm", "epsilon": epsilon, "channels": layer.output.last() })
        }
        Op::Activation(activation) => {
            let name = match activation {
                Activation::Linear => "linear",
                Activation::Relu => "relu",
                Activation::Relu6 => "relu6",
            };
            json!({ "op": "activation", "activation": name })
        }
        Op::MaxPool { window, stride, pad: nothing } => {
            json!({ "op": "max_pool", "window": window, "stride": stride, "pad": pad(nothing) })
        }
        Op::Add => json!({ "op": "add" }),
        Op::GlobalPool(pooling) => {
            let name = match pooling {
                Pooling::Average => "average",
                Pooling::Max => "max",
            };
            json!({ "op": "global_pool", "pooling": name })
        }
        Op::Dense { relu, .. } => json!({ "op": "dense", "relu": relu }),
    };
    described["name"] = json!(layer.name);
    described["inputs"] = json!(layer.inputs);
    described
}
