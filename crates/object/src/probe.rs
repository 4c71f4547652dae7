//! The check at start: may we write here, and does a conditional create mean what everything is built on?
//!
//! Some S3-compatible servers take `If-None-Match` and ignore it. On such a store two writers would both commit the
//! same manifest position, and the loser's data would be gone without a word. So this is tried, not believed.

use bytes::Bytes;
use futures::future::join_all;
use trilith_model::{Error, ErrorKind, Result};

use crate::store::{PutOutcome, Store};

impl Store {
    /// Creates, reads, lists and deletes one small object below `probe/`.
    ///
    /// # Errors
    /// `Unsupported`: the backend cannot be used (conditional create, ranges or listing are wrong). `Unavailable`: no
    /// access, no bucket, no answer. One line each, to be shown to the operator.
    pub async fn probe(&self) -> Result<()> {
        let nonce = self.core.retry.nonce();
        let path = format!("probe/{nonce:032x}");
        let result = self.probe_at(&path, nonce).await;
        if result.is_err() {
            // Best effort; the first error is the one to tell.
            if let Err(e) = self.delete(&path).await {
                tracing::debug!(path, error = %e, "the probe object was left behind");
            }
        }
        result.map_err(|e| e.context(format!("the store {} failed its check", self.url())))
    }

    async fn probe_at(&self, path: &str, nonce: u128) -> Result<()> {
        let first = Bytes::from(format!("trilith probe {nonce:032x} first"));
        let second = Bytes::from(format!("trilith probe {nonce:032x} second"));
        let direct = self.without_cache();
        let refused = |what: &str| Err(Error::unsupported(what));

        let outcome = self.put_if_absent_verified(path, first.clone()).await;
        match outcome {
            Ok(PutOutcome::Created) => {}
            Ok(PutOutcome::Exists) => return refused("it says that a new object exists"),
            Err(e) if e.kind == ErrorKind::Unsupported => {
                return refused(&format!("it has no conditional create (If-None-Match): {e}"));
            }
            Err(e) => return Err(e),
        }
        if self.put_if_absent(path, second).await? == PutOutcome::Created {
            return refused(
                "it ignores conditional creates (If-None-Match): the same object was created twice, so concurrent \
                 writers would lose data; use a store that honours them",
            );
        }
        match direct.get(path).await? {
            Some(stored) if stored == first => {}
            Some(_) => return refused("it overwrote an object although it said that it exists"),
            None => return refused("an object is not readable right after it was created"),
        }
        if direct.get_range(path, 8..13).await? != first.slice(8..13) {
            return refused("it answers range reads with other bytes");
        }
        if !self.list("probe").await?.iter().any(|o| o.path == path) {
            return refused("it does not list an object that was just created");
        }
        self.race(path).await?;
        self.delete(path).await?;
        if direct.get(path).await?.is_some() {
            return refused("an object is still readable after it was deleted");
        }
        Ok(())
    }

    /// A server that looks first and writes later passes every check in sequence; at once it betrays itself, if not
    /// every time.
    async fn race(&self, path: &str) -> Result<()> {
        const RACERS: usize = 4;
        let name = format!("{path}-race");
        let racers = (0..RACERS).map(|i| {
            let (store, name) = (self.clone(), name.clone());
            async move { store.put_if_absent_verified(&name, format!("{name} {i}").into()).await }
        });
        let outcomes = join_all(racers).await;
        self.delete(&name).await?;
        let mut winners = 0;
        for outcome in outcomes {
            winners += usize::from(outcome? == PutOutcome::Created);
        }
        if winners == 1 {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "its conditional create (If-None-Match) is not atomic: of {RACERS} concurrent writers {winners} were told \
             that they created the object"
        )))
    }
}
