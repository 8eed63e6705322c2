//! The build command.
fn main() {}
