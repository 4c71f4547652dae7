//! The metrics engine: samples of label-set-identified series, in a head, in blocks, and merged for queries.
//!
//! ```text
//! append ─► admit (limits, known series) ─► WAL record ─► durable ─► head          select ─► plan: which series where
//!             store/append.rs                wal_record.rs            head.rs                  query/plan.rs
//!                                                                      │ cut                       │
//!                                                                      ▼                           ▼
//!                                            merge ◄── blocks ◄── engine.rs, writer.rs     batches: pages → columns
//!                                            merge.rs   reader.rs, format/                   query/batch.rs
//! ```
//!
//! A head keeps each series as Gorilla chunks behind an index of its label sets. A cut sorts the series by (metric
//! name, labels) and writes one block per tenant and aligned time window: pages of 64 neighbouring series, values in
//! the cheapest of a few encodings, timestamp vectors once per block however many series share them. Queries merge
//! heads and blocks series by series and hand out batches in which series of the same scrape share one vector.
//!
//! A series may hold floats and native histograms at different times. A series of floats alone pays nothing for that: the
//! first histogram or start timestamp moves a series to the richer, slower representation, in the head and in a slot of a
//! block. Exemplars are apart from samples: a ring per tenant in the head, a section of a block.
//!
//! Invariants
//! - Values are bit-exact from push to answer, staleness markers and other NaNs included.
//! - One sample per (series, ms) in every answer. A push that repeats the newest sample of a series with another value
//!   is refused while that sample is in the head; otherwise the value written last wins (docs/adr/0040).
//! - What is acknowledged is in the log and in the head: log and head are written by one task that a client going away
//!   does not stop. A record that never became durable never enters a head.
//! - Every byte from a store or a log is checked before it is used.
//!
//! Crash: the head is rebuilt from the log; records stand alone, so only those after the manifest's position are read.
//!
//! Formats: docs/formats/metrics-block.md, docs/formats/metrics-wal.md, docs/formats/index.md.

#[cfg(test)]
mod arb;
mod chunk;
pub mod engine;
mod format;
pub mod fuzzing;
mod head;
mod merge;
mod order;
mod query;
mod reader;
mod samples;
mod store;
mod tombstones;
mod wal_record;
mod writer;

pub use engine::MetricsEngine;
pub use head::{HeadSeriesRef, MetricsHead};
pub use query::cardinality::Cardinality;
pub use store::{MetricsOptions, MetricsStats, MetricsStore};
