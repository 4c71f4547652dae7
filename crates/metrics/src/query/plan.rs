//! Which series, and where each of them is.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::{HashMap, HashTable};
use smallvec::SmallVec;
use trilith_index::{Bitmap, select};
use trilith_model::{Error, ErrorKind, Labels, LabelsRef, Matcher, Result, TimeRange};
use trilith_query::{QueryContext, Reservation};

use super::{Sources, skip_damaged};
use crate::head::HeadSeriesRef;
use crate::order;
use crate::tombstones::covers;

/// A series and its parts, as (source, ordinal in the source), sources ascending.
#[derive(Debug)]
pub(crate) struct PlannedSeries {
    pub(crate) labels: Labels,
    pub(crate) parts: SmallVec<[(u32, u32); 2]>,
}

/// Neighbouring series of a plan that are read together, and about how many samples that means.
#[derive(Clone, Debug)]
pub(crate) struct PlannedRun {
    pub(crate) series: std::ops::Range<usize>,
    pub(crate) samples: u64,
}

/// What `select` will read, in the order of series inside blocks.
pub(crate) struct Plan {
    pub(crate) sources: Sources,
    pub(crate) range: TimeRange,
    /// See [`trilith_query::SelectHints::newest_only`].
    pub(crate) newest_only: bool,
    pub(crate) series: Vec<PlannedSeries>,
    /// When samples of a part are deleted, by (source, ordinal); ascending. Nearly always empty.
    pub(crate) dead: HashMap<(u32, u32), Vec<TimeRange>>,
    _memory: Reservation,
}

/// CPU work.
///
/// # Errors
/// `Execution` when there are more series than `query_series_max` or than fit the memory; `Corrupt` of a head's
/// postings never happens, those of blocks are warned about.
pub(crate) fn plan(
    ctx: &QueryContext,
    sources: Sources,
    matchers: &[Matcher],
    range: TimeRange,
    newest_only: bool,
) -> Result<Plan> {
    // One source has every series once.
    let single = sources.blocks.len() + sources.heads.len() == 1;
    let mut found = Found::new(ctx, single)?;
    let mut ranks = None;
    let check = || ctx.check();
    for (n, block) in sources.blocks.iter().enumerate() {
        let index = &block.reader.index;
        let mut packed = Vec::new();
        let mut resolve = || -> Result<()> {
            for (i, ordinal) in select(index, matchers, &check)?.iter().enumerate() {
                if i % 4096 == 0 {
                    ctx.check()?;
                }
                packed.clear();
                index.labels_into(ordinal, &mut packed)?;
                let labels = LabelsRef::from_packed_trusted(&packed);
                let dead = block.mask.as_ref().map_or_else(Vec::new, |m| m.dead(labels));
                if !dead.is_empty() {
                    if covers(&dead, block.reader.span_of(ordinal), range) {
                        continue;
                    }
                    found.memory.grow(size_of_val(dead.as_slice()) + 64)?;
                    found.dead.insert((n as u32, ordinal), dead);
                }
                found.add(labels, |l| l.to_owned(), n as u32, ordinal)?;
            }
            Ok(())
        };
        resolve().or_else(|e| skip_damaged(ctx, &block.handle, e))?;
    }
    for (n, head) in (sources.blocks.len()..).zip(&sources.heads) {
        head.with_index(|index| -> Result<()> {
            let ordinals: Bitmap = select(&index.postings, matchers, &check)?;
            if single {
                ranks = head.ranks(index, ordinals.cardinality());
            }
            for (i, ordinal) in ordinals.iter().enumerate() {
                if i % 4096 == 0 {
                    ctx.check()?;
                }
                let labels = index.labels(HeadSeriesRef(ordinal));
                found.add(labels.as_ref(), |_| labels.clone(), n as u32, ordinal)?;
            }
            Ok(())
        })?;
    }
    let Found {
        mut series,
        memory,
        dead,
        ..
    } = found;
    let by_labels = |a: &PlannedSeries, b: &PlannedSeries| order::compare(a.labels.as_ref(), b.labels.as_ref());
    match ranks {
        Some(ranks) => series.sort_unstable_by(|a, b| {
            let rank = |s: &PlannedSeries| ranks.get(s.parts[0].1 as usize);
            match (rank(a), rank(b)) {
                (Some(a), Some(b)) => a.cmp(b),
                // Younger than the ranks.
                _ => by_labels(a, b),
            }
        }),
        // Stable, because it makes use of runs that are in order: those of a block are.
        None => series.sort_by(by_labels),
    }
    Ok(Plan {
        sources,
        range,
        newest_only,
        series,
        dead,
        _memory: memory,
    })
}

struct Found<'a> {
    ctx: &'a QueryContext,
    /// Every series comes once.
    distinct: bool,
    table: HashTable<(u64, u32)>,
    series: Vec<PlannedSeries>,
    dead: HashMap<(u32, u32), Vec<TimeRange>>,
    memory: Reservation,
    hasher: foldhash::fast::RandomState,
}

impl<'a> Found<'a> {
    fn new(ctx: &'a QueryContext, distinct: bool) -> Result<Self> {
        Ok(Found {
            ctx,
            distinct,
            table: HashTable::new(),
            series: Vec::new(),
            dead: HashMap::new(),
            memory: ctx.memory.reserve(0)?,
            hasher: foldhash::fast::RandomState::default(),
        })
    }

    fn add(
        &mut self,
        labels: LabelsRef<'_>,
        own: impl FnOnce(LabelsRef<'_>) -> Labels,
        source: u32,
        ordinal: u32,
    ) -> Result<()> {
        let hash = if self.distinct {
            0
        } else {
            self.hasher.hash_one(labels.as_packed())
        };
        let known = self.table.find(hash, |&(h, i)| {
            h == hash && self.series[i as usize].labels.as_packed() == labels.as_packed()
        });
        if let Some(&(_, i)) = known {
            let parts = &mut self.series[i as usize].parts;
            if parts.spilled() {
                self.memory.grow(8)?;
            }
            parts.push((source, ordinal));
            return Ok(());
        }
        let max = self.ctx.limits.query_series_max;
        if max != 0 && self.series.len() as u64 >= max {
            return Err(too_many_series(max));
        }
        self.memory
            .grow(labels.as_packed().len() + std::mem::size_of::<PlannedSeries>() + 48)?;
        // query_series_max and the memory budget end this long before 2^32.
        if !self.distinct {
            self.table
                .insert_unique(hash, (hash, self.series.len() as u32), |&(h, _)| h);
        }
        self.series.push(PlannedSeries {
            labels: own(labels),
            parts: SmallVec::from_slice(&[(source, ordinal)]),
        });
        Ok(())
    }
}

pub(crate) fn too_many_series(max: u64) -> Error {
    Error::new(
        ErrorKind::Execution,
        format!("query selects more than {max} series (limits.query-series); narrow the selector"),
    )
}

impl Plan {
    /// Splits the series into runs of bounded size.
    pub(crate) fn runs(self: &Arc<Self>) -> Vec<PlannedRun> {
        const SERIES_MAX: usize = 1024;
        const SAMPLES_TARGET: u64 = 256 << 10;
        let span = |min: i64, max: i64| (i128::from(max) - i128::from(min)).max(0) as f64 + 1.0;
        // Samples of a source, spread evenly over its series and its time.
        let share = |items: u64, series: u64, t: TimeRange| {
            let part = span(self.range.min.max(t.min), self.range.max.min(t.max)) / span(t.min, t.max);
            ((items / series.max(1)) as f64 * part) as u64 + 1
        };
        let blocks = self.sources.blocks.iter().map(|b| {
            let m = &b.handle.meta;
            share(m.items, m.groups, TimeRange::new(m.time_min, m.time_max))
        });
        let heads = self
            .sources
            .heads
            .iter()
            .map(|h| share(h.items(), u64::from(h.series_count()), h.time()));
        let per_series: Vec<u64> = blocks.chain(heads).collect();
        let estimate = |s: &PlannedSeries| -> u64 { s.parts.iter().map(|&(n, _)| per_series[n as usize]).sum() };
        let mut runs = Vec::new();
        let (mut from, mut samples) = (0, 0);
        for (i, s) in self.series.iter().enumerate() {
            let n = estimate(s);
            if i > from && (i - from >= SERIES_MAX || samples + n > SAMPLES_TARGET) {
                runs.push(PlannedRun {
                    series: from..i,
                    samples,
                });
                (from, samples) = (i, 0);
            }
            samples += n;
        }
        if from < self.series.len() {
            runs.push(PlannedRun {
                series: from..self.series.len(),
                samples,
            });
        }
        runs
    }
}
