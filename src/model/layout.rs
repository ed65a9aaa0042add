//! Lays the network out: walks it once, front to back, in Keras's layer order, and gives every tensor its place.

use super::architecture::{Block, ConvNorm, Layer, ModelConfig, NamedTensor, Place};
use super::initialisers::Initialiser;
use crate::device::{BatchNormConstants, ConvShape, DeviceError, PoolShape};
use crate::ops::batch_norm::BatchNorm;
use crate::ops::conv::Conv;
use crate::ops::dense::Dense;
use crate::parameters::{Layout, Span};

/// Keras Applications' epsilon for the ResNet family.
const EPSILON: f64 = 1.001e-5;

/// Height, width and channels of one image.
type Image = [usize; 3];

/// A convolution that waits for its batch norm.
struct Convolved {
    conv: Conv,
    /// For the batch norm to know.
    bias: Span,
    /// The output.
    image: Image,
    /// Where it stands among the layers.
    layer: usize,
}

/// The walk so far.
pub(super) struct Builder {
    momentum: f64,
    /// What the gamma of a block's last batch norm starts from.
    residual_gamma: Initialiser,
    /// What the next layer finds.
    pub image: Image,
    pub layers: Vec<Layer>,
    /// The parameter arena's length before each layer.
    pub first_weight: Vec<usize>,
    pub tensors: Vec<NamedTensor>,
    pub weights: Layout,
    pub averages: Layout,
}

impl Builder {
    pub fn new(config: &ModelConfig) -> Self {
        let image = [config.image_size, config.image_size, 3];
        let mut builder = Builder {
            momentum: config.momentum,
            residual_gamma: if config.zero_init_residual { Initialiser::Zeros } else { Initialiser::Ones },
            image,
            layers: Vec::new(),
            first_weight: Vec::new(),
            tensors: Vec::new(),
            weights: Layout::default(),
            averages: Layout::default(),
        };
        builder.push("input_layer", "InputLayer", image.to_vec());
        builder
    }

    /// The 7×7/2 convolution and the 3×3/2 max pool, each behind its padding.
    pub fn stem(&mut self, filters: usize) -> Result<ConvNorm, DeviceError> {
        let [h, w, c] = self.image;
        self.push("conv1_pad", "ZeroPadding2D", vec![h + 6, w + 6, c]);
        let conv = self.conv("conv1_conv", self.image, filters, 7, 2, 3)?;
        let [h, w, c] = conv.image;
        let stem = self.norm("conv1_bn", conv, Initialiser::Ones);
        self.push("conv1_relu", "Activation", vec![h, w, c]);
        self.push("pool1_pad", "ZeroPadding2D", vec![h + 2, w + 2, c]);
        let pool = PoolShape::new([1, h, w, c], 3, 2, 1)?;
        self.image = [pool.p, pool.q, c];
        self.push("pool1_pool", "MaxPooling2D", self.image.to_vec());
        Ok(stem)
    }

    /// A bottleneck block. Keras lists the two ways of a projecting block side by side.
    pub fn block(&mut self, name: &str, filters: usize, stride: usize, project: bool) -> Result<Block, DeviceError> {
        let input = self.image;
        let part = |suffix: &str| format!("{name}_{suffix}");

        let conv = self.conv(&part("1_conv"), input, filters, 1, stride, 0)?;
        let image = conv.image;
        let reduce = self.norm(&part("1_bn"), conv, Initialiser::Ones);
        self.push(&part("1_relu"), "Activation", image.to_vec());

        let conv = self.conv(&part("2_conv"), image, filters, 3, 1, 1)?;
        let spatial = self.norm(&part("2_bn"), conv, Initialiser::Ones);
        self.push(&part("2_relu"), "Activation", image.to_vec());

        let around = match project {
            true => Some(self.conv(&part("0_conv"), input, 4 * filters, 1, stride, 0)?),
            false => None,
        };
        let conv = self.conv(&part("3_conv"), image, 4 * filters, 1, 1, 0)?;
        self.image = conv.image;
        let projection = around.map(|conv| self.norm(&part("0_bn"), conv, Initialiser::Ones));
        let expand = self.norm(&part("3_bn"), conv, self.residual_gamma);

        self.push(&part("add"), "Add", self.image.to_vec());
        self.push(&part("out"), "Activation", self.image.to_vec());
        Ok(Block { reduce, spatial, expand, projection, output: self.last() })
    }

    /// A dense layer with Keras's default initialisers.
    pub fn dense(&mut self, name: &str, inputs: usize, outputs: usize, relu: bool) -> Dense {
        self.push(name, "Dense", vec![outputs]);
        let kernel = self.weight("kernel", &[outputs, inputs], Initialiser::glorot(inputs, outputs));
        let bias = self.weight("bias", &[outputs], Initialiser::Zeros);
        Dense { kernel, bias, inputs, outputs, relu }
    }

    /// A layer, so far without tensors.
    pub fn push(&mut self, name: &str, kind: &'static str, output: Vec<usize>) {
        self.first_weight.push(self.weights.len());
        self.layers.push(Layer { name: name.to_string(), kind, output, weights: 0, averages: 0 });
    }

    /// Where the layer pushed last stands.
    pub fn last(&self) -> usize {
        self.layers.len() - 1
    }

    /// A convolution.
    fn conv(
        &mut self,
        name: &str,
        [h, w, c]: Image,
        filters: usize,
        window: usize,
        stride: usize,
        pad: usize,
    ) -> Result<Convolved, DeviceError> {
        let shape = ConvShape::new([1, h, w, c], filters, [window; 2], stride, pad)?;
        let image = [shape.p, shape.q, filters];
        self.push(name, "Conv2D", image.to_vec());
        let taps = window * window;
        let glorot = Initialiser::glorot(taps * c, taps * filters);
        let kernel = self.weight("kernel", &[filters, window, window, c], glorot);
        let bias = self.weight("bias", &[filters], Initialiser::Zeros);
        let conv = Conv { kernel, filters, window: [window; 2], stride, pad };
        Ok(Convolved { conv, bias, image, layer: self.last() })
    }

    /// A convolution with the batch norm behind it.
    fn norm(&mut self, name: &str, convolved: Convolved, gamma: Initialiser) -> ConvNorm {
        let Convolved { conv, bias, image, layer } = convolved;
        let c = image[2];
        self.push(name, "BatchNormalization", image.to_vec());
        let norm = BatchNorm {
            gamma: self.weight("gamma", &[c], gamma),
            beta: self.weight("beta", &[c], Initialiser::Zeros),
            mean: self.average("moving_mean", c, Initialiser::Zeros),
            variance: self.average("moving_variance", c, Initialiser::Ones),
            bias: Some(bias),
            constants: BatchNormConstants { momentum: self.momentum, epsilon: EPSILON },
        };
        ConvNorm { conv, norm, layers: [layer, self.last()] }
    }

    /// A parameter of the layer pushed last.
    fn weight(&mut self, tensor: &str, shape: &[usize], initialiser: Initialiser) -> Span {
        let span = self.weights.span(shape.iter().product());
        self.name(tensor, shape, Place::Weights(span), initialiser).weights += span.range().len();
        span
    }

    /// A running average of the layer pushed last.
    fn average(&mut self, tensor: &str, channels: usize, initialiser: Initialiser) -> Span {
        let span = self.averages.span(channels);
        self.name(tensor, &[channels], Place::Averages(span), initialiser).averages += channels;
        span
    }

    fn name(&mut self, tensor: &str, shape: &[usize], place: Place, initialiser: Initialiser) -> &mut Layer {
        let layer = self.layers.last_mut().expect("a tensor belongs to the layer pushed before it");
        let name = format!("{}/{tensor}", layer.name);
        self.tensors.push(NamedTensor { name, shape: shape.to_vec(), place, initialiser });
        layer
    }
}
