//! Tests that cannot be run everywhere say so where somebody sees it.

use std::io::{self, Write};

/// Says on stderr what goes unchecked, past the test harness, which keeps to itself what a passing test prints.
pub fn not_checked(what: &str) {
    io::stderr().write_all(format!("\nNOT CHECKED: {what}\n").as_bytes()).unwrap();
}
