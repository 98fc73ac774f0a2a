//! What foreign instrumentations send, as the API and the pages show it.

use std::path::Path;

use crate::server::{Server, client};

/// A payload that was captured from real instrumentations (`interop/capture/`).
fn captured(name: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ingest/tests/dialects");
    std::fs::read_to_string(fixtures.join(format!("{name}.json"))).expect("the fixture")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_of_two_instrumentations_shows_messages_and_counts_tokens_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("data"));
    for name in ["openinference_nested", "pydantic_logfire", "vercel_ai_6"] {
        let sent = client()
            .post(format!("{}/v1/traces", server.http))
            .header("content-type", "application/json")
            .body(captured(name))
            .send()
            .await
            .expect("an answer");
        assert_eq!(sent.status(), 200, "{name}");
        assert_eq!(sent.text().await.expect("a body"), "{}", "{name}: nothing to complain of");
    }
    let listed = server.get_json("/api/v1/traces?agent=forecaster").await;
    let traces = listed["items"].as_array().expect("a list");
    assert_eq!(traces.len(), 4, "{listed}");
    for trace in traces {
        assert_eq!(trace["llm_calls"], 2, "{trace}");
        assert_eq!((&trace["input_tokens"], &trace["output_tokens"]), (&202.into(), &40.into()));
    }
    let of_session = server.get_json("/api/v1/traces?session=s-42").await;
    assert_eq!(of_session["items"].as_array().expect("a list").len(), 3, "{of_session}");

    let id = traces[0]["trace_id"].as_str().expect("an id");
    let whole = server.get_json(&format!("/api/v1/traces/{id}")).await;
    let spans = whole["spans"].as_array().expect("spans");
    let call = spans.iter().find(|span| span["role"] == "llm_call").expect("a call");
    let asked = &call["attributes"]["gen_ai.input.messages"];
    assert_eq!(asked[0]["role"], "system", "{asked}");
    let span_id = call["span_id"].as_str().expect("an id");
    let (status, page) = server.get(&format!("/traces/{id}/spans/{span_id}"), None).await;
    assert_eq!(status, 200);
    assert!(page.contains("You are a weather assistant."), "the page shows what was said");
    let metrics = server.get("/metrics", None).await.1;
    let counted = r#"throughline_ingest_items_total{item="pending_span",fate="left_out"} 6"#;
    assert!(metrics.contains(counted), "{counted}");
}
