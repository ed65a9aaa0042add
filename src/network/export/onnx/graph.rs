//! From a list of layers to a graph of ONNX's operators.

use super::Form;
use super::messages::{self, Attribute, Element, Extent};
use crate::device::{Activation, Padding, PixelFormat};
use crate::network::import::transpose;
use crate::network::{Architecture, Convolution, Depthwise, Layer, NamedTensor, Op};
use crate::ops::pool::Pooling;
use crate::protobuf::Message;
use std::borrow::Cow;

/// The input.
const IMAGE: &str = "image";
/// The output.
const PROBABILITIES: &str = "probabilities";
/// The first extent of both.
const BATCH: &str = "N";

/// `GraphProto`.
pub(super) struct Graph<'a> {
    /// All of it but the weights, which belong behind it.
    pub described: Message,
    /// In the order of the layers.
    pub weights: Vec<Weight<'a>>,
}

/// A tensor of the network.
pub(super) struct Weight<'a> {
    pub tensor: &'a NamedTensor,
    /// What stands in front of its values.
    pub head: Message,
    pub layout: Layout,
}

/// How ONNX arranges a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub shape: Vec<usize>,
    /// Rows and columns of the matrices that are transposed.
    transposed: Option<[usize; 2]>,
}

impl Layout {
    /// Of a tensor of the engine's: channels stand in front of a kernel's pixels, and a depthwise kernel is one of a single input
    /// channel. A dense kernel `[outputs, inputs]` stays, as `Gemm` takes it so.
    fn new(shape: &[usize]) -> Layout {
        match *shape {
            [k, r, s, c] => Layout { shape: vec![k, c, r, s], transposed: Some([r * s, c]) },
            [r, s, c] => Layout { shape: vec![c, 1, r, s], transposed: Some([r * s, c]) },
            _ => Layout { shape: shape.to_vec(), transposed: None },
        }
    }

    /// The values in this arrangement.
    pub fn of<'v>(&self, values: &'v [f32]) -> Cow<'v, [f32]> {
        match self.transposed {
            Some([rows, columns]) => transpose(values, rows, columns).into(),
            None => values.into(),
        }
    }
}

impl<'a> Graph<'a> {
    /// Of a network, in this form.
    pub fn new(architecture: &'a Architecture, form: &Form) -> Self {
        let mut graph = Graph { described: Message::default(), weights: Vec::new() };
        let logits = graph.layers(architecture, form.bytes.as_ref());
        let calibrated = match form.temperature {
            1.0 => logits,
            temperature => {
                let divisor = graph.numbers("temperature", &[], &[temperature as f32]);
                graph.node("Div", &[&logits, &divisor], "calibrated", &[])
            }
        };
        graph.node("Sigmoid", &[&calibrated], PROBABILITIES, &[]);

        let image = architecture.layers[0].output.iter().map(|&extent| Extent::Fixed(extent));
        let mut shape: Vec<Extent<'_>> = [Extent::Free(BATCH)].into_iter().chain(image).collect();
        let (element, about) = match form.bytes {
            Some(_) => (Element::U8, "posters as bytes: red, green, blue"),
            None => {
                // Channels in front.
                shape[1..].rotate_right(1);
                (Element::F32, "posters as the numbers that the network was trained on")
            }
        };
        let genres = architecture.layers[architecture.layers.len() - 1].output[0];
        graph.described.text(2, architecture.network.name);
        graph.described.message(11, &messages::value(IMAGE, element, &shape, about));
        let shape = [Extent::Free(BATCH), Extent::Fixed(genres)];
        let about = "of each genre, in the order of the metadata's genres";
        graph.described.message(12, &messages::value(PROBABILITIES, Element::F32, &shape, about));
        graph
    }

    /// Its bytes, those of the weights among them.
    pub fn len(&self) -> usize {
        let weights = self
            .weights
            .iter()
            .map(|weight| weight.head.bytes().len() + 4 * weight.tensor.shape.iter().product::<usize>());
        self.described.bytes().len() + weights.sum::<usize>()
    }

    /// Adds the layers, and returns the name of what the last one leaves.
    fn layers(&mut self, architecture: &'a Architecture, bytes: Option<&PixelFormat>) -> String {
        for tensor in &architecture.tensors {
            let layout = Layout::new(&tensor.shape);
            let values = 4 * tensor.shape.iter().product::<usize>();
            let described = messages::tensor(&tensor.name, Element::F32, &layout.shape, values);
            // The field of the graph that the tensor is, and its beginning.
            let mut head = Message::default();
            head.announce(5, described.bytes().len() + values).append(described.bytes());
            self.weights.push(Weight { tensor, head, layout });
        }
        let mut values: Vec<String> = Vec::new();
        for layer in &architecture.layers {
            let inputs: Vec<&str> = layer.inputs.iter().map(|&input| values[input].as_str()).collect();
            let value = self.layer(layer, &inputs, bytes);
            values.push(value);
        }
        values.pop().expect("a network has layers")
    }

    /// `x[…, c] = scale·pixel[…, order[c]] + shift[c]` with the channels in front, under the name of the layer.
    fn numbers_of_bytes(&mut self, image: &str, layer: &str, format: &PixelFormat) -> String {
        let name = |part: &str| format!("{layer}/{part}");
        let order = self.integers(&name("order"), &format.order.map(|channel| channel as i64));
        let scale = self.numbers(&name("scale"), &[], &[format.scale as f32]);
        let shift = self.numbers(&name("shift"), &[3], &format.shift.map(|shift| shift as f32));
        let to_f32 = [("to", Attribute::Integer(Element::F32 as i64))];
        let x = self.node("Cast", &[image], &name("numbers"), &to_f32);
        let x = self.node("Gather", &[&x, &order], &name("ordered"), &[("axis", Attribute::Integer(3))]);
        let x = self.node("Mul", &[&x, &scale], &name("scaled"), &[]);
        let x = self.node("Add", &[&x, &shift], &name("shifted"), &[]);
        self.node("Transpose", &[&x], layer, &[("perm", Attribute::Integers(&[0, 3, 1, 2]))])
    }

    /// A layer that reads `inputs`; the first one reads the image, whose `bytes` become numbers in this way.
    fn layer(&mut self, layer: &Layer, inputs: &[&str], bytes: Option<&PixelFormat>) -> String {
        let name = &layer.name;
        let own = |kind: &str| format!("{name}/{kind}");
        let x = inputs.first().copied().unwrap_or(IMAGE);
        match layer.op {
            Op::Input => match bytes {
                Some(format) => self.numbers_of_bytes(x, name, format),
                None => x.to_owned(),
            },
            Op::ZeroPad(Padding { before, after }) => {
                let [before, after] = [before, after].map(|zeros| zeros as i64);
                let pads = self.integers(&own("pads"), &[0, 0, before, before, 0, 0, after, after]);
                self.node("Pad", &[x, &pads], name, &[])
            }
            Op::Conv { convolution, relu } => {
                let Convolution { window, stride, pad, bias, .. } = convolution;
                let (kernel, bias) = (own("kernel"), bias.then(|| own("bias")));
                let inputs: Vec<&str> = [Some(x), Some(&*kernel), bias.as_deref()].into_iter().flatten().collect();
                self.with_relu(relu, name, |graph, name| graph.conv(&inputs, name, window, stride, pad, 1))
            }
            Op::DepthwiseConv(depthwise) => self.depthwise(layer, x, name, depthwise),
            Op::SeparableConv { depthwise, .. } => {
                let each = self.depthwise(layer, x, &own("each_channel"), depthwise);
                self.conv(&[&each, &own("pointwise_kernel")], name, 1, 1, 0.into(), 1)
            }
            Op::BatchNorm { epsilon, .. } => {
                let tensors = ["gamma", "beta", "moving_mean", "moving_variance"].map(own);
                let inputs: Vec<&str> = [x].into_iter().chain(tensors.iter().map(String::as_str)).collect();
                self.node("BatchNormalization", &inputs, name, &[("epsilon", Attribute::Float(epsilon as f32))])
            }
            Op::Activation(Activation::Linear) => self.node("Identity", &[x], name, &[]),
            Op::Activation(Activation::Relu) => self.node("Relu", &[x], name, &[]),
            Op::Activation(Activation::Relu6) => {
                let [least, largest] = Activation::Relu6.bounds();
                let least = self.numbers(&own("least"), &[], &[least]);
                let largest = self.numbers(&own("largest"), &[], &[largest]);
                self.node("Clip", &[x, &least, &largest], name, &[])
            }
            // What lies outside the image is nothing to ONNX either.
            Op::MaxPool { window, stride, pad } => {
                let attributes = windows(window, stride, pad);
                let attributes = attributes.each_ref().map(|(name, values)| (*name, Attribute::Integers(values)));
                self.node("MaxPool", &[x], name, &attributes)
            }
            Op::Add => self.node("Add", inputs, name, &[]),
            Op::GlobalPool(pooling) => {
                let operator = match pooling {
                    Pooling::Average => "GlobalAveragePool",
                    Pooling::Max => "GlobalMaxPool",
                };
                let pooled = self.node(operator, &[x], &own("pooled"), &[]);
                self.node("Flatten", &[&pooled], name, &[("axis", Attribute::Integer(1))])
            }
            Op::Dense { relu, .. } => {
                let (kernel, bias) = (own("kernel"), own("bias"));
                let transposed = [("transB", Attribute::Integer(1))];
                self.with_relu(relu, name, |graph, name| graph.node("Gemm", &[x, &kernel, &bias], name, &transposed))
            }
        }
    }

    /// What `add` adds under the name that it is told, and the ReLU behind it if there is one; that has the layer's name then.
    fn with_relu(&mut self, relu: bool, name: &str, add: impl FnOnce(&mut Self, &str) -> String) -> String {
        if !relu {
            return add(self, name);
        }
        let x = add(self, &format!("{name}/linear"));
        self.node("Relu", &[&x], name, &[])
    }

    /// The convolution of each channel that `layer` has.
    fn depthwise(&mut self, layer: &Layer, x: &str, name: &str, depthwise: Depthwise) -> String {
        let Depthwise { window, stride, pad } = depthwise;
        let kernel = format!("{}/depthwise_kernel", layer.name);
        let tensor = self.weights.iter().find(|weight| weight.tensor.name == kernel);
        let channels = tensor.expect("the layer has its kernel").layout.shape[0];
        self.conv(&[x, &kernel], name, window, stride, pad, channels)
    }

    fn conv(
        &mut self,
        inputs: &[&str],
        name: &str,
        window: usize,
        stride: usize,
        pad: Padding,
        group: usize,
    ) -> String {
        let windows = windows(window, stride, pad);
        let [kernel, strides, pads] = windows.each_ref().map(|(name, values)| (*name, Attribute::Integers(values)));
        self.node("Conv", inputs, name, &[kernel, strides, pads, ("group", Attribute::Integer(group as i64))])
    }

    /// Adds an operator, and returns the name of what it leaves.
    fn node(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute<'_>)]) -> String {
        self.described.message(1, &messages::node(operator, inputs, output, attributes));
        output.to_owned()
    }

    /// Adds numbers that are no tensor of the network, and returns their name.
    fn numbers(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.constant(messages::tensor(name, Element::F32, shape, size_of_val(values)), bytemuck::cast_slice(values));
        name.to_owned()
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let described = messages::tensor(name, Element::I64, &[values.len()], size_of_val(values));
        self.constant(described, bytemuck::cast_slice(values));
        name.to_owned()
    }

    fn constant(&mut self, mut tensor: Message, values: &[u8]) {
        tensor.append(values);
        self.described.message(5, &tensor);
    }
}

/// What `Conv` and `MaxPool` are told alike.
fn windows(window: usize, stride: usize, Padding { before, after }: Padding) -> [(&'static str, Vec<i64>); 3] {
    let [window, stride, before, after] = [window, stride, before, after].map(|extent| extent as i64);
    [("kernel_shape", vec![window; 2]), ("strides", vec![stride; 2]), ("pads", vec![before, before, after, after])]
}
