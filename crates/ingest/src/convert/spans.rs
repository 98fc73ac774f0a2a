//! Spans: ids checked, times put in order, what cannot be kept counted.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1 as otlp;
use throughline_llm::prices;
use throughline_trace::{
    Attributes, Event, Link, Resource, Scope, Span, SpanId, SpanKind, Status, StatusCode, TraceId,
    keys,
};

use super::size::Content as _;
use super::{Converter, RawSpan};
use crate::dialect::{self, Added, Reading};
use crate::report::{Place, Problem, quote};

/// Name of a span or event that came without one.
const UNNAMED: &str = "unnamed";

impl Converter<'_> {
    /// Takes in the spans of a request.
    pub(crate) fn traces(&mut self, request: ExportTraceServiceRequest) {
        let groups = request.resource_spans.iter().flat_map(|group| &group.scope_spans);
        self.expect_spans(groups.map(|group| group.spans.len()).sum());
        for group in request.resource_spans {
            let resource = self.resource_message(group.resource, group.schema_url);
            for group in group.scope_spans {
                let scope = self.scope_message(group.scope, group.schema_url);
                for span in group.spans {
                    self.begin_item();
                    self.span_message(span, &resource, &scope);
                }
            }
        }
        self.end_spans();
    }

    /// Makes room for so many spans.
    pub(crate) fn expect_spans(&mut self, spans: usize) {
        self.batch.spans.reserve_exact(spans);
    }

    /// Takes in one span of a request whose text is all UTF-8.
    pub(crate) fn next_span(
        &mut self,
        span: RawSpan<'_>,
        resource: &Arc<Resource>,
        scope: &Arc<Scope>,
    ) {
        self.begin_item();
        self.take_span(span, resource, scope);
    }

    /// Works out what is told by all spans together; to be called once, after the last.
    pub(crate) fn end_spans(&mut self) {
        if self.has_fallbacks {
            dialect::fallbacks(&mut self.batch.spans);
        }
        self.derived_decisions();
    }

    fn span_message(&mut self, span: otlp::Span, resource: &Arc<Resource>, scope: &Arc<Scope>) {
        let attributes = self.raw_entries(span.attributes);
        let events = span.events.into_iter().map(|event| self.raw_event(event)).collect();
        let links = span.links.into_iter().map(|link| self.raw_link(link)).collect();
        let status = span.status.unwrap_or_default();
        let raw = RawSpan {
            trace_id: &span.trace_id,
            span_id: &span.span_id,
            parent_span_id: &span.parent_span_id,
            trace_state: span.trace_state,
            flags: span.flags,
            name: span.name,
            kind: span.kind,
            start_unix_nano: span.start_time_unix_nano,
            end_unix_nano: span.end_time_unix_nano,
            status_code: status.code,
            status_message: status.message,
            attributes,
            dropped_attributes_count: span.dropped_attributes_count,
            events,
            dropped_events_count: span.dropped_events_count,
            links,
            dropped_links_count: span.dropped_links_count,
        };
        self.take_span(raw, resource, scope);
    }

    fn raw_event(&mut self, event: otlp::span::Event) -> Event {
        Event {
            time_unix_nano: event.time_unix_nano,
            name: event.name,
            attributes: Attributes(self.raw_entries(event.attributes)),
            dropped_attributes_count: event.dropped_attributes_count,
        }
    }

    fn raw_link(&mut self, link: otlp::span::Link) -> Option<Link> {
        Some(Link {
            trace_id: TraceId::from_slice(&link.trace_id).ok()?,
            span_id: SpanId::from_slice(&link.span_id).ok()?,
            trace_state: link.trace_state,
            flags: link.flags,
            attributes: Attributes(self.raw_entries(link.attributes)),
            dropped_attributes_count: link.dropped_attributes_count,
        })
    }

    /// Takes in the decisions that the spans show, as far as the request has room: as with the normal
    /// form, what is only derived never makes it too large. When all requests together have no room
    /// for one, this request is refused like any other then, and comes again.
    fn derived_decisions(&mut self) {
        let derived = dialect::decisions(&self.batch.spans, self.batch.received_unix_nano);
        let mut derived = derived.into_iter();
        while let Some(decision) = derived.next() {
            let bytes = decision.bytes();
            if bytes > self.allowance.room_bytes() || self.allowance.charge(bytes).is_err() {
                let left_out = 1 + derived.len();
                let left_out = u64::try_from(left_out).unwrap_or(u64::MAX);
                self.report.add_many(Problem::DerivedDecision, left_out);
                return;
            }
            self.batch.decisions.push(decision);
        }
    }

    fn take_span(&mut self, span: RawSpan<'_>, resource: &Arc<Resource>, scope: &Arc<Scope>) {
        if let Some(span) = self.span(span, resource, scope) {
            self.has_fallbacks |= dialect::is_fallback(&span.name);
            self.batch.spans.push(span);
        }
    }

    fn span(
        &mut self,
        span: RawSpan<'_>,
        resource: &Arc<Resource>,
        scope: &Arc<Scope>,
    ) -> Option<Span> {
        let Ok(trace_id) = TraceId::from_slice(span.trace_id) else {
            self.report.reject(1, Problem::TraceId, || {
                describe_id(&span.name, "trace id", span.trace_id, TraceId::BYTES)
            });
            return None;
        };
        let Ok(span_id) = SpanId::from_slice(span.span_id) else {
            self.report.reject(1, Problem::SpanId, || {
                describe_id(&span.name, "span id", span.span_id, SpanId::BYTES)
            });
            return None;
        };
        let parent_span_id = self.parent_id(span.parent_span_id);
        let (start_unix_nano, end_unix_nano) =
            self.span_times(span.start_unix_nano, span.end_unix_nano);
        let name = self.name_or_unnamed(span.name);
        let (attributes, beyond) = self.entries(span.attributes);
        let dropped_attributes_count = span.dropped_attributes_count.saturating_add(beyond);
        let (events, events_beyond) = self.events(span.events, start_unix_nano);
        let (links, links_beyond) = self.links(span.links);
        let mut span = Span {
            trace_id,
            span_id,
            parent_span_id,
            trace_state: self.text("trace_state", span.trace_state),
            flags: span.flags,
            name,
            kind: SpanKind::from_i32(span.kind),
            start_unix_nano,
            end_unix_nano,
            status: Status {
                code: StatusCode::from_i32(span.status_code),
                message: self.text("status.message", span.status_message),
            },
            attributes,
            dropped_attributes_count,
            events,
            dropped_events_count: span.dropped_events_count.saturating_add(events_beyond),
            links,
            dropped_links_count: span.dropped_links_count.saturating_add(links_beyond),
            resource: Arc::clone(resource),
            scope: Arc::clone(scope),
        };
        match dialect::read(&span) {
            Reading::Plain => {}
            Reading::Added(added) => self.add_normal_form(&mut span, added),
            Reading::Pending => {
                self.report.pending_left_out += 1;
                return None;
            }
        }
        add_cost(&mut span);
        self.notes.mark(&mut span.attributes);
        if !self.fits(&span, || format!("span {}", quote(&span.name))) {
            return None;
        }
        if !self.notes.is_empty() {
            self.report.mended(&self.notes, || format!("span {}", quote(&span.name)));
        }
        Some(span)
    }

    /// Writes the normal form onto the span, as far as there is room: it must never be what makes a
    /// span, or its whole request, too large.
    fn add_normal_form(&mut self, span: &mut Span, mut added: Added) {
        let taken = span.bytes() + self.resource_bytes + self.scope_bytes;
        let room = self.limits.max_item_bytes.saturating_sub(taken);
        if added.fit(self.limits.max_attribute_bytes, room.min(self.allowance.room_bytes())) {
            self.mend(Problem::NormalForm);
        }
        if self.allowance.charge(added.bytes()).is_ok() {
            added.write(&mut span.attributes);
        }
    }

    /// A missing parent and one of zeros (which some exporters send for a root) are no parent; one
    /// of another length is noted.
    fn parent_id(&mut self, id: &[u8]) -> Option<SpanId> {
        if id.len() == SpanId::BYTES {
            return SpanId::from_slice(id).ok();
        }
        if !id.is_empty() {
            self.mend_id(Problem::ParentId, id);
        }
        None
    }

    /// Start and end, in order.
    fn span_times(&mut self, start: u64, end: u64) -> (u64, u64) {
        let (start, end) = match (start, end) {
            (0, 0) => {
                self.mend(Problem::NoStart);
                self.mend(Problem::NoEnd);
                return (self.batch.received_unix_nano, self.batch.received_unix_nano);
            }
            (0, end) => {
                self.mend(Problem::NoStart);
                (end, end)
            }
            (start, 0) => {
                self.mend(Problem::NoEnd);
                (start, start)
            }
            both => both,
        };
        self.check_time(start);
        if end < start {
            self.mend(Problem::EndBeforeStart);
            return (start, start);
        }
        if end != start {
            self.check_time(end);
        }
        (start, end)
    }

    fn name_or_unnamed(&mut self, name: String) -> String {
        if name.is_empty() {
            self.mend(Problem::EmptyName);
            return UNNAMED.to_owned();
        }
        self.name(name)
    }

    fn events(&mut self, mut events: Vec<Event>, start: u64) -> (Vec<Event>, u32) {
        let beyond = events.len().saturating_sub(self.limits.max_events);
        if beyond > 0 {
            events.truncate(self.limits.max_events);
            events.shrink_to_fit();
            self.mend(Problem::ManyEvents);
        }
        for (number, event) in events.iter_mut().enumerate() {
            self.notes.turn_to(Place::Event(number));
            if event.time_unix_nano == 0 {
                self.mend(Problem::NoTime);
                event.time_unix_nano = start;
            } else {
                self.check_time(event.time_unix_nano);
            }
            event.name = self.name_or_unnamed(std::mem::take(&mut event.name));
            let beyond;
            (event.attributes, beyond) = self.entries(std::mem::take(&mut event.attributes.0));
            event.dropped_attributes_count = event.dropped_attributes_count.saturating_add(beyond);
        }
        self.notes.turn_to(Place::Item);
        (events, u32::try_from(beyond).unwrap_or(u32::MAX))
    }

    fn links(&mut self, mut links: Vec<Option<Link>>) -> (Vec<Link>, u32) {
        let mut dropped = links.len().saturating_sub(self.limits.max_links);
        if dropped > 0 {
            links.truncate(self.limits.max_links);
            self.mend(Problem::ManyLinks);
        }
        let mut kept = Vec::with_capacity(links.len());
        for link in links {
            let Some(mut link) = link else {
                self.mend(Problem::Link);
                dropped += 1;
                continue;
            };
            self.notes.turn_to(Place::Link(kept.len()));
            let beyond;
            (link.attributes, beyond) = self.entries(link.attributes.0);
            link.dropped_attributes_count = link.dropped_attributes_count.saturating_add(beyond);
            link.trace_state = self.text("trace_state", link.trace_state);
            kept.push(link);
        }
        self.notes.turn_to(Place::Item);
        (kept, u32::try_from(dropped).unwrap_or(u32::MAX))
    }
}

/// Puts the list price on a call that reports tokens and a known model, but no cost.
fn add_cost(span: &mut Span) {
    let Some(usage) = span.counted_usage() else { return };
    if span.attributes.get(keys::COST_USD).is_some() {
        return;
    }
    if let Some(cost) = span.model().and_then(|model| prices::cost_usd(model, usage)) {
        span.attributes.set(keys::COST_USD, cost);
        span.attributes.set(keys::PRICE_VERSION, prices::version());
    }
}

fn describe_id(span: &str, what: &str, id: &[u8], expected: usize) -> String {
    let got = match id.len() {
        0 => "none".to_owned(),
        n if n == expected => "only zeros".to_owned(),
        n => format!("{n} bytes"),
    };
    format!(
        "span {}: expected a {what} of {expected} bytes ({} hexadecimal characters in JSON) \
         that are not all zero, got {got}",
        quote(span),
        expected * 2
    )
}
