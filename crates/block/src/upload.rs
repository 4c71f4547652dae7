//! From what an engine made to objects with a description.

use std::collections::HashSet;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use trilith_codec::{Crc32c, crc32c};
use trilith_model::{Error, Result, Signal, task};
use trilith_object::Store;
use ulid::Ulid;

use crate::crash;
use crate::engine::{BlockDraft, FileBody};
use crate::meta::{BlockMeta, FileMeta};
use crate::path::{block_folder, is_file_name};

/// Uploads under way at once for one cut or merge.
const UPLOAD_CONCURRENCY: usize = 4;

/// Ids of blocks that are uploaded or about to be, and not yet in the manifest. Garbage collection spares them
/// whatever their age: the store may refuse the commit for longer than orphans live.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashSet<Ulid>>>);

impl InFlight {
    pub(crate) fn contains(&self, id: Ulid) -> bool {
        self.0.lock().contains(&id)
    }
}

/// Blocks with ids, described and ready to be uploaded. Their ids are in flight as long as this lives.
pub(crate) struct Prepared {
    pub(crate) metas: Vec<Arc<BlockMeta>>,
    /// Of the blocks, kept apart from `metas` so that a call that is cancelled before those exist cleans up as well.
    ids: Vec<Ulid>,
    files: Vec<PreparedFile>,
    /// When the first upload began, by the monotonic clock.
    pub(crate) upload_started: Option<Duration>,
    in_flight: InFlight,
}

struct PreparedFile {
    path: String,
    body: FileBody,
    uploaded: bool,
}

impl PreparedFile {
    async fn upload(&mut self, store: &Store, partly: &'static str) -> Result<()> {
        match &self.body {
            FileBody::Memory(bytes) => store.upload(&self.path, bytes.clone()).await,
            FileBody::Spooled(local) => store.upload_file(&self.path, local).await,
        }
        .map_err(|e| e.context(format!("upload of {}", self.path)))?;
        self.uploaded = true;
        // Frees the memory of a body; a spooled file stays until its owner removes it.
        if let FileBody::Memory(bytes) = &mut self.body {
            *bytes = bytes::Bytes::new();
        }
        crash::point(partly);
        Ok(())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let mut ids = self.in_flight.0.lock();
        for id in &self.ids {
            ids.remove(id);
        }
    }
}

impl Prepared {
    /// Checks drafts, gives them ids and computes the checksums, on a background thread.
    ///
    /// # Errors
    /// `Internal` when a draft breaks the rules or a spooled file cannot be read.
    pub(crate) async fn new(
        drafts: Vec<BlockDraft>,
        signal: Signal,
        level: u8,
        created_ms: i64,
        in_flight: &InFlight,
        ids: &crate::path::IdSource,
    ) -> Result<Prepared> {
        let with_ids: Vec<_> = drafts.into_iter().map(|d| (ids.next(), d)).collect();
        in_flight.0.lock().extend(with_ids.iter().map(|(id, _)| *id));
        let mut prepared = Prepared {
            metas: Vec::new(),
            ids: with_ids.iter().map(|(id, _)| *id).collect(),
            files: Vec::new(),
            upload_started: None,
            in_flight: in_flight.clone(),
        };
        let (metas, files) = task::background(move || {
            let (mut metas, mut files) = (Vec::new(), Vec::new());
            for (id, draft) in with_ids {
                describe(id, draft, signal, level, created_ms, &mut metas, &mut files)?;
            }
            Ok::<_, Error>((metas, files))
        })
        .await??;
        prepared.metas = metas;
        prepared.files = files;
        Ok(prepared)
    }

    /// Uploads what is not uploaded yet; memory is given back as files arrive. Repeating after an error goes on where
    /// it stopped.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn upload(&mut self, store: &Store, now: Duration, partly: &'static str) -> Result<()> {
        self.upload_started.get_or_insert(now);
        let mut uploads = Vec::new();
        for file in &mut self.files {
            if !file.uploaded {
                uploads.push(file.upload(store, partly));
            }
        }
        futures::stream::iter(uploads)
            .buffer_unordered(UPLOAD_CONCURRENCY)
            .try_collect::<()>()
            .await
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.metas.iter().map(|m| m.bytes()).sum()
    }

    /// Deletes local files that were spooled outside a scratch folder. Best effort: they are copies.
    pub(crate) async fn discard_spooled(&self) {
        for file in &self.files {
            if let FileBody::Spooled(local) = &file.body {
                // Gone or not ours to delete: nothing depends on it.
                tokio::fs::remove_file(local).await.ok();
            }
        }
    }
}

fn describe(
    id: Ulid,
    draft: BlockDraft,
    signal: Signal,
    level: u8,
    created_ms: i64,
    metas: &mut Vec<Arc<BlockMeta>>,
    files: &mut Vec<PreparedFile>,
) -> Result<()> {
    let wrong = |why: String| Err(Error::internal(format!("the {signal} engine made {why}")));
    if draft.time.is_empty() {
        return wrong("a block without a time range".to_owned());
    }
    if draft.files.is_empty() {
        return wrong("a block without files".to_owned());
    }
    let folder = block_folder(signal, draft.tenant.as_str(), id);
    let mut described: Vec<FileMeta> = Vec::with_capacity(draft.files.len());
    for file in draft.files {
        if !is_file_name(&file.name) || described.iter().any(|f| f.name == file.name) {
            return wrong(format!("a file with a bad name, {:?}", file.name));
        }
        let (size, crc) = match &file.body {
            FileBody::Memory(bytes) => (bytes.len() as u64, crc32c(bytes)),
            FileBody::Spooled(path) => {
                checksum(path).map_err(|e| Error::internal(format!("{}: {e}", path.display())))?
            }
        };
        if let Some(Range { start, end }) = file.footer
            && (start > end || end > size)
        {
            return wrong(format!("a footer {start}..{end} outside its file of {size} bytes"));
        }
        described.push(FileMeta {
            name: file.name.clone(),
            size,
            crc32c: crc,
            footer: file.footer,
        });
        files.push(PreparedFile {
            path: format!("{folder}/{}", file.name),
            body: file.body,
            uploaded: false,
        });
    }
    metas.push(Arc::new(BlockMeta {
        id,
        tenant: draft.tenant.as_str().to_owned(),
        level,
        time_min: draft.time.min,
        time_max: draft.time.max,
        items: draft.items,
        groups: draft.groups,
        created_ms,
        files: described,
        facts: draft.facts,
    }));
    Ok(())
}

fn checksum(path: &Path) -> std::io::Result<(u64, u32)> {
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0u8; 1 << 20];
    let (mut size, mut crc) = (0u64, Crc32c::new());
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((size, crc.value())),
            n => {
                crc.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
}
