//! One step of the manifest.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilith_model::{Error, Result};
use ulid::Ulid;

use super::envelope::{self, Kind};
use super::tombstone::Tombstone;
use crate::meta::BlockMeta;

/// What a writer wants to commit. The nonce identifies it through retries and rebases.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Random, never used for another change.
    pub nonce: u128,
    pub writer: String,
    pub epoch: u64,
    /// Records of this writer up to and including this LSN are in committed blocks. `None` leaves it as it is.
    pub wal_upto: Option<u64>,
    pub add: Vec<Arc<BlockMeta>>,
    pub remove: Vec<Ulid>,
    pub tombstones: Vec<Arc<Tombstone>>,
    /// Tombstones that `add` has been cleaned of. A removed block that others mask too is a conflict: what they mask
    /// would come back with `add`. Not written.
    pub applied: BTreeSet<Ulid>,
    /// By the writer's wall clock; for people and for the grace period of the removed blocks.
    pub time_ms: i64,
}

/// A change with its number: the content of a log object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// `<signal>-0`; an object copied into another shard's folder is refused.
    pub shard: String,
    /// From 1, without gaps.
    pub n: u64,
    /// 32 hex digits.
    #[serde(with = "hex_nonce")]
    pub nonce: u128,
    pub writer: String,
    pub epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_upto: Option<u64>,
    pub time_ms: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Arc<BlockMeta>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<Ulid>,
    /// Blocks removed earlier whose objects are deleted by now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purged: Vec<Ulid>,
    /// Since version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tombstones: Vec<Arc<Tombstone>>,
}

impl Delta {
    pub(super) fn new(change: &Change, shard: &str, n: u64, purged: Vec<Ulid>) -> Self {
        Delta {
            shard: shard.to_owned(),
            n,
            nonce: change.nonce,
            writer: change.writer.clone(),
            epoch: change.epoch,
            wal_upto: change.wal_upto,
            time_ms: change.time_ms,
            add: change.add.clone(),
            remove: change.remove.clone(),
            purged,
            tombstones: change.tombstones.clone(),
        }
    }

    /// # Errors
    /// `Internal` when it does not encode, which no valid delta does.
    pub fn encode(&self) -> Result<Bytes> {
        envelope::encode(Kind::Delta, envelope::version_of(!self.tombstones.is_empty()), self)
    }

    /// # Errors
    /// `Corrupt`, `Unsupported`; also when the content belongs under another name.
    pub fn decode(bytes: &[u8], shard: &str, n: u64) -> Result<Self> {
        let delta: Delta = envelope::decode(Kind::Delta, bytes)?;
        if delta.shard != shard || delta.n != n {
            return Err(Error::corrupt(format!("holds delta {} of {}", delta.n, delta.shard)));
        }
        Ok(delta)
    }
}

mod hex_nonce {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(nonce: &u128, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(nonce.to_be_bytes()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        let text = String::deserialize(d)?;
        let mut bytes = [0u8; 16];
        hex::decode_to_slice(&text, &mut bytes).map_err(de::Error::custom)?;
        Ok(u128::from_be_bytes(bytes))
    }
}
