//! The program: configuration, wiring, start and stop.
//!
//! Start, in this order, each step failing with one line: configuration → data directory (locked) → listeners (bound) →
//! object store (probed) → manifests → write-ahead log (replayed into the heads) → background loops → ready.
//! Stop: take no more connections → finish running requests → sync and close the log. What is in the heads
//! stays in the log and is replayed at the next start.

pub mod blocks;
pub mod cli;
pub mod config;
pub mod datadir;
pub mod facts;
pub mod listen;
pub mod routes;
pub mod server;
pub mod stores;
pub mod telemetry;
