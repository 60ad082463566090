//! Generates the protobuf types from the `.proto` files, without a protoc to install.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/internal.proto", "proto/ringway.proto"], ["proto"])?;
    // Ordered maps: the same frame is the same bytes. `Bytes` for every `bytes` field: decoding shares the
    // buffer instead of copying bodies.
    prost_build::Config::new().btree_map(["."]).bytes(["."]).compile_fds(files)?;
    Ok(())
}
