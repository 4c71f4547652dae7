//! The same on S3: blocks in a bucket behind a real S3-protocol server.

use trilith_s3server::S3Server;

use crate::harness::{Options, Server, export_request, now_ns, push_request, series, span, stream, write_request};

const S: i64 = 1_000_000_000;

pub const BUCKET: &str = "blocks";

/// A server process that keeps its blocks in the bucket.
pub fn s3_options(s3: &S3Server) -> Options {
    s3.create_bucket(BUCKET).expect("a bucket is a folder");
    let options = Options::default().arg("--storage.url", &format!("s3://{BUCKET}/prefix"));
    s3.env()
        .into_iter()
        .fold(options, |o, (name, value)| o.env(name, &value))
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_live_in_the_bucket() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let s3 = S3Server::start(dir.path()).expect("the test server starts");
    let mut server = Server::start_with(s3_options(&s3)).await;
    let t = now_ns() - 60 * S;
    for round in 0..6i64 {
        let write = write_request(vec![series(
            &[("__name__", "m")],
            &[(t / 1_000_000 + round, round as f64)],
        )]);
        assert_eq!(server.write(&write).await.expect("an answer").0, 204);
        let line = format!("line {round}");
        let push = push_request(vec![stream(r#"{a="b"}"#, &[(t + round, &line)])]);
        assert_eq!(server.push(&push).await.expect("an answer").0, 204);
        let export = export_request("s", vec![span(5, round as u64 + 1, &line, t, 1)]);
        assert_eq!(server.export(&export).await.expect("an answer").0, 200);
        server.flush().await;
    }
    server.compact().await;
    // A new data directory: everything must come from the bucket.
    let options = s3_options(&s3);
    server.stop().await;
    let mut other = Server::start_with(options).await;
    for restarted in [false, true] {
        if restarted {
            other.restart().await;
        }
        let got = other.promql("m[5m]", (t / S + 60) as f64).await;
        assert_eq!(
            got[0].1.iter().map(|p| p.1).collect::<Vec<_>>(),
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        );
        assert_eq!(other.all_lines("{a=\"b\"}", t, t + S).await.len(), 6);
        assert_eq!(other.trace_spans(5).await.len(), 6);
    }
    // New data of the new writer are not taken for covered by the old one's log position.
    let push = push_request(vec![stream(r#"{a="b"}"#, &[(t + 100, "new writer")])]);
    assert_eq!(other.push(&push).await.expect("an answer").0, 204);
    other.kill();
    other.spawn().await;
    assert_eq!(other.all_lines("{a=\"b\"}", t, t + S).await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let s3 = S3Server::start(dir.path()).expect("the test server starts");
    let mut options = s3_options(&s3);
    for a in &mut options.args {
        if a.starts_with("s3://") {
            *a = "s3://no-such-bucket/x".into();
        }
    }
    let (status, _, err) = crate::harness::run(crate::harness::command(&options, &dir.path().join("data")));
    assert!(!status.success());
    assert_eq!(err.trim_end().lines().count(), 1, "{err}");
    assert!(err.contains("no-such-bucket"), "{err}");
}
