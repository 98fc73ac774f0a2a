//! OTLP messages to our nouns, by value: mends what can be mended, rejects what cannot, says both.

mod decisions;
mod histogram;
mod logs;
mod metrics;
mod raw;
mod size;
mod spans;
mod values;

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::resource::v1 as resource;
use throughline_trace::{Resource, Scope, SpanBatch};

pub(crate) use self::raw::{RawEntries, RawScope, RawSpan};
use self::size::Content;
pub(crate) use self::values::SPARE_ENTRIES;
use crate::allowance::Allowance;
use crate::options::Limits;
use crate::report::{Notes, Problem, Report};

/// Nanoseconds of a day: how far ahead of ours a sender's clock may be before a time is marked.
const FUTURE_NANO: u64 = 24 * 60 * 60 * 1_000_000_000;

/// 2000-01-01T00:00:00Z, nanoseconds since the Unix epoch: nothing that speaks OTLP ran before.
const DISTANT_PAST_UNIX_NANO: u64 = 946_684_800_000_000_000;

/// Where text was no UTF-8 and had to be mended before a request could be decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NotUtf8 {
    /// Numbers, ascending, of the spans, log records or data points that it was in: in the order of
    /// the request, from 0.
    pub(crate) items: Vec<u32>,
    /// How many texts it was that belong to no such item (resource, scope, metric).
    pub(crate) elsewhere: u64,
}

/// One request on its way from OTLP messages to a batch.
pub(crate) struct Converter<'a> {
    limits: &'a Limits,
    /// Where memory is taken from for what becomes more than it was. Once it is exceeded, items are
    /// passed over: the request is refused as a whole then.
    allowance: &'a Allowance,
    /// What hashes of values that are cut are keyed with.
    cut_key: Option<&'a [u8; 32]>,
    /// Items whose text was mended, those passed already left out.
    not_utf8: std::iter::Peekable<std::slice::Iter<'a, u32>>,
    /// Number of the next item.
    next_item: u32,
    /// Bytes of the resource and of the scope of the items in hand.
    resource_bytes: usize,
    scope_bytes: usize,
    /// What was put right about the item in hand.
    notes: Notes,
    /// Whether a span of the batch is a fallback.
    has_fallbacks: bool,
    batch: SpanBatch,
    report: Report,
}

impl<'a> Converter<'a> {
    pub(crate) fn new(
        limits: &'a Limits,
        allowance: &'a Allowance,
        received_unix_nano: u64,
        not_utf8: &'a NotUtf8,
    ) -> Self {
        let mut report = Report::default();
        report.add_many(Problem::NotUtf8, not_utf8.elsewhere);
        Self {
            limits,
            allowance,
            cut_key: None,
            not_utf8: not_utf8.items.iter().peekable(),
            next_item: 0,
            resource_bytes: 0,
            scope_bytes: 0,
            notes: Notes::default(),
            has_fallbacks: false,
            batch: SpanBatch { received_unix_nano, ..SpanBatch::default() },
            report,
        }
    }

    /// With a key for the hashes of values that are cut.
    pub(crate) fn with_cut_key(self, cut_key: Option<&'a [u8; 32]>) -> Self {
        Self { cut_key, ..self }
    }

    pub(crate) fn finish(self) -> (SpanBatch, Report) {
        (self.batch, self.report)
    }

    /// Turns to the next item of the request.
    fn begin_item(&mut self) {
        self.notes.clear();
        let item = self.next_item;
        self.next_item = self.next_item.saturating_add(1);
        while self.not_utf8.next_if(|marked| **marked < item).is_some() {}
        if self.not_utf8.next_if(|marked| **marked == item).is_some() {
            self.mend(Problem::NotUtf8);
        }
    }

    /// Whether the item, finished, is one that can be stored; if not, it is rejected by the name
    /// that `describe` gives.
    fn fits(&mut self, item: &impl Content, describe: impl FnOnce() -> String) -> bool {
        let bytes = item.bytes() + self.resource_bytes + self.scope_bytes;
        let limit = self.limits.max_item_bytes;
        if bytes > limit {
            self.report.reject(1, Problem::LargeItem, || {
                let shared = self.resource_bytes + self.scope_bytes;
                format!(
                    "{}: expected at most {limit} bytes in all, got {bytes} after cutting, of \
                     them {shared} in resource and scope; send less with it",
                    describe()
                )
            });
        }
        bytes <= limit
    }

    fn mend(&mut self, problem: Problem) {
        self.report.add(problem);
        self.notes.add(problem);
    }

    fn mend_id(&mut self, problem: Problem, id: &[u8]) {
        self.report.add(problem);
        self.notes.add_id(problem, id);
    }

    /// Notes a time that is hard to believe; it is kept as it is.
    fn check_time(&mut self, unix_nano: u64) {
        if unix_nano < DISTANT_PAST_UNIX_NANO {
            self.mend(Problem::DistantPast);
        } else if unix_nano > self.batch.received_unix_nano.saturating_add(FUTURE_NANO) {
            self.mend(Problem::Future);
        }
    }

    /// Turns to another resource.
    pub(crate) fn resource(&mut self, entries: RawEntries, schema_url: String) -> Arc<Resource> {
        self.notes.clear();
        let (mut attributes, _) = self.entries(entries);
        self.notes.mark(&mut attributes);
        let resource = Resource { attributes, schema_url };
        self.resource_bytes = resource.bytes();
        Arc::new(resource)
    }

    /// Turns to another scope.
    pub(crate) fn scope(&mut self, scope: RawScope) -> Arc<Scope> {
        self.notes.clear();
        let name = self.name(scope.name);
        let (mut attributes, _) = self.entries(scope.attributes);
        self.notes.mark(&mut attributes);
        let RawScope { version, schema_url, .. } = scope;
        let scope = Scope { name, version, attributes, schema_url };
        self.scope_bytes = scope.bytes();
        Arc::new(scope)
    }

    fn resource_message(
        &mut self,
        message: Option<resource::Resource>,
        schema_url: String,
    ) -> Arc<Resource> {
        let entries = self.raw_entries(message.unwrap_or_default().attributes);
        self.resource(entries, schema_url)
    }

    fn scope_message(
        &mut self,
        message: Option<common::InstrumentationScope>,
        schema_url: String,
    ) -> Arc<Scope> {
        let message = message.unwrap_or_default();
        let attributes = self.raw_entries(message.attributes);
        let common::InstrumentationScope { name, version, .. } = message;
        self.scope(RawScope { name, version, attributes, schema_url })
    }
}
