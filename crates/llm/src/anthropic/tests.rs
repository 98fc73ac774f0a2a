//! Both directions of the wire form, against bodies as Anthropic sends them.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::chat::{ChatRequest, ChatResponse, Choice, Tool, ToolChoice};
use crate::message::{FinishReason, Media, MediaSource, Message, Part, Role, ToolCall};
use crate::openai::WireError;
use crate::samples::{arbitrary_json, events_of, shown, written};
use crate::{Assembler, SseEvent, WireForm};

const REQUEST: &str = r#"{
    "model": "claude-sonnet-4-5", "max_tokens": 1024, "stream": true, "temperature": 0.5,
    "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "see"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}, "title": "y"}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "xxx"},
            {"type": "text", "text": "I look"},
            {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"x": 1}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": true,
             "content": [{"type": "text", "text": "a cat"}]}]}
    ],
    "tools": [
        {"name": "look", "description": "looks", "input_schema": {"type": "object"},
         "cache_control": {"type": "ephemeral"}},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
    "stop_sequences": ["END"], "metadata": {"user_id": "u-1"},
    "thinking": {"type": "enabled", "budget_tokens": 2048}
}"#;

const RESPONSE: &str = r#"{
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "text", "text": "yes", "citations": [{"type": "char_location"}]},
        {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {"x": 1}}],
    "stop_reason": "tool_use", "stop_sequence": null,
    "usage": {"input_tokens": 10, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 1000,
        "output_tokens": 50, "service_tier": "standard"}
}"#;

#[test]
fn a_request_is_read_and_written_again() {
    let request = parse_request(REQUEST.as_bytes()).unwrap();
    insta::assert_snapshot!(shown(&request.messages), @r#"
    system: [Text("be brief")]
    user: [Text("see"), Media(Media { modality: "image", mime_type: Some("image/png"), source: Base64("AAAA") }), Media(Media { modality: "document", mime_type: None, source: Uri("https://x/y.pdf") })]
    assistant: [Reasoning("hm"), Other(Object {"signature": String("c2ln"), "thinking": String("hm"), "type": String("thinking")}), Other(Object {"data": String("xxx"), "type": String("redacted_thinking")}), Text("I look"), ToolCall(ToolCall { id: "toolu_1", name: "look", arguments: "{\"x\":1}" })]
    tool: [ToolResult(ToolResult { id: Some("toolu_1"), result: String("a cat") })]
    "#);
    assert_eq!(request.tools.len(), 1);
    assert_eq!(request.tool_choice, Some(ToolChoice::Required));
    assert_eq!(
        (request.max_tokens, request.stop.as_slice()),
        (Some(1024), ["END".to_owned()].as_slice())
    );
    assert_eq!(request.extra["metadata"], json!({"user_id": "u-1"}));
    // Nothing is lost: marks for the cache, errors of tools, tools of the provider, thoughts. Only
    // a list of one plain text is written as that text, and what a tool said as one text.
    let mut expected: Value = serde_json::from_str(REQUEST).unwrap();
    expected["messages"][2]["content"][0]["content"] = json!("a cat");
    assert_eq!(request_to_json(&request), expected);
}

#[test]
fn our_own_requests_fit_the_form() {
    let call =
        |id: &str| ToolCall { id: id.to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() };
    let asks = Message {
        role: Role::Assistant,
        parts: vec![
            Part::Reasoning("hm".to_owned()),
            Part::ToolCall(call("a")),
            Part::ToolCall(ToolCall { arguments: "{\"x\":".to_owned(), ..call("b") }),
        ],
        name: None,
    };
    let image = Media {
        modality: "image".to_owned(),
        mime_type: None,
        source: MediaSource::Uri("data:image/gif;base64,R0lG".to_owned()),
    };
    let foreign = json!({"type": "reasoning", "id": "rs_1", "encrypted_content": "x"});
    let request = ChatRequest::new("claude-haiku-4-5")
        .system("be brief")
        .user("go")
        .message(asks)
        .message(Message::tool_result("a", json!({"n": 1})))
        .message(Message::tool_result("b", "no"))
        .user("and?")
        .message(Message {
            role: Role::User,
            parts: vec![Part::Media(image), Part::Other(foreign)],
            name: None,
        });
    insta::assert_snapshot!(format!("{:#}", request_to_json(&request)), @r#"
    {
      "max_tokens": 32000,
      "messages": [
        {
          "content": "go",
          "role": "user"
        },
        {
          "content": [
            {
              "id": "a",
              "input": {},
              "name": "f",
              "type": "tool_use"
            },
            {
              "id": "b",
              "input": {
                "INVALID_JSON": "{\"x\":"
              },
              "name": "f",
              "type": "tool_use"
            }
          ],
          "role": "assistant"
        },
        {
          "content": [
            {
              "content": "{\"n\":1}",
              "tool_use_id": "a",
              "type": "tool_result"
            },
            {
              "content": "no",
              "tool_use_id": "b",
              "type": "tool_result"
            },
            {
              "text": "and?",
              "type": "text"
            }
          ],
          "role": "user"
        },
        {
          "content": [
            {
              "source": {
                "data": "R0lG",
                "media_type": "image/gif",
                "type": "base64"
              },
              "type": "image"
            }
          ],
          "role": "user"
        }
      ],
      "model": "claude-haiku-4-5",
      "system": "be brief"
    }
    "#);
}

#[test]
fn a_wrong_request_says_where() {
    let message = |text: &str| parse_request(text.as_bytes()).unwrap_err().to_string();
    insta::assert_snapshot!(message(r#"{"model":"m","messages":[],"tools":[{"description":"x"}]}"#), @r#"expected the name of a tool in `tools[0].name`, got {"description":"x"}"#);
    insta::assert_snapshot!(message(r#"{"model":"m","messages":[],"tool_choice":{"type":"tool"}}"#), @r#"expected auto, none, any or a tool with a name in `tool_choice.type`, got {"type":"tool"}"#);
    insta::assert_snapshot!(message(r#"{"model":"m"}"#), @"expected a request for messages as JSON, got something else: missing field `messages` at line 1 column 13");
}

#[test]
fn an_answer_is_read_and_written_again() {
    let response = parse_response(RESPONSE.as_bytes()).unwrap();
    insta::assert_snapshot!(shown(&[response.choices[0].message.clone()]), @r#"assistant: [Reasoning("hm"), Other(Object {"signature": String("c2ln"), "thinking": String("hm"), "type": String("thinking")}), Text("yes"), ToolCall(ToolCall { id: "toolu_2", name: "look", arguments: "{\"x\":1}" })]"#);
    assert_eq!(response.finish_reason(), Some(&FinishReason::ToolCall));
    assert_eq!(response.extra["usage"]["service_tier"], "standard");
    assert_eq!(response_to_json(&response), serde_json::from_str::<Value>(RESPONSE).unwrap());
}

/// Anthropic counts cached tokens beside the others; ours are parts of the total.
#[test]
fn r3_1_cached_tokens_are_parts_of_the_tokens_in() {
    let usage = parse_response(RESPONSE.as_bytes()).unwrap().usage.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (1_110, 50));
    assert_eq!((usage.cache_read_tokens, usage.cache_write_tokens), (1_000, 100));
}

#[test]
fn errors_are_told() {
    let body = br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let Err(WireError::Api(error)) = parse_response(body) else { panic!("an error") };
    assert_eq!(error.to_string(), "Overloaded (overloaded_error)");
    let wire = error_to_json(&error);
    assert_eq!(wire, serde_json::from_slice::<Value>(body).unwrap());
    assert!(matches!(parse_response(b"{}"), Err(WireError::Json { .. })));
}

const STREAM: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[],"stop_reason":null,"usage":{"input_tokens":10,"cache_read_input_tokens":90,"cache_creation_input_tokens":0,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: ping
data: {"type":"ping"}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hel"}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"lo"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"look","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"x\":"}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"1}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":42}}

event: message_stop
data: {"type":"message_stop"}

"#;

fn assembled(text: &str) -> Result<(Assembler, bool), WireError> {
    crate::samples::assembled(WireForm::Messages, text)
}

#[test]
fn a_stream_is_read() {
    let (answer, is_over) = assembled(STREAM).unwrap();
    assert!(is_over && answer.is_finished());
    let response = answer.response();
    insta::assert_snapshot!(shown(&[response.choices[0].message.clone()]), @r#"assistant: [Reasoning("hm"), Other(Object {"signature": String("c2ln"), "thinking": String("hm"), "type": String("thinking")}), Text("Hello"), ToolCall(ToolCall { id: "toolu_1", name: "look", arguments: "{\"x\":1}" })]"#);
    assert_eq!(response.finish_reason(), Some(&FinishReason::ToolCall));
    let usage = response.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.cache_read_tokens, usage.output_tokens), (100, 90, 42));
}

#[test]
fn a_stream_that_is_cut_off_still_has_its_tokens_in() {
    let (answer, is_over) = assembled(&STREAM[..STREAM.find("event: ping").unwrap()]).unwrap();
    assert!(!is_over && !answer.is_finished());
    assert_eq!(answer.usage().map(|usage| usage.input_tokens), Some(100));
}

#[test]
fn an_error_in_a_stream_is_told() {
    let text = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let Err(WireError::Api(error)) = assembled(text) else { panic!("an error") };
    assert_eq!(error.raw_code(), Some("overloaded_error"));
}

#[test]
fn a_stream_is_written_as_it_was_read() {
    let (mut reader, mut writer, mut text) =
        (StreamReader::new(), StreamWriter::new(), String::new());
    for event in events_of(STREAM) {
        if let Some(chunk) = reader.read(&event).unwrap().chunk {
            text.push_str(&written(&writer.push(&chunk)));
        }
    }
    text.push_str(&written(&writer.finish()));
    let told = |text: &str| -> Vec<String> {
        let names = events_of(text).into_iter().map(|event| event.event);
        names.filter(|name| name != "ping").collect()
    };
    assert_eq!(told(&text), told(STREAM));
    assert_eq!(assembled(&text).unwrap().0.response(), assembled(STREAM).unwrap().0.response());
}

#[test]
fn a_tools_own_list_of_things_with_a_type_is_text() {
    let things = json!([{"type": "order", "id": 1}]);
    let request = ChatRequest::new("m").message(Message::tool_result("a", things.clone()));
    let wire = request_to_json(&request).to_string();
    let text = serde_json::to_string(&things.to_string()).unwrap();
    assert!(wire.contains(&text), "{wire}");
}

proptest! {
    #[test]
    fn requests_survive_the_wire(
        texts in proptest::collection::vec(("[a-z ]{1,12}", 0usize..4), 0..6),
        system in proptest::option::of("[a-z]{1,8}"),
        temperature in proptest::option::of((0u8..100).prop_map(|n| f64::from(n) / 100.0)),
        tool in proptest::option::of("[a-z_]{1,8}"),
        stream: bool,
    ) {
        let mut request = ChatRequest::new("claude-sonnet-4-5");
        request = system.into_iter().fold(request, ChatRequest::system);
        for (text, kind) in texts {
            let call = ToolCall {
                id: "c".to_owned(), name: "f".to_owned(), arguments: json!({"t": text}).to_string(),
            };
            request = request.message(match kind {
                0 => Message::user(text),
                1 => Message::assistant(text),
                2 => Message { role: Role::Assistant, parts: vec![Part::ToolCall(call)], name: None },
                _ => Message::tool_result("c", text),
            });
        }
        request.temperature = temperature;
        request.stream = stream;
        request.tools.extend(tool.map(|name| Tool {
            name, description: String::new(), parameters: json!({}), is_strict: false,
        }));
        let wire = request_to_json(&request);
        let read = parse_request(wire.to_string().as_bytes()).unwrap();
        prop_assert_eq!(request_to_json(&read), wire);
    }

    #[test]
    fn answers_survive_the_wire(text in ".{1,20}", input in 0u64..9_999, read in 0u64..9_999) {
        let message = Message::assistant(text);
        let response = ChatResponse {
            id: "msg_1".to_owned(),
            model: "m".to_owned(),
            choices: vec![Choice { message, finish_reason: FinishReason::Stop }],
            usage: Some(Usage {
                input_tokens: input.saturating_add(read), cache_read_tokens: read, ..Usage::default()
            }),
            ..ChatResponse::default()
        };
        let wire = response_to_json(&response);
        let mut again = parse_response(wire.to_string().as_bytes()).unwrap();
        again.extra.clear();
        prop_assert_eq!(again, response);
    }

    #[test]
    fn no_json_makes_the_readers_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..80), json in arbitrary_json(),
    ) {
        let _ = parse_request(&bytes);
        let _ = parse_response(&bytes);
        let request = json!({"model": "m", "messages": [json], "system": json, "tools": [json],
            "tool_choice": json, "output_config": json});
        if let Ok(request) = parse_request(request.to_string().as_bytes()) {
            let _ = request_to_json(&request);
        }
        let response = json!({"content": [json], "usage": {"input_tokens": json}});
        if let Ok(response) = parse_response(response.to_string().as_bytes()) {
            let _ = response_to_json(&response);
        }
        let mut reader = StreamReader::new();
        for kind in ["message_start", "content_block_start", "content_block_delta",
            "content_block_stop", "message_delta", "error", "new"]
        {
            let mut data = json!({"type": kind, "index": json, "message": json, "delta": json,
                "usage": json, "content_block": json});
            let event = |data: &Value| SseEvent { data: data.to_string(), ..SseEvent::default() };
            let _ = reader.read(&event(&data));
            data["index"] = json!(0);
            let _ = reader.read(&event(&data));
            let _ = reader.read(&event(&json));
        }
    }
}

/// R3.1: what a cache keeps for an hour is a part of what was written, whole and streamed, and goes
/// back as it came.
#[test]
fn r3_1_what_a_cache_keeps_for_an_hour_is_told_apart() {
    let usage = json!({"input_tokens": 10, "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 0, "output_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 70}});
    let body = json!({"content": [], "stop_reason": "end_turn", "usage": usage});
    let response = parse_response(body.to_string().as_bytes()).unwrap();
    let told = response.usage.unwrap();
    assert_eq!((told.input_tokens, told.cache_write_tokens), (110, 100));
    assert_eq!(told.cache_write_1h_tokens, 70);
    assert_eq!(response_to_json(&response)["usage"], usage);
    let translated = ChatResponse { extra: Map::new(), ..response };
    assert_eq!(response_to_json(&translated)["usage"], usage);

    let mut reader = StreamReader::new();
    let start = json!({"type": "message_start", "message": {"usage": usage}});
    let delta = json!({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}});
    let mut read = |data: Value| {
        let event = SseEvent { data: data.to_string(), ..SseEvent::default() };
        reader.read(&event).unwrap().chunk.unwrap().usage.unwrap()
    };
    assert_eq!(read(start).cache_write_1h_tokens, 70);
    let last = read(delta);
    assert_eq!((last.cache_write_1h_tokens, last.output_tokens), (70, 9));
    let without_total = json!({"input_tokens": 10, "output_tokens": 5, "cache_creation":
        {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 70}});
    let body = json!({"content": [], "usage": without_total}).to_string();
    let told = parse_response(body.as_bytes()).unwrap().usage.unwrap();
    assert_eq!((told.input_tokens, told.cache_write_tokens), (110, 100));
}
