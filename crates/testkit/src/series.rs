//! A metrics store in memory: the reference for the waist's contract, and the source of language tests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::RwLock;
use trilith_model::{
    Appended, Exemplar, Labels, Matcher, MetricBatch, MetricMetadata, MetricSink, Result, Sample, SampleValue, TenantId,
};
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
    series: BTreeMap<Labels, BTreeMap<i64, (SampleValue, i64)>>,
    /// By time and content.
    exemplars: BTreeMap<Labels, Vec<Exemplar>>,
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

    /// Adds float samples to one series.
    pub fn push(&self, tenant: &TenantId, labels: Labels, samples: impl IntoIterator<Item = (i64, f64)>) {
        let samples = samples.into_iter().map(|(t, v)| (t, SampleValue::Float(v), 0));
        self.push_values(tenant, labels, samples);
    }

    /// Adds samples of any kind, each with its start time (0: unknown), to one series.
    pub fn push_values(
        &self,
        tenant: &TenantId,
        labels: Labels,
        samples: impl IntoIterator<Item = (i64, SampleValue, i64)>,
    ) {
        let mut tenants = self.tenants.write();
        let series = tenants
            .entry(tenant.clone())
            .or_default()
            .series
            .entry(labels)
            .or_default();
        for (ts, v, start) in samples {
            series.entry(ts).or_insert((v, start));
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
        for s in batch.views() {
            accepted += (s.samples.len() + s.histograms.len()) as u64;
            let start = |i: usize| s.starts.get(i).copied().unwrap_or(0);
            let floats = s.samples.iter().enumerate();
            let floats = floats.map(|(i, s)| (s.ts_ms, SampleValue::Float(s.value), start(i)));
            let histograms = s.histograms.iter();
            let histograms = histograms.map(|h| (h.ts_ms, SampleValue::Histogram(h.histogram.clone()), h.start_ms));
            self.push_values(tenant, s.labels.to_owned(), floats.chain(histograms));
            if !s.exemplars.is_empty() {
                let mut tenants = self.tenants.write();
                let all = &mut tenants.entry(tenant.clone()).or_default().exemplars;
                let kept = all.entry(s.labels.to_owned()).or_default();
                kept.extend(
                    s.exemplars
                        .iter()
                        .filter(|e| !kept.contains(e))
                        .cloned()
                        .collect::<Vec<_>>(),
                );
                kept.sort_by_key(|e| e.ts_ms);
            }
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
        let mut found: Vec<Found> = Vec::new();
        if let Some(tenant) = self.tenants.read().get(&ctx.tenant)
            && request.start_ms <= request.end_ms
        {
            for (labels, samples) in &tenant.series {
                if all_match(&request.matchers, labels) {
                    let mut f = Found {
                        labels: labels.clone(),
                        ..Found::default()
                    };
                    let range = samples.range(request.start_ms..=request.end_ms);
                    // Whoever hints what it does not mean is found out.
                    let skipped = if request.hints.newest_only {
                        range.clone().count().saturating_sub(1)
                    } else {
                        0
                    };
                    for (ts, (value, start)) in range.skip(skipped) {
                        f.times.push(*ts);
                        f.values.push(value.clone());
                        f.starts.push(*start);
                    }
                    if !f.times.is_empty() {
                        found.push(f);
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

    async fn exemplars(&self, ctx: &QueryContext, request: ExemplarRequest) -> Result<Vec<SeriesExemplars>> {
        let range = request.start_ms..=request.end_ms;
        let tenants = self.tenants.read();
        let all = tenants.get(&ctx.tenant).into_iter().flat_map(|t| &t.exemplars);
        Ok(all
            .filter(|(l, _)| !request.matcher_sets.is_empty() && any_set_matches(&request.matcher_sets, l))
            .map(|(l, e)| SeriesExemplars {
                labels: l.clone(),
                exemplars: e.iter().filter(|e| range.contains(&e.ts_ms)).cloned().collect(),
            })
            .filter(|s| !s.exemplars.is_empty())
            .collect())
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

#[derive(Debug, Default)]
struct Found {
    labels: Labels,
    times: Vec<i64>,
    values: Vec<SampleValue>,
    starts: Vec<i64>,
}

fn to_batch(series: &[Found]) -> SeriesBatch {
    let mut batch = SeriesBatch::default();
    let mut index: HashMap<&[i64], u32> = HashMap::new();
    for s in series {
        index.entry(&s.times).or_insert_with(|| {
            batch.times.push(Arc::from(s.times.as_slice()));
            batch.times.len() as u32 - 1
        });
    }
    for s in series {
        let floats: Vec<f64> = s
            .values
            .iter()
            .filter_map(|v| match v {
                SampleValue::Float(v) => Some(*v),
                SampleValue::Histogram(_) => None,
            })
            .collect();
        let values = if floats.len() == s.values.len() {
            let from = batch.floats.len();
            batch.floats.extend(floats);
            ValueColumn::Float(from..batch.floats.len())
        } else {
            let from = batch.mixed.len();
            batch.mixed.extend_from_slice(&s.values);
            ValueColumn::Mixed(from..batch.mixed.len())
        };
        let starts = s.starts.iter().any(|s| *s != 0).then(|| {
            let from = batch.starts.len();
            batch.starts.extend_from_slice(&s.starts);
            from..batch.starts.len()
        });
        batch.columns.push(BatchColumn {
            labels: s.labels.clone(),
            times_idx: index[s.times.as_slice()],
            values,
            starts,
        });
    }
    batch.columns.sort_by_key(|c| c.times_idx);
    batch
}
