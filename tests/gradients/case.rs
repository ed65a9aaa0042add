//! What a gradient check is: a scalar function of named vectors, a claim about its gradient, and finite differences.

use crate::support::{compare, generator, seeded};
use onesheet::device::reference::Reference;
use onesheet::device::{Activation, ConvForward, ConvKernels, ConvShape, InputTransform};
use rand::RngExt;
use std::collections::BTreeMap;

/// Half the distance between the two points of a central difference.
const STEP: f64 = 1e-6;
const ATOL: f64 = 1e-6;
const RTOL: f64 = 1e-5;
/// Vectors up to this long are checked element by element, longer ones at this many elements.
const ELEMENTS: usize = 24;

/// Random shapes a backward kernel is tried on.
pub const SHAPES: u64 = 20;

/// Named vectors: where a function is looked at, or its gradient there.
pub type Point = BTreeMap<&'static str, Vec<f64>>;

/// A scalar function put together from forward kernels, with the gradient that the backward kernels give for it.
pub trait Case {
    /// What to call it in a failure.
    fn name(&self) -> String;
    /// Where to look.
    fn point(&self) -> &Point;
    /// The function, from forward kernels alone.
    fn loss(&self, at: &Point) -> f64;
    /// Its gradient at [`Case::point`], from backward kernels.
    fn gradients(&self) -> Point;
}

/// Whether `claimed` is the gradient of the case's function, vector by vector.
pub fn check(case: &impl Case, claimed: &Point) -> Result<(), String> {
    let point = case.point();
    if !claimed.keys().eq(point.keys()) {
        return Err(format!("{}: gradients of {:?} claimed", case.name(), claimed.keys()));
    }
    claimed.iter().try_for_each(|(&name, found)| {
        let loss = |values: &[f64]| {
            let mut to = point.clone();
            to.insert(name, values.to_vec());
            case.loss(&to)
        };
        check_vector(&format!("{}, d{name}", case.name()), &point[name], found, loss)
    })
}

/// Whether `claimed` is the gradient of `loss` at `at`: element by element (some elements of a long vector), and along one
/// random direction, which no element escapes. The message names the worst disagreement.
pub fn check_vector(what: &str, at: &[f64], claimed: &[f64], loss: impl Fn(&[f64]) -> f64) -> Result<(), String> {
    if claimed.len() != at.len() {
        return Err(format!("{what}: {} numbers for {}", claimed.len(), at.len()));
    }
    // The slope of the loss along a direction given as (element, weight) pairs.
    let slope = |direction: &[(usize, f64)]| {
        let moved = |by: f64| {
            let mut to = at.to_vec();
            direction.iter().for_each(|&(i, weight)| to[i] += by * weight);
            loss(&to)
        };
        (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
    };
    let seed = at.len() as u64;
    let mut random = generator(seed);
    let elements: Vec<usize> = match at.len() {
        len @ ..=ELEMENTS => (0..len).collect(),
        len => (0..ELEMENTS).map(|_| random.random_range(0..len)).collect(),
    };
    let direction: Vec<(usize, f64)> = seeded(seed, at.len(), -1.0, 1.0).into_iter().enumerate().collect();
    let mut slopes: Vec<f64> = elements.iter().map(|&i| slope(&[(i, 1.0)])).collect();
    let mut claims: Vec<f64> = elements.iter().map(|&i| claimed[i]).collect();
    slopes.push(slope(&direction));
    claims.push(direction.iter().map(|&(i, weight)| claimed[i] * weight).sum());
    compare(&format!("{what}, elements {elements:?} and a line"), &claims, &slopes, ATOL, RTOL)
}

/// [`check`]s what the backward kernels say themselves.
#[track_caller]
pub fn assert_gradients(case: &impl Case) {
    if let Err(mismatch) = check(case, &case.gradients()) {
        panic!("{mismatch}");
    }
}

/// What an allocation holds: NaN, so that a kernel which leaves out an element is found out.
pub fn fresh(len: usize) -> Vec<f64> {
    vec![f64::NAN; len]
}

/// `Σ a·b`: a function of `a` whose gradient is `b`.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Numbers around zero for the vector `name` of the case with this seed.
pub fn values(seed: u64, name: &str, len: usize) -> Vec<f64> {
    let salt = name.bytes().fold(seed, |hash, byte| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte));
    seeded(salt, len, -1.0, 1.0)
}

/// A point of such vectors.
pub fn point<const N: usize>(seed: u64, vectors: [(&'static str, usize); N]) -> Point {
    vectors.into_iter().map(|(name, len)| (name, values(seed, name, len))).collect()
}

/// The convolution of `x`, which owes what `norm` says.
pub fn convolve(x: &[f64], norm: Option<&[f64]>, w: &[f64], bias: Option<&[f64]>, shape: &ConvShape) -> Vec<f64> {
    let mut y = fresh(shape.output_len());
    let transform = norm.map(|norm| InputTransform { norm, activation: Activation::Relu });
    Reference::EXACT
        .conv_forward(
            ConvForward { y: &mut y, stats: None, x, transform, w, bias, activation: Activation::Linear },
            shape,
        )
        .unwrap();
    y
}

/// `norm [4, C]` whose scale and shift are vectors of the point and whose mean is given; the inverse standard deviation
/// is for nobody to read.
pub fn free_norm(at: &Point, mean: &[f64]) -> Vec<f64> {
    [&at["scale"], &at["shift"], mean, &fresh(mean.len())].concat()
}

/// The gradients of `x`, `scale` and `shift` of `a = relu(scale·x + shift)`, from what a mask-and-reduce kernel left: the
/// masked gradient `dz` and `sums`.
pub fn behind_transform(at: &Point, mean: &[f64], dz: &[f64], sums: &[f64]) -> [(&'static str, Vec<f64>); 3] {
    let channels = mean.len();
    let (shift, centred) = sums.split_at(channels);
    let dx = dz.iter().enumerate().map(|(i, dz)| at["scale"][i % channels] * dz).collect();
    // Σ dz·x, of which the kernel gives Σ dz·(x − mean).
    let scale = (0..channels).map(|c| centred[c] + mean[c] * shift[c]).collect();
    [("x", dx), ("scale", scale), ("shift", shift.to_vec())]
}
