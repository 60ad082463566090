//! A hasher with a seed from outside, for maps that are looked up and never walked.
//!
//! The standard one takes its seed from the process, so that two runs differ; a fixed one lets a
//! stranger who picks user ids pick collisions. The driver draws the seed, a test fixes it.

use std::hash::{BuildHasher, DefaultHasher, Hasher};

/// Builds hashers that begin with a seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeededState(pub(crate) u64);

impl BuildHasher for SeededState {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}
