//! What a network's file writes its layers with.

use super::layer::{Convolution, Depthwise, Layer, Op};
use crate::device::{Activation, DeviceError, Padding};
use crate::ops::pool::Pooling;

/// The value that a layer leaves, for those behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(usize);

/// The layers so far, in Keras's order.
pub struct Builder {
    layers: Vec<Layer>,
}

impl Builder {
    /// Begins with images of `size`×`size`×3.
    pub(super) fn new(size: usize) -> Self {
        let output = vec![size, size, 3];
        let input = Layer { name: "input_layer".to_owned(), op: Op::Input, inputs: Vec::new(), output, tensors: 0..0 };
        Builder { layers: vec![input] }
    }

    /// The images.
    pub fn input(&self) -> Value {
        Value(0)
    }

    /// How many there are so far.
    pub(super) fn len(&self) -> usize {
        self.layers.len()
    }

    pub(super) fn into_layers(self) -> Vec<Layer> {
        self.layers
    }

    /// Keras's name for a layer that nobody names: its class, and from the second one on how many there were before it.
    pub fn automatic_name(&self, class: &str) -> String {
        let is_one = |name: &str| name.strip_prefix(class).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
        match self.layers.iter().filter(|layer| is_one(&layer.name)).count() {
            0 => class.to_owned(),
            before => format!("{class}_{before}"),
        }
    }

    /// `ZeroPadding2D`.
    pub fn zero_pad(&mut self, name: &str, x: Value, pad: impl Into<Padding>) -> Result<Value, DeviceError> {
        self.push(name, Op::ZeroPad(pad.into()), &[x])
    }

    /// `Conv2D`.
    pub fn conv(&mut self, name: &str, x: Value, convolution: Convolution) -> Result<Value, DeviceError> {
        self.push(name, Op::Conv { convolution, relu: false }, &[x])
    }

    /// `Conv2D(activation="relu")`.
    pub fn conv_relu(&mut self, name: &str, x: Value, convolution: Convolution) -> Result<Value, DeviceError> {
        self.push(name, Op::Conv { convolution, relu: true }, &[x])
    }

    /// `DepthwiseConv2D`.
    pub fn depthwise_conv(&mut self, name: &str, x: Value, depthwise: Depthwise) -> Result<Value, DeviceError> {
        self.push(name, Op::DepthwiseConv(depthwise), &[x])
    }

    /// `SeparableConv2D`.
    pub fn separable_conv(
        &mut self,
        name: &str,
        x: Value,
        depthwise: Depthwise,
        filters: usize,
    ) -> Result<Value, DeviceError> {
        self.push(name, Op::SeparableConv { depthwise, filters }, &[x])
    }

    /// The padding of Keras's `padding="same"` around a square image: as much as makes the output's side that of the input over the
    /// stride, rounded up; of an odd number one more below and to the right.
    pub fn same(&self, Value(x): Value, window: usize, stride: usize) -> Padding {
        let side = self.layers[x].output[0];
        let total = ((side.div_ceil(stride) - 1) * stride + window).saturating_sub(side);
        Padding { before: total / 2, after: total.div_ceil(2) }
    }

    /// `BatchNormalization`.
    pub fn batch_norm(&mut self, name: &str, x: Value, epsilon: f64) -> Result<Value, DeviceError> {
        self.push(name, Op::BatchNorm { epsilon, ends_block: false }, &[x])
    }

    /// The batch norm that ends a residual block's branch.
    pub fn last_batch_norm(&mut self, name: &str, x: Value, epsilon: f64) -> Result<Value, DeviceError> {
        self.push(name, Op::BatchNorm { epsilon, ends_block: true }, &[x])
    }

    /// `Activation("relu")`.
    pub fn relu(&mut self, name: &str, x: Value) -> Result<Value, DeviceError> {
        self.push(name, Op::Activation(Activation::Relu), &[x])
    }

    /// `ReLU(6)`.
    pub fn relu6(&mut self, name: &str, x: Value) -> Result<Value, DeviceError> {
        self.push(name, Op::Activation(Activation::Relu6), &[x])
    }

    /// `MaxPooling2D`.
    pub fn max_pool(&mut self, name: &str, x: Value, window: usize, stride: usize) -> Result<Value, DeviceError> {
        self.push(name, Op::MaxPool { window, stride, pad: 0.into() }, &[x])
    }

    /// `MaxPooling2D(padding="same")`.
    pub fn max_pool_same(&mut self, name: &str, x: Value, window: usize, stride: usize) -> Result<Value, DeviceError> {
        let pad = self.same(x, window, stride);
        self.push(name, Op::MaxPool { window, stride, pad }, &[x])
    }

    /// `Add`.
    ///
    /// # Errors
    /// [`DeviceError::Shape`] if the two differ in shape.
    pub fn add(&mut self, name: &str, [a, b]: [Value; 2]) -> Result<Value, DeviceError> {
        let [first, second] = [a, b].map(|Value(at)| &self.layers[at].output);
        if first != second {
            let reason = format!("{name} adds {first:?} and {second:?}");
            return Err(DeviceError::Shape { kernel: "network", reason });
        }
        self.push(name, Op::Add, &[a, b])
    }

    /// `GlobalAveragePooling2D` or `GlobalMaxPooling2D`, under Keras's name for it.
    pub(super) fn global_pool(&mut self, x: Value, pooling: Pooling) -> Result<Value, DeviceError> {
        let name = match pooling {
            Pooling::Average => "avg_pool",
            Pooling::Max => "max_pool",
        };
        self.push(name, Op::GlobalPool(pooling), &[x])
    }

    /// `Dense`.
    pub(super) fn dense(&mut self, name: &str, x: Value, outputs: usize, relu: bool) -> Result<Value, DeviceError> {
        self.push(name, Op::Dense { outputs, relu }, &[x])
    }

    fn push(&mut self, name: &str, op: Op, inputs: &[Value]) -> Result<Value, DeviceError> {
        let inputs: Vec<usize> = inputs.iter().map(|&Value(at)| at).collect();
        let output = op.output(&self.layers[inputs[0]].output)?;
        self.layers.push(Layer { name: name.to_owned(), op, inputs, output, tensors: 0..0 });
        Ok(Value(self.layers.len() - 1))
    }
}
