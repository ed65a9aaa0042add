//! The check checked: bugs of the kind one makes in a backward kernel, each of which it must reject.

use crate::batch_norm::{Chain, Consumer, Tamper, random_pair};
use crate::case::{Case, Point, check};
use crate::conv::{Activated, Convolution, Transformed};
use crate::dense::Dense;
use crate::junction::Junction;
use crate::loss::CrossEntropy;
use crate::pool::{GlobalPool, MaxPool};
use onesheet::device::{Activation, ConvShape, DenseShape, GlobalPoolShape, LossShape, Outside, PoolShape};

/// Asserts that the honest gradients pass and the `wrong` ones do not.
#[track_caller]
fn assert_caught(case: &impl Case, wrong: &Point) {
    check(case, &case.gradients()).expect("the honest gradients pass");
    let verdict = check(case, wrong);
    assert!(verdict.is_err(), "{}: a wrong gradient passed", case.name());
}

fn convolution() -> Convolution {
    Convolution::draw(1, ConvShape::new([2, 7, 6, 3], 4, [3, 3], 2, 1).unwrap())
}

#[test]
fn a_flipped_sign() {
    let case = convolution();
    let mut wrong = case.gradients();
    wrong.get_mut("w").unwrap().iter_mut().for_each(|dw| *dw = -*dw);
    assert_caught(&case, &wrong);
}

#[test]
fn a_missing_tap() {
    let case = convolution();
    let mut without = convolution();
    let taps = without.point.get_mut("w").unwrap();
    taps[..case.shape.c].fill(0.0);
    assert_caught(&case, &without.gradients());
}

#[test]
fn padding_off_by_one() {
    let case = convolution();
    assert_caught(&case, &case.gradients_over(&ConvShape { pad: 0, ..case.shape }));
    assert_caught(&case, &case.gradients_over(&ConvShape { pad: 2, ..case.shape }));
}

#[test]
fn an_earlier_gradient_overwritten() {
    let case = convolution();
    let mut alone = convolution();
    alone.other.fill(0.0);
    assert_caught(&case, &alone.gradients());
}

#[test]
fn a_transform_not_applied_to_the_weight_gradient() {
    let case = Transformed::draw(2, ConvShape::new([2, 5, 6, 3], 2, [3, 3], 1, 1).unwrap());
    assert_caught(&case, &case.gradients_loading(None));
}

#[test]
fn a_convolutions_activation_forgotten() {
    for seed in [2, 3] {
        let case = Activated::draw(seed, ConvShape::new([2, 5, 6, 3], 2, [3, 3], 1, 1).unwrap());
        let unmasked = case.gradients_masked(Activation::Linear);
        assert_caught(&case, &unmasked);
        // The gradient of the bias alone.
        let mut wrong = case.gradients();
        wrong.insert("bias", unmasked["bias"].clone());
        assert_caught(&case, &wrong);
    }
}

/// A chain of every form, and what tampering with it leaves.
#[track_caller]
fn assert_caught_in_chain(tamper: Tamper) {
    for consumer in [Consumer::Convolution, Consumer::Applied] {
        let case = Chain::draw(3, random_pair(3), consumer, false);
        assert_caught(&case, &case.gradients_tampered(tamper));
    }
}

#[test]
fn a_missing_mask() {
    let case = Dense::draw(4, DenseShape { n: 3, inputs: 5, outputs: 4 }, true);
    assert_caught(&case, &case.gradients_from(case.dy()));
    // What a mask has zeroed comes through.
    assert_caught_in_chain(|name, dz| {
        if name == "dz" {
            dz.iter_mut().filter(|dz| **dz == 0.0).for_each(|dz| *dz = 0.5);
        }
    });
}

#[test]
fn sums_of_the_plain_gradient() {
    assert_caught_in_chain(|name, sums| {
        if name == "sums" {
            let (plain, centred) = sums.split_at_mut(sums.len() / 2);
            centred.copy_from_slice(plain);
        }
    });
}

#[test]
fn swapped_rows_of_k() {
    assert_caught_in_chain(|name, k| {
        if name == "k" {
            let channels = k.len() / 3;
            k[channels..].rotate_left(channels);
        }
    });
}

#[test]
fn statistics_taken_for_constants() {
    assert_caught_in_chain(|name, k| {
        if name == "k" {
            let channels = k.len() / 3;
            k[channels..].fill(0.0);
        }
    });
}

#[test]
fn a_dropped_shortcut() {
    for projected in [None, Some((3, 2))] {
        let case = Junction::draw(5, [2, 5, 6, 3], projected, true);
        assert_caught(&case, &case.gradients_tampered(|_, shortcut| shortcut.fill(0.0)));
    }
}

#[test]
fn a_pool_that_pays_the_wrong_pixel() {
    let case = MaxPool::draw(6, PoolShape::new([2, 7, 6, 2], 3, 2, 1, Outside::Zeros).unwrap());
    let mut wrong = case.gradients();
    wrong.get_mut("x").unwrap().rotate_right(case.shape.c);
    assert_caught(&case, &wrong);
}

#[test]
fn a_pool_deaf_to_its_padding() {
    // Everything is below zero, so the padding wins every window it reaches.
    let mut case = MaxPool::draw(6, PoolShape::new([1, 4, 5, 2], 3, 2, 1, Outside::Zeros).unwrap());
    case.point.get_mut("x").unwrap().iter_mut().for_each(|x| *x = -x.abs());
    let mut wrong = case.gradients();
    wrong.get_mut("x").unwrap()[0] += case.dy[0];
    assert_caught(&case, &wrong);
}

#[test]
fn a_pool_that_sees_zeros_where_nothing_is() {
    let shape = PoolShape::new([1, 4, 5, 2], 3, 2, 1, Outside::Nothing).unwrap();
    let mut case = MaxPool::draw(6, shape);
    case.point.get_mut("x").unwrap().iter_mut().for_each(|x| *x = -x.abs());
    case.shape.outside = Outside::Zeros;
    let wrong = case.gradients();
    case.shape = shape;
    assert_caught(&case, &wrong);
}

#[test]
fn an_average_not_divided() {
    let case = GlobalPool::draw(7, GlobalPoolShape { n: 2, pixels: 25, c: 3 }, false);
    let mut wrong = case.gradients();
    wrong.get_mut("x").unwrap().iter_mut().for_each(|dx| *dx *= 25.0);
    assert_caught(&case, &wrong);
}

#[test]
fn class_weights_forgotten() {
    let case = CrossEntropy::draw(8, LossShape { n: 4, classes: 7 });
    assert_caught(&case, &case.gradients_weighted(&[1.0; 7]));
}

#[test]
fn one_wrong_element_among_thousands() {
    // No sampled element: only the random direction can see it.
    let case = Convolution::draw(9, ConvShape::new([1, 75, 74, 1], 1, [3, 3], 1, 1).unwrap());
    let mut wrong = case.gradients();
    wrong.get_mut("x").unwrap()[4321] += 0.01;
    assert_caught(&case, &wrong);
}

#[test]
fn what_is_no_number_or_not_there() {
    let case = convolution();
    let mut wrong = case.gradients();
    wrong.get_mut("bias").unwrap()[0] = f64::NAN;
    assert_caught(&case, &wrong);
    let mut wrong = case.gradients();
    wrong.get_mut("bias").unwrap().pop();
    assert_caught(&case, &wrong);
    let mut wrong = case.gradients();
    wrong.remove("bias");
    assert_caught(&case, &wrong);
}
