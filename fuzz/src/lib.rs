//! Every decoder and parser against hostile bytes.
//!
//! A target is a function of bytes that must neither panic, nor run long, nor allocate much. The driver feeds it
//! mutations of valid inputs; the input of iteration `i` depends on the target's seeds, the seed and `i` alone, so any
//! failure is replayed by its numbers. There is no coverage feedback: that needs a nightly compiler, and a function
//! here can be handed to one unchanged.
//!
//! `cargo test -p trilith-fuzz` runs each target briefly; `cargo run --release -p trilith-fuzz -- TARGET --iterations
//! 1000000` runs one for long. An input worth keeping goes to `fuzz/corpus/TARGET/`, which both read.

mod driver;
mod manifest;
mod memory;
mod mutate;
mod promql;
mod seeds;
mod targets;

pub use driver::{Failure, Plan, one_input, run};
pub use targets::TARGETS;

/// One decoder or parser.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    /// Panics when the bytes break a rule; returns otherwise, whether they were valid or not.
    pub run: fn(&[u8]),
    /// Valid inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Looks a target up by name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|t| t.name == name).copied()
}
