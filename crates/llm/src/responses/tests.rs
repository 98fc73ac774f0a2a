//! Both directions of the wire form, against bodies as OpenAI sends them.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::chat::{ChatRequest, ResponseFormat, Tool, ToolChoice};
use crate::message::{FinishReason, Message, Part, Role, ToolCall};
use crate::openai::WireError;
use crate::samples::{arbitrary_json, events_of, shown, written};
use crate::{Assembler, SseEvent, WireForm};

const REQUEST: &str = r#"{
    "model": "gpt-5.1", "instructions": "be brief", "previous_response_id": "resp_0",
    "max_output_tokens": 500, "stream": true, "store": false,
    "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low"},
    "input": [
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "see"},
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]},
        {"type": "reasoning", "id": "rs_1", "encrypted_content": "xyz",
         "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{\"x\":1}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "a cat"},
        {"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": "a cat", "annotations": []}]},
        {"type": "message", "role": "user", "content": "sure?"}
    ],
    "tools": [
        {"type": "function", "name": "look", "description": "looks", "parameters": {"type": "object"},
         "strict": true},
        {"type": "web_search"}],
    "tool_choice": {"type": "function", "name": "look"},
    "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": true},
        "verbosity": "low"}
}"#;

const RESPONSE: &str = r#"{
    "id": "resp_1", "object": "response", "created_at": 1741476542, "status": "completed",
    "error": null, "incomplete_details": null, "model": "gpt-5.1-2025-11-13",
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
         "content": [{"type": "output_text", "text": "yes", "annotations": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look",
         "arguments": "{}", "status": "completed"}],
    "usage": {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 40},
        "output_tokens": 50, "output_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 150},
    "service_tier": "default"
}"#;

#[test]
fn a_request_is_read_and_written_again() {
    let request = parse_request(REQUEST.as_bytes()).unwrap();
    insta::assert_snapshot!(shown(&request.messages), @r#"
    system: [Text("be brief")]
    user: [Text("see"), Media(Media { modality: "image", mime_type: Some("image/png"), source: Base64("AAAA") })]
    assistant: [Reasoning("hm"), Other(Object {"encrypted_content": String("xyz"), "id": String("rs_1"), "summary": Array [Object {"text": String("hm"), "type": String("summary_text")}], "type": String("reasoning")}), ToolCall(ToolCall { id: "call_1", name: "look", arguments: "{\"x\":1}" })]
    tool: [ToolResult(ToolResult { id: Some("call_1"), result: String("a cat") })]
    assistant: [Text("a cat")]
    user: [Text("sure?")]
    "#);
    assert_eq!(request.tool_choice, Some(ToolChoice::Named("look".to_owned())));
    assert!(matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. })));
    assert_eq!(request.extra[PREVIOUS_RESPONSE_ID], "resp_0");
    assert_eq!(request_to_json(&request), serde_json::from_str::<Value>(REQUEST).unwrap());
}

#[test]
fn short_forms_are_read() {
    let request =
        parse_request(br#"{"model":"gpt-5","input":"hi","tool_choice":{"type":"file_search"}}"#);
    let request = request.unwrap();
    assert_eq!(request.messages, [Message::user("hi")]);
    assert_eq!(request_to_json(&request)["tool_choice"], json!({"type": "file_search"}));
    let message = |text: &str| parse_request(text.as_bytes()).unwrap_err().to_string();
    insta::assert_snapshot!(message(r#"{"input":7}"#), @"expected text or a list of items in `input`, got 7");
    insta::assert_snapshot!(message(r#"{"input":"x","tools":[{"type":"function"}]}"#), @r#"expected the name of a function tool in `tools[0].name`, got {"type":"function"}"#);
}

#[test]
fn an_answer_is_read_and_written_again() {
    let response = parse_response(RESPONSE.as_bytes()).unwrap();
    insta::assert_snapshot!(shown(&[response.choices[0].message.clone()]), @r#"assistant: [Other(Object {"id": String("rs_1"), "summary": Array [], "type": String("reasoning")}), Text("yes"), ToolCall(ToolCall { id: "call_1", name: "look", arguments: "{}" })]"#);
    assert_eq!(response.finish_reason(), Some(&FinishReason::ToolCall));
    assert_eq!(response.extra["service_tier"], "default");
    let usage = response.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.cache_read_tokens), (100, 40));
    assert_eq!((usage.output_tokens, usage.reasoning_tokens), (50, 20));
    let again = parse_response(response_to_json(&response).to_string().as_bytes()).unwrap();
    assert_eq!(again, response);
}

#[test]
fn answers_that_failed_or_were_cut_say_so() {
    let read = |text: &str| parse_response(text.as_bytes());
    let failed = r#"{"id":"r","status":"failed","output":[],"error":{"code":"rate_limit_exceeded","message":"slow down"}}"#;
    let Err(WireError::Api(error)) = read(failed) else { panic!("an error") };
    assert_eq!(error.to_string(), "slow down (rate_limit_exceeded)");
    let refused = r#"{"error":{"message":"no such model","type":"invalid_request_error","code":"model_not_found"}}"#;
    assert!(matches!(read(refused), Err(WireError::Api(_))));
    let cut = r#"{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[]}"#;
    assert_eq!(read(cut).unwrap().finish_reason(), Some(&FinishReason::Length));
    let filtered =
        r#"{"status":"incomplete","incomplete_details":{"reason":"content_filter"},"output":[]}"#;
    assert_eq!(read(filtered).unwrap().finish_reason(), Some(&FinishReason::ContentFilter));
    assert!(matches!(read("{}"), Err(WireError::Field { .. })));
    assert!(matches!(read("["), Err(WireError::Json { .. })));
}

const STREAM: &str = r#"event: response.created
data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","created_at":17,"status":"in_progress","model":"gpt-5.1","output":[]}}

event: response.in_progress
data: {"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_1","status":"in_progress"}}

event: response.output_item.added
data: {"type":"response.output_item.added","output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[]}}

event: response.reasoning_summary_text.delta
data: {"type":"response.reasoning_summary_text.delta","item_id":"rs_1","output_index":0,"summary_index":0,"delta":"hm"}

event: response.output_item.done
data: {"type":"response.output_item.done","output_index":0,"item":{"id":"rs_1","type":"reasoning","encrypted_content":"xyz","summary":[{"type":"summary_text","text":"hm"}]}}

event: response.output_item.added
data: {"type":"response.output_item.added","output_index":1,"item":{"id":"msg_1","type":"message","status":"in_progress","role":"assistant","content":[]}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","item_id":"msg_1","output_index":1,"content_index":0,"delta":"Hel"}

event: response.output_text.delta
data: {"type":"response.output_text.delta","item_id":"msg_1","output_index":1,"content_index":0,"delta":"lo"}

event: response.output_item.done
data: {"type":"response.output_item.done","output_index":1,"item":{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hello","annotations":[]}]}}

event: response.output_item.added
data: {"type":"response.output_item.added","output_index":2,"item":{"id":"fc_1","type":"function_call","call_id":"call_1","name":"look","arguments":""}}

event: response.function_call_arguments.delta
data: {"type":"response.function_call_arguments.delta","item_id":"fc_1","output_index":2,"delta":"{\"x\":1}"}

event: response.function_call_arguments.done
data: {"type":"response.function_call_arguments.done","item_id":"fc_1","output_index":2,"arguments":"{\"x\":1}"}

event: response.output_item.done
data: {"type":"response.output_item.done","output_index":2,"item":{"id":"fc_1","type":"function_call","call_id":"call_1","name":"look","arguments":"{\"x\":1}"}}

event: response.completed
data: {"type":"response.completed","response":{"id":"resp_1","created_at":17,"status":"completed","model":"gpt-5.1-2025-11-13","output":[],"usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":15}}}

"#;

fn assembled(text: &str) -> Result<(Assembler, bool), WireError> {
    crate::samples::assembled(WireForm::Responses, text)
}

#[test]
fn a_stream_is_read() {
    let (answer, is_over) = assembled(STREAM).unwrap();
    assert!(is_over && answer.is_finished());
    let response = answer.response();
    insta::assert_snapshot!(shown(&[response.choices[0].message.clone()]), @r#"assistant: [Reasoning("hm"), Other(Object {"encrypted_content": String("xyz"), "id": String("rs_1"), "summary": Array [Object {"text": String("hm"), "type": String("summary_text")}], "type": String("reasoning")}), Text("Hello"), ToolCall(ToolCall { id: "call_1", name: "look", arguments: "{\"x\":1}" })]"#);
    assert_eq!(response.finish_reason(), Some(&FinishReason::ToolCall));
    assert_eq!(response.usage.map(|u| (u.cache_read_tokens, u.reasoning_tokens)), Some((4, 2)));
    assert_eq!(response.created_unix_secs, 17);
}

#[test]
fn a_stream_that_fails_or_breaks_off_says_so() {
    let failed = "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":\"oops\"}}}\n\n";
    let Err(WireError::Api(error)) = assembled(failed) else { panic!("an error") };
    assert_eq!(error.to_string(), "oops (server_error)");
    let error =
        "data: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"slow\"}\n\n";
    let Err(WireError::Api(error)) = assembled(error) else { panic!("an error") };
    assert_eq!(error.to_string(), "slow (rate_limit_exceeded)");
    let (answer, is_over) =
        assembled(&STREAM[..STREAM.find("event: response.completed").unwrap()]).unwrap();
    assert!(!is_over && !answer.is_finished());
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
    let last = writer.finish();
    text.push_str(&written(&last));
    let choices = |text: &str| assembled(text).unwrap().0.response().choices;
    assert_eq!(choices(&text), choices(STREAM));
    let completed = last.last().unwrap();
    assert_eq!(completed["type"], "response.completed");
    let whole = parse_response(completed["response"].to_string().as_bytes()).unwrap();
    assert_eq!(whole.text(), "Hello");
    assert_eq!(whole.tool_calls()[0].arguments, "{\"x\":1}");
    // An answer that broke off is a failure, not an answer.
    let mut broken = StreamWriter::new();
    let _ = broken.push(&crate::Chunk::default());
    assert_eq!(broken.finish().last().unwrap()["type"], "response.failed");
}

#[test]
fn thoughts_of_other_providers_are_not_sent() {
    let signed = json!({"type": "thinking", "thinking": "hm", "signature": "x"});
    let message = Message {
        role: Role::Assistant,
        parts: vec![
            Part::Reasoning("hm".to_owned()),
            Part::Other(signed),
            Part::Text("yes".to_owned()),
        ],
        name: None,
    };
    let request = ChatRequest::new("gpt-5").message(message);
    let input = request_to_json(&request)["input"].clone();
    assert_eq!(input.as_array().map(Vec::len), Some(1));
    let wire = crate::openai::request_to_json(&request);
    assert_eq!(wire["messages"], json!([{"role": "assistant", "content": "yes"}]));
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
        instructions in proptest::option::of("[a-z]{1,8}"),
        max_tokens in proptest::option::of(1u64..100_000),
        tool in proptest::option::of("[a-z_]{1,8}"),
        stream: bool,
    ) {
        let mut request = ChatRequest::new("gpt-5");
        request = instructions.into_iter().fold(request, ChatRequest::system);
        for (text, kind) in texts {
            let call = ToolCall { id: "c".to_owned(), name: "f".to_owned(), arguments: text.clone() };
            request = request.message(match kind {
                0 => Message::user(text),
                1 => Message::assistant(text),
                2 => Message { role: Role::Assistant, parts: vec![Part::ToolCall(call)], name: None },
                _ => Message::tool_result("c", text),
            });
        }
        request.max_tokens = max_tokens;
        request.stream = stream;
        request.tools.extend(tool.map(|name| Tool {
            name, description: String::new(), parameters: json!({}), is_strict: false,
        }));
        let wire = request_to_json(&request);
        let read = parse_request(wire.to_string().as_bytes()).unwrap();
        prop_assert_eq!(request_to_json(&read), wire);
    }

    #[test]
    fn no_json_makes_the_readers_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..80), json in arbitrary_json(),
    ) {
        let _ = parse_request(&bytes);
        let _ = parse_response(&bytes);
        let request = json!({"model": "m", "input": [json, {"type": "message", "role": "user",
            "content": [json]}, {"type": "reasoning", "summary": json}], "tools": [json],
            "tool_choice": json, "text": {"format": json}});
        if let Ok(request) = parse_request(request.to_string().as_bytes()) {
            let _ = request_to_json(&request);
        }
        let response = json!({"output": [json], "usage": json, "status": json});
        if let Ok(response) = parse_response(response.to_string().as_bytes()) {
            let _ = response_to_json(&response);
        }
        let mut reader = StreamReader::new();
        for kind in ["response.created", "response.output_item.added", "response.output_text.delta",
            "response.function_call_arguments.delta", "response.output_item.done",
            "response.completed", "response.failed", "error", "new"]
        {
            let data = json!({"type": kind, "output_index": 0, "item": json, "delta": json,
                "response": json, "error": json});
            let event = |data: &Value| SseEvent { data: data.to_string(), ..SseEvent::default() };
            let _ = reader.read(&event(&data));
            let _ = reader.read(&event(&json));
        }
    }
}
