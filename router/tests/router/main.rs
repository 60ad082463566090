//! The router from outside: stories on one core, whole fleets on a seed, and real threads.
#![forbid(unsafe_code)]

mod model_store;
mod simulation;
mod stage;
mod stories;
mod threads;
