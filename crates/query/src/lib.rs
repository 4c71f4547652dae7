//! The narrow waist: what a query language may ask of a store, and what it gets back.
//!
//! Three languages stand above and three engines below; neither knows the other. A request carries everything
//! that lets a store do less work (matchers, time range, hints, predicates, limits), an answer comes as a stream
//! of column batches. Every request runs in a [`QueryContext`], which carries the tenant, the deadline, the
//! memory budget, the limits, the statistics and the cancellation.
//!
//! Rules for every source:
//! - What was acknowledged before the request is in the answer (read your writes).
//! - One record appears once, wherever it is stored (head, block, both during a cut).
//! - A source may ignore hints. It must not ignore selectors, ranges, limits and directions.
//! - I/O is async, decoding runs under `model::task::compute`; a dropped stream stops the work.
//! - Errors are [`trilith_model::Error`]; `Corrupt` objects are reported and skipped by the source, with a warning
//!   in the context, unless nothing can be answered without them.

pub mod attribute_text;
pub mod context;
pub mod entries;
pub mod series;
pub mod span_rows;
pub mod spans;
pub mod vector;

pub use context::{MemoryBudget, QueryContext, QueryStats, Reservation, SampleCounts};
pub use entries::{Direction, Entry, EntryBatch, EntryRequest, EntrySource, LineFilter, LineFilterOp, WantedFields};
pub use series::{
    BatchColumn, ColumnValues, ExemplarRequest, LabelRequest, SelectHints, SeriesBatch, SeriesExemplars, SeriesRequest,
    SeriesSource, ValueColumn,
};
pub use spans::{AttributeScope, ColumnRef, Intrinsic, Operand, Predicate, PredicateOp, SpanRequest, SpanSource};

/// A boxed stream of results, the answer of every source.
pub type ResultStream<T> = futures::stream::BoxStream<'static, trilith_model::Result<T>>;
