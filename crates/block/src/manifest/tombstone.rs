//! Deleted records that may still stand in blocks.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use trilith_model::{Error, Result, TenantId};
use ulid::Ulid;

/// Most bytes of [`Tombstone::what`].
const WHAT_BYTES_MAX: usize = 64 << 10;

/// Masks records of some blocks. Which ones, only the engine can tell; readers leave them out, and a merge of a masked
/// block drops them for good.
///
/// A tombstone names its blocks: what is written after it comes in other blocks and is never masked. A block that
/// leaves the manifest leaves the tombstone, and a tombstone without blocks is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub id: Ulid,
    pub tenant: String,
    /// Inclusive, in the signal's unit.
    pub time_min: i64,
    pub time_max: i64,
    pub created_ms: i64,
    /// The engine's description of the records.
    pub what: String,
    pub blocks: BTreeSet<Ulid>,
}

impl Tombstone {
    /// # Errors
    /// `Corrupt`.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::corrupt(format!("tombstone {}: {what}", self.id)));
        if TenantId::new(&self.tenant).is_err() {
            return wrong("bad tenant");
        }
        if self.time_min > self.time_max {
            return wrong("bad time range");
        }
        if self.what.len() > WHAT_BYTES_MAX {
            return wrong("its description is too long");
        }
        if self.blocks.is_empty() {
            return wrong("masks nothing");
        }
        Ok(())
    }

    /// # Errors
    /// `Invalid` when the description is longer than a tombstone may hold.
    pub(crate) fn check_length(what: &str) -> Result<()> {
        if what.len() > WHAT_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the description of what to delete takes {} bytes, more than {WHAT_BYTES_MAX}",
                what.len()
            )));
        }
        Ok(())
    }
}
