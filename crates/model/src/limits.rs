//! What one tenant may use. Zero means no limit, except where a field says otherwise.

use std::sync::Arc;
use std::time::Duration;

use crate::otlp::OtlpMetrics;
use crate::tenant::TenantId;

/// Per-tenant ceilings. The binary fills them from the `limits.*` settings (docs/configuration.md).
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes per second and signal after decompression; refused with 429.
    pub ingest_bytes_per_second: u64,
    /// What may come at once above the rate.
    pub ingest_burst_bytes: u64,
    /// Decompressed request body; 413.
    pub request_bytes_max: u64,
    /// Labels per series or stream.
    pub label_names_max: u32,
    pub label_name_bytes_max: u32,
    pub label_value_bytes_max: u32,
    /// Log line; longer ones are refused with 400.
    pub line_bytes_max: u64,
    /// Structured metadata per entry.
    pub structured_metadata_bytes_max: u64,
    pub structured_metadata_count_max: u32,
    /// Series in the head; 429.
    pub active_series_max: u64,
    /// Exemplars kept in the head, and in each block; the oldest leave. Zero keeps none.
    pub exemplars_max: u64,
    /// Streams in the head; 429.
    pub active_streams_max: u64,
    /// Traces in the head; gRPC ResourceExhausted.
    pub live_traces_max: u64,
    /// Bytes of one trace in the head.
    pub trace_bytes_max: u64,
    /// Oldest accepted sample, entry or span by age; zero takes any age.
    pub max_sample_age: Duration,
    /// Newest accepted one: how far ahead of the clock.
    pub max_sample_future: Duration,
    /// Oldest accepted metrics sample relative to the newest of its series is unlimited: late data goes
    /// to overlapping blocks.
    pub query_series_max: u64,
    /// Samples that one query holds at a time; what streams through an aggregation is bounded by memory and time.
    pub query_samples_max: u64,
    pub query_entries_max: u64,
    /// Most lines one log query may ask for.
    pub query_limit_max: u64,
    pub query_memory_bytes: u64,
    pub query_timeout: Duration,
    /// How OTLP metrics become series; not a ceiling, but a tenant's own and reloaded like one.
    pub otlp: Arc<OtlpMetrics>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            ingest_bytes_per_second: 512 << 20,
            ingest_burst_bytes: 1 << 30,
            request_bytes_max: 100 << 20,
            label_names_max: 128,
            label_name_bytes_max: 1024,
            label_value_bytes_max: 4096,
            line_bytes_max: 256 << 10,
            structured_metadata_bytes_max: 64 << 10,
            structured_metadata_count_max: 128,
            active_series_max: 5_000_000,
            exemplars_max: 100_000,
            active_streams_max: 100_000,
            live_traces_max: 1_000_000,
            trace_bytes_max: 50 << 20,
            max_sample_age: Duration::ZERO,
            max_sample_future: Duration::from_secs(3600),
            query_series_max: 1_000_000,
            query_samples_max: 50_000_000,
            query_entries_max: 0,
            query_limit_max: 5000,
            query_memory_bytes: 1 << 30,
            query_timeout: Duration::from_secs(120),
            otlp: Arc::new(OtlpMetrics::default()),
        }
    }
}

/// Gives the limits in force for a tenant; asked once per request, so a reload takes effect at once.
pub trait LimitsProvider: Send + Sync + 'static {
    fn limits(&self, tenant: &TenantId) -> Arc<Limits>;
}

/// The same limits for every tenant.
#[derive(Debug, Clone, Default)]
pub struct StaticLimits(pub Arc<Limits>);

impl LimitsProvider for StaticLimits {
    fn limits(&self, _tenant: &TenantId) -> Arc<Limits> {
        self.0.clone()
    }
}
