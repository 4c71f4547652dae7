//! The life of a signal's data on one node: heads, cut, commit, view.
//!
//! A record belongs to the head that was active when its LSN was handed out. A cut swaps the active head under the
//! same lock that hands out LSNs, so "everything up to LSN n" and "everything in the frozen heads" are the same
//! set; the manifest delta that adds the blocks carries n. Queries read one [`View`]: the commit replaces it in
//! one step, so a record is seen in a head or in a block, never both, never neither.

use std::sync::Arc;
use std::time::Duration;

use trilith_model::{Result, TenantId, TimeRange};

use crate::engine::{BlockHandle, Engine};

#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Cut when the active head is larger.
    pub head_bytes_max: u64,
    /// Cut when the oldest record of the active head has waited longer.
    pub head_age_max: Duration,
    /// Age of data, by record time, after which blocks go; zero keeps for ever.
    pub retention: Duration,
    /// How long a removed block's objects stay for running queries.
    pub delete_grace: Duration,
    pub scratch: std::path::PathBuf,
}

/// One consistent picture for a query. Holding it keeps its heads alive.
pub struct View<E: Engine> {
    /// Oldest first; the last one is active.
    pub heads: Vec<Arc<E::Head>>,
    pub blocks: Vec<BlockHandle>,
}

impl<E: Engine> View<E> {
    /// Blocks of a tenant that may hold records of the range.
    pub fn blocks_of<'a>(&'a self, tenant: &'a TenantId, range: TimeRange) -> impl Iterator<Item = &'a BlockHandle> + 'a {
        self.blocks.iter().filter(move |b| {
            b.meta.tenant == tenant.as_str() && range.overlaps(TimeRange::new(b.meta.time_min, b.meta.time_max))
        })
    }
}

/// Cheap to clone.
pub struct Shard<E: Engine> {
    _engine: Arc<E>,
}

/// Keeps a head from being cut while a record is on its way from the log into it.
pub struct AppendTicket<E: Engine> {
    _head: Arc<E::Head>,
}

impl<E: Engine> AppendTicket<E> {
    pub fn head(&self) -> &Arc<E::Head> {
        &self._head
    }
}

impl<E: Engine> Shard<E> {
    /// Calls `log` (which hands out the LSN by appending to the WAL) and binds the record to the active head.
    /// The caller then waits for durability, applies the record to `ticket.head()` and drops the ticket; when the
    /// append fails it drops the ticket without applying.
    pub fn begin<R>(&self, _log: impl FnOnce() -> Result<R>) -> Result<(AppendTicket<E>, R)> {
        unimplemented!()
    }

    pub fn view(&self) -> Arc<View<E>> {
        unimplemented!()
    }

    /// Freezes the active head, encodes, uploads, commits. Returns when the data is in committed blocks.
    pub async fn flush(&self) -> Result<()> {
        unimplemented!()
    }
}
