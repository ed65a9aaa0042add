//! The `onesheet` command.
fn main() {}
