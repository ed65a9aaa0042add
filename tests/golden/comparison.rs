//! The comparison that all other tests rest on, itself fed wrong answers.

use super::support::{assert_close, compare, seeded};

#[test]
fn accepts_what_lies_within_the_tolerances() {
    assert_close("equal", &[1.0, -2.0], &[1.0, -2.0], 0.0, 0.0);
    assert_close("absolute", &[0.25], &[0.0], 0.25, 0.0);
    assert_close("relative", &[-125.0], &[-100.0], 0.0, 0.25);
    assert_close("nothing", &[], &[], 0.0, 0.0);
}

#[test]
fn names_the_worst_element_with_both_values() {
    let message = compare("dx", &[1.0, 2.5, 3.1], &[1.0, 2.0, 3.0], 1e-3, 0.0).unwrap_err();
    assert!(
        message.starts_with("dx: 2 of 3 elements differ; the worst is [1]: found 2.5e0, expected 2e0"),
        "{message}"
    );
}

#[test]
fn refuses_nan_and_infinity_on_either_side() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for (found, expected) in [(bad, 1.0), (1.0, bad), (bad, bad)] {
            let message = compare("y", &[0.0, found, 0.0], &[5.0, expected, 0.0], 1e9, 1e9).unwrap_err();
            assert!(message.contains("worst is [1]"), "{message}");
        }
    }
}

#[test]
fn refuses_unequal_lengths() {
    assert!(compare("y", &[1.0], &[1.0, 2.0], 1.0, 1.0).is_err());
    assert!(compare("y", &[1.0], &[], 1.0, 1.0).is_err());
}

#[test]
#[should_panic(expected = "found 2e0, expected 1e0")]
fn the_assertion_panics() {
    assert_close("y", &[2.0], &[1.0], 0.5, 0.0);
}

#[test]
fn seeded_numbers_repeat_and_stay_in_range() {
    let numbers = seeded(7, 1000, -1.0, 3.0);
    assert_eq!(numbers, seeded(7, 1000, -1.0, 3.0));
    assert_ne!(numbers, seeded(8, 1000, -1.0, 3.0));
    assert!(numbers.iter().all(|x| (-1.0..3.0).contains(x)));
    assert!(numbers.iter().any(|&x| x < -0.9) && numbers.iter().any(|&x| x > 2.9));
}
