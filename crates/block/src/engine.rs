//! What a signal's engine gives to the block layer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use trilith_model::{Result, Signal, TenantId, TimeRange};
use trilith_object::Store;

use crate::manifest::Tombstone;
use crate::meta::BlockMeta;

/// One generation of recent data of all tenants. Filled under [`crate::Shard::begin`], frozen by a cut.
pub trait Head: Send + Sync + 'static {
    /// Approximate heap bytes; a cut is due when they exceed the setting.
    fn bytes(&self) -> u64;
    /// Samples, entries or spans.
    fn items(&self) -> u64;
}

/// A block as an engine made it, before it has an id.
#[derive(Debug)]
pub struct BlockDraft {
    pub tenant: TenantId,
    pub time: TimeRange,
    pub items: u64,
    pub groups: u64,
    pub files: Vec<BlockFile>,
    pub facts: BTreeMap<String, String>,
}

#[derive(Debug)]
pub struct BlockFile {
    pub name: String,
    pub body: FileBody,
    pub footer: Option<Range<u64>>,
}

/// Small files stay in memory; a merge of large blocks spools to the scratch folder it was given.
#[derive(Debug)]
pub enum FileBody {
    Memory(Bytes),
    Spooled(PathBuf),
}

/// A committed block and where to read it.
#[derive(Clone)]
pub struct BlockHandle {
    pub meta: Arc<BlockMeta>,
    pub store: Store,
    /// Folder of the block's objects in the store.
    pub folder: Arc<str>,
    /// What of the block is deleted; oldest first, nearly always empty.
    pub tombstones: Arc<[Arc<Tombstone>]>,
}

impl BlockHandle {
    pub fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.folder)
    }
}

/// One per signal.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    type Head: Head;

    fn signal(&self) -> Signal;

    fn new_head(&self) -> Self::Head;

    /// Encodes a frozen head, one or more blocks per tenant. CPU work; the caller runs it in the background pool.
    /// Deterministic: the same head gives the same records in the same blocks.
    fn cut(&self, head: &Self::Head) -> Result<Vec<BlockDraft>>;

    /// Merges blocks of one tenant into one (or several, when split by time). Every record of the inputs is in the
    /// outputs exactly once, except those that the tombstones of their input mask; exact duplicates collapse by the
    /// engine's rule.
    async fn merge(&self, job: Merge) -> Result<Vec<BlockDraft>>;

    /// Reads a block completely and checks what checksums cannot see. For `trilith blocks verify` and tests.
    async fn verify(&self, block: &BlockHandle) -> Result<()>;
}

pub struct Merge {
    /// Oldest first.
    pub inputs: Vec<BlockHandle>,
    /// Level of the output.
    pub level: u8,
    /// Empty folder for spooled files; removed by the caller after the upload.
    pub scratch: PathBuf,
    /// Drop records older than this (retention), in the signal's unit.
    pub keep_from: Option<i64>,
}
