//! What every operation of the API keeps: problems, versions of answers, pages.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::{Value as Json, json};
use throughline_trace::access::Scope;

use crate::api::filled;
use crate::{Answer, Site, fixtures, recent_ns};

async fn ask(
    site: &Site,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request =
        Request::builder().method(method).uri(path).header(header::HOST, "localhost:4319");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    site.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn what_goes_wrong_is_a_problem() {
    let site = filled().await;
    let problem = site.get("/api/v1/traces?limit=0").await;
    assert_eq!(problem.header("content-type"), "application/problem+json");
    assert_eq!(problem.header("cache-control"), "private, no-store");
    assert_eq!(
        problem.json(),
        json!({
            "type": "/api/v1/problems#bad_parameter",
            "title": "A parameter cannot be read",
            "status": 400,
            "detail": "parameter `limit`: expected a whole number from 1 to 500, got \"0\"",
            "instance": "/api/v1/traces",
            "code": "bad_parameter",
            "hint": "see /api/v1/openapi.json for all parameters",
        })
    );
    let listed = site.get("/api/v1/problems").await.json();
    let kinds = listed["problems"].as_array().unwrap();
    assert!(kinds.iter().any(|kind| kind["type"] == "/api/v1/problems#bad_parameter"));
}

#[tokio::test]
async fn each_mistake_has_its_status() {
    let site = filled().await;
    let (get, post) = (Method::GET, Method::POST);
    let json_type: &[(&str, &str)] = &[("content-type", "application/json")];
    let order = "/api/v1/audit/erase";
    let large = format!("\"{}\"", "x".repeat(20_000));
    for (method, path, headers, body, status, code) in [
        (&get, "/api/v1/nothing", json_type, "", 404, "not_found"),
        (&get, "/api/v1/traces/%FF", &[][..], "", 400, "bad_parameter"),
        (&get, "/api/v1/traces?agent=%FF", &[], "", 400, "bad_parameter"),
        (&get, "/api/v1/traces?agent=", &[], "", 400, "bad_parameter"),
        (&get, "/api/v1/traces?limit=1&limit=2", &[], "", 400, "bad_parameter"),
        (&get, "/api/v1/stats?x=1", &[], "", 400, "bad_parameter"),
        (&get, "/api/v1/traces?q=(", &[], "", 400, "bad_query"),
        (&get, "/api/v1/stats", &[("accept", "text/html")], "", 406, "not_acceptable"),
        (&Method::DELETE, "/api/v1/traces", &[], "", 405, "method_not_allowed"),
        (&post, "/api/v1/audit/holds/none/release?x=1", &[], "", 400, "bad_parameter"),
        (&post, "/api/v1/audit/holds/none/release", &[], "", 404, "not_found"),
        (&post, order, &[], "{}", 415, "unsupported_media_type"),
        (&post, order, json_type, "{", 400, "bad_request"),
        (&post, order, json_type, "{}", 422, "bad_body"),
        (&post, order, json_type, r#"{"filter":{},"reason":"x"}"#, 400, "bad_request"),
        (&post, order, json_type, r#"{"filter":{"agent":" "},"reason":"x"}"#, 422, "bad_body"),
        (&post, order, json_type, r#"{"filter":{"agent":null},"reason":"x"}"#, 422, "bad_body"),
        (&post, order, json_type, r#"{"filter":{"agent":"x"},"reason":" "}"#, 400, "bad_request"),
        (&post, order, json_type, &large, 413, "too_large"),
        (&post, "/api/v1/decisions", &[], "{}", 415, "unsupported_media_type"),
        (&post, "/api/v1/decisions", json_type, "{", 400, "bad_decision"),
        (&post, "/api/v1/decisions?x=1", json_type, "{}", 400, "bad_parameter"),
    ] {
        let answer = ask(&site, method.clone(), path, headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.body);
        assert_eq!(answer.json()["code"], code, "{method} {path}");
    }
    let wrong = ask(&site, Method::DELETE, "/api/v1/decisions", &[], "").await;
    let mut allowed: Vec<&str> = wrong.header("allow").split(',').map(str::trim).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    let locked = Site::locked();
    let (reader, _) = locked.key(&[Scope::Read]);
    assert_eq!(locked.get("/api/v1/nothing").await.json()["code"], "unauthorized");
    let bearer = format!("Bearer {reader}");
    let forbidden = locked.get_with("/api/v1/audit/reads", &[("authorization", &bearer)]).await;
    assert_eq!(forbidden.json()["code"], "forbidden");
    let elsewhere = Request::get("/api/v1/stats").header("host", "evil.example");
    let elsewhere = site.send(elsewhere.body(Body::empty()).unwrap()).await;
    assert_eq!(elsewhere.status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(elsewhere.json()["code"], "wrong_host");
}

/// What is asked for again and again is sent again only when it changed.
#[tokio::test]
async fn what_did_not_change_is_not_sent_again() {
    let site = filled().await;
    let trace = format!("/api/v1/traces/{:032x}", 0xa1);
    let tree = format!("{trace}/tree");
    for path in [
        trace.as_str(),
        &tree,
        "/api/v1/traces",
        "/api/v1/sessions",
        "/api/v1/users",
        "/api/v1/decisions",
        "/api/v1/logs",
        "/api/v1/metrics",
        "/api/v1/facets",
        "/api/v1/series?since=2026-01-01&until=2026-01-02",
        "/api/v1/openapi.json",
    ] {
        let first = site.get(path).await;
        let tag = first.header("etag").to_owned();
        assert!(tag.starts_with("W/\""), "{path}: {tag:?}");
        assert_eq!(first.header("cache-control"), "private, no-cache", "{path}");
        let again = site.get_with(path, &[("if-none-match", &tag)]).await;
        assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{path}");
        assert_eq!(again.header("etag"), tag, "{path}");
        assert_eq!(again.header("content-type"), "", "{path}");
        assert!(again.header("vary").contains("accept-encoding"), "{path}");
        let other = site.get_with(path, &[("if-none-match", "\"other\"")]).await;
        assert_eq!((other.status, other.body.is_empty()), (StatusCode::OK, false), "{path}");
    }
}

#[tokio::test]
async fn what_changed_has_another_version() {
    let site = filled().await;
    let path = format!("/api/v1/traces/{:032x}", 0xa1);
    let lists = [path.as_str(), "/api/v1/traces", "/api/v1/decisions"];
    let mut tags = Vec::new();
    for path in lists {
        tags.push(site.get(path).await.header("etag").to_owned());
    }
    let decision = json!({
        "decision_id": "00000000-0000-4000-8000-000000000001", "stage": "plan",
        "decision": { "action": "approve" }, "trace_id": format!("{:032x}", 0xa1),
    });
    let media = [("content-type", "application/json")];
    let body = decision.to_string();
    let recorded = ask(&site, Method::POST, "/api/v1/decisions", &media, &body).await;
    assert_eq!(recorded.status, StatusCode::OK);
    for (path, tag) in lists.iter().zip(&mut tags) {
        let changed = site.get_with(path, &[("if-none-match", tag)]).await;
        assert_eq!(changed.status, StatusCode::OK, "{path}");
        changed.header("etag").clone_into(tag);
    }
    let order = json!({
        "filter": { "decision_id": "00000000-0000-4000-8000-000000000001" }, "reason": "asked",
    });
    let erased = ask(&site, Method::POST, "/api/v1/audit/erase", &media, &order.to_string()).await;
    assert_eq!(erased.json()["decisions"], 1);
    for (path, tag) in lists.iter().zip(&tags) {
        let changed = site.get_with(path, &[("if-none-match", tag)]).await;
        assert_eq!(
            changed.status,
            StatusCode::OK,
            "what is erased is not said to be as before: {path}"
        );
        assert!(!changed.body.contains("00000000-0000-4000-8000-000000000001"), "{path}");
    }
}

#[tokio::test]
async fn assets_have_versions_too() {
    let site = Site::open();
    let page = site.get("/traces").await.body;
    let at = page.find("/assets/").unwrap();
    let path = page[at..].split('"').next().unwrap();
    let asset = site.get(path).await;
    assert!(asset.header("cache-control").contains("immutable"));
    let tag = asset.header("etag").to_owned();
    let again = site.get_with(path, &[("if-none-match", &tag)]).await;
    assert_eq!((again.status, again.body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    assert!(again.header("cache-control").contains("immutable"));
}

/// Lists whose items change their places as more comes in.
const OF_ROLLUPS: [&str; 3] = ["/api/v1/agents", "/api/v1/models", "/api/v1/tools"];

/// The items of a list, page after page of one, while something comes in between.
async fn walk(site: &Site, path: &str, inserts: bool) -> Vec<Json> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    for at in 0..100 {
        let page = site.get(&format!("{path}?limit=1{cursor}")).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.body);
        let page = page.json();
        let found = page["items"].as_array().unwrap();
        assert!(found.len() <= 1, "{path}");
        items.extend(found.iter().cloned());
        let Some(next) = page["next"].as_str() else { return items };
        cursor = format!("&cursor={next}");
        if inserts {
            site.commit(fixtures::order(0x1000 + at, recent_ns() + 1_000 * fixtures::MS)).await;
            if OF_ROLLUPS.contains(&path) {
                rolled_up(site).await;
            }
        }
    }
    panic!("{path} does not end");
}

/// Waits until everything that is stored is counted.
async fn rolled_up(site: &Site) {
    let counted = async {
        while site.get("/api/v1/agents").await.json()["coverage"]["whole"] != true {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::LISTEN_LIMIT, counted).await.unwrap();
}

/// What tells items of a list apart, whatever changes about them.
fn names(items: &[Json]) -> Vec<String> {
    let keys = [
        "decision_id",
        "trace_id",
        "time_unix_nano",
        "session",
        "user",
        "name",
        "id",
        "instance_id",
        "first_seq",
        "query",
    ];
    let name = |item: &Json| {
        let values = keys.iter().map(|key| item[*key].to_string());
        values.collect::<Vec<_>>().join(" ")
    };
    items.iter().map(name).collect()
}

#[tokio::test]
async fn every_list_is_paged_by_cursor() {
    let site = filled().await;
    for (trace, user) in [(0xe1, "ada"), (0xe2, "bob"), (0xe3, "cay")] {
        let mut batch = fixtures::fraud(trace, recent_ns());
        batch.spans[0].attributes.set("user.id", user);
        site.commit(batch).await;
    }
    let media = [("content-type", "application/json")];
    // Numbers that are missing are told once they had a minute to arrive.
    let any = site.store.reader().decisions(&Default::default(), None, 1).await.unwrap();
    let numbered = |(instance, seq): (&str, u64)| {
        let mut decision = any.items[0].clone();
        decision.decision_id = throughline_trace::DecisionId::random();
        decision.instance_id = instance.to_owned();
        decision.seq = seq;
        decision.received_at_ns = recent_ns() - 60_000 * fixtures::MS;
        decision
    };
    let decisions = [("a", 3), ("a", 9), ("b", 5)].map(numbered).to_vec();
    site.commit(throughline_trace::SpanBatch { decisions, ..Default::default() }).await;
    for session in ["s-1", "s-2", "s-3"] {
        let order = json!({ "filter": { "session": session }, "reason": "asked" }).to_string();
        let held = ask(&site, Method::POST, "/api/v1/audit/holds", &media, &order).await;
        assert_eq!(held.status, StatusCode::OK, "{}", held.body);
    }
    site.get("/api/v1/decisions?agent=a").await;
    site.get("/api/v1/decisions?agent=b").await;
    site.propose(&["a", "b", "c"]);
    let reads = site.reads.clone();
    tokio::task::spawn_blocking(move || reads.flush()).await.unwrap();
    rolled_up(&site).await;
    let document = site.get("/api/v1/openapi.json").await.json();
    let has_cursor = |operation: &Json| {
        operation["parameters"].as_array().unwrap().iter().any(|of| of["name"] == "cursor")
    };
    let paths = document["paths"].as_object().unwrap().iter();
    let lists: Vec<&String> = paths
        .filter(|(_, methods)| methods.get("get").is_some_and(has_cursor))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(lists.len(), 19, "{lists:?}");
    // A store has its second segment after a day, or 2 GiB: their order has a test of its own. Detectors are
    // walked in `signals.rs`; what rules said last is in no store, and its lists are walked where they are made.
    let others = ["segments", "detectors", "slos", "rollouts", "experiments", "policies"]
        .map(|name| format!("/api/v1/{name}"));
    for path in lists.into_iter().filter(|path| !others.contains(path)) {
        let whole = site.get(&format!("{path}?limit=500")).await.json();
        let whole = names(whole["items"].as_array().unwrap());
        assert!(whole.len() > 1, "{path}: {whole:?}");
        assert_eq!(names(&walk(&site, path, false).await), whole, "{path}");
        let seen = names(&walk(&site, path, true).await);
        let mut once = seen.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), seen.len(), "{path} repeats an item");
        assert!(whole.iter().all(|name| seen.contains(name)), "{path} lost an item: {seen:?}");
        for (query, named) in [
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=x", "limit"),
            ("cursor=garbage", "cursor"),
            ("cursor=zz1abc", "cursor"),
        ] {
            let refused = site.get(&format!("{path}?{query}")).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path}?{query}");
            let detail = refused.json()["detail"].as_str().unwrap().to_owned();
            assert!(
                detail.starts_with(&format!("parameter `{named}`: expected")),
                "{path}?{query}: {detail}"
            );
        }
    }
}
