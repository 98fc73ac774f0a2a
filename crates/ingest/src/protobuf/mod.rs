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

use crate::allowance::{Allowance, Exceeded};
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
    /// Bytes by which its texts are longer than those that came.
    pub(crate) grown_bytes: usize,
    pub(crate) not_utf8: NotUtf8,
}

/// Puts U+FFFD where text is not UTF-8, in memory that is taken from `allowance` before. `None` when the
/// bytes make no sense, or all text is fine: then decoding failed for another reason.
///
/// # Errors
/// [`Exceeded`] when there is no room for the mended body.
pub(crate) fn mend_text(
    kind: Kind,
    body: &[u8],
    allowance: &Allowance,
) -> Result<Option<Mended>, Exceeded> {
    let mut growth = Growth::default();
    if growth.of(kind, body, MAX_DEPTH).is_none() || growth.broken == 0 {
        return Ok(None);
    }
    let bytes = body.len() + growth.bytes + LENGTH_BYTES * growth.lengths;
    allowance.charge(bytes)?;
    let mut mender = Mender { not_utf8: NotUtf8::default(), next_item: 0, replaced: 0 };
    let mut out = Vec::with_capacity(bytes);
    let mended = mender.message(kind, body, &mut out, MAX_DEPTH);
    let grown_bytes = growth.bytes;
    Ok(mended.map(|()| Mended { body: out, grown_bytes, not_utf8: mender.not_utf8 }))
}

/// What stands where bytes could not be read.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Bytes of a length that is written before what it is of: five of seven bits each. Shorter ones would
/// do, and any reader of protobuf takes these.
const LENGTH_BYTES: usize = 5;

/// How much longer a body becomes, worked out before any of it is written.
#[derive(Default)]
struct Growth {
    /// Texts that are not UTF-8.
    broken: usize,
    /// Bytes by which they grow.
    bytes: usize,
    /// Lengths that are written with [`LENGTH_BYTES`].
    lengths: usize,
}

impl Growth {
    /// Adds that of one message.
    fn of(&mut self, kind: Kind, body: &[u8], depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        for field in Reader::new(body) {
            let field = field.ok()?;
            let Payload::Bytes(bytes) = field.payload else { continue };
            match kind.field(field.number) {
                Field::Message(inner) => {
                    self.lengths += 1;
                    self.of(inner, bytes, depth)?;
                }
                Field::Text if std::str::from_utf8(bytes).is_err() => {
                    self.lengths += 1;
                    self.broken += 1;
                    let invalid = bytes.utf8_chunks().map(|chunk| chunk.invalid().len());
                    let grows = |invalid: usize| REPLACEMENT.len().saturating_sub(invalid);
                    self.bytes += invalid.filter(|bytes| *bytes > 0).map(grows).sum::<usize>();
                }
                Field::Text | Field::Other => {}
            }
        }
        Some(())
    }
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
                    let at = begin_field(field.number, out);
                    self.message(inner, bytes, out, depth)?;
                    end_field(at, out);
                }
                Field::Text if std::str::from_utf8(bytes).is_err() => {
                    self.replaced += 1;
                    // Taken back at the end of the item, if it is one.
                    self.not_utf8.elsewhere += 1;
                    let at = begin_field(field.number, out);
                    for chunk in bytes.utf8_chunks() {
                        out.extend_from_slice(chunk.valid().as_bytes());
                        if !chunk.invalid().is_empty() {
                            out.extend_from_slice(REPLACEMENT);
                        }
                    }
                    end_field(at, out);
                }
                Field::Text | Field::Other => write_field(field.number, bytes, out),
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

/// Begins a field whose length is not known yet, and answers where its content begins.
fn begin_field(number: u32, out: &mut Vec<u8>) -> usize {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.len()
}

/// Writes the length of a field that began here.
fn end_field(at: usize, out: &mut [u8]) {
    let mut length = out.len() - at;
    for (number, byte) in out[at - LENGTH_BYTES..at].iter_mut().enumerate() {
        let more = if number + 1 < LENGTH_BYTES { 0x80 } else { 0 };
        *byte = (length & 0x7f) as u8 | more;
        length >>= 7;
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

    /// As within a request that may take as much as it likes; what it takes is at least what it holds.
    fn mend(kind: Kind, body: &[u8]) -> Option<Mended> {
        let allowance = Allowance::new(usize::MAX, None);
        let mended = mend_text(kind, body, &allowance).unwrap();
        let taken = usize::MAX - allowance.room_bytes();
        let held = mended.as_ref().map_or(0, |mended| mended.body.capacity());
        assert!(taken >= held, "{taken} bytes were taken, {held} are held");
        mended
    }

    #[test]
    fn text_is_mended_where_it_is_broken() {
        let mut body = request(&["good", "b#d", "fine"]).encode_to_vec();
        let at = body.iter().position(|byte| *byte == b'#').unwrap();
        body[at] = 0xff;
        assert!(ExportTraceServiceRequest::decode(body.as_slice()).is_err());
        let mended = mend(Kind::TraceRequest, &body).unwrap();
        assert_eq!(mended.not_utf8, NotUtf8 { items: vec![1], elsewhere: 0 });
        let decoded = ExportTraceServiceRequest::decode(mended.body.as_slice()).unwrap();
        assert_eq!(decoded, request(&["good", "b\u{fffd}d", "fine"]));
    }

    #[test]
    fn text_that_is_fine_is_not_mended() {
        assert_eq!(mend(Kind::TraceRequest, &request(&["good"]).encode_to_vec()), None);
        assert_eq!(mend(Kind::TraceRequest, &[0x0a, 0x7f, 1]), None);
    }

    #[test]
    fn memory_for_mended_text_is_taken_before() {
        let mut body = request(&["#".repeat(1_000).as_str()]).encode_to_vec();
        body.iter_mut().filter(|byte| **byte == b'#').for_each(|byte| *byte = 0xff);
        let mended = mend(Kind::TraceRequest, &body).unwrap();
        assert_eq!(mended.grown_bytes, 2_000);
        assert!(mended.body.len() >= 3_000);
        let allowance = Allowance::new(2_999, None);
        assert_eq!(mend_text(Kind::TraceRequest, &body, &allowance), Err(Exceeded::Request));
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
                mend(kind, &body);
            }
        }

        #[test]
        fn what_is_mended_is_what_a_reader_replaces(
            names in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..5),
        ) {
            let message = |number: u32, parts: &[Vec<u8>]| {
                let mut out = Vec::new();
                parts.iter().for_each(|part| write_field(number, part, &mut out));
                out
            };
            let spans: Vec<Vec<u8>> = names.iter().map(|name| message(5, std::slice::from_ref(name))).collect();
            let body = message(1, &[message(2, &[message(2, &spans)])]);
            let read = |name: &Vec<u8>| String::from_utf8_lossy(name).into_owned();
            let expected: Vec<String> = names.iter().map(read).collect();
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            let body = mend(Kind::TraceRequest, &body).map_or(body, |mended| mended.body);
            let decoded = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
            prop_assert_eq!(decoded, request(&expected));
        }
    }
}
