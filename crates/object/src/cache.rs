//! The read cache: exact ranges of immutable objects, in memory and, for remote stores, on a local disk below it.
//!
//! The key is (store, path, start, end) as a reader asked for it, not an aligned chunk: readers ask for sections and
//! pages whose bounds stand in an immutable footer, so the same piece is always asked for with the same bounds, and
//! nothing but what was asked takes space. The store's identity is in the key because the disk tier outlives the
//! process and may be given to another bucket. Entries never go stale, since objects never change; what was deleted
//! may still be served. The disk tier checks a checksum per entry and drops what fails it.
//! Why: docs/adr/0010-object-cache-and-retry.md.

use std::sync::Arc;

use bytes::Bytes;
use foyer::{
    BlockEngineConfig, Cache, CacheBuilder, Code, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, PsyncIoEngineConfig, RecoverMode,
};
use trilith_model::{Error, Result};

use crate::options::DiskCacheOptions;

/// Larger entries than this part of the memory tier are not kept: one long read must not empty the cache.
const ENTRY_PART_MAX: u64 = 8;
/// Each shard has its own share of the memory; the largest entry must leave room for others in it.
const SHARDS: usize = 4;
/// The disk tier writes in blocks of this size; an entry must fit into one.
const DISK_BLOCK_BYTES: usize = 16 << 20;
/// Space of an entry besides its body: key, hash table, list links.
const ENTRY_OVERHEAD_BYTES: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub store: u64,
    pub path: Arc<str>,
    pub start: u64,
    pub end: u64,
}

/// A cached body. Own type, so that its length is checked before memory is taken for it.
#[derive(Clone, Debug)]
pub(crate) struct Value(pub Bytes);

#[derive(Debug)]
pub(crate) enum RangeCache {
    Off,
    Memory {
        cache: Cache<Key, Value>,
        entry_max: u64,
    },
    Hybrid {
        cache: HybridCache<Key, Value>,
        entry_max: u64,
    },
}

impl RangeCache {
    pub fn memory(bytes: u64) -> Self {
        if bytes == 0 {
            return RangeCache::Off;
        }
        let cache = CacheBuilder::new(capacity(bytes))
            .with_name("objects")
            .with_shards(SHARDS)
            .with_weighter(weight)
            .build();
        RangeCache::Memory {
            cache,
            entry_max: bytes / ENTRY_PART_MAX,
        }
    }

    /// # Errors
    /// `Unavailable`: the folder cannot be used.
    pub async fn hybrid(memory_bytes: u64, disk: &DiskCacheOptions) -> Result<Self> {
        if memory_bytes == 0 {
            return Ok(RangeCache::Off);
        }
        let failed =
            |what: &dyn std::fmt::Display| Error::unavailable(format!("disk cache in {}: {what}", disk.path.display()));
        tokio::fs::create_dir_all(&disk.path).await.map_err(|e| failed(&e))?;
        let device = FsDeviceBuilder::new(&disk.path)
            .with_capacity(capacity(disk.bytes))
            .build()
            .map_err(|e| failed(&e))?;
        let cache = HybridCacheBuilder::new()
            .with_name("objects")
            // Written at once rather than on eviction, so that a restart or a crash finds a warm cache.
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            .memory(capacity(memory_bytes))
            .with_shards(SHARDS)
            .with_weighter(weight)
            .storage()
            .with_io_engine_config(PsyncIoEngineConfig::new())
            .with_engine_config(BlockEngineConfig::new(device).with_block_size(DISK_BLOCK_BYTES))
            .with_recover_mode(RecoverMode::Quiet)
            .build()
            .await
            .map_err(|e| failed(&e))?;
        let entry_max = (memory_bytes / ENTRY_PART_MAX).min(DISK_BLOCK_BYTES as u64 / 2);
        Ok(RangeCache::Hybrid { cache, entry_max })
    }

    pub async fn get(&self, key: &Key) -> Option<Bytes> {
        let bytes = match self {
            RangeCache::Off => return None,
            RangeCache::Memory { cache, .. } => cache.get(key)?.value().0.clone(),
            RangeCache::Hybrid { cache, .. } => match cache.get(key).await {
                Ok(entry) => entry?.value().0.clone(),
                Err(e) => {
                    // A broken cache is a slow cache, not a broken store.
                    tracing::debug!(path = &*key.path, error = %e, "disk cache read failed");
                    return None;
                }
            },
        };
        // Cheap, and the only property of a body that its key tells.
        (bytes.len() as u64 == key.end - key.start).then_some(bytes)
    }

    /// Whether an entry of this length is kept.
    pub fn admits(&self, bytes: u64) -> bool {
        match self {
            RangeCache::Off => false,
            RangeCache::Memory { entry_max, .. } | RangeCache::Hybrid { entry_max, .. } => bytes <= *entry_max,
        }
    }

    pub fn insert(&self, key: Key, bytes: Bytes) {
        match self {
            RangeCache::Off => {}
            RangeCache::Memory { cache, .. } => drop(cache.insert(key, Value(bytes))),
            RangeCache::Hybrid { cache, .. } => drop(cache.insert(key, Value(bytes))),
        }
    }

    pub fn remove(&self, key: &Key) {
        match self {
            RangeCache::Off => {}
            RangeCache::Memory { cache, .. } => drop(cache.remove(key)),
            RangeCache::Hybrid { cache, .. } => cache.remove(key),
        }
    }

    pub async fn close(&self) {
        if let RangeCache::Hybrid { cache, .. } = self
            && let Err(e) = cache.close().await
        {
            tracing::warn!(error = %e, "closing the disk cache failed");
        }
    }
}

fn capacity(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn weight(key: &Key, value: &Value) -> usize {
    key.path.len() + value.0.len() + ENTRY_OVERHEAD_BYTES
}

impl Code for Key {
    fn encode(&self, writer: &mut impl std::io::Write) -> foyer::Result<()> {
        self.store.encode(writer)?;
        self.start.encode(writer)?;
        self.end.encode(writer)?;
        write_bytes(writer, self.path.as_bytes())
    }

    fn decode(reader: &mut impl std::io::Read) -> foyer::Result<Self> {
        let store = u64::decode(reader)?;
        let start = u64::decode(reader)?;
        let end = u64::decode(reader)?;
        let path = String::from_utf8(read_bytes(reader)?)
            .map_err(|_| foyer::Error::new(foyer::ErrorKind::Parse, "path is not UTF-8"))?;
        Ok(Key {
            store,
            path: path.into(),
            start,
            end,
        })
    }

    fn estimated_size(&self) -> usize {
        4 * size_of::<u64>() + self.path.len()
    }
}

impl Code for Value {
    fn encode(&self, writer: &mut impl std::io::Write) -> foyer::Result<()> {
        write_bytes(writer, &self.0)
    }

    fn decode(reader: &mut impl std::io::Read) -> foyer::Result<Self> {
        read_bytes(reader).map(|b| Value(b.into()))
    }

    fn estimated_size(&self) -> usize {
        size_of::<u64>() + self.0.len()
    }
}

fn write_bytes(writer: &mut impl std::io::Write, bytes: &[u8]) -> foyer::Result<()> {
    (bytes.len() as u64).encode(writer)?;
    writer.write_all(bytes).map_err(foyer::Error::io_error)
}

fn read_bytes(reader: &mut impl std::io::Read) -> foyer::Result<Vec<u8>> {
    let len = u64::decode(reader)?;
    if len > DISK_BLOCK_BYTES as u64 {
        return Err(foyer::Error::new(
            foyer::ErrorKind::OutOfRange,
            "entry is longer than a block",
        ));
    }
    let mut bytes = vec![0; len as usize];
    reader.read_exact(&mut bytes).map_err(foyer::Error::io_error)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, n: u64) -> Key {
        Key {
            store: 1,
            path: path.into(),
            start: 0,
            end: n,
        }
    }

    #[test]
    fn entries_survive_their_encoding_and_damage_is_refused() {
        let mut bytes = Vec::new();
        key("blocks/a", 3).encode(&mut bytes).unwrap();
        Value(Bytes::from_static(b"abc")).encode(&mut bytes).unwrap();
        let mut reader = &bytes[..];
        assert_eq!(Key::decode(&mut reader).unwrap(), key("blocks/a", 3));
        assert_eq!(Value::decode(&mut reader).unwrap().0, "abc");
        for cut in 0..bytes.len() {
            let mut reader = &bytes[..cut];
            let whole = Key::decode(&mut reader).and_then(|_| Value::decode(&mut reader));
            assert!(whole.is_err(), "cut at {cut}");
        }
        assert!(Value::decode(&mut &[0xff; 16][..]).is_err());
    }

    #[tokio::test]
    async fn the_memory_tier_is_bounded() {
        let cache = RangeCache::memory(1 << 20);
        assert!(cache.admits(1 << 17) && !cache.admits((1 << 17) + 1));
        for i in 0..100 {
            cache.insert(key(&format!("p{i}"), 50_000), vec![0; 50_000].into());
        }
        let mut held = 0;
        for i in 0..100 {
            held += usize::from(cache.get(&key(&format!("p{i}"), 50_000)).await.is_some());
        }
        assert!((1..=20).contains(&held), "{held} entries of 50 kB in 1 MiB");
        assert!(cache.get(&key("p99", 49_999)).await.is_none());
    }

    #[tokio::test]
    async fn the_disk_tier_outlives_the_process_and_knows_its_store() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DiskCacheOptions {
            path: dir.path().join("cache"),
            bytes: 64 << 20,
        };
        let cache = RangeCache::hybrid(8 << 20, &disk).await.unwrap();
        cache.insert(key("a", 3), Bytes::from_static(b"abc"));
        cache.close().await;
        drop(cache);
        let cache = RangeCache::hybrid(8 << 20, &disk).await.unwrap();
        assert_eq!(cache.get(&key("a", 3)).await.as_deref(), Some(&b"abc"[..]));
        assert_eq!(
            cache
                .get(&Key {
                    store: 2,
                    ..key("a", 3)
                })
                .await,
            None
        );
        cache.remove(&key("a", 3));
        assert_eq!(cache.get(&key("a", 3)).await, None);
        cache.close().await;
    }
}
