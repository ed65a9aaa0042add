//! TensorBoard's event files: a sequence of records, each a protobuf message `Event`.
//!
//! The messages are those of TensorFlow's `event.proto` and `summary.proto`, as far as a run has use for them. A record is framed as in
//! `tensorflow/core/lib/io/record_writer.h`: its length as a `u64`, a checksum of that length, the message, a checksum of the message,
//! all little-endian. A checksum is CRC-32C, rotated and moved by a constant, so that checksums of checksums are no trouble.

mod histogram;

use super::run_folder::{EpochRow, StepRow};
use crate::metrics::Scores;
use crate::protobuf::{Field, Message, fields};
use clap::ValueEnum;
use crc::{CRC_32_ISCSI, Crc};
use histogram::Histogram;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageError};
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// How much a run tells TensorBoard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TensorBoard {
    /// Nothing
    Off,
    /// The numbers of steps.csv and log.csv, ROC-AUC, and F1 and average precision of each genre
    #[default]
    Scalars,
    /// These, after each epoch histograms of every weight and gradient, and a few training posters with their genres
    Histograms,
}

/// The version that readers look for in the first record.
const VERSION: &str = "brain.Event:2";

/// A record: what happened at a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// Seconds since 1970.
    wall_time: f64,
    /// Steps done.
    pub step: u64,
    pub what: What,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    /// The version of the format.
    Version,
    /// That a trainer began. Readers forget what they knew of its step and those behind it.
    Start,
    /// Values of a step, or of an epoch that ended with it.
    Values(Vec<Value>),
}

/// A value under its name. What stands before a slash in the name is the group that TensorBoard shows it in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    pub name: String,
    pub shown: Shown,
}

/// As what a value is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shown {
    Number(f32),
    Histogram(Histogram),
    /// A poster as PNG, and its side.
    Poster(Vec<u8>, usize),
}

/// The name of an epoch's number.
const EPOCH: &str = "epoch/epoch";

impl Event {
    fn at(step: u64, what: What) -> Event {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Event { wall_time, step, what }
    }

    /// The two records that a file begins with when the first that follows is of `step`.
    pub fn opening(step: u64) -> [Event; 2] {
        [Event::at(0, What::Version), Event::at(step, What::Start)]
    }

    /// A row of `steps.csv`.
    pub fn of_step(row: &StepRow) -> Event {
        let StepRow { step, loss, learning_rate, images_per_second, gradient_norm } = *row;
        let columns = [
            ("loss", loss),
            ("learning_rate", learning_rate),
            ("images_per_second", images_per_second),
            ("gradient_norm", gradient_norm),
        ];
        let values = columns.map(|(column, value)| Value::number(format!("step/{column}"), value));
        Event::at(step, What::Values(values.to_vec()))
    }

    /// A row of `log.csv`, the `scores` behind it of these `genres`, and `more`.
    pub fn of_epoch(row: &EpochRow, scores: &Scores, genres: &[String], more: Vec<Value>) -> Event {
        let columns = [
            ("train_loss", row.train_loss),
            ("validation_loss", row.validation_loss),
            ("binary_accuracy", row.binary_accuracy),
            ("weighted_f1", row.weighted_f1),
            ("coin_f1", row.coin_f1),
            ("always_yes_f1", row.always_yes_f1),
            ("mean_average_precision", row.mean_average_precision),
            ("learning_rate", row.learning_rate),
            ("seconds", row.seconds),
        ];
        let mut values = vec![Value::number(EPOCH.into(), f64::from(row.epoch))];
        values.extend(columns.map(|(column, value)| Value::number(format!("epoch/{column}"), value)));
        values.extend(scores.unweighted.roc_auc.map(|auc| Value::number("epoch/roc_auc".into(), auc)));
        for (genre, scores) in genres.iter().zip(&scores.genres) {
            values.push(Value::number(format!("f1/{genre}"), scores.counts.f1()));
            // A genre that no validation poster has, has none.
            let precision = scores.average_precision;
            values.extend(precision.map(|value| Value::number(format!("average_precision/{genre}"), value)));
        }
        values.extend(more);
        Event::at(row.step, What::Values(values))
    }

    /// The record as it stands in a file.
    pub fn framed(&self) -> Vec<u8> {
        let mut message = Message::default();
        message.double(1, self.wall_time);
        message.integer(2, self.step as i64);
        match &self.what {
            What::Version => message.text(3, VERSION),
            What::Start => {
                let mut log = Message::default();
                log.integer(1, START);
                message.message(7, &log)
            }
            What::Values(values) => {
                let mut summary = Message::default();
                for value in values {
                    summary.message(1, &value.message());
                }
                message.message(SUMMARY, &summary)
            }
        };
        let (message, length) = (message.bytes(), (message.bytes().len() as u64).to_le_bytes());
        [&length[..], &checksum(&length), message, &checksum(message)].concat()
    }
}

/// The number of the field with values.
const SUMMARY: u32 = 5;
/// `SessionLog.START`.
const START: i64 = 1;

impl Value {
    fn number(name: String, value: f64) -> Value {
        Value { name, shown: Shown::Number(value as f32) }
    }

    /// How `values` are spread; none if no value is finite.
    pub fn histogram(name: String, values: &[f32]) -> Option<Value> {
        Some(Value { name, shown: Shown::Histogram(Histogram::of(values)?) })
    }

    /// A poster `[size, size, 3]`.
    ///
    /// # Errors
    /// The encoder's, which has none for a poster of that size.
    pub fn poster(name: String, pixels: &[u8], size: usize) -> Result<Value, ImageError> {
        let (mut png, side) = (Vec::new(), size as u32);
        PngEncoder::new(&mut png).write_image(pixels, side, side, ExtendedColorType::Rgb8)?;
        Ok(Value { name, shown: Shown::Poster(png, size) })
    }

    fn message(&self) -> Message {
        let mut message = Message::default();
        message.text(1, &self.name);
        match &self.shown {
            Shown::Number(number) => message.float(2, *number),
            Shown::Poster(png, size) => {
                let mut image = Message::default();
                image.integer(1, *size as i64);
                image.integer(2, *size as i64);
                // RGB.
                image.integer(3, 3);
                image.raw(4, png);
                message.message(4, &image)
            }
            Shown::Histogram(histogram) => message.message(5, &histogram.message()),
        };
        message
    }
}

/// What is read of a record again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub step: u64,
    /// Whether there are values in it.
    pub has_values: bool,
    /// The epoch that it is of; none for that of a step.
    pub epoch: Option<u32>,
    /// Where it ends in the file.
    pub end: usize,
}

/// The records in a file. The first one that is not whole ends them.
pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = Read> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let message = unframed(&bytes[at..])?;
        at += 8 + 4 + message.len() + 4;
        let mut read = Read { step: 0, has_values: false, epoch: None, end: at };
        for (number, field) in fields(message)? {
            match (number, field) {
                (2, Field::Integer(step)) => read.step = step,
                (SUMMARY, Field::Bytes(summary)) => {
                    read.has_values = true;
                    read.epoch = fields(summary)?.into_iter().find_map(|(_, value)| epoch(value));
                }
                _ => {}
            }
        }
        Some(read)
    })
}

/// The number in a value that is an epoch's.
fn epoch(value: Field<'_>) -> Option<u32> {
    let Field::Bytes(value) = value else { return None };
    let of = fields(value)?;
    let has = |number, bytes: &[u8]| of.contains(&(number, Field::Bytes(bytes)));
    let number = of.iter().find_map(|field| match field {
        (2, Field::Bytes(number)) => Some(f32::from_le_bytes((*number).try_into().ok()?)),
        _ => None,
    })?;
    has(1, EPOCH.as_bytes()).then_some(number as u32)
}

/// The message of the record at the beginning of `bytes`.
fn unframed(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_at_checked(8)?;
    let (of_length, rest) = rest.split_at_checked(4)?;
    if of_length != checksum(length) {
        return None;
    }
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (message, rest) = rest.split_at_checked(length)?;
    let (of_message, _) = rest.split_at_checked(4)?;
    (of_message == checksum(message)).then_some(message)
}

/// The checksum of a part of a record: `((crc >> 15) | (crc << 17)) + 0xa282ead8`.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    CRC.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> StepRow {
        StepRow { step, loss: 0.25, learning_rate: 1e-3, images_per_second: 0.0, gradient_norm: f64::NAN }
    }

    /// Beside TensorFlow's own files: `.ci/tensorboard` has its reader read whole runs.
    #[test]
    fn a_record_has_tensorflows_frame() {
        let version = Event { wall_time: 0.0, step: 0, what: What::Version }.framed();
        assert_eq!(version[..8], [26, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(version[12..38], *b"\x09\0\0\0\0\0\0\0\0\x10\0\x1a\x0dbrain.Event:2");
        assert_eq!(version.len(), 42);
        // The checksum of 32 zeros in RFC 3720, appendix B.4, masked.
        let masked = 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(checksum(&[0; 32]), masked.to_le_bytes());
    }

    #[test]
    fn records_are_read_back_up_to_the_first_that_is_not_whole() {
        let events: Vec<Event> = (1..=3).map(|number| Event::of_step(&step(number))).collect();
        let bytes: Vec<u8> = events.iter().flat_map(Event::framed).collect();
        let read = |bytes: &[u8]| records(bytes).map(|read| (read.step, read.end)).collect::<Vec<_>>();
        let whole = read(&bytes);
        let one = bytes.len() / 3;
        assert_eq!(whole, [(1, one), (2, 2 * one), (3, 3 * one)]);
        for cut in 0..=bytes.len() {
            assert_eq!(read(&bytes[..cut]), whole[..cut / one], "cut off at {cut}");
        }
        for at in one..2 * one {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(read(&damaged), whole[..1], "byte {at}");
        }
        // A length that no file has.
        let mut endless = u64::MAX.to_le_bytes().to_vec();
        endless.extend(checksum(&endless));
        assert_eq!(read(&endless), []);
    }

    #[test]
    fn values_that_are_0_or_none_are_there() {
        let event = Event::of_step(&step(7));
        let [read] = records(&event.framed()).collect::<Vec<_>>()[..] else { panic!("one record") };
        assert_eq!((read.step, read.has_values, read.epoch), (7, true, None));
        let What::Values(values) = event.what else { panic!("values") };
        let names: Vec<&str> = values.iter().map(|value| &*value.name).collect();
        assert_eq!(names, ["step/loss", "step/learning_rate", "step/images_per_second", "step/gradient_norm"]);
        let [rate, none] = [&values[2], &values[3]].map(|value| value.message().bytes().to_vec());
        assert!(rate.ends_with(&[0x15, 0, 0, 0, 0]), "{rate:?}");
        assert!(none[none.len() - 5] == 0x15, "{none:?}");
    }
}
