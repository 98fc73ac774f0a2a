//! From a decoded batch to rows: encode, hash and compress, off the writer's thread.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;
use throughline_trace::{
    Attributes, Decision, Dimensions, DimensionsRef, LogRecord, MetricKind, MetricPoint,
    MetricValue, Observation, Resource, Scope, Sighting, Span, SpanBatch, SpanFacts, SpanRole,
    Value,
};

use crate::audit::chain::{self, Hash, SALT_BYTES};
use crate::body::{self, BodyError, LogBodyRef, SpanBodyRef};
use crate::derived_rows;
use crate::indicators::Watching;
use crate::messages::{self, Message, Taken};
use crate::spliced::{self, Place};

/// A batch with everything that can be worked out without the database.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The batch itself.
    pub(crate) batch: SpanBatch,
    /// One for each span, in order.
    pub(crate) spans: Vec<PreparedSpan>,
    /// One for each log record, in order.
    pub(crate) logs: Vec<PreparedLog>,
    /// One for each metric point, in order.
    pub(crate) points: Vec<PreparedPoint>,
    /// One for each decision, in order.
    pub(crate) decisions: Vec<PreparedDecision>,
    /// Resources that the above refer to by index.
    pub(crate) resources: Vec<Addressed>,
    /// Scopes that the above refer to by index.
    pub(crate) scopes: Vec<Addressed>,
    /// The bodies, one behind the other.
    pub(crate) bodies: Vec<u8>,
    /// The generation of who was asked what spans count for.
    pub(crate) observed_by: u64,
}

/// What the columns of a span need beside the span.
#[derive(Debug)]
pub(crate) struct PreparedSpan {
    pub(crate) checksum: u64,
    pub(crate) role: SpanRole,
    pub(crate) body: Range<usize>,
    pub(crate) resource: usize,
    pub(crate) scope: usize,
    pub(crate) messages: Vec<Message>,
    /// The attributes that they were taken out of.
    pub(crate) taken: Vec<Taken>,
    /// What it adds to rollups.
    pub(crate) facts: SpanFacts,
    /// What continuity is told of it, if it is inserted.
    pub(crate) sighting: Sighting,
}

/// What the columns of a log record need beside the record.
#[derive(Debug)]
pub(crate) struct PreparedLog {
    pub(crate) body: Range<usize>,
    pub(crate) resource: usize,
    pub(crate) scope: usize,
    pub(crate) messages: Vec<Message>,
}

/// What the row of a decision needs beside the decision.
#[derive(Debug)]
pub(crate) struct PreparedDecision {
    pub(crate) body: Range<usize>,
    /// What the commitment is salted with.
    pub(crate) salt: [u8; SALT_BYTES],
    /// What the chain says of the content.
    pub(crate) commitment: Hash,
}

/// What the columns of a metric point need beside the point.
#[derive(Debug)]
pub(crate) struct PreparedPoint {
    /// Address of the series.
    pub(crate) series: [u8; 16],
    pub(crate) value: Range<usize>,
    pub(crate) resource: usize,
    pub(crate) scope: usize,
}

/// Bytes with their content address.
#[derive(Debug)]
pub(crate) struct Addressed {
    pub(crate) address: [u8; 16],
    pub(crate) bytes: Vec<u8>,
    /// `service.name` of a resource; empty for a scope.
    pub(crate) service: String,
}

/// Prepares a batch.
pub(crate) fn prepare(batch: SpanBatch, watching: Watching) -> Result<Prepared, BodyError> {
    let mut work =
        Work { watching, bodies: Vec::with_capacity(batch.spans.len() * 256), ..Work::default() };
    let spans = batch.spans.iter().map(|span| work.span(span)).collect::<Result<_, _>>()?;
    let logs = batch.logs.iter().map(|log| work.log(log)).collect::<Result<_, _>>()?;
    let points = batch.metrics.iter().map(|point| work.point(point)).collect::<Result<_, _>>()?;
    let decisions =
        batch.decisions.iter().map(|one| work.decision(one)).collect::<Result<_, _>>()?;
    let Work { resources, scopes, bodies, watching, .. } = work;
    Ok(Prepared {
        batch,
        spans,
        logs,
        points,
        decisions,
        resources: resources.list,
        scopes: scopes.list,
        bodies,
        observed_by: watching.generation,
    })
}

#[derive(Default)]
struct Work {
    watching: Watching,
    observed: Vec<Observation>,
    scratch: Vec<u8>,
    /// Where in a body that is encoded known names are.
    places: Vec<Place>,
    bodies: Vec<u8>,
    resources: Shared,
    scopes: Shared,
    /// The services of `resources`, as sightings share them.
    services: Vec<Arc<str>>,
    /// Names of spans, as sightings share them.
    names: Vec<Arc<str>>,
    dimensions: Vec<Arc<Dimensions>>,
}

/// Names of spans, and combinations of dimensions, that one batch looks for among those that it had
/// already: a batch comes from one process, which has few.
const MAX_SHARED: usize = 32;

/// The shared form of dimensions: the last ones that were alike.
pub(crate) fn share(
    known: &mut Vec<Arc<Dimensions>>,
    dimensions: DimensionsRef<'_>,
) -> Arc<Dimensions> {
    share_as(known, |known| dimensions.is(known), || dimensions.to_shared())
}

fn share_as<T: ?Sized>(
    known: &mut Vec<Arc<T>>,
    is_it: impl Fn(&T) -> bool,
    make: impl FnOnce() -> Arc<T>,
) -> Arc<T> {
    if let Some(found) = known.iter().find(|known| is_it(known)) {
        return Arc::clone(found);
    }
    let made = make();
    if known.len() >= MAX_SHARED {
        known.clear();
    }
    known.push(Arc::clone(&made));
    made
}

/// Values that many items of a batch share, told apart by where they lie in memory.
#[derive(Default)]
struct Shared {
    by_pointer: HashMap<usize, usize>,
    last: Option<(usize, usize)>,
    list: Vec<Addressed>,
}

impl Shared {
    fn index<T: Serialize>(
        &mut self,
        value: &Arc<T>,
        service: impl FnOnce() -> String,
    ) -> Result<usize, BodyError> {
        let pointer = Arc::as_ptr(value) as usize;
        if let Some((last, index)) = self.last
            && last == pointer
        {
            return Ok(index);
        }
        let index = match self.by_pointer.get(&pointer) {
            Some(index) => *index,
            None => {
                let bytes = body::encode(value.as_ref())?;
                let address = body::address(&bytes);
                self.list.push(Addressed { address, bytes, service: service() });
                self.by_pointer.insert(pointer, self.list.len() - 1);
                self.list.len() - 1
            }
        };
        self.last = Some((pointer, index));
        Ok(index)
    }
}

impl Work {
    fn shared(
        &mut self,
        resource: &Arc<Resource>,
        scope: &Arc<Scope>,
    ) -> Result<(usize, usize), BodyError> {
        let resource = self.resources.index(resource, || resource.service().to_owned())?;
        let scope = self.scopes.index(scope, String::new)?;
        Ok((resource, scope))
    }

    /// Compresses what `scratch` holds up to `end` into a body.
    fn pack(&mut self, end: usize) -> Result<Range<usize>, BodyError> {
        let start = self.bodies.len();
        body::pack_into(&self.scratch[..end], &mut self.bodies)?;
        Ok(start..self.bodies.len())
    }

    fn span(&mut self, span: &Span) -> Result<PreparedSpan, BodyError> {
        let (resource, scope) = self.shared(&span.resource, &span.scope)?;
        let extracted = messages::extract(&span.attributes)?;
        self.scratch.clear();
        let body = SpanBodyRef {
            flags: span.flags,
            trace_state: &span.trace_state,
            status_message: &span.status.message,
            attributes: &extracted,
            dropped_attributes_count: span.dropped_attributes_count,
            events: &span.events,
            dropped_events_count: span.dropped_events_count,
            links: &span.links,
            dropped_links_count: span.dropped_links_count,
        };
        spliced::encode_into(&body, &mut self.scratch, &mut self.places)?;
        let begin = self.bodies.len();
        let body = match spliced::pack_into(&self.scratch, &self.places, &mut self.bodies) {
            true => begin..self.bodies.len(),
            false => self.pack(self.scratch.len())?,
        };
        // The rest of what makes the span goes behind the body, for the checksum only.
        let columns = (
            span.parent_span_id,
            &span.name,
            span.kind,
            span.status.code,
            span.start_unix_nano,
            span.end_unix_nano,
            self.resources.list[resource].address,
            self.scopes.list[scope].address,
        );
        body::encode_into(&columns, &mut self.scratch)?;
        for message in &extracted.messages {
            self.scratch.extend_from_slice(&message.address);
        }
        let role = span.role();
        self.watching.observe(span, &mut self.observed);
        let facts = SpanFacts::of(span, role, |of| share(&mut self.dimensions, of))
            .observed(&self.observed);
        for one in &self.resources.list[self.services.len()..] {
            self.services.push(Sighting::name(&one.service));
        }
        let name =
            share_as(&mut self.names, |known| *known == *span.name, || Sighting::name(&span.name));
        let sighting = Sighting::of(span, role, Arc::clone(&self.services[resource]), name);
        Ok(PreparedSpan {
            checksum: body::checksum(&self.scratch),
            role,
            facts,
            sighting,
            body,
            resource,
            scope,
            taken: extracted.taken(),
            messages: extracted.messages,
        })
    }

    fn log(&mut self, log: &LogRecord) -> Result<PreparedLog, BodyError> {
        let (resource, scope) = self.shared(&log.resource, &log.scope)?;
        let extracted = messages::extract(&log.attributes)?;
        self.scratch.clear();
        let body = LogBodyRef {
            observed_unix_nano: log.observed_unix_nano,
            severity_text: &log.severity_text,
            body: &log.body,
            attributes: &extracted,
            dropped_attributes_count: log.dropped_attributes_count,
        };
        body::encode_into(&body, &mut self.scratch)?;
        let body = self.pack(self.scratch.len())?;
        Ok(PreparedLog { body, resource, scope, messages: extracted.messages })
    }

    fn decision(&mut self, decision: &Decision) -> Result<PreparedDecision, BodyError> {
        self.scratch.clear();
        body::encode_into(decision, &mut self.scratch)?;
        let (salt, commitment) = chain::commit(&self.scratch);
        let body = match derived_rows::stored(decision)? {
            Some(short) => {
                let begin = self.bodies.len();
                self.bodies.extend_from_slice(&short);
                begin..self.bodies.len()
            }
            None => self.pack(self.scratch.len())?,
        };
        Ok(PreparedDecision { body, salt, commitment })
    }

    fn point(&mut self, point: &MetricPoint) -> Result<PreparedPoint, BodyError> {
        let (resource, scope) = self.shared(&point.resource, &point.scope)?;
        // Labels are a set: senders may order them anew at every export.
        let mut labels: Vec<&(String, Value)> = point.attributes.0.iter().collect();
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        self.scratch.clear();
        let identity = (
            &point.name,
            &point.unit,
            point.kind,
            labels,
            self.resources.list[resource].address,
            self.scopes.list[scope].address,
        );
        body::encode_into(&identity, &mut self.scratch)?;
        let series = body::address(&self.scratch);
        let start = self.bodies.len();
        body::encode_into(&(point.start_unix_nano, &point.value), &mut self.bodies)?;
        Ok(PreparedPoint { series, value: start..self.bodies.len(), resource, scope })
    }
}

/// What the row of a series holds; the order of fields is the format.
pub(crate) type SeriesBody = (MetricKind, Attributes);

/// What the row of a point holds: start of its interval and value.
pub(crate) type PointBody = (u64, MetricValue);

/// Bytes that a batch takes in memory, roughly, for the inbox's bound. Cheap: no encoding.
pub(crate) fn estimate_bytes(batch: &SpanBatch) -> usize {
    const ITEM_BYTES: usize = 400;
    const ATTRIBUTE_BYTES: usize = 64;
    let attributes = |attributes: &Attributes| -> usize {
        attributes.iter().map(|(key, value)| key.len() + value.size_bytes() + ATTRIBUTE_BYTES).sum()
    };
    let spans: usize = batch
        .spans
        .iter()
        .map(|span| {
            let events: usize =
                span.events.iter().map(|e| ITEM_BYTES / 4 + attributes(&e.attributes)).sum();
            let links: usize =
                span.links.iter().map(|l| ITEM_BYTES / 4 + attributes(&l.attributes)).sum();
            ITEM_BYTES
                + span.name.len()
                + span.status.message.len()
                + attributes(&span.attributes)
                + events
                + links
        })
        .sum();
    let logs: usize = batch
        .logs
        .iter()
        .map(|log| ITEM_BYTES + log.body.size_bytes() + attributes(&log.attributes))
        .sum();
    let decisions: usize = batch
        .decisions
        .iter()
        .map(|d| ITEM_BYTES + d.reason.len() + d.action.len() + attributes(&d.attributes))
        .sum();
    let metrics: usize = batch
        .metrics
        .iter()
        .map(|point| {
            let buckets = match &point.value {
                MetricValue::Histogram(histogram) => histogram.bounds.len() * 16,
                MetricValue::Summary { quantiles, .. } => quantiles.len() * 16,
                _ => 0,
            };
            ITEM_BYTES + buckets + attributes(&point.attributes)
        })
        .sum();
    spans + logs + decisions + metrics
}
