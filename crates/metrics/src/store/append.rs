//! The way of a push: checked against the limits and the head, logged, applied.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use trilith_model::{Appended, ErrorKind, LabelsRef, MetricBatch, Rejection, Result, Sample, Signal, TenantId, task};

use super::{Inner, MetricsStore};
use crate::head::{HeadSeriesRef, MetricsHead, SeriesReservation};
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
        let items = batch.samples.len();
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
        cpu(batch.samples.len(), move || {
            // A cut may have come between: then the refs mean nothing.
            let refs = Arc::ptr_eq(ticket.head(), &head).then_some(refs.as_slice());
            ticket.head().apply(&tenant, &batch, refs);
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

        let oldest = match limits.max_sample_age {
            Duration::ZERO => i64::MIN,
            age => now.saturating_sub(ms(age)),
        };
        let newest = match limits.max_sample_future {
            Duration::ZERO => i64::MAX,
            ahead => now.saturating_add(ms(ahead)),
        };
        let creates = refs.iter().filter(|r| r.is_none()).count() as u64;
        // Booked first and counted after, so that batches that come together do not both take the last place.
        let reservation = (creates > 0).then(|| part.reserve(creates));
        let mut room = match limits.active_series_max {
            0 => u64::MAX,
            max => max.saturating_sub(part.active_series().saturating_sub(creates)),
        };

        let mut refused = Refused::default();
        let mut accepted = 0u64;
        // Filled only when something is left out.
        let mut kept: Option<(MetricBatch, Vec<Option<HeadSeriesRef>>)> = None;
        let mut keep: Vec<Sample> = Vec::new();
        for (i, ((labels, samples), &r)) in batch.series().zip(&refs).enumerate() {
            keep.clear();
            if r.is_none() && !samples.is_empty() {
                if room == 0 {
                    refused.add(Reason::SeriesLimit, samples.len() as u64, || {
                        format!(
                            "per-tenant limit of {} active series exceeded for {tenant}, first refused series {labels} \
                             (limits.active-series)",
                            limits.active_series_max
                        )
                    });
                    copy_before(&mut kept, &batch, &refs, i);
                    continue;
                }
                room -= 1;
            }
            let mut last = r.and_then(|r| part.last(r));
            for &s in samples {
                let bits = s.value.to_bits();
                if s.ts_ms < oldest {
                    refused.add(Reason::TooOld, 1, || {
                        about(
                            labels,
                            s,
                            &format!("older than limits.max-sample-age ({:?})", limits.max_sample_age),
                        )
                    });
                } else if s.ts_ms > newest {
                    refused.add(Reason::TooNew, 1, || {
                        about(
                            labels,
                            s,
                            &format!(
                                "further ahead than limits.max-sample-future ({:?})",
                                limits.max_sample_future
                            ),
                        )
                    });
                } else if let Some((_, known)) = last.filter(|l| l.0 == s.ts_ms) {
                    if known == bits {
                        accepted += 1;
                    } else {
                        refused.add(Reason::Duplicate, 1, || {
                            about(labels, s, "duplicate sample for timestamp with another value")
                        });
                    }
                } else {
                    accepted += 1;
                    keep.push(s);
                    if last.is_none_or(|l| l.0 < s.ts_ms) {
                        last = Some((s.ts_ms, bits));
                    }
                }
            }
            if keep.len() < samples.len() {
                copy_before(&mut kept, &batch, &refs, i);
            }
            if let Some((out, out_refs)) = &mut kept
                && !keep.is_empty()
            {
                out.samples.extend_from_slice(&keep);
                out.finish_series(labels);
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
        let answer = Appended {
            accepted,
            rejections: refused.into_rejections(),
            ..Appended::default()
        };
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

/// On the first thing left out: starts the reduced batch with the series before `i`, all of which were kept whole.
fn copy_before(
    kept: &mut Option<(MetricBatch, Vec<Option<HeadSeriesRef>>)>,
    batch: &MetricBatch,
    refs: &[Option<HeadSeriesRef>],
    i: usize,
) {
    if kept.is_some() {
        return;
    }
    let mut out = MetricBatch::default();
    for (labels, samples) in batch.series().take(i) {
        out.samples.extend_from_slice(samples);
        out.finish_series(labels);
    }
    *kept = Some((out, refs[..i].to_vec()));
}

fn ms(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

fn about(labels: LabelsRef<'_>, s: Sample, why: &str) -> String {
    format!("{why}: series {labels}, timestamp {} ms", s.ts_ms)
}

/// Why samples are refused; the names are those of Mimir's discarded samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    SeriesLimit,
    TooOld,
    TooNew,
    Duplicate,
}

impl Reason {
    fn kind(self) -> ErrorKind {
        match self {
            Reason::SeriesLimit => ErrorKind::LimitExceeded,
            Reason::TooOld | Reason::TooNew | Reason::Duplicate => ErrorKind::Invalid,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Reason::SeriesLimit => "per_user_series_limit",
            Reason::TooOld => "sample_too_old",
            Reason::TooNew => "too_far_in_future",
            Reason::Duplicate => "new_value_for_timestamp",
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
