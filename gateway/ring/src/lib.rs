//! The gateway/ring part of Ringway.
