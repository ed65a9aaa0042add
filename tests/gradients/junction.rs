//! Where a residual block ends: `relu(bn(conv(x)) + shortcut)`, or the sum alone, with the identity and with a projection.

use crate::batch_norm::{Tamper, rows, train};
use crate::case::{Case, Point, SHAPES, assert_gradients, dot, fresh, point, values};
use onesheet::device::reference::Reference;
use onesheet::device::{
    BatchNormBackwardFinalise, BatchNormKernels, ConvBackwardData, ConvBackwardWeights, ConvKernels, ConvShape, Masked,
    OutputGradient, Projection, ResidualBackward, ResidualForward,
};

/// `Σ dout·relu(bn(conv(x, w)) + x)`, or with `bn(conv(x, w₀))` in place of the last `x`, or without the ReLU.
pub struct Junction {
    branch: ConvShape,
    projection: Option<ConvShape>,
    relu: bool,
    point: Point,
    dout: Vec<f64>,
}

/// A branch of the junction, forward: its names in the point, its raw output, its `norm`.
struct Branch<'a> {
    shape: &'a ConvShape,
    names: [&'static str; 3],
    y: Vec<f64>,
    norm: Vec<f64>,
}

impl<'a> Branch<'a> {
    fn forward(at: &Point, shape: &'a ConvShape, names: [&'static str; 3]) -> Self {
        let [w, gamma, beta] = names;
        let (y, norm) = train(&at["x"], &at[w], &at[gamma], &at[beta], shape);
        Branch { shape, names, y, norm }
    }

    /// Adds what the branch owes to `dx`, and puts the gradients of its parameters beside it.
    fn backward(&self, at: &Point, dz: &[f64], sums: &[f64], dx: &mut [f64], gradients: &mut Point) {
        let (shape, [w, gamma, beta]) = (self.shape, self.names);
        let (mut k, mut dgamma, mut dbeta) = (fresh(3 * shape.k), vec![0.0; shape.k], vec![0.0; shape.k]);
        let operands = BatchNormBackwardFinalise {
            k: &mut k[..],
            dgamma: &mut dgamma[..],
            dbeta: &mut dbeta[..],
            sums,
            gamma: &at[gamma],
            norm: &self.norm,
        };
        Reference::EXACT.batch_norm_backward_finalise(operands, rows(shape)).unwrap();
        let owed = OutputGradient::Owed { dz, y: &self.y[..], k: &k[..] };
        let mut dw = vec![0.0; shape.weights_len()];
        let operands = ConvBackwardWeights { dw: &mut dw[..], dy: owed, x: &at["x"][..], transform: None };
        Reference::EXACT.conv_backward_weights(operands, shape).unwrap();
        let operands = ConvBackwardData { dx, accumulate: true, epilogue: None, dy: owed, w: &at[w] };
        Reference::EXACT.conv_backward_data(operands, shape).unwrap();
        gradients.extend([(w, dw), (gamma, dgamma), (beta, dbeta)]);
    }
}

impl Junction {
    /// A 3×3 branch over `extents`, beside the identity or a 1×1 projection, both with this stride.
    pub fn draw(seed: u64, extents: [usize; 4], projected: Option<(usize, usize)>, relu: bool) -> Self {
        let (filters, stride) = projected.unwrap_or((extents[3], 1));
        let branch = ConvShape::new(extents, filters, [3, 3], stride, 1).unwrap();
        let projection = projected.map(|_| ConvShape::new(extents, filters, [1, 1], stride, 0).unwrap());
        let vectors = [("x", branch.input_len()), ("w", branch.weights_len()), ("gamma", filters), ("beta", filters)];
        let mut point = point(seed, vectors);
        if let Some(shape) = projection {
            let vectors = [("w0", shape.weights_len()), ("gamma0", filters), ("beta0", filters)];
            point.extend(vectors.map(|(name, len)| (name, values(seed, name, len))));
        }
        Junction { branch, projection, relu, point, dout: values(seed, "dout", branch.output_len()) }
    }

    fn forward(&self, at: &Point) -> (Branch<'_>, Option<Branch<'_>>, Vec<f64>) {
        let branch = Branch::forward(at, &self.branch, ["w", "gamma", "beta"]);
        let projection = self.projection.as_ref().map(|shape| Branch::forward(at, shape, ["w0", "gamma0", "beta0"]));
        let (shortcut, shortcut_norm) = match &projection {
            Some(projection) => (&projection.y[..], Some(&projection.norm[..])),
            None => (&at["x"][..], None),
        };
        let mut out = fresh(self.dout.len());
        let (y, norm) = (&branch.y[..], &branch.norm[..]);
        let operands = ResidualForward { out: &mut out[..], y, norm, shortcut, shortcut_norm, relu: self.relu };
        Reference::EXACT.residual_forward(operands, rows(&self.branch)).unwrap();
        (branch, projection, out)
    }

    /// The gradients, with a hand on what reaches the shortcut.
    pub fn gradients_tampered(&self, tamper: Tamper) -> Point {
        let at = &self.point;
        let (branch, projection, out) = self.forward(at);
        let (mut dz, mut sums, mut beside) = (fresh(out.len()), fresh(2 * self.branch.k), fresh(2 * self.branch.k));
        let projected = projection.as_ref().map(|projection| Projection {
            sums: &mut beside[..],
            y: &projection.y[..],
            norm: &projection.norm[..],
        });
        let operands = ResidualBackward {
            masked: self.relu.then_some(Masked { dz: &mut dz[..], out: &out[..] }),
            sums: &mut sums[..],
            dout: &self.dout[..],
            y: &branch.y[..],
            norm: &branch.norm[..],
            projection: projected,
        };
        Reference::EXACT.residual_backward(operands, rows(&self.branch)).unwrap();
        let dz = if self.relu { dz } else { self.dout.clone() };
        let mut shortcut = dz.clone();
        tamper("shortcut", &mut shortcut);
        let mut gradients = Point::new();
        let mut dx = match projection {
            Some(projection) => {
                let mut dx = vec![0.0; self.branch.input_len()];
                projection.backward(at, &shortcut, &beside, &mut dx, &mut gradients);
                dx
            }
            None => shortcut,
        };
        branch.backward(at, &dz, &sums, &mut dx, &mut gradients);
        gradients.insert("x", dx);
        gradients
    }
}

impl Case for Junction {
    fn name(&self) -> String {
        format!("{:?} beside {:?}, relu: {}", self.branch, self.projection, self.relu)
    }

    fn point(&self) -> &Point {
        &self.point
    }

    fn loss(&self, at: &Point) -> f64 {
        dot(&self.forward(at).2, &self.dout)
    }

    fn gradients(&self) -> Point {
        self.gradients_tampered(|_, _| {})
    }
}

#[test]
fn random_shapes() {
    for seed in 0..SHAPES {
        let s = seed as usize;
        let extents = [1 + s % 3, 3 + s % 5, 3 + s % 7, 1 + s % 4];
        for relu in [false, true] {
            assert_gradients(&Junction::draw(seed, extents, None, relu));
            assert_gradients(&Junction::draw(seed, extents, Some((1 + s % 5, 1 + s % 2)), relu));
        }
    }
}

#[test]
fn the_networks_shapes() {
    for (seed, size) in (100..).zip([38, 19, 10, 5]) {
        for relu in [false, true] {
            assert_gradients(&Junction::draw(seed, [2, size, size - 1, 3], None, relu));
            assert_gradients(&Junction::draw(seed, [2, size, size + 1, 2], Some((3, 2)), relu));
        }
    }
}
