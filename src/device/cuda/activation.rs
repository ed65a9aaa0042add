//! What follows a batch norm or a bias, as kernels are told it (`kernels/primitives/element.cuh`).

use super::arguments::arguments;
use crate::device::{Activation, InputTransform, ReduceEpilogue};

arguments! {
    /// The least and the largest value that an activation gives.
    struct Bounds {
        low: f32,
        high: f32,
    }

    /// Where its gradient stops.
    struct Stops {
        low: f32,
        high: f32,
    }
}

impl From<Activation> for Bounds {
    fn from(activation: Activation) -> Self {
        let [low, high] = activation.bounds();
        Bounds { low, high }
    }
}

impl Bounds {
    /// Of an input, which may owe nothing.
    pub(super) fn of<V>(transform: Option<InputTransform<V>>) -> Self {
        transform.map_or(Activation::Linear, |transform| transform.activation).into()
    }
}

impl From<Activation> for Stops {
    fn from(activation: Activation) -> Self {
        // What is infinite passes where there is no bound: nothing compares with NaN.
        let [low, high] = activation.bounds().map(|bound| if bound.is_finite() { bound } else { f32::NAN });
        Stops { low, high }
    }
}

impl Stops {
    /// Of a data gradient's end, if it has one.
    pub(super) fn of<V, M>(epilogue: &Option<ReduceEpilogue<V, M>>) -> Self {
        epilogue.as_ref().map_or(Activation::Linear, |epilogue| epilogue.activation).into()
    }
}
