//! Replies in the request's own encoding, as the OTLP specification asks, errors included; those to
//! Zipkin's clients are text. Errors to who speaks neither are problems (RFC 9457).

use http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;

use crate::decode::{Encoding, Signal};
use crate::failure::Failure;
use crate::receive::Answer;

/// The `Content-Type` of a reply.
pub(crate) fn content_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json => "application/json",
        Encoding::Zipkin => "text/plain; charset=utf-8",
    }
}

/// Media type of a [`problem`].
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// The hint where a failure has none of its own.
const SEE: &str = "see docs/sending-data.md";

/// The body of an error to who speaks neither OTLP nor Zipkin.
pub(crate) fn problem(status: StatusCode, failure: &Failure, path: &str) -> Vec<u8> {
    let message = failure.to_string();
    let (detail, hint) = match failure {
        // The client's own header is the end of it, whatever stands in there.
        Failure::MediaType { .. } => (message.as_str(), SEE),
        _ => message.rsplit_once("; ").unwrap_or((&message, SEE)),
    };
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Failed"),
        "status": status.as_u16(),
        "detail": detail,
        "instance": path,
        "code": failure.label(),
        "hint": hint,
    });
    problem.to_string().into_bytes()
}

/// The body of a success. `partial_success` is unset unless there is something to say.
pub(crate) fn success(encoding: Encoding, signal: Signal, answer: &Answer) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => protobuf_success(answer),
        Encoding::Json => json_success(signal, answer),
        // Zipkin asks for an empty body; what was rejected is told to whoever reads one.
        Encoding::Zipkin => answer.message.clone().into_bytes(),
    }
}

/// The three responses differ in the names of their fields only, which protobuf does not send.
fn protobuf_success(answer: &Answer) -> Vec<u8> {
    let partial_success = (!answer.is_plain()).then(|| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(answer.rejected).unwrap_or(i64::MAX),
        error_message: answer.message.clone(),
    });
    ExportTraceServiceResponse { partial_success }.encode_to_vec()
}

fn json_success(signal: Signal, answer: &Answer) -> Vec<u8> {
    if answer.is_plain() {
        return b"{}".to_vec();
    }
    let rejected = match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Logs => "rejectedLogRecords",
        Signal::Metrics => "rejectedDataPoints",
    };
    let mut partial = serde_json::Map::new();
    if answer.rejected > 0 {
        // OTLP/JSON: 64-bit integers are text.
        partial.insert(rejected.to_owned(), answer.rejected.to_string().into());
    }
    partial.insert("errorMessage".to_owned(), answer.message.as_str().into());
    serde_json::json!({ "partialSuccess": partial }).to_string().into_bytes()
}

/// The body of an error: a `google.rpc.Status`; for Zipkin, its text.
pub(crate) fn failure(encoding: Encoding, failure: &Failure) -> Vec<u8> {
    let code = failure.grpc_code() as i32;
    let message = failure.to_string();
    match encoding {
        Encoding::Protobuf => {
            tonic_types::Status { code, message, details: Vec::new() }.encode_to_vec()
        }
        Encoding::Json => {
            serde_json::json!({ "code": code, "message": message }).to_string().into_bytes()
        }
        Encoding::Zipkin => message.into_bytes(),
    }
}
