//! Contracts of a route: what does not hold is counted, blocked, or repaired by the model itself.

use serde_json::{Value, json};
use throughline_gateway::{
    CacheConfig, ContractConfig, GatewayConfig, OnViolation, Plan, RouteConfig,
};

use crate::house::{Answered, House, before, question, target, with_fallback};
use crate::script::{Answer, Script, error, says, streams, whole};

fn contract(on_violation: &str) -> ContractConfig {
    let contract = json!({
        "response_schema": {
            "type": "object", "required": ["total"], "properties": {"total": {"type": "number"}},
        },
        "rules": ["response.total >= 0.0"],
        "on_violation": on_violation,
    });
    serde_json::from_value(contract).expect("a contract")
}

fn under(contract: ContractConfig, script: &Script) -> GatewayConfig {
    let mut config = before(&script.url);
    config.routes = vec![RouteConfig {
        model: "smart".to_owned(),
        targets: vec![target("one", "gpt-4o")],
        contract: Some(contract),
        ..RouteConfig::default()
    }];
    config
}

/// What the client gets when the model answers so, and the gateway and its provider after that.
async fn asked(on: &str, answers: &[Answer], is_stream: bool) -> (Answered, House, Script) {
    let script = Script::start(answers.to_vec()).await;
    let house = House::open(&under(contract(on), &script)).await;
    let answered = house.post("/v1/chat/completions", &[], &question("smart", is_stream)).await;
    (answered, house, script)
}

fn content(answered: &Answered) -> Value {
    answered.json()["choices"][0]["message"]["content"].clone()
}

#[tokio::test]
async fn a_violation_is_counted_and_told() {
    let (answered, house, _script) = asked("count", &[says("twelve")], false).await;
    assert_eq!(content(&answered), "twelve");
    let metrics = house.metrics();
    let counted = r#"contract_violations_total{route="smart",action="count"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o outcome=ok retry_count=0 status_code=200 routing_strategy=weighted output_tokens=5 !contract.violated
      * route: gpt-4o
      * contract: count
    ");
    let (answered, house, _script) =
        asked("count", &[streams(&["{\"total\":", "-1}"])], true).await;
    assert!(answered.text().ends_with("[DONE]\n\n"));
    let records = house.records().await;
    let reason = &records.decisions.last().expect("a decision").reason;
    assert_eq!(reason, "expected this to hold: response.total >= 0.0");
}

#[tokio::test]
async fn a_violation_is_blocked() {
    let (answered, house, _script) = asked("block", &[says("{\"total\": \"12\"}")], false).await;
    assert_eq!(answered.status, 502);
    assert_eq!(answered.json()["error"]["code"], "contract_violated");
    insta::assert_snapshot!(answered.json()["error"]["message"].as_str().unwrap_or_default(), @r#"the answer breaks the contract of the route: at /total: expected number, got "12"; expected this to hold: response.total >= 0.0: no such overload: >= of string and double"#);
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o outcome=ok retry_count=0 status_code=200 routing_strategy=weighted output_tokens=5 !contract.violated
      * route: gpt-4o
      * contract: block
    ");
    let (answered, ..) = asked("block", &[says("{\"total\": 12}")], false).await;
    assert_eq!((answered.status.as_u16(), content(&answered)), (200, "{\"total\": 12}".into()));
}

#[tokio::test]
async fn a_violation_is_repaired_once() {
    let answers = [says("twelve"), says("{\"total\": 12}")];
    let (answered, house, script) = asked("repair", &answers, false).await;
    assert_eq!(content(&answered), "{\"total\": 12}");
    let messages = script.came()[1].json()["messages"].clone();
    insta::assert_snapshot!(messages[1]["content"].as_str().unwrap_or_default(), @r"
    You answered:

    twelve

    That answer cannot be used: expected JSON and nothing else: expected ident at line 1 column 2. Answer again, with the corrected answer and nothing else.
    ");
    assert_eq!(
        (&messages[0]["content"], messages.as_array().map(Vec::len)),
        (&"hi".into(), Some(2))
    );
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o outcome=ok retry_count=0 status_code=200 routing_strategy=weighted output_tokens=5 !contract.violated
      * route: gpt-4o
      * contract: repair
    chat gpt-4o outcome=ok retry_count=0 status_code=200 routing_strategy=weighted output_tokens=5
      * route: gpt-4o
    ");
    let (answered, house, script) = asked("repair", &[says("twelve")], false).await;
    assert_eq!((answered.status.as_u16(), script.came().len()), (502, 2));
    let metrics = house.metrics();
    for action in ["repair", "block"] {
        let counted = format!("contract_violations_total{{route=\"smart\",action=\"{action}\"}} 1");
        assert!(metrics.contains(&counted), "{metrics}");
    }
}

#[tokio::test]
async fn what_may_be_taken_back_is_streamed_when_it_holds() {
    let answers = [says("twelve"), says("{\"total\": 12}")];
    let (answered, _house, script) = asked("repair", &answers, true).await;
    assert_eq!(answered.header("content-type"), Some("text/event-stream"));
    let text = answered.text();
    assert!(
        text.contains(r#""content":"{\"total\": 12}""#) && text.ends_with("[DONE]\n\n"),
        "{text}"
    );
    assert!(!text.contains("twelve") && script.came()[0].json()["stream"] == false, "{text}");
    let (answered, ..) = asked("block", &[says("twelve")], true).await;
    assert_eq!(answered.status, 502);
}

#[tokio::test]
async fn a_request_that_does_not_hold_reaches_no_provider() {
    let script = Script::start([says("hello")]).await;
    let schema =
        json!({"required": ["temperature"], "properties": {"temperature": {"maximum": 0.5}}});
    let mut contract = ContractConfig {
        request_schema: Some(schema.try_into().expect("a schema")),
        on_violation: OnViolation::Block,
        ..ContractConfig::default()
    };
    let house = House::open(&under(contract.clone(), &script)).await;
    let answered = house.post("/v1/chat/completions", &[], &question("smart", false)).await;
    assert_eq!((answered.status.as_u16(), script.came().len()), (400, 0));
    insta::assert_snapshot!(answered.json()["error"]["message"].as_str().unwrap_or_default(), @r#"the request breaks the contract of the route: at the top: expected the field "temperature", which is missing"#);
    insta::assert_snapshot!(house.tree().await, @r"
    chat smart outcome=policy_rejected type=POLICY_REJECTED ERROR
      * contract: block
    ");
    let warm = question("smart", false).replacen('{', "{\"temperature\":0.1,", 1);
    contract.on_violation = OnViolation::Count;
    let house = House::open(&under(contract, &script)).await;
    assert_eq!(house.post("/v1/chat/completions", &[], &warm).await.status, 200);
    assert_eq!(house.ask("smart").await.status, 200, "counted, and asked nevertheless");
    assert!(house.metrics().contains("action=\"count\"} 1"), "{}", house.metrics());
}

/// A contract with this alone.
fn only(field: &str, what: Value, on_violation: &str) -> ContractConfig {
    let contract = json!({field: what, "on_violation": on_violation});
    serde_json::from_value(contract).expect("a contract")
}

/// Bodies that are JSON, and that no value can hold.
fn unreadable() -> [String; 3] {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    ["1e999", &deep, r#""\ud800""#]
        .map(|more| question("smart", false).replacen('{', &format!("{{\"more\":{more},"), 1))
}

#[tokio::test]
async fn a_request_that_cannot_be_read_does_not_hold() {
    let script = Script::start([says("hello")]).await;
    let schema = only("request_schema", json!({"type": "object"}), "block");
    let house = House::open(&under(schema, &script)).await;
    for body in unreadable() {
        let answered = house.post("/v1/chat/completions", &[], &body).await;
        let error = answered.json()["error"].clone();
        assert_eq!((answered.status.as_u16(), &error["code"]), (400, &"contract_violated".into()));
        assert!(
            error["message"].to_string().contains("expected a body that can be read"),
            "{error}"
        );
    }
    assert_eq!(script.came().len(), 0);
    // Nor is it known what a rule says of it.
    for (rule, status) in [("request != ''", 502)] {
        let house = House::open(&under(only("rules", json!([rule]), "block"), &script)).await;
        for body in unreadable() {
            let answered = house.post("/v1/chat/completions", &[], &body).await;
            assert_eq!(answered.status.as_u16(), status, "{rule}: {body}");
        }
    }
}

#[tokio::test]
async fn an_answer_without_a_choice_does_not_hold() {
    let none = json!({"id": "x", "object": "chat.completion", "model": "gpt-4o", "choices": []});
    let none = whole("200 OK", "", &none.to_string());
    let (answered, ..) = asked("block", &[none], false).await;
    assert_eq!(answered.status, 502, "{}", answered.text());
    assert_eq!(answered.json()["error"]["code"], "contract_violated");
    let numbers = json!({
        "object": "list", "model": "ada", "data": [{"index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    });
    let script = Script::start([whole("200 OK", "", &numbers.to_string())]).await;
    let house = House::open(&under(contract("block"), &script)).await;
    let asked = json!({"model": "smart", "input": "hi"}).to_string();
    assert_eq!(house.post("/v1/embeddings", &[], &asked).await.status, 200);
}

#[tokio::test]
async fn what_does_not_hold_is_neither_kept_nor_given_again() {
    let good = says("{\"total\": 12}");
    let script = Script::start([streams(&["twel", "ve"]), says("eleven"), good]).await;
    let mut config = under(contract("count"), &script);
    config.routes[0].cache = Some(CacheConfig { ttl_secs: 60 });
    let house = House::open(&config).await;
    assert!(house.ask_stream("smart").await.text().contains("ve"));
    config.routes[0].contract = None;
    house.gateway.replace(Plan::of(&config, &|_| None).expect("a plan")).expect("in place");
    assert_eq!(content(&house.ask("smart").await), "eleven", "the stream was not kept");
    assert_eq!(content(&house.ask("smart").await), "eleven");
    assert_eq!(script.came().len(), 2, "what nobody forbids is kept");
    config.routes[0].contract = Some(contract("block"));
    house.gateway.replace(Plan::of(&config, &|_| None).expect("a plan")).expect("in place");
    for _ in 0..2 {
        assert_eq!(content(&house.ask("smart").await), "{\"total\": 12}");
    }
    assert_eq!(script.came().len(), 3, "asked anew once, then kept");
}

#[tokio::test]
async fn a_repair_asks_the_target_that_answered() {
    let dead = Script::start([error("500 Internal Server Error", "", "broken")]).await;
    let other = Script::start([says("twelve"), says("{\"total\": 12}")]).await;
    let mut config = with_fallback(&dead.url, &other.url);
    config.routes[0].contract = Some(contract("repair"));
    let house = House::open(&config).await;
    let answered = house.ask("smart").await;
    assert_eq!(content(&answered), "{\"total\": 12}");
    assert_eq!((dead.came().len(), other.came().len()), (1, 2));
    insta::assert_snapshot!(house.tree().await, @r"
    fallback chat outcome=fallback_degraded decision=triggered branch=degraded result=success
      * fallback: gpt-4o-mini
      attempt chat outcome=error type=SERVER branch=primary name=primary ERROR
        chat gpt-4o outcome=error retry_count=0 status_code=500 type=SERVER give_up=attempts_spent routing_strategy=weighted ERROR
          * route: gpt-4o
          attempt gpt-4o retry_count=0 status_code=500 type=SERVER routing_strategy=weighted ERROR
      attempt chat outcome=ok branch=degraded name=gpt-4o-mini
        chat gpt-4o-mini outcome=ok retry_count=0 status_code=200 output_tokens=5 !contract.violated
          * contract: repair
    chat gpt-4o-mini outcome=ok retry_count=0 status_code=200 output_tokens=5
      * route: gpt-4o-mini
    ");
}

#[tokio::test]
async fn values_are_for_the_client_alone_where_content_is_not_recorded() {
    for on in ["count", "block", "repair"] {
        let script = Script::start([says("{\"total\": \"s3cret\"}")]).await;
        let mut config = under(contract(on), &script);
        config.capture_content = Some(false);
        let house = House::open(&config).await;
        let answered = house.ask("smart").await;
        assert!(answered.text().contains("s3cret"), "{}", answered.text());
        let records = house.records().await;
        let told = format!("{records:?}");
        assert!(told.contains("at /total: expected number, got a string"), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
    for on in ["count", "block"] {
        let script = Script::start([says("hello")]).await;
        let schema = json!({"properties": {"user": {"type": "number"}}});
        let mut config = under(only("request_schema", schema, on), &script);
        config.capture_content = Some(false);
        let house = House::open(&config).await;
        let body = question("smart", false).replacen('{', "{\"user\":\"s3cret\",", 1);
        let answered = house.post("/v1/chat/completions", &[], &body).await;
        assert_eq!(answered.text().contains("s3cret"), on == "block", "{}", answered.text());
        let told = format!("{:?}", house.records().await);
        assert!(told.contains("at /user: expected number, got a string"), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
}

#[tokio::test]
async fn a_completion_that_may_be_taken_back_is_streamed_too() {
    let completion = json!({
        "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-4o",
        "choices": [{"index": 0, "text": "{\"total\": 12}", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    });
    let script = Script::start([whole("200 OK", "", &format!("{completion:#}"))]).await;
    let mut config = under(contract("block"), &script);
    config.routes[0].cache = Some(CacheConfig { ttl_secs: 60 });
    let house = House::open(&config).await;
    let mut asked = json!({"model": "smart", "prompt": "hi", "stream": true});
    for (wants_usage, kept) in [(false, "miss"), (true, "hit")] {
        asked["stream_options"] = json!({"include_usage": wants_usage});
        let answered = house.post("/v1/completions", &[], &asked.to_string()).await;
        assert_eq!(answered.header("content-type"), Some("text/event-stream"));
        assert_eq!(answered.header("x-throughline-cache"), Some(kept));
        let mut expected = completion.clone();
        if !wants_usage {
            expected.as_object_mut().expect("an object").remove("usage");
        }
        assert_eq!(answered.text(), format!("data: {expected}\n\ndata: [DONE]\n\n"));
    }
}

#[tokio::test]
async fn r5_7_whether_an_answer_fits_its_schema_is_on_the_span() {
    let of = async |answer: Answer, is_stream: bool| {
        let (_answered, house, _script) = asked("count", &[answer], is_stream).await;
        let records = house.records().await;
        let call = records.spans.iter().find(|span| span.name == "chat gpt-4o").expect("a call");
        call.attributes.bool("throughline.response.schema_valid")
    };
    assert_eq!(of(says("twelve"), false).await, Some(false));
    assert_eq!(
        of(says("{\"total\": -1}"), false).await,
        Some(true),
        "the rule breaks, not the schema"
    );
    assert_eq!(of(streams(&["{\"total\":", "1}"]), true).await, Some(true));
    let script = Script::start([says("hi")]).await;
    let house = House::open(&before(&script.url)).await;
    house.post("/v1/chat/completions", &[], &question("gpt-4o", false)).await;
    let records = house.records().await;
    assert_eq!(records.spans[0].attributes.bool("throughline.response.schema_valid"), None);
}
