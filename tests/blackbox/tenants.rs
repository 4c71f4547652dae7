//! Tenant isolation.

use crate::harness::{Options, Server, export_request, now_ns, push_request, series, span, stream, write_request};

const S: i64 = 1_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn tenants_see_only_their_own() {
    let mut server = Server::start_with(Options::default().arg("--multi-tenancy", "true")).await;
    let t = now_ns() - 60 * S;
    for (tenant, value) in [("team-a", 1.0), ("team-b", 2.0)] {
        server.tenant = Some(tenant.to_owned());
        let write = write_request(vec![series(
            &[("__name__", "m"), ("tenant", tenant)],
            &[(t / 1_000_000, value)],
        )]);
        assert_eq!(server.write(&write).await.expect("an answer").0, 204);
        let push = push_request(vec![stream(&format!("{{t={tenant:?}}}"), &[(t, tenant)])]);
        assert_eq!(server.push(&push).await.expect("an answer").0, 204);
        // The same trace id in both: still two traces.
        let export = export_request(tenant, vec![span(5, 1, tenant, t, 1)]);
        assert_eq!(server.export(&export).await.expect("an answer").0, 200);
    }
    for flushed in [false, true] {
        if flushed {
            server.tenant = None;
            server.flush().await;
            server.compact().await;
            server.restart().await;
        }
        for tenant in ["team-a", "team-b"] {
            server.tenant = Some(tenant.to_owned());
            let names = server.json("metrics", "/api/v1/label/tenant/values", &[]).await;
            assert_eq!(names["data"], serde_json::json!([tenant]), "flushed {flushed}");
            assert_eq!(server.promql("m", (t / S + 1) as f64).await.len(), 1);
            let lines = server.all_lines("{t=~\".+\"}", t - S, t + S).await;
            assert_eq!(lines.len(), 1);
            assert_eq!(lines[0].1, tenant);
            assert_eq!(
                server.trace_spans(5).await,
                [("AAAAAAAAAAE=".to_owned(), tenant.to_owned())]
            );
        }
        server.tenant = Some("team-c".to_owned());
        assert_eq!(server.promql("m", (t / S + 1) as f64).await.len(), 0);
        assert_eq!(server.get("traces", "/api/traces/5", &[]).await.0, 404);
    }

    // Object paths name the tenant.
    let mut folders = Vec::new();
    walk(server.data_dir(), &mut folders);
    for tenant in ["team-a", "team-b"] {
        for signal in ["metrics", "logs", "traces"] {
            let part = format!("/{tenant}/{signal}/");
            assert!(folders.iter().any(|f| f.contains(&part)), "no object below {part}");
        }
    }
}

fn walk(dir: &std::path::Path, out: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        out.push(path.display().to_string());
        if path.is_dir() {
            walk(&path, out);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_is_required_and_checked_when_on() {
    let mut server = Server::start_with(Options::default().arg("--multi-tenancy", "true")).await;
    let paths = [
        ("metrics", "/api/v1/query?query=1"),
        ("logs", "/loki/api/v1/labels"),
        ("traces", "/api/traces/1"),
    ];
    for (listener, path) in paths {
        let (status, body) = server.get(listener, path, &[]).await;
        assert_eq!(status, 401, "{path}: {body}");
        assert!(body.contains("no org id"), "{path}: {body}");
    }
    server.tenant = Some("bad/tenant".to_owned());
    for (listener, path) in paths {
        let (status, body) = server.get(listener, path, &[]).await;
        assert_eq!(status, 400, "{path}: {body}");
        assert!(body.contains("unsupported character '/'"), "{path}: {body}");
    }
    server.tenant = None;
    let push = push_request(vec![stream(r#"{a="b"}"#, &[(now_ns(), "x")])]);
    assert_eq!(server.push(&push).await.expect("an answer").0, 401);
    let write = write_request(vec![series(&[("__name__", "m")], &[(now_ns() / 1_000_000, 1.0)])]);
    assert_eq!(server.write(&write).await.expect("an answer").0, 401);
    let export = export_request("s", vec![span(1, 1, "x", now_ns(), 1)]);
    assert_eq!(server.export(&export).await.expect("an answer").0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_is_ignored_when_off() {
    let mut server = Server::start().await;
    server.tenant = Some("bad/tenant".to_owned());
    let push = push_request(vec![stream(r#"{a="b"}"#, &[(now_ns() - S, "x")])]);
    assert_eq!(server.push(&push).await.expect("an answer").0, 204);
    server.tenant = Some("other".to_owned());
    assert_eq!(
        server.all_lines("{a=\"b\"}", now_ns() - 60 * S, now_ns()).await.len(),
        1
    );
}
