//! Pictures for people to look at: what a model sees on a poster, and posters beside each other.

pub mod heat;
pub mod sheet;
mod text;
