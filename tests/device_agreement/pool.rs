//! Poolings, on the grid: their ties are real.

use super::{ACTIVATIONS, Array, Case, EPSILON, Output, agree, grid, narrow, norm_before, numbers, sum_tolerance};
use onesheet::device::{
    Activation, Device, GlobalAveragePoolBackward, GlobalMaxPoolBackward, GlobalPoolForward, GlobalPoolShape,
    InputTransform, MaxPoolBackward, MaxPoolForward, Outside, Padding, PoolShape,
};

#[derive(Debug)]
pub struct MaxPool {
    pub shape: PoolShape,
    /// The input is owed a batch norm and this behind it.
    pub norm: Option<Activation>,
    pub seed: u64,
}

impl Case for MaxPool {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let MaxPool { ref shape, norm, seed } = *self;
        let x = Array::activation(device, &grid(seed, shape.input_len()));
        let owed = Array::new(device, &norm_before(norm.unwrap_or_default(), seed + 1, shape.c));
        let transform = norm.map(|activation| InputTransform { norm: owed.view(), activation });
        let dy = Array::activation(device, &narrow(seed + 2, shape.output_len()));
        let [mut y, mut dx] = [shape.output_len(), shape.input_len()].map(|len| Array::blank_activation(device, len));
        device.max_pool_forward(MaxPoolForward { y: y.view_mut(), x: x.view(), transform }, shape).unwrap();
        let operands = MaxPoolBackward { dx: dx.view_mut(), dy: dy.view(), x: x.view(), transform };
        device.max_pool_backward(operands, shape).unwrap();
        let windows = shape.window * shape.window;
        vec![y.output(device, "y", EPSILON), dx.output(device, "dx", sum_tolerance(windows, 1.0))]
    }
}

/// Windows whose pixels are all the least that there can be: minus infinity, or the activation's lower bound.
#[derive(Debug)]
struct AllLeast {
    shape: PoolShape,
    norm: Option<Activation>,
}

impl Case for AllLeast {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let AllLeast { ref shape, norm } = *self;
        let x = Array::activation(device, &vec![f64::NEG_INFINITY; shape.input_len()]);
        let rows = [vec![1.0; shape.c], vec![0.0; 3 * shape.c]].concat();
        let owed = Array::new(device, &rows);
        let transform = norm.map(|activation| InputTransform { norm: owed.view(), activation });
        let dy = Array::activation(device, &narrow(2, shape.output_len()));
        let mut dx = Array::blank_activation(device, shape.input_len());
        let operands = MaxPoolBackward { dx: dx.view_mut(), dy: dy.view(), x: x.view(), transform };
        device.max_pool_backward(operands, shape).unwrap();
        vec![dx.output(device, "dx", sum_tolerance(shape.window * shape.window, 1.0))]
    }
}

#[derive(Debug)]
pub struct Global {
    pub shape: GlobalPoolShape,
    pub seed: u64,
}

impl Case for Global {
    fn run<D: Device>(&self, device: &D) -> Vec<Output> {
        let Global { ref shape, seed } = *self;
        let x = Array::activation(device, &grid(seed, shape.input_len()));
        let dy = Array::new(device, &numbers(seed + 1, shape.output_len()));
        let [mut average, mut maximum] = [(); 2].map(|()| Array::blank(device, shape.output_len()));
        let [mut spread, mut chosen] = [(); 2].map(|()| Array::blank_activation(device, shape.input_len()));
        let operands = GlobalPoolForward { y: average.view_mut(), x: x.view() };
        device.global_average_pool_forward(operands, shape).unwrap();
        let operands = GlobalAveragePoolBackward { dx: spread.view_mut(), dy: dy.view() };
        device.global_average_pool_backward(operands, shape).unwrap();
        let operands = GlobalPoolForward { y: maximum.view_mut(), x: x.view() };
        device.global_max_pool_forward(operands, shape).unwrap();
        let operands = GlobalMaxPoolBackward { dx: chosen.view_mut(), dy: dy.view(), x: x.view() };
        device.global_max_pool_backward(operands, shape).unwrap();
        vec![
            average.output(device, "average", 2.0 * EPSILON),
            spread.output(device, "average's dx", EPSILON),
            maximum.output(device, "maximum", 0.0),
            chosen.output(device, "maximum's dx", 0.0),
        ]
    }
}

/// A pool of an input that owes nothing, and of one that owes a batch norm with each activation behind it; with zeros outside, and
/// with nothing there if each window sees a pixel.
pub fn check(input: [usize; 4], window: usize, stride: usize, pad: impl Into<Padding>, seed: u64) {
    let pad = pad.into();
    let shape = |outside| PoolShape::new(input, window, stride, pad, outside);
    let shapes = [shape(Outside::Zeros).unwrap()].into_iter().chain(shape(Outside::Nothing));
    for shape in shapes {
        for norm in ACTIVATIONS.map(Some).into_iter().chain([None]) {
            agree(&MaxPool { shape, norm, seed });
            agree(&AllLeast { shape, norm });
        }
    }
}

#[test]
fn max_pools() {
    let shapes = [
        // The network's own, few channels; then odd ones.
        ([1, 75, 75, 5], 3, 2, 1),
        ([2, 9, 6, 65], 3, 2, 1),
        ([1, 1, 1, 1], 1, 1, 0),
        ([3, 1, 1, 2], 3, 2, 1),
        ([1, 7, 8, 64], 2, 2, 0),
        ([2, 5, 4, 3], 3, 1, 2),
        ([1, 4, 9, 7], 4, 3, 1),
        ([1, 7, 5, 4], 2, 2, 1),
    ];
    for (seed, (input, window, stride, pad)) in shapes.into_iter().enumerate() {
        check(input, window, stride, pad, 10 * seed as u64);
    }
}

/// Windows that reach farther over one side of the image than over the other.
#[test]
fn padding_on_one_side() {
    for (seed, (before, after)) in [(0, 1), (1, 0), (2, 1), (0, 4)].into_iter().enumerate() {
        for (window, stride) in [(3, 2), (2, 2), (3, 1)] {
            check([2, 8, 7, 3], window, stride, Padding { before, after }, 10 * seed as u64);
        }
    }
}

#[test]
fn global_pools() {
    for (seed, (n, pixels, c)) in
        [(1, 1, 1), (3, 25, 70), (2, 64, 64), (5, 7, 129), (1, 100, 3)].into_iter().enumerate()
    {
        agree(&Global { shape: GlobalPoolShape { n, pixels, c }, seed: 10 * seed as u64 });
    }
}
