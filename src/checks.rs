//! Looking at every result of a step, to find the first that is not finite.
//!
//! Costly, and for one step at a time: each result is brought to the host. A [`Tape::checking`](crate::autograd::Tape::checking) does
//! it; the layer families say by `check` what their results are.

use crate::device::{Pass, Real};
use std::cell::RefCell;
use std::fmt;

/// Numbers that are not finite, in one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct NonFinite {
    /// The layer, by Keras's name, or `loss`.
    pub layer: String,
    /// The pass whose result the tensor is; none if it is the model's own and was so before the step.
    pub pass: Option<Pass>,
    /// The layer's tensor in words: `its kernel`, `its output`, `the gradient of its input`, …
    pub tensor: String,
    /// How many of its numbers are not finite.
    pub count: usize,
    /// Its numbers in all.
    pub elements: usize,
    /// The index of the first that is not.
    pub first: usize,
    /// That number: NaN or an infinity.
    pub value: f64,
}

impl NonFinite {
    /// Those among `values`, if there are any.
    pub fn among<R: Real>(layer: &str, pass: Option<Pass>, tensor: &str, values: &[R]) -> Option<Self> {
        let is_bad = |value: &R| !(*value).into().is_finite();
        let first = values.iter().position(is_bad)?;
        let count = values.iter().filter(|value| is_bad(value)).count();
        let (elements, value) = (values.len(), values[first].into());
        Some(NonFinite { layer: layer.into(), pass, tensor: tensor.into(), count, elements, first, value })
    }
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NonFinite { layer, pass, tensor, count, elements, first, value } = self;
        match pass {
            Some(pass) => write!(f, "layer {layer}, {} pass: ", pass.name())?,
            None => write!(f, "layer {layer}, before the step: ")?,
        }
        let are = if *count == 1 { "is" } else { "are" };
        write!(f, "{count} of {elements} numbers of {tensor} {are} not finite, the first is {value} at index {first}")
    }
}

/// What has been seen of a step so far.
pub(crate) struct Checks {
    layer: RefCell<String>,
    pass: RefCell<Pass>,
    found: RefCell<Option<NonFinite>>,
}

impl Checks {
    pub(crate) fn new() -> Self {
        Checks { layer: RefCell::default(), pass: RefCell::new(Pass::Forward), found: RefCell::default() }
    }

    /// What comes next is of this layer and pass.
    pub(crate) fn enter(&self, layer: &str, pass: Pass) {
        *self.layer.borrow_mut() = layer.into();
        *self.pass.borrow_mut() = pass;
    }

    /// The layer it is at.
    pub(crate) fn layer(&self) -> String {
        self.layer.borrow().clone()
    }

    /// Whether nothing bad has been found yet. What follows a bad number is bad as well, and nobody asks for it.
    pub(crate) fn goes_on(&self) -> bool {
        self.found.borrow().is_none()
    }

    /// Looks at a result of the layer.
    pub(crate) fn look<R: Real>(&self, tensor: &str, values: &[R]) {
        let found = NonFinite::among(&self.layer.borrow(), Some(*self.pass.borrow()), tensor, values);
        if self.goes_on() {
            *self.found.borrow_mut() = found;
        }
    }

    /// The first bad result.
    pub(crate) fn into_found(self) -> Option<NonFinite> {
        self.found.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bad_result_is_named() {
        let checks = Checks::new();
        checks.enter("conv1_conv", Pass::Forward);
        checks.look("its output", &[1.0f32, f32::MAX, -0.0]);
        assert!(checks.goes_on());
        checks.enter("head_6", Pass::Backward);
        checks.look("the gradient of its kernel", &[1.0f32, f32::NEG_INFINITY, f32::NAN, 2.0]);
        checks.look("the gradient of its input", &[f32::NAN]);
        let found = checks.into_found().unwrap();
        assert_eq!((found.count, found.elements, found.first, found.value), (2, 4, 1, f64::NEG_INFINITY));
        assert_eq!(
            found.to_string(),
            "layer head_6, backward pass: 2 of 4 numbers of the gradient of its kernel are not finite, the first is -inf \
             at index 1"
        );
        let weight = NonFinite::among("head_6", None, "its kernel", &[f64::NAN]).unwrap();
        assert_eq!(
            weight.to_string(),
            "layer head_6, before the step: 1 of 1 numbers of its kernel is not finite, the first is NaN at index 0"
        );
    }
}
