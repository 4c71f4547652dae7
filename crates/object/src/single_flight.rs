//! Equal reads at the same time become one: many queries open the same new block at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use trilith_model::Result;

use crate::cache::Key;

type Read = Shared<BoxFuture<'static, Result<Bytes>>>;

/// Reads under way. A waiter that goes away does not disturb the others: whoever is left drives the read on, and
/// it ends when nobody is.
#[derive(Default)]
pub(crate) struct SingleFlight {
    reads: Mutex<HashMap<Key, (u64, WeakShared<BoxFuture<'static, Result<Bytes>>>)>>,
    tickets: AtomicU64,
}

impl SingleFlight {
    /// The read under way for the key, or the given one. True: it was under way already.
    pub fn join<F>(self: &Arc<Self>, key: Key, read: impl FnOnce() -> F) -> (Read, bool)
    where
        F: Future<Output = Result<Bytes>> + Send + 'static,
    {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let mut reads = self.reads.lock();
        if let Some(read) = reads.get(&key).and_then(|(_, weak)| weak.upgrade()) {
            return (read, true);
        }
        let done = Done {
            flights: Arc::clone(self),
            key: key.clone(),
            ticket,
        };
        let read = read();
        let shared = async move {
            let _done = done;
            read.await
        }
        .boxed()
        .shared();
        if let Some(weak) = shared.downgrade() {
            reads.insert(key, (ticket, weak));
        }
        (shared, false)
    }
}

/// Takes the read out of the map when it ends or is dropped.
struct Done {
    flights: Arc<SingleFlight>,
    key: Key,
    ticket: u64,
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Entry::Occupied(entry) = self.flights.reads.lock().entry(self.key.clone())
            && entry.get().0 == self.ticket
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            store: 0,
            path: "x".into(),
            start: 0,
            end: 1,
        }
    }

    #[tokio::test]
    async fn a_second_reader_joins_and_outlives_the_first() {
        let flights = Arc::new(SingleFlight::default());
        let (send, receive) = tokio::sync::oneshot::channel::<Bytes>();
        let (first, joined) = flights.join(key(), || async { Ok(receive.await.expect("sent below")) });
        assert!(!joined);
        let (second, joined) = flights.join(key(), || async { panic!("must not start a second read") });
        assert!(joined);
        drop(first);
        send.send(Bytes::from_static(b"1")).unwrap();
        assert_eq!(second.await.unwrap(), "1");
        assert!(flights.reads.lock().is_empty());
    }

    #[tokio::test]
    async fn an_abandoned_read_leaves_nothing_behind() {
        let flights = Arc::new(SingleFlight::default());
        let (read, _) = flights.join(key(), std::future::pending);
        drop(read);
        assert!(flights.reads.lock().is_empty());
        let (read, joined) = flights.join(key(), || async { Ok(Bytes::new()) });
        assert!(!joined);
        read.await.unwrap();
    }
}
