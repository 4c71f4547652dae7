//! A metrics store in memory: the reference for the waist's contract, and the source of language tests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::RwLock;
use trilith_model::{Appended, Labels, Matcher, MetricBatch, MetricMetadata, MetricSink, Result, Sample, TenantId};
use trilith_query::{
    BatchColumn, ExemplarRequest, LabelRequest, QueryContext, QueryStats, ResultStream, SeriesBatch, SeriesExemplars,
    SeriesRequest, SeriesSource, ValueColumn,
};

/// Columns per batch; small, so that tests see several batches.
const BATCH_COLUMNS: usize = 64;

/// Series by tenant. Of several values for one timestamp the first stays.
#[derive(Debug, Default)]
pub struct MemorySeries {
    tenants: RwLock<HashMap<TenantId, Tenant>>,
}

#[derive(Debug, Default)]
struct Tenant {
    series: BTreeMap<Labels, BTreeMap<i64, f64>>,
    metadata: Vec<MetricMetadata>,
}

/// A batch of series given as (labels, (ms, value) pairs).
pub fn metric_batch<'a>(series: impl IntoIterator<Item = (Labels, &'a [(i64, f64)])>) -> MetricBatch {
    let mut batch = MetricBatch::default();
    for (labels, samples) in series {
        batch
            .samples
            .extend(samples.iter().map(|&(ts_ms, value)| Sample { ts_ms, value }));
        batch.finish_series(labels.as_ref());
    }
    batch
}

impl MemorySeries {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds samples to one series.
    pub fn push(&self, tenant: &TenantId, labels: Labels, samples: impl IntoIterator<Item = (i64, f64)>) {
        let mut tenants = self.tenants.write();
        let series = tenants
            .entry(tenant.clone())
            .or_default()
            .series
            .entry(labels)
            .or_default();
        for (ts, v) in samples {
            series.entry(ts).or_insert(v);
        }
    }

    pub fn clear(&self) {
        self.tenants.write().clear();
    }

    fn matching(&self, ctx: &QueryContext, request: &LabelRequest) -> Vec<Labels> {
        let tenants = self.tenants.read();
        let Some(tenant) = tenants.get(&ctx.tenant) else {
            return Vec::new();
        };
        tenant
            .series
            .iter()
            .filter(|(l, _)| any_set_matches(&request.matcher_sets, l))
            .filter(|(_, s)| request.start <= request.end && s.range(request.start..=request.end).next().is_some())
            .map(|(l, _)| l.clone())
            .collect()
    }
}

/// Whether all matchers hold; a missing label is the empty string.
pub fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")))
}

pub(crate) fn any_set_matches(sets: &[Vec<Matcher>], labels: &Labels) -> bool {
    sets.is_empty() || sets.iter().any(|set| all_match(set, labels))
}

pub(crate) fn cut<T>(mut items: Vec<T>, limit: usize) -> Vec<T> {
    if limit != 0 {
        items.truncate(limit);
    }
    items
}

#[async_trait]
impl MetricSink for MemorySeries {
    async fn append(&self, tenant: &TenantId, batch: MetricBatch) -> Result<Appended> {
        let mut accepted = 0;
        for (labels, samples) in batch.series() {
            accepted += samples.len() as u64;
            self.push(tenant, labels.to_owned(), samples.iter().map(|s| (s.ts_ms, s.value)));
        }
        if !batch.metadata.is_empty() {
            self.tenants
                .write()
                .entry(tenant.clone())
                .or_default()
                .metadata
                .extend(batch.metadata);
        }
        Ok(Appended {
            accepted,
            rejections: Vec::new(),
            ..Appended::default()
        })
    }
}

#[async_trait]
impl SeriesSource for MemorySeries {
    fn select(&self, ctx: &QueryContext, request: SeriesRequest) -> ResultStream<SeriesBatch> {
        // Series in label order, grouped by equal timestamps within a batch.
        let mut found: Vec<(Labels, Vec<i64>, Vec<f64>)> = Vec::new();
        if let Some(tenant) = self.tenants.read().get(&ctx.tenant)
            && request.start_ms <= request.end_ms
        {
            for (labels, samples) in &tenant.series {
                if all_match(&request.matchers, labels) {
                    let (ts, vs): (Vec<i64>, Vec<f64>) = samples.range(request.start_ms..=request.end_ms).unzip();
                    if !ts.is_empty() {
                        found.push((labels.clone(), ts, vs));
                    }
                }
            }
        }
        let ctx = ctx.clone();
        let batches: Vec<_> = found.chunks(BATCH_COLUMNS).map(to_batch).collect();
        futures::stream::iter(batches)
            .map(move |batch| {
                ctx.check()?;
                QueryStats::add(&ctx.stats.series, batch.columns.len() as u64);
                QueryStats::add(&ctx.stats.samples, batch.sample_count() as u64);
                Ok(batch)
            })
            .boxed()
    }

    async fn series(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<Labels>> {
        Ok(cut(self.matching(ctx, &request), request.limit))
    }

    async fn label_names(&self, ctx: &QueryContext, request: LabelRequest) -> Result<Vec<String>> {
        let names: BTreeSet<String> = self
            .matching(ctx, &request)
            .iter()
            .flat_map(|l| l.iter().map(|l| l.name.to_owned()))
            .collect();
        Ok(cut(names.into_iter().collect(), request.limit))
    }

    async fn label_values(&self, ctx: &QueryContext, name: &str, request: LabelRequest) -> Result<Vec<String>> {
        let values: BTreeSet<String> = self
            .matching(ctx, &request)
            .iter()
            .filter_map(|l| l.get(name).map(str::to_owned))
            .collect();
        Ok(cut(values.into_iter().collect(), request.limit))
    }

    async fn exemplars(&self, _ctx: &QueryContext, _request: ExemplarRequest) -> Result<Vec<SeriesExemplars>> {
        Ok(Vec::new())
    }

    async fn metadata(&self, ctx: &QueryContext, family: Option<&str>) -> Result<Vec<MetricMetadata>> {
        let tenants = self.tenants.read();
        let mut out: Vec<MetricMetadata> = Vec::new();
        for m in tenants.get(&ctx.tenant).into_iter().flat_map(|t| &t.metadata) {
            if family.is_none_or(|f| f == m.family) && !out.contains(m) {
                out.push(m.clone());
            }
        }
        out.sort_by(|a, b| a.family.cmp(&b.family));
        Ok(out)
    }
}

fn to_batch(series: &[(Labels, Vec<i64>, Vec<f64>)]) -> SeriesBatch {
    let mut batch = SeriesBatch::default();
    let mut index: HashMap<&[i64], u32> = HashMap::new();
    for (_, ts, _) in series {
        index.entry(ts).or_insert_with(|| {
            batch.times.push(Arc::from(ts.as_slice()));
            batch.times.len() as u32 - 1
        });
    }
    for (labels, ts, values) in series {
        let from = batch.floats.len();
        batch.floats.extend_from_slice(values);
        batch.columns.push(BatchColumn {
            labels: labels.clone(),
            times_idx: index[ts.as_slice()],
            values: ValueColumn::Float(from..batch.floats.len()),
            starts: None,
        });
    }
    batch.columns.sort_by_key(|c| c.times_idx);
    batch
}
