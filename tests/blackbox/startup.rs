//! Starts that cannot work say so in one line; starts and stops that can, do.

use std::time::Duration;

use crate::harness::{Options, Server, binary, command, run};

/// Runs a start that must fail and gives its single line.
fn failing(options: Options) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = options.data_dir.clone().unwrap_or_else(|| dir.path().join("data"));
    let (status, out, err) = run(command(&options, &data));
    assert!(!status.success(), "{out}{err}");
    assert_eq!(err.trim_end().lines().count(), 1, "one line: {err}");
    assert!(err.starts_with("trilith: "), "{err}");
    err
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let err = failing(Options::default().arg("--listen.logs", &port));
    assert!(err.contains(&port) && err.contains("listen.logs"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_owns_a_data_directory() {
    let server = Server::start().await;
    let err = failing(Options::default().data_dir(server.data_dir()));
    assert!(err.contains("another process owns the data directory"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_directories_are_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").expect("writable");
    let err = failing(Options::default().data_dir(&file));
    assert!(err.contains("data-dir"), "{err}");
    let url = format!("file://{}", file.join("below").display());
    let err = failing(Options::default().arg("--storage.url", &url));
    assert!(err.contains("storage"), "{err}");
}

#[test]
fn mistakes_in_the_configuration_are_explained() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("trilith.yaml");
    std::fs::write(&file, "listen:\n  metrics: 9090\n  otlp-htp: 1\n").expect("writable");
    let mut check = std::process::Command::new(binary());
    check.arg("check-config").arg(&file);
    let (status, _, err) = run(check);
    assert!(!status.success());
    assert!(
        err.contains("line 3") && err.contains("did you mean \"listen.otlp-http\"?"),
        "{err}"
    );

    std::fs::write(&file, "listen:\n  metrics: 9090\nlimits: {max-sample-age: 7d}\n").expect("writable");
    let mut check = std::process::Command::new(binary());
    check.arg("check-config").arg(&file);
    let (status, out, err) = run(check);
    assert!(status.success(), "{err}");
    assert!(out.contains("valid"), "{out}");
}

#[test]
fn help_and_version() {
    for (flag, want) in [("--help", "Listeners"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let mut command = std::process::Command::new(binary());
        command.arg(flag);
        let (status, out, _) = run(command);
        assert!(status.success() && out.contains(want), "{out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_front_pages() {
    let server = Server::start().await;
    for listener in ["metrics", "logs", "traces", "otlp-http"] {
        for path in ["/ready", "/-/ready", "/-/healthy", "/metrics", "/"] {
            let (status, body) = server.get(listener, path, &[]).await;
            assert_eq!(status, 200, "{listener}{path}");
            assert!(!body.is_empty());
        }
        assert_eq!(server.get(listener, "/no/such/path", &[]).await.0, 404);
    }
    let v = server.json("metrics", "/api/v1/status/buildinfo", &[]).await;
    assert!(v["data"]["version"].is_string());
    let v = server.json("logs", "/loki/api/v1/status/buildinfo", &[]).await;
    assert!(v["version"].is_string());
    let v = server.json("traces", "/api/status/buildinfo", &[]).await;
    assert!(v["version"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_stop_signals_end_cleanly() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut server = Server::start().await;
        server.signal(signal);
        let status = server.wait(Duration::from_secs(10)).await.expect("ends within 10 s");
        assert!(status.success(), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_watches_itself() {
    let server = Server::start_with(Options {
        args: vec!["--log.level".into(), "info".into()],
        ..Options::default()
    })
    .await;
    let mut missing = String::new();
    for _ in 0..300 {
        missing.clear();
        let now = crate::harness::now_ns();
        if server
            .promql("count(trilith_wal_records_total)", crate::harness::now_s() + 1.0)
            .await
            .is_empty()
        {
            missing.push_str(" metrics");
        }
        if server
            .all_lines("{service_name=\"trilith\"}", now - 600_000_000_000, now)
            .await
            .is_empty()
        {
            missing.push_str(" logs");
        }
        let found = server
            .json(
                "traces",
                "/api/search",
                &[("tags", "service.name=trilith"), ("limit", "1")],
            )
            .await;
        if found["traces"].as_array().is_none_or(Vec::is_empty) {
            missing.push_str(" traces");
        }
        if missing.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("within half a minute there are no own{missing}");
}
