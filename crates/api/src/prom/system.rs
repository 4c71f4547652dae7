//! What the handlers need of the process around them: settings and the facts that status pages show.

use std::time::Duration;

use async_trait::async_trait;
use trilith_model::{Matcher, Result, TenantId};
use trilith_promql::EvalOptions;
use trilith_query::QueryContext;

/// Settings of the API. `Default` is what the program starts with.
#[derive(Clone, Debug)]
pub struct Options {
    pub eval: EvalOptions,
    /// Queries evaluated at a time; more wait until their time is up.
    pub queries_max: usize,
    /// Samples that one remote read may answer; 0 means no limit.
    pub read_samples_max: u64,
    /// Remote reads answered at a time.
    pub reads_max: usize,
    /// Bytes of one frame of a streamed remote read, roughly.
    pub read_frame_bytes: usize,
    /// Origins that may read answers from a browser: a pattern for the label-less [`Matcher`]. `None` means all.
    pub cors_origin: Option<Matcher>,
    /// Whether data may be deleted over HTTP; shown by `/features`.
    pub enable_admin: bool,
    /// Whether `/-/reload` and `/-/quit` may be used; shown by `/features`.
    pub enable_lifecycle: bool,
    /// Most results of one search; 0 means no limit.
    pub search_results_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            eval: EvalOptions::default(),
            queries_max: 20,
            read_samples_max: 50_000_000,
            reads_max: 10,
            read_frame_bytes: 1 << 20,
            cors_origin: None,
            enable_admin: false,
            enable_lifecycle: false,
            search_results_max: 10_000,
        }
    }
}

/// The process, as the status pages see it.
#[async_trait]
pub trait System: Send + Sync + 'static {
    /// Settings in force, by name; defaults included.
    fn flags(&self) -> Vec<(String, String)>;

    /// The configuration in force as YAML.
    fn config_yaml(&self) -> String;

    fn runtime(&self) -> RuntimeInfo;

    /// The part of the log that a start has to read again.
    fn wal_replay(&self) -> WalReplay;

    /// Own metric families, in the order of `/metrics`.
    fn own_metrics(&self) -> Vec<OwnFamily>;

    /// What there is of a tenant's recent data; lists have at most `top` entries.
    ///
    /// # Errors
    /// Those of the store.
    async fn cardinality(&self, ctx: &QueryContext, top: usize) -> Result<Cardinality>;

    /// Blocks of a tenant, oldest data first.
    fn blocks(&self, tenant: &TenantId) -> Vec<BlockInfo>;
}

/// Where `/status/runtimeinfo` comes from. Times in ms since the epoch.
#[derive(Clone, Debug, Default)]
pub struct RuntimeInfo {
    pub start_ms: i64,
    pub working_dir: String,
    pub hostname: String,
    /// Whether the last reload succeeded, and when the configuration in force was read.
    pub reload_ok: bool,
    pub config_ms: i64,
    /// Records of the log that could not be read.
    pub corruptions: u64,
    /// Tasks that are alive.
    pub tasks: usize,
    pub cores: usize,
    /// Zero keeps data for ever.
    pub retention: Duration,
}

/// Segments of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalReplay {
    pub min: u64,
    pub max: u64,
    pub current: u64,
}

/// One family of own metrics.
#[derive(Clone, Debug, Default)]
pub struct OwnFamily {
    pub name: String,
    pub help: String,
    pub kind: OwnKind,
    /// For counters and gauges: one per label set.
    pub points: Vec<OwnPoint>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnKind {
    Counter,
    #[default]
    Gauge,
    Histogram,
}

#[derive(Clone, Debug)]
pub struct OwnPoint {
    pub labels: Vec<(String, String)>,
    pub value: OwnValue,
}

#[derive(Clone, Debug)]
pub enum OwnValue {
    Number(f64),
    /// (upper bound, cumulative count), ascending; the last bound is +Inf and its count that of all observations.
    Histogram {
        sum: f64,
        buckets: Vec<(f64, u64)>,
    },
}

/// `/status/tsdb`. Lists are cut to the number asked for, largest first.
#[derive(Clone, Debug, Default)]
pub struct Cardinality {
    pub series: u64,
    pub label_pairs: u64,
    pub chunks: u64,
    /// ms; `i64::MAX` and `i64::MIN` without samples.
    pub min_ms: i64,
    pub max_ms: i64,
    pub series_by_metric: Vec<(String, u64)>,
    pub values_by_label: Vec<(String, u64)>,
    pub bytes_by_label: Vec<(String, u64)>,
    pub series_by_pair: Vec<(String, u64)>,
}

/// One block of `/status/tsdb/blocks`. Times in ms, `max_ms` exclusive.
#[derive(Clone, Debug, Default)]
pub struct BlockInfo {
    pub id: String,
    pub min_ms: i64,
    pub max_ms: i64,
    pub samples: u64,
    pub series: u64,
    pub bytes: u64,
    pub level: u32,
    pub sources: Vec<String>,
}
