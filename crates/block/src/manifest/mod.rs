//! The manifest: which blocks exist. One log of numbered deltas per shard, a shard being (tenant group, signal).
//!
//! ```text
//! meta/<signal>-0/log/<n>    delta n, created if absent: whoever creates it has committed
//! meta/<signal>-0/snap/<n>   the state after delta n, so that a start reads little
//! ```
//!
//! A commit puts delta `next`. When the name is taken, the writer reads the winner, applies it to its state and tries
//! the number after it; a removed block that the winner removed too is a conflict. When the answer is lost, the
//! writer finds its own nonce under the name and knows that it has won.
//!
//! Opening a shard for writing commits an empty delta with the writer's next epoch. It fences: a request of the
//! writer's former life that is still under way finds its number taken, reads the fence and stops, so what the new
//! life replays from the log can never be added a second time.
//!
//! Invariants:
//! - The state is a function of the deltas 1..=n in order; every delta was checked against the state before it.
//! - A writer's `wal_upto` and the blocks that hold the records up to it arrive in one delta.
//! - A delta that cannot be read stops everybody, with the object's name: skipping it would lose or double blocks.
//!   A snapshot that cannot be read costs an older snapshot and more deltas.
//!
//! Crash behaviour: any prefix of the protocol leaves either no delta or a whole one; uploads without a delta are
//! orphans. Format: docs/formats/manifest.md.

mod delta;
mod envelope;
mod log;
mod state;
mod tombstone;

pub use delta::{Change, Delta};
pub(crate) use log::snapshot_path;
pub use log::{CommitError, Manifest, write_snapshot};
pub use state::{Removed, State, WriterState};
pub use tombstone::Tombstone;

#[cfg(test)]
mod tests;
