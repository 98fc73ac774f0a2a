//! `ExportTraceServiceRequest`, read from its bytes into our own types.
//!
//! No structure stands between: text is checked once and copied once, into memory of its size, and
//! lists are counted before they are filled. Only what encoders write is read here. What protobuf
//! allows beside that (messages in several parts, which are merged, and groups), what is nested very
//! deeply, names its strings by number, is no UTF-8 or no protobuf at all is [`Stop::NotPlain`]: it
//! is left to `prost`, so that there is one answer to it and one error. What is read is what `prost`
//! would have read; a property test holds the two against each other.

use std::sync::Arc;

use throughline_trace::{Attributes, Event, Link, Resource, Scope, Span, SpanId, TraceId, Value};

use super::wire::{BYTES, FIXED32, FIXED64, NotProtobuf, Payload, Reader, VARINT, WireField};
use crate::allowance::{Allowance, Exceeded};
use crate::convert::{Converter, RawEntries, RawScope, RawSpan, SPARE_ENTRIES};

/// Levels of lists and maps in a value. Each is up to three levels of messages, of which `prost` reads
/// 100.
const MAX_VALUE_DEPTH: u32 = 24;

/// Why reading ended before the end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is not what encoders write.
    NotPlain,
    /// It would take too much memory; the allowance knows of what.
    Exceeded,
}

impl From<NotProtobuf> for Stop {
    fn from(_: NotProtobuf) -> Self {
        Self::NotPlain
    }
}

impl From<Exceeded> for Stop {
    fn from(_: Exceeded) -> Self {
        Self::Exceeded
    }
}

/// Reads the spans of `body` into `converter`, taking memory from `allowance`.
///
/// # Errors
/// Either [`Stop`]; the converter then holds a part of the request and is of no use any more.
pub(crate) fn read(
    body: &[u8],
    allowance: &Allowance,
    converter: &mut Converter<'_>,
) -> Result<(), Stop> {
    let spans = count_spans(body)?;
    // All text and bytes lie in the body, so that they are counted by it.
    allowance.charge(spans.saturating_mul(size_of::<Span>()).saturating_add(body.len()))?;
    converter.expect_spans(spans);
    let mut traces = Traces { allowance, converter };
    let mut reader = Reader::new(body);
    while let Some(field) = reader.key()? {
        match field {
            (1, BYTES) => traces.of_resource(reader.bytes()?)?,
            (1, _) => return Err(Stop::NotPlain),
            field => unknown(field, &mut reader)?,
        }
    }
    converter.end_spans();
    Ok(())
}

fn count_spans(body: &[u8]) -> Result<usize, NotProtobuf> {
    let mut spans = 0;
    for of_resource in repeated(body, 1) {
        for of_scope in repeated(of_resource?, 2) {
            spans += count(of_scope?, 2)?;
        }
    }
    Ok(spans)
}

/// The messages of the repeated field `number`.
fn repeated(message: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8], NotProtobuf>> {
    Reader::new(message).filter_map(move |field| match field {
        Ok(WireField { number: found, payload: Payload::Bytes(bytes) }) => {
            (found == number).then_some(Ok(bytes))
        }
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

fn count(message: &[u8], number: u32) -> Result<usize, NotProtobuf> {
    let (mut count, mut reader) = (0, Reader::new(message));
    while let Some((found, wire_type)) = reader.key()? {
        count += usize::from(found == number);
        reader.pass(wire_type)?;
    }
    Ok(count)
}

/// Passes over a field that its message does not know.
fn unknown((_, wire_type): (u32, u32), reader: &mut Reader<'_>) -> Result<(), Stop> {
    if Reader::is_group(wire_type) {
        return Err(Stop::NotPlain);
    }
    Ok(reader.pass(wire_type)?)
}

fn check_text(bytes: &[u8]) -> Result<(), Stop> {
    std::str::from_utf8(bytes).map(drop).map_err(|_| Stop::NotPlain)
}

fn text(bytes: &[u8]) -> Result<String, Stop> {
    let text = std::str::from_utf8(bytes).map_err(|_| Stop::NotPlain)?;
    Ok(text.to_owned())
}

/// Sets a message that may be there once. A second one would be merged into it.
fn once<'a>(slot: &mut Option<&'a [u8]>, bytes: &'a [u8]) -> Result<(), Stop> {
    match slot.replace(bytes) {
        None => Ok(()),
        Some(_) => Err(Stop::NotPlain),
    }
}

/// `int32`, `uint32` and enumerations keep the low bits of what came, as in every protobuf.
fn low_bits(number: u64) -> u32 {
    number as u32
}

struct Traces<'a, 'c> {
    allowance: &'a Allowance,
    converter: &'a mut Converter<'c>,
}

impl Traces<'_, '_> {
    /// `ResourceSpans`. What its spans share may come after them.
    fn of_resource(&mut self, message: &[u8]) -> Result<(), Stop> {
        let (mut resource, mut schema_url) = (None, String::new());
        let mut reader = Reader::new(message);
        while let Some(field) = reader.key()? {
            match field {
                (1, BYTES) => once(&mut resource, reader.bytes()?)?,
                (2, BYTES) => reader.pass(BYTES)?,
                (3, BYTES) => schema_url = text(reader.bytes()?)?,
                (1..=3, _) => return Err(Stop::NotPlain),
                field => unknown(field, &mut reader)?,
            }
        }
        let entries = self.resource(resource.unwrap_or_default())?;
        let resource = self.converter.resource(entries, schema_url);
        for of_scope in repeated(message, 2) {
            self.of_scope(of_scope?, &resource)?;
        }
        Ok(())
    }

    /// `ScopeSpans`.
    fn of_scope(&mut self, message: &[u8], resource: &Arc<Resource>) -> Result<(), Stop> {
        let (mut scope, mut schema_url) = (None, String::new());
        let mut reader = Reader::new(message);
        while let Some(field) = reader.key()? {
            match field {
                (1, BYTES) => once(&mut scope, reader.bytes()?)?,
                (2, BYTES) => reader.pass(BYTES)?,
                (3, BYTES) => schema_url = text(reader.bytes()?)?,
                (1..=3, _) => return Err(Stop::NotPlain),
                field => unknown(field, &mut reader)?,
            }
        }
        let scope = RawScope { schema_url, ..self.scope(scope.unwrap_or_default())? };
        let scope: Arc<Scope> = self.converter.scope(scope);
        for span in repeated(message, 2) {
            let span = self.span(span?)?;
            self.converter.next_span(span, resource, &scope);
        }
        Ok(())
    }

    fn resource(&self, message: &[u8]) -> Result<RawEntries, Stop> {
        let mut attributes = self.entries(count(message, 1)?)?;
        let mut reader = Reader::new(message);
        while let Some(field) = reader.key()? {
            match field {
                (1, BYTES) => attributes.push(self.entry(reader.bytes()?, MAX_VALUE_DEPTH)?),
                (2, VARINT) => reader.pass(VARINT)?,
                (3, BYTES) => check_entity(reader.bytes()?)?,
                (1..=3, _) => return Err(Stop::NotPlain),
                field => unknown(field, &mut reader)?,
            }
        }
        Ok(attributes)
    }

    fn scope(&self, message: &[u8]) -> Result<RawScope, Stop> {
        let attributes = self.entries(count(message, 3)?)?;
        let mut scope = RawScope { attributes, ..RawScope::default() };
        let mut reader = Reader::new(message);
        while let Some(field) = reader.key()? {
            match field {
                (1, BYTES) => scope.name = text(reader.bytes()?)?,
                (2, BYTES) => scope.version = text(reader.bytes()?)?,
                (3, BYTES) => {
                    scope.attributes.push(self.entry(reader.bytes()?, MAX_VALUE_DEPTH)?);
                }
                (4, VARINT) => reader.pass(VARINT)?,
                (1..=4, _) => return Err(Stop::NotPlain),
                field => unknown(field, &mut reader)?,
            }
        }
        Ok(scope)
    }

    fn span<'b>(&self, message: &'b [u8]) -> Result<RawSpan<'b>, Stop> {
        let mut span = self.empty_span(message)?;
        let mut reader = Reader::new(message);
        while let Some(field) = reader.key()? {
            match field {
                (1, BYTES) => span.trace_id = reader.bytes()?,
                (2, BYTES) => span.span_id = reader.bytes()?,
                (3, BYTES) => span.trace_state = text(reader.bytes()?)?,
                (4, BYTES) => span.parent_span_id = reader.bytes()?,
                (5, BYTES) => span.name = text(reader.bytes()?)?,
                (6, VARINT) => span.kind = low_bits(reader.varint()?).cast_signed(),
                (7, FIXED64) => span.start_unix_nano = reader.fixed64()?,
                (8, FIXED64) => span.end_unix_nano = reader.fixed64()?,
                (9, BYTES) => {
                    span.attributes.push(self.entry(reader.bytes()?, MAX_VALUE_DEPTH)?);
                }
                (10, VARINT) => span.dropped_attributes_count = low_bits(reader.varint()?),
                (11, BYTES) => span.events.push(self.event(reader.bytes()?)?),
                (12, VARINT) => span.dropped_events_count = low_bits(reader.varint()?),
                (13, BYTES) => span.links.push(self.link(reader.bytes()?)?),
                (14, VARINT) => span.dropped_links_count = low_bits(reader.varint()?),
                (15, BYTES) => status(reader.bytes()?, &mut span)?,
                (16, FIXED32) => span.flags = reader.fixed32()?,
                (1..=16, _) => return Err(Stop::NotPlain),
                field => unknown(field, &mut reader)?,
            }
        }
        Ok(span)
    }

    /// A span with room for the lists of `message`.
    fn empty_span<'b>(&self, message: &[u8]) -> Result<RawSpan<'b>, Stop> {
        let (mut attributes, mut events, mut links) = (0, 0, 0);
        let mut reader = Reader::new(message);
        while let Some((number, wire_type)) = reader.key()? {
            attributes += usize::from(number == 9);
            events += usize::from(number == 11);
            links += usize::from(number == 13);
            reader.pass(wire_type)?;
        }
        let mut span = RawSpan { attributes: self.entries(attributes)?, ..RawSpan::default() };
        if events > 0 {
            span.events = self.list(events)?;
        }
        if links > 0 {
            span.links = self.list(links)?;
        }
        Ok(span)
    }

    fn event(&self, message: &[u8]) -> Result<Event, Stop> {
        let mut event = Event {
            time_unix_nano: 0,
            name: String::new(),
            attributes: Attributes(self.entries(count(message, 3)?)?),
            dropped_attributes_count: 0,
        };
        let mut reader = Reader::new(message);
        while let Some(field) = reader.key()? {
            match field {
                (1, FIXED64) => event.time_unix_nano = reader.fixed64()?,
                (2, BYTES) => event.name = text(reader.bytes()?)?,
                (3, BYTES) => {
                    event.attributes.0.push(self.entry(reader.bytes()?, MAX_VALUE_DEPTH)?);
                }
                (4, VARINT) => event.dropped_attributes_count = low_bits(reader.varint()?),
                (1..=4, _) => return Err(Stop::NotPlain),
                field => unknown(field, &mut reader)?,
            }
        }
        Ok(event)
    }

    /// A link; `None` when its ids are none.
    fn link(&self, message: &[u8]) -> Result<Option<Link>, Stop> {
        let (mut trace_id, mut span_id) = (&[][..], &[][..]);
        let (mut trace_state, mut flags, mut dropped_attributes_count) = (String::new(), 0, 0);
        let mut attributes = self.entries(count(message, 4)?)?;
        let mut reader = Reader::new(message);
        while let Some(field) = reader.key()? {
            match field {
                (1, BYTES) => trace_id = reader.bytes()?,
                (2, BYTES) => span_id = reader.bytes()?,
                (3, BYTES) => trace_state = text(reader.bytes()?)?,
                (4, BYTES) => attributes.push(self.entry(reader.bytes()?, MAX_VALUE_DEPTH)?),
                (5, VARINT) => dropped_attributes_count = low_bits(reader.varint()?),
                (6, FIXED32) => flags = reader.fixed32()?,
                (1..=6, _) => return Err(Stop::NotPlain),
                field => unknown(field, &mut reader)?,
            }
        }
        let ids = TraceId::from_slice(trace_id).ok().zip(SpanId::from_slice(span_id).ok());
        Ok(ids.map(|(trace_id, span_id)| Link {
            trace_id,
            span_id,
            trace_state,
            flags,
            attributes: Attributes(attributes),
            dropped_attributes_count,
        }))
    }

    /// Room for `count` attributes.
    fn entries(&self, count: usize) -> Result<RawEntries, Stop> {
        match count {
            0 => Ok(Vec::new()),
            count => self.list(count + SPARE_ENTRIES),
        }
    }

    fn list<T>(&self, count: usize) -> Result<Vec<T>, Stop> {
        self.allowance.charge(count.saturating_mul(size_of::<T>()))?;
        Ok(Vec::with_capacity(count))
    }

    /// `KeyValue`.
    fn entry(&self, message: &[u8], depth: u32) -> Result<(String, Value), Stop> {
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader::new(message);
        while let Some(field) = reader.key()? {
            match field {
                (1, BYTES) => key = text(reader.bytes()?)?,
                (2, BYTES) => once(&mut value, reader.bytes()?)?,
                // The third is the key's number in a table of strings.
                (1..=3, _) => return Err(Stop::NotPlain),
                field => unknown(field, &mut reader)?,
            }
        }
        Ok((key, self.value(value.unwrap_or_default(), depth)?))
    }

    /// `AnyValue`: of several values the last one counts.
    fn value(&self, message: &[u8], depth: u32) -> Result<Value, Stop> {
        let depth = depth.checked_sub(1).ok_or(Stop::NotPlain)?;
        let mut value = Value::Empty;
        let mut reader = Reader::new(message);
        while let Some(field) = reader.key()? {
            match field {
                (1, BYTES) => value = Value::String(text(reader.bytes()?)?),
                (2, VARINT) => value = Value::Bool(reader.varint()? != 0),
                (3, VARINT) => value = Value::Int(reader.varint()?.cast_signed()),
                (4, FIXED64) => value = Value::Double(f64::from_bits(reader.fixed64()?)),
                // Two lists would be merged.
                (5, BYTES) if !matches!(value, Value::Array(_)) => {
                    value = Value::Array(self.array(reader.bytes()?, depth)?);
                }
                (6, BYTES) if !matches!(value, Value::Map(_)) => {
                    value = Value::Map(self.map(reader.bytes()?, depth)?);
                }
                (7, BYTES) => value = Value::Bytes(reader.bytes()?.to_vec()),
                // The eighth is the number of a text in a table of strings.
                (1..=8, _) => return Err(Stop::NotPlain),
                field => unknown(field, &mut reader)?,
            }
        }
        Ok(value)
    }

    fn array(&self, message: &[u8], depth: u32) -> Result<Vec<Value>, Stop> {
        let mut values = self.list(count(message, 1)?)?;
        let mut reader = Reader::new(message);
        while let Some(field) = reader.key()? {
            match field {
                (1, BYTES) => values.push(self.value(reader.bytes()?, depth)?),
                (1, _) => return Err(Stop::NotPlain),
                field => unknown(field, &mut reader)?,
            }
        }
        Ok(values)
    }

    fn map(&self, message: &[u8], depth: u32) -> Result<RawEntries, Stop> {
        let mut entries = self.list(count(message, 1)?)?;
        let mut reader = Reader::new(message);
        while let Some(field) = reader.key()? {
            match field {
                (1, BYTES) => entries.push(self.entry(reader.bytes()?, depth)?),
                (1, _) => return Err(Stop::NotPlain),
                field => unknown(field, &mut reader)?,
            }
        }
        Ok(entries)
    }
}

/// `Status`, of which several parts are one.
fn status(message: &[u8], span: &mut RawSpan<'_>) -> Result<(), Stop> {
    let mut reader = Reader::new(message);
    while let Some(field) = reader.key()? {
        match field {
            (2, BYTES) => span.status_message = text(reader.bytes()?)?,
            (3, VARINT) => span.status_code = low_bits(reader.varint()?).cast_signed(),
            (2 | 3, _) => return Err(Stop::NotPlain),
            field => unknown(field, &mut reader)?,
        }
    }
    Ok(())
}

/// `EntityRef`, of which nothing is kept.
fn check_entity(message: &[u8]) -> Result<(), Stop> {
    let mut reader = Reader::new(message);
    while let Some(field) = reader.key()? {
        match field {
            (1..=4, BYTES) => check_text(reader.bytes()?)?,
            (1..=4, _) => return Err(Stop::NotPlain),
            field => unknown(field, &mut reader)?,
        }
    }
    Ok(())
}
