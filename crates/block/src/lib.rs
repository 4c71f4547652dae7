//! The block layer, shared by the three engines: the container, the manifest, the life of a head from the first
//! record to a committed block, compaction, retention and garbage. It does not know what a section holds.
//!
//! ```text
//!  engine                            block                                          object store
//!  Head  ◄── append ── ticket ◄── Shard::begin ◄── WAL
//!  cut(head) ──► BlockDraft ──► upload ─────────────────────────────► blocks/<hash2>/<tenant>/<signal>/<ulid>/…
//!                               Manifest::commit ───────────────────► meta/<signal>-0/log/<n>   the commit point
//!  reader  ◄── BlockHandle ◄── Shard::view (heads ∪ blocks)
//!  merge(inputs) ──► BlockDraft ──► upload, commit {add, remove} ◄── planner
//!                               garbage collection ─────────────────► deletes what no manifest refers to
//! ```
//!
//! Invariants:
//! - A committed object never changes. The only thing that coordinates is the conditional create of a delta.
//! - One delta adds a cut's blocks and moves the WAL position; one store of the [`View`] shows both. A record is served
//!   from a head or from a block, never both, never neither.
//! - An object is deleted only when the manifest does not refer to it and has not for a grace period.
//!
//! Crash behaviour: at any point the manifest is some whole prefix of its log; what no delta covers is in the WAL;
//! uploads without a delta are orphans. [`crash`] lists the points at which tests die.
//! Formats: docs/formats/block-container.md, docs/formats/manifest.md.

pub mod compact;
pub mod container;
pub mod crash;
pub mod engine;
mod gc;
pub mod inspect;
pub mod manifest;
pub mod meta;
mod packing;
pub mod path;
pub mod shard;
#[cfg(test)]
mod toy;
mod upload;

pub use container::{Compression, Container, ContainerWriter, Section, set_footer_cache_bytes};
pub use engine::{BlockDraft, BlockFile, BlockHandle, Engine, FileBody, Head, Merge};
pub use manifest::{Manifest, Tombstone};
pub use meta::{BlockMeta, FileMeta};
pub use shard::{AppendTicket, HeadStats, Shard, ShardOptions, ShardStats, View};
