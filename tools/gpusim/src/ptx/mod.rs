//! The PTX front end: text to a typed tree that keeps its line numbers.
//!
//! PTX is regular enough that one rule reads every instruction (`@guard stem.modifiers operands;`), so the tree holds
//! instructions in that general form, and the family that executes an instruction (`crate::exec`) is the one place
//! that knows its modifiers.

pub mod ast;
mod lexer;
mod parser;

pub use parser::parse;

/// Text that isn't PTX, or not PTX that is known here.
#[derive(Clone, Debug, thiserror::Error)]
#[error("PTX line {line}: {what}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: u32,
    /// What was found or missed.
    pub what: String,
}

impl ParseError {
    /// An error on `line`.
    pub fn new(line: u32, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}
