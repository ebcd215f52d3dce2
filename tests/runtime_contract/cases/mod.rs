//! The cases that every backend passes.

mod lifecycle;
pub mod network;
pub mod real;
pub mod registry;
pub mod security;
mod streams;

pub use lifecycle::*;
pub use streams::*;

/// Runs until it is told to stop, and then ends at once.
const SERVICE: &str = "trap 'exit 0' TERM; echo ready; sleep 3600 & wait";
