//! Names of objects and ids of blocks.
//!
//! ```text
//! blocks/<hash2>/<tenant>/<signal>/<ulid>/<file>     a block's objects
//! meta/<signal>-0/log/<n, 20 digits>                 manifest deltas
//! meta/<signal>-0/snap/<n, 20 digits>                manifest snapshots
//! ```
//!
//! `hash2` is two hex digits of a hash of the id: stores that partition by prefix see the load spread. The `0` is the
//! tenant group; there is one.

use std::sync::Arc;

use parking_lot::Mutex;
use trilith_codec::crc32c;
use trilith_model::rng::Rng;
use trilith_model::{Clock, Signal};
use ulid::Ulid;

/// Folder above all blocks.
pub const BLOCKS: &str = "blocks";

/// Low byte of the CRC-32C of the id's 16 bytes, as two hex digits. Part of the storage layout: never changes.
pub fn hash2(id: Ulid) -> String {
    format!("{:02x}", crc32c(&id.to_bytes()) & 0xFF)
}

/// Folder of a block's objects, without a slash at the end.
pub fn block_folder(signal: Signal, tenant: &str, id: Ulid) -> String {
    format!("{BLOCKS}/{}/{tenant}/{signal}/{id}", hash2(id))
}

/// Takes a path below [`BLOCKS`] apart. `None` for whatever else lies there.
pub fn parse_block_object(path: &str) -> Option<(Signal, &str, Ulid, &str)> {
    let mut parts = path.strip_prefix(BLOCKS)?.strip_prefix('/')?.splitn(5, '/');
    let (hash, tenant, signal, id, file) = (
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
    );
    let signal = Signal::ALL.into_iter().find(|s| s.as_str() == signal)?;
    // The decoder takes lower case as well, but no block of ours is named so.
    let parsed = Ulid::from_string(id).ok()?;
    (parsed.to_string() == id && hash2(parsed) == hash && !file.is_empty()).then_some((signal, tenant, parsed, file))
}

/// A name that is one harmless path component on every backend.
pub(crate) fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 100
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// Hands out block ids that ascend even when the wall clock does not, so that "older id" means "made earlier" for
/// the blocks of one writer.
pub struct IdSource {
    clock: Arc<dyn Clock>,
    rng: Arc<Rng>,
    last: Mutex<Ulid>,
}

impl IdSource {
    /// All ids are above `floor`.
    pub fn new(clock: Arc<dyn Clock>, rng: Arc<Rng>, floor: Ulid) -> Self {
        IdSource {
            clock,
            rng,
            last: Mutex::new(floor),
        }
    }

    pub fn next(&self) -> Ulid {
        let now_ms = u64::try_from(self.clock.now_ms()).unwrap_or(0);
        let fresh = Ulid::from_parts(now_ms, self.rng.next_u128());
        let mut last = self.last.lock();
        // A stuck clock: a step of random size keeps two writers that share the floor apart.
        let step = u128::from(self.rng.next_u64()) + 1;
        let id = if fresh > *last {
            fresh
        } else {
            Ulid(last.0.saturating_add(step))
        };
        *last = id;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct StuckClock;

    impl Clock for StuckClock {
        fn now_ns(&self) -> i64 {
            1_000_000_000
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[test]
    fn block_paths_round_trip() {
        let id = Ulid::from_string("01ARZ3NDEKTSV4RRFFQ69G5FAV").expect("it is an id");
        let folder = block_folder(Signal::Logs, "team-a", id);
        assert_eq!(
            folder,
            format!("blocks/{}/team-a/logs/01ARZ3NDEKTSV4RRFFQ69G5FAV", hash2(id))
        );
        assert_eq!(
            parse_block_object(&format!("{folder}/data")),
            Some((Signal::Logs, "team-a", id, "data"))
        );
        for foreign in [
            "blocks/x",
            "meta/logs-0/log/1",
            &folder,
            &format!("{folder}/"),
            "blocks/zz/t/logs/01ARZ3NDEKTSV4RRFFQ69G5FAV/data",
            &folder.replace("/logs/", "/dogs/"),
        ] {
            assert_eq!(parse_block_object(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn ids_ascend_with_a_stuck_clock() {
        let ids = IdSource::new(Arc::new(StuckClock), Arc::new(Rng::seeded(1)), Ulid::nil());
        let made: Vec<Ulid> = (0..100).map(|_| ids.next()).collect();
        assert!(made.is_sorted_by(|a, b| a < b));
        let floor = Ulid::from_parts(u64::MAX >> 17, 7);
        assert!(IdSource::new(Arc::new(StuckClock), Arc::new(Rng::seeded(1)), floor).next() > floor);
    }

    #[test]
    fn file_names() {
        for good in ["data", "spans.parquet", "trace-index_1"] {
            assert!(is_file_name(good));
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(101)] {
            assert!(!is_file_name(bad), "{bad}");
        }
    }
}
