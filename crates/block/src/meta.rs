//! What the manifest knows of a block.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use trilith_model::{Error, Result, TenantId};
use ulid::Ulid;

use crate::path::is_file_name;

/// One immutable block: tenant × time range, one or a few objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMeta {
    pub id: Ulid,
    pub tenant: String,
    /// 0 as cut from a head, one more per merge.
    pub level: u8,
    /// Inclusive, ms for metrics, ns for logs and traces.
    pub time_min: i64,
    pub time_max: i64,
    /// Samples, entries or spans.
    pub items: u64,
    /// Series, streams or traces.
    pub groups: u64,
    pub created_ms: i64,
    /// Objects below the block's folder.
    pub files: Vec<FileMeta>,
    /// Facts of the engine that prune without a read; small.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    pub name: String,
    pub size: u64,
    /// Of the whole object.
    pub crc32c: u32,
    /// Where the footer (with everything needed to open the file) is, so that opening is one GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<Range<u64>>,
}

impl BlockMeta {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// What every user of a block may rely on: the tenant and the file names are harmless path components, ranges are
    /// in order and inside their files.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::corrupt(format!("block {}: {what}", self.id)));
        if TenantId::new(&self.tenant).is_err() {
            return wrong("bad tenant");
        }
        if self.time_min > self.time_max {
            return wrong("bad time range");
        }
        let mut bytes = 0u64;
        for file in &self.files {
            if !is_file_name(&file.name) {
                return wrong("bad file name");
            }
            if let Some(footer) = &file.footer
                && (footer.start > footer.end || footer.end > file.size)
            {
                return wrong("bad footer range");
            }
            match bytes.checked_add(file.size) {
                Some(sum) => bytes = sum,
                None => return wrong("bad file size"),
            }
        }
        Ok(())
    }

    pub fn file(&self, name: &str) -> Option<&FileMeta> {
        self.files.iter().find(|f| f.name == name)
    }
}
