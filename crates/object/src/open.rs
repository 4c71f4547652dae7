//! From a URL to a store.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};
use trilith_model::rng::Rng;
use trilith_model::{Clock, Error, Result, task};

use crate::cache::RangeCache;
use crate::error::one_line;
use crate::options::StoreOptions;
use crate::staging::{STAGING_AGE_MIN, sweep};
use crate::store::{Place, Store};

/// A checked URL.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Local(PathBuf),
    Memory,
    Remote {
        provider: Provider,
        bucket: String,
        prefix: Path,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    S3,
    Gcs,
    Azure,
}

impl Store {
    /// Opens `file:///dir`, a plain path, `memory://`, `s3://bucket/prefix`, `gs://bucket/prefix` or
    /// `az://container/prefix`. A local folder is created, a bucket is not.
    ///
    /// Credentials and everything else that is not in the options come from the environment as the providers' own tools
    /// read it: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`, instance
    /// and web identity roles; `GOOGLE_APPLICATION_CREDENTIALS`; `AZURE_STORAGE_ACCOUNT_NAME` and its keys. Nothing is
    /// sent to a remote store yet: call [`Store::probe`].
    ///
    /// # Errors
    /// `Invalid`: the URL or an option is wrong. `Unavailable`: a folder cannot be created or written.
    pub async fn open(url: &str, options: StoreOptions, clock: Arc<dyn Clock>, rng: Arc<Rng>) -> Result<Store> {
        options.check()?;
        let target = parse(url)?;
        let (inner, place): (Arc<dyn ObjectStore>, Place) = match target {
            Target::Memory => {
                let place = Place {
                    url: "memory://".to_owned(),
                    lists_in_order: true,
                    ..Place::default()
                };
                (Arc::new(InMemory::new()), place)
            }
            Target::Local(folder) => open_folder(folder, options.fsync, clock.as_ref()).await?,
            Target::Remote {
                provider,
                bucket,
                prefix,
            } => {
                let (inner, endpoint) = connect(provider, &bucket, &options)
                    .map_err(|e| Error::invalid(format!("storage URL {url:?}: {}", one_line(&e))))?;
                let at = endpoint
                    .map(|e| format!(" at {}", without_user(&e)))
                    .unwrap_or_default();
                let place = Place {
                    url: format!("{}://{bucket}/{prefix}{at}", provider.scheme()),
                    // S3's directory buckets list in any order.
                    lists_in_order: !bucket.ends_with("--x-s3"),
                    prefix,
                    root: None,
                };
                (inner, place)
            }
        };
        let cache = match &options.cache_disk {
            // Below a local store a second copy on disk would only cost.
            Some(disk) if place.root.is_none() && place.url != "memory://" => {
                RangeCache::hybrid(options.cache_memory_bytes, disk).await?
            }
            _ => RangeCache::memory(options.cache_memory_bytes),
        };
        Ok(Store::assemble(inner, options, clock, rng, place, cache))
    }
}

/// Makes ring the process's TLS provider. Several crates of the tree use rustls without choosing one and would panic
/// at the first connection. Harmless when repeated; `Store::open` calls it for remote stores.
pub fn install_tls_provider() {
    // Fails only when there is a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn parse(url: &str) -> Result<Target> {
    let invalid = |what: &str| Err(Error::invalid(format!("storage URL {url:?}: {what}")));
    let Some((scheme, rest)) = url.split_once("://") else {
        return match url {
            "" => invalid("is empty"),
            // `s3:bucket` is a typing error, not a folder of that name.
            _ if url.split('/').next().is_some_and(|first| first.contains(':')) => {
                invalid("a scheme is followed by ://, as in s3://bucket/prefix; write a folder with : as ./a:b")
            }
            _ => Ok(Target::Local(url.into())),
        };
    };
    let provider = match scheme {
        "memory" if rest.is_empty() => return Ok(Target::Memory),
        "memory" => return invalid("memory:// takes no path"),
        "file" => {
            let parsed = url::Url::parse(url).ok().and_then(|u| u.to_file_path().ok());
            return match parsed {
                Some(path) => Ok(Target::Local(path)),
                None => invalid("a file URL needs an absolute path and no host, as in file:///var/lib/trilith"),
            };
        }
        "s3" => Provider::S3,
        "gs" => Provider::Gcs,
        "az" => Provider::Azure,
        _ => return invalid("unknown scheme; use file://, s3://, gs://, az:// or memory://"),
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return invalid("has no bucket");
    }
    if bucket.contains(['@', ':', '?', '#']) || prefix.contains(['?', '#']) {
        return invalid(
            "only a bucket and a prefix; credentials and settings come from the environment and the options",
        );
    }
    match Path::parse(prefix) {
        Ok(prefix) => Ok(Target::Remote {
            provider,
            bucket: bucket.to_owned(),
            prefix,
        }),
        Err(e) => invalid(&e.to_string()),
    }
}

async fn open_folder(folder: PathBuf, fsync: bool, clock: &dyn Clock) -> Result<(Arc<dyn ObjectStore>, Place)> {
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        Error::unavailable(format!("storage folder {}: {what}: {e}", folder.display()))
    };
    tokio::fs::create_dir_all(&folder)
        .await
        .map_err(|e| failed("cannot be created", &e))?;
    let root = tokio::fs::canonicalize(&folder)
        .await
        .map_err(|e| failed("cannot be opened", &e))?;
    check_writable(&root).await.map_err(|e| failed("is not writable", &e))?;
    sweep_later(&root, clock);
    let inner = LocalFileSystem::new_with_prefix(&root)
        .map_err(|e| failed("cannot be opened", &one_line(&e)))?
        .with_fsync(fsync)
        // A block's folder goes with its last object; a concurrent create makes its folders anew.
        .with_automatic_cleanup(true);
    let place = Place {
        url: format!("file://{}", root.display()),
        root: Some(root),
        ..Place::default()
    };
    Ok((Arc::new(inner), place))
}

/// Walks a large folder for a while, so nobody waits for it.
fn sweep_later(root: &FilePath, clock: &dyn Clock) {
    let root = root.to_owned();
    let now = Duration::from_nanos(u64::try_from(clock.now_ns()).unwrap_or(0));
    let before = SystemTime::UNIX_EPOCH + now.saturating_sub(STAGING_AGE_MIN);
    task::spawn("sweep staging files", async move {
        let swept = root.clone();
        match task::background(move || sweep(&swept, before)).await {
            Ok(0) => {}
            Ok(removed) => {
                tracing::info!(folder = %root.display(), removed, "removed files of uploads that crashed")
            }
            Err(e) => {
                tracing::warn!(folder = %root.display(), error = %e, "looking for files of crashed uploads failed")
            }
        }
    });
}

async fn check_writable(root: &FilePath) -> std::io::Result<()> {
    // Hidden from lists by its `#` and digits, like the staging files of the backend.
    let name = root.join(format!("writable#{}", std::process::id()));
    tokio::fs::write(&name, b"").await?;
    tokio::fs::remove_file(&name).await
}

/// For messages: a URL may carry a password.
fn without_user(endpoint: &str) -> &str {
    match endpoint.split_once("://") {
        Some((_, rest)) => rest.rsplit_once('@').map_or(endpoint, |(_, host)| host),
        None => endpoint,
    }
}

impl Provider {
    fn scheme(self) -> &'static str {
        match self {
            Provider::S3 => "s3",
            Provider::Gcs => "gs",
            Provider::Azure => "az",
        }
    }
}

/// The backend, and its endpoint unless that is the provider's own.
fn connect(
    provider: Provider,
    bucket: &str,
    options: &StoreOptions,
) -> Result<(Arc<dyn ObjectStore>, Option<String>), object_store::Error> {
    install_tls_provider();
    // Ours is the only retry, see `retry`.
    let retry = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    // Every request has its own, tighter limit, except the parts of an upload, which have only this one.
    let mib = u32::try_from((options.part_bytes >> 20).max(32)).unwrap_or(u32::MAX);
    let limit = options
        .request_timeout
        .saturating_add(options.timeout_per_mib.saturating_mul(mib));
    let limit = format!("{} seconds", limit.as_secs().max(1));
    let allow_http = options.allow_http.then_some("true");
    let endpoint = options.endpoint.clone();
    Ok(match provider {
        Provider::S3 => {
            let client = AmazonS3ConfigKey::Client;
            let mut b = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retry)
                // `DeleteObjects` is the call that compatible servers lack most often, and we delete one by one.
                .with_disable_bulk_delete(true)
                .with_config(client(ClientConfigKey::Timeout), limit);
            for (key, value) in &options.provider.0 {
                b = b.with_config(key.to_ascii_lowercase().parse()?, value);
            }
            if let Some(endpoint) = &options.endpoint {
                b = b.with_endpoint(endpoint);
            }
            if let Some(region) = &options.region {
                b = b.with_region(region);
            }
            if let Some(yes) = allow_http {
                b = b.with_config(client(ClientConfigKey::AllowHttp), yes);
            }
            let endpoint = b.get_config_value(&AmazonS3ConfigKey::Endpoint);
            let http = b
                .get_config_value(&client(ClientConfigKey::AllowHttp))
                .unwrap_or_default();
            let http = matches!(http.as_str(), "true" | "1" | "on" | "yes" | "y");
            if let Some(endpoint) = endpoint.as_ref().filter(|e| e.starts_with("http://") && !http) {
                return Err(object_store::Error::NotSupported {
                    source: format!(
                        "the endpoint {} is not encrypted; allow it with AWS_ALLOW_HTTP=true",
                        without_user(endpoint)
                    )
                    .into(),
                });
            }
            (Arc::new(b.build()?), endpoint)
        }
        Provider::Gcs => {
            let mut b = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retry)
                .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), limit);
            for (key, value) in &options.provider.0 {
                b = b.with_config(key.to_ascii_lowercase().parse()?, value);
            }
            if let Some(endpoint) = &options.endpoint {
                b = b.with_base_url(endpoint);
            }
            if let Some(yes) = allow_http {
                b = b.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), yes);
            }
            (Arc::new(b.build()?), endpoint)
        }
        Provider::Azure => {
            let mut b = MicrosoftAzureBuilder::from_env()
                .with_container_name(bucket)
                .with_retry(retry)
                .with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), limit);
            for (key, value) in &options.provider.0 {
                b = b.with_config(key.to_ascii_lowercase().parse()?, value);
            }
            if let Some(endpoint) = &options.endpoint {
                b = b.with_endpoint(endpoint.clone());
            }
            if let Some(yes) = allow_http {
                b = b.with_config(AzureConfigKey::Client(ClientConfigKey::AllowHttp), yes);
            }
            (Arc::new(b.build()?), endpoint)
        }
    })
}

#[cfg(test)]
mod tests {
    use trilith_model::{ErrorKind, SystemClock};

    use super::*;

    fn check(url: &str, expected: Result<Target, &str>) {
        match (parse(url), expected) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{url}"),
            (Err(e), Err(part)) => {
                assert_eq!(e.kind, ErrorKind::Invalid, "{url}");
                assert!(e.message.contains(part), "{url}: {e}");
            }
            (got, want) => panic!("{url}: got {got:?}, expected {want:?}"),
        }
    }

    fn s3(bucket: &str, prefix: &str) -> Result<Target, &'static str> {
        let prefix = Path::parse(prefix).expect("a test's prefix");
        Ok(Target::Remote {
            provider: Provider::S3,
            bucket: bucket.into(),
            prefix,
        })
    }

    #[test]
    fn urls() {
        check("./trilith-data", Ok(Target::Local("./trilith-data".into())));
        check("/var/x y", Ok(Target::Local("/var/x y".into())));
        check("file:///var/x%20y", Ok(Target::Local("/var/x y".into())));
        check("memory://", Ok(Target::Memory));
        check("s3://b", s3("b", ""));
        check("s3://b/", s3("b", ""));
        check("s3://b/team/a/", s3("b", "team/a"));
        check("file://relative/x", Err("absolute"));
        check("memory://x", Err("no path"));
        check("", Err("empty"));
        check("s3://", Err("no bucket"));
        check("s3:///x", Err("no bucket"));
        check("s3://key:secret@b/x", Err("environment"));
        check("s3://b/x?region=y", Err("environment"));
        check("s3://b/../c", Err(".."));
        check("ftp://b", Err("unknown scheme"));
    }

    async fn open(url: &str) -> Result<Store> {
        Store::open(
            url,
            StoreOptions::default(),
            Arc::new(SystemClock),
            Arc::new(Rng::seeded(1)),
        )
        .await
    }

    #[tokio::test]
    async fn a_folder_is_created_and_holds_objects_at_their_paths() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b c");
        let store = open(folder.to_str().unwrap()).await.unwrap();
        store.probe().await.unwrap();
        store.upload("x/y=1.bin", "hello".into()).await.unwrap();
        assert_eq!(std::fs::read(folder.join("x/y=1.bin")).unwrap(), b"hello");
        store.delete("x/y=1.bin").await.unwrap();
        assert_eq!(
            std::fs::read_dir(&folder).unwrap().count(),
            0,
            "empty folders are removed"
        );
        let url = url::Url::from_file_path(&folder).unwrap();
        let again = open(url.as_str()).await.unwrap();
        assert_eq!(again.url(), store.url());
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_used_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let e = open(file.join("below").to_str().unwrap()).await.unwrap_err();
        assert_eq!(e.kind, ErrorKind::Unavailable);
        assert!(
            e.message.contains("cannot be created") && !e.message.contains('\n'),
            "{e}"
        );
    }

    #[tokio::test]
    async fn a_vanished_folder_is_not_an_empty_store() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let store = open(folder.to_str().unwrap()).await.unwrap();
        assert_eq!(store.get("x").await.unwrap(), None);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(store.get("x").await.unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!(store.list("").await.unwrap_err().kind, ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn plain_http_is_refused_unless_allowed() {
        let options = StoreOptions {
            endpoint: Some("http://127.0.0.1:1".into()),
            ..StoreOptions::default()
        };
        let rng = Arc::new(Rng::seeded(1));
        let e = Store::open("s3://b", options, Arc::new(SystemClock), rng)
            .await
            .unwrap_err();
        assert!(
            e.kind == ErrorKind::Invalid && e.message.contains("AWS_ALLOW_HTTP"),
            "{e}"
        );
    }

    #[tokio::test]
    async fn tls_has_a_provider() {
        let options = StoreOptions {
            endpoint: Some("https://127.0.0.1:1".into()),
            provider: [("aws_access_key_id", "k"), ("aws_secret_access_key", "s")]
                .into_iter()
                .collect(),
            attempts_max: 1,
            ..StoreOptions::default()
        };
        let rng = Arc::new(Rng::seeded(1));
        let store = Store::open("s3://b", options, Arc::new(SystemClock), rng)
            .await
            .unwrap();
        assert_eq!(store.get("x").await.unwrap_err().kind, ErrorKind::Unavailable);
    }
}
