//! How the values of a tensor are spread, as TensorBoard takes it.

use crate::protobuf::Message;

/// Buckets of equal width from the smallest value to the largest, as many as TensorBoard's own summaries have.
const BUCKETS: usize = 30;

/// How many values lie in each bucket, and what else TensorBoard shows of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::training) struct Histogram {
    min: f64,
    max: f64,
    count: f64,
    sum: f64,
    sum_of_squares: f64,
    /// Where each bucket ends.
    limits: Vec<f64>,
    /// The values in each.
    buckets: Vec<f64>,
}

impl Histogram {
    /// The finite ones of `values`; none if there is no such.
    pub fn of(values: &[f32]) -> Option<Histogram> {
        let finite = || values.iter().filter(|value| value.is_finite()).map(|&value| f64::from(value));
        let (min, max) =
            finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| (min.min(value), max.max(value)));
        if min > max {
            return None;
        }
        let buckets = if min < max { BUCKETS } else { 1 };
        let width = (max - min) / buckets as f64;
        let mut histogram = Histogram { min, max, buckets: vec![0.0; buckets], ..Histogram::default() };
        histogram.limits = (1..buckets).map(|bucket| min + bucket as f64 * width).chain([max]).collect();
        for value in finite() {
            histogram.count += 1.0;
            histogram.sum += value;
            histogram.sum_of_squares += value * value;
            // The largest value lies at the end of the last; 0 / 0 is 0 here.
            let bucket = ((value - min) / width) as usize;
            histogram.buckets[bucket.min(buckets - 1)] += 1.0;
        }
        Some(histogram)
    }

    /// Whether all values are 0.
    pub fn is_zero(&self) -> bool {
        self.sum_of_squares == 0.0
    }

    /// TensorFlow's `HistogramProto`.
    pub(super) fn message(&self) -> Message {
        let mut message = Message::default();
        let numbers = [self.min, self.max, self.count, self.sum, self.sum_of_squares];
        for (field, number) in (1..).zip(numbers) {
            message.double(field, number);
        }
        message.doubles(6, &self.limits);
        message.doubles(7, &self.buckets);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_its_bucket() {
        let values: Vec<f32> = (0..=60).map(|number| number as f32 / 2.0).collect();
        let histogram = Histogram::of(&values).unwrap();
        let expected: Vec<f64> = (0..30).map(|bucket| if bucket < 29 { 2.0 } else { 3.0 }).collect();
        assert_eq!((histogram.min, histogram.max, histogram.count), (0.0, 30.0, 61.0));
        assert_eq!((histogram.sum, histogram.sum_of_squares), (915.0, 73_810.0 / 4.0));
        assert_eq!((histogram.limits[0], histogram.limits[29]), (1.0, 30.0));
        assert_eq!(histogram.buckets, expected);
    }

    #[test]
    fn values_that_are_all_alike_or_no_numbers_have_no_width() {
        let alike = Histogram::of(&[0.5, f32::NAN, 0.5, f32::INFINITY]).unwrap();
        assert_eq!((alike.min, alike.max, alike.count, alike.sum), (0.5, 0.5, 2.0, 1.0));
        assert_eq!((alike.limits, alike.buckets), (vec![0.5], vec![2.0]));
        assert_eq!(Histogram::of(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(Histogram::of(&[]), None);
    }
}
