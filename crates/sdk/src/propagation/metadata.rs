//! The trace in the metadata of gRPC calls: `traceparent`, `tracestate` and `baggage` as over HTTP,
//! and the binary `grpc-trace-bin` of OpenCensus.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use tonic::metadata::{MetadataMap, MetadataValue};

use super::traceparent::{KNOWN_FLAGS, flags, remembering};

const TRACE_BIN: HeaderName = HeaderName::from_static("grpc-trace-bin");

/// Bytes of a binary trace context with all its fields.
const TRACE_BIN_BYTES: usize = 29;

/// Writes the trace context and baggage of `cx` into the metadata of a call, replacing what it had.
pub fn inject_metadata(cx: &Context, metadata: &mut MetadataMap) {
    super::inject_context(cx, metadata.as_mut());
}

/// Writes the trace context of `cx` as `grpc-trace-bin`, for services that know no other form;
/// beside [`inject_metadata`], not in its place: it has no `tracestate`.
pub fn inject_trace_bin(cx: &Context, metadata: &mut MetadataMap) {
    inject_bin_header(cx, metadata.as_mut());
}

/// [`inject_trace_bin`], into the headers that metadata is.
pub(crate) fn inject_bin_header(cx: &Context, headers: &mut HeaderMap) {
    headers.remove(TRACE_BIN);
    let span = cx.span();
    if span.span_context().is_valid() {
        let value = MetadataValue::from_bytes(&encode(span.span_context(), flags(cx)));
        if let Ok(value) = HeaderValue::from_bytes(value.as_encoded_bytes()) {
            headers.insert(TRACE_BIN, value);
        }
    }
}

/// The current context with the trace and baggage that a call's metadata name, by the rules of
/// [`extract`](super::extract); of a call without `traceparent`, the trace of `grpc-trace-bin`.
pub fn extract_metadata(metadata: &MetadataMap) -> Context {
    super::extract_any(metadata.as_ref())
}

/// `cx` with the remote span that `grpc-trace-bin` names; of two nobody can say which is right.
pub(super) fn binary_parent(cx: &Context, headers: &HeaderMap) -> Option<Context> {
    let mut values = headers.get_all(TRACE_BIN).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let mut encoded = HeaderMap::with_capacity(1);
    encoded.insert(TRACE_BIN, value.clone());
    let encoded = MetadataMap::from_headers(encoded);
    let bytes = encoded.get_bin(TRACE_BIN.as_str())?.to_bytes().ok()?;
    let remote = decode(&bytes)?;
    Some(remembering(cx.with_remote_span_context(remote.clone()), &remote))
}

/// `00`, then the fields: `00` and the trace id, `01` and the span id, `02` and the options.
fn encode(span: &SpanContext, flags: u8) -> [u8; TRACE_BIN_BYTES] {
    let mut bytes = [0; TRACE_BIN_BYTES];
    bytes[2..18].copy_from_slice(&span.trace_id().to_bytes());
    bytes[18] = 1;
    bytes[19..27].copy_from_slice(&span.span_id().to_bytes());
    bytes[27] = 2;
    bytes[28] = flags;
    bytes
}

/// Reads up to the first field that it does not know; a trace needs both of its ids.
fn decode(bytes: &[u8]) -> Option<SpanContext> {
    let (0, mut rest) = bytes.split_first()? else { return None };
    let (mut trace_id, mut span_id, mut flags) = (TraceId::INVALID, SpanId::INVALID, 0);
    while let Some((field, value)) = rest.split_first() {
        rest = match field {
            0 => {
                let (id, rest) = value.split_first_chunk()?;
                trace_id = TraceId::from_bytes(*id);
                rest
            }
            1 => {
                let (id, rest) = value.split_first_chunk()?;
                span_id = SpanId::from_bytes(*id);
                rest
            }
            2 => {
                let (options, rest) = value.split_first()?;
                flags = options & KNOWN_FLAGS;
                rest
            }
            _ => break,
        };
    }
    let flags = TraceFlags::new(flags);
    let span = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
    span.is_valid().then_some(span)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";

    fn text(metadata: &MetadataMap, name: &str) -> Option<String> {
        let value = metadata.get(name)?;
        value.to_str().ok().map(str::to_owned)
    }

    #[test]
    fn r2_2_a_trace_survives_grpc_metadata() {
        let mut metadata = MetadataMap::new();
        metadata.insert("traceparent", PARENT.parse().expect("ascii"));
        metadata.insert("tracestate", "a=1".parse().expect("ascii"));
        let mut out = MetadataMap::new();
        inject_metadata(&extract_metadata(&metadata), &mut out);
        assert_eq!(text(&out, "traceparent").as_deref(), Some(PARENT));
        assert_eq!(text(&out, "tracestate").as_deref(), Some("a=1"));
    }

    #[test]
    fn r2_2_a_trace_survives_the_binary_form() {
        let mut metadata = MetadataMap::new();
        metadata.insert("traceparent", PARENT.parse().expect("ascii"));
        let cx = extract_metadata(&metadata);
        let mut binary = MetadataMap::new();
        inject_trace_bin(&cx, &mut binary);
        let wire = binary.as_ref()[TRACE_BIN].to_str().expect("base64");
        assert_eq!(wire, "AABL+S81d7NNpqPOkp0ODkc2AQDwZ6oLqQK3AgM", "29 bytes on the wire");
        let mut out = MetadataMap::new();
        inject_metadata(&extract_metadata(&binary), &mut out);
        assert_eq!(text(&out, "traceparent").as_deref(), Some(PARENT));
        inject_trace_bin(&Context::new(), &mut binary);
        assert!(binary.is_empty(), "a stale trace goes");
    }

    #[test]
    fn the_text_form_comes_first_and_two_binary_ones_are_none() {
        let mut metadata = MetadataMap::new();
        let other = SpanContext::new(
            TraceId::from(7),
            SpanId::from(7),
            TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        );
        let value = || MetadataValue::from_bytes(&encode(&other, 1));
        metadata.append_bin("grpc-trace-bin", value());
        let trace =
            |metadata: &MetadataMap| extract_metadata(metadata).span().span_context().trace_id();
        assert_eq!(trace(&metadata), TraceId::from(7));
        metadata.append_bin("grpc-trace-bin", value());
        assert_eq!(trace(&metadata), TraceId::INVALID);
        metadata.insert("traceparent", PARENT.parse().expect("ascii"));
        assert_eq!(trace(&metadata).to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn fields_may_be_missing_and_unknown_ones_end_the_reading() {
        let whole = encode(
            &SpanContext::new(
                TraceId::from(7),
                SpanId::from(9),
                TraceFlags::SAMPLED,
                true,
                TraceState::NONE,
            ),
            1,
        );
        let is_sampled = |bytes: &[u8]| decode(bytes).map(|span| span.is_sampled());
        assert_eq!(is_sampled(&whole), Some(true));
        assert_eq!(is_sampled(&whole[..27]), Some(false), "options are optional");
        assert_eq!(is_sampled(&whole[..18]), None, "a trace needs its span");
        assert_eq!(is_sampled(&whole[..20]), None, "cut");
        let mut later = whole.to_vec();
        later.extend([9, 0]);
        assert_eq!(is_sampled(&later), Some(true));
        assert_eq!(is_sampled(&[]), None);
        let mut version = whole;
        version[0] = 1;
        assert_eq!(is_sampled(&version), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn every_trace_survives(trace in 1u128.., span in 1u64.., flags in 0u8..4) {
            let (trace_id, span_id) = (TraceId::from(trace), SpanId::from(span));
            let flags = TraceFlags::new(flags);
            let context = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
            prop_assert_eq!(decode(&encode(&context, flags.to_u8())), Some(context));
        }
    }
}
