//! kill -9 in a loop under pushes of all three signals, with flushes and compactions going on.
//!
//! Workers push numbered items and note which were acknowledged. The process is killed at random moments, or dies at a
//! crash point inside cut, commit, merge or garbage collection, and is started again. At the end every acknowledged
//! item must be there exactly once, and every other item at most once (its answer was lost, not its data).
//!
//! `TRILITH_KILLS` and `TRILITH_KILL_ITEMS` (acknowledged items per signal, at least) make it longer,
//! `TRILITH_KILL_SEED` repeats a run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::RwLock;
use trilith_s3server::S3Server;

use crate::harness::{Options, Server, export_request, now_ns, push_request, series, span, stream, write_request};
use crate::storage::s3_options;

const S: i64 = 1_000_000_000;

/// Items of one push.
const BATCH: u64 = 200;

/// Where the process dies by itself in some of the rounds.
const CRASH_POINTS: [&str; 9] = [
    "cut-encoded",
    "cut-uploaded",
    "manifest-put",
    "cut-committed",
    "merge-uploading",
    "merge-uploaded",
    "merge-committed",
    "gc-deleting",
    "snapshot-put",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Metrics,
    Logs,
    Traces,
}

/// Pushes of one signal by one worker: batch numbers that were acknowledged.
struct Worker {
    kind: Kind,
    id: u64,
    acked: std::sync::Mutex<BTreeSet<u64>>,
    next: AtomicU64,
}

impl Worker {
    /// Ids and times of batch `b` are a function of worker and batch, so that the check needs no notes but the numbers.
    async fn push(&self, server: &Server, base: i64, b: u64) -> bool {
        let items = b * BATCH..(b + 1) * BATCH;
        let worker = self.id.to_string();
        let answer = match self.kind {
            Kind::Metrics => {
                // Ten series; sample n of the worker is value n of series n % 10 at base + n ms.
                let all: Vec<_> = (0..10u64)
                    .map(|s| {
                        let samples: Vec<(i64, f64)> = items
                            .clone()
                            .filter(|n| n % 10 == s)
                            .map(|n| (base / 1_000_000 + n as i64, n as f64))
                            .collect();
                        series(
                            &[("__name__", "kill"), ("worker", &worker), ("series", &s.to_string())],
                            &samples,
                        )
                    })
                    .collect();
                server.write(&write_request(all)).await
            }
            Kind::Logs => {
                let lines: Vec<(i64, String)> = items
                    .map(|n| (base + n as i64 * 1000, format!("worker={worker} n={n}")))
                    .collect();
                let entries: Vec<(i64, &str)> = lines.iter().map(|(t, l)| (*t, l.as_str())).collect();
                let labels = format!("{{kill=\"yes\", worker=\"{worker}\"}}");
                server.push(&push_request(vec![stream(&labels, &entries)])).await
            }
            Kind::Traces => {
                let trace = trace_id(self.id, b);
                let spans = items
                    .map(|n| span(trace, n + 1, &n.to_string(), base + n as i64, 1))
                    .collect();
                server.export(&export_request("kill", spans)).await
            }
        };
        matches!(answer, Ok((200 | 204, _)))
    }

    /// Numbers of the items that are in the server, each as often as it is there.
    async fn read(&self, server: &Server, base: i64) -> Vec<u64> {
        let worker = self.id.to_string();
        let batches = self.next.load(Ordering::Relaxed);
        let mut found = Vec::new();
        match self.kind {
            Kind::Metrics => {
                let query = format!("kill{{worker=\"{worker}\"}}[1h]");
                let at = (base / S + 3500) as f64;
                for (_, points) in server.promql(&query, at).await {
                    found.extend(points.iter().map(|(_, v)| *v as u64));
                }
            }
            Kind::Logs => {
                let query = format!("{{kill=\"yes\", worker=\"{worker}\"}}");
                for (_, line) in server.all_lines(&query, base, base + 3600 * S).await {
                    let n = line.rsplit_once('=').and_then(|(_, n)| n.parse().ok());
                    found.push(n.unwrap_or_else(|| panic!("not a line of ours: {line:?}")));
                }
            }
            Kind::Traces => {
                for b in 0..batches {
                    for (_, name) in server.trace_spans(trace_id(self.id, b)).await {
                        found.push(name.parse().unwrap_or_else(|_| panic!("not a span of ours: {name:?}")));
                    }
                }
            }
        }
        found
    }

    async fn check(&self, server: &Server, base: i64) {
        let mut found = self.read(server, base).await;
        found.sort_unstable();
        let twice: Vec<u64> = found.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).collect();
        assert!(
            twice.is_empty(),
            "{:?} worker {}: twice: {:?}",
            self.kind,
            self.id,
            &twice[..twice.len().min(20)]
        );
        let found: BTreeSet<u64> = found.into_iter().collect();
        let acked = self.acked.lock().expect("no panic while held").clone();
        let lost: Vec<u64> = acked
            .iter()
            .flat_map(|b| b * BATCH..(b + 1) * BATCH)
            .filter(|n| !found.contains(n))
            .collect();
        assert!(
            lost.is_empty(),
            "{:?} worker {}: {} lost, first {:?}",
            self.kind,
            self.id,
            lost.len(),
            lost.first()
        );
        // A push is one record: all of it or nothing, also when its answer was lost.
        for b in 0..self.next.load(Ordering::Relaxed) {
            let n = (b * BATCH..(b + 1) * BATCH).filter(|n| found.contains(n)).count() as u64;
            assert!(
                n == 0 || n == BATCH,
                "{:?} worker {}: batch {b} is there by {n} of {BATCH}",
                self.kind,
                self.id
            );
        }
    }
}

fn trace_id(worker: u64, batch: u64) -> u128 {
    (u128::from(worker + 1) << 64) | u128::from(batch + 1)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

async fn kill_loop(options: Options, kills: u64, items: u64, seed: u64) {
    eprintln!("TRILITH_KILL_SEED={seed} ({kills} kills, {items} items per signal)");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let base = (now_ns() / S - 3600) * S;
    // Small heads and short intervals, so that every round cuts, merges and deletes.
    let options = options
        .arg("--head.metrics-size", "256KiB")
        .arg("--head.logs-size", "256KiB")
        .arg("--head.traces-size", "256KiB")
        .arg("--wal.segment-size", "1MiB")
        .arg("--compaction.interval", "100ms")
        .arg("--compaction.delete-grace", "1s");
    let server = Arc::new(RwLock::new(Server::start_with(options).await));
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<Arc<Worker>> = [Kind::Metrics, Kind::Logs, Kind::Traces]
        .into_iter()
        .flat_map(|kind| (0..2).map(move |i| (kind, i)))
        .enumerate()
        .map(|(id, (kind, _))| {
            Arc::new(Worker {
                kind,
                id: id as u64,
                acked: Default::default(),
                next: AtomicU64::new(0),
            })
        })
        .collect();
    let mut tasks = Vec::new();
    for worker in &workers {
        let (worker, server, stop) = (worker.clone(), server.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // A batch whose answer is lost is not sent again: it may be there or not.
                let b = worker.next.fetch_add(1, Ordering::Relaxed);
                let acked = {
                    let server = server.read().await;
                    worker.push(&server, base, b).await
                };
                if acked {
                    worker.acked.lock().expect("no panic while held").insert(b);
                } else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }));
    }
    let flusher = {
        let (server, stop) = (server.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                for listener in ["metrics", "logs", "traces"] {
                    for path in ["/-/flush", "/-/compact"] {
                        let server = server.read().await;
                        let _ = server.post(listener, path, &[], vec![]).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    };

    let acked = |kind: Kind| -> u64 {
        workers
            .iter()
            .filter(|w| w.kind == kind)
            .map(|w| w.acked.lock().expect("no panic while held").len() as u64 * BATCH)
            .sum()
    };
    let enough = || {
        [Kind::Metrics, Kind::Logs, Kind::Traces]
            .into_iter()
            .all(|k| acked(k) >= items)
    };
    let mut done = 0;
    while done < kills || !enough() {
        // Spread the kills over the items.
        let target = items / kills.max(1) * (done + 1).min(kills);
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..400))).await;
        while done < kills
            && [Kind::Metrics, Kind::Logs, Kind::Traces]
                .into_iter()
                .any(|k| acked(k) < target)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if !server.write().await.is_running() {
                break;
            }
        }
        if done >= kills {
            continue;
        }
        // Workers hold the lock for reading during a request; a kill must come in the middle of theirs.
        let pid = { server.read().await.pid() };
        if rng.random_range(0..4) > 0 {
            // SAFETY: plain system call; the child has not been waited for, so the id is still its own.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        } else {
            // Give a crash point some time, then help.
            tokio::time::sleep(Duration::from_millis(300)).await;
            // SAFETY: as above.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        }
        let mut server = server.write().await;
        server.kill();
        done += 1;
        let crash = (done < kills && rng.random_range(0..2) == 0).then(|| {
            let point = CRASH_POINTS[rng.random_range(0..CRASH_POINTS.len())];
            format!("{point}:{}", rng.random_range(1..4))
        });
        server.set_env("TRILITH_CRASH_POINT", crash.as_deref());
        while !server.try_spawn().await {
            // It died at a crash point during replay: go on without one.
            server.set_env("TRILITH_CRASH_POINT", None);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for t in tasks {
        t.await.expect("no worker panics");
    }
    flusher.await.expect("no panic");
    let mut server = server.write().await;
    for phase in ["as it is", "restarted", "flushed and compacted"] {
        match phase {
            "restarted" => {
                server.set_env("TRILITH_CRASH_POINT", None);
                server.kill();
                server.spawn().await;
            }
            "flushed and compacted" => {
                server.flush().await;
                server.compact().await;
            }
            _ => {}
        }
        for worker in &workers {
            worker.check(&server, base).await;
        }
        eprintln!(
            "{phase}: {} samples, {} entries, {} spans acknowledged, all there once",
            acked(Kind::Metrics),
            acked(Kind::Logs),
            acked(Kind::Traces)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled() {
    let seed = setting("TRILITH_KILL_SEED", now_ns() as u64);
    kill_loop(
        Options::default(),
        setting("TRILITH_KILLS", 30),
        setting("TRILITH_KILL_ITEMS", 20_000),
        seed,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_on_s3() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let s3 = S3Server::start(dir.path()).expect("the test server starts");
    let seed = setting("TRILITH_KILL_SEED", now_ns() as u64 ^ 1);
    kill_loop(s3_options(&s3), setting("TRILITH_KILLS_S3", 8), 4_000, seed).await;
}
