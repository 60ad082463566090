//! The gateway part of Ringway.
