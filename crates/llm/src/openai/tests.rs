//! Both directions of the wire form, against bodies as OpenAI and compatible servers send them.

use proptest::prelude::*;
use serde_json::json;
use throughline_trace::Usage;

use super::*;
use crate::chat::{
    ChatRequest, ChatResponse, Choice, Chunk, Delta, ResponseFormat, Tool, ToolCallDelta,
    ToolChoice,
};
use crate::message::{FinishReason, Message, Part, Role, ToolCall};

const REQUEST: &str = r#"{
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "see"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"x\":1}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "a cat"}]}
    ],
    "tools": [{"type": "function", "function": {"name": "look", "description": "looks",
        "parameters": {"type": "object"}, "strict": true}}],
    "tool_choice": {"type": "function", "function": {"name": "look"}},
    "temperature": 0.5, "max_tokens": 64, "stop": "END", "seed": 7,
    "response_format": {"type": "json_object"},
    "stream": true, "stream_options": {"include_usage": true},
    "logit_bias": {"50256": -100}, "user": "u-1"
}"#;

#[test]
fn a_request_is_read_and_written_again() {
    let request = parse_request(REQUEST.as_bytes()).unwrap();
    assert_eq!(request.messages.len(), 4);
    assert_eq!(request.tools[0].name, "look");
    assert!(request.tools[0].is_strict && request.stream && request.is_stream_usage_wanted);
    assert_eq!(request.tool_choice, Some(ToolChoice::Named("look".to_owned())));
    assert_eq!(request.response_format, Some(ResponseFormat::JsonObject));
    assert_eq!(request.stop, ["END"]);
    assert_eq!(request.extra["user"], "u-1");
    let wire = request_to_json(&request);
    assert_eq!(
        wire["messages"][3],
        json!({"role":"tool","tool_call_id":"call_1","content":"a cat"})
    );
    assert_eq!(wire["logit_bias"], json!({"50256": -100}));
    assert_eq!(parse_request(wire.to_string().as_bytes()).unwrap(), request);
}

#[test]
fn reasoning_models_get_their_own_length_field() {
    let field = |model: &str| {
        let wire = request_to_json(&ChatRequest::new(model).max_tokens(9));
        ["max_tokens", "max_completion_tokens"].into_iter().find(|key| wire[*key] == 9).unwrap()
    };
    assert_eq!(field("gpt-4o"), "max_tokens");
    assert_eq!(field("llama-3"), "max_tokens");
    assert_eq!(field("openai/gpt-5-mini"), "max_completion_tokens");
    assert_eq!(field("o3"), "max_completion_tokens");
}

#[test]
fn bad_requests_say_what_is_wrong() {
    let message = |body: &str| parse_request(body.as_bytes()).unwrap_err().to_string();
    insta::assert_snapshot!(message("{"), @"expected a chat completion request as JSON, got something else: EOF while parsing an object at line 1 column 1");
    insta::assert_snapshot!(message(r#"{"messages":[]}"#), @"expected a chat completion request as JSON, got something else: missing field `model` at line 1 column 15");
}

/// What is new in a request keeps nobody from reading the rest of it.
#[test]
fn what_is_not_known_is_kept() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"},{"role":"assistant","tool_calls":[
        {"id":"c","type":"custom","custom":{"name":"sql","input":"SELECT 1"}}]}],
        "tools":[{"type":"custom","custom":{"name":"sql"}},{"type":"function","function":{"name":"f"}},
        {"type":"function"}],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto"}},
        "response_format":{"type":"grammar"},"temperature":1,"temperature":0.5,"user":"a","user":"b"}"#;
    let request = parse_request(body.as_bytes()).unwrap();
    assert_eq!(request.messages[0], Message::user("hi"));
    let called = request.messages[1].tool_calls().next().unwrap();
    assert_eq!((called.name.as_str(), called.arguments.as_str()), ("sql", "SELECT 1"));
    assert_eq!((request.tools.len(), request.tools[0].name.as_str()), (1, "f"));
    assert_eq!((request.temperature, &request.extra["user"]), (Some(0.5), &json!("b")));
    let wire = request_to_json(&request);
    assert_eq!(wire["tool_choice"]["type"], "allowed_tools");
    assert_eq!(wire["response_format"], json!({"type": "grammar"}));
    let kinds = wire["tools"].as_array().unwrap().iter().map(|tool| tool["type"].as_str().unwrap());
    assert_eq!(kinds.collect::<Vec<_>>(), ["function", "custom", "function"]);
    let twice = parse_request_once(body.as_bytes()).unwrap_err().to_string();
    assert!(twice.contains("duplicate field `temperature`"), "{twice}");
}

#[test]
fn an_answer_is_read_with_its_usage() {
    let response = parse_response(
        br#"{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4o-2024-08-06",
        "choices":[{"index":0,"message":{"role":"assistant","content":"hi","refusal":null,"annotations":[]},
        "logprobs":null,"finish_reason":"stop"}],
        "usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,
        "prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},
        "completion_tokens_details":{"reasoning_tokens":2}},"service_tier":"default"}"#,
    )
    .unwrap();
    assert_eq!(response.text(), "hi");
    assert_eq!(response.extra["service_tier"], "default");
    let usage = response.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.cache_read_tokens, usage.reasoning_tokens), (10, 4, 2));
    assert_eq!(usage.total_tokens(), 15);
    let again = parse_response(response_to_json(&response).to_string().as_bytes()).unwrap();
    assert_eq!(again, response);
}

#[test]
fn compatible_servers_differ() {
    let response = parse_response(
        br#"{"choices":[{"message":{"content":null,"reasoning_content":"hm","tool_calls":[
        {"function":{"name":"f","arguments":{"a":1}}}]},"finish_reason":null}],
        "usage":{"prompt_tokens":3,"completion_tokens":null,"prompt_cache_hit_tokens":2},"created":1.5}"#,
    )
    .unwrap();
    let choice = &response.choices[0];
    assert_eq!(choice.finish_reason, FinishReason::Error);
    assert_eq!(choice.message.role, Role::Assistant);
    assert_eq!(choice.message.parts[0], Part::Reasoning("hm".to_owned()));
    assert_eq!(response.tool_calls()[0].arguments, r#"{"a":1}"#);
    assert_eq!(response.usage.unwrap().cache_read_tokens, 2);
}

#[test]
fn errors_are_told_apart_from_garbage() {
    let api = |body: &str| match parse_response(body.as_bytes()) {
        Err(WireError::Api(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let body = r#"{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}"#;
    assert_eq!(api(body), "too long (context_length_exceeded)");
    assert_eq!(api(r#"{"error":"model not found"}"#), "model not found");
    assert!(matches!(parse_response(b"<html>"), Err(WireError::Json { .. })));
    assert!(matches!(parse_chunk(body), Err(WireError::Api(_))));
    assert!(matches!(parse_chunk("garbage \"error\""), Err(WireError::Json { .. })));
    assert_eq!(
        parse_error(b"[{\"error\":{\"code\":429,\"message\":\"quota\"}}]").unwrap().code,
        "429"
    );
    assert_eq!(parse_error(b"{\"detail\":\"no\"}").unwrap().message, "no");
    assert_eq!(parse_error(b"oops"), None);
    let error = parse_error(body.as_bytes()).unwrap();
    assert_eq!(parse_error(error_to_json(&error).to_string().as_bytes()).unwrap(), error);
}

#[test]
fn chunks_go_both_ways() {
    let chunk = Chunk {
        id: "c".to_owned(),
        model: "m".to_owned(),
        created_unix_secs: 5,
        deltas: vec![Delta {
            index: 1,
            role: Some(Role::Assistant),
            text: Some("x".to_owned()),
            reasoning: Some("r".to_owned()),
            refusal: None,
            tool_calls: vec![ToolCallDelta {
                index: Some(2),
                id: Some("id".to_owned()),
                name: Some("f".to_owned()),
                arguments: "{".to_owned(),
            }],
            kept: Vec::new(),
            has_more: false,
            finish_reason: Some(FinishReason::ToolCall),
        }],
        usage: Some(Usage { input_tokens: 1, output_tokens: 2, ..Usage::default() }),
        seq: None,
        extra: json!({"system_fingerprint": "fp"}).as_object().unwrap().clone(),
        has_unread: false,
    };
    let wire = chunk_to_json(&chunk);
    assert_eq!(wire["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(parse_chunk(&wire.to_string()).unwrap(), chunk);
    let last = r#"{"id":"c","choices":[],"usage":{"prompt_tokens":7}}"#;
    assert_eq!(parse_chunk(last).unwrap().usage.unwrap().input_tokens, 7);
    // A model that talks about errors is not one.
    let talk = r#"{"choices":[{"delta":{"content":"\"error\""}}],"error":null}"#;
    assert_eq!(parse_chunk(talk).unwrap().text(), "\"error\"");
}

#[test]
fn thoughts_are_told_by_providers_and_never_sent_back() {
    let message = Message {
        role: Role::Assistant,
        parts: vec![Part::Reasoning("hm".to_owned()), Part::Text("yes".to_owned())],
        name: None,
    };
    let choice = Choice { message: message.clone(), finish_reason: FinishReason::Stop };
    let answer = response_to_json(&ChatResponse { choices: vec![choice], ..Default::default() });
    assert_eq!(answer["choices"][0]["message"]["reasoning_content"], "hm");
    let request = request_to_json(&ChatRequest::new("m").message(message));
    assert_eq!(request["messages"], json!([{"role": "assistant", "content": "yes"}]));
}

#[test]
fn an_error_beside_the_choices_is_an_error() {
    let body = json!({
        "id": "g", "error": {"code": 502, "message": "upstream went away"},
        "choices": [{"index": 0, "delta": {"content": ""}, "message": {"content": "half"},
            "finish_reason": "error"}],
    })
    .to_string();
    for read in [parse_chunk(&body).err(), parse_response(body.as_bytes()).err()] {
        let Some(WireError::Api(error)) = read else { panic!("expected an error, found {read:?}") };
        assert_eq!((error.message.as_str(), error.code.as_str()), ("upstream went away", "502"));
    }
    let fine = r#"{"error": null, "choices": [{"delta": {"content": "fine"}}]}"#;
    assert_eq!(parse_chunk(fine).unwrap().deltas[0].text.as_deref(), Some("fine"));
}

#[test]
fn a_delta_may_be_made_of_parts_and_arguments_of_json() {
    let chunk = json!({"choices": [{"delta": {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "two and two"}]},
            {"type": "text", "text": "fo"}, {"type": "text", "text": "ur"},
        ],
        "reasoning": {"effort": "high"},
        "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": {"n": 1}}}],
    }}]});
    let delta = parse_chunk(&chunk.to_string()).unwrap().deltas.remove(0);
    assert_eq!(delta.text.as_deref(), Some("four"));
    assert_eq!(delta.reasoning.as_deref(), Some("two and two"));
    assert_eq!(delta.tool_calls[0].arguments, r#"{"n":1}"#);
}

/// What nothing is kept of is noticed; content of another kind is content all the same.
#[test]
fn what_is_new_in_a_chunk_is_noticed() {
    let read = |chunk: Value| {
        let chunk = parse_chunk(&chunk.to_string()).unwrap();
        (chunk.has_unread, chunk.deltas.iter().any(|delta| delta.has_more))
    };
    let delta = |delta: Value| read(json!({"choices": [{"index": 0, "delta": delta}]}));
    let (nothing, lost, content) = ((false, false), (true, false), (true, true));
    assert_eq!(delta(json!({"audio": {"data": "AAAA"}})), content);
    assert_eq!(delta(json!({"annotations": [{"type": "url_citation"}]})), content);
    assert_eq!(
        delta(json!({"content": [{"type": "image_url", "image_url": {"url": "x"}}]})),
        content
    );
    assert_eq!(delta(json!({"function_call": {"name": "f"}})), content);
    assert_eq!(delta(json!({"tool_calls": [{"index": 0, "extra_content": {"x": 1}}]})), lost);
    assert_eq!(delta(json!({"token": 5})), lost);
    let empty = json!({"role": "assistant", "content": "", "audio": null, "annotations": [], "x": "", "y": false});
    assert_eq!(delta(empty), nothing);
    let choice = |more: Value| {
        let mut choice =
            json!({"delta": {"content": "a"}, "finish_reason": null, "logprobs": null});
        choice.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read(json!({"choices": [choice]}))
    };
    assert_eq!(choice(json!({"logprobs": {"content": [{"token": "a"}]}})), lost);
    assert_eq!(choice(json!({"content_filter_results": {"hate": {"filtered": false}}})), nothing);
    let said =
        json!({"choices": [], "object": "x", "obfuscation": "xx", "service_tier": "default"});
    let chunk = parse_chunk(&said.to_string()).unwrap();
    assert_eq!(Value::Object(chunk.extra), json!({"service_tier": "default"}));
}

proptest! {
    #[test]
    fn requests_survive_the_wire(
        texts in proptest::collection::vec(("[a-z ]{1,12}", 0usize..4), 0..5),
        temperature in proptest::option::of((0u8..200).prop_map(|hundredths| f64::from(hundredths) / 100.0)),
        max_tokens in proptest::option::of(1u64..100_000),
        tool in proptest::option::of("[a-z_]{1,8}"),
        stream: bool,
    ) {
        let mut request = ChatRequest::new("gpt-4o");
        for (text, kind) in texts {
            let call = ToolCall { id: "c".to_owned(), name: "f".to_owned(), arguments: text.clone() };
            request = request.message(match kind {
                0 => Message::user(text),
                1 => Message::assistant(text),
                2 => Message { role: Role::Assistant, parts: vec![Part::ToolCall(call)], name: None },
                _ => Message::tool_result("c", text),
            });
        }
        request.temperature = temperature;
        request.max_tokens = max_tokens;
        request.stream = stream;
        request.is_stream_usage_wanted = stream;
        request.tools.extend(tool.map(|name| Tool {
            name, description: String::new(), parameters: json!({}), is_strict: false,
        }));
        let wire = request_to_json(&request).to_string();
        prop_assert_eq!(parse_request(wire.as_bytes()).unwrap(), request);
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = parse_request(&bytes);
        let _ = parse_response(&bytes);
        let _ = parse_error(&bytes);
        let _ = parse_chunk(&String::from_utf8_lossy(&bytes));
    }
}
