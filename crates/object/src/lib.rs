//! Object storage as the rest of Trilith sees it: immutable objects, created if absent, read by range.

use std::ops::Range;

use bytes::Bytes;
use trilith_model::Result;

/// What became of a conditional create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    Created,
    /// The object was there before. After a lost answer it may be our own: compare the content.
    Exists,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Below the store's prefix.
    pub path: String,
    pub size: u64,
    /// By the store's clock, ms since the epoch.
    pub modified_ms: i64,
}

/// Cheap to clone; all clones share connections, cache and limits. Paths are relative to the store's prefix and use `/`.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Creates an object that must not exist yet. One request, at most a few MiB.
    pub async fn put_if_absent(&self, _path: &str, _bytes: Bytes) -> Result<PutOutcome> {
        unimplemented!()
    }

    /// Uploads an object under a name that nobody else uses (a ULID in it); multipart when large. Repeating is harmless.
    pub async fn upload(&self, _path: &str, _bytes: Bytes) -> Result<()> {
        unimplemented!()
    }

    /// As `upload`, from a local file, without holding it in memory.
    pub async fn upload_file(&self, _path: &str, _file: &std::path::Path) -> Result<()> {
        unimplemented!()
    }

    /// A whole object, `None` when absent. Not cached.
    pub async fn get(&self, _path: &str) -> Result<Option<Bytes>> {
        unimplemented!()
    }

    /// A range of an immutable object, from the cache where possible. `NotFound` when absent, `Corrupt` when shorter.
    pub async fn get_range(&self, _path: &str, _range: Range<u64>) -> Result<Bytes> {
        unimplemented!()
    }

    /// Several ranges in one go: neighbours are read together, distinct ones in parallel. Same order as asked.
    pub async fn get_ranges(&self, _path: &str, _ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        unimplemented!()
    }

    /// All objects below a folder, in no particular order.
    pub async fn list(&self, _folder: &str) -> Result<Vec<ObjectInfo>> {
        unimplemented!()
    }

    /// Deleting what is not there is fine.
    pub async fn delete(&self, _path: &str) -> Result<()> {
        unimplemented!()
    }
}
