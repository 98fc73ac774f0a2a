//! The table `spans`.

use std::cell::{Cell as StdCell, OnceCell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use throughline_trace::{
    Attributes, Event, Link, Phase, SpanId, SpanKind, SpanRole, StatusCode, TraceId, Usage,
    is_call, keys, nano_usd,
};

use super::columns::columns;
use super::source::Source;
use super::span_order::ByTime;
use super::span_scan::{Looks, Scan, SpanRow, Stored, Wanted, stored};
use super::view::{Cell, Identity, Op, Plan, Rows, View};
use crate::body::{self, SpanBody};
use crate::error::QueryError;
use crate::insert::read_varints;
use crate::layout::SegmentId;
use crate::messages::{self, Slot};
use crate::read_spans::{Messages, RowReader};
use crate::sampled;
use crate::session::Lease;
use crate::sql::SqlViewColumn;
use crate::trace_rows::RowError;

columns! { Column {
    TraceId "trace_id" Text "id of the trace, 32 hexadecimal digits";
    SpanId "span_id" Text "id of the span, unique in its trace, 16 hexadecimal digits";
    Parent "parent_span_id" Text "span that caused it; null for a root";
    Name "name" Text "what was done";
    Kind "kind" Text "`internal`, `server`, `client`, `producer`, `consumer` or `unspecified`";
    Role "role" Text "part of an agent's work: `agent_run`, `step`, `llm_call`, `attempt`, `stream_segment`, `embeddings`, `tool`, `registry`, `fallback`, `retrieval`, `workflow` or `other`";
    Status "status" Text "`unset`, `ok` or `error`";
    Service "service" Text "service that sent it";
    Start "start_unix_nano" Integer "start, by the sender's clock, nanoseconds since the Unix epoch";
    End "end_unix_nano" Integer "end, by the sender's clock, nanoseconds since the Unix epoch";
    Duration "duration_nano" Integer "from start to end, nanoseconds";
    StatusMessage "status_message" Text "what went wrong, for people";
    Agent "agent" Text "agent that it belongs to";
    Session "session" Text "session that it belongs to";
    Workflow "workflow" Text "workflow that it belongs to";
    Phase "phase" Text "`plan`, `act`, `observe` or `reflect`";
    Outcome "outcome" Text "business outcome";
    ErrorType "error_type" Text "`error.type`";
    RetryCount "retry_count" Integer "index of an attempt from 0, or total of its parent";
    Tool "tool" Text "tool that ran or was used";
    Provider "provider" Text "provider of the model (`gen_ai.provider.name`)";
    Model "model" Text "model that answered, else the one asked; of model calls (`llm_call`, `embeddings`) only, as the following";
    InputTokens "input_tokens" Integer "tokens in";
    OutputTokens "output_tokens" Integer "tokens out";
    CachedTokens "cached_tokens" Integer "of the tokens in: read from a cache";
    ReasoningTokens "reasoning_tokens" Integer "of the tokens out: spent on reasoning";
    CostNanoUsd "cost_nano_usd" Integer "cost, billionths of a US dollar";
    CostUsd "cost_usd" Real "the same, US dollars";
    FirstToken "first_token_seconds" Real "time to the first token, seconds";
    Attributes "attributes" Json "named values, by their full keys: `attributes ->> 'gen_ai.request.model'`";
    Events "events" Json "what happened within it, a list of {name, time_unix_nano, attributes}";
    Links "links" Json "related spans, a list of {trace_id, span_id, attributes}";
    Resource "resource" Json "named values of who sent it";
    Scope "scope" Text "library that made it";
    SamplingWeight "sampling_weight" Real "spans that it stands for: 1 unless sampling chose its trace by chance; sum it instead of counting rows";
} }

/// Columns up to this one are in a span's row; further ones are in its body.
const LAST_IN_ROW: u64 = Column::Duration as u64;

/// The table.
pub(super) struct Spans;

impl View for Spans {
    const NAME: &'static str = "spans";
    const ABOUT: &'static str = "Spans of all traces, one row each.";
    const COLUMNS: &'static [SqlViewColumn] = Column::INFO;
    const NEWEST_FIRST: Option<&'static str> = Some("start_unix_nano");
    type Rows = SpanRows;

    fn share(column: &str, op: Op) -> Option<f64> {
        match (column, op) {
            ("trace_id", Op::Is) => Some(0.000_02),
            ("start_unix_nano", Op::Is) => Some(0.000_01),
            ("start_unix_nano", _) => Some(0.3),
            ("session", Op::Is) => Some(0.001),
            ("status" | "role" | "agent" | "model" | "service", Op::Is) => Some(0.2),
            _ => None,
        }
    }

    fn open(source: &Source, plan: &Plan) -> Result<SpanRows, QueryError> {
        let of_bodies = plan.columns & !(1 << Column::SamplingWeight as u64);
        let with_bodies = of_bodies >> (LAST_IN_ROW + 1) != 0;
        let wanted = Wanted::of(plan, with_bodies);
        let walk = if wanted.is_nothing {
            Walk::Count(0)
        } else {
            let segments = source.session().segments()?;
            source.note_sampling(&segments);
            if plan.columns == 0 && wanted.is_all() {
                // Nothing but how many there are.
                Walk::Count(segments.iter().map(|segment| segment.digest.spans).sum())
            } else if plan.is_ordered {
                Walk::ByTime(Box::new(ByTime::new(source, wanted, segments)))
            } else {
                Walk::Scan(Box::new(Scan::new(source, wanted, segments)))
            }
        };
        Ok(SpanRows {
            walk,
            row: None,
            parts: OnceCell::new(),
            looks: RefCell::new(Looks::new(source)),
            weight: StdCell::default(),
            services: RefCell::default(),
            messages: RefCell::default(),
        })
    }
}

/// How rows are come by.
enum Walk {
    Count(u64),
    Scan(Box<Scan>),
    ByTime(Box<ByTime>),
}

/// Rows of the table.
pub(super) struct SpanRows {
    walk: Walk,
    row: Option<SpanRow>,
    /// The body of `row`, once a column needs it.
    parts: OnceCell<Parts>,
    looks: RefCell<Looks>,
    /// The weight that was read last, with its place: spans of one trace come together.
    weight: StdCell<Option<(SegmentId, TraceId, f64)>>,
    services: RefCell<HashMap<(SegmentId, i64), Arc<str>>>,
    /// Messages that were read last, of this segment.
    messages: RefCell<Option<(SegmentId, Messages)>>,
}

/// What the body of a span says.
struct Parts {
    role: SpanRole,
    status_message: String,
    /// Without the messages.
    attributes: Attributes,
    usage: Option<Usage>,
    has_messages: bool,
    events: Vec<Event>,
    links: Vec<Link>,
}

impl Rows for SpanRows {
    fn next(&mut self) -> Result<bool, QueryError> {
        self.parts.take();
        self.row = match &mut self.walk {
            Walk::Count(left) => {
                let is_there = *left > 0;
                *left = left.saturating_sub(1);
                return Ok(is_there);
            }
            Walk::Scan(scan) => scan.next()?,
            Walk::ByTime(walk) => walk.next()?,
        };
        Ok(self.row.is_some())
    }

    fn identity(&self) -> Identity {
        let Some(row) = &self.row else { return Identity::of(&[]) };
        let segment = row.segment.stem();
        Identity::of(&[segment.as_bytes(), &row.key.to_le_bytes()])
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>, QueryError> {
        let Some((row, column)) = self.row.as_ref().zip(Column::at(column)) else {
            return Ok(Cell::Null);
        };
        Ok(match column {
            Column::TraceId => Cell::owned(row.trace_id.to_string()),
            Column::SpanId => Cell::owned(SpanId::from_u64(row.span_id as u64).to_string()),
            Column::Parent => match row.parent {
                Some(id) => Cell::owned(SpanId::from_u64(id as u64).to_string()),
                None => Cell::Null,
            },
            Column::Name => Cell::text(&row.name),
            Column::Kind => Cell::text(SpanKind::from_i32(row.kind).as_str()),
            Column::Role => Cell::text(role_of(row).as_str()),
            Column::Status => Cell::text(StatusCode::from_i32(row.status).as_str()),
            Column::Service => Cell::owned(&*self.service(row)?),
            Column::Start => Cell::count(row.start_unix_nano),
            Column::End => Cell::count(row.start_unix_nano.wrapping_add(row.duration_nano)),
            Column::Duration => Cell::count(row.duration_nano),
            Column::Attributes => self.attributes(row)?,
            Column::Resource => self.look(row.segment, |lease| {
                Ok(Cell::json(&RowReader::new(lease).resource(row.resource)?.attributes.to_json()))
            })?,
            Column::Scope => self.look(row.segment, |lease| {
                let scope = RowReader::new(lease).scope(row.scope)?;
                Ok(if scope.name.is_empty() { Cell::Null } else { Cell::owned(&scope.name) })
            })?,
            Column::SamplingWeight => Cell::Real(self.weight(row)?),
            column => self.parts(row)?.cell(column),
        })
    }
}

fn role_of(row: &SpanRow) -> SpanRole {
    SpanRole::ALL.get(row.role).copied().unwrap_or(SpanRole::Other)
}

impl SpanRows {
    /// Looks into a segment.
    fn look<T>(
        &self,
        segment: SegmentId,
        look: impl FnOnce(&Lease) -> Result<T, RowError>,
    ) -> Result<T, QueryError> {
        let mut looks = self.looks.borrow_mut();
        let lease = looks.lease(segment)?;
        look(lease).map_err(|error| error.on_query(lease.path()))
    }

    /// What a span of the row stands for, by the segment that has it.
    fn weight(&self, row: &SpanRow) -> Result<f64, QueryError> {
        if let Some((segment, id, weight)) = self.weight.get()
            && (segment, id) == (row.segment, row.trace_id)
        {
            return Ok(weight);
        }
        let weight = self.look(row.segment, |lease| {
            Ok(sampled::of(lease, row.trace_id)?.map_or(1.0, |sampled| sampled.weight_of_span()))
        })?;
        self.weight.set(Some((row.segment, row.trace_id, weight)));
        Ok(weight)
    }

    fn service(&self, row: &SpanRow) -> Result<Arc<str>, QueryError> {
        let place = (row.segment, row.resource);
        if let Some(known) = self.services.borrow().get(&place) {
            return Ok(Arc::clone(known));
        }
        let service: Arc<str> = self.look(row.segment, |lease| {
            let name: String = lease
                .prepare_cached("SELECT service FROM resources WHERE resource = ?1")?
                .query_row([row.resource], |row| row.get(0))?;
            Ok(name.into())
        })?;
        self.services.borrow_mut().insert(place, Arc::clone(&service));
        Ok(service)
    }

    /// The body of the row, which was read along or is read now.
    fn with_stored<T>(
        &self,
        row: &SpanRow,
        read: impl FnOnce(&Stored) -> Result<T, RowError>,
    ) -> Result<T, QueryError> {
        match &row.stored {
            Some(stored) => read(stored)
                .map_err(|error| error.on_query(std::path::Path::new(&row.segment.file_name()))),
            None => self.look(row.segment, |lease| read(&stored(lease, row.key)?)),
        }
    }

    fn parts(&self, row: &SpanRow) -> Result<&Parts, QueryError> {
        if self.parts.get().is_none() {
            let body: SpanBody =
                self.with_stored(row, |stored| Ok(body::unpack_value(&stored.body)?))?;
            let _ = self.parts.set(Parts::of(role_of(row), body));
        }
        self.parts.get().ok_or_else(|| QueryError::Storage("a body was not kept".to_owned()))
    }

    /// All attributes. The body is unpacked for them alone, where no other column needs it.
    fn attributes(&self, row: &SpanRow) -> Result<Cell<'_>, QueryError> {
        if let Some(parts) = self.parts.get().filter(|parts| !parts.has_messages) {
            return Ok(Cell::json(&parts.attributes.to_json()));
        }
        let (slots, numbers) = self.with_stored(row, |stored| {
            let body: SpanBody = body::unpack_value(&stored.body)?;
            Ok((body.attributes, stored.messages.as_deref().map(read_varints).unwrap_or_default()))
        })?;
        if numbers.is_empty() {
            let restored = messages::restore(slots, || None).map_err(RowError::from);
            let path = row.segment.file_name();
            let whole = restored.map_err(|error| error.on_query(std::path::Path::new(&path)))?;
            return Ok(Cell::json(&whole.to_json()));
        }
        let known = self.messages.take().filter(|(segment, _)| *segment == row.segment);
        let known = known.map(|(_, messages)| messages).unwrap_or_default();
        let (whole, known) = self.look(row.segment, |lease| {
            let mut reader = RowReader::knowing(lease, known);
            let whole = reader.restored(slots, &numbers)?;
            Ok((whole, reader.into_messages()))
        })?;
        *self.messages.borrow_mut() = Some((row.segment, known));
        Ok(Cell::json(&whole.to_json()))
    }
}

impl Parts {
    fn of(role: SpanRole, body: SpanBody) -> Self {
        let total = body.attributes.len();
        let plain: Vec<_> = body
            .attributes
            .into_iter()
            .filter_map(|(key, slot)| match slot {
                Slot::Plain(value) => Some((key, value)),
                Slot::Text { .. } | Slot::List { .. } => None,
            })
            .collect();
        let has_messages = plain.len() < total;
        let attributes = Attributes(plain);
        let usage = is_call(role).then(|| Usage::from_attributes(&attributes)).flatten();
        Self {
            role,
            status_message: body.status_message,
            attributes,
            usage,
            has_messages,
            events: body.events,
            links: body.links,
        }
    }

    fn cell(&self, column: Column) -> Cell<'_> {
        let attributes = &self.attributes;
        let usage = |of: fn(&Usage) -> u64| Cell::count_or_null(self.usage.as_ref().map(of));
        match column {
            Column::StatusMessage => Cell::said(&self.status_message),
            Column::Agent => Cell::text_or_null(attributes.agent()),
            Column::Session => Cell::text_or_null(attributes.session()),
            Column::Workflow => Cell::text_or_null(attributes.str(keys::WORKFLOW_ID)),
            Column::Phase => {
                let phase = attributes.str(keys::AI_PHASE).and_then(Phase::from_text);
                Cell::text_or_null(phase.map(Phase::as_str))
            }
            Column::Outcome => Cell::text_or_null(attributes.str(keys::OUTCOME)),
            Column::ErrorType => Cell::text_or_null(attributes.str(keys::ERROR_TYPE)),
            Column::RetryCount => Cell::count_or_null(attributes.u64(keys::RETRY_COUNT)),
            Column::Tool => Cell::text_or_null(attributes.tool()),
            Column::Provider => Cell::text_or_null(attributes.str(keys::GEN_AI_PROVIDER_NAME)),
            Column::Model => Cell::text_or_null(attributes.model().filter(|_| is_call(self.role))),
            Column::InputTokens => usage(|usage| usage.input_tokens),
            Column::OutputTokens => usage(|usage| usage.output_tokens),
            Column::CachedTokens => usage(|usage| usage.cache_read_tokens),
            Column::ReasoningTokens => usage(|usage| usage.reasoning_tokens),
            Column::CostNanoUsd => {
                let nanos = self.cost_usd().map(nano_usd);
                Cell::count_or_null(nanos)
            }
            Column::CostUsd => Cell::real_or_null(self.cost_usd()),
            Column::FirstToken => {
                let key = keys::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK;
                Cell::real_or_null(attributes.f64(key).filter(|_| is_call(self.role)))
            }
            Column::Events => Cell::json(&self.events.iter().map(event).collect()),
            Column::Links => Cell::json(&self.links.iter().map(link).collect()),
            _ => Cell::Null,
        }
    }

    /// What the span stands for in totals: the rule of
    /// [`counted_cost_usd`](throughline_trace::Span::counted_cost_usd).
    fn cost_usd(&self) -> Option<f64> {
        let cost = self.attributes.f64(keys::COST_USD).filter(|_| is_call(self.role));
        cost.filter(|cost| cost.is_finite() && *cost >= 0.0)
    }
}

pub(crate) fn event(event: &Event) -> serde_json::Value {
    serde_json::json!({
        "name": event.name,
        "time_unix_nano": event.time_unix_nano,
        "attributes": event.attributes.to_json(),
    })
}

pub(crate) fn link(link: &Link) -> serde_json::Value {
    serde_json::json!({
        "trace_id": link.trace_id,
        "span_id": link.span_id,
        "attributes": link.attributes.to_json(),
    })
}
