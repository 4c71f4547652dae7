//! What the Prometheus API shows of this process: settings, state, own metrics, cardinality, blocks.

use async_trait::async_trait;
use trilith_api::prom::{BlockInfo, Cardinality, OwnFamily, RuntimeInfo, System, WalReplay};
use trilith_model::{Result, TenantId, TimeRange};
use trilith_query::QueryContext;

use crate::server::Process;

/// What `/status/tsdb` counts: data of the last hours, as a Prometheus head holds them.
const RECENT_MS: i64 = 3 * 3_600_000;

#[async_trait]
impl System for Process {
    fn flags(&self) -> Vec<(String, String)> {
        let settings = self.settings();
        let of = |key: &str| settings.get(key).cloned().unwrap_or_default();
        // Names under which Prometheus' clients look for the same things.
        let upstream = [
            ("query.timeout", of("limits.query-timeout")),
            ("query.max-samples", of("limits.query-samples")),
            ("storage.tsdb.retention.time", of("retention.metrics")),
            ("storage.tsdb.path", of("data-dir")),
            ("web.listen-address", of("listen.metrics")),
            ("web.enable-remote-write-receiver", "true".to_owned()),
            ("web.enable-otlp-receiver", "true".to_owned()),
        ];
        let own = settings.iter().map(|(k, v)| (k.clone(), v.clone()));
        own.chain(upstream.map(|(k, v)| (k.to_owned(), v))).collect()
    }

    fn config_yaml(&self) -> String {
        let mut out = String::new();
        for (key, value) in self.settings().iter() {
            // A JSON string is a YAML string.
            out.push_str(&format!("{key}: {}\n", serde_json::Value::from(value.as_str())));
        }
        out
    }

    fn runtime(&self) -> RuntimeInfo {
        let (reload_ok, config_ms) = self.reloaded();
        RuntimeInfo {
            start_ms: self.start_ms,
            working_dir: std::env::current_dir().map_or_else(|_| String::new(), |d| d.display().to_string()),
            hostname: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .map_or_else(|_| String::new(), |h| h.trim().to_owned()),
            reload_ok,
            config_ms,
            corruptions: self.stores.wal_stats().corruptions,
            tasks: tokio::runtime::Handle::try_current().map_or(0, |h| h.metrics().num_alive_tasks()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            retention: self.retention,
        }
    }

    fn wal_replay(&self) -> WalReplay {
        // Nothing is served before the replay is over.
        let max = self.stores.wal_stats().segments.saturating_sub(1);
        WalReplay {
            min: 0,
            max,
            current: max,
        }
    }

    fn own_metrics(&self) -> Vec<OwnFamily> {
        self.gather().into_families()
    }

    async fn cardinality(&self, ctx: &QueryContext, top: usize) -> Result<Cardinality> {
        let range = TimeRange::new(ctx.clock.now_ms().saturating_sub(RECENT_MS), i64::MAX);
        let (c, times) = self.stores.metrics.cardinality(ctx, range, top).await?;
        Ok(Cardinality {
            series: c.series,
            label_pairs: c.label_pairs,
            chunks: c.chunks,
            min_ms: times.min,
            max_ms: times.max,
            series_by_metric: c.series_by_metric,
            values_by_label: c.values_by_label,
            bytes_by_label: c.bytes_by_label,
            series_by_pair: c.series_by_pair,
        })
    }

    fn blocks(&self, tenant: &TenantId) -> Vec<BlockInfo> {
        let view = self.stores.metrics.shard().view();
        let mut blocks: Vec<BlockInfo> = view
            .blocks_of(tenant, TimeRange::ALL)
            .map(|b| BlockInfo {
                id: b.meta.id.to_string(),
                min_ms: b.meta.time_min,
                max_ms: b.meta.time_max.saturating_add(1),
                samples: b.meta.items,
                series: b.meta.groups,
                bytes: b.meta.bytes(),
                // Prometheus counts from 1.
                level: u32::from(b.meta.level) + 1,
                sources: vec![b.meta.id.to_string()],
            })
            .collect();
        blocks.sort_by(|a, b| (a.min_ms, &a.id).cmp(&(b.min_ms, &b.id)));
        blocks
    }
}
