//! SQL as programs and people get it.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value as Json, json};

use crate::{Answer, Site, fixtures, recent_ns};

async fn filled() -> Site {
    let site = Site::open();
    site.commit(fixtures::fraud(0xa1, recent_ns())).await;
    site.commit(fixtures::order(0xa2, recent_ns() + fixtures::MS)).await;
    site
}

async fn ask(site: &Site, body: &Json) -> Answer {
    let request = Request::post("/api/v1/sql")
        .header(header::HOST, "localhost:4319")
        .header(header::CONTENT_TYPE, "application/json");
    site.send(request.body(Body::from(body.to_string())).unwrap()).await
}

#[tokio::test]
async fn rows_agree_with_the_rest_of_the_api() {
    let site = filled().await;
    let id = format!("{:032x}", 0xa1);
    let trace = site.get(&format!("/api/v1/traces/{id}")).await.json();
    let text = "SELECT span_id, parent_span_id, name, role, status, service, start_unix_nano,
            end_unix_nano, model, tool, attributes ->> 'gen_ai.usage.input_tokens'
        FROM spans WHERE trace_id = :id";
    let answer = ask(&site, &json!({ "query": text, "parameters": { "id": id } })).await.json();
    assert_eq!(answer["cut"], Json::Null);
    let mut rows = answer["rows"].as_array().unwrap().clone();
    let spans = trace["spans"].as_array().unwrap();
    let mut expected: Vec<Json> = spans
        .iter()
        .map(|span| {
            let is_call = span["role"] == "llm_call";
            let model = if is_call { &span["model"] } else { &Json::Null };
            json!([
                span["span_id"],
                span["parent_span_id"],
                span["name"],
                span["role"],
                span["status"]["code"],
                span["service"],
                span["start_unix_nano"],
                span["end_unix_nano"],
                model,
                span["tool"],
                span["attributes"].get("gen_ai.usage.input_tokens"),
            ])
        })
        .collect();
    for list in [&mut rows, &mut expected] {
        list.sort_by_key(|row| row[0].as_str().unwrap().to_owned());
    }
    assert_eq!(rows, expected);

    let summary = &trace["summary"];
    let text = "SELECT spans, errors, llm_calls, input_tokens, output_tokens, decisions, cost_usd
        FROM traces WHERE trace_id = ?";
    let answer = ask(&site, &json!({ "query": text, "parameters": [id] })).await.json();
    let expected = json!([[
        summary["span_count"],
        summary["error_count"],
        summary["llm_calls"],
        summary["input_tokens"],
        summary["output_tokens"],
        summary["decision_count"],
        summary["cost_usd"],
    ]]);
    assert_eq!(answer["rows"], expected);
    let kinds: Vec<&Json> =
        answer["columns"].as_array().unwrap().iter().map(|column| &column["type"]).collect();
    assert_eq!(kinds[0], "integer");
    assert_eq!(kinds[6], "real");
}

#[tokio::test]
async fn mistakes_are_told_with_their_place() {
    let site = filled().await;
    let whole = ask(&site, &json!({ "query": "SELECT 1", "max_rows": 5.0 })).await;
    assert_eq!(whole.status, StatusCode::OK, "{}", whole.body);
    for (body, status, code, message) in [
        (
            json!({ "query": "SELECT\n nope FROM spans" }),
            400,
            "bad_sql",
            "no such column: nope (line 2, column 2)",
        ),
        (
            json!({ "query": "DROP TABLE spans" }),
            400,
            "sql_not_allowed",
            "expected one SELECT over the documented tables, got DROP",
        ),
        (
            json!({ "query": "SELECT 1", "max_rows": 0 }),
            422,
            "bad_body",
            "field `max_rows`: expected a whole number from 1 to 100000, got 0",
        ),
        (
            json!({ "query": "SELECT 1", "timeout_ms": 60_001 }),
            422,
            "bad_body",
            "field `timeout_ms`: expected a whole number from 1 to 60000, got 60001",
        ),
        (
            json!({ "sql": "SELECT 1" }),
            422,
            "bad_body",
            "field `(body)`: expected only query, parameters, max_rows, timeout_ms, got \"sql\"",
        ),
        (json!({ "query": 1 }), 422, "bad_body", "field `query`: expected a text, got 1"),
        (
            json!({ "query": "SELECT ?", "parameters": [1, 2] }),
            400,
            "bad_parameter",
            "expected 1 parameters, got 2",
        ),
        (
            json!({ "query": "SELECT ?", "parameters": 7 }),
            422,
            "bad_body",
            "field `parameters`: expected a list or an object, got 7",
        ),
        (
            json!({ "query": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n", "timeout_ms": 50 }),
            503,
            "query_timeout",
            "the statement took longer than 50 ms",
        ),
    ] {
        let answer = ask(&site, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
        assert!(answer.body.contains(code), "{}", answer.body);
        let text = serde_json::to_string(message).unwrap();
        assert!(answer.body.contains(&text), "{} in {}", text, answer.body);
    }
    let answer = ask(&site, &json!({ "query": "SELECT\n nope FROM spans" })).await;
    assert!(answer.body.contains(r#"{"column":2,"line":2,"offset":8}"#), "{}", answer.body);
    let long = "x".repeat(2 * 1024 * 1024);
    let answer = ask(&site, &json!({ "query": long })).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.body);
}

#[tokio::test]
async fn reading_decisions_is_noted_with_the_statement() {
    let site = filled().await;
    ask(&site, &json!({ "query": "SELECT count(*) FROM spans" })).await;
    ask(&site, &json!({ "query": "SELECT action\n  FROM decisions" })).await;
    site.get_with("/sql?query=SELECT+stage+FROM+decisions", &[OURS]).await;
    site.reads.flush();
    let noted = site.audit.reads(None, 10).unwrap();
    let told: Vec<_> =
        noted.iter().map(|read| (read.via.as_str(), read.query.as_str(), read.rows > 0)).collect();
    let expected = [
        ("page", "sql SELECT stage FROM decisions", true),
        ("api", "sql SELECT action FROM decisions", true),
    ];
    assert_eq!(told.len(), 2);
    assert!(expected.iter().all(|one| told.contains(one)), "{told:?}");
}

#[tokio::test]
async fn the_page_shows_tables_rows_mistakes_and_files() {
    let site = filled().await;
    let page = site.get("/sql").await;
    assert_eq!(page.status, StatusCode::OK);
    for part in ["To begin with", "<textarea", "llm_calls", "cost_nano_usd", "unix_nano(text)"] {
        assert!(page.body.contains(part), "{part}");
    }
    let path = "/sql?query=SELECT+trace_id,+name,+start_unix_nano+FROM+traces+ORDER+BY+name";
    let page = site.get_with(path, &[OURS]).await;
    let link = format!("href=\"/traces/{:032x}\"", 0xa1);
    for part in [&link, "2 rows", "value=\"csv\"", "value=\"json\"", "<time datetime="] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    let csv = site.get_with(&format!("{path}&form=csv"), &[OURS]).await;
    assert!(csv.header("content-type").starts_with("text/csv"));
    assert!(csv.header("content-disposition").contains("query.csv"));
    assert!(csv.body.starts_with("trace_id,name,start_unix_nano\r\n"), "{}", csv.body);
    assert_eq!(csv.body.lines().count(), 3);
    let file = site.get_with(&format!("{path}&form=json"), &[OURS]).await.json();
    assert_eq!(file["rows"].as_array().unwrap().len(), 2);
    let wrong = site.get_with("/sql?query=SELECT+nope+FROM+spans", &[OURS]).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.body.contains("SELECT nope FROM spans\n       ^"), "{}", wrong.body);
    assert!(wrong.body.contains("SELECT nope FROM spans</textarea>"), "what was typed stays");
    let odd = site.get_with("/sql?query=SELECT+'%3Cscript%3E'", &[OURS]).await;
    assert!(odd.body.contains("&lt;script&gt;") && !odd.body.contains("<script>"));
}

/// What a browser says of a request that our own page makes.
const OURS: (&str, &str) = ("sec-fetch-site", "same-origin");

#[tokio::test]
async fn a_link_on_a_foreign_page_runs_nothing() {
    let site = filled().await;
    let path = "/sql?query=SELECT+name+FROM+traces&form=csv";
    // Browsers say nothing to a host by plain HTTP that is not this machine; another port is the same site.
    let foreign = [None, Some("cross-site"), Some("same-site"), Some("odd")];
    for says in foreign {
        let headers: Vec<_> = says.map(|site| ("sec-fetch-site", site)).into_iter().collect();
        let shown = site.get_with(path, &headers).await;
        assert_eq!(shown.status, StatusCode::OK);
        assert!(shown.body.contains("SELECT name FROM traces</textarea>"), "{}", shown.body);
        assert!(!shown.body.contains("invoke_agent"), "{says:?}");
    }
    let name_and_password = ("authorization", "Basic eDp5");
    let shown = site.get_with(path, &[name_and_password]).await;
    assert!(!shown.body.contains("invoke_agent"), "an address can have them");
    let by_key = ("authorization", "Bearer tl_any");
    for asked in [OURS, ("sec-fetch-site", "none"), by_key] {
        let run = site.get_with(path, &[asked]).await;
        assert!(run.body.contains("invoke_agent"), "{asked:?}: {}", run.body);
    }
}

#[tokio::test]
async fn a_browser_that_says_nothing_sends_the_form() {
    let site = filled().await;
    let page = site.get("/sql?query=SELECT+name+FROM+traces").await;
    assert!(page.body.contains("method=\"post\" action=\"/sql\""), "{}", page.body);
    let by_address = site.get_with("/sql", &[OURS]).await;
    assert!(by_address.body.contains("method=\"get\" action=\"/sql\""), "{}", by_address.body);
    let origin = ("origin", "http://localhost:4319");
    let run = site.post("/sql", "query=SELECT+name+FROM+traces", &[origin]).await;
    assert!(run.body.contains("2 rows") && run.body.contains("invoke_agent"), "{}", run.body);
    let file = site.post("/sql", "query=SELECT+name+FROM+traces&form=csv", &[origin]).await;
    assert!(file.header("content-type").starts_with("text/csv"));
    let foreign = ("origin", "http://elsewhere.example");
    for headers in [vec![], vec![foreign], vec![origin, ("sec-fetch-site", "same-site")]] {
        let refused = site.post("/sql", "query=SELECT+name+FROM+traces", &headers).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{headers:?}");
    }
    let long = format!("query=SELECT+'{}'", "%20".repeat(60_000));
    let run = site.post("/sql", &long, &[origin]).await;
    assert_eq!(run.status, StatusCode::OK, "a long statement fits");
}

#[tokio::test]
async fn a_key_that_may_read_is_needed() {
    let site = Site::locked();
    let answer = ask(&site, &json!({ "query": "SELECT 1" })).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}
