//! Dense layers as three nested loops.

use super::{Reference, relu, relu_gradient};
use crate::device::{
    DenseBackwardData, DenseBackwardWeights, DenseForward, DenseKernels, DenseShape, DeviceError, ReluBackward,
};

impl DenseKernels for Reference {
    fn dense_forward(&self, operands: DenseForward<&[f64], &mut [f64]>, shape: &DenseShape) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DenseForward { y, relu: with_relu, x, w, b } = operands;
        let (x, w) = (self.dense_factors(x), self.dense_factors(w));
        let DenseShape { n, inputs, outputs } = *shape;
        for row in 0..n {
            for o in 0..outputs {
                let product: f64 = (0..inputs).map(|i| x[row * inputs + i] * w[o * inputs + i]).sum();
                let z = product + b[o];
                y[row * outputs + o] = if with_relu { relu(z) } else { z };
            }
        }
        Ok(())
    }

    fn dense_backward_data(
        &self,
        operands: DenseBackwardData<&[f64], &mut [f64]>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DenseBackwardData { dx, dz, w } = operands;
        let (dz, w) = (self.dense_factors(dz), self.dense_factors(w));
        let DenseShape { n, inputs, outputs } = *shape;
        for row in 0..n {
            for i in 0..inputs {
                dx[row * inputs + i] = (0..outputs).map(|o| dz[row * outputs + o] * w[o * inputs + i]).sum();
            }
        }
        Ok(())
    }

    fn dense_backward_weights(
        &self,
        operands: DenseBackwardWeights<&[f64], &mut [f64]>,
        shape: &DenseShape,
    ) -> Result<(), DeviceError> {
        operands.check(shape)?;
        let DenseBackwardWeights { dw, db, dz, x } = operands;
        let DenseShape { n, inputs, outputs } = *shape;
        let (rounded, x) = (self.dense_factors(dz), self.dense_factors(x));
        for row in 0..n {
            for o in 0..outputs {
                db[o] += dz[row * outputs + o];
                for i in 0..inputs {
                    dw[o * inputs + i] += rounded[row * outputs + o] * x[row * inputs + i];
                }
            }
        }
        Ok(())
    }

    fn relu_backward(&self, operands: ReluBackward<&[f64], &mut [f64]>) -> Result<(), DeviceError> {
        operands.check()?;
        let ReluBackward { dz, dy, y } = operands;
        for i in 0..dz.len() {
            dz[i] = relu_gradient(y[i], dy[i]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows, from three columns to two.
    const SHAPE: DenseShape = DenseShape { n: 2, inputs: 3, outputs: 2 };
    const X: [f64; 6] = [1.0, 2.0, 3.0, -1.0, 0.0, 2.0];
    const W: [f64; 6] = [1.0, 10.0, 100.0, 0.0, -1.0, 1.0];

    #[test]
    fn weights_are_one_row_an_output() {
        let mut y = vec![f64::NAN; 4];
        for (relu, expected) in [(false, [321.5, -3.0, 199.5, -2.0]), (true, [321.5, 0.0, 199.5, 0.0])] {
            let operands = DenseForward { y: &mut y[..], relu, x: &X[..], w: &W, b: &[0.5, -4.0] };
            Reference::EXACT.dense_forward(operands, &SHAPE).unwrap();
            assert_eq!(y, expected);
        }
    }

    #[test]
    fn the_data_gradient_overwrites() {
        let mut dx = vec![f64::NAN; 6];
        let operands = DenseBackwardData { dx: &mut dx[..], dz: &[1.0, 2.0, 0.0, -3.0][..], w: &W };
        Reference::EXACT.dense_backward_data(operands, &SHAPE).unwrap();
        assert_eq!(dx, [1.0, 8.0, 102.0, 0.0, 3.0, -3.0]);
    }

    #[test]
    fn the_parameter_gradients_accumulate() {
        let (mut dw, mut db) = (vec![1000.0; 6], vec![2000.0; 2]);
        let operands = DenseBackwardWeights { dw: &mut dw[..], db: &mut db, dz: &[1.0, 2.0, 10.0, -3.0][..], x: &X };
        Reference::EXACT.dense_backward_weights(operands, &SHAPE).unwrap();
        assert_eq!(dw, [991.0, 1002.0, 1023.0, 1005.0, 1004.0, 1000.0]);
        assert_eq!(db, [2011.0, 1999.0]);
    }

    #[test]
    fn a_relu_passes_gradient_where_it_was_awake() {
        let mut dz = vec![f64::NAN; 3];
        let operands = ReluBackward { dz: &mut dz[..], dy: &[5.0, 6.0, 7.0][..], y: &[0.0, 0.1, 3.0] };
        Reference::EXACT.relu_backward(operands).unwrap();
        assert_eq!(dz, [0.0, 6.0, 7.0]);
    }

    #[test]
    fn wrong_lengths_name_the_operand() {
        let operands = DenseForward { y: &mut [0.0; 4][..], relu: false, x: &X[..], w: &W, b: &[0.0; 3] };
        let error = Reference::EXACT.dense_forward(operands, &SHAPE).unwrap_err();
        assert_eq!(error.to_string(), "dense_forward: operand b has 3 elements, its shape asks for 2");
        let operands = DenseBackwardData { dx: &mut [0.0; 6][..], dz: &[0.0; 3][..], w: &W };
        let error = Reference::EXACT.dense_backward_data(operands, &SHAPE).unwrap_err();
        assert_eq!(error.to_string(), "dense_backward_data: operand dz has 3 elements, its shape asks for 4");
        let operands = DenseBackwardWeights { dw: &mut [0.0; 6][..], db: &mut [0.0], dz: &[0.0; 4][..], x: &X };
        let error = Reference::EXACT.dense_backward_weights(operands, &SHAPE).unwrap_err();
        assert_eq!(error.to_string(), "dense_backward_weights: operand db has 1 elements, its shape asks for 2");
        let operands = ReluBackward { dz: &mut [0.0; 2][..], dy: &[0.0; 2][..], y: &[0.0; 3] };
        let error = Reference::EXACT.relu_backward(operands).unwrap_err();
        assert_eq!(error.to_string(), "relu_backward: operand y has 3 elements, its shape asks for 2");
    }
}
