//! What was acknowledged stays: restarts, flush and compaction under queries, a full disk.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::{Options, Server, export_request, now_ns, push_request, series, span, stream, write_request};

const S: i64 = 1_000_000_000;

/// Pushes item `n` of each signal; true when all three were acknowledged.
async fn push_all(server: &Server, base: i64, n: i64) -> bool {
    let write = write_request(vec![series(
        &[("__name__", "item")],
        &[(base / 1_000_000 + n, n as f64)],
    )]);
    let line = format!("item {n}");
    let push = push_request(vec![stream(r#"{app="item"}"#, &[(base + n, line.as_str())])]);
    let export = export_request("item", vec![span(77, n as u64 + 1, &format!("item {n}"), base + n, 1)]);
    let (a, b, c) = tokio::join!(server.write(&write), server.push(&push), server.export(&export));
    let code = |r: Result<(u16, String), reqwest::Error>| r.map(|(s, _)| s).unwrap_or(0);
    (code(a), code(b), code(c)) == (204, 204, 200)
}

/// Items 0..n of each signal are there exactly once.
async fn assert_all(server: &Server, base: i64, n: usize, when: &str) {
    let at = (base / S + 60) as f64;
    let got = server.promql("item[10m]", at).await;
    let values: Vec<f64> = got
        .first()
        .map(|(_, p)| p.iter().map(|(_, v)| *v).collect())
        .unwrap_or_default();
    assert_eq!(values, (0..n).map(|i| i as f64).collect::<Vec<_>>(), "metrics, {when}");
    let lines: Vec<String> = server
        .all_lines("{app=\"item\"}", base, base + S)
        .await
        .into_iter()
        .map(|(_, l)| l)
        .collect();
    assert_eq!(
        lines,
        (0..n).map(|i| format!("item {i}")).collect::<Vec<_>>(),
        "logs, {when}"
    );
    let mut spans = server.trace_spans(77).await;
    spans.sort();
    spans.dedup();
    assert_eq!(spans.len(), n, "traces, {when}");
    assert_eq!(server.trace_spans(77).await.len(), n, "traces twice, {when}");
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_lose_and_repeat_nothing() {
    let mut server = Server::start().await;
    let base = now_ns() - 120 * S;
    let mut n = 0;
    for round in 0..4 {
        for _ in 0..25 {
            assert!(push_all(&server, base, n).await);
            n += 1;
        }
        assert_all(&server, base, n as usize, "before").await;
        if round % 2 == 1 {
            server.flush().await;
            assert_all(&server, base, n as usize, "flushed").await;
        }
        server.restart().await;
        assert_all(&server, base, n as usize, "restarted").await;
    }
    server.flush().await;
    server.compact().await;
    assert_all(&server, base, n as usize, "compacted").await;
    server.restart().await;
    assert_all(&server, base, n as usize, "compacted and restarted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_see_everything_while_blocks_are_cut_and_merged() {
    let server = Arc::new(Server::start().await);
    let base = now_ns() - 120 * S;
    let stop = Arc::new(AtomicBool::new(false));
    let churn = {
        let (server, stop) = (server.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                server.flush().await;
                server.compact().await;
            }
        })
    };
    for n in 0..60 {
        assert!(push_all(&server, base, n).await);
        assert_all(&server, base, n as usize + 1, "during flushes").await;
    }
    stop.store(true, Ordering::Relaxed);
    churn.await.expect("flush and compaction keep working");
}

/// A file system of a few megabytes, unmounted at the end; `None` where mounting is not allowed.
struct SmallDisk(PathBuf, tempfile::TempDir);

impl SmallDisk {
    fn new(megabytes: u32) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("disk");
        std::fs::create_dir(&path).expect("a folder");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&path)
            .output();
        if mounted.is_ok_and(|o| o.status.success()) {
            Some(SmallDisk(path, dir))
        } else {
            None
        }
    }

    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path).expect("a file");
        let chunk = vec![7u8; 1 << 16];
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
        let small = [7u8; 64];
        while std::io::Write::write_all(&mut file, &small).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        let _ = &self.1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_pushes_and_recovers_by_itself() {
    let Some(disk) = SmallDisk::new(24) else {
        eprintln!("skipped: mounting a small file system is not allowed here");
        return;
    };
    let data: &Path = &disk.0.join("data");
    let mut server = Server::start_with(Options::default().data_dir(data)).await;
    let base = now_ns() - 120 * S;
    let mut n = 0;
    while n < 20 {
        assert!(push_all(&server, base, n).await);
        n += 1;
    }
    let ballast = disk.fill();

    // A large push cannot fit any more: 503, and nothing of it remains.
    let big: Vec<(i64, String)> = (0..4000).map(|i| (base + S / 2 + i, noise(i as u64))).collect();
    let entries: Vec<(i64, &str)> = big.iter().map(|(t, l)| (*t, l.as_str())).collect();
    let big = push_request(vec![stream(r#"{app="big"}"#, &entries)]);
    let (status, body) = server.push(&big).await.expect("an answer");
    assert_eq!(status, 503, "{body}");
    assert!(
        body.to_lowercase().contains("full") || body.to_lowercase().contains("space"),
        "{body}"
    );
    let write = write_request(vec![series(&[("__name__", "refused")], &[(base / 1_000_000, 1.0)])]);
    let (status, body) = server.write(&write).await.expect("an answer");
    // The record is small; it may still have fitted into the last page of the segment.
    assert!(status == 503 || status == 204, "{status} {body}");
    assert_all(&server, base, n as usize, "while full").await;

    std::fs::remove_file(ballast).expect("the ballast goes");
    let mut recovered = false;
    for _ in 0..100 {
        if server.push(&big).await.is_ok_and(|(s, _)| s == 204) {
            recovered = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(recovered, "pushes are taken again when there is space");
    for _ in 0..20 {
        assert!(push_all(&server, base, n).await);
        n += 1;
    }
    server.kill();
    server.spawn().await;
    assert_all(&server, base, n as usize, "after full disk and kill").await;
    assert_eq!(
        server.all_lines("{app=\"big\"}", base, base + S).await.len(),
        4000,
        "exactly once"
    );
}

/// About a kilobyte that does not compress.
fn noise(seed: u64) -> String {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..256)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            format!("{:04x}", x as u16)
        })
        .collect()
}
