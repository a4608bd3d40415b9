//! opes
fn main() {}
