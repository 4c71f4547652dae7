//! How many queries are evaluated at a time.
//!
//! A query that finds no slot waits until its own time is up or its client leaves, as in Prometheus. With several
//! tenants no tenant takes more than half of the slots, so that one cannot stop the others. How many may wait is
//! bounded too: what waits holds a connection and its parameters.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trilith_model::{Error, ErrorKind, Result, TenantId};
use trilith_query::QueryContext;

/// Parameters of all requests that wait or run, KiB; what does not fit is refused at once.
const PARAMETERS_KIB_MAX: usize = 96 << 10;

/// What a request counts besides its parameters, KiB: with small ones some 24 000 may wait.
const REQUEST_KIB: usize = 4;

/// Idle tenants are forgotten when there are more entries than this.
const TENANTS_MAX: usize = 1024;

/// The slots of one listener.
#[derive(Debug)]
pub struct Gate {
    slots: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Slots of one tenant; `None` when there is only one tenant.
    per_tenant: Option<usize>,
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
    what: &'static str,
}

/// A slot; free again when dropped.
#[derive(Debug)]
pub struct Slot {
    _tenant: Option<OwnedSemaphorePermit>,
    _place: OwnedSemaphorePermit,
    _slot: OwnedSemaphorePermit,
}

impl Gate {
    /// `slots`: at least one is given. `what` stands in messages: `query queue`.
    pub fn new(slots: usize, multi_tenancy: bool, what: &'static str) -> Arc<Self> {
        let slots = slots.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Gate {
            slots: Arc::new(Semaphore::new(slots)),
            waiting: Arc::new(Semaphore::new(PARAMETERS_KIB_MAX)),
            per_tenant: multi_tenancy.then(|| slots.div_ceil(2)),
            tenants: Mutex::default(),
            what,
        })
    }

    /// Waits for a slot. `bytes`: the size of the request's parameters.
    ///
    /// # Errors
    /// `Timeout` and `Cancelled` while waiting; `LimitExceeded` when too many wait already.
    pub async fn enter(&self, ctx: &QueryContext, bytes: usize) -> Result<Slot> {
        let kib = u32::try_from(REQUEST_KIB + bytes / 1024).unwrap_or(u32::MAX);
        let Ok(place) = self.waiting.clone().try_acquire_many_owned(kib) else {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("too many requests wait in the {}", self.what),
            ));
        };
        let tenant = self.tenant(&ctx.tenant);
        let entered = async {
            let closed = |_| Error::internal("the query queue is closed");
            let tenant = match tenant {
                Some(t) => Some(t.acquire_owned().await.map_err(closed)?),
                None => None,
            };
            let slot = self.slots.clone().acquire_owned().await.map_err(closed)?;
            Ok(Slot {
                _tenant: tenant,
                _place: place,
                _slot: slot,
            })
        };
        let timed_out = async {
            match ctx.remaining() {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            slot = entered => slot,
            () = ctx.cancel.cancelled() => Err(Error::new(
                ErrorKind::Cancelled,
                format!("query was canceled in {}", self.what),
            )),
            () = timed_out => Err(Error::new(
                ErrorKind::Timeout,
                format!("query timed out in {}", self.what),
            )),
        }
    }

    fn tenant(&self, tenant: &TenantId) -> Option<Arc<Semaphore>> {
        let slots = self.per_tenant?;
        let mut tenants = self.tenants.lock();
        if tenants.len() > TENANTS_MAX {
            // Used ones are held by their queries too.
            tenants.retain(|_, s| Arc::strong_count(s) > 1 || s.available_permits() < slots);
        }
        let entry = tenants
            .entry(tenant.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(slots)));
        Some(entry.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trilith_model::{Limits, SystemClock};

    use super::*;

    fn ctx(tenant: &str, timeout_ms: u64) -> QueryContext {
        QueryContext::new(
            TenantId::new(tenant).expect("valid"),
            Arc::new(Limits::default()),
            Arc::new(SystemClock),
            Duration::from_millis(timeout_ms),
        )
    }

    #[tokio::test]
    async fn waits_times_out_and_is_cancelled() {
        let gate = Gate::new(1, false, "query queue");
        let held = gate.enter(&ctx("a", 1000), 0).await.expect("free");
        let late = gate.enter(&ctx("a", 20), 0).await.expect_err("taken");
        assert_eq!(
            (late.kind, late.message.as_str()),
            (ErrorKind::Timeout, "query timed out in query queue")
        );
        let gone = ctx("a", 10_000);
        gone.cancel.cancel();
        assert_eq!(gate.enter(&gone, 0).await.expect_err("gone").kind, ErrorKind::Cancelled);
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(&ctx("a", 10_000), 0).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.expect("no panic"));
        let large = gate
            .enter(&ctx("a", 1000), 1 << 30)
            .await
            .expect_err("too much to keep");
        assert_eq!(large.kind, ErrorKind::LimitExceeded);
    }

    #[tokio::test]
    async fn a_tenant_leaves_room_for_others() {
        let gate = Gate::new(4, true, "query queue");
        let _a = (
            gate.enter(&ctx("a", 1000), 0).await.expect("first"),
            gate.enter(&ctx("a", 1000), 0).await.expect("second"),
        );
        assert_eq!(
            gate.enter(&ctx("a", 20), 0).await.expect_err("its half").kind,
            ErrorKind::Timeout
        );
        gate.enter(&ctx("b", 20), 0).await.expect("the other half is free");
    }
}
