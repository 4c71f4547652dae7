//! Deleting series and snapshots, from outside: through kill -9, restarts, merges.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Options, Server, now_ns, series, write_request};

const ADMIN: &str = "/api/v1/admin/tsdb";

fn allowed() -> Options {
    Options::default().arg("--web.enable-admin-api", "true")
}

async fn admin(server: &Server, what: &str, form: &str) -> (u16, String) {
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let path = format!("{ADMIN}/{what}");
    let answer = server.post("metrics", &path, &headers, form.into()).await;
    answer.expect("an answer")
}

async fn delete(server: &Server, form: &str) {
    assert_eq!(
        admin(server, "delete_series", form).await,
        (204, String::new()),
        "{form}"
    );
}

async fn push(server: &Server, name: &str, job: &str, samples: &[(i64, f64)]) {
    let request = write_request(vec![series(&[("__name__", name), ("job", job)], samples)]);
    assert_eq!(server.write(&request).await.expect("an answer").0, 204);
}

/// (job, samples) of a metric over the last ten minutes.
async fn shown(server: &Server, end_s: i64, name: &str) -> Vec<(Value, Vec<(f64, f64)>)> {
    let time = end_s.to_string();
    let query = format!("{name}[10m]");
    let v = server
        .json("metrics", "/api/v1/query", &[("query", &query), ("time", &time)])
        .await;
    crate::harness::series_of(&v)
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_series_stay_away() {
    let mut server = Server::start_with(allowed()).await;
    let end = now_ns() / 1_000_000_000;
    let at = |ago: i64| (end - ago) * 1000;
    push(&server, "m", "a", &[(at(300), 1.0), (at(200), 2.0)]).await;
    push(&server, "m", "b", &[(at(300), 3.0)]).await;
    server.flush().await;
    push(&server, "m", "a", &[(at(100), 4.0)]).await;
    push(&server, "m", "c", &[(at(100), 5.0)]).await;

    let form = format!(
        "match[]=m%7Bjob%3D%22a%22%7D&match[]=m%7Bjob%3D~%22c%7Cd%22%7D&start={}&end={}",
        end - 250,
        end
    );
    delete(&server, &form).await;
    let series = |job: &str, samples: &[(i64, f64)]| {
        let samples: Vec<(f64, f64)> = samples.iter().map(|(ago, v)| ((end - ago) as f64, *v)).collect();
        (json!({"__name__": "m", "job": job}), samples)
    };
    let want = vec![series("a", &[(300, 1.0)]), series("b", &[(300, 3.0)])];
    assert_eq!(shown(&server, end, "m").await, want);
    let jobs = server.json("metrics", "/api/v1/label/job/values", &[]).await;
    assert_eq!(jobs["data"], json!(["a", "b"]));

    server.kill();
    server.spawn().await;
    assert_eq!(shown(&server, end, "m").await, want, "after kill -9");

    // Later samples, of the same times too, are not concerned.
    push(&server, "m", "a", &[(at(150), 6.0)]).await;
    push(&server, "m", "c", &[(at(100), 7.0)]).await;
    let want = vec![
        series("a", &[(300, 1.0), (150, 6.0)]),
        series("b", &[(300, 3.0)]),
        series("c", &[(100, 7.0)]),
    ];
    for how in ["head", "flushed", "compacted", "cleaned", "restarted"] {
        match how {
            "flushed" => server.flush().await,
            "compacted" => server.compact().await,
            "cleaned" => assert_eq!(admin(&server, "clean_tombstones", "").await.0, 204),
            "restarted" => server.restart().await,
            _ => {}
        }
        assert_eq!(shown(&server, end, "m").await, want, "{how}");
    }
    delete(&server, "match[]=%7Bjob%3D~%22.%2B%22%7D").await;
    assert_eq!(shown(&server, end, "m").await, []);
    let names = server.json("metrics", "/api/v1/labels", &[]).await;
    assert_eq!(names["data"], json!([]));
    assert_eq!(admin(&server, "clean_tombstones", "").await.0, 204);
    server.restart().await;
    assert_eq!(shown(&server, end, "m").await, []);
}

/// A crash between the cut and the answer leaves all or nothing, and the delete can be repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_a_delete_can_be_repeated() {
    for (point, gone) in [
        ("cut-uploaded", false),
        ("tombstone-committed", true),
        ("tombstones-cleaning", true),
    ] {
        let mut server = Server::start_with(allowed()).await;
        server.set_env("TRILITH_CRASH_POINT", Some(point));
        server.restart().await;
        let end = now_ns() / 1_000_000_000;
        push(&server, "m", "a", &[((end - 10) * 1000, 1.0)]).await;
        push(&server, "m", "b", &[((end - 10) * 1000, 2.0)]).await;
        let form = "match[]=m%7Bjob%3D%22a%22%7D";
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        for what in ["delete_series", "clean_tombstones"] {
            // One of them dies without an answer.
            let path = format!("{ADMIN}/{what}");
            let _ = server.post("metrics", &path, &headers, form.into()).await;
        }
        assert!(
            server.wait(std::time::Duration::from_secs(20)).await.is_some(),
            "{point} is reached"
        );
        server.set_env("TRILITH_CRASH_POINT", None);
        server.spawn().await;
        assert_eq!(
            shown(&server, end, "m").await.len(),
            if gone { 1 } else { 2 },
            "{point}"
        );
        delete(&server, form).await;
        assert_eq!(admin(&server, "clean_tombstones", "").await.0, 204);
        let left = shown(&server, end, "m").await;
        assert_eq!(left.len(), 1, "{point}");
        assert_eq!(left[0].0["job"], "b", "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_restores_to_a_new_server() {
    let server = Server::start_with(allowed()).await;
    let end = now_ns() / 1_000_000_000;
    push(&server, "m", "a", &[((end - 20) * 1000, 1.0)]).await;
    push(&server, "m", "gone", &[((end - 20) * 1000, 1.0)]).await;
    delete(&server, "match[]=m%7Bjob%3D%22gone%22%7D").await;
    push(&server, "m", "b", &[((end - 10) * 1000, 2.0)]).await;
    let mut jobs = Vec::new();
    for form in ["skip_head=true", ""] {
        let (status, body) = admin(&server, "snapshot", form).await;
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        let name = answer["data"]["name"].as_str().expect("a name").to_owned();
        let restored = tempfile::tempdir().expect("a folder");
        let from = server.data_dir().join("blocks/snapshots/anonymous").join(&name);
        copy(&from, &restored.path().join("blocks"));
        let copy = Server::start_with(Options::default().data_dir(restored.path())).await;
        let series = shown(&copy, end, "m").await;
        jobs.push(series.iter().map(|(l, _)| l["job"].clone()).collect::<Vec<_>>());
    }
    assert_eq!(jobs, [vec![json!("a")], vec![json!("a"), json!("b")]]);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("the snapshot is there") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_forbidden_requests_are_refused() {
    let server = Server::start().await;
    for what in ["delete_series", "clean_tombstones", "snapshot"] {
        let (status, body) = admin(&server, what, "match[]=m").await;
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (status, answer),
            (
                500,
                json!({"status": "error", "errorType": "unavailable", "error": "admin APIs disabled"})
            )
        );
    }
    let server = Server::start_with(allowed()).await;
    for (what, form, text) in [
        ("delete_series", "", "no match[] parameter provided"),
        ("delete_series", "match[]=m%7B", "invalid parameter \"match[]\": "),
        ("delete_series", "match[]=m&start=x", "invalid parameter \"start\": "),
        (
            "snapshot",
            "skip_head=maybe",
            "invalid parameter \"skip_head\": unable to parse boolean",
        ),
    ] {
        let (status, body) = admin(&server, what, form).await;
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (status, &answer["errorType"]),
            (400, &json!("bad_data")),
            "{form}: {body}"
        );
        assert!(answer["error"].as_str().is_some_and(|e| e.starts_with(text)), "{body}");
    }
    assert_eq!(
        server.get("metrics", &format!("{ADMIN}/delete_series"), &[]).await.0,
        405
    );
}
