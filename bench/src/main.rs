//! What was measured and how.

fn main() {}
