//! The trace in the metadata of gRPC calls: `traceparent`, `tracestate` and `baggage` as over HTTP.

use opentelemetry::Context;
use tonic::metadata::MetadataMap;

/// Writes the trace context and baggage of `cx` into the metadata of a call, replacing what it had.
pub fn inject_metadata(cx: &Context, metadata: &mut MetadataMap) {
    super::inject_context(cx, metadata.as_mut());
}

/// The current context with the trace and baggage that a call's metadata name, by the rules of
/// [`extract`](super::extract).
pub fn extract_metadata(metadata: &MetadataMap) -> Context {
    super::extract(metadata.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r2_2_a_trace_survives_grpc_metadata() {
        let mut metadata = MetadataMap::new();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
        metadata.insert("traceparent", parent.parse().expect("ascii"));
        metadata.insert("tracestate", "a=1".parse().expect("ascii"));
        let mut out = MetadataMap::new();
        inject_metadata(&extract_metadata(&metadata), &mut out);
        assert_eq!(out.get("traceparent").map(|v| v.as_bytes()), Some(parent.as_bytes()));
        assert_eq!(out.get("tracestate").map(|v| v.as_bytes()), Some(&b"a=1"[..]));
    }
}
