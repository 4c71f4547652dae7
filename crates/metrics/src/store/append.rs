//! The way of a push: checked against the limits and the head, logged, applied.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use trilith_model::{
    Appended, BatchSeriesView, ErrorKind, Exemplar, LabelsRef, Limits, MetricBatch, Rejection, Result, SampleValue,
    Signal, TenantId, task,
};

use super::{Inner, MetricsStore};
use crate::format::histogram;
use crate::head::exemplars::{Verdict, judge};
use crate::head::series::same_value;
use crate::head::{HeadSeriesRef, MetricsHead, SeriesReservation, TenantHead};
use crate::wal_record;

/// Samples from which on a batch's CPU work leaves the I/O thread: below, the hand-over costs more than the work.
const INLINE_SAMPLES_MAX: usize = 500;

/// A batch as it may be logged.
struct Admitted {
    batch: MetricBatch,
    /// The head it was checked against, and the known series of `batch` there.
    head: Arc<MetricsHead>,
    refs: Vec<Option<HeadSeriesRef>>,
    payload: Bytes,
    reservation: Option<SeriesReservation>,
    answer: Appended,
}

impl MetricsStore {
    pub(super) async fn append_batch(&self, tenant: &TenantId, batch: MetricBatch) -> Result<Appended> {
        let items = batch.sample_count();
        let (inner, id) = (self.inner.clone(), tenant.clone());
        let admitted = cpu(items, move || inner.admit(&id, batch)).await??;
        let answer = admitted.answer.clone();
        if !admitted.batch.is_empty() {
            let (inner, id) = (self.inner.clone(), tenant.clone());
            // A task of its own: once the record is logged it must reach the head, whether the client waits or not.
            let task = task::spawn("metrics append", async move { inner.log_and_apply(id, admitted).await });
            task.await
                .map_err(|e| trilith_model::Error::internal(format!("an append failed: {e}")))??;
        }
        self.inner
            .counters
            .samples
            .fetch_add(answer.accepted, Ordering::Relaxed);
        let rejected = answer.rejections.iter().map(|r| r.count).sum();
        self.inner.counters.rejected.fetch_add(rejected, Ordering::Relaxed);
        Ok(answer)
    }
}

/// Runs small work here and large work in the compute pool.
async fn cpu<R: Send + 'static>(items: usize, f: impl FnOnce() -> R + Send + 'static) -> Result<R> {
    if items <= INLINE_SAMPLES_MAX {
        Ok(f())
    } else {
        task::compute(f).await
    }
}

impl Inner {
    async fn log_and_apply(&self, tenant: TenantId, admitted: Admitted) -> Result<()> {
        let Admitted {
            batch,
            head,
            refs,
            payload,
            reservation,
            ..
        } = admitted;
        let (ticket, pending) = self.shard.begin(|| {
            let (lsn, pending) = self.wal.append(Signal::Metrics, &tenant, payload)?;
            Ok((lsn.0, pending))
        })?;
        pending.durable().await?;
        let now = self.clock.now_ms();
        cpu(batch.sample_count(), move || {
            // A cut may have come between: then the refs mean nothing.
            let refs = Arc::ptr_eq(ticket.head(), &head).then_some(refs.as_slice());
            ticket.head().apply(&tenant, &batch, refs, now);
            drop(reservation);
        })
        .await
    }

    /// Decides sample by sample. What is refused is left out of the batch.
    fn admit(&self, tenant: &TenantId, batch: MetricBatch) -> Result<Admitted> {
        let limits = self.limits.limits(tenant);
        let now = self.clock.now_ms();
        let view = self.shard.view();
        let head = view.heads.last().expect("a view has an active head").clone();
        let part = head.tenant_or_new(tenant);
        let refs = part.find_all(&batch);

        let mut judge = Judge::new(&limits, now);
        let creates = batch
            .views()
            .zip(&refs)
            .filter(|(s, r)| r.is_none() && has_samples(s))
            .count() as u64;
        // Booked first and counted after, so that batches that come together do not both take the last place.
        let reservation = (creates > 0).then(|| part.reserve(creates));
        let mut room = match limits.active_series_max {
            0 => u64::MAX,
            max => max.saturating_sub(part.active_series().saturating_sub(creates)),
        };
        if !batch.exemplars.is_empty() {
            let max = usize::try_from(limits.exemplars_max).unwrap_or(usize::MAX);
            part.with_exemplars(|e| e.set_max(max));
        }

        // Filled only when something is left out.
        let mut kept: Option<(MetricBatch, Vec<Option<HeadSeriesRef>>)> = None;
        let mut keep = Kept::default();
        for (i, (view, &r)) in batch.views().zip(&refs).enumerate() {
            keep.clear();
            let mut is_refused = false;
            if r.is_none() && has_samples(&view) {
                is_refused = room == 0;
                room = room.saturating_sub(1);
            }
            if is_refused {
                let n = view.samples.len() + view.histograms.len();
                judge.refused.add(Reason::SeriesLimit, n as u64, || {
                    format!(
                        "per-tenant limit of {} active series exceeded for {tenant}, first refused series {} \
                         (limits.active-series)",
                        limits.active_series_max, view.labels
                    )
                });
            } else {
                judge.samples(&view, r.and_then(|r| part.last(r)), &mut keep);
                judge.exemplars(&view, &part, &mut keep);
            }
            if keep.is_whole(&view) {
                if let Some((out, out_refs)) = &mut kept {
                    copy(out, &view);
                    out_refs.push(r);
                }
                continue;
            }
            let (out, out_refs) = kept.get_or_insert_with(|| {
                // All before were kept whole.
                let mut out = MetricBatch::default();
                batch.views().take(i).for_each(|before| copy(&mut out, &before));
                (out, refs[..i].to_vec())
            });
            if !keep.is_empty() {
                for &k in &keep.samples {
                    out.push_started(view.samples[k], view.starts.get(k).copied().unwrap_or(0));
                }
                out.histograms
                    .extend(keep.histograms.iter().map(|&k| view.histograms[k].clone()));
                out.exemplars
                    .extend(keep.exemplars.iter().map(|&k| view.exemplars[k].clone()));
                out.finish_series(view.labels);
                out_refs.push(r);
            }
        }
        let (mut batch, refs) = match kept {
            Some((mut out, out_refs)) => {
                out.metadata = batch.metadata;
                (out, out_refs)
            }
            None => (batch, refs),
        };
        batch.metadata.retain(|m| !part.knows_metadata(m));
        let payload = if batch.is_empty() {
            Bytes::new()
        } else {
            Bytes::from(wal_record::encode(&batch)?)
        };
        let mut answer = judge.answer;
        answer.rejections = judge.refused.into_rejections();
        Ok(Admitted {
            batch,
            head,
            refs,
            payload,
            reservation,
            answer,
        })
    }
}

fn has_samples(view: &BatchSeriesView<'_>) -> bool {
    !view.samples.is_empty() || !view.histograms.is_empty()
}

fn copy(out: &mut MetricBatch, view: &BatchSeriesView<'_>) {
    if view.starts.is_empty() && out.starts.is_empty() {
        out.samples.extend_from_slice(view.samples);
    } else {
        let starts = view.starts.iter().copied().chain(std::iter::repeat(0));
        for (&s, start_ms) in view.samples.iter().zip(starts) {
            out.push_started(s, start_ms);
        }
    }
    out.histograms.extend_from_slice(view.histograms);
    out.exemplars.extend_from_slice(view.exemplars);
    out.finish_series(view.labels);
}

/// What is kept of one series, by position.
#[derive(Default)]
struct Kept {
    samples: Vec<usize>,
    histograms: Vec<usize>,
    exemplars: Vec<usize>,
}

impl Kept {
    fn clear(&mut self) {
        self.samples.clear();
        self.histograms.clear();
        self.exemplars.clear();
    }

    fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.histograms.is_empty() && self.exemplars.is_empty()
    }

    fn is_whole(&self, view: &BatchSeriesView<'_>) -> bool {
        self.samples.len() == view.samples.len()
            && self.histograms.len() == view.histograms.len()
            && self.exemplars.len() == view.exemplars.len()
    }
}

/// Decides sample by sample.
struct Judge<'a> {
    limits: &'a Limits,
    oldest: i64,
    newest: i64,
    refused: Refused,
    answer: Appended,
}

impl<'a> Judge<'a> {
    fn new(limits: &'a Limits, now: i64) -> Self {
        Judge {
            limits,
            oldest: match limits.max_sample_age {
                Duration::ZERO => i64::MIN,
                age => now.saturating_sub(ms(age)),
            },
            newest: match limits.max_sample_future {
                Duration::ZERO => i64::MAX,
                ahead => now.saturating_add(ms(ahead)),
            },
            refused: Refused::default(),
            answer: Appended::default(),
        }
    }

    /// `last`: the newest sample of the series.
    fn samples(&mut self, view: &BatchSeriesView<'_>, mut last: Option<(i64, SampleValue)>, keep: &mut Kept) {
        for (k, s) in view.samples.iter().enumerate() {
            if self.sample(view.labels, s.ts_ms, SampleValue::Float(s.value), &mut last) {
                keep.samples.push(k);
            }
        }
        for (k, h) in view.histograms.iter().enumerate() {
            if let Some(why) = histogram::refusal(&h.histogram) {
                self.refused
                    .add(Reason::Histogram, 1, || about(view.labels, h.ts_ms, why));
                continue;
            }
            let before = self.answer.accepted;
            if self.sample(
                view.labels,
                h.ts_ms,
                SampleValue::Histogram(h.histogram.clone()),
                &mut last,
            ) {
                keep.histograms.push(k);
            }
            self.answer.histograms += self.answer.accepted - before;
        }
    }

    /// Whether to keep it; an exact repetition is accepted and not kept.
    #[inline]
    fn sample(
        &mut self,
        labels: LabelsRef<'_>,
        ts_ms: i64,
        value: SampleValue,
        last: &mut Option<(i64, SampleValue)>,
    ) -> bool {
        if ts_ms < self.oldest {
            let age = self.limits.max_sample_age;
            self.refused.add(Reason::TooOld, 1, || {
                about(labels, ts_ms, &format!("older than limits.max-sample-age ({age:?})"))
            });
            return false;
        }
        if ts_ms > self.newest {
            let ahead = self.limits.max_sample_future;
            self.refused.add(Reason::TooNew, 1, || {
                about(
                    labels,
                    ts_ms,
                    &format!("further ahead than limits.max-sample-future ({ahead:?})"),
                )
            });
            return false;
        }
        match last {
            Some((t, known)) if *t == ts_ms => {
                if same_value(known, &value) {
                    self.answer.accepted += 1;
                } else {
                    self.refused.add(Reason::Duplicate, 1, || {
                        about(labels, ts_ms, "duplicate sample for timestamp with another value")
                    });
                }
                return false;
            }
            Some((t, _)) if *t > ts_ms => {}
            _ => *last = Some((ts_ms, value)),
        }
        self.answer.accepted += 1;
        true
    }

    /// What is not kept is no rejection.
    fn exemplars(&mut self, view: &BatchSeriesView<'_>, part: &TenantHead, keep: &mut Kept) {
        if view.exemplars.is_empty() || self.limits.exemplars_max == 0 {
            return;
        }
        let mut newest: Option<Exemplar> = part.with_exemplars(|e| e.newest(view.labels).cloned());
        for (k, e) in view.exemplars.iter().enumerate() {
            if e.ts_ms < self.oldest || e.ts_ms > self.newest {
                continue;
            }
            match judge(newest.as_ref(), e) {
                Verdict::New => {
                    keep.exemplars.push(k);
                    newest = Some(e.clone());
                    self.answer.exemplars += 1;
                }
                Verdict::Known => self.answer.exemplars += 1,
                Verdict::Old => {}
            }
        }
    }
}

fn ms(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

fn about(labels: LabelsRef<'_>, ts_ms: i64, why: &str) -> String {
    format!("{why}: series {labels}, timestamp {ts_ms} ms")
}

/// Why samples are refused; the names are those of Mimir's discarded samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    SeriesLimit,
    TooOld,
    TooNew,
    Duplicate,
    Histogram,
}

impl Reason {
    fn kind(self) -> ErrorKind {
        match self {
            Reason::SeriesLimit => ErrorKind::LimitExceeded,
            Reason::TooOld | Reason::TooNew | Reason::Duplicate | Reason::Histogram => ErrorKind::Invalid,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Reason::SeriesLimit => "per_user_series_limit",
            Reason::TooOld => "sample_too_old",
            Reason::TooNew => "too_far_in_future",
            Reason::Duplicate => "new_value_for_timestamp",
            Reason::Histogram => "invalid_native_histogram",
        }
    }
}

#[derive(Default)]
struct Refused(Vec<(Reason, Rejection)>);

impl Refused {
    /// The message is made for the first one of each reason only.
    fn add(&mut self, reason: Reason, n: u64, message: impl FnOnce() -> String) {
        match self.0.iter_mut().find(|(r, _)| *r == reason) {
            Some((_, r)) => r.count += n,
            None => self.0.push((
                reason,
                Rejection {
                    kind: reason.kind(),
                    reason: reason.name(),
                    message: message(),
                    count: n,
                },
            )),
        }
    }

    fn into_rejections(self) -> Vec<Rejection> {
        self.0.into_iter().map(|(_, r)| r).collect()
    }
}
