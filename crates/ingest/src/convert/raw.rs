//! Spans as a request tells them: our own types, nothing about them checked yet. Whoever reads a
//! request makes these, so that what is checked and mended is the same for all of them.

use throughline_trace::{Event, Link, Value};

/// Attributes in their order, keys and values of any length.
pub(crate) type RawEntries = Vec<(String, Value)>;

/// A span.
#[derive(Debug, Default)]
pub(crate) struct RawSpan<'a> {
    /// Ids of any length.
    pub(crate) trace_id: &'a [u8],
    pub(crate) span_id: &'a [u8],
    pub(crate) parent_span_id: &'a [u8],
    pub(crate) trace_state: String,
    pub(crate) flags: u32,
    /// Empty when there is none.
    pub(crate) name: String,
    /// OTLP's number.
    pub(crate) kind: i32,
    /// Nanoseconds since the Unix epoch; 0 when it was not said, as is the end.
    pub(crate) start_unix_nano: u64,
    pub(crate) end_unix_nano: u64,
    /// OTLP's number.
    pub(crate) status_code: i32,
    pub(crate) status_message: String,
    pub(crate) attributes: RawEntries,
    pub(crate) dropped_attributes_count: u32,
    /// Time and name may be missing here too.
    pub(crate) events: Vec<Event>,
    pub(crate) dropped_events_count: u32,
    /// `None` for one that names no valid span.
    pub(crate) links: Vec<Option<Link>>,
    pub(crate) dropped_links_count: u32,
}

/// What made the spans.
#[derive(Debug, Default)]
pub(crate) struct RawScope {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) attributes: RawEntries,
    pub(crate) schema_url: String,
}
