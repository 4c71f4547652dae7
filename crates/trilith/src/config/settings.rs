//! The one definition of every setting: flag, YAML key, default, help and reference page come from this table.

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Path,
    /// `true` or `false`; as a flag without a value, `true`.
    Bool,
    /// A whole number.
    Count,
    /// `512`, `64KiB`, `1.5GB`.
    Bytes,
    /// `90s`, `1h30m`, `15d`, or `0`.
    Duration,
    /// A port, or `host:port`; port 0 picks a free one.
    Listen,
}

#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// `--<key>` on the command line; dots separate levels in YAML.
    pub key: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub group: &'static str,
    pub help: &'static str,
    /// May also be set per tenant under `overrides.<tenant>` and is re-read on reload.
    pub per_tenant: bool,
}

const fn s(key: &'static str, kind: Kind, default: &'static str, group: &'static str, help: &'static str) -> Setting {
    Setting {
        key,
        kind,
        default,
        group,
        help,
        per_tenant: false,
    }
}

const fn limit(key: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Setting {
    Setting {
        key,
        kind,
        default,
        group: LIMITS,
        help,
        per_tenant: true,
    }
}

const fn otlp(key: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Setting {
    Setting {
        key,
        kind,
        default,
        group: OTLP,
        help,
        per_tenant: true,
    }
}

const STORAGE: &str = "Storage";
const LISTEN: &str = "Listeners";
const GENERAL: &str = "General";
const QUERIES: &str = "Queries";
const RETENTION: &str = "Retention and compaction";
const LIMITS: &str = "Limits per tenant";
const OTLP: &str = "OTLP metrics, per tenant";

/// Every setting, in the order of the reference page.
pub const SETTINGS: &[Setting] = &[
    s(
        "data-dir",
        Kind::Path,
        "./trilith-data",
        STORAGE,
        "Folder for the write-ahead log, caches and, by default, the blocks. One process at a time owns it.",
    ),
    s(
        "storage.url",
        Kind::Text,
        "",
        STORAGE,
        "Where blocks live: file:///path, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or memory://. Empty: the folder `blocks` in the data dir. Credentials come from the usual environment variables (AWS_*, GOOGLE_*, AZURE_*).",
    ),
    s(
        "storage.cache-memory",
        Kind::Bytes,
        "64MiB",
        STORAGE,
        "Memory for cached pieces of blocks.",
    ),
    s(
        "storage.cache-disk",
        Kind::Bytes,
        "0",
        STORAGE,
        "Disk below the data dir for cached pieces of blocks; only used when blocks are remote. 0 turns it off.",
    ),
    s(
        "wal.segment-size",
        Kind::Bytes,
        "64MiB",
        STORAGE,
        "A segment of the write-ahead log is closed when it is larger.",
    ),
    s(
        "listen.host",
        Kind::Text,
        "127.0.0.1",
        LISTEN,
        "Address that listeners given as a bare port bind to.",
    ),
    s(
        "listen.metrics",
        Kind::Listen,
        "9090",
        LISTEN,
        "Prometheus API: remote write and queries. A port or host:port; 0 picks a free port.",
    ),
    s(
        "listen.logs",
        Kind::Listen,
        "3100",
        LISTEN,
        "Loki API: push and queries.",
    ),
    s(
        "listen.traces",
        Kind::Listen,
        "3200",
        LISTEN,
        "Tempo API, HTTP and gRPC on one port.",
    ),
    s("listen.otlp-grpc", Kind::Listen, "4317", LISTEN, "OTLP over gRPC."),
    s("listen.otlp-http", Kind::Listen, "4318", LISTEN, "OTLP over HTTP."),
    s(
        "web.cors.origin",
        Kind::Text,
        ".*",
        LISTEN,
        "Origins whose pages may read answers of the Prometheus API: a regular expression for the whole origin.",
    ),
    s(
        "web.enable-admin-api",
        Kind::Bool,
        "false",
        LISTEN,
        "Allow /api/v1/admin/tsdb: deleting series, freeing their space, snapshots.",
    ),
    s(
        "web.enable-lifecycle",
        Kind::Bool,
        "false",
        LISTEN,
        "Allow POST /-/reload and POST /-/quit.",
    ),
    s(
        "web.max-connections",
        Kind::Count,
        "4096",
        LISTEN,
        "Connections served at a time by the metrics listener; more wait.",
    ),
    s(
        "multi-tenancy",
        Kind::Bool,
        "false",
        GENERAL,
        "On: every request needs an X-Scope-OrgID header, and tenants see only their own data. Off: the header is ignored and everything belongs to the tenant `anonymous`.",
    ),
    s(
        "self-observe",
        Kind::Bool,
        "true",
        GENERAL,
        "Store the process's own metrics (every 15 s), logs and a sample of its request traces.",
    ),
    s(
        "log.level",
        Kind::Text,
        "info",
        GENERAL,
        "Levels of the log on stderr: error, warn, info, debug, trace, or a filter such as info,trilith_block=debug.",
    ),
    s("log.format", Kind::Text, "text", GENERAL, "text or json."),
    s(
        "query.lookback-delta",
        Kind::Duration,
        "5m",
        QUERIES,
        "How far an instant selector of PromQL looks back for a sample.",
    ),
    s(
        "query.subquery-step",
        Kind::Duration,
        "1m",
        QUERIES,
        "Resolution of PromQL subqueries that name none.",
    ),
    s(
        "query.max-concurrency",
        Kind::Count,
        "20",
        QUERIES,
        "PromQL queries evaluated at a time; more wait, at most limits.query-timeout. With multi-tenancy one tenant gets half.",
    ),
    s(
        "query.max-memory",
        Kind::Bytes,
        "2GiB",
        QUERIES,
        "Memory that all running queries together may hold. 0: no limit.",
    ),
    s(
        "promql.experimental-functions",
        Kind::Bool,
        "true",
        QUERIES,
        "Functions and aggregations that Prometheus calls experimental.",
    ),
    s(
        "promql.duration-expressions",
        Kind::Bool,
        "true",
        QUERIES,
        "Arithmetic in durations: `rate(x[5m * 2])`.",
    ),
    s(
        "promql.extended-selectors",
        Kind::Bool,
        "true",
        QUERIES,
        "The modifiers `anchored` and `smoothed`.",
    ),
    s(
        "promql.fill-modifiers",
        Kind::Bool,
        "true",
        QUERIES,
        "The modifiers `fill`, `fill_left` and `fill_right`.",
    ),
    s(
        "promql.delayed-name-removal",
        Kind::Bool,
        "true",
        QUERIES,
        "Metric names are dropped at the end of a query, not in every operation.",
    ),
    s(
        "promql.start-timestamps",
        Kind::Bool,
        "true",
        QUERIES,
        "`rate` and its kin use the start timestamps of samples.",
    ),
    s(
        "promql.type-and-unit-labels",
        Kind::Bool,
        "false",
        QUERIES,
        "The labels `__type__` and `__unit__` take part in what is a counter and what is dropped with the name.",
    ),
    s(
        "storage.remote.read-sample-limit",
        Kind::Count,
        "50000000",
        QUERIES,
        "Samples that one remote read may answer. 0: no limit.",
    ),
    s(
        "storage.remote.read-concurrent-limit",
        Kind::Count,
        "10",
        QUERIES,
        "Remote reads answered at a time; more wait.",
    ),
    s(
        "storage.remote.read-max-bytes-in-frame",
        Kind::Bytes,
        "1MiB",
        QUERIES,
        "Size of a frame of a streamed remote read, before it is sent.",
    ),
    s(
        "retention.metrics",
        Kind::Duration,
        "15d",
        RETENTION,
        "Age after which samples are deleted, by whole blocks and at merges; 0 keeps them for ever.",
    ),
    s(
        "retention.logs",
        Kind::Duration,
        "30d",
        RETENTION,
        "Age after which log entries are deleted, by whole blocks and at merges; 0 keeps them for ever.",
    ),
    s(
        "retention.traces",
        Kind::Duration,
        "14d",
        RETENTION,
        "Age after which traces are deleted, by whole blocks and at merges; 0 keeps them for ever.",
    ),
    s(
        "head.metrics-size",
        Kind::Bytes,
        "96MiB",
        RETENTION,
        "Recent samples are cut into blocks when they take more memory.",
    ),
    s(
        "head.logs-size",
        Kind::Bytes,
        "64MiB",
        RETENTION,
        "Recent log entries are cut into blocks when they take more memory.",
    ),
    s(
        "head.traces-size",
        Kind::Bytes,
        "128MiB",
        RETENTION,
        "Recent spans are cut into blocks when they take more memory.",
    ),
    s(
        "head.max-age",
        Kind::Duration,
        "1h",
        RETENTION,
        "Recent data are cut into blocks at the latest after this time.",
    ),
    s(
        "compaction.interval",
        Kind::Duration,
        "30s",
        RETENTION,
        "How often the compactor looks for work.",
    ),
    s(
        "compaction.delete-grace",
        Kind::Duration,
        "5m",
        RETENTION,
        "How long a replaced block stays in the store for queries that still read it; longer than any query may run.",
    ),
    limit(
        "limits.ingest-rate",
        Kind::Bytes,
        "512MiB",
        "Bytes per second and signal, after decompression. Beyond it pushes get 429. 0: no limit.",
    ),
    limit(
        "limits.ingest-burst",
        Kind::Bytes,
        "1GiB",
        "Bytes that may come at once above the rate.",
    ),
    limit(
        "limits.request-size",
        Kind::Bytes,
        "100MiB",
        "Largest request body after decompression.",
    ),
    limit("limits.label-names", Kind::Count, "128", "Labels per series or stream."),
    limit("limits.label-name-length", Kind::Bytes, "1024", "Longest label name."),
    limit("limits.label-value-length", Kind::Bytes, "4096", "Longest label value."),
    limit("limits.line-size", Kind::Bytes, "256KiB", "Longest log line."),
    limit(
        "limits.structured-metadata-size",
        Kind::Bytes,
        "64KiB",
        "Structured metadata of one log entry, names and values.",
    ),
    limit(
        "limits.structured-metadata-count",
        Kind::Count,
        "128",
        "Structured metadata of one log entry, pairs.",
    ),
    limit(
        "limits.active-series",
        Kind::Count,
        "5000000",
        "Metric series in memory. 0: no limit.",
    ),
    limit(
        "limits.exemplars",
        Kind::Count,
        "100000",
        "Exemplars in memory, and in each block; the oldest leave. 0: none are kept.",
    ),
    limit(
        "limits.active-streams",
        Kind::Count,
        "100000",
        "Log streams in memory. 0: no limit.",
    ),
    limit(
        "limits.live-traces",
        Kind::Count,
        "1000000",
        "Traces in memory. 0: no limit.",
    ),
    limit(
        "limits.trace-size",
        Kind::Bytes,
        "50MiB",
        "Bytes of one trace in memory. 0: no limit.",
    ),
    limit(
        "limits.max-sample-age",
        Kind::Duration,
        "0",
        "Older samples, entries and spans are refused; 0 takes any age.",
    ),
    limit(
        "limits.max-sample-future",
        Kind::Duration,
        "1h",
        "How far ahead of the clock samples, entries and spans may be; 0 takes any.",
    ),
    limit(
        "limits.query-series",
        Kind::Count,
        "1000000",
        "Series one query may read. 0: no limit.",
    ),
    limit(
        "limits.query-samples",
        Kind::Count,
        "50000000",
        "Samples one query may hold at a time: results, subqueries, the windows of one step. 0: no limit.",
    ),
    limit(
        "limits.query-entries",
        Kind::Count,
        "0",
        "Log entries one query may read. 0: no limit.",
    ),
    limit(
        "limits.query-limit",
        Kind::Count,
        "5000",
        "Most lines that one log query may ask for.",
    ),
    limit(
        "limits.query-memory",
        Kind::Bytes,
        "1GiB",
        "Memory that one query may hold. 0: no limit.",
    ),
    limit(
        "limits.query-timeout",
        Kind::Duration,
        "2m",
        "Longest run time of a query.",
    ),
    otlp(
        "otlp.translation-strategy",
        Kind::Text,
        "UnderscoreEscapingWithSuffixes",
        "How metric and label names are written: UnderscoreEscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes, NoUTF8EscapingWithSuffixes or NoTranslation.",
    ),
    otlp(
        "otlp.namespace",
        Kind::Text,
        "",
        "Put before every metric name, with an underscore.",
    ),
    otlp(
        "otlp.promote-resource-attributes",
        Kind::Text,
        "",
        "Resource attributes that become labels of every series, separated by commas.",
    ),
    otlp(
        "otlp.promote-all-resource-attributes",
        Kind::Bool,
        "false",
        "All resource attributes become labels of every series.",
    ),
    otlp(
        "otlp.ignore-resource-attributes",
        Kind::Text,
        "",
        "Those that do not, when all others do, separated by commas.",
    ),
    otlp(
        "otlp.keep-identifying-resource-attributes",
        Kind::Bool,
        "false",
        "service.name, service.namespace and service.instance.id are labels of target_info besides job and instance.",
    ),
    otlp(
        "otlp.promote-scope-metadata",
        Kind::Bool,
        "false",
        "Name, version, schema URL and attributes of the instrumentation scope become labels otel_scope_*.",
    ),
    otlp(
        "otlp.convert-histograms-to-nhcb",
        Kind::Bool,
        "false",
        "Histograms with explicit bounds are stored as native histograms with custom buckets instead of classic series.",
    ),
    otlp(
        "otlp.label-name-underscore-sanitization",
        Kind::Bool,
        "true",
        "Label names that begin with one underscore get `key` in front.",
    ),
    otlp(
        "otlp.label-name-preserve-multiple-underscores",
        Kind::Bool,
        "true",
        "Runs of underscores in label names stay; else they become one.",
    ),
    otlp(
        "otlp.type-and-unit-labels",
        Kind::Bool,
        "false",
        "Every series gets the labels __type__ and __unit__.",
    ),
    otlp(
        "otlp.delta-temporality",
        Kind::Text,
        "convert",
        "What becomes of delta points: convert sums them up in memory and stores running totals, store keeps them as they are, reject refuses them.",
    ),
    otlp(
        "otlp.delta-idle",
        Kind::Duration,
        "5m",
        "A running total that nothing was added to for this long is forgotten; 0 keeps it.",
    ),
    otlp(
        "otlp.delta-totals-size",
        Kind::Bytes,
        "128MiB",
        "Memory for running totals; delta points of further series are refused with 429. 0: no limit.",
    ),
];

pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.key == key)
}

/// The known key that is nearest to a mistyped one, if any is near.
pub fn nearest(key: &str, candidates: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    candidates
        .map(|c| {
            // The last part alone is compared too: `metrics-port` should find nothing, `listen.metric` `listen.metrics`.
            let d = strsim::damerau_levenshtein(key, c);
            (d, c)
        })
        .min()
        .filter(|(d, c)| *d <= 3.max(c.len() / 3))
        .map(|(_, c)| c)
}
