//! The traces engine: spans from a push to a queryable block of open Parquet, exactly as they were sent.
//!
//! ```text
//! TraceBatch ─► admit ─► Batch (compact bytes) ─► WAL ─► head: batches + trace id → spans
//!                                                          │ cut: sorted by trace id
//!                                                          ▼
//!            spans.parquet + resources.parquet + scopes.parquet + index.tlb   ─► merge: joins fragments
//!                                                          │
//! query ◄─ traces joined from heads and blocks ◄─ trace index, filter, row selections
//! ```
//!
//! - [`batch`]: a push as bytes, the same in log and head. Spans are decoded one by one when someone asks.
//! - [`head`]: recent pushes with an index by trace id, per tenant, and the facts about attributes.
//! - [`rows`], [`schema`], [`writer`], [`contexts`], [`trace_index`], [`filter`], [`facts`]: the block, written.
//! - [`reader`], [`decode`], [`column_filter`]: the block, read.
//! - [`merge`], [`verify`], [`engine`]: what the block layer asks of an engine.
//! - [`sources`], [`select`], [`store`]: heads and blocks as one [`trilith_query::SpanSource`], and the
//!   [`trilith_model::TraceSink`].
//!
//! Invariants
//! - Lossless: what [`trilith_model::trace`] can hold comes back bit by bit: attribute order and types, floats by their
//!   bits, flags, dropped counts, schema URLs, absent against empty.
//! - A span is kept as often as it was sent with different content; exact duplicates (content, resource, scope)
//!   collapse to one on every read and merge.
//! - In a block the spans of a trace are contiguous and traces are sorted by id. A trace by id costs an index page and
//!   the Parquet pages of its rows, never a scan.
//! - Every byte read from a block is covered by a checksum that is tested before decoding.
//!
//! Crash: a record is applied to the head after it is durable, in a task of its own, so that a client that goes away
//! leaves no record logged but unseen. What no block holds is replayed from the log into a head of the same content.
//!
//! Formats: docs/formats/traces-wal.md, docs/formats/traces-block.md.

pub mod anyvalue;
pub mod batch;
mod column_filter;
mod contexts;
mod decode;
pub mod engine;
mod facts;
mod filter;
pub mod fuzzing;
pub mod head;
mod merge;
mod reader;
mod rows;
mod schema;
mod select;
mod sources;
mod store;
mod trace_index;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

pub use engine::TracesEngine;
pub use store::{TracesOptions, TracesStats, TracesStore};
