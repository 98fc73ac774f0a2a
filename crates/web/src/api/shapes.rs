//! The JSON forms of pages, traces and spans.
//!
//! Times are given twice: RFC 3339 with nanoseconds for people, and `*_unix_nano` as text, since
//! nanoseconds do not fit the numbers of JavaScript (OTLP/JSON does the same).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;
use throughline_store::{self as store, StoredTrace};
use throughline_trace::{self as model, Attributes, NameSet, TraceSummary, TraceTree, Value, keys};

use super::forms::{AnyObject, FallbackText, Moment, SpanIdText, TraceIdText, UnixNanos};
use super::records::{self, Decision, Log};
use crate::format::rfc3339;

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PageOf{T}")]
pub(crate) struct Page<T> {
    /// The items, in the order of the list.
    pub(crate) items: Vec<T>,
    /// Where the next page begins, to be given back as `cursor`; null when this is the last.
    pub(crate) next: Option<String>,
}

impl<T> Page<T> {
    /// A page of the store in the form of answers.
    pub(crate) fn of<S>(page: &store::Page<S>, shape: impl Fn(&S) -> T) -> Self {
        Self { items: page.items.iter().map(shape).collect(), next: page.next.clone() }
    }
}

/// A page of a list that may end before it is full, for its time.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SearchedPageOf{T}")]
pub(crate) struct SearchedPage<T> {
    #[serde(flatten)]
    page: Page<T>,
    /// How far it was looked for.
    search: SearchExtent,
}

/// How far a page was looked for.
#[derive(Debug, Serialize, JsonSchema)]
struct SearchExtent {
    /// Whether everything down to the end of the page was looked at.
    is_complete: bool,
    /// It stopped here for its limits before the page was full; `next` goes on from there.
    #[schemars(with = "Option<Moment>")]
    searched_until: Option<String>,
    /// The same in nanoseconds.
    #[schemars(with = "Option<UnixNanos>")]
    searched_until_unix_nano: Option<String>,
    /// Traces that cannot be looked at whole, as they are too large or in part retired, and showed no match.
    traces_cut: u64,
    /// Spans that were walked because the search index does not have all of their segment yet; the
    /// answer is the same.
    unindexed_spans: u64,
}

impl<T> SearchedPage<T> {
    pub(crate) fn of<S>(page: &store::Page<S>, shape: impl Fn(&S) -> T) -> Self {
        let until = page.search.searched_until_unix_nano;
        Self {
            page: Page::of(page, shape),
            search: SearchExtent {
                is_complete: until.is_none() && page.search.traces_cut == 0,
                searched_until: until.map(rfc3339),
                searched_until_unix_nano: until.map(|until| until.to_string()),
                traces_cut: page.search.traces_cut,
                unindexed_spans: page.search.unindexed_spans,
            },
        }
    }
}

/// A trace's summary.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Summary {
    #[schemars(with = "TraceIdText")]
    trace_id: model::TraceId,
    /// Name of the span that stands for the trace.
    name: String,
    /// Whether a span without a parent has arrived.
    has_root: bool,
    /// Whether the span that stands for the trace failed.
    is_error: bool,
    /// Its outcome (`ok`, `fallback_degraded`, …).
    outcome: Option<String>,
    #[schemars(with = "Option<SpanIdText>")]
    root_span_id: Option<model::SpanId>,
    agent: Option<String>,
    session: Option<String>,
    /// The first start of a span; null while none has arrived.
    #[schemars(with = "Option<Moment>")]
    start: Option<String>,
    #[schemars(with = "Option<UnixNanos>")]
    start_unix_nano: Option<String>,
    duration_ms: f64,
    #[schemars(with = "Moment")]
    received: String,
    span_count: u64,
    error_count: u64,
    llm_calls: u64,
    tool_calls: u64,
    retries: u64,
    decision_count: u64,
    log_count: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: f64,
    #[schemars(with = "FallbackText")]
    fallback: &'static str,
    /// The first 16 of each kind of name, in alphabetical order.
    #[schemars(with = "BTreeSet<String>")]
    agents: NameSet,
    #[schemars(with = "BTreeSet<String>")]
    sessions: NameSet,
    #[schemars(with = "BTreeSet<String>")]
    users: NameSet,
    #[schemars(with = "BTreeSet<String>")]
    models: NameSet,
    #[schemars(with = "BTreeSet<String>")]
    services: NameSet,
    #[schemars(with = "BTreeSet<String>")]
    tools: NameSet,
    #[schemars(with = "BTreeSet<String>")]
    error_types: NameSet,
    /// What sampling did to it; null when it did nothing.
    sampling: Option<SamplingShape>,
}

/// What sampling did to a trace.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Sampling")]
struct SamplingShape {
    /// Traces that it stands for among those that have spans; 0 when all of them are gone. The summary
    /// stands for itself.
    weight: f64,
    /// Of `span_count`: spans that are gone.
    spans_dropped: u64,
    /// Of `log_count`: log records that are gone.
    logs_dropped: u64,
    /// Of `span_count`: spans of which ids, names, times, status and role are left.
    spans_bared: u64,
}

fn sampling(summary: &TraceSummary) -> Option<SamplingShape> {
    let sampled = summary.sampled;
    sampled.is_touched().then(|| SamplingShape {
        weight: sampled.weight_of_trace(summary.span_count),
        spans_dropped: sampled.spans_dropped,
        logs_dropped: sampled.logs_dropped,
        spans_bared: sampled.spans_bared,
    })
}

/// A trace's summary, as lists of `/api/v1` have it.
pub(crate) fn summary(summary: &TraceSummary) -> Summary {
    let root = summary.root.as_ref();
    let is_begun = summary.start_unix_nano != u64::MAX;
    Summary {
        trace_id: summary.trace_id,
        name: summary.name().to_owned(),
        has_root: root.is_some_and(|root| root.is_root),
        is_error: root.is_some_and(|root| root.is_error),
        outcome: root.and_then(|root| root.outcome.clone()),
        root_span_id: root.map(|root| root.span_id),
        agent: summary.agent().map(str::to_owned),
        session: summary.session().map(str::to_owned),
        start: is_begun.then(|| rfc3339(summary.start_unix_nano)),
        start_unix_nano: is_begun.then(|| summary.start_unix_nano.to_string()),
        duration_ms: millis(summary.duration_nano()),
        received: rfc3339(summary.received_unix_nano),
        span_count: summary.span_count,
        error_count: summary.error_count,
        llm_calls: summary.llm_calls,
        tool_calls: summary.tool_calls,
        retries: summary.retries,
        decision_count: summary.decision_count,
        log_count: summary.log_count,
        input_tokens: summary.input_tokens,
        output_tokens: summary.output_tokens,
        cost_usd: summary.cost_usd(),
        fallback: summary.fallback.as_str(),
        agents: summary.agents.clone(),
        sessions: summary.sessions.clone(),
        users: summary.users.clone(),
        models: summary.models.clone(),
        services: summary.services.clone(),
        tools: summary.tools.clone(),
        error_types: summary.error_types.clone(),
        sampling: sampling(summary),
    }
}

/// A trace with everything that belongs to it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Trace {
    summary: Summary,
    /// Spans whose parent is not there.
    orphan_count: usize,
    /// Whether retention or sampling left only skeletons of some spans: ids, names, times and status.
    is_skeleton: bool,
    /// How much there is when the trace is too large to be given whole.
    truncated: Option<Truncated>,
    /// In reading order, depth first.
    spans: Vec<Node>,
    decisions: Vec<Decision>,
    logs: Vec<Log>,
}

/// How much there is of a trace that is not given whole.
#[derive(Debug, Serialize, JsonSchema)]
struct Truncated {
    total_spans: u64,
    total_logs: u64,
    total_decisions: u64,
}

/// A whole trace, its spans in reading order: what `/api/v1/traces/{trace_id}` answers.
pub(crate) fn trace(trace: StoredTrace) -> Trace {
    let tree = TraceTree::build(trace.spans);
    Trace {
        summary: summary(&trace.summary),
        orphan_count: tree.orphan_count(),
        is_skeleton: trace.is_skeleton,
        truncated: trace.truncated.map(|cut| Truncated {
            total_spans: cut.total_spans,
            total_logs: cut.total_logs,
            total_decisions: cut.total_decisions,
        }),
        spans: tree.nodes().iter().map(node).collect(),
        decisions: trace.decisions.iter().map(records::decision).collect(),
        logs: trace.logs.iter().map(records::log).collect(),
    }
}

/// A span in its place in the tree.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Span")]
struct Node {
    #[schemars(with = "TraceIdText")]
    trace_id: model::TraceId,
    #[schemars(with = "SpanIdText")]
    span_id: model::SpanId,
    #[schemars(with = "Option<SpanIdText>")]
    parent_span_id: Option<model::SpanId>,
    trace_state: String,
    name: String,
    /// `server`, `client`, `internal`, …
    kind: &'static str,
    /// What the span is in an agent's work: `agent_run`, `llm_call`, `tool`, …
    role: &'static str,
    service: String,
    #[schemars(with = "Moment")]
    start: String,
    #[schemars(with = "UnixNanos")]
    start_unix_nano: String,
    #[schemars(with = "UnixNanos")]
    end_unix_nano: String,
    duration_ms: f64,
    status: Status,
    error_type: Option<String>,
    model: Option<String>,
    tool: Option<String>,
    usage: Option<Usage>,
    cost_usd: Option<f64>,
    /// What conventions let travel as JSON text (messages, tool arguments) is given as JSON.
    #[schemars(with = "AnyObject")]
    attributes: Json,
    events: Vec<Event>,
    links: Vec<Link>,
    resource: Resource,
    scope: Scope,
    dropped: Dropped,
    /// Its distance from the root.
    depth: usize,
    /// Spans below it.
    descendants: usize,
    /// Its parent is not there.
    is_orphan: bool,
    /// The same span came twice with different content.
    is_duplicate: bool,
    /// It is its own ancestor.
    is_cycle: bool,
}

/// Whether an operation succeeded.
#[derive(Debug, Serialize, JsonSchema)]
struct Status {
    /// `unset`, `ok` or `error`.
    code: &'static str,
    message: String,
}

/// What a sender left out.
#[derive(Debug, Serialize, JsonSchema)]
struct Dropped {
    attributes: u32,
    events: u32,
    links: u32,
}

/// Tokens of one call. The details are subsets of the totals, never to be added to them.
#[derive(Debug, Serialize, JsonSchema)]
struct Usage {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_tokens: u64,
    cache_write_tokens: u64,
    cache_write_1h_tokens: u64,
    reasoning_tokens: u64,
    audio_input_tokens: u64,
    image_input_tokens: u64,
    audio_output_tokens: u64,
    image_output_tokens: u64,
}

impl From<model::Usage> for Usage {
    fn from(usage: model::Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cache_read_tokens: usage.cache_read_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            cache_write_1h_tokens: usage.cache_write_1h_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            audio_input_tokens: usage.audio_input_tokens,
            image_input_tokens: usage.image_input_tokens,
            audio_output_tokens: usage.audio_output_tokens,
            image_output_tokens: usage.image_output_tokens,
        }
    }
}

fn node(node: &model::TraceNode) -> Node {
    let span = &node.span;
    Node {
        trace_id: span.trace_id,
        span_id: span.span_id,
        parent_span_id: span.parent_span_id,
        trace_state: span.trace_state.clone(),
        name: span.name.clone(),
        kind: span.kind.as_str(),
        role: span.role().as_str(),
        service: span.service().to_owned(),
        start: rfc3339(span.start_unix_nano),
        start_unix_nano: span.start_unix_nano.to_string(),
        end_unix_nano: span.end_unix_nano.to_string(),
        duration_ms: millis(span.duration_nano()),
        status: Status { code: span.status.code.as_str(), message: span.status.message.clone() },
        error_type: span.error_type().map(str::to_owned),
        model: span.model().map(str::to_owned),
        tool: span.tool().map(str::to_owned),
        usage: model::Usage::from_attributes(&span.attributes).map(Usage::from),
        cost_usd: span.attributes.f64(keys::COST_USD),
        attributes: attributes(&span.attributes),
        events: span.events.iter().map(event).collect(),
        links: span.links.iter().map(link).collect(),
        resource: resource(&span.resource),
        scope: scope(&span.scope),
        dropped: Dropped {
            attributes: span.dropped_attributes_count,
            events: span.dropped_events_count,
            links: span.dropped_links_count,
        },
        depth: node.depth,
        descendants: node.descendants,
        is_orphan: node.is_orphan,
        is_duplicate: node.is_duplicate,
        is_cycle: node.is_cycle,
    }
}

/// Attributes as an object. What conventions let travel as JSON text (messages, tool arguments)
/// is given as the JSON that it is.
fn attributes(attributes: &Attributes) -> Json {
    const STRUCTURED: [&str; 6] = [
        keys::GEN_AI_INPUT_MESSAGES,
        keys::GEN_AI_OUTPUT_MESSAGES,
        keys::GEN_AI_SYSTEM_INSTRUCTIONS,
        keys::GEN_AI_TOOL_DEFINITIONS,
        keys::GEN_AI_TOOL_CALL_ARGUMENTS,
        keys::GEN_AI_TOOL_CALL_RESULT,
    ];
    let value = |key: &str, value: &Value| {
        if STRUCTURED.contains(&key) { value.to_structured_json() } else { value.to_json() }
    };
    Json::Object(attributes.iter().map(|(key, v)| (key.to_owned(), value(key, v))).collect())
}

/// Something that happened at a moment within a span.
#[derive(Debug, Serialize, JsonSchema)]
struct Event {
    name: String,
    #[schemars(with = "Moment")]
    time: String,
    #[schemars(with = "UnixNanos")]
    time_unix_nano: String,
    #[schemars(with = "AnyObject")]
    attributes: Json,
}

fn event(event: &model::Event) -> Event {
    Event {
        name: event.name.clone(),
        time: rfc3339(event.time_unix_nano),
        time_unix_nano: event.time_unix_nano.to_string(),
        attributes: event.attributes.to_json(),
    }
}

/// A span that this one refers to.
#[derive(Debug, Serialize, JsonSchema)]
struct Link {
    #[schemars(with = "TraceIdText")]
    trace_id: model::TraceId,
    #[schemars(with = "SpanIdText")]
    span_id: model::SpanId,
    #[schemars(with = "AnyObject")]
    attributes: Json,
}

fn link(link: &model::Link) -> Link {
    Link { trace_id: link.trace_id, span_id: link.span_id, attributes: link.attributes.to_json() }
}

/// Who sent it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Resource {
    #[schemars(with = "AnyObject")]
    attributes: Json,
    schema_url: String,
}

pub(crate) fn resource(resource: &model::Resource) -> Resource {
    Resource { attributes: resource.attributes.to_json(), schema_url: resource.schema_url.clone() }
}

/// The instrumentation that made it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Scope {
    name: String,
    version: String,
    #[schemars(with = "AnyObject")]
    attributes: Json,
}

pub(crate) fn scope(scope: &model::Scope) -> Scope {
    Scope {
        name: scope.name.clone(),
        version: scope.version.clone(),
        attributes: scope.attributes.to_json(),
    }
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}
