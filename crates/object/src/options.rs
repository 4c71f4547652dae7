//! Settings of a store: plain data, checked by [`StoreOptions::check`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use trilith_model::{Error, Result};

/// How a store retries, waits, fans out and caches. The defaults suit S3 from the same region and a local disk.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreOptions {
    /// Endpoint of an S3-compatible, GCS or Azure service; `None`: the provider's own, or the environment's.
    pub endpoint: Option<String>,
    /// Region of an S3 bucket; `None`: the environment's.
    pub region: Option<String>,
    /// Plain HTTP is refused unless set here or by `AWS_ALLOW_HTTP`, because credentials and data would be readable.
    pub allow_http: bool,
    /// Further settings of the provider, named as in the environment and put above it.
    pub provider: ProviderSettings,
    /// Tries of one request, the first included. At least 1.
    pub attempts_max: u32,
    /// Pause before the second try; doubles from try to try, each pause is jittered in `[0.5, 1]` of its length.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// All tries and pauses of one operation together; a try under way at that time is cut off.
    pub total_timeout: Duration,
    /// One try of a small request (create, delete, list page, multipart control), its body included.
    pub request_timeout: Duration,
    /// Added per MiB of body to the time of one try, so that large bodies may take longer.
    pub timeout_per_mib: Duration,
    /// Reads in flight, over all clones of the store. At least 1.
    pub reads_max: usize,
    /// Writes, deletes and multipart parts in flight. At least 1.
    pub writes_max: usize,
    /// Ranges with a gap of at most this many bytes are read with one request.
    pub coalesce_gap_bytes: u64,
    /// A request made of several ranges stays below this many bytes; a single larger range is split into such requests.
    pub request_bytes_max: u64,
    /// Objects above this size are uploaded in parts of this size. At least 5 MiB for S3.
    pub part_bytes: u64,
    /// Memory tier of the read cache; 0 turns the cache off, both tiers.
    pub cache_memory_bytes: u64,
    /// Disk tier of the read cache, below the memory tier; only for remote stores.
    pub cache_disk: Option<DiskCacheOptions>,
    /// `fsync` files and folders of a local store. Off only where losing data is acceptable.
    pub fsync: bool,
}

/// A folder that the disk tier owns and may fill. It holds nothing that matters: deleting it loses warmth only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskCacheOptions {
    pub path: PathBuf,
    pub bytes: u64,
}

/// `AWS_SECRET_ACCESS_KEY` and the like, in either case. Printed without the values, which may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProviderSettings(pub BTreeMap<String, String>);

impl std::fmt::Debug for ProviderSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for ProviderSettings {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(settings: I) -> Self {
        ProviderSettings(settings.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        StoreOptions {
            endpoint: None,
            region: None,
            allow_http: false,
            provider: ProviderSettings::default(),
            attempts_max: 8,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            total_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(10),
            timeout_per_mib: Duration::from_secs(1),
            reads_max: 64,
            writes_max: 32,
            coalesce_gap_bytes: 256 << 10,
            request_bytes_max: 8 * MIB,
            part_bytes: 16 * MIB,
            cache_memory_bytes: 128 * MIB,
            cache_disk: None,
            fsync: true,
        }
    }
}

impl StoreOptions {
    /// The same with every value that would hang or panic moved to the nearest that works, for constructors that cannot
    /// fail.
    pub(crate) fn clamped(mut self) -> Self {
        let permits = 1..=tokio::sync::Semaphore::MAX_PERMITS;
        self.reads_max = self.reads_max.clamp(*permits.start(), *permits.end());
        self.writes_max = self.writes_max.clamp(*permits.start(), *permits.end());
        self.attempts_max = self.attempts_max.max(1);
        self.request_bytes_max = self.request_bytes_max.max(1);
        self.part_bytes = self.part_bytes.max(1);
        self
    }

    /// # Errors
    /// `Invalid`, naming the first setting that cannot work.
    pub fn check(&self) -> Result<()> {
        let bad = |what: &str| Err(Error::invalid(format!("object store options: {what}")));
        if self.attempts_max == 0 {
            return bad("attempts_max must be at least 1");
        }
        if self.reads_max == 0 || self.writes_max == 0 {
            return bad("reads_max and writes_max must be at least 1");
        }
        if self.request_timeout.is_zero() || self.total_timeout.is_zero() {
            return bad("request_timeout and total_timeout must be above 0");
        }
        if self.backoff_min > self.backoff_max {
            return bad("backoff_min must not exceed backoff_max");
        }
        if self.request_bytes_max == 0 || self.part_bytes == 0 {
            return bad("request_bytes_max and part_bytes must be above 0");
        }
        if self.cache_disk.as_ref().is_some_and(|d| d.bytes < 64 << 20) {
            return bad("the disk cache needs at least 64 MiB");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_and_mistakes_are_named() {
        StoreOptions::default().check().expect("the defaults work");
        let bad = StoreOptions {
            attempts_max: 0,
            ..StoreOptions::default()
        };
        assert!(bad.check().unwrap_err().message.contains("attempts_max"));
        let disk = DiskCacheOptions {
            path: "x".into(),
            bytes: 1,
        };
        let bad = StoreOptions {
            cache_disk: Some(disk),
            ..StoreOptions::default()
        };
        assert!(bad.check().unwrap_err().message.contains("64 MiB"));
    }

    #[test]
    fn secrets_are_not_printed() {
        let provider = [("AWS_SECRET_ACCESS_KEY", "hush")].into_iter().collect();
        let text = format!(
            "{:?}",
            StoreOptions {
                provider,
                ..StoreOptions::default()
            }
        );
        assert!(
            text.contains("AWS_SECRET_ACCESS_KEY") && !text.contains("hush"),
            "{text}"
        );
    }
}
