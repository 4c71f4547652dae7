//! A real S3-protocol server for tests, with faults over real HTTP. Never part of a shipped binary.
//!
//! s3s and s3s-fs serve a folder: `dir/<bucket>/<key>`. A lock, exclusive for every method but GET and HEAD, makes
//! their conditional writes atomic, which they are not by themselves. [`S3Server::inject`] adds what networks and
//! overloaded servers do.
//!
//! The server runs on a thread and runtime of its own, so that tests of any kind can use it, also against another
//! process: [`S3Server::env`] has the variables that the standard clients read. It stops when dropped.

mod fault;
mod service;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::sync::{RwLock, oneshot};

pub use fault::{ALWAYS, Fault, Filter};
pub use http::Method;

use crate::fault::Faults;
use crate::service::{Shared, serve};

pub const ACCESS_KEY: &str = "testkey";
pub const SECRET_KEY: &str = "testsecret";
pub const REGION: &str = "us-east-1";

/// A running server. Dropping it closes the port and all connections; the folder stays.
pub struct S3Server {
    address: SocketAddr,
    root: PathBuf,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Serves an existing folder on a free port of the loopback interface.
    ///
    /// # Errors
    /// The folder does not exist, or there is no port or thread.
    pub fn start(dir: impl AsRef<Path>) -> Result<S3Server> {
        Self::start_at(dir, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// As `start`, on a given address: for a server that comes back where it was.
    ///
    /// # Errors
    /// As `start`, or the port is taken.
    pub fn start_at(dir: impl AsRef<Path>, address: SocketAddr) -> Result<S3Server> {
        let root = dir.as_ref().canonicalize().context("the folder of the S3 server")?;
        let files = s3s_fs::FileSystem::new(&root).map_err(|e| anyhow::anyhow!("s3s-fs: {e:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let shared = Arc::new(Shared {
            s3: builder.build(),
            root: root.clone(),
            lock: RwLock::new(()),
            faults: Mutex::new(Faults::default()),
            requests: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("s3server")
            .enable_all()
            .build()
            .context("runtime of the S3 server")?;
        // A listener of the standard library: callers may be inside a runtime, where `block_on` panics.
        let listener = std::net::TcpListener::bind(address).context("port of the S3 server")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("s3server".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped => {}
                }
            });
            // Cuts open connections, as a killed server does.
            runtime.shutdown_background();
        })?;
        Ok(S3Server {
            address,
            root,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port`, for path-style requests.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Creates a bucket; one that exists is fine.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        std::fs::create_dir_all(self.root.join(bucket)).with_context(|| format!("bucket {bucket}"))
    }

    /// Where the objects of a bucket are as files, for tests that damage or count them.
    pub fn bucket_dir(&self, bucket: &str) -> PathBuf {
        self.root.join(bucket)
    }

    /// The environment for a client process.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", REGION.to_owned()),
        ]
    }

    /// Strikes the next requests, whatever they are.
    pub fn inject(&self, fault: Fault) {
        self.inject_for(Filter::default(), fault);
    }

    /// Strikes the next requests that match.
    pub fn inject_for(&self, filter: Filter, fault: Fault) {
        self.shared.faults.lock().add(fault, filter);
    }

    pub fn clear_faults(&self) {
        self.shared.faults.lock().clear();
    }

    /// Requests since the start, struck ones included.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Fails only when the thread has ended.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("the listener does not block");
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // Out of file descriptors; the next may succeed.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| serve(Arc::clone(&shared), request));
            // Errors are clients that left and faults that closed the connection.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}
