//! ONNX's operators in plain loops and f64, as their specification has them: <https://onnx.ai/onnx/operators>.
//!
//! It knows nothing of the engine's layers, so what it computes of a file is what the file says.

use crate::decoded::{Graph, Node, Tensor};
use std::collections::HashMap;

/// Numbers in rows, the last extent the nearest.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    pub fn new(shape: &[usize], values: Vec<f64>) -> Array {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        Array { shape: shape.to_vec(), values }
    }

    fn of(tensor: &Tensor) -> Array {
        let values = match tensor.element {
            1 => tensor.values.as_chunks().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect(),
            7 => tensor.values.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as f64).collect(),
            other => panic!("{} holds elements of kind {other}", tensor.name),
        };
        Array::new(&tensor.shape, values)
    }

    fn map(&self, number: impl Fn(f64) -> f64) -> Array {
        Array::new(&self.shape, self.values.iter().map(|&value| number(value)).collect())
    }

    /// Sum, product or quotient; `other` is one number, has the same shape, or that of the last extents.
    fn with(&self, other: &Array, number: impl Fn(f64, f64) -> f64) -> Array {
        assert!(self.shape.ends_with(&other.shape), "{:?} and {:?}", self.shape, other.shape);
        let others = other.values.iter().cycle();
        Array::new(&self.shape, self.values.iter().zip(others).map(|(&a, &b)| number(a, b)).collect())
    }

    fn extents<const N: usize>(&self) -> [usize; N] {
        self.shape.clone().try_into().unwrap_or_else(|shape| panic!("{shape:?} has not {N} extents"))
    }
}

/// What the graph makes of this input.
pub fn compute(graph: &Graph, input: Array) -> Array {
    let mut values: HashMap<&str, Array> = HashMap::new();
    for tensor in &graph.tensors {
        assert!(values.insert(&tensor.name, Array::of(tensor)).is_none(), "{} is there twice", tensor.name);
    }
    values.insert(&graph.inputs[0].name, input);
    for node in &graph.nodes {
        // Nodes stand in an order in which they can be computed.
        let read = |name: &String| values.get(name.as_str()).unwrap_or_else(|| panic!("{}: no {name} yet", node.name));
        let inputs: Vec<&Array> = node.inputs.iter().map(read).collect();
        let output = step(node, &inputs);
        assert!(values.insert(&node.outputs[0], output).is_none(), "{} is left twice", node.outputs[0]);
    }
    values.remove(graph.outputs[0].name.as_str()).expect("the output is computed")
}

fn integers(node: &Node, name: &str) -> Vec<usize> {
    let values = node.lists.get(name).unwrap_or_else(|| panic!("{} has no {name}", node.name));
    values.iter().map(|&value| value as usize).collect()
}

fn integer(node: &Node, name: &str) -> i64 {
    *node.integers.get(name).unwrap_or_else(|| panic!("{} has no {name}", node.name))
}

fn step(node: &Node, inputs: &[&Array]) -> Array {
    match (node.operator.as_str(), inputs) {
        ("Cast", [x]) => {
            assert_eq!(integer(node, "to"), 1);
            (*x).clone()
        }
        ("Gather", [x, order]) => {
            let channels = x.extents::<4>()[integer(node, "axis") as usize];
            assert_eq!((integer(node, "axis"), channels), (3, order.values.len()));
            let pixels = x.values.chunks(channels);
            Array::new(&x.shape, pixels.flat_map(|pixel| order.values.iter().map(|&at| pixel[at as usize])).collect())
        }
        ("Transpose", [x]) => {
            assert_eq!(integers(node, "perm"), [0, 3, 1, 2]);
            let [n, h, w, c] = x.extents();
            let value = |[n, channel, i, j]: [usize; 4]| x.values[((n * h + i) * w + j) * c + channel];
            Array::new(&[n, c, h, w], places([n, c, h, w]).map(value).collect())
        }
        ("Mul", [x, y]) => x.with(y, |a, b| a * b),
        ("Add", [x, y]) => x.with(y, |a, b| a + b),
        ("Div", [x, y]) => x.with(y, |a, b| a / b),
        ("Relu", [x]) => x.map(|value| value.max(0.0)),
        ("Clip", [x, least, largest]) => x.map(|value| value.max(least.values[0]).min(largest.values[0])),
        ("Sigmoid", [x]) => x.map(|value| 1.0 / (1.0 + (-value).exp())),
        ("Pad", [x, pads]) => {
            let pads: Vec<usize> = pads.values.iter().map(|&value| value as usize).collect();
            assert_eq!((pads[0], pads[1], pads[4], pads[5]), (0, 0, 0, 0));
            let [n, c, h, w] = x.extents();
            let shape = [n, c, h + pads[2] + pads[6], w + pads[3] + pads[7]];
            let inside =
                |[n, c, i, j]: [usize; 4]| pixel(x, n, c, i as i64 - pads[2] as i64, j as i64 - pads[3] as i64);
            Array::new(&shape, places(shape).map(|place| inside(place).unwrap_or(0.0)).collect())
        }
        ("Conv", [x, kernel, bias @ ..]) => conv(node, x, kernel, bias.first().copied()),
        ("MaxPool", [x]) => {
            let (window, [n, c, _, _]) = (Windows::of(node), x.extents());
            let [p, q] = window.output(x);
            let largest = |[n, c, i, j]: [usize; 4]| {
                let seen = window.taps(i, j).filter_map(|(_, y, at)| pixel(x, n, c, y, at));
                seen.fold(f64::NEG_INFINITY, f64::max)
            };
            Array::new(&[n, c, p, q], places([n, c, p, q]).map(largest).collect())
        }
        ("BatchNormalization", [x, gamma, beta, mean, variance]) => {
            let epsilon = f64::from(node.floats["epsilon"]);
            let normed = |[n, c, i, j]: [usize; 4]| {
                let value = pixel(x, n, c, i as i64, j as i64).unwrap() - mean.values[c];
                value / (variance.values[c] + epsilon).sqrt() * gamma.values[c] + beta.values[c]
            };
            Array::new(&x.shape, places(x.extents()).map(normed).collect())
        }
        ("GlobalAveragePool", [x]) => pooled(x, |pixels| pixels.iter().sum::<f64>() / pixels.len() as f64),
        ("GlobalMaxPool", [x]) => pooled(x, |pixels| pixels.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        ("Flatten", [x]) => {
            assert_eq!(integer(node, "axis"), 1);
            Array::new(&[x.shape[0], x.shape[1..].iter().product()], x.values.clone())
        }
        ("Gemm", [x, kernel, bias]) => {
            assert_eq!(integer(node, "transB"), 1);
            let ([rows, inputs], [outputs, columns]) = (x.extents(), kernel.extents());
            assert_eq!((columns, bias.values.len()), (inputs, outputs));
            let product = |row: &[f64], filter: &[f64]| row.iter().zip(filter).map(|(a, b)| a * b).sum::<f64>();
            let filters = || kernel.values.chunks(inputs).zip(&bias.values);
            let values = x.values.chunks(inputs).flat_map(|row| filters().map(move |(f, bias)| product(row, f) + bias));
            Array::new(&[rows, outputs], values.collect())
        }
        (operator, inputs) => panic!("{} is {operator} of {} inputs", node.name, inputs.len()),
    }
}

/// All places of such an array, in the order of its values.
fn places([n, c, h, w]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    (0..n * c * h * w).map(move |at| [at / (c * h * w), at / (h * w) % c, at / w % h, at % w])
}

/// The pixel there, unless it is outside.
fn pixel(x: &Array, n: usize, c: usize, i: i64, j: i64) -> Option<f64> {
    let [_, channels, h, w] = x.extents();
    let is_inside = (0..h as i64).contains(&i) && (0..w as i64).contains(&j);
    is_inside.then(|| x.values[((n * channels + c) * h + i as usize) * w + j as usize])
}

/// What windows see.
struct Windows {
    kernel: [usize; 2],
    strides: [usize; 2],
    /// Above, to the left, below, to the right.
    pads: [usize; 4],
}

impl Windows {
    fn of(node: &Node) -> Windows {
        let two = |name| integers(node, name).try_into().unwrap();
        Windows {
            kernel: two("kernel_shape"),
            strides: two("strides"),
            pads: integers(node, "pads").try_into().unwrap(),
        }
    }

    fn output(&self, x: &Array) -> [usize; 2] {
        let [_, _, h, w] = x.extents();
        let [above, left, below, right] = self.pads;
        let along = |extent: usize, axis: usize| (extent - self.kernel[axis]) / self.strides[axis] + 1;
        [along(h + above + below, 0), along(w + left + right, 1)]
    }

    /// The number, the row and the column of each tap of the window at an output pixel.
    fn taps(&self, i: usize, j: usize) -> impl Iterator<Item = (usize, i64, i64)> {
        let [rows, columns] = self.kernel;
        let from = [i * self.strides[0], j * self.strides[1]].map(|at| at as i64);
        let from = [from[0] - self.pads[0] as i64, from[1] - self.pads[1] as i64];
        (0..rows * columns).map(move |tap| (tap, from[0] + (tap / columns) as i64, from[1] + (tap % columns) as i64))
    }
}

fn conv(node: &Node, x: &Array, kernel: &Array, bias: Option<&Array>) -> Array {
    let window = Windows::of(node);
    let ([n, c, _, _], [filters, depth, r, s]) = (x.extents(), kernel.extents());
    let groups = integer(node, "group") as usize;
    assert_eq!((window.kernel, depth * groups, filters % groups), ([r, s], c, 0), "{}", node.name);
    let [p, q] = window.output(x);
    let sum = |[n, filter, i, j]: [usize; 4]| {
        let first = filter / (filters / groups) * depth;
        let taps = (0..depth).flat_map(|c| window.taps(i, j).map(move |tap| (c, tap)));
        let products = taps.map(|(c, (tap, y, at))| {
            let value = pixel(x, n, first + c, y, at).unwrap_or(0.0);
            value * kernel.values[(filter * depth + c) * r * s + tap]
        });
        products.sum::<f64>() + bias.map_or(0.0, |bias| bias.values[filter])
    };
    Array::new(&[n, filters, p, q], places([n, filters, p, q]).map(sum).collect())
}

fn pooled(x: &Array, number: impl Fn(&[f64]) -> f64) -> Array {
    let [n, c, h, w] = x.extents();
    Array::new(&[n, c, 1, 1], x.values.chunks(h * w).map(number).collect())
}
