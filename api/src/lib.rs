//! The api part of Ringway.
