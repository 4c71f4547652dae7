//! The sum of all deltas.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilith_model::{Error, Result, TenantId};
use ulid::Ulid;

use super::delta::{Change, Delta};
use super::envelope::{self, Kind};
use super::tombstone::Tombstone;
use crate::meta::BlockMeta;
use crate::path::is_file_name;

/// What one writer has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterState {
    /// Grows by one with each life of the writer.
    pub epoch: u64,
    /// Its records up to and including this LSN are in blocks; 0 when none is.
    pub wal_upto: u64,
}

/// A block that left the manifest; enough to find and delete its objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    pub tenant: String,
    /// By the wall clock of the writer that removed it.
    pub removed_ms: i64,
    pub files: Vec<String>,
}

/// The manifest after some delta.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub shard: String,
    /// Number of the last delta applied; 0 before the first.
    pub n: u64,
    #[serde(default)]
    pub writers: BTreeMap<String, WriterState>,
    #[serde(with = "blocks_as_list")]
    pub blocks: BTreeMap<Ulid, Arc<BlockMeta>>,
    /// Blocks that are no longer served, whose objects may still be there.
    #[serde(default)]
    pub removed: BTreeMap<Ulid, Removed>,
    /// Since version 2.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tombstones: BTreeMap<Ulid, Arc<Tombstone>>,
}

impl State {
    pub fn new(shard: &str) -> Self {
        State {
            shard: shard.to_owned(),
            ..State::default()
        }
    }

    pub fn writer(&self, writer: &str) -> WriterState {
        self.writers.get(writer).copied().unwrap_or_default()
    }

    /// Whether an id stands for a block that is or was in the manifest and may still have objects.
    pub fn knows(&self, id: Ulid) -> bool {
        self.blocks.contains_key(&id) || self.removed.contains_key(&id)
    }

    /// Whether a change is in the manifest already: an earlier attempt has won unnoticed. It shows by the blocks, and
    /// for a cut by the records: a cut that was encoded anew has new blocks with the same records, and adding those to
    /// what an earlier attempt has added would show everything twice.
    pub(super) fn has(&self, change: &Change) -> bool {
        let writer = self.writer(&change.writer);
        let covered = writer.epoch == change.epoch && change.wal_upto.is_some_and(|upto| upto <= writer.wal_upto);
        covered || !change.add.is_empty() && change.add.iter().all(|b| self.knows(b.id))
    }

    /// Blocks that a change removes or masks and that are gone, and those whose records it writes anew in spite of a
    /// tombstone that it does not know.
    pub(super) fn missing(&self, change: &Change) -> Vec<Ulid> {
        let unknown: BTreeSet<Ulid> = match change.add.is_empty() {
            true => BTreeSet::new(),
            false => {
                let unknown = self.tombstones.values().filter(|t| !change.applied.contains(&t.id));
                unknown.flat_map(|t| &t.blocks).copied().collect()
            }
        };
        let removed = change.remove.iter().filter(|id| unknown.contains(id));
        let named = change.tombstones.iter().flat_map(|t| &t.blocks);
        let gone = change.remove.iter().chain(named);
        gone.filter(|id| !self.blocks.contains_key(id))
            .chain(removed)
            .copied()
            .collect()
    }

    /// The tombstones of every masked block, oldest first.
    pub fn masks(&self) -> HashMap<Ulid, Arc<[Arc<Tombstone>]>> {
        let mut masks: HashMap<Ulid, Vec<Arc<Tombstone>>> = HashMap::new();
        for t in self.tombstones.values() {
            for id in &t.blocks {
                masks.entry(*id).or_default().push(t.clone());
            }
        }
        masks.into_iter().map(|(id, of)| (id, of.into())).collect()
    }

    /// Applies the next delta, or nothing at all.
    ///
    /// # Errors
    /// `Corrupt` when it does not follow from the state: no correct writer commits such a delta.
    pub fn apply(&mut self, delta: &Delta) -> Result<()> {
        if delta.n != self.n.wrapping_add(1) {
            return Err(Error::corrupt(format!("delta {} does not follow {}", delta.n, self.n)));
        }
        let writer = self.writer(&delta.writer);
        if delta.epoch < writer.epoch {
            // Written by a former life of the writer without having seen the fence: void.
            self.n = delta.n;
            return Ok(());
        }
        let mut seen = BTreeSet::new();
        for block in &delta.add {
            block.check()?;
            if self.knows(block.id) || !seen.insert(block.id) {
                return Err(Error::corrupt(format!("adds block {} again", block.id)));
            }
        }
        for id in &delta.remove {
            if !self.blocks.contains_key(id) || !seen.insert(*id) {
                return Err(Error::corrupt(format!("removes block {id}, which is not there")));
            }
        }
        for t in &delta.tombstones {
            t.check()?;
            let theirs = |id: &Ulid| self.blocks.get(id).is_some_and(|b| b.tenant == t.tenant);
            if !t.blocks.iter().all(theirs) {
                return Err(Error::corrupt(format!("tombstone {} masks what is not there", t.id)));
            }
        }
        self.n = delta.n;
        self.writers.insert(
            delta.writer.clone(),
            WriterState {
                epoch: delta.epoch,
                wal_upto: writer.wal_upto.max(delta.wal_upto.unwrap_or(0)),
            },
        );
        for id in &delta.purged {
            self.removed.remove(id);
        }
        for id in &delta.remove {
            if let Some(block) = self.blocks.remove(id) {
                let removed = Removed {
                    tenant: block.tenant.clone(),
                    removed_ms: delta.time_ms,
                    files: block.files.iter().map(|f| f.name.clone()).collect(),
                };
                self.removed.insert(*id, removed);
            }
        }
        for block in &delta.add {
            self.blocks.insert(block.id, block.clone());
        }
        for t in &delta.tombstones {
            self.tombstones.insert(t.id, t.clone());
        }
        if !delta.remove.is_empty() && !self.tombstones.is_empty() {
            self.tombstones.retain(|_, t| {
                if delta.remove.iter().any(|id| t.blocks.contains(id)) {
                    let t = Arc::make_mut(t);
                    t.blocks.retain(|id| !delta.remove.contains(id));
                }
                !t.blocks.is_empty()
            });
        }
        Ok(())
    }

    /// As a snapshot object. CPU work in proportion to the number of blocks.
    ///
    /// # Errors
    /// `Internal`.
    pub fn encode(&self) -> Result<Bytes> {
        envelope::encode(Kind::Snapshot, envelope::version_of(!self.tombstones.is_empty()), self)
    }

    /// # Errors
    /// `Corrupt`, `Unsupported`; also when the content belongs under another name.
    pub fn decode(bytes: &[u8], shard: &str, n: u64) -> Result<Self> {
        let state: State = envelope::decode(Kind::Snapshot, bytes)?;
        if state.shard != shard || state.n != n {
            return Err(Error::corrupt(format!("holds snapshot {} of {}", state.n, state.shard)));
        }
        state.blocks.values().try_for_each(|b| b.check())?;
        state.tombstones.values().try_for_each(|t| t.check())?;
        let removed_is_safe =
            |r: &Removed| TenantId::new(&r.tenant).is_ok() && r.files.iter().all(|name| is_file_name(name));
        if !state.removed.values().all(removed_is_safe) {
            return Err(Error::corrupt("bad name of a removed block"));
        }
        Ok(state)
    }
}

/// The id stands in the block; no need to write it twice.
mod blocks_as_list {
    use super::*;
    use serde::{Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(blocks: &BTreeMap<Ulid, Arc<BlockMeta>>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(blocks.values())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<Ulid, Arc<BlockMeta>>, D::Error> {
        let list = Vec::<Arc<BlockMeta>>::deserialize(d)?;
        let count = list.len();
        let blocks: BTreeMap<_, _> = list.into_iter().map(|b| (b.id, b)).collect();
        if blocks.len() != count {
            return Err(de::Error::custom("a block is listed twice"));
        }
        Ok(blocks)
    }
}
