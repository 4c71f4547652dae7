//! Deleted series: what the text of a tombstone says, which samples of a block it hides, and the deletions themselves.
//!
//! The manifest's tombstones name blocks and carry a text, which is written and read here: label predicates as JSON,
//! `[[["job", "=", "web"], ["instance", "=~", "a.*"]], …]`; a series is hit when it satisfies all predicates of one of the
//! lists. A [`Mask`] is what the tombstones of one block mean for its series. Queries leave out what it hides,
//! merges drop it. A text that cannot be read is an error everywhere: guessing would show what is deleted, or
//! drop what is not.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use trilith_block::{BlockHandle, Tombstone};
use trilith_index::select;
use trilith_model::{Error, LabelsRef, MatchOp, Matcher, MetricAdmin, Result, TenantId, TimeRange, task};
use ulid::Ulid;

use crate::reader::BlockReader;
use crate::store::MetricsStore;
use crate::writer::{FACT_EXEMPLARS, exemplar_time};

/// Blocks looked at together.
const FAN_OUT: usize = 8;

/// What one tombstone hides in the blocks that it names.
#[derive(Debug)]
struct Deletion {
    range: TimeRange,
    /// Any of them, each with all of its predicates.
    selectors: Vec<Vec<Matcher>>,
}

const OPS: [MatchOp; 4] = [MatchOp::Eq, MatchOp::Ne, MatchOp::Re, MatchOp::NotRe];

/// The text of a tombstone.
fn describe(selectors: &[Vec<Matcher>]) -> Result<String> {
    let text = |m: &Matcher| [m.name.to_string(), m.op.as_str().to_owned(), m.value.to_string()];
    let lists: Vec<Vec<[String; 3]>> = selectors.iter().map(|s| s.iter().map(text).collect()).collect();
    serde_json::to_string(&lists).map_err(|e| Error::internal(format!("selectors do not encode: {e}")))
}

/// Reads any text as a tombstone's and writes it again; for fuzzing.
pub(crate) fn fuzz(text: &str) {
    let mut tombstone = Tombstone {
        id: Ulid::nil(),
        tenant: String::new(),
        time_min: 0,
        time_max: 0,
        created_ms: 0,
        what: text.to_owned(),
        blocks: Default::default(),
    };
    if let Ok(deletion) = Deletion::of(&tombstone) {
        tombstone.what = describe(&deletion.selectors).expect("matchers are text");
        let again = Deletion::of(&tombstone).expect("what was written can be read");
        assert_eq!(again.selectors, deletion.selectors);
    }
}

impl Deletion {
    fn of(tombstone: &Tombstone) -> Result<Deletion> {
        let bad = |what: &dyn std::fmt::Display| Error::corrupt(format!("tombstone {}: {what}", tombstone.id));
        let lists: Vec<Vec<[String; 3]>> = serde_json::from_str(&tombstone.what).map_err(|e| bad(&e))?;
        let matcher = |[name, op, value]: [String; 3]| {
            let op = OPS.into_iter().find(|o| o.as_str() == op);
            Matcher::new(op.ok_or_else(|| bad(&"unknown operator"))?, name, value).map_err(|e| bad(&e))
        };
        let list = |list: Vec<_>| list.into_iter().map(matcher).collect::<Result<Vec<_>>>();
        Ok(Deletion {
            range: TimeRange::new(tombstone.time_min, tombstone.time_max),
            selectors: lists.into_iter().map(list).collect::<Result<_>>()?,
        })
    }

    fn hits(&self, series: LabelsRef<'_>) -> bool {
        let one = |m: &Matcher| m.matches(series.get(&m.name).unwrap_or(""));
        self.selectors.iter().any(|list| list.iter().all(one))
    }
}

/// What is deleted of one block.
#[derive(Clone, Debug)]
pub(crate) struct Mask(Arc<[Deletion]>);

impl Mask {
    /// `None` when nothing of the block within `range` is.
    ///
    /// # Errors
    /// `Internal` when a tombstone cannot be read.
    pub(crate) fn of(block: &BlockHandle, range: TimeRange) -> Result<Option<Mask>> {
        let overlap = |t: &&Arc<Tombstone>| TimeRange::new(t.time_min, t.time_max).overlaps(range);
        let deletions = block.tombstones.iter().filter(overlap).map(|t| Deletion::of(t));
        // Not `Corrupt`: that would take the block for damaged and leave it out.
        let deletions = deletions.collect::<Result<Arc<[Deletion]>>>();
        let deletions = deletions.map_err(|e| Error::internal(e.message))?;
        Ok((!deletions.is_empty()).then_some(Mask(deletions)))
    }

    /// When samples of a series are hidden: ascending, apart from each other.
    pub(crate) fn dead(&self, series: LabelsRef<'_>) -> Vec<TimeRange> {
        let hits = self.0.iter().filter(|d| d.hits(series));
        let mut all: Vec<TimeRange> = hits.map(|d| d.range).collect();
        all.sort_unstable_by_key(|r| r.min);
        all.dedup_by(|next, last| {
            let joined = next.min <= last.max.saturating_add(1);
            if joined {
                last.max = last.max.max(next.max);
            }
            joined
        });
        all
    }

    /// Whether nothing is left of a series within `range`.
    pub(crate) fn hides(&self, reader: &BlockReader, ordinal: u32, range: TimeRange) -> Result<bool> {
        let labels = reader.index.labels(ordinal)?;
        Ok(covers(&self.dead(labels.as_ref()), reader.span_of(ordinal), range))
    }
}

/// Whether a series whose samples lie within `span` has none left within `range`.
pub(crate) fn covers(dead: &[TimeRange], span: TimeRange, range: TimeRange) -> bool {
    let (min, max) = (span.min.max(range.min), span.max.min(range.max));
    !dead.is_empty() && (min > max || dead.iter().any(|d| d.min <= min && max <= d.max))
}

/// Whether a time is in one of the ranges, which ascend.
pub(crate) fn is_dead(dead: &[TimeRange], ts_ms: i64) -> bool {
    let at = dead.partition_point(|d| d.max < ts_ms);
    dead.get(at).is_some_and(|d| d.min <= ts_ms)
}

#[async_trait]
impl MetricAdmin for MetricsStore {
    async fn delete_series(&self, tenant: &TenantId, selectors: &[Vec<Matcher>], range: TimeRange) -> Result<()> {
        let what = describe(selectors)?;
        if range.is_empty() || selectors.is_empty() {
            return Ok(());
        }
        // Recent samples into blocks, so that these are looked at, too.
        self.flush().await?;
        let spared = self.without_hits(tenant, selectors, range).await?;
        let masked = self
            .shard()
            .delete(tenant, range, &what, |b| {
                let exemplars = b
                    .facts
                    .get(FACT_EXEMPLARS)
                    .is_some_and(|f| exemplar_time(f).overlaps(range));
                let samples = TimeRange::new(b.time_min, b.time_max).overlaps(range);
                exemplars || samples && !spared.contains(&b.id)
            })
            .await?;
        tracing::info!(%tenant, what, min = range.min, max = range.max, blocks = masked, "series deleted");
        Ok(())
    }

    async fn clean_tombstones(&self, tenant: &TenantId) -> Result<()> {
        let cleaned = self.shard().clean_tombstones(tenant).await?;
        tracing::info!(%tenant, blocks = cleaned, "tombstones cleaned");
        Ok(())
    }

    async fn snapshot(&self, tenant: &TenantId, skip_head: bool) -> Result<String> {
        if !skip_head {
            self.flush().await?;
        }
        let name = self.snapshot_name();
        let folder = format!("snapshots/{tenant}/{name}");
        let blocks = self.shard().snapshot(tenant, &folder).await?;
        tracing::info!(%tenant, folder, blocks, "snapshot written");
        Ok(name)
    }
}

impl MetricsStore {
    /// Blocks in which no series satisfies any selector: they need no mask. A damaged block is masked unseen.
    async fn without_hits(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<HashSet<Ulid>> {
        let view = self.shard().view();
        let handles: Vec<BlockHandle> = view.blocks_of(tenant, range).cloned().collect();
        let selectors: Arc<[Vec<Matcher>]> = selectors.into();
        let looks = futures::stream::iter(handles).map(|block| {
            let selectors = selectors.clone();
            async move {
                let hit = async {
                    let reader = BlockReader::open(&block).await?;
                    let look = move || {
                        for s in selectors.iter() {
                            if !select(&reader.index, s, &|| Ok(()))?.is_empty() {
                                return Ok(true);
                            }
                        }
                        Ok::<_, Error>(false)
                    };
                    task::compute(look).await?
                };
                match hit.await {
                    Ok(hit) => Ok((!hit).then_some(block.meta.id)),
                    Err(e) if e.kind == trilith_model::ErrorKind::Corrupt => Ok(None),
                    Err(e) => Err(e),
                }
            }
        });
        let spared: Vec<Option<Ulid>> = looks.buffered(FAN_OUT).try_collect().await?;
        Ok(spared.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests;
