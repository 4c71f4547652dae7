//! Configuration: flags over the YAML file over defaults, resolved once into checked, typed values.
//!
//! The table in [`settings`] is the only definition; `docs/configuration.md` is printed from it and a test
//! keeps the page current.

pub mod file;
pub mod settings;
pub mod value;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use trilith_api::prom;
use trilith_model::{
    DeltaTemporality, Limits, LimitsProvider, MatchOp, Matcher, OtlpMetrics, Promotion, TenantId, TranslationStrategy,
};

use settings::{Kind, SETTINGS, Setting};

/// Everything the server needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    /// As given; empty means `<data-dir>/blocks`.
    pub storage_url: String,
    pub cache_memory_bytes: u64,
    pub cache_disk_bytes: u64,
    pub wal_segment_bytes: u64,
    /// host:port each.
    pub listen: Listen,
    pub multi_tenancy: bool,
    pub self_observe: bool,
    pub log_level: String,
    pub log_json: bool,
    pub retention: PerSignal<Duration>,
    pub head_bytes: PerSignal<u64>,
    pub head_age: Duration,
    pub compaction_interval: Duration,
    pub delete_grace: Duration,
    pub limits: Limits,
    pub overrides: BTreeMap<String, Limits>,
    /// Of the Prometheus API.
    pub prom: prom::Options,
    /// Memory of all queries together, 0 for no limit.
    pub query_memory_bytes: u64,
    /// Connections of the metrics listener.
    pub connections_max: usize,
    /// Every setting as text, `overrides.<tenant>.<key>` among them; secrets hidden. For status pages.
    pub shown: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct Listen {
    pub metrics: String,
    pub logs: String,
    pub traces: String,
    pub otlp_grpc: String,
    pub otlp_http: String,
}

#[derive(Clone, Copy, Debug)]
pub struct PerSignal<T> {
    pub metrics: T,
    pub logs: T,
    pub traces: T,
}

/// Flags as given: key to text.
pub type Flags = HashMap<&'static str, String>;

/// Reads the file (if any) and resolves.
///
/// # Errors
/// One line per mistake.
pub fn load(path: Option<&Path>, flags: &Flags) -> Result<Config, Vec<String>> {
    let file = match path {
        None => file::FileSettings::default(),
        Some(p) => {
            let text = std::fs::read_to_string(p).map_err(|e| vec![format!("cannot read {}: {e}", p.display())])?;
            file::parse(&text, &|name| std::env::var(name).ok()).map_err(|es| {
                es.into_iter()
                    .map(|e| format!("{}: {e}", p.display()))
                    .collect::<Vec<_>>()
            })?
        }
    };
    resolve(&file, flags).map_err(|errors| match path {
        // Those that stand in the file say on which line.
        Some(p) => errors
            .into_iter()
            .map(|e| {
                if e.starts_with("line ") {
                    format!("{}: {e}", p.display())
                } else {
                    e
                }
            })
            .collect(),
        None => errors,
    })
}

/// # Errors
/// One line per value that does not fit its setting.
pub fn resolve(file: &file::FileSettings, flags: &Flags) -> Result<Config, Vec<String>> {
    let mut r = Resolver {
        file,
        flags,
        errors: Vec::new(),
    };
    let host = r.text("listen.host");
    let listen = Listen {
        metrics: r.listen("listen.metrics", &host),
        logs: r.listen("listen.logs", &host),
        traces: r.listen("listen.traces", &host),
        otlp_grpc: r.listen("listen.otlp-grpc", &host),
        otlp_http: r.listen("listen.otlp-http", &host),
    };
    let base = r.values(None);
    let limits = r.limits(&base);
    let mut overrides = BTreeMap::new();
    for tenant in file.overrides.keys() {
        if let Err(e) = TenantId::new(tenant) {
            r.errors.push(format!("overrides: {e}"));
            continue;
        }
        let values = r.values(Some(tenant));
        overrides.insert(tenant.clone(), r.limits(&values));
    }
    let log_format = r.text("log.format");
    if log_format != "text" && log_format != "json" {
        r.errors
            .push(format!("log.format: {log_format:?} is neither text nor json"));
    }
    let data_dir = r.text("data-dir");
    if data_dir.is_empty() {
        r.errors.push("data-dir: is empty".into());
    }
    let shown = r.shown();
    let prom = r.prom();
    let config = Config {
        prom,
        query_memory_bytes: r.bytes("query.max-memory"),
        connections_max: r.count("web.max-connections").max(1),
        shown,
        data_dir: PathBuf::from(data_dir),
        storage_url: r.text("storage.url"),
        cache_memory_bytes: r.bytes("storage.cache-memory"),
        cache_disk_bytes: r.bytes("storage.cache-disk"),
        wal_segment_bytes: r.bytes("wal.segment-size"),
        listen,
        multi_tenancy: r.boolean("multi-tenancy"),
        self_observe: r.boolean("self-observe"),
        log_level: r.text("log.level"),
        log_json: log_format == "json",
        retention: PerSignal {
            metrics: r.duration("retention.metrics"),
            logs: r.duration("retention.logs"),
            traces: r.duration("retention.traces"),
        },
        head_bytes: PerSignal {
            metrics: r.bytes("head.metrics-size"),
            logs: r.bytes("head.logs-size"),
            traces: r.bytes("head.traces-size"),
        },
        head_age: r.duration("head.max-age"),
        compaction_interval: r.duration("compaction.interval"),
        delete_grace: r.duration("compaction.delete-grace"),
        limits,
        overrides,
    };
    if r.errors.is_empty() { Ok(config) } else { Err(r.errors) }
}

/// Values of the per-tenant settings, as text with their origin.
type Values = HashMap<&'static str, (String, String)>;

struct Resolver<'a> {
    file: &'a file::FileSettings,
    flags: &'a Flags,
    errors: Vec<String>,
}

impl Resolver<'_> {
    /// The text in force and where it comes from.
    fn raw(&self, key: &'static str) -> (String, String) {
        let setting = setting(key);
        if let Some(v) = self.flags.get(key) {
            (v.clone(), format!("--{key}"))
        } else if let Some(v) = self.file.settings.get(key) {
            (v.value.clone(), format!("line {}: {key}", v.line))
        } else {
            (setting.default.to_owned(), key.to_owned())
        }
    }

    fn parsed<T: Default>(&mut self, (text, origin): (String, String), parse: impl Fn(&str) -> Result<T, String>) -> T {
        parse(&text).unwrap_or_else(|e| {
            self.errors.push(format!("{origin}: {e}"));
            T::default()
        })
    }

    fn text(&mut self, key: &'static str) -> String {
        self.raw(key).0
    }

    fn boolean(&mut self, key: &'static str) -> bool {
        let raw = self.raw(key);
        self.parsed(raw, value::boolean)
    }

    fn bytes(&mut self, key: &'static str) -> u64 {
        let raw = self.raw(key);
        self.parsed(raw, value::bytes)
    }

    fn count(&mut self, key: &'static str) -> usize {
        let raw = self.raw(key);
        usize::try_from(self.parsed(raw, value::count)).unwrap_or(usize::MAX)
    }

    /// Of the Prometheus API and its language.
    fn prom(&mut self) -> prom::Options {
        let origin = self.raw("web.cors.origin");
        let all = origin.0 == ".*";
        let cors_origin = self.parsed(origin, |t| {
            Matcher::new(MatchOp::Re, "", t).map(Some).map_err(|e| e.message)
        });
        let lookback = self.positive_ms("query.lookback-delta");
        let subquery_step = self.positive_ms("query.subquery-step");
        prom::Options {
            eval: prom::EvalOptions {
                lookback_ms: lookback,
                subquery_step_ms: subquery_step,
                features: prom::Features {
                    experimental_functions: self.boolean("promql.experimental-functions"),
                    duration_expressions: self.boolean("promql.duration-expressions"),
                    extended_selectors: self.boolean("promql.extended-selectors"),
                    fill_modifiers: self.boolean("promql.fill-modifiers"),
                    delayed_name_removal: self.boolean("promql.delayed-name-removal"),
                    start_timestamps: self.boolean("promql.start-timestamps"),
                    type_and_unit_labels: self.boolean("promql.type-and-unit-labels"),
                },
            },
            queries_max: self.count("query.max-concurrency"),
            read_samples_max: self.count("storage.remote.read-sample-limit") as u64,
            reads_max: self.count("storage.remote.read-concurrent-limit"),
            read_frame_bytes: usize::try_from(self.bytes("storage.remote.read-max-bytes-in-frame"))
                .unwrap_or(usize::MAX),
            cors_origin: if all { None } else { cors_origin },
            enable_admin: self.boolean("web.enable-admin-api"),
            enable_lifecycle: self.boolean("web.enable-lifecycle"),
            ..prom::Options::default()
        }
    }

    fn positive_ms(&mut self, key: &'static str) -> i64 {
        let (text, origin) = self.raw(key);
        let ms = self.parsed((text, origin.clone()), value::duration).as_millis();
        if ms == 0 && self.errors.is_empty() {
            self.errors.push(format!("{origin}: must be longer than 0"));
        }
        i64::try_from(ms).unwrap_or(i64::MAX)
    }

    fn shown(&self) -> BTreeMap<String, String> {
        let mut out: BTreeMap<String, String> = SETTINGS
            .iter()
            .map(|s| (s.key.to_owned(), without_secrets(&self.raw(s.key).0)))
            .collect();
        for (tenant, values) in &self.file.overrides {
            for (key, located) in values {
                out.insert(format!("overrides.{tenant}.{key}"), located.value.clone());
            }
        }
        out
    }

    fn duration(&mut self, key: &'static str) -> Duration {
        let raw = self.raw(key);
        self.parsed(raw, value::duration)
    }

    fn listen(&mut self, key: &'static str, host: &str) -> String {
        let raw = self.raw(key);
        self.parsed(raw, |t| value::listen(t, host))
    }

    fn values(&self, tenant: Option<&str>) -> Values {
        let own = tenant.and_then(|t| self.file.overrides.get(t));
        SETTINGS
            .iter()
            .filter(|s| s.per_tenant)
            .map(|s| {
                let v = match own.and_then(|o| o.get(s.key)) {
                    Some(l) => (l.value.clone(), format!("line {}: {}", l.line, s.key)),
                    None => self.raw(s.key),
                };
                (s.key, v)
            })
            .collect()
    }

    fn limits(&mut self, values: &Values) -> Limits {
        let otlp = Arc::new(self.otlp(values));
        let mut get = |key: &'static str| -> u64 {
            let raw = values[key].clone();
            match setting(key).kind {
                Kind::Bytes => self.parsed(raw, value::bytes),
                Kind::Count => self.parsed(raw, value::count),
                Kind::Duration => self.parsed(raw, |t| value::duration(t).map(|d| d.as_millis() as u64)),
                other => unreachable!("limit {key} has kind {other:?}"),
            }
        };
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Limits {
            ingest_bytes_per_second: get("limits.ingest-rate"),
            ingest_burst_bytes: get("limits.ingest-burst"),
            request_bytes_max: get("limits.request-size"),
            label_names_max: narrow(get("limits.label-names")),
            label_name_bytes_max: narrow(get("limits.label-name-length")),
            label_value_bytes_max: narrow(get("limits.label-value-length")),
            line_bytes_max: get("limits.line-size"),
            structured_metadata_bytes_max: get("limits.structured-metadata-size"),
            structured_metadata_count_max: narrow(get("limits.structured-metadata-count")),
            active_series_max: get("limits.active-series"),
            exemplars_max: get("limits.exemplars"),
            active_streams_max: get("limits.active-streams"),
            live_traces_max: get("limits.live-traces"),
            trace_bytes_max: get("limits.trace-size"),
            max_sample_age: Duration::from_millis(get("limits.max-sample-age")),
            max_sample_future: Duration::from_millis(get("limits.max-sample-future")),
            query_series_max: get("limits.query-series"),
            query_samples_max: get("limits.query-samples"),
            query_entries_max: get("limits.query-entries"),
            query_limit_max: get("limits.query-limit"),
            query_memory_bytes: get("limits.query-memory"),
            query_timeout: Duration::from_millis(get("limits.query-timeout")),
            otlp,
        }
    }

    fn otlp(&mut self, values: &Values) -> OtlpMetrics {
        let flag = |r: &mut Self, key: &'static str| r.parsed(values[key].clone(), value::boolean);
        let list = |r: &mut Self, key: &'static str| r.parsed(values[key].clone(), value::list);
        let promoted = list(self, "otlp.promote-resource-attributes");
        let ignored = list(self, "otlp.ignore-resource-attributes");
        let all = flag(self, "otlp.promote-all-resource-attributes");
        // The rules and words of Prometheus' configuration.
        if all && !promoted.is_empty() {
            let (_, origin) = &values["otlp.promote-resource-attributes"];
            self.errors.push(format!(
                "{origin}: cannot be set together with otlp.promote-all-resource-attributes"
            ));
        }
        if !all && !ignored.is_empty() {
            let (_, origin) = &values["otlp.ignore-resource-attributes"];
            self.errors.push(format!(
                "{origin}: cannot be set unless otlp.promote-all-resource-attributes is true"
            ));
        }
        OtlpMetrics {
            strategy: self.parsed(values["otlp.translation-strategy"].clone(), |text| {
                TranslationStrategy::from_name(text).ok_or_else(|| {
                    let names = TranslationStrategy::ALL.map(TranslationStrategy::as_str);
                    format!("{text:?} is none of {}", names.join(", "))
                })
            }),
            namespace: values["otlp.namespace"].0.clone(),
            promotion: if all {
                Promotion::AllBut(ignored)
            } else {
                Promotion::These(promoted)
            },
            keep_identifying_attributes: flag(self, "otlp.keep-identifying-resource-attributes"),
            promote_scope_metadata: flag(self, "otlp.promote-scope-metadata"),
            histograms_to_nhcb: flag(self, "otlp.convert-histograms-to-nhcb"),
            underscore_sanitization: flag(self, "otlp.label-name-underscore-sanitization"),
            preserve_multiple_underscores: flag(self, "otlp.label-name-preserve-multiple-underscores"),
            type_and_unit_labels: flag(self, "otlp.type-and-unit-labels"),
            delta: self.parsed(values["otlp.delta-temporality"].clone(), |text| match text {
                "convert" => Ok(DeltaTemporality::Convert),
                "store" => Ok(DeltaTemporality::Store),
                "reject" => Ok(DeltaTemporality::Reject),
                _ => Err(format!("{text:?} is none of convert, store, reject")),
            }),
            delta_idle: self.parsed(values["otlp.delta-idle"].clone(), value::duration),
            delta_bytes_max: self.parsed(values["otlp.delta-totals-size"].clone(), value::bytes),
        }
    }
}

/// User name and password of a URL are not shown.
fn without_secrets(text: &str) -> String {
    match text
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?)))
    {
        Some((scheme, (secret, rest))) if !secret.contains('/') => format!("{scheme}://<secret>@{rest}"),
        _ => text.to_owned(),
    }
}

fn setting(key: &str) -> &'static Setting {
    settings::find(key).unwrap_or_else(|| unreachable!("{key} is not in the settings table"))
}

/// Limits in force, replaced as a whole by a reload.
#[derive(Debug)]
pub struct LiveLimits {
    current: ArcSwap<(Arc<Limits>, HashMap<String, Arc<Limits>>)>,
}

impl LiveLimits {
    pub fn new(config: &Config) -> Self {
        LiveLimits {
            current: ArcSwap::from_pointee(Self::table(config)),
        }
    }

    pub fn reload(&self, config: &Config) {
        self.current.store(Arc::new(Self::table(config)));
    }

    fn table(config: &Config) -> (Arc<Limits>, HashMap<String, Arc<Limits>>) {
        let own = config
            .overrides
            .iter()
            .map(|(t, l)| (t.clone(), Arc::new(l.clone())))
            .collect();
        (Arc::new(config.limits.clone()), own)
    }
}

impl LimitsProvider for LiveLimits {
    fn limits(&self, tenant: &TenantId) -> Arc<Limits> {
        let table = self.current.load();
        table.1.get(tenant.as_str()).unwrap_or(&table.0).clone()
    }
}

/// The reference page, generated.
pub fn reference_page() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         Every setting is a flag (`--listen.metrics 9090`) and a key of the YAML file given with `--config`\n\
         (`listen: {metrics: 9090}` or `listen.metrics: 9090`). Flags win over the file. In the file, `${NAME}` and\n\
         `${NAME:-default}` are replaced from the environment and `$$` is a dollar sign. Unknown keys are errors.\n\
         `trilith check-config FILE` checks a file. Limits and the settings `otlp.*` can be set per tenant under `overrides`:\n\n\
         ```yaml\noverrides:\n  team-a:\n    active-series: 2000000\n    ingest-rate: 20MiB\n    otlp:\n      promote-resource-attributes: k8s.namespace.name\n```\n\n\
         `SIGHUP` and, with `web.enable-lifecycle`, `POST /-/reload` read these and the overrides of the file again; other settings need a restart.\n\n\
         This page is printed by `trilith config-reference`.\n",
    );
    let mut group = "";
    for s in SETTINGS {
        if s.group != group {
            group = s.group;
            out.push_str(&format!(
                "\n## {group}\n\n| setting | default | meaning |\n|---|---|---|\n"
            ));
        }
        let default = if s.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", s.default)
        };
        out.push_str(&format!("| `{}` | {default} | {} |\n", s.key, s.help));
    }
    out
}

#[cfg(test)]
mod tests;
