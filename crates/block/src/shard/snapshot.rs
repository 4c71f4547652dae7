//! A consistent copy of a tenant's blocks, as a store of its own below a folder.
//!
//! ```text
//! <folder>/blocks/…                         as in the store
//! <folder>/meta/<signal>-0/snap/<n>         a manifest with these blocks and their tombstones; written last
//! ```
//!
//! Copying the content of the folder to an empty store restores it: the manifest is a snapshot without deltas after it,
//! and it knows no writer, so that a new one begins with its first record. A copy without its manifest object was not
//! finished and is worth nothing.

use std::io::Write as _;
use std::path::Path;

use trilith_codec::crc32c_append;
use trilith_model::{Error, Result, TenantId, task};

use super::{Inner, Shard};
use crate::engine::{BlockHandle, Engine};
use crate::manifest::State;
use crate::meta::FileMeta;

/// Read at once while a file is copied.
const PIECE_BYTES: u64 = 8 << 20;

impl<E: Engine> Shard<E> {
    /// Copies the committed blocks of a tenant to `folder`, which must not exist. Flush before to include recent data.
    /// Returns the number of blocks. Merges may go on meanwhile: the objects of what they replace stay for
    /// `delete_grace`.
    ///
    /// # Errors
    /// `Corrupt` for a damaged block, `NotFound` when copying took longer than the grace; those of the store.
    pub async fn snapshot(&self, tenant: &TenantId, folder: &str) -> Result<usize> {
        let inner = &*self.inner;
        let mut state: State = inner.manifest.lock().await.state().clone();
        state.blocks.retain(|_, b| b.tenant == tenant.as_str());
        state.tombstones.retain(|_, t| t.tenant == tenant.as_str());
        state.removed.clear();
        state.writers.clear();
        let scratch = inner.options.scratch.join(format!("snapshot-{}", inner.ids.next()));
        tokio::fs::create_dir_all(&scratch)
            .await
            .map_err(|e| Error::unavailable(format!("scratch folder {}: {e}", scratch.display())))?;
        let copied = inner.copy_all(&state, folder, &scratch.join("object")).await;
        if let Err(e) = tokio::fs::remove_dir_all(&scratch).await {
            tracing::warn!(path = %scratch.display(), error = %e, "scratch folder could not be removed");
        }
        copied?;
        let path = format!("{folder}/{}", crate::manifest::snapshot_path(&state.shard, state.n));
        let blocks = state.blocks.len();
        let bytes = task::background(move || state.encode()).await??;
        inner.store.upload(&path, bytes).await?;
        Ok(blocks)
    }
}

impl<E: Engine> Inner<E> {
    async fn copy_all(&self, state: &State, folder: &str, spool: &Path) -> Result<()> {
        for meta in state.blocks.values() {
            let block = BlockHandle {
                store: self.store.without_cache(),
                ..self.handle(meta)
            };
            for file in &meta.files {
                let to = format!("{folder}/{}", block.path(&file.name));
                let named = |e: Error| e.context(format!("copy of block {}", meta.id));
                spooled(&block, file, spool).await.map_err(named)?;
                self.store.upload_file(&to, spool).await.map_err(named)?;
            }
        }
        Ok(())
    }
}

/// Reads an object of a block into a local file, piece by piece, and compares the checksum.
async fn spooled(block: &BlockHandle, file: &FileMeta, spool: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::unavailable(format!("scratch file: {e}"));
    let mut out = std::fs::File::create(spool).map_err(failed)?;
    let (mut at, mut crc) = (0, 0);
    while at < file.size {
        let end = file.size.min(at + PIECE_BYTES);
        let piece = block.store.get_range(&block.path(&file.name), at..end).await?;
        (out, crc) = task::background(move || {
            out.write_all(&piece)?;
            Ok::<_, std::io::Error>((out, crc32c_append(crc, &piece)))
        })
        .await?
        .map_err(failed)?;
        at = end;
    }
    if crc != file.crc32c {
        return Err(Error::corrupt(format!(
            "{}: checksum {:08x} expected, got {crc:08x}",
            file.name, file.crc32c
        )));
    }
    Ok(())
}
