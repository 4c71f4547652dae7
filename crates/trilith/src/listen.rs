//! Sockets: bound before anything else, so that a taken port is known at once, served once the data are there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trilith_api::target::Escaped;
use trilith_model::task;

/// A client that sends its request head slower than this is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after `accept` fails (descriptors exhausted), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Bound {
    /// The setting, for messages.
    pub setting: &'static str,
    pub address: SocketAddr,
    listener: TcpListener,
}

/// # Errors
/// The address is taken, unknown or not allowed; the message names the setting.
pub async fn bind(setting: &'static str, address: &str) -> anyhow::Result<Bound> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({setting})"))?;
    let address = listener.local_addr().context("a bound socket has an address")?;
    Ok(Bound {
        setting,
        address,
        listener,
    })
}

impl Bound {
    /// Serves HTTP/1.1 and HTTP/2 (prior knowledge) until cancelled; then takes no more connections and lets
    /// running requests finish. Every connection is a task of `connections`; at `most` so many are served at a time,
    /// more wait in the socket's backlog.
    pub async fn serve(self, router: Router, connections: TaskTracker, stop: CancellationToken, most: usize) {
        let places = Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => return,
                place = places.clone().acquire_owned() => place,
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!(listener = self.setting, error = %e, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Small answers must not wait for more.
            let _ = stream.set_nodelay(true);
            let service = TowerToHyperService::new(router.clone());
            let stop = stop.clone();
            let connection = connections.track_future(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server
                    .http1()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT);
                server.http2().timer(TokioTimer::new()).adaptive_window(true);
                let connection = server.serve_connection_with_upgrades(TokioIo::new(Escaped::new(stream)), service);
                tokio::pin!(connection);
                let _place = place;
                tokio::select! {
                    // Errors here are the client's: resets, nonsense, time-outs.
                    _ = connection.as_mut() => {}
                    () = stop.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        let _ = connection.await;
                    }
                }
            });
            task::spawn("connection", connection);
        }
    }
}
