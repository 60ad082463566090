//! The router part of Ringway.
