//! The summary of a trace: a merge monoid, so that partial summaries of batches, segments and
//! machines give the same whole in any order.

use serde::{Deserialize, Serialize};

use crate::calls::nano_usd;
use crate::{CallCounts, Decision, NameSet, Sampled, Span, SpanId, SpanRole, TraceId, keys};

/// Most distinct agents, users, models, services or tools that a summary lists; further ones are not
/// named (the spans still have them). The kept ones are the first in alphabetical order, so that
/// merging stays independent of order.
pub const MAX_NAMES_PER_SUMMARY: usize = 16;

/// What a list shows of a trace without reading its spans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceSummary {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that stands for the trace: a true root if one has arrived, else the earliest span.
    pub root: Option<RootSpan>,
    /// Earliest start, nanoseconds since the Unix epoch; `u64::MAX` while only decisions are known.
    pub start_unix_nano: u64,
    /// Latest end, nanoseconds since the Unix epoch.
    pub end_unix_nano: u64,
    /// Latest arrival at the server, nanoseconds since the Unix epoch.
    pub received_unix_nano: u64,
    /// Spans stored.
    pub span_count: u64,
    /// Spans with status ERROR.
    pub error_count: u64,
    /// Logical model calls.
    pub llm_calls: u64,
    /// Tool runs.
    pub tool_calls: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Decisions recorded.
    pub decision_count: u64,
    /// Log records attached.
    pub log_count: u64,
    /// Tokens in of all logical calls.
    pub input_tokens: u64,
    /// Tokens out of all logical calls.
    pub output_tokens: u64,
    /// Cost of all logical calls, billionths of a US dollar (an integer, so that sums are exact).
    pub cost_nano_usd: u64,
    /// The furthest that any fallback of the trace went.
    pub fallback: FallbackState,
    /// Agents named.
    pub agents: NameSet,
    /// Sessions named.
    pub sessions: NameSet,
    /// Models that answered.
    pub models: NameSet,
    /// Services that sent spans.
    pub services: NameSet,
    /// Tools that ran.
    pub tools: NameSet,
    /// `error.type` values and exception classes of failed spans.
    pub error_types: NameSet,
    /// Users on whose behalf spans say that they work. It is the last field that is stored: what was stored before
    /// there was one ends here.
    pub users: NameSet,
    /// What sampling did to it. Whoever reads a trace fills it in: it is no part of the stored form.
    #[serde(skip)]
    pub sampled: Sampled,
}

/// The span that stands for a trace in lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootSpan {
    /// Whether it has no parent (otherwise the true root has not arrived).
    pub is_root: bool,
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// End, nanoseconds since the Unix epoch.
    pub end_unix_nano: u64,
    /// Its id.
    pub span_id: SpanId,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// The agent that it names.
    pub agent: Option<String>,
    /// The session that it names.
    pub session: Option<String>,
    /// Whether it has status ERROR.
    pub is_error: bool,
    /// Its business outcome (`outcome` attribute).
    pub outcome: Option<String>,
}

impl RootSpan {
    fn rank(&self) -> (bool, u64, SpanId, u64, &str) {
        (!self.is_root, self.start_unix_nano, self.span_id, self.end_unix_nano, &self.name)
    }
}

/// How far the fallbacks of a trace went, from least to most.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum FallbackState {
    /// No operation had a fallback.
    #[default]
    None,
    /// There was one, and it was not needed.
    Skipped,
    /// It was needed, and it worked.
    Degraded,
    /// It was needed, and failed too.
    Failed,
}

impl FallbackState {
    /// All of them, from what went best.
    pub const ALL: [Self; 4] = [Self::None, Self::Skipped, Self::Degraded, Self::Failed];

    /// The state of a name.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Lowercase name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Skipped => "skipped",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }

    fn of(span: &Span) -> Self {
        match span.attributes.str(keys::FALLBACK_DECISION) {
            Some("triggered") => match span.attributes.str(keys::FALLBACK_RESULT) {
                Some("failed") => Self::Failed,
                _ => Self::Degraded,
            },
            Some("skipped") => Self::Skipped,
            _ => Self::None,
        }
    }
}

impl TraceSummary {
    /// The neutral element of [`TraceSummary::merge`].
    pub fn empty(trace_id: TraceId) -> Self {
        Self {
            trace_id,
            root: None,
            start_unix_nano: u64::MAX,
            end_unix_nano: 0,
            received_unix_nano: 0,
            span_count: 0,
            error_count: 0,
            llm_calls: 0,
            tool_calls: 0,
            retries: 0,
            decision_count: 0,
            log_count: 0,
            input_tokens: 0,
            output_tokens: 0,
            cost_nano_usd: 0,
            fallback: FallbackState::None,
            agents: NameSet::new(),
            sessions: NameSet::new(),
            models: NameSet::new(),
            services: NameSet::new(),
            tools: NameSet::new(),
            error_types: NameSet::new(),
            users: NameSet::new(),
            sampled: Sampled::default(),
        }
    }

    /// Takes one span in that has really been inserted (a redelivery must not come here). Whoever
    /// has all spans of the trace at hand asks a [`CallLedger`](crate::CallLedger) which calls were
    /// told twice, and [takes them back](Self::take_back).
    pub fn add_span(&mut self, span: &Span, received_unix_nano: u64) {
        self.add_span_as(span, span.role(), received_unix_nano);
    }

    /// [`add_span`](Self::add_span) for who knows the span's role already.
    pub fn add_span_as(&mut self, span: &Span, role: SpanRole, received_unix_nano: u64) {
        self.offer_root(span);
        self.start_unix_nano = self.start_unix_nano.min(span.start_unix_nano);
        self.end_unix_nano = self.end_unix_nano.max(span.end_unix_nano);
        self.received_unix_nano = self.received_unix_nano.max(received_unix_nano);
        self.span_count += 1;
        self.services.insert_capped(span.service(), MAX_NAMES_PER_SUMMARY);
        if let Some(agent) = span.agent() {
            self.agents.insert_capped(agent, MAX_NAMES_PER_SUMMARY);
        }
        if let Some(session) = span.session() {
            self.sessions.insert_capped(session, MAX_NAMES_PER_SUMMARY);
        }
        if let Some(user) = span.user() {
            self.users.insert_capped(&user, MAX_NAMES_PER_SUMMARY);
        }
        if span.is_error() {
            self.error_count += 1;
            if let Some(kind) = span.error_type() {
                self.error_types.insert_capped(kind, MAX_NAMES_PER_SUMMARY);
            }
        }
        match role {
            SpanRole::LlmCall | SpanRole::Embeddings => {
                self.llm_calls += 1;
                if let Some(model) = span.model() {
                    self.models.insert_capped(model, MAX_NAMES_PER_SUMMARY);
                }
                if let Some(usage) = span.counted_usage() {
                    self.input_tokens = self.input_tokens.saturating_add(usage.input_tokens);
                    self.output_tokens = self.output_tokens.saturating_add(usage.output_tokens);
                }
                if let Some(cost) = span.counted_cost_usd() {
                    self.cost_nano_usd = self.cost_nano_usd.saturating_add(nano_usd(cost));
                }
            }
            SpanRole::Tool => {
                self.tool_calls += 1;
                if let Some(tool) = span.tool() {
                    self.tools.insert_capped(tool, MAX_NAMES_PER_SUMMARY);
                }
            }
            SpanRole::Attempt if span.attributes.u64(keys::RETRY_COUNT).unwrap_or(0) > 0 => {
                self.retries += 1;
            }
            SpanRole::Fallback => self.fallback = self.fallback.max(FallbackState::of(span)),
            _ => {}
        }
    }

    /// Takes back what [`CallLedger`](crate::CallLedger) found to be told twice.
    pub fn take_back(&mut self, told_twice: CallCounts) {
        let CallCounts { calls, input_tokens, output_tokens, cost_nano_usd } = told_twice;
        self.llm_calls = self.llm_calls.saturating_sub(calls);
        self.input_tokens = self.input_tokens.saturating_sub(input_tokens);
        self.output_tokens = self.output_tokens.saturating_sub(output_tokens);
        self.cost_nano_usd = self.cost_nano_usd.saturating_sub(cost_nano_usd);
    }

    /// Takes one decision in that has really been inserted.
    pub fn add_decision(&mut self, decision: &Decision) {
        self.decision_count += 1;
        self.add_names(decision);
    }

    /// Takes the names in that a decision tells, and when it came, but does not count it.
    pub fn add_names(&mut self, decision: &Decision) {
        self.received_unix_nano = self.received_unix_nano.max(decision.received_at_ns);
        if !decision.agent_id.is_empty() {
            self.agents.insert_capped(&decision.agent_id, MAX_NAMES_PER_SUMMARY);
        }
        if !decision.session_id.is_empty() {
            self.sessions.insert_capped(&decision.session_id, MAX_NAMES_PER_SUMMARY);
        }
    }

    /// Joins what another part knows about the same trace. Commutative and associative, with
    /// [`TraceSummary::empty`] as the neutral element.
    pub fn merge(&mut self, other: Self) {
        debug_assert_eq!(self.trace_id, other.trace_id, "summaries of one trace are merged");
        self.root = match (self.root.take(), other.root) {
            (Some(mine), Some(theirs)) if theirs.rank() < mine.rank() => Some(theirs),
            (Some(mine), _) => Some(mine),
            (None, theirs) => theirs,
        };
        self.start_unix_nano = self.start_unix_nano.min(other.start_unix_nano);
        self.end_unix_nano = self.end_unix_nano.max(other.end_unix_nano);
        self.received_unix_nano = self.received_unix_nano.max(other.received_unix_nano);
        for (mine, theirs) in [
            (&mut self.span_count, other.span_count),
            (&mut self.error_count, other.error_count),
            (&mut self.llm_calls, other.llm_calls),
            (&mut self.tool_calls, other.tool_calls),
            (&mut self.retries, other.retries),
            (&mut self.decision_count, other.decision_count),
            (&mut self.log_count, other.log_count),
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.cost_nano_usd, other.cost_nano_usd),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        self.fallback = self.fallback.max(other.fallback);
        self.sampled.merge(other.sampled);
        for (mine, theirs) in [
            (&mut self.agents, other.agents),
            (&mut self.sessions, other.sessions),
            (&mut self.models, other.models),
            (&mut self.services, other.services),
            (&mut self.tools, other.tools),
            (&mut self.error_types, other.error_types),
            (&mut self.users, other.users),
        ] {
            mine.merge_capped(theirs, MAX_NAMES_PER_SUMMARY);
        }
    }

    /// The name of the span that stands for the trace, or a stand-in while none has arrived.
    pub fn name(&self) -> &str {
        self.root.as_ref().map_or("(no spans yet)", |root| &root.name)
    }

    /// The agent to show: the root's, else the first named.
    pub fn agent(&self) -> Option<&str> {
        let root = self.root.as_ref().and_then(|root| root.agent.as_deref());
        root.or_else(|| self.agents.first().map(String::as_str))
    }

    /// The session to show: the root's, else the first named.
    pub fn session(&self) -> Option<&str> {
        let root = self.root.as_ref().and_then(|root| root.session.as_deref());
        root.or_else(|| self.sessions.first().map(String::as_str))
    }

    /// Nanoseconds from the earliest start to the latest end.
    pub fn duration_nano(&self) -> u64 {
        self.end_unix_nano.saturating_sub(self.start_unix_nano)
    }

    /// Cost of all logical calls, US dollars.
    pub fn cost_usd(&self) -> f64 {
        self.cost_nano_usd as f64 / 1e9
    }

    fn offer_root(&mut self, span: &Span) {
        let offered = RootSpan {
            is_root: span.parent_span_id.is_none(),
            start_unix_nano: span.start_unix_nano,
            end_unix_nano: span.end_unix_nano,
            span_id: span.span_id,
            name: String::new(),
            service: String::new(),
            agent: None,
            session: None,
            is_error: span.is_error(),
            outcome: None,
        };
        let fields = |root: &RootSpan| (!root.is_root, root.start_unix_nano, root.span_id);
        if let Some(current) = &self.root
            && fields(current) < fields(&offered)
        {
            return;
        }
        let offered = RootSpan {
            name: span.name.clone(),
            service: span.service().to_owned(),
            agent: span.agent().map(str::to_owned),
            session: span.session().map(str::to_owned),
            outcome: span.attributes.str(keys::OUTCOME).map(str::to_owned),
            ..offered
        };
        if self.root.as_ref().is_none_or(|current| offered.rank() < current.rank()) {
            self.root = Some(offered);
        }
    }
}
