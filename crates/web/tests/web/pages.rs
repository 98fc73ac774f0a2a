//! What people see.

use axum::http::StatusCode;
use throughline_trace::{Value, keys};

use crate::fixtures;
use crate::{Site, recent_ns};

/// Addresses of everything that a page loads.
fn loads(html: &str) -> Vec<&str> {
    let tags = html.split('<').filter(|tag| tag.starts_with("script") || tag.starts_with("link"));
    tags.filter_map(|tag| {
        let (_, rest) = tag.split_once("src=\"").or_else(|| tag.split_once("href=\""))?;
        rest.split('"').next()
    })
    .collect()
}

async fn filled() -> Site {
    let site = Site::open();
    site.commit(fixtures::fraud(0xa1, recent_ns())).await;
    site.commit(fixtures::order(0xa2, recent_ns() + fixtures::MS)).await;
    site.commit(fixtures::research(0xa3, recent_ns() + 2 * fixtures::MS)).await;
    site.commit(fixtures::triage(0xa4, recent_ns() + 3 * fixtures::MS)).await;
    site.commit(fixtures::broken(0xa5, recent_ns() + 4 * fixtures::MS)).await;
    site.commit(fixtures::metrics(recent_ns())).await;
    site
}

/// Names of the traces of a list page, in order.
fn names(html: &str) -> Vec<&str> {
    html.split("<a class=\"name\"")
        .skip(1)
        .map(|piece| piece.split_once('>').unwrap().1.split('<').next().unwrap())
        .collect()
}

fn trace_path(id: u128) -> String {
    format!("/traces/{id:032x}")
}

#[tokio::test]
async fn an_empty_store_says_how_to_send_data() {
    let site = Site::open();
    for (path, text) in [
        ("/traces", "Waiting for the first trace"),
        ("/decisions", "No decision has been recorded yet"),
        ("/logs", "No log record has arrived yet"),
        ("/series", "No metric has arrived yet"),
        ("/setup", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"),
    ] {
        let page = site.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert!(page.body.contains(text), "{path}");
    }
    assert_eq!(site.get("/").await.header("location"), "/traces");
}

#[tokio::test]
async fn pages_load_their_own_assets_and_nothing_inline() {
    let site = filled().await;
    for path in ["/traces", &trace_path(0xa2), "/decisions", "/logs", "/series", "/setup"] {
        let page = site.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert!(!page.body.contains(" style=\"") && !page.body.contains("<style"), "{path}");
        assert!(!page.body.contains(" onclick=") && !page.body.contains("<script>"), "{path}");
        let assets = loads(&page.body);
        assert!(assets.len() >= 4, "{path}: {assets:?}");
        for asset in assets {
            let answer = site.send(
                axum::http::Request::get(asset)
                    .header("host", "localhost")
                    .body(axum::body::Body::empty())
                    .unwrap(),
            );
            // Fonts are no text; their headers are enough.
            if asset.ends_with(".woff2") {
                continue;
            }
            let answer = answer.await;
            assert_eq!(answer.status, StatusCode::OK, "{path}: {asset}");
            assert!(answer.header("cache-control").contains("immutable"), "{asset}");
        }
    }
    assert_eq!(site.get("/assets/000000000000/app.css").await.header("cache-control"), "no-store");
    assert_eq!(site.get("/assets/000000000000/secret.txt").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_list_is_filtered_by_the_address() {
    let site = filled().await;
    let all = site.get("/traces").await.body;
    assert_eq!(
        names(&all),
        [
            "POST /checkout",
            "invoke_agent triage",
            "invoke_agent researcher",
            "invoke_agent order",
            "invoke_agent fraud"
        ]
    );
    for (query, wanted) in [
        ("agent=fraud", vec!["invoke_agent fraud"]),
        ("error=true", vec!["invoke_agent triage", "invoke_agent order"]),
        ("fallback=degraded", vec!["invoke_agent order"]),
        ("model=med-42", vec!["invoke_agent triage"]),
        ("service=checkout-gateway", vec!["POST /checkout"]),
        ("min_duration=6s", vec!["invoke_agent researcher", "invoke_agent order"]),
        ("max_duration=500ms", vec!["POST /checkout"]),
        ("q=RESEARCH", vec!["invoke_agent researcher"]),
        ("since=15m&agent=order", vec!["invoke_agent order"]),
        ("until=15m", vec![]),
        ("agent=nobody", vec![]),
    ] {
        let page = site.get(&format!("/traces?{query}")).await;
        assert_eq!(page.status, StatusCode::OK, "{query}");
        assert_eq!(names(&page.body), wanted, "{query}");
    }
    let none = site.get("/traces?agent=nobody").await.body;
    assert!(none.contains("No trace fits these filters"));
    let wrong = site.get("/traces?error=perhaps").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.body.contains("parameter `error`: expected true or false"), "{}", wrong.body);
}

#[tokio::test]
async fn older_pages_go_on_where_the_page_ended() {
    let site = filled().await;
    let mut seen: Vec<String> = Vec::new();
    let mut path = "/traces?limit=2".to_owned();
    for _ in 0..3 {
        let page = site.get(&path).await;
        seen.extend(names(&page.body).into_iter().map(str::to_owned));
        let Some((_, rest)) =
            page.body.split_once("<a class=\"btn\" href=\"/traces?limit=2&amp;cursor=")
        else {
            break;
        };
        path = format!("/traces?limit=2&cursor={}", rest.split('"').next().unwrap());
    }
    let all = site.get("/traces").await.body;
    assert_eq!(seen, names(&all));
}

#[tokio::test]
async fn a_trace_shows_its_story() {
    let site = filled().await;
    let page = site.get(&trace_path(0xa2)).await.body;
    for text in [
        "fell back",
        "degraded",
        "TIMEOUT",
        "fallback charge_card",
        "decided: queue_manual_payment",
        "1 log record",
        "6.12 s",
    ] {
        assert!(page.contains(text), "{text}");
    }
    let broken = site.get(&trace_path(0xa5)).await.body;
    for text in ["parent missing", "same id", "cycle", "1 span names a parent that has not arrived"]
    {
        assert!(broken.contains(text), "{text}");
    }
    assert_eq!(site.get(&trace_path(0xdead)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(site.get("/traces/zz").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn long_and_deep_traces_are_given_in_parts() {
    let site = Site::open();
    site.commit(fixtures::wide(0xc1, recent_ns(), 1_000)).await;
    site.commit(fixtures::deep(0xc2, recent_ns(), 60)).await;
    let page = site.get(&trace_path(0xc1)).await.body;
    assert!(page.len() < 400_000, "the page itself stays small: {} bytes", page.len());
    let (_, rest) = page.split_once("data-rows=\"").unwrap();
    let rest = site.get(rest.split('"').next().unwrap()).await.body;
    assert_eq!(span_ids(&page).len() + span_ids(&rest).len(), 1_000);
    let deep = site.get(&trace_path(0xc2)).await.body;
    assert!(deep.contains("60 levels"));
}

/// Ids of the spans of a trace page with their names.
fn span_ids(html: &str) -> Vec<(String, String)> {
    html.split("<a class=\"nm\" href=\"?span=")
        .skip(1)
        .map(|piece| {
            (
                piece[..16].to_owned(),
                piece.split_once('>').unwrap().1.split('<').next().unwrap().to_owned(),
            )
        })
        .collect()
}

#[tokio::test]
async fn every_span_has_details_as_a_fragment_and_by_link() {
    let site = filled().await;
    for trace in [0xa1, 0xa2, 0xa3, 0xa4, 0xa5] {
        let page = site.get(&trace_path(trace)).await.body;
        let spans = span_ids(&page);
        assert!(!spans.is_empty());
        for (id, name) in spans {
            let details = site.get(&format!("{}/spans/{id}", trace_path(trace))).await;
            assert_eq!(details.status, StatusCode::OK, "{name}");
            assert!(!details.body.contains("<html"), "{name}: a fragment");
        }
    }
    let page = site.get(&trace_path(0xa2)).await.body;
    let (id, _) =
        span_ids(&page).into_iter().find(|(_, name)| name == "execute_tool charge_card").unwrap();
    let linked = site.get(&format!("{}?span={id}", trace_path(0xa2))).await.body;
    for text in [
        "view open",
        "charge_card gave no answer within 5000 ms (payments.internal:8443)",
        "src/payments/client.rs:118",
        "&quot;currency&quot;",
        "Arguments",
    ] {
        assert!(linked.contains(text), "{text}");
    }
    let missing = site.get(&format!("{}/spans/00000000000000ff", trace_path(0xa2))).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn model_calls_show_their_conversation_tokens_and_cost() {
    let site = filled().await;
    let page = site.get(&trace_path(0xa1)).await.body;
    let (id, _) = span_ids(&page).into_iter().find(|(_, name)| name == "chat gpt-4o").unwrap();
    let details = site.get(&format!("{}/spans/{id}", trace_path(0xa1))).await.body;
    for text in [
        "You are a fraud analyst",
        "Reasoning",
        "payment_velocity_v2",
        "1,312 in, of them 437 from cache",
        "186 out, of them 46 reasoning",
        "$0.0051",
        "First token",
    ] {
        assert!(details.contains(text), "{text}");
    }
}

#[tokio::test]
async fn what_was_redacted_is_counted_and_marked() {
    let site = Site::open();
    let mut batch = fixtures::fraud(0xa1, recent_ns());
    let span = batch.spans.first_mut().unwrap();
    span.attributes.set(keys::REDACTED, Value::Map(vec![("email".to_owned(), Value::Int(2))]));
    span.attributes.set("note", "write to [email], never to [phone]");
    let span_id = span.span_id;
    site.commit(batch).await;
    let page = site.get(&trace_path(0xa1)).await;
    assert!(page.body.contains("by rule: email 2"), "of the trace");
    let panel = site.get(&format!("{}/spans/{span_id}", trace_path(0xa1))).await;
    assert!(panel.body.contains("2 redacted before it was stored, by rule: email 2."));
    assert!(panel.body.contains(">[email]</mark>") && !panel.body.contains(">[phone]</mark>"));
}

#[tokio::test]
async fn decisions_lead_to_their_span_and_to_each_other() {
    let site = filled().await;
    let list = site.get("/decisions?agent=order").await.body;
    assert_eq!(names(&list), ["queue_manual_payment", "reserve_then_charge"]);
    let sure = site.get("/decisions?agent=order&max_confidence=0.62").await.body;
    assert_eq!(names(&sure), ["queue_manual_payment"]);
    let (_, rest) = list.split_once("data-href=\"").unwrap();
    let page = site.get(rest.split('"').next().unwrap()).await.body;
    assert!(page.contains("How it came to this"));
    assert!(page.contains("reserve_then_charge"), "the decision before it");
    assert!(page.contains(&format!("{}?span=", trace_path(0xa2))), "a link to the span");
}

#[tokio::test]
async fn logs_and_metrics_are_shown() {
    let site = filled().await;
    let logs = site.get("/logs?severity=error").await.body;
    assert!(logs.contains("charge_card timed out after 5000 ms"));
    assert!(!logs.contains("retrying in 250 ms"));
    let list = site.get("/series").await.body;
    assert!(list.contains("gen_ai.client.operation.duration"));
    let spark = site.get("/series/spark?name=queue.depth").await.body;
    assert!(spark.contains("<svg class=\"spark\""), "{spark}");
    let chart = site.get("/series/of/gen_ai.client.operation.duration?measure=p95").await.body;
    assert!(
        chart.contains("<svg class=\"chart\"") && chart.contains("gen_ai.request.model=gpt-4o")
    );
    assert_eq!(site.get("/series/of/nothing").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn hostile_text_stays_text_on_every_page() {
    let site = Site::open();
    site.commit(fixtures::hostile(0xe1, recent_ns())).await;
    let page = site.get(&trace_path(0xe1)).await.body;
    let mut paths: Vec<String> = ["/traces", "/decisions", "/logs"].map(str::to_owned).to_vec();
    paths.push(trace_path(0xe1));
    paths.extend(
        span_ids(&page).into_iter().map(|(id, _)| format!("{}/spans/{id}", trace_path(0xe1))),
    );
    let decisions = site.get("/decisions").await.body;
    paths.push(
        decisions.split_once("data-href=\"").unwrap().1.split('"').next().unwrap().to_owned(),
    );
    paths.push("/traces?agent=%3Cscript%3Ealert(1)%3C/script%3E&q=%22%3E%3Cimg%3E".to_owned());
    paths.push("/nowhere/%3Cscript%3Ealert(1)%3C/script%3E".to_owned());
    for path in paths {
        let body = site.get(&path).await.body;
        assert!(!body.contains("<script>") && !body.contains("<img"), "{path}");
        assert!(!body.contains("\"'><"), "{path}: no attribute is left early");
    }
}

#[tokio::test]
async fn live_rows_come_with_what_is_committed() {
    let site = Site::open();
    let row = format!("t-{:032x}", 0xb2);
    let work = async {
        site.commit(fixtures::fraud(0xb1, recent_ns())).await;
        site.commit(fixtures::order(0xb2, recent_ns())).await;
    };
    let seen = site.listen("/live?kind=traces&agent=order", &row, work).await;
    assert!(seen.contains("event: rows"), "{seen}");
    assert!(!seen.contains(&format!("t-{:032x}", 0xb1)), "the other agent is filtered out");
}

#[tokio::test]
async fn a_theme_that_was_chosen_is_rendered() {
    let site = Site::open();
    let dark = site.get_with("/traces", &[("cookie", "tl_theme=dark")]).await.body;
    assert!(dark.contains("data-theme=\"dark\""));
    let hostile = site.get_with("/traces", &[("cookie", "tl_theme=\"><script>")]).await.body;
    assert!(!hostile.contains("data-theme=\""));
}

#[tokio::test]
async fn long_texts_are_cut_in_lists_and_whole_elsewhere() {
    /// Characters of each long text: a page that held one would be longer than the limit below.
    const CHARS: usize = 300_000;
    /// More than both pages need, bytes.
    const MAX_PAGE_BYTES: usize = 60_000;
    let site = Site::open();
    let mut batch = fixtures::fraud(0xd1, recent_ns());
    let long = |letter: &str| letter.repeat(CHARS);
    let log = &mut batch.logs[0];
    log.body = throughline_trace::Value::from(long("b").as_str());
    log.attributes.set("long", long("v"));
    for n in 0..200 {
        log.attributes.set(format!("key{n}"), "x".repeat(300));
    }
    let decision = &mut batch.decisions[0];
    (decision.reason, decision.action) = (long("r"), long("a"));
    decision.session_id = long("s");
    let decision_id = decision.decision_id;
    site.commit(batch).await;
    let logs = site.get("/logs").await.body;
    assert!(logs.contains("bbb") && logs.contains("vvv"), "the start is shown");
    assert!(logs.len() < MAX_PAGE_BYTES, "{} bytes", logs.len());
    let (rest, _) = logs.split_once("\">All of it").unwrap();
    let whole = rest.rsplit_once("href=\"").unwrap().1.replace("&amp;", "&");
    let whole = site.get(&whole).await.json();
    assert_eq!(whole["items"][0]["body"].as_str().unwrap().len(), CHARS);
    let decisions = site.get("/decisions").await.body;
    assert!(decisions.contains("rrr") && decisions.contains("sss"), "the start is shown");
    assert!(decisions.len() < MAX_PAGE_BYTES, "{} bytes", decisions.len());
    let one = site.get(&format!("/decisions/{decision_id}")).await.body;
    assert!(one.contains(&long("r")));
}

#[tokio::test]
async fn a_trace_that_goes_on_is_shown_as_it_is_now() {
    let site = Site::open();
    let mut batch = fixtures::order(0xd2, recent_ns());
    let late = batch.spans.split_off(4);
    site.commit(batch.clone()).await;
    let shown = || async { span_ids(&site.get(&trace_path(0xd2)).await.body).len() };
    assert_eq!((shown().await, shown().await), (4, 4));
    batch = throughline_trace::SpanBatch { spans: late, ..Default::default() };
    let all = 4 + batch.spans.len();
    site.commit(batch).await;
    assert_eq!((shown().await, shown().await), (all, all));
}

#[tokio::test]
async fn a_wrong_query_is_shown_below_its_box_and_the_page_stays() {
    let site = Site::open();
    site.commit(fixtures::fraud(0xa1, recent_ns())).await;
    let page = site.get("/traces?q=modle%3Agpt-4o").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("did you mean `model`"), "{}", page.body);
    assert!(page.body.contains(r#"value="modle:gpt-4o""#));
    assert!(!page.body.contains("/live?"), "nothing to listen to");
    let page = site.get("/traces?q=agent%3Afraud").await;
    assert!(page.body.contains("invoke_agent fraud") && page.body.contains("/live?"));
    let page = site.get("/traces?q=gen_ai.request.model%3Agpt-4o").await;
    assert!(page.body.contains("invoke_agent fraud"));
    assert!(!page.body.contains("/live?"), "summaries cannot answer it");
}

#[tokio::test]
async fn a_user_has_a_page_and_lists_lead_to_it() {
    let site = Site::open();
    let mut batch = fixtures::fraud(0xa1, recent_ns());
    batch.spans[0].attributes.set("user.id", "ada l");
    site.commit(batch).await;
    let href = "/users/ada%20l";
    for path in ["/users", "/traces", &format!("/traces/{:032x}", 0xa1)] {
        let page = site.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert!(page.body.contains(href), "{path}: {}", page.body);
    }
    let page = site.get(href).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("msg user") && page.body.contains("/sessions/"), "{}", page.body);
    assert_eq!(site.get("/users/nobody").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_session_reads_as_a_conversation() {
    let site = Site::open();
    site.commit(fixtures::fraud(0xa1, recent_ns())).await;
    let sessions = site.get("/api/v1/sessions").await.json();
    let session = sessions["items"][0]["session"].as_str().unwrap().to_owned();
    let list = site.get("/sessions").await;
    assert!(list.body.contains(&format!("/sessions/{session}")), "{}", list.body);
    let page = site.get(&format!("/sessions/{session}")).await;
    assert_eq!(page.status, StatusCode::OK);
    let (question, answer) = (page.body.find("msg user"), page.body.find("msg assistant answer"));
    assert!(question.is_some() && question < answer, "{}", page.body);
    assert_eq!(site.get("/sessions/nobody").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn choosing_an_agent_renews_the_times_and_the_link_of_the_overview() {
    let site = filled().await;
    let page = site.get("/overview?since=1h&agent=fraud-agent").await.body;
    let between = |from: &str, to: &str| {
        let (_, rest) = page.split_once(from).unwrap_or_else(|| panic!("no {from} in {page}"));
        rest.split_once(to).unwrap().0.to_owned()
    };
    // The form swaps the head too, which has all links that keep the agent.
    let swapped = between("hx-select-oob=\"", "\"");
    assert!(swapped.split(',').any(|id| id == "#head"), "{swapped}");
    let head = between("id=\"head\"", "<form");
    assert!(head.contains("agent=fraud-agent") && head.contains("since=7d"), "{head}");
    // The link gives what is drawn.
    let (_, link) = head.split_once("/api/v1/series").unwrap();
    let link = format!("/api/v1/series{}", link.split_once('"').unwrap().0.replace("&amp;", "&"));
    let json = site.get(&link).await.json();
    assert!(
        json["measures"]["fallbacks"].is_string() && json["measures"]["p95"].is_string(),
        "{json}"
    );
}
