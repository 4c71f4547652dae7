//! The store's operations.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use trilith_model::{Error, ErrorKind, Result};

use crate::StoreOptions;

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
pub struct Store {
    inner: Arc<dyn ObjectStore>,
}

impl Store {
    /// Wraps any backend.
    pub fn new(inner: Arc<dyn ObjectStore>, _options: StoreOptions) -> Self {
        Store { inner }
    }

    /// An empty store in memory, for tests.
    pub fn memory() -> Self {
        Store::new(
            Arc::new(object_store::memory::InMemory::new()),
            StoreOptions::default(),
        )
    }

    /// Creates an object that must not exist yet. One request, at most a few MiB.
    pub async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<PutOutcome> {
        let opts = PutOptions::from(PutMode::Create);
        match self.inner.put_opts(&parse(path)?, bytes.into(), opts).await {
            Ok(_) => Ok(PutOutcome::Created),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(PutOutcome::Exists),
            Err(e) => Err(failed("create", path, e)),
        }
    }

    /// Uploads an object under a name that nobody else uses (a ULID in it); multipart when large. Repeating is harmless.
    pub async fn upload(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.inner
            .put(&parse(path)?, bytes.into())
            .await
            .map(drop)
            .map_err(|e| failed("upload", path, e))
    }

    /// As `upload`, from a local file, without holding it in memory.
    pub async fn upload_file(&self, path: &str, file: &std::path::Path) -> Result<()> {
        let bytes = tokio::fs::read(file)
            .await
            .map_err(|e| Error::internal(format!("read {}: {e}", file.display())))?;
        self.upload(path, bytes.into()).await
    }

    /// A whole object, `None` when absent. Not cached.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let answer = match self.inner.get(&parse(path)?).await {
            Ok(answer) => answer,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(failed("get", path, e)),
        };
        answer
            .bytes()
            .await
            .map(Some)
            .map_err(|e| failed("get", path, e))
    }

    /// A range of an immutable object, from the cache where possible. `NotFound` when absent, `Corrupt` when shorter.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let mut all = self.get_ranges(path, &[range]).await?;
        Ok(all.pop().expect("one range in, one body out"))
    }

    /// Several ranges in one go: neighbours are read together, distinct ones in parallel. Same order as asked.
    pub async fn get_ranges(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let bodies = self
            .inner
            .get_ranges(&parse(path)?, ranges)
            .await
            .map_err(|e| failed("read", path, e))?;
        for (body, range) in bodies.iter().zip(ranges) {
            if body.len() as u64 != range.end.saturating_sub(range.start) {
                return Err(Error::corrupt(format!(
                    "read {path}: shorter than {range:?}"
                )));
            }
        }
        Ok(bodies)
    }

    /// All objects below a folder, in no particular order.
    pub async fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>> {
        let prefix = parse(folder)?;
        self.inner
            .list(Some(&prefix))
            .map_ok(|m| ObjectInfo {
                path: m.location.to_string(),
                size: m.size,
                modified_ms: m.last_modified.timestamp_millis(),
            })
            .try_collect()
            .await
            .map_err(|e| failed("list", folder, e))
    }

    /// Deleting what is not there is fine.
    pub async fn delete(&self, path: &str) -> Result<()> {
        match self.inner.delete(&parse(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed("delete", path, e)),
        }
    }
}

fn parse(path: &str) -> Result<Path> {
    Path::parse(path).map_err(|e| Error::invalid(format!("object path {path}: {e}")))
}

fn failed(operation: &str, path: &str, e: object_store::Error) -> Error {
    let kind = match &e {
        object_store::Error::NotFound { .. } => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{operation} {path}: {e}"))
}
