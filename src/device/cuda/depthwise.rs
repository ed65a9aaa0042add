//! Depthwise convolution: launches of `kernels/depthwise/depthwise.cu`. Which kernel takes what is decided in
//! [`choose::depthwise`](super::choose::depthwise).

pub(super) mod arguments;

use super::Cuda;
use super::activation::Stops;
use super::choose::depthwise::{
    BACKWARD_DATA, BACKWARD_WEIGHTS, DepthwiseGrid, FORWARD, Pass, Strips, THREADS, depthwise,
};
use super::conv::{Divisor, extent};
use super::kernels::Launch;
use super::memory::{Buffer, Element, View, ViewMut};
use super::modules::Module;
use super::rows::{MOST_ELEMENTS, Walk, WalkShape};
use crate::device::{
    DepthwiseBackwardData, DepthwiseBackwardWeights, DepthwiseForward, DepthwiseKernels, DepthwiseShape, DeviceError,
    InputTransform, OutputGradient, ReduceEpilogue, Work,
};
use arguments::{Columns, Filter, GradientArguments, InputArguments, InputGradientArguments, OutputArguments};

/// A kernel's geometry and its grid.
struct Choice {
    kernel: &'static str,
    walk: Walk,
    /// Blocks that share the rows.
    blocks: usize,
    geometry: Geometry,
}

enum Geometry {
    Columns(Columns),
    Pixels(WalkShape, Filter),
}

impl Choice {
    /// # Errors
    /// [`DeviceError::Shape`] for tensors larger than the kernels' indices reach, or stored otherwise than this device does.
    fn new(
        device: &Cuda,
        pass: &Pass,
        shape: &DepthwiseShape,
        activations: &[(u64, Element)],
    ) -> Result<Self, DeviceError> {
        let &DepthwiseShape { n, h, w: width, c, r, s, stride, pad, p, q } = shape;
        if shape.input_len().max(shape.output_len()) > MOST_ELEMENTS {
            let reason = format!("{n} images of {h}x{width}x{c}; at most 2³⁰ elements fit");
            return Err(DeviceError::Shape { kernel: pass.name, reason });
        }
        let of = |count: usize| extent(pass.name, count);
        // Pixels are numbered from the padding's first.
        of((h + r + pad).max(width + s + pad).max(p * stride + r).max(q * stride + s))?;
        let [out_height, out_width] = if pass.to_input { [h, width] } else { [p, q] };
        let walk = Walk::new(device, pass.name, n * out_height * out_width, c, activations)?;
        let aligned = activations.iter().all(|(address, _)| address.is_multiple_of(16));
        let DepthwiseGrid { kernel, across, rows, blocks, strips } =
            depthwise(&device.target(), pass, shape, aligned).kernel;
        let walk = walk.laid(across, THREADS, rows);
        let Some(Strips { columns, strips, length }) = strips else {
            let filter = Filter {
                h: of(h)?,
                w: of(width)?,
                r: of(r)?,
                s: of(s)?,
                stride: of(stride)?,
                pad: of(pad)?,
                p: of(p)?,
                q: of(q)?,
                by_height: Divisor::new(out_height as u32),
                by_width: Divisor::new(out_width as u32),
                by_stride: Divisor::new(stride as u32),
            };
            return Ok(Choice { kernel, walk, blocks, geometry: Geometry::Pixels(walk.shape, filter) });
        };
        // With stride 1 the data gradient is a forward pass over `dy`, padded as much less as the forward pass is more.
        let (read, pad) = match (pass.to_input, stride) {
            (false, _) => ([h, width], of(pad)?),
            (true, 1) => ([p, q], 2 - of(pad)?),
            (true, _) => ([p, q], of(pad)?),
        };
        let columns = Columns {
            shape: walk.shape,
            height: of(read[0])?,
            width: of(read[1])?,
            out_height: of(out_height)?,
            out_width: of(out_width)?,
            pad,
            length: of(length)?,
            by_width: Divisor::new(columns as u32),
            by_strips: Divisor::new(strips as u32),
        };
        Ok(Choice { kernel, walk, blocks, geometry: Geometry::Columns(columns) })
    }

    /// Room for so many floats of each block and channel.
    fn workspace(&self, device: &Cuda, floats: usize, shape: &DepthwiseShape) -> Result<(Buffer, usize), DeviceError> {
        let bytes = floats * self.blocks * shape.c * size_of::<f32>();
        Ok((device.workspace(bytes)?, bytes))
    }

    fn launch(&self, work: Work) -> Launch {
        self.walk.launch(self.blocks, work)
    }
}

/// Bytes that a gradient is read from.
fn gradient_bytes(dy: OutputGradient<View<'_>>) -> usize {
    match dy.map(|view| view.bytes()) {
        OutputGradient::Ready(dy) => dy,
        OutputGradient::Owed { dz, y, k } => dz + y + k,
    }
}

/// What a gradient is read from and how it is stored.
fn gradient_activations(dy: OutputGradient<View<'_>>) -> Vec<(u64, Element)> {
    match dy.map(|view| (view.address(), view.element())) {
        OutputGradient::Ready(dy) => vec![dy],
        OutputGradient::Owed { dz, y, .. } => vec![dz, y],
    }
}

/// Bytes of the input that are seen, and of what it owes.
fn input_bytes(x: View<'_>, transform: Option<InputTransform<View<'_>>>, shape: &DepthwiseShape) -> usize {
    shape.seen() * x.element().bytes() + transform.map_or(0, |_| 2 * shape.c * size_of::<f32>())
}

impl DepthwiseKernels for Cuda {
    fn depthwise_forward(
        &self,
        operands: DepthwiseForward<View<'_>, ViewMut<'_>>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DepthwiseForward { y, stats, x, transform, w } = operands;
        let activations = [(y.address(), y.element()), (x.address(), x.element())];
        let choice = Choice::new(self, &FORWARD, shape, &activations)?;
        let (workspace, partials) = choice.workspace(self, if stats.is_some() { 3 } else { 0 }, shape)?;
        let output = OutputArguments {
            y: y.address(),
            stats: stats.as_ref().map_or(0, ViewMut::address),
            partials: workspace.address(),
            tickets: self.tickets(FORWARD.name, choice.walk.slices())?,
        };
        let (input, w_address) = (InputArguments::new(x, transform), w.address());
        let work = Work {
            reads: (input_bytes(x, transform, shape) + w.bytes()) as u64,
            writes: (y.bytes() + stats.map_or(0, |stats| stats.bytes()) + partials) as u64,
            flops: shape.flops(),
        };
        let (kernel, launch) = (choice.kernel, choice.launch(work));
        match choice.geometry {
            Geometry::Columns(columns) => {
                let arguments = arguments::DepthwiseForward { output, input, w: w_address, columns };
                self.launch(Module::Depthwise, kernel, launch, &arguments)
            }
            Geometry::Pixels(shape, filter) => {
                let arguments = arguments::DepthwiseForwardScalar { output, input, w: w_address, shape, filter };
                self.launch(Module::Depthwise, kernel, launch, &arguments)
            }
        }
    }

    fn depthwise_backward_data(
        &self,
        operands: DepthwiseBackwardData<View<'_>, ViewMut<'_>>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DepthwiseBackwardData { dx, accumulate, epilogue, dy, w } = operands;
        let mut activations = gradient_activations(dy);
        activations.push((dx.address(), dx.element()));
        activations.extend(epilogue.as_ref().map(|epilogue| (epilogue.y.address(), epilogue.y.element())));
        let choice = Choice::new(self, &BACKWARD_DATA, shape, &activations)?;
        let (workspace, partials) = choice.workspace(self, if epilogue.is_some() { 2 } else { 0 }, shape)?;
        let of = |address: fn(&ReduceEpilogue<View<'_>, ViewMut<'_>>) -> u64| epilogue.as_ref().map_or(0, address);
        let output = InputGradientArguments {
            dx: dx.address(),
            sums: of(|epilogue| epilogue.sums.address()),
            y: of(|epilogue| epilogue.y.address()),
            norm: of(|epilogue| epilogue.norm.address()),
            partials: workspace.address(),
            tickets: self.tickets(BACKWARD_DATA.name, choice.walk.slices())?,
            stops: Stops::of(&epilogue),
            accumulate: accumulate.into(),
        };
        let (gradient, w_address) = (GradientArguments::new(dy), w.address());
        let channel = shape.c * size_of::<f32>();
        let [masks, sums] =
            epilogue.as_ref().map_or([0; 2], |epilogue| [epilogue.y.bytes() + 3 * channel, 2 * channel]);
        let work = Work {
            reads: (gradient_bytes(dy) + w.bytes() + if accumulate { dx.bytes() } else { 0 } + masks) as u64,
            writes: (dx.bytes() + sums + partials) as u64,
            flops: shape.flops(),
        };
        let (kernel, launch) = (choice.kernel, choice.launch(work));
        match choice.geometry {
            Geometry::Columns(columns) => {
                let arguments = arguments::DepthwiseBackwardData { output, dy: gradient, w: w_address, columns };
                self.launch(Module::Depthwise, kernel, launch, &arguments)
            }
            Geometry::Pixels(shape, filter) => {
                let (dy, w) = (gradient, w_address);
                let arguments = arguments::DepthwiseBackwardDataScalar { output, dy, w, shape, filter };
                self.launch(Module::Depthwise, kernel, launch, &arguments)
            }
        }
    }

    fn depthwise_backward_weights(
        &self,
        operands: DepthwiseBackwardWeights<View<'_>, ViewMut<'_>>,
        shape: &DepthwiseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DepthwiseBackwardWeights { dw, dy, x, transform } = operands;
        let mut activations = gradient_activations(dy);
        activations.push((x.address(), x.element()));
        let choice = Choice::new(self, &BACKWARD_WEIGHTS, shape, &activations)?;
        let taps = shape.r * shape.s;
        let (workspace, partials) = choice.workspace(self, taps, shape)?;
        let (dw_address, gradient, input) =
            (dw.address(), GradientArguments::new(dy), InputArguments::new(x, transform));
        let work = Work {
            reads: (gradient_bytes(dy) + input_bytes(x, transform, shape) + dw.bytes()) as u64,
            writes: (dw.bytes() + partials) as u64,
            flops: shape.flops(),
        };
        let (kernel, launch, partials) = (choice.kernel, choice.launch(work), workspace.address());
        match choice.geometry {
            Geometry::Columns(columns) => {
                let tickets = self.tickets(BACKWARD_WEIGHTS.name, choice.walk.slices())?;
                let (dw, dy) = (dw_address, gradient);
                let arguments = arguments::DepthwiseBackwardWeights { dw, dy, input, partials, tickets, columns };
                self.launch(Module::Depthwise, kernel, launch, &arguments)
            }
            Geometry::Pixels(shape, filter) => {
                let tickets = self.tickets(BACKWARD_WEIGHTS.name, taps * choice.walk.slices())?;
                let (dw, dy) = (dw_address, gradient);
                let arguments =
                    arguments::DepthwiseBackwardWeightsScalar { dw, dy, input, partials, tickets, shape, filter };
                let [x, y, _] = launch.grid;
                let launch = Launch { grid: [x, y, extent(BACKWARD_WEIGHTS.name, taps)? as u32], ..launch };
                self.launch(Module::Depthwise, kernel, launch, &arguments)
            }
        }
    }
}
