//! What programs get.

use axum::http::StatusCode;
use serde_json::Value as Json;

use crate::fixtures;
use crate::{Site, recent_ns};

pub(crate) async fn filled() -> Site {
    let site = Site::open();
    site.commit(fixtures::fraud(0xa1, recent_ns())).await;
    site.commit(fixtures::order(0xa2, recent_ns() + fixtures::MS)).await;
    site.commit(fixtures::metrics(recent_ns())).await;
    site
}

#[tokio::test]
async fn a_trace_is_given_whole() {
    let site = filled().await;
    let trace = site.get(&format!("/api/v1/traces/{:032x}", 0xa1)).await.json();
    assert_eq!(trace["summary"]["span_count"], 11);
    assert_eq!(trace["spans"].as_array().unwrap().len(), 11);
    assert_eq!(trace["decisions"].as_array().unwrap().len(), 2);
    assert_eq!(trace["logs"].as_array().unwrap().len(), 2);
    let call = &trace["spans"][2];
    assert_eq!(call["name"], "chat gpt-4o");
    assert_eq!(call["depth"], 2);
    assert_eq!(call["usage"]["input_tokens"], 1_312);
    assert_eq!(call["attributes"]["gen_ai.input.messages"][0]["role"], "system");
    assert!(call["start_unix_nano"].is_string(), "nanoseconds do not fit numbers of JavaScript");
    let tool =
        trace["spans"].as_array().unwrap().iter().find(|span| span["role"] == "tool").unwrap();
    assert_eq!(tool["attributes"]["gen_ai.tool.call.arguments"]["card"], "c_5512");
}

#[tokio::test]
async fn a_tree_is_given_as_text() {
    let site = filled().await;
    let tree = site.get(&format!("/api/v1/traces/{:032x}/tree", 0xa2)).await;
    assert!(tree.header("content-type").starts_with("text/plain"));
    insta::assert_snapshot!(tree.body, @r"
    invoke_agent order 6.12 s
      order.plan.order 820 ms
        chat gpt-4o-mini 800 ms
      order.act.fulfil 5.27 s
        execute_tool reserve_stock 141 ms
        fallback charge_card 5.10 s
          execute_tool charge_card ! TIMEOUT 5.00 s
          execute_tool queue_manual_payment 84.0 ms
            publish payments.manual 40.0 ms
    ");
}

#[tokio::test]
async fn lists_are_paged_by_cursor() {
    let site = filled().await;
    let first = site.get("/api/v1/decisions?limit=3").await.json();
    assert_eq!(first["items"].as_array().unwrap().len(), 3);
    let next = first["next"].as_str().unwrap();
    let second = site.get(&format!("/api/v1/decisions?limit=3&cursor={next}")).await.json();
    assert_eq!(second["items"].as_array().unwrap().len(), 1);
    assert_eq!(second["next"], Json::Null);
    assert_eq!(first["items"][0]["decision"]["action"], "queue_manual_payment");
}

#[tokio::test]
async fn a_decision_comes_with_what_led_to_it() {
    let site = filled().await;
    let list = site.get("/api/v1/decisions?agent=order").await.json();
    let id = list["items"][0]["decision_id"].as_str().unwrap();
    let one = site.get(&format!("/api/v1/decisions/{id}")).await.json();
    assert_eq!(one["decision"]["stage"], "fallback");
    assert_eq!(one["chain"][0]["decision"]["action"], "reserve_then_charge");
}

#[tokio::test]
async fn logs_metrics_facets_and_stats_are_given() {
    let site = filled().await;
    let logs = site.get("/api/v1/logs?severity=warn").await.json();
    let severities: Vec<&str> = logs["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|log| log["severity"].as_str().unwrap())
        .collect();
    assert_eq!(severities, ["ERROR", "WARN"]);
    let metrics = site.get("/api/v1/metrics").await.json();
    assert_eq!(metrics["items"].as_array().unwrap().len(), 4);
    let one = site.get("/api/v1/metrics/agent_operations_total?since=24h").await.json();
    assert_eq!(one["series"].as_array().unwrap().len(), 3);
    assert_eq!(one["series"][0]["points"].as_array().unwrap().len(), 60);
    let facets = site.get("/api/v1/facets").await.json();
    let agents: Vec<&str> = facets["agents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|facet| facet["value"].as_str().unwrap())
        .collect();
    assert!(agents.contains(&"fraud") && agents.contains(&"order"), "{agents:?}");
    let stats = site.get("/api/v1/stats").await.json();
    assert_eq!(stats["traces"], 2);
    assert_eq!(stats["decisions"], 4);
}

#[tokio::test]
async fn mistakes_are_told_by_name() {
    let site = filled().await;
    let mut told = String::new();
    for path in [
        "/api/v1/traces?limit=0",
        "/api/v1/traces?agnet=fraud",
        "/api/v1/traces?min_duration=long",
        "/api/v1/traces?fallback=maybe",
        "/api/v1/traces?since=yesterday",
        "/api/v1/traces?cursor=garbage",
        "/api/v1/traces/xyz",
        "/api/v1/traces/000000000000000000000000000000ff",
        "/api/v1/decisions?min_confidence=2",
        "/api/v1/decisions/7",
        "/api/v1/logs?severity=loud",
        "/api/v1/metrics/none",
        "/api/v1/live?kind=cats",
        "/api/v1/nothing",
    ] {
        let answer = site.get(path).await;
        let error = &answer.json();
        assert!(error["hint"].is_string(), "{path}");
        told.push_str(&format!(
            "{} {} {}\n",
            answer.status.as_u16(),
            error["code"].as_str().unwrap(),
            error["detail"].as_str().unwrap()
        ));
    }
    insta::assert_snapshot!(told, @r#"
    400 bad_parameter parameter `limit`: expected a whole number from 1 to 500, got "0"
    400 bad_parameter parameter `agnet`: expected one of the known names (agent, cursor, error, fallback, limit, max_duration, min_duration, model, q, service, session, since, until, user), got "fraud"
    400 bad_parameter parameter `min_duration`: expected a duration such as 250ms, 1.5s or 2m, got "long"
    400 bad_parameter parameter `fallback`: expected none, skipped, degraded or failed, got "maybe"
    400 bad_parameter parameter `since`: expected a time such as 15m, 24h, 7d, 2026-01-31T12:00:00Z or Unix nanoseconds, got "yesterday"
    400 bad_parameter parameter `cursor`: expected a cursor as the page before gave it, got "garbage"; start again without one
    400 bad_parameter parameter `trace_id`: expected 32 hexadecimal characters, not all zero, got "xyz"
    404 not_found no trace "000000000000000000000000000000ff" is stored
    400 bad_parameter parameter `min_confidence`: expected a number from 0 to 1, got "2"
    400 bad_parameter parameter `decision_id`: expected a UUID, got "7"
    400 bad_parameter parameter `severity`: expected trace, debug, info, warn, error or fatal, got "loud"
    404 not_found no metric "none" is stored
    400 bad_parameter parameter `kind`: expected traces or decisions, got "cats"
    404 not_found expected a path of the API, got "/api/v1/nothing"
    "#);
    let posted = site.post("/api/v1/traces", "", &[("origin", "http://localhost:4319")]).await;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(posted.json()["code"], "method_not_allowed");
}

#[tokio::test]
async fn live_events_are_given_as_json() {
    let site = Site::open();
    let work = site.commit(fixtures::order(0xb2, recent_ns()));
    let seen = site.listen("/api/v1/live", "metric_count", work).await;
    let data: Vec<Json> = seen
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!(data[0]["traces"][0]["span_count"], 9);
    assert_eq!(data[0]["decisions"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_description_names_every_parameter_that_lists_take() {
    let site = Site::open();
    let document = site.get("/api/v1/openapi.json").await.json();
    let parameters = &document["paths"]["/api/v1/traces"]["get"]["parameters"];
    let in_query = parameters.as_array().unwrap().iter().filter(|of| of["in"] == "query");
    for parameter in in_query {
        let name = parameter["name"].as_str().unwrap();
        let value = match name {
            "error" => "true",
            "fallback" => "none",
            "limit" | "min_duration" | "max_duration" => "5",
            "since" | "until" => "1h",
            "cursor" => continue,
            _ => "x",
        };
        let answer = site.get(&format!("/api/v1/traces?{name}={value}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}");
    }
}

#[tokio::test]
async fn decisions_that_never_arrived_are_told() {
    let site = filled().await;
    let any = site.store.reader().decisions(&Default::default(), None, 1).await.unwrap();
    let numbered = |seq| {
        let mut decision = any.items[0].clone();
        decision.decision_id = throughline_trace::DecisionId::random();
        decision.instance_id = "instance-a".to_owned();
        decision.seq = seq;
        decision.received_at_ns = recent_ns() - 60_000 * fixtures::MS;
        decision
    };
    let decisions = [1, 2, 5].map(numbered).to_vec();
    site.store
        .inbox()
        .commit(throughline_trace::SpanBatch { decisions, ..Default::default() })
        .await
        .unwrap();
    let gaps = site.get("/api/v1/decisions/gaps").await.json();
    assert_eq!(gaps["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&gaps["items"][0]["first_seq"], &gaps["items"][0]["missing"]),
        (&3.into(), &2.into())
    );
    let page = site.get("/decisions").await.body;
    assert!(page.contains("2 decisions") && page.contains("numbers 3 to 4"), "{page}");
}

#[tokio::test]
async fn traces_are_searched_by_query_and_a_wrong_one_is_explained() {
    let site = filled().await;
    let names = |json: &Json| -> Vec<String> {
        let items = json["items"].as_array().unwrap();
        items.iter().map(|item| item["agent"].as_str().unwrap().to_owned()).collect()
    };
    for (query, agents) in [
        ("agent:fraud", &["fraud"][..]),
        ("agent:(fraud OR order) spans>3", &["order", "fraud"]),
        ("-agent:fraud", &["order"]),
        ("tool:reserve_stock duration>5s", &["order"]),
        ("gen_ai.request.model:gpt-4o", &["fraud"]),
        ("span:queue_* OR \"c_5512\"", &["fraud"]),
        ("gen_ai.request.model:none", &[]),
    ] {
        let path = format!("/api/v1/traces?q={}", encoded(query));
        let answer = site.get(&path).await.json();
        assert_eq!(names(&answer), agents, "{query}");
        assert_eq!(answer["search"]["is_complete"], true);
        assert_eq!(answer["search"]["searched_until"], Json::Null);
    }
    let wrong = site.get("/api/v1/traces?q=agent:fraud%20tokens%3Emany").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let error = &wrong.json();
    assert_eq!(error["code"], "bad_query");
    assert_eq!(error["problems"][0]["column"], 20);
    let near = site.get("/api/v1/traces?q=modle:gpt-4o").await.json();
    assert!(near["hint"].as_str().unwrap().contains("did you mean `model`"), "{near}");
    let live = site.get("/api/v1/live?kind=traces&q=user.id:42").await;
    assert_eq!(live.status, StatusCode::BAD_REQUEST, "live events look at summaries only");
}

#[tokio::test]
async fn users_are_listed_with_their_totals() {
    let site = Site::open();
    for (trace, user) in [(0xa1, "ada"), (0xa2, "bob"), (0xa3, "ada")] {
        let mut batch = fixtures::fraud(trace, recent_ns());
        batch.spans[0].attributes.set("user.id", user);
        site.commit(batch).await;
    }
    let users = site.get("/api/v1/users").await.json();
    let names = |users: &Json| -> Vec<(String, u64)> {
        let one = |user: &Json| {
            (user["user"].as_str().unwrap().to_owned(), user["trace_count"].as_u64().unwrap())
        };
        users["items"].as_array().unwrap().iter().map(one).collect()
    };
    let mut all = names(&users);
    all.sort();
    assert_eq!(all, [("ada".to_owned(), 2), ("bob".to_owned(), 1)]);
    assert!(!users["items"][0]["sessions"].as_array().unwrap().is_empty());
    let first = site.get("/api/v1/users?limit=1").await.json();
    let next = format!("/api/v1/users?limit=1&cursor={}", first["next"].as_str().unwrap());
    let second = site.get(&next).await.json();
    assert_ne!(names(&first), names(&second));
    let of_ada = site.get("/api/v1/traces?user=ada").await.json();
    assert_eq!(of_ada["items"].as_array().unwrap().len(), 2);
    assert_eq!(of_ada["items"][0]["users"][0], "ada");
    let asked = site.get("/api/v1/traces?q=user%3Abob").await.json();
    assert_eq!(asked["items"].as_array().unwrap().len(), 1);
    assert_eq!(asked["search"]["is_complete"], true);
}

#[tokio::test]
async fn sessions_are_listed_with_their_totals() {
    let site = filled().await;
    let sessions = site.get("/api/v1/sessions").await.json();
    let items = sessions["items"].as_array().unwrap();
    assert!(!items.is_empty());
    let traces = site.get("/api/v1/traces").await.json();
    for session in items {
        let of_session =
            |trace: &&Json| trace["sessions"].as_array().unwrap().contains(&session["session"]);
        let own: Vec<&Json> =
            traces["items"].as_array().unwrap().iter().filter(of_session).collect();
        assert_eq!(session["trace_count"], own.len());
        let tokens = own.iter().map(|trace| trace["input_tokens"].as_u64().unwrap()).sum::<u64>();
        assert_eq!(session["input_tokens"], tokens);
        let turns = own.iter().map(|trace| trace["llm_calls"].as_u64().unwrap()).sum::<u64>();
        assert_eq!(session["turns"], turns);
    }
    assert_eq!(
        site.get("/api/v1/sessions?agent=nobody").await.json()["items"],
        Json::Array(vec![])
    );
}

/// Percent-encoded, as a query parameter.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
