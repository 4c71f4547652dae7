//! The life of the server process.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trilith_api::Shared;
use trilith_api::ops::Admin;
use trilith_ingest::otlp_metrics::DeltaTotals;
use trilith_model::rng::Rng;
use trilith_model::{Clock, Result, Signal, SystemClock, TenantId, task};
use trilith_query::MemoryBudget;

use crate::cli::Invocation;
use crate::config::{self, Config, Flags, LiveLimits};
use crate::datadir::DataDir;
use crate::listen::{self, Bound};
use crate::routes;
use crate::stores::Stores;
use crate::telemetry::exposition::Exposition;
use crate::telemetry::http::HttpMetrics;
use crate::telemetry::selfobserve::SelfObserve;
use crate::telemetry::{logging, process};

/// From the stop signal to the end at the latest.
const STOP_TIMEOUT: Duration = Duration::from_secs(9);
/// Of these, what running requests get before they are cut off.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);

/// Own lines and spans that wait for the self-observation task.
const OWN_LINES_MAX: usize = 4096;
const OWN_SPANS_MAX: usize = 4096;

/// Runs until a stop signal.
///
/// # Errors
/// A start that cannot work, in one line.
pub fn main(invocation: &Invocation) -> anyhow::Result<()> {
    let config = config::load(invocation.config_file.as_deref(), &invocation.flags)
        .map_err(|errors| anyhow::anyhow!("{}", errors.join("; ")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("io")
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(run(config, invocation));
    // Blocking work that is still running (a merge) must not hold the process; what it wrote is not committed.
    runtime.shutdown_timeout(Duration::from_millis(200));
    done
}

async fn run(config: Config, invocation: &Invocation) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let rng = Arc::new(Rng::from_os());
    let (line_tx, lines) = mpsc::channel(OWN_LINES_MAX);
    let (span_tx, spans) = mpsc::channel(OWN_SPANS_MAX);
    logging::install(
        &config.log_level,
        config.log_json,
        config.self_observe.then_some(line_tx),
    )
    .map_err(anyhow::Error::msg)?;
    let mut stop_signals = StopSignals::install()?;

    let data_dir = DataDir::open(&config.data_dir)?;
    let bound = Listeners::bind(&config.listen).await?;
    let limits = Arc::new(LiveLimits::new(&config));
    let opening = Stores::open(&config, &data_dir, clock.clone(), rng.clone(), limits.clone());
    let stores = tokio::select! {
        opened = opening => Arc::new(opened?),
        () = stop_signals.stop() => return Ok(()),
    };

    let stop = CancellationToken::new();
    let http = Arc::new(HttpMetrics::new(
        clock.clone(),
        rng.clone(),
        config.self_observe.then_some(span_tx),
    ));
    let quit = CancellationToken::new();
    let process = Arc::new(Process {
        start_ms: clock.now_ms(),
        clock: clock.clone(),
        retention: config.retention.metrics,
        lifecycle: config.prom.enable_lifecycle,
        quit: quit.clone(),
        shown: ArcSwap::from_pointee(config.shown.clone()),
        reload_ok: AtomicBool::new(true),
        config_ms: AtomicI64::new(clock.now_ms()),
        stores: stores.clone(),
        http: http.clone(),
        delta_totals: Arc::new(DeltaTotals::new(clock.clone())),
        limits: limits.clone(),
        config_file: invocation.config_file.clone(),
        flags: invocation.flags.clone(),
        state: AtomicU8::new(STARTING),
    });
    let shared = Shared {
        clock: clock.clone(),
        limits,
        memory: MemoryBudget::new(config.query_memory_bytes),
        multi_tenancy: config.multi_tenancy,
        shutdown: stop.child_token(),
    };

    let addresses = bound.addresses();
    let instance = addresses[0].1.clone();
    let connections = TaskTracker::new();
    let background = TaskTracker::new();
    stores.spawn_background(&background, &stop);
    let routers = routes::all(&shared, &stores, &process, &http, &config.prom);
    for (listener, router) in bound.with(routers) {
        let most = match listener.setting {
            "listen.metrics" => config.connections_max,
            _ => Semaphore::MAX_PERMITS,
        };
        background.spawn(listener.serve(router, connections.clone(), stop.clone(), most));
    }
    if config.self_observe {
        let observer = SelfObserve {
            clock,
            rng,
            tenant: TenantId::anonymous(),
            instance,
            metrics: stores.metrics.clone(),
            logs: stores.logs.clone(),
            traces: stores.traces.clone(),
            lines,
            spans,
        };
        let process = process.clone();
        let gather = move |ts_ms: i64, instance: &str| {
            process
                .gather()
                .into_batch(ts_ms, &[("job", "trilith"), ("instance", instance)])
        };
        background.spawn(observer.run(gather, stop.clone()));
    }
    process.state.store(READY, Ordering::Relaxed);
    announce(&addresses);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), storage = stores.url(), "ready");

    loop {
        let stop = tokio::select! {
            stop = stop_signals.next() => stop,
            () = quit.cancelled() => true,
        };
        if stop {
            break;
        }
        // It logs what became of it.
        let _ = process.reload().await;
    }
    tracing::info!("stopping");
    process.state.store(STOPPING, Ordering::Relaxed);
    task::spawn("second-signal", async move {
        stop_signals.stop().await;
        tracing::warn!("second signal, ending at once");
        std::process::exit(130);
    });
    shut_down(&stop, &connections, &background, &stores).await;
    drop(data_dir);
    Ok(())
}

async fn shut_down(stop: &CancellationToken, connections: &TaskTracker, background: &TaskTracker, stores: &Stores) {
    // Cancels nothing that is in flight: connections finish their request, loops their step.
    stop.cancel();
    connections.close();
    background.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "requests cut off");
    }
    let rest = async {
        // The log first: once it is synced, nothing can be lost any more.
        stores.close().await;
        background.wait().await;
    };
    if tokio::time::timeout(STOP_TIMEOUT - DRAIN_TIMEOUT, rest).await.is_err() {
        tracing::warn!("background work cut off");
    }
}

/// The one line on stdout; scripts and tests read the addresses from it.
fn announce(addresses: &[(&'static str, String)]) {
    let parts: Vec<String> = addresses
        .iter()
        .map(|(name, address)| format!("{name}={address}"))
        .collect();
    let line = format!("trilith ready: {}\n", parts.join(" "));
    let mut out = std::io::stdout();
    // Nobody may be reading; that is no reason to stop.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

struct Listeners {
    metrics: Bound,
    logs: Bound,
    traces: Bound,
    otlp_grpc: Bound,
    otlp_http: Bound,
}

impl Listeners {
    async fn bind(listen: &config::Listen) -> anyhow::Result<Listeners> {
        Ok(Listeners {
            metrics: listen::bind("listen.metrics", &listen.metrics).await?,
            logs: listen::bind("listen.logs", &listen.logs).await?,
            traces: listen::bind("listen.traces", &listen.traces).await?,
            otlp_grpc: listen::bind("listen.otlp-grpc", &listen.otlp_grpc).await?,
            otlp_http: listen::bind("listen.otlp-http", &listen.otlp_http).await?,
        })
    }

    fn addresses(&self) -> Vec<(&'static str, String)> {
        vec![
            ("metrics", self.metrics.address.to_string()),
            ("logs", self.logs.address.to_string()),
            ("traces", self.traces.address.to_string()),
            ("otlp-grpc", self.otlp_grpc.address.to_string()),
            ("otlp-http", self.otlp_http.address.to_string()),
        ]
    }

    fn with(self, routers: routes::Routers) -> Vec<(Bound, axum::Router)> {
        vec![
            (self.metrics, routers.metrics),
            (self.logs, routers.logs),
            (self.traces, routers.traces),
            (self.otlp_grpc, routers.otlp_grpc),
            (self.otlp_http, routers.otlp_http),
        ]
    }
}

struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl StopSignals {
    fn install() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(StopSignals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next SIGTERM or SIGINT.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// True for a stop signal, false for SIGHUP.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.hangup.recv() => false,
        }
    }
}

/// Whether a reload changes the setting.
fn reloadable(key: &str) -> bool {
    key.starts_with("overrides.") || config::settings::find(key).is_some_and(|s| s.per_tenant)
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const STOPPING: u8 = 2;

/// What the operational endpoints work on.
pub struct Process {
    pub(crate) stores: Arc<Stores>,
    pub(crate) start_ms: i64,
    pub(crate) retention: Duration,
    clock: Arc<dyn Clock>,
    lifecycle: bool,
    /// Cancelled by `/-/quit`.
    quit: CancellationToken,
    /// Settings in force.
    shown: ArcSwap<BTreeMap<String, String>>,
    reload_ok: AtomicBool,
    /// When the configuration in force was read, ms.
    config_ms: AtomicI64,
    http: Arc<HttpMetrics>,
    delta_totals: Arc<DeltaTotals>,
    limits: Arc<LiveLimits>,
    config_file: Option<PathBuf>,
    flags: Flags,
    state: AtomicU8,
}

impl Process {
    /// The running totals of delta metrics.
    pub fn delta_totals(&self) -> &Arc<DeltaTotals> {
        &self.delta_totals
    }

    pub(crate) fn settings(&self) -> Arc<BTreeMap<String, String>> {
        self.shown.load_full()
    }

    /// Whether the last reload succeeded, and when the configuration in force was read.
    pub(crate) fn reloaded(&self) -> (bool, i64) {
        (
            self.reload_ok.load(Ordering::Relaxed),
            self.config_ms.load(Ordering::Relaxed),
        )
    }

    /// All own metrics.
    pub fn gather(&self) -> Exposition {
        let mut out = Exposition::default();
        out.labelled(
            "trilith_build_info",
            trilith_model::MetricType::Gauge,
            "Always 1; the labels say what runs.",
            [(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
        );
        process::collect(&mut out);
        self.http.collect(&mut out);
        self.stores.collect(&mut out);
        let (series, bytes) = self.delta_totals.usage();
        out.gauge(
            "trilith_delta_totals",
            "Series of delta metrics with a running total.",
            series as f64,
        );
        out.gauge(
            "trilith_delta_totals_bytes",
            "Approximate memory of running totals.",
            bytes as f64,
        );
        out
    }
}

#[async_trait]
impl Admin for Process {
    fn ready(&self) -> std::result::Result<(), String> {
        match self.state.load(Ordering::Relaxed) {
            READY => Ok(()),
            STOPPING => Err("stopping".into()),
            _ => Err("starting".into()),
        }
    }

    fn metrics(&self) -> String {
        self.gather().into_text()
    }

    async fn flush(&self, signal: Signal) -> Result<()> {
        self.stores.flush(signal).await
    }

    async fn compact(&self, signal: Signal) -> Result<()> {
        self.stores.compact(signal).await
    }

    fn lifecycle_enabled(&self) -> bool {
        self.lifecycle
    }

    fn quit(&self) {
        self.quit.cancel();
    }

    async fn reload(&self) -> std::result::Result<(), String> {
        let loaded = config::load(self.config_file.as_deref(), &self.flags);
        self.reload_ok.store(loaded.is_ok(), Ordering::Relaxed);
        match loaded {
            Ok(config) => {
                self.limits.reload(&config);
                // Only limits take effect; the others stay as they were at the start.
                let mut shown = (*self.settings()).clone();
                shown.retain(|k, _| !reloadable(k));
                shown.extend(config.shown.into_iter().filter(|(k, _)| reloadable(k)));
                self.shown.store(Arc::new(shown));
                self.config_ms.store(self.clock.now_ms(), Ordering::Relaxed);
                tracing::info!("limits reloaded; other settings need a restart");
                Ok(())
            }
            Err(errors) => {
                let errors = errors.join("; ");
                tracing::error!(error = errors, "the configuration was not reloaded");
                Err(errors)
            }
        }
    }
}
