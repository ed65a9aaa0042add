//! Posters and labels: from a table and a folder of images to batches of pixels.
//!
//! `prepare` reads a `labels` table, finds and decodes the `posters`, assigns each film a [`Split`] and streams
//! everything into one `tensor_file`; the `loader` reads that file through a memory map and hands the trainer
//! shuffled, augmented batches. `synthetic` draws posters in code for a first run without any data.

pub mod augmentation;
pub mod counts;
pub mod distortion;
#[cfg(feature = "fetch")]
pub mod download;
pub mod films;
pub mod genres;
pub mod inspection;
pub mod jpeg;
pub mod labels;
pub mod likeness;
pub mod loader;
pub mod outputs;
pub mod pixels;
pub mod posters;
pub mod prepare;
pub mod skipped;
pub mod split;
pub mod squaring;
pub mod synthetic;
pub mod tensor_file;

/// Which part of the data set a poster belongs to. The discriminants are the bytes of the tensor file's `split` tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Split {
    /// The optimiser sees these.
    Train = 0,
    /// Scored after each epoch; chooses the best checkpoint.
    Validation = 1,
    /// Held back for `evaluate`.
    Test = 2,
}

impl Split {
    /// Every split, in file order.
    pub const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

    /// The split that `byte` of a tensor file stands for.
    pub fn from_byte(byte: u8) -> Option<Split> {
        Split::ALL.into_iter().find(|split| *split as u8 == byte)
    }

    /// `train`, `validation` or `test`, as tables and files print it.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        }
    }
}
