//! What may be asked: filters, and pages that are continued by keyset.

use throughline_trace::{Decision, FallbackState, LogRecord, Severity, TraceId, TraceSummary};

use crate::search::{Evidence, SearchQuery, folded};

/// One page of a list, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` when this is the last. Opaque: give it back as it is.
    pub next: Option<String>,
    /// How far a search went; lists that are not searched are always whole.
    pub search: SearchExtent,
}

/// What a page of a search covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SearchExtent {
    /// The search stopped here for its limits before the page was full: everything that started
    /// later was looked at, nanoseconds since the Unix epoch. `next` goes on from there.
    pub searched_until_unix_nano: Option<u64>,
    /// Traces that cannot be looked at whole, because they are too large or retention took what
    /// their spans said, and showed no match so far; they are not in the page, and may fit all the
    /// same. Traces of which sampling took spans count where they are walked: what the search index
    /// leads to is what is left of them, and of the rest nothing is counted.
    pub traces_cut: u64,
    /// Spans in segments that the search index did not have whole when the page was looked for: they
    /// were walked as far as the page's limits allow, which takes longer and finds the same.
    pub unindexed_spans: u64,
}

impl<T> Page<T> {
    /// A page without items or successor.
    pub fn empty() -> Self {
        Self { items: Vec::new(), next: None, search: SearchExtent::default() }
    }
}

/// Which traces a list shows; what is `None` does not matter. All conditions must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TraceFilter {
    /// Some span or decision names this agent.
    pub agent: Option<String>,
    /// Some span or decision names this session.
    pub session: Option<String>,
    /// Some span names this user.
    pub user: Option<String>,
    /// Some call was answered by this model.
    pub model: Option<String>,
    /// Some span was sent by this service.
    pub service: Option<String>,
    /// Whether some span failed.
    pub error: Option<bool>,
    /// The furthest that any fallback of the trace went.
    pub fallback: Option<FallbackState>,
    /// At least this long, milliseconds.
    pub min_duration_ms: Option<u64>,
    /// At most this long, milliseconds.
    pub max_duration_ms: Option<u64>,
    /// Part of the name of the span that stands for the trace, in any case of letters.
    pub text: Option<String>,
    /// Started at or after this, nanoseconds since the Unix epoch.
    pub start_after_unix_nano: Option<u64>,
    /// Started before this, nanoseconds since the Unix epoch.
    pub start_before_unix_nano: Option<u64>,
    /// What else must hold, in the query language.
    pub query: Option<SearchQuery>,
}

impl TraceFilter {
    /// Whether the whole summary of a trace meets every condition; traces without spans never do,
    /// and those whose summary is not enough for the query do not either.
    pub fn matches(&self, summary: &TraceSummary) -> bool {
        self.fields_match(summary)
            && self
                .query
                .as_ref()
                .is_none_or(|query| query.judge(summary, Evidence::default()) == Some(true))
    }

    /// Whether a summary meets every condition but the query.
    pub(crate) fn fields_match(&self, summary: &TraceSummary) -> bool {
        let named = |wanted: &Option<String>, names: &throughline_trace::NameSet| {
            wanted.as_ref().is_none_or(|name| names.contains(name))
        };
        let duration_ms = summary.duration_nano() / NANOS_PER_MILLI;
        summary.span_count > 0
            && named(&self.agent, &summary.agents)
            && named(&self.session, &summary.sessions)
            && named(&self.user, &summary.users)
            && named(&self.model, &summary.models)
            && named(&self.service, &summary.services)
            && self.error.is_none_or(|error| error == (summary.error_count > 0))
            && self.fallback.is_none_or(|fallback| fallback == summary.fallback)
            && self.min_duration_ms.is_none_or(|min| duration_ms >= min)
            && self
                .max_duration_ms
                .is_none_or(|max| summary.duration_nano() <= max.saturating_mul(NANOS_PER_MILLI))
            && self.start_after_unix_nano.is_none_or(|after| summary.start_unix_nano >= after)
            && self.start_before_unix_nano.is_none_or(|before| summary.start_unix_nano < before)
            && self.text.as_ref().is_none_or(|text| contains_text(summary.name(), text))
    }
}

/// Which decisions a list shows; what is `None` does not matter. All conditions must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DecisionFilter {
    /// Taken by this agent.
    pub agent: Option<String>,
    /// Taken in this session.
    pub session: Option<String>,
    /// Taken at this stage.
    pub stage: Option<String>,
    /// What was chosen.
    pub action: Option<String>,
    /// Version of the model that decided.
    pub model_version: Option<String>,
    /// Hash of what it was based on.
    pub input_hash: Option<String>,
    /// The process that recorded it.
    pub instance: Option<String>,
    /// Whether the server derived it from a foreign span.
    pub derived: Option<bool>,
    /// Taken in the course of this trace.
    pub trace_id: Option<TraceId>,
    /// Part of the reason, in any case of letters.
    pub text: Option<String>,
    /// At least this sure, 0 to 1; decisions that do not say are left out.
    pub min_confidence: Option<f64>,
    /// At most this sure, 0 to 1; decisions that do not say are left out.
    pub max_confidence: Option<f64>,
    /// Taken at or after this, nanoseconds since the Unix epoch.
    pub after_unix_nano: Option<u64>,
    /// Taken before this, nanoseconds since the Unix epoch.
    pub before_unix_nano: Option<u64>,
}

impl DecisionFilter {
    /// Whether a decision meets every condition.
    pub fn matches(&self, decision: &Decision) -> bool {
        let is =
            |wanted: &Option<String>, got: &str| wanted.as_ref().is_none_or(|name| name == got);
        is(&self.agent, &decision.agent_id)
            && is(&self.session, &decision.session_id)
            && is(&self.stage, &decision.stage)
            && is(&self.action, &decision.action)
            && is(&self.model_version, &decision.model_version)
            && is(&self.input_hash, &decision.input_hash)
            && is(&self.instance, &decision.instance_id)
            && self.derived.is_none_or(|derived| derived == decision.derived)
            && self.trace_id.is_none_or(|id| decision.trace_id == Some(id))
            && self.min_confidence.is_none_or(|min| decision.confidence.is_some_and(|c| c >= min))
            && self.max_confidence.is_none_or(|max| decision.confidence.is_some_and(|c| c <= max))
            && self.after_unix_nano.is_none_or(|after| decision.timestamp_ns >= after)
            && self.before_unix_nano.is_none_or(|before| decision.timestamp_ns < before)
            && self.text.as_ref().is_none_or(|text| contains_text(&decision.reason, text))
    }
}

/// Which log records a list shows; what is `None` does not matter. All conditions must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogFilter {
    /// Sent by this service.
    pub service: Option<String>,
    /// At least this severe.
    pub min_severity: Option<Severity>,
    /// Part of the body as text, in any case of letters.
    pub text: Option<String>,
    /// Name of the event.
    pub event_name: Option<String>,
    /// Written in the course of this trace.
    pub trace_id: Option<TraceId>,
    /// Happened at or after this, nanoseconds since the Unix epoch.
    pub after_unix_nano: Option<u64>,
    /// Happened before this, nanoseconds since the Unix epoch.
    pub before_unix_nano: Option<u64>,
}

impl LogFilter {
    /// Whether a record meets every condition.
    pub fn matches(&self, log: &LogRecord) -> bool {
        self.service.as_ref().is_none_or(|service| service == log.resource.service())
            && self.min_severity.is_none_or(|min| log.severity >= min)
            && self.event_name.as_ref().is_none_or(|name| *name == log.event_name)
            && self.trace_id.is_none_or(|id| log.trace_id == Some(id))
            && self.after_unix_nano.is_none_or(|after| log.time_unix_nano >= after)
            && self.before_unix_nano.is_none_or(|before| log.time_unix_nano < before)
            && self.text.as_ref().is_none_or(|text| contains_text(&log.body.to_text(), text))
    }
}

/// Nanoseconds in a millisecond.
pub(crate) const NANOS_PER_MILLI: u64 = 1_000_000;

/// Whether `text` holds `part`, in any case of letters.
pub(crate) fn contains_text(text: &str, part: &str) -> bool {
    text.contains(part) || folded(text).contains(&folded(part))
}
