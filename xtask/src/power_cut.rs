//! A disk whose power can be cut, as a file system that a server's data folder sits on.
//!
//! `disk.rs` keeps for every file and folder what a program sees and, apart, what an fsync has made
//! durable; a cut throws the first away. `filesystem.rs` mounts it by FUSE (fuse(4)), which needs
//! `/dev/fuse` and root. The kernel's page cache is passed by (`FOPEN_DIRECT_IO`), so that every write of
//! the server reaches this process at once and outlives its `kill -9`, as it would in a real kernel.

mod disk;
mod filesystem;

pub(crate) use disk::Loss;
pub(crate) use filesystem::PowerCutDisk;
