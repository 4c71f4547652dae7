//! Entry points for fuzzing: every decoder of foreign bytes. None may panic, loop or allocate without bound.

use bytes::Bytes;

use crate::facts::Facts;
use crate::filter::TraceFilter;
use crate::trace_index::TopLevel;
use crate::{anyvalue, batch, contexts};

/// A WAL payload.
pub fn payload(bytes: &[u8]) {
    if let Ok(batch) = batch::from_payload(bytes) {
        // What was accepted can be decoded and sums up.
        for i in 0..batch.span_count() {
            let _ = batch.span(i).and_then(|s| s.to_model());
        }
        let _ = Facts::default().add_batch(&batch);
    }
}

/// The body of a payload, without the compression that hides most mutations.
pub fn body(bytes: &[u8]) {
    if let Ok(batch) = batch::Batch::from_bytes(Bytes::copy_from_slice(bytes)) {
        for i in 0..batch.span_count() {
            let _ = batch.span(i).and_then(|s| s.to_model());
        }
    }
}

/// The small sections of `index.tlb`.
pub fn index_sections(bytes: &[u8]) {
    let _ = Facts::from_bytes(bytes);
    let _ = TraceFilter::from_bytes(bytes);
    if let Ok(top) = TopLevel::from_bytes(bytes) {
        for page in &top.pages {
            let _ = crate::trace_index::read_page(page, bytes);
        }
    }
}

/// An attribute value.
pub fn any_value(bytes: &[u8]) {
    let _ = anyvalue::decode(bytes);
}

/// `resources.parquet` or `scopes.parquet`. (The Parquet library itself may panic on foreign bytes; in the server its
/// input passed a checksum, and a panic ends as an error of one query.)
pub fn contexts_file(bytes: &[u8]) {
    let _ = contexts::read_scopes(Bytes::copy_from_slice(bytes));
}
