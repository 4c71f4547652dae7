//! Everything that belongs to one query and not to its language.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use trilith_model::{Clock, Error, ErrorKind, Limits, Result, TenantId};

/// Shared by all parts of one query; cloning is cheap.
#[derive(Clone)]
pub struct QueryContext {
    pub tenant: TenantId,
    pub limits: Arc<Limits>,
    pub memory: MemoryBudget,
    pub stats: Arc<QueryStats>,
    /// Counts per step, when the client asked for them.
    pub samples: Option<Arc<SampleCounts>>,
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the client goes away or the server stops.
    pub cancel: CancellationToken,
    /// On `clock.monotonic()`.
    deadline: Option<Duration>,
    timeout: Duration,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl QueryContext {
    /// `timeout` zero means the limit's.
    pub fn new(tenant: TenantId, limits: Arc<Limits>, clock: Arc<dyn Clock>, timeout: Duration) -> Self {
        let timeout = match (timeout, limits.query_timeout) {
            (Duration::ZERO, t) | (t, Duration::ZERO) => t,
            (a, b) => a.min(b),
        };
        let deadline = (!timeout.is_zero()).then(|| clock.monotonic() + timeout);
        QueryContext {
            tenant,
            memory: MemoryBudget::new(limits.query_memory_bytes),
            limits,
            stats: Arc::default(),
            samples: None,
            clock,
            cancel: CancellationToken::new(),
            deadline,
            timeout,
            warnings: Arc::default(),
        }
    }

    /// To be called in every long loop, at least once per batch.
    ///
    /// # Errors
    /// `Cancelled` or `Timeout`.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "query was canceled"));
        }
        if self.deadline.is_some_and(|d| self.clock.monotonic() >= d) {
            return Err(self.timed_out());
        }
        Ok(())
    }

    /// The error of a query that ran out of time; names the setting.
    pub fn timed_out(&self) -> Error {
        Error::new(
            ErrorKind::Timeout,
            format!(
                "query timed out after {:?} (limits.query-timeout or the request's timeout)",
                self.timeout
            ),
        )
    }

    /// Time left, `None` without a deadline.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|d| d.saturating_sub(self.clock.monotonic()))
    }

    /// Adds a warning to the answer. Repeated ones are kept once.
    pub fn warn(&self, message: impl Into<String>) {
        let message = message.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&message) {
            warnings.push(message);
        }
    }

    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }
}

/// Cancels the context when dropped: held by the request handler, so that work stops when the client goes away.
#[derive(Debug)]
pub struct CancelOnDrop(pub CancellationToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Bytes that one query, or all queries together, may hold at a time. Cloning shares the account.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    /// The account of all queries; what is booked here is booked there as well.
    whole: Option<Arc<Account>>,
}

impl MemoryBudget {
    /// `limit` zero means no limit.
    pub fn new(limit: u64) -> Self {
        Self::build(limit, None)
    }

    /// One query's share of this budget, at most `limit` bytes (zero: no limit of its own).
    pub fn share(&self, limit: u64) -> Self {
        Self::build(limit, Some(self.0.clone()))
    }

    fn build(limit: u64, whole: Option<Arc<Account>>) -> Self {
        MemoryBudget(Arc::new(Account {
            limit,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            whole,
        }))
    }

    /// Books `bytes` until the reservation is dropped.
    ///
    /// # Errors
    /// `Execution` when the query's budget, or that of all queries, is exceeded; the message names the setting.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation> {
        let mut r = Reservation {
            account: self.0.clone(),
            bytes: 0,
        };
        r.grow(bytes)?;
        Ok(r)
    }

    pub fn peak_bytes(&self) -> u64 {
        self.0.peak.load(Ordering::Relaxed)
    }
}

/// Booked memory; gives it back when dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Arc<Account>,
    bytes: u64,
}

impl Reservation {
    /// # Errors
    /// As [`MemoryBudget::reserve`]; the reservation is unchanged then.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        let bytes = bytes as u64;
        if !self.account.book(bytes) {
            return Err(Error::new(
                ErrorKind::Execution,
                format!(
                    "query needs more than {} bytes of memory (limits.query-memory); narrow the selector or the range",
                    self.account.limit
                ),
            ));
        }
        if let Some(whole) = &self.account.whole
            && !whole.book(bytes)
        {
            self.account.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Error::new(
                ErrorKind::Execution,
                format!(
                    "the running queries together need more than {} bytes of memory (query.max-memory)",
                    whole.limit
                ),
            ));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Takes over what another reservation has booked.
    pub fn join(&mut self, mut other: Reservation) {
        if Arc::ptr_eq(&self.account, &other.account) {
            self.bytes += std::mem::take(&mut other.bytes);
        } else {
            debug_assert!(other.bytes == 0, "reservations of different budgets cannot be joined");
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.used.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(whole) = &self.account.whole {
            whole.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl Account {
    /// False, and nothing booked, when the limit does not allow it.
    fn book(&self, bytes: u64) -> bool {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.limit != 0 && used > self.limit {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.peak.fetch_max(used, Ordering::Relaxed);
        true
    }
}

/// Samples that the evaluation of a query looked at, by step of the query's grid, counted as Prometheus counts them.
/// A histogram counts as many samples as it has 16-byte words.
#[derive(Debug)]
pub struct SampleCounts {
    steps: Vec<StepCounts>,
    peak: AtomicU64,
}

#[derive(Debug, Default)]
struct StepCounts {
    total: AtomicU64,
    read: AtomicU64,
}

impl SampleCounts {
    /// For a query of so many steps.
    pub fn new(steps: usize) -> Self {
        SampleCounts {
            steps: std::iter::repeat_with(StepCounts::default).take(steps).collect(),
            peak: AtomicU64::new(0),
        }
    }

    /// `total`: samples of the step's window or lookback; `read`: those of them that no earlier step of the same series
    /// looked at. Steps outside the grid are ignored.
    pub fn add(&self, step: usize, total: u64, read: u64) {
        if let Some(s) = self.steps.get(step) {
            s.total.fetch_add(total, Ordering::Relaxed);
            s.read.fetch_add(read, Ordering::Relaxed);
        }
    }

    /// So many samples were held at one time.
    pub fn held(&self, samples: u64) {
        self.peak.fetch_max(samples, Ordering::Relaxed);
    }

    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// (total, read) of every step.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        self.steps
            .iter()
            .map(|s| (s.total.load(Ordering::Relaxed), s.read.load(Ordering::Relaxed)))
    }
}

/// What a query touched. Counters only grow; read them when the answer is complete.
#[derive(Debug, Default)]
pub struct QueryStats {
    pub blocks_read: AtomicU64,
    pub bytes_read: AtomicU64,
    pub bytes_decoded: AtomicU64,
    pub series: AtomicU64,
    pub samples: AtomicU64,
    pub entries_scanned: AtomicU64,
    pub entries_returned: AtomicU64,
    pub spans_scanned: AtomicU64,
}

impl QueryStats {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_share_a_budget() {
        let whole = MemoryBudget::new(100);
        let (a, b) = (whole.share(60), whole.share(0));
        let held = a.reserve(50).expect("within both");
        assert!(a.reserve(20).is_err_and(|e| e.message.contains("limits.query-memory")));
        assert!(b.reserve(51).is_err_and(|e| e.message.contains("query.max-memory")));
        let rest = b.reserve(50).expect("the failed bookings left nothing behind");
        drop((held, rest));
        b.reserve(100).expect("all is given back");
    }
}
