//! Uploads: one request for small bodies, parts for large ones, with bounded memory.
//!
//! A failed part is repeated alone where the backend allows it (S3, GCS, Azure: through the retry policy below);
//! what remains fails the whole upload, which is then aborted and begun again. That is right only because nobody else
//! uses the name and the bytes are the same each time. An upload that dies with the process leaves invisible parts: a
//! lifecycle rule of the bucket ("abort incomplete multipart uploads") removes them; a local store leaves `name#n` files,
//! which lists do not show.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy};
use object_store::{MultipartUpload, ObjectStoreExt, PutMultipartOptions};
use tokio::io::AsyncReadExt;
use trilith_model::{Error, ErrorKind, Result};

use crate::error::Failure;
use crate::retry::Job;
use crate::stats::{Operation, add};
use crate::store::Store;

/// Parts of one upload in memory and in flight; with 16 MiB parts, 64 MiB.
const PARTS_IN_FLIGHT: usize = 4;
/// S3 takes at most 10,000 parts; parts grow rather than exceed this.
const PARTS_MAX: u64 = 9_000;
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

enum Body<'a> {
    Memory(&'a Bytes),
    File(&'a FilePath),
}

impl Store {
    /// Uploads an object under a name that nobody else uses (a ULID in it); multipart when large. Repeating is harmless.
    pub async fn upload(&self, path: &str, bytes: Bytes) -> Result<()> {
        let location = self.location(path)?;
        let len = bytes.len() as u64;
        if len > self.core.options.part_bytes {
            return self.upload_in_parts(path, &location, Body::Memory(&bytes), len).await;
        }
        let job = Job::new(Operation::Upload, path, len);
        self.core
            .retry
            .run(job, || async {
                let _permit = self.permit().await?;
                self.core.inner.put(&location, bytes.clone().into()).await?;
                Ok(())
            })
            .await?;
        add(&self.stats().bytes_written, len);
        Ok(())
    }

    /// As `upload`, from a local file, without holding it in memory. The file must not change meanwhile.
    ///
    /// # Errors
    /// `Internal` when the file cannot be read or changes its length.
    pub async fn upload_file(&self, path: &str, file: &FilePath) -> Result<()> {
        let location = self.location(path)?;
        let failed = |e: std::io::Error| Error::internal(format!("upload of {}: {e}", file.display()));
        let len = tokio::fs::metadata(file).await.map_err(failed)?.len();
        if len > self.core.options.part_bytes {
            return self.upload_in_parts(path, &location, Body::File(file), len).await;
        }
        let bytes = tokio::fs::read(file).await.map_err(failed)?;
        if bytes.len() as u64 != len {
            return Err(failed(std::io::Error::other("the file changes")));
        }
        self.upload(path, bytes.into()).await
    }

    async fn upload_in_parts(&self, path: &str, location: &Path, body: Body<'_>, len: u64) -> Result<()> {
        let job = Job::new(Operation::Upload, path, len);
        self.core
            .retry
            .run(job, || self.upload_once(path, location, &body, len))
            .await?;
        add(&self.stats().bytes_written, len);
        Ok(())
    }

    async fn upload_once(&self, path: &str, location: &Path, body: &Body<'_>, len: u64) -> Result<(), Failure> {
        let policy = Arc::new(PartRetry { store: self.clone() });
        let options = PutMultipartOptions::default().with_retry_policy(policy);
        let mut upload = {
            let _permit = self.permit().await?;
            self.core.inner.put_multipart_opts(location, options).await?
        };
        let sent = self.send_parts(path, upload.as_mut(), body, len).await;
        let result = match sent {
            Ok(()) => upload.complete().await.map(drop).map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        let Err(failure) = result else {
            return Ok(());
        };
        // The answer to `complete` may be lost, or a repeated `complete` may find the upload gone because the first
        // one worked. The name is ours alone, so an object of the right length is the one just sent.
        let head = tokio::time::timeout(self.core.retry.request_timeout(0), self.core.inner.head(location)).await;
        if head.is_ok_and(|h| h.is_ok_and(|meta| meta.size == len)) {
            return Ok(());
        }
        if !matches!(tokio::time::timeout(ABORT_TIMEOUT, upload.abort()).await, Ok(Ok(()))) {
            tracing::debug!(path, "parts of a failed upload could not be removed");
        }
        // A vanished upload (`NoSuchUpload`) is a 404, but not an answer to anybody's question.
        let retry = failure.retry || failure.kind == ErrorKind::NotFound;
        let kind = if failure.kind == ErrorKind::NotFound {
            ErrorKind::Unavailable
        } else {
            failure.kind
        };
        Err(Failure { retry, kind, ..failure })
    }

    async fn send_parts(
        &self,
        path: &str,
        upload: &mut dyn MultipartUpload,
        body: &Body<'_>,
        len: u64,
    ) -> Result<(), Failure> {
        let part_bytes = self.core.options.part_bytes.max(len.div_ceil(PARTS_MAX));
        let mut file = match body {
            Body::Memory(_) => None,
            Body::File(file) => Some(tokio::fs::File::open(file).await.map_err(unreadable)?),
        };
        let mut in_flight = FuturesUnordered::new();
        let mut at = 0;
        while at < len {
            let n = part_bytes.min(len - at);
            let part = match (&mut file, body) {
                (Some(file), _) => {
                    let mut buffer = vec![0; n as usize];
                    file.read_exact(&mut buffer).await.map_err(unreadable)?;
                    Bytes::from(buffer)
                }
                (None, Body::Memory(bytes)) => bytes.slice(at as usize..(at + n) as usize),
                (None, Body::File(_)) => unreachable!("a file body was opened above"),
            };
            at += n;
            // Numbered here, in order; sent when polled.
            let request = upload.put_part(part.into());
            in_flight.push(async move {
                let _permit = self.permit().await?;
                let before = self.core.retry.now();
                let limit = self
                    .core
                    .options
                    .total_timeout
                    .saturating_add(self.core.retry.request_timeout(n));
                let sent = tokio::time::timeout(limit, request).await;
                self.stats()
                    .tried(Operation::Part, true, self.core.retry.now().saturating_sub(before));
                match sent {
                    Ok(result) => result.map_err(Failure::from),
                    Err(_) => Err(Failure::retry(format!("a part of {path} took longer than {limit:?}"))),
                }
            });
            while in_flight.len() >= PARTS_IN_FLIGHT {
                in_flight.try_next().await?;
            }
        }
        while in_flight.try_next().await?.is_some() {}
        Ok(())
    }

    async fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
        let permit = self.core.retry.writes().acquire().await;
        permit.map_err(|_| Failure::permanent(ErrorKind::Internal, "the store is closed"))
    }
}

fn unreadable(e: std::io::Error) -> Failure {
    Failure::permanent(ErrorKind::Internal, format!("the file to upload cannot be read: {e}"))
}

/// Repeats one part, with the same limits and pauses as every other request.
struct PartRetry {
    store: Store,
}

impl std::fmt::Debug for PartRetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PartRetry")
    }
}

#[async_trait]
impl RetryPolicy for PartRetry {
    async fn retry(&self, context: RetryContext) -> bool {
        let again = match context.failure {
            RetryFailure::Status(status) => {
                status.is_server_error() || status.is_success() || matches!(status.as_u16(), 408 | 409 | 429)
            }
            RetryFailure::Transport(_) => true,
            _ => false,
        };
        let options = &self.store.core.options;
        let tries = u32::try_from(context.attempt).unwrap_or(u32::MAX);
        if !again || tries >= options.attempts_max || context.elapsed >= options.total_timeout {
            return false;
        }
        self.store.stats().tried(Operation::Part, false, Duration::ZERO);
        tokio::time::sleep(self.store.core.retry.pause(tries)).await;
        true
    }
}
