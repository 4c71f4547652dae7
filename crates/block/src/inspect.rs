//! Looking at blocks without a running shard: `trilith blocks ls`, `show` and `verify`.

use std::fmt::Write as _;
use std::sync::Arc;

use trilith_codec::crc32c_append;
use trilith_model::{Error, ErrorKind, Result, Signal};
use trilith_object::Store;
use ulid::Ulid;

use crate::container::Container;
use crate::engine::{BlockHandle, Engine};
use crate::manifest::{Manifest, State};
use crate::path::block_folder;

/// Read at once while a file is verified.
const PIECE_BYTES: u64 = 8 << 20;

/// The manifest of a signal as it is in the store now. Reads only: no fence, no commit.
///
/// # Errors
/// Those of [`Manifest::load`].
pub async fn load(store: &Store, signal: Signal) -> Result<State> {
    let manifest = Manifest::load(store.clone(), signal).await?;
    Ok(manifest.state().clone())
}

/// Handles of all blocks of a state, by id.
pub fn handles(state: &State, signal: Signal, store: &Store) -> Vec<BlockHandle> {
    let masks = state.masks();
    state
        .blocks
        .values()
        .map(|meta| BlockHandle {
            meta: Arc::clone(meta),
            store: store.clone(),
            folder: block_folder(signal, &meta.tenant, meta.id).into(),
            tombstones: masks.get(&meta.id).cloned().unwrap_or_default(),
        })
        .collect()
}

/// One block by id.
///
/// # Errors
/// `NotFound`.
pub fn find(state: &State, signal: Signal, store: &Store, id: Ulid) -> Result<BlockHandle> {
    handles(state, signal, store)
        .into_iter()
        .find(|b| b.meta.id == id)
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no {signal} block {id}")))
}

/// What the manifest and the containers' footers tell of a block, for people: one fact per line. Files that are no
/// containers are listed without sections.
///
/// # Errors
/// Those of the store.
pub async fn describe(block: &BlockHandle) -> Result<String> {
    let meta = &block.meta;
    let mut out = String::new();
    let facts = [
        ("block", meta.id.to_string()),
        ("tenant", meta.tenant.clone()),
        ("folder", block.folder.to_string()),
        ("level", meta.level.to_string()),
        ("time", format!("{} to {}", meta.time_min, meta.time_max)),
        ("items", meta.items.to_string()),
        ("groups", meta.groups.to_string()),
        ("created", format!("{} ms", meta.created_ms)),
        ("bytes", meta.bytes().to_string()),
    ];
    // Writing to a String cannot fail; `ok` says so.
    for (name, value) in facts {
        writeln!(out, "{name:<8} {value}").ok();
    }
    for (name, value) in &meta.facts {
        writeln!(out, "fact     {name} = {value}").ok();
    }
    for file in &meta.files {
        writeln!(
            out,
            "file     {} {} bytes, crc32c {:08x}",
            file.name, file.size, file.crc32c
        )
        .ok();
        let container = match Container::open(block, &file.name).await {
            Ok(container) => container,
            // Some files have a format of their own; a damaged one is the business of `verify`.
            Err(e) if matches!(e.kind, ErrorKind::Corrupt | ErrorKind::Unsupported) => continue,
            Err(e) => return Err(e),
        };
        for s in container.sections() {
            writeln!(
                out,
                "section  {}.{} at {}, {} bytes{}",
                s.kind,
                s.ordinal,
                s.range.start,
                s.stored_len(),
                match s.compressed {
                    true => format!(", {} uncompressed", s.raw_len),
                    false => String::new(),
                }
            )
            .ok();
        }
    }
    Ok(out)
}

/// Reads every object of a block and compares size and checksum with the manifest, then lets the engine read it.
///
/// # Errors
/// `Corrupt` or `NotFound` with the first object that does not check out; those of the store.
pub async fn verify<E: Engine>(engine: &E, block: &BlockHandle) -> Result<()> {
    verify_objects(block).await?;
    engine
        .verify(block)
        .await
        .map_err(|e| e.context(format!("block {}", block.meta.id)))
}

/// The part of [`verify`] that needs no engine.
///
/// # Errors
/// Those of `verify`.
pub async fn verify_objects(block: &BlockHandle) -> Result<()> {
    for file in &block.meta.files {
        let path = block.path(&file.name);
        let (mut crc, mut at) = (0, 0);
        while at < file.size {
            let end = file.size.min(at + PIECE_BYTES);
            let piece = block.store.get_range(&path, at..end).await?;
            if piece.len() as u64 != end - at {
                return Err(Error::corrupt(format!("{path} is shorter than {}", file.size)));
            }
            crc = crc32c_append(crc, &piece);
            at = end;
        }
        if crc != file.crc32c {
            return Err(Error::corrupt(format!(
                "{path}: checksum {:08x} expected, got {crc:08x}",
                file.crc32c
            )));
        }
    }
    Ok(())
}
