//! The logs engine.
//!
//! ```text
//! push ► admit (limits) ► WAL ► head: chunks of 1 MiB, packed ──cut──► block ──merge──► block
//!                                   │                                    │
//! query ◄──────────── one order ◄───┴────────── pages by directory ◄─────┘
//! ```
//!
//! An entry is (stream labels, time, line, structured metadata). Lines are bytes and come back byte for byte. Entries
//! of any time are taken in any order, within the limits of age that the operator sets.
//!
//! Invariants
//! - **One order.** Entries come by (time, stream labels, arrival), wherever they are stored; backward is the exact
//!   reverse. Arrival is the LSN of the record and the place in it, and is kept through blocks (see `order`).
//! - **Once.** Entries equal in stream, time, line and metadata are one entry, in every answer and in every block. So a
//!   client that repeats a push whose answer it lost changes nothing.
//! - **Bounded.** A push copies its lines once into the record and once into the head; a head is cut when it is full;
//!   cut and merge hold one partition of 32 MiB of lines and the pages that overlap in time; a query books what it
//!   holds in its memory budget.
//! - **Checked.** Every piece of a page has a checksum, every decoder checks every length.
//!
//! Crash: what was acknowledged is in the WAL and comes back by [`LogsStore::replay`]; a record is applied by a task of
//! its own, so that a client that goes away leaves no record logged but not applied. Cuts and merges become visible by
//! one manifest delta (see the block crate); dying in between leaves orphans that the block layer collects.
//!
//! Formats: docs/formats/logs-wal.md, docs/formats/logs-block.md.

mod block;
mod engine;
mod filter;
mod format;
pub mod fuzz;
mod head;
mod labels;
mod order;
mod page;
mod pool;
mod scan;
mod select;
mod store;
#[cfg(test)]
mod testing;

pub use engine::LogsEngine;
pub use head::LogsHead;
pub use store::{LogsOptions, LogsStats, LogsStore};
