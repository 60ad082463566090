//! Virtual users.

fn main() {}
