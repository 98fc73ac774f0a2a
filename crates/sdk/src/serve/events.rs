//! A run's events as server-sent events.

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use throughline_llm::event_bytes;

use super::answer::{Body, Refusal};
use crate::agent::{AgentError, RunEvent};
use crate::remote::wire::RunReply;

/// A body of server-sent events.
pub(super) fn body(events: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(events.map(|bytes| Ok(Frame::data(bytes)))).boxed_unsync()
}

/// An answer of server-sent events.
pub(super) fn response(events: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(body(events));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// What happens in a run, as an event with its name.
pub(super) fn event(item: &Result<RunEvent, AgentError>) -> Bytes {
    let (name, data) = match item {
        Ok(event) => told(event),
        Err(error) => ("error", json!(Refusal::of(error).body())),
    };
    let mut bytes = format!("event: {name}\n").into_bytes();
    bytes.extend_from_slice(event_bytes(&data.to_string()).as_bytes());
    bytes.into()
}

fn told(event: &RunEvent) -> (&'static str, Value) {
    match event {
        RunEvent::StepStarted { phase, domain, index } => {
            ("step", json!({ "phase": phase.as_str(), "domain": domain, "index": index }))
        }
        RunEvent::Text(delta) => ("text", json!({ "delta": delta })),
        RunEvent::ToolCall(call) => {
            ("tool_call", json!({ "id": call.id, "name": call.name, "arguments": call.arguments }))
        }
        RunEvent::ToolResult { call, result } => {
            let mut data = json!({ "id": call.id, "name": call.name });
            match result {
                Ok(value) => data["result"] = value.clone(),
                Err(error) => data["error"] = Value::from(error.to_string()),
            }
            ("tool_result", data)
        }
        RunEvent::Handover { reason } => ("handover", json!({ "reason": reason })),
        RunEvent::Done(run) => ("done", json!(RunReply::from(&**run))),
    }
}
