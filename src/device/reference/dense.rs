//! Dense layers as three nested loops.

use super::{Reference, relu, relu_gradient};
use crate::device::{DenseKernels, DenseShape, DeviceError, check_lengths};

impl DenseKernels for Reference {
    fn dense_forward(
        &self,
        y: &mut [f64],
        x: &[f64],
        w: &[f64],
        b: &[f64],
        with_relu: bool,
        &DenseShape { n, inputs, outputs }: &DenseShape,
    ) -> Result<(), DeviceError> {
        let operands = [
            ("y", y.len(), n * outputs),
            ("x", x.len(), n * inputs),
            ("w", w.len(), outputs * inputs),
            ("b", b.len(), outputs),
        ];
        check_lengths("dense_forward", &operands)?;
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
        dx: &mut [f64],
        dz: &[f64],
        w: &[f64],
        &DenseShape { n, inputs, outputs }: &DenseShape,
    ) -> Result<(), DeviceError> {
        let operands = [("dx", dx.len(), n * inputs), ("dz", dz.len(), n * outputs), ("w", w.len(), outputs * inputs)];
        check_lengths("dense_backward_data", &operands)?;
        for row in 0..n {
            for i in 0..inputs {
                dx[row * inputs + i] = (0..outputs).map(|o| dz[row * outputs + o] * w[o * inputs + i]).sum();
            }
        }
        Ok(())
    }

    fn dense_backward_weights(
        &self,
        dw: &mut [f64],
        db: &mut [f64],
        dz: &[f64],
        x: &[f64],
        &DenseShape { n, inputs, outputs }: &DenseShape,
    ) -> Result<(), DeviceError> {
        let operands = [
            ("dw", dw.len(), outputs * inputs),
            ("db", db.len(), outputs),
            ("dz", dz.len(), n * outputs),
            ("x", x.len(), n * inputs),
        ];
        check_lengths("dense_backward_weights", &operands)?;
        for row in 0..n {
            for o in 0..outputs {
                db[o] += dz[row * outputs + o];
                for i in 0..inputs {
                    dw[o * inputs + i] += dz[row * outputs + o] * x[row * inputs + i];
                }
            }
        }
        Ok(())
    }

    fn relu_backward(&self, dz: &mut [f64], dy: &[f64], y: &[f64]) -> Result<(), DeviceError> {
        check_lengths("relu_backward", &[("dy", dy.len(), dz.len()), ("y", y.len(), dz.len())])?;
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
        Reference::EXACT.dense_forward(&mut y, &X, &W, &[0.5, -4.0], false, &SHAPE).unwrap();
        assert_eq!(y, [321.5, -3.0, 199.5, -2.0]);
        Reference::EXACT.dense_forward(&mut y, &X, &W, &[0.5, -4.0], true, &SHAPE).unwrap();
        assert_eq!(y, [321.5, 0.0, 199.5, 0.0]);
    }

    #[test]
    fn the_data_gradient_overwrites() {
        let mut dx = vec![f64::NAN; 6];
        Reference::EXACT.dense_backward_data(&mut dx, &[1.0, 2.0, 0.0, -3.0], &W, &SHAPE).unwrap();
        assert_eq!(dx, [1.0, 8.0, 102.0, 0.0, 3.0, -3.0]);
    }

    #[test]
    fn the_parameter_gradients_accumulate() {
        let (mut dw, mut db) = (vec![1000.0; 6], vec![2000.0; 2]);
        Reference::EXACT.dense_backward_weights(&mut dw, &mut db, &[1.0, 2.0, 10.0, -3.0], &X, &SHAPE).unwrap();
        assert_eq!(dw, [991.0, 1002.0, 1023.0, 1005.0, 1004.0, 1000.0]);
        assert_eq!(db, [2011.0, 1999.0]);
    }

    #[test]
    fn a_relu_passes_gradient_where_it_was_awake() {
        let mut dz = vec![f64::NAN; 3];
        Reference::EXACT.relu_backward(&mut dz, &[5.0, 6.0, 7.0], &[0.0, 0.1, 3.0]).unwrap();
        assert_eq!(dz, [0.0, 6.0, 7.0]);
    }

    #[test]
    fn wrong_lengths_name_the_operand() {
        let error = Reference::EXACT.dense_forward(&mut [0.0; 4], &X, &W, &[0.0; 3], false, &SHAPE).unwrap_err();
        assert_eq!(error.to_string(), "dense_forward: operand b has 3 elements, its shape asks for 2");
        assert!(Reference::EXACT.relu_backward(&mut [0.0; 2], &[0.0; 2], &[0.0; 3]).is_err());
    }
}
