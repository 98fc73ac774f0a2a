//! Decisions by the API, and the audit log of them (requirement R4.4).

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use throughline_trace::access::Scope;

use crate::{Answer, Site};

const PATH: &str = "/api/v1/decisions";

fn decision(number: u32) -> Value {
    json!({
        "decision_id": format!("00000000-0000-4000-8000-{number:012}"),
        "timestamp_ns": "1764144000000000000",
        "stage": "plan",
        "decision": { "action": "approve", "reason": "small amount", "confidence": 0.9 },
        "agent_id": "fraud",
        "session_id": "s-1",
        "model_version": "v2",
    })
}

async fn post(site: &Site, path: &str, media: &str, body: &str, key: Option<&str>) -> Answer {
    let mut request = Request::post(path)
        .header(header::HOST, "localhost:4319")
        .header(header::CONTENT_TYPE, media);
    if let Some(key) = key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    site.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

async fn send(site: &Site, body: &Value) -> Answer {
    post(site, PATH, "application/json", &body.to_string(), None).await
}

#[tokio::test]
async fn r4_4_decisions_are_recorded_once_and_have_their_place() {
    let site = Site::open();
    let answer = send(&site, &json!([decision(1), decision(2)])).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.json(), json!({ "accepted": 2, "duplicates": 0 }));
    let lines = format!("{}\n\n{}\n", decision(2), decision(3));
    let answer = post(&site, PATH, "application/x-ndjson", &lines, None).await;
    assert_eq!(answer.json(), json!({ "accepted": 1, "duplicates": 1 }));
    let one = send(&site, &decision(3)).await;
    assert_eq!(one.json(), json!({ "accepted": 0, "duplicates": 1 }));
    let list =
        site.get("/api/v1/decisions?model_version=v2&derived=false&agent=fraud").await.json();
    let numbers: Vec<&Value> =
        list["items"].as_array().unwrap().iter().map(|item| &item["chain"]["number"]).collect();
    assert_eq!(numbers, [3, 2, 1]);
    assert_eq!(list["items"][0]["chain"]["link"].as_str().unwrap().len(), 64);
    assert!(list["items"][0]["received_at_ns"].as_str().unwrap().len() > 15);
    let one = site.get("/api/v1/decisions/00000000-0000-4000-8000-000000000002").await.json();
    assert_eq!(one["audit"]["number"], 2);
    assert_eq!(one["audit"]["is_good"], true);
    let page = site.get("/decisions/00000000-0000-4000-8000-000000000002").await;
    assert!(page.body.contains("Chain 2 · verified"), "{}", page.body);
    let status = site.get("/api/v1/audit/verify").await.json();
    assert_eq!(status["head"]["number"], 3);
    assert_eq!(status["last_checkpoint"], Value::Null);
}

#[tokio::test]
async fn r4_4_a_wrong_decision_is_named_and_nothing_is_stored() {
    let site = Site::open();
    let mut wrong = decision(2);
    wrong["decision"]["confidence"] = json!(62);
    wrong["trace_id"] = json!("xyz");
    let answer = send(&site, &json!([decision(1), wrong, 7])).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let error = &answer.json();
    assert_eq!(error["code"], "bad_decision");
    insta::assert_snapshot!(error["detail"].as_str().unwrap(), @r#"decision 1, field `trace_id`: expected 32 hexadecimal characters, not all zeros, got "xyz" (and 2 more)"#);
    assert_eq!(error["problems"].as_array().unwrap().len(), 3);
    assert_eq!(error["problems"][1]["field"], "decision.confidence");
    assert_eq!(error["problems"][2]["index"], 2);
    assert_eq!(site.get("/api/v1/stats").await.json()["decisions"], 0);
    for (media, body, status) in [
        ("text/plain", "{}".to_owned(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", "{".to_owned(), StatusCode::BAD_REQUEST),
        ("application/json", "[]".to_owned(), StatusCode::BAD_REQUEST),
        ("application/x-ndjson", "{}\n{".to_owned(), StatusCode::BAD_REQUEST),
        ("application/json", json!(vec![7; 1_001]).to_string(), StatusCode::BAD_REQUEST),
        ("application/json", " ".repeat(8 * 1024 * 1024 + 1), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let answer = post(&site, PATH, media, &body, None).await;
        assert_eq!(answer.status, status, "{media}: {}", answer.body);
    }
}

#[tokio::test]
async fn r4_4_each_door_has_its_scope() {
    let site = Site::locked();
    let (reader, _) = site.key(&[Scope::Read]);
    let (sender, _) = site.key(&[Scope::Ingest]);
    let (admin, _) = site.key(&[Scope::Admin]);
    let order = json!({ "filter": { "session": "s-1" }, "reason": "asked" }).to_string();
    let body = decision(1).to_string();
    for (path, body, key, status) in [
        (PATH, &body, None, StatusCode::UNAUTHORIZED),
        (PATH, &body, Some(&reader), StatusCode::FORBIDDEN),
        (PATH, &body, Some(&sender), StatusCode::OK),
        ("/api/v1/audit/erase", &order, Some(&reader), StatusCode::FORBIDDEN),
        ("/api/v1/audit/holds", &order, Some(&sender), StatusCode::FORBIDDEN),
        ("/api/v1/audit/holds", &order, Some(&admin), StatusCode::OK),
        ("/api/v1/audit/erase", &order, Some(&admin), StatusCode::CONFLICT),
    ] {
        let answer = post(&site, path, "application/json", body, key.map(String::as_str)).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    let get = async |path: &str, key: &str| {
        site.get_with(path, &[("authorization", &format!("Bearer {key}"))]).await
    };
    assert_eq!(get("/api/v1/audit/reads", &reader).await.status, StatusCode::FORBIDDEN);
    assert_eq!(get("/api/v1/audit/verify", &reader).await.status, StatusCode::OK);
    let holds = get("/api/v1/audit/holds", &admin).await.json();
    let id = holds["items"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/audit/holds/{id}/release");
    assert_eq!(
        post(&site, &path, "application/json", "", Some(&admin)).await.status,
        StatusCode::OK
    );
    let erased = post(&site, "/api/v1/audit/erase", "application/json", &order, Some(&admin)).await;
    assert_eq!(erased.json()["decisions"], 1);
    let gone = get("/api/v1/decisions/00000000-0000-4000-8000-000000000001", &reader).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert!(site.audit.verify(&Default::default()).unwrap().is_good());
}

#[tokio::test]
async fn r4_4_a_page_of_another_site_cannot_record() {
    let site = Site::open();
    let request = Request::post(PATH)
        .header(header::HOST, "localhost:4319")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ORIGIN, "https://evil.example")
        .body(Body::from(decision(1).to_string()))
        .unwrap();
    assert_eq!(site.send(request).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn r4_4_whoever_reads_is_noted() {
    let site = Site::open();
    send(&site, &json!([decision(1), decision(2)])).await;
    for _ in 0..5 {
        site.get("/decisions?agent=fraud").await;
    }
    site.get("/api/v1/decisions?agent=fraud&limit=1").await;
    site.get("/decisions/00000000-0000-4000-8000-000000000002").await;
    site.get("/api/v1/stats").await;
    let reads = site.reads.clone();
    tokio::task::spawn_blocking(move || reads.flush()).await.unwrap();
    let found = site.get("/api/v1/audit/reads").await.json();
    let mut told: Vec<String> = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|read| {
            format!(
                "{} {} {} ×{} rows {}",
                read["who"], read["via"], read["query"], read["times"], read["rows"]
            )
        })
        .collect();
    told.sort();
    insta::assert_snapshot!(told.join("\n"), @r#"
    "local" "api" "/api/v1/decisions agent=fraud limit=1" ×1 rows 1
    "local" "page" "/decisions agent=fraud" ×5 rows 10
    "local" "page" "/decisions/00000000-0000-4000-8000-000000000002" ×1 rows 1
    "#);
}
