//! Protobuf: spans read from the bytes, and what has to be known of all else before it is decoded.
//!
//! [`traces`] reads the spans of a request as encoders write it, which is nearly every one. `prost`
//! decodes whatever it leaves, logs and metrics. Two things `prost` cannot do are done here, on the
//! bytes, by a table of the OTLP messages ([`schema`]): [`measure`] says how large the structures
//! will be, so that a small hostile body is refused before it becomes a large one; [`mend_text`]
//! replaces what is no UTF-8, for which `prost` would refuse the whole request and every good span in
//! it.

mod schema;
pub(crate) mod traces;
mod wire;

use schema::Field;
use wire::{Payload, Reader};

use crate::convert::NotUtf8;
pub(crate) use schema::Kind;

/// Levels of messages that are looked into; `prost` refuses deeper ones.
const MAX_DEPTH: u32 = 100;

/// Bytes of memory that decoding `body` takes, about; bytes that make no sense are skipped, since
/// decoding will say so.
pub(crate) fn measure(kind: Kind, body: &[u8]) -> usize {
    measure_at(kind, body, MAX_DEPTH)
}

fn measure_at(kind: Kind, body: &[u8], depth: u32) -> usize {
    let mut total = kind.decoded_bytes();
    let mut reader = Reader::new(body);
    while let Some(Ok(field)) = reader.next() {
        total += match field.payload {
            Payload::Scalar => kind.element_bytes(),
            Payload::Bytes(bytes) => match kind.field(field.number) {
                Field::Message(_) if depth == 0 => 0,
                Field::Message(inner) => measure_at(inner, bytes, depth - 1),
                Field::Text => bytes.len() + kind.element_bytes(),
                // Packed numbers: a byte on the wire may be eight in memory.
                Field::Other => bytes.len().saturating_mul(8),
            },
        };
    }
    total
}

/// A body in which all text is UTF-8, and where it was not.
#[derive(Debug, PartialEq)]
pub(crate) struct Mended {
    /// The body, to be decoded.
    pub(crate) body: Vec<u8>,
    pub(crate) not_utf8: NotUtf8,
}

/// Puts U+FFFD where text is not UTF-8. `None` when the bytes make no sense, or all text is fine:
/// then decoding failed for another reason.
pub(crate) fn mend_text(kind: Kind, body: &[u8]) -> Option<Mended> {
    let mut mender = Mender { not_utf8: NotUtf8::default(), next_item: 0, replaced: 0 };
    let mut out = Vec::with_capacity(body.len() + body.len() / 8);
    mender.message(kind, body, &mut out, MAX_DEPTH)?;
    (mender.replaced > 0).then_some(Mended { body: out, not_utf8: mender.not_utf8 })
}

struct Mender {
    not_utf8: NotUtf8,
    next_item: u32,
    /// Texts mended so far, wherever.
    replaced: u64,
}

impl Mender {
    fn message(&mut self, kind: Kind, body: &[u8], out: &mut Vec<u8>, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let replaced_before = self.replaced;
        let item = kind.is_item().then_some(self.next_item);
        self.next_item += u32::from(kind.is_item());
        let mut reader = Reader::new(body);
        loop {
            let start = reader.rest();
            let Some(field) = reader.next() else { break };
            let field = field.ok()?;
            let Payload::Bytes(bytes) = field.payload else {
                out.extend_from_slice(&start[..start.len() - reader.rest().len()]);
                continue;
            };
            match kind.field(field.number) {
                Field::Message(inner) => {
                    let mut mended = Vec::with_capacity(bytes.len());
                    self.message(inner, bytes, &mut mended, depth)?;
                    write_field(field.number, &mended, out);
                }
                Field::Text => {
                    let text = String::from_utf8_lossy(bytes);
                    let replaced = u64::from(matches!(text, std::borrow::Cow::Owned(_)));
                    self.replaced += replaced;
                    // Taken back at the end of the item, if it is one.
                    self.not_utf8.elsewhere += replaced;
                    write_field(field.number, text.as_bytes(), out);
                }
                Field::Other => write_field(field.number, bytes, out),
            }
        }
        if let Some(item) = item
            && self.replaced > replaced_before
        {
            self.not_utf8.items.push(item);
            self.not_utf8.elsewhere -= self.replaced - replaced_before;
        }
        Some(())
    }
}

fn write_field(number: u32, payload: &[u8], out: &mut Vec<u8>) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn request(names: &[&str]) -> ExportTraceServiceRequest {
        let spans = names.iter().map(|name| Span { name: (*name).into(), ..Span::default() });
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans { spans: spans.collect(), ..Default::default() }],
                ..Default::default()
            }],
        }
    }

    #[test]
    fn text_is_mended_where_it_is_broken() {
        let mut body = request(&["good", "b#d", "fine"]).encode_to_vec();
        let at = body.iter().position(|byte| *byte == b'#').unwrap();
        body[at] = 0xff;
        assert!(ExportTraceServiceRequest::decode(body.as_slice()).is_err());
        let mended = mend_text(Kind::TraceRequest, &body).unwrap();
        assert_eq!(mended.not_utf8, NotUtf8 { items: vec![1], elsewhere: 0 });
        let decoded = ExportTraceServiceRequest::decode(mended.body.as_slice()).unwrap();
        assert_eq!(decoded, request(&["good", "b\u{fffd}d", "fine"]));
    }

    #[test]
    fn text_that_is_fine_is_not_mended() {
        assert_eq!(mend_text(Kind::TraceRequest, &request(&["good"]).encode_to_vec()), None);
        assert_eq!(mend_text(Kind::TraceRequest, &[0x0a, 0x7f, 1]), None);
    }

    #[test]
    fn small_bytes_that_make_large_structures_are_measured() {
        // One resource, one scope, a thousand empty spans of 2 bytes each.
        let spans = [0x12u8, 0].repeat(1_000);
        let mut scope = Vec::new();
        write_field(2, &spans, &mut scope);
        let mut body = Vec::new();
        write_field(1, &scope, &mut body);
        let measured = measure(Kind::TraceRequest, &body);
        assert!(measured >= 1_000 * size_of::<Span>(), "{measured}");
        let decoded = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        assert_eq!(decoded.resource_spans[0].scope_spans[0].spans.len(), 1_000);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(body: Vec<u8>) {
            for kind in [Kind::TraceRequest, Kind::LogsRequest, Kind::MetricsRequest] {
                measure(kind, &body);
                mend_text(kind, &body);
            }
        }
    }
}
