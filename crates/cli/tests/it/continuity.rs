//! A trace that breaks on its way in is named, and mended when the parent comes late.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use crate::server::{PATIENCE, Server, client, run, until};

/// How often a test looks whether something was judged.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The trace whose header was changed on the way.
const BROKEN: &str = "000000000000000000000000000000b1";

const ROOT: &str = "0000000000000001";
const CALL: &str = "0000000000000002";
const SERVED: &str = "0000000000000003";
const PROXY: &str = "000000000000000f";

/// A span in short: trace, id, parent, name, OTLP kind, start and end in milliseconds.
type Short<'a> = (&'a str, &'a str, &'a str, &'a str, u32, (u64, u64));

async fn send(server: &Server, service: &str, spans: &[Short<'_>]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let at = |ms: u64| (now - 2_000_000_000 + ms * 1_000_000).to_string();
    let spans: Vec<Json> = spans
        .iter()
        .map(|(trace, id, parent, name, kind, (start, end))| {
            json!({
                "traceId": trace, "spanId": id, "parentSpanId": parent, "name": name, "kind": kind,
                "startTimeUnixNano": at(*start), "endTimeUnixNano": at(*end),
            })
        })
        .collect();
    let name = json!([{ "key": "service.name", "value": { "stringValue": service } }]);
    let body = json!({ "resourceSpans": [{
        "resource": { "attributes": name }, "scopeSpans": [{ "spans": spans }],
    }] });
    let sent = client()
        .post(format!("{}/v1/traces", server.http))
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
        .expect("an answer");
    assert_eq!(sent.status(), 200);
}

/// The answer when it is as wanted.
async fn continuity(server: &Server, is_wanted: impl Fn(&Json) -> bool) -> Json {
    let begin = Instant::now();
    loop {
        let found = server.get_json("/api/v1/continuity?since=1h").await;
        if is_wanted(&found) {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "{found:#}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn of<'a>(found: &'a Json, service: &str) -> &'a Json {
    let services = found["services"].as_array().expect("a list");
    services.iter().find(|of| of["service"] == service).unwrap_or(&Json::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_6_a_lost_edge_is_named_and_a_late_parent_mends_it() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("throughline.yaml"), "continuity: { grace_secs: 1 }\n")
        .expect("written");
    let data = dir.path().join("data");
    let server = Server::start(&data);
    for trace in ["000000000000000000000000000000a1", "000000000000000000000000000000a2"] {
        send(&server, "stock", &[(trace, SERVED, CALL, "GET /stock", 2, (20, 60))]).await;
        let shop = [
            (trace, CALL, ROOT, "HTTP GET", 3, (10, 70)),
            (trace, ROOT, "", "POST /order", 2, (0, 100)),
        ];
        send(&server, "shop", &shop).await;
    }
    let well = continuity(&server, |found| of(found, "stock")["waiting"] == 0).await;
    assert_eq!(well["is_well"], true, "{well:#}");
    assert_eq!(
        (&of(&well, "stock")["score"], &of(&well, "shop")["score"]),
        (&1.0.into(), &1.0.into())
    );

    // A proxy that reports nothing, yet, put its own span into the header.
    send(&server, "stock", &[(BROKEN, SERVED, PROXY, "GET /stock", 2, (20, 60))]).await;
    let shop = [
        (BROKEN, CALL, ROOT, "HTTP GET", 3, (10, 70)),
        (BROKEN, ROOT, "", "POST /order", 2, (0, 100)),
    ];
    send(&server, "shop", &shop).await;
    let lost = continuity(&server, |found| of(found, "stock")["orphans"] == 1).await;
    let edge = &lost["suspected_edges"][0];
    assert_eq!(edge["edge"], "shop → stock (GET /stock)", "{lost:#}");
    assert_eq!((&edge["caller"], &edge["kind"]), (&"HTTP GET".into(), &"call".into()));
    assert_eq!(edge["examples"], json!([BROKEN]));
    assert_eq!(lost["is_well"], false);
    let (status, page) = server.get(&format!("/traces/{BROKEN}"), None).await;
    assert_eq!(status, 200);
    assert!(page.contains("1 span lost its parent: probably shop → stock (GET /stock)"), "{page}");
    let (_, page) = server.get("/continuity", None).await;
    assert!(page.contains(&format!("/traces/{BROKEN}")), "{page}");
    let told = run(&data, &["continuity"]).ok();
    assert!(told.contains("lost parent  shop → stock (GET /stock) (1 span)"), "{told}");
    let told: Json =
        serde_json::from_str(&run(&data, &["continuity", "--json"]).ok()).expect("JSON");
    assert_eq!(of(&told, "stock")["orphans"], 1, "{told:#}");

    // It reports after all.
    send(&server, "proxy", &[(BROKEN, PROXY, CALL, "forward", 1, (15, 65))]).await;
    let mended = continuity(&server, |found| of(found, "stock")["mended_late"] == 1).await;
    assert_eq!(mended["is_well"], true, "{mended:#}");
    assert_eq!(of(&mended, "stock")["score"], 1.0);
    let (_, page) = server.get(&format!("/traces/{BROKEN}"), None).await;
    assert!(!page.contains("lost its parent"));
    // Gauges are set once a second.
    let counted = r#"throughline_orphan_spans_total{service="stock"} 1"#;
    let metrics = until(counted, async || {
        let metrics = server.get("/metrics", None).await.1;
        metrics.contains(counted).then_some(metrics)
    });
    let score = r#"throughline_continuity_score{service="stock"}"#;
    assert!(metrics.await.contains(score), "{score}");
}
