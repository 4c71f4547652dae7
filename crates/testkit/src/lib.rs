//! What tests share: a clock under control, stores in memory, and the conformance suites of the waist.
//!
//! The memory stores implement the waist's sources in the simplest way that can be right. The suites in [`waist`]
//! run against them here and against every engine in its own tests, so the languages, which are tested on the
//! memory stores, find the same behaviour in production.
//!
//! Never a dependency of shipped code.

pub mod clock;
pub mod corpora;
pub mod entries;
pub mod faulty;
pub mod script;
pub mod series;
pub mod spans;
pub mod waist;

pub use clock::SimClock;
pub use entries::MemoryEntries;
pub use series::MemorySeries;
pub use spans::MemorySpans;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trilith_model::{LogSink as _, MetricSink as _, TraceSink as _};

    use super::*;

    #[tokio::test]
    async fn memory_series_keeps_the_contract() {
        waist::series::run(|data| async move {
            let store = MemorySeries::new();
            for (tenant, batch) in data {
                store.append(&tenant, batch).await.expect("memory takes everything");
            }
            store as Arc<dyn trilith_query::SeriesSource>
        })
        .await;
    }

    #[tokio::test]
    async fn memory_entries_keeps_the_contract() {
        waist::entries::run(|data| async move {
            let store = MemoryEntries::new();
            for (tenant, batch) in data {
                store.append(&tenant, batch).await.expect("memory takes everything");
            }
            store as Arc<dyn trilith_query::EntrySource>
        })
        .await;
    }

    #[tokio::test]
    async fn memory_spans_keeps_the_contract() {
        waist::spans::run(|data| async move {
            let store = MemorySpans::new();
            for (tenant, batch) in data {
                store.append(&tenant, batch).await.expect("memory takes everything");
            }
            store as Arc<dyn trilith_query::SpanSource>
        })
        .await;
    }
}
