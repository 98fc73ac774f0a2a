//! The nouns that every room of Throughline shares: ids, spans, decisions, the trace tree.
//!
//! Nothing here does IO, awaits, or reads a clock: times are passed in as nanoseconds since the
//! Unix epoch. A span is the same value from the moment ingest has decoded it to the moment a page
//! shows it; what has happened to it is told by the type around it ([`SpanBatch`], then the store's
//! `Committed`, then [`TraceTree`]).
//!
//! One invariant: building a [`TraceTree`] never loses a span. Orphans, duplicates and cycles are
//! kept and marked.
//!
//! ```
//! use throughline_trace::{Span, SpanId, TraceId, TraceTree};
//!
//! let trace_id: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse()?;
//! let root = Span::new(trace_id, SpanId::from_u64(1), None, "invoke_agent fraud");
//! let step = Span::new(trace_id, SpanId::from_u64(2), Some(SpanId::from_u64(1)), "fraud.plan.risk");
//! let lost = Span::new(trace_id, SpanId::from_u64(4), Some(SpanId::from_u64(3)), "chat gpt-4o");
//! let tree = TraceTree::build(vec![lost, step, root]);
//! assert_eq!(
//!     tree.to_text(),
//!     "invoke_agent fraud\n  fraud.plan.risk\n? chat gpt-4o (orphan of 0000000000000003)\n"
//! );
//! # Ok::<(), throughline_trace::ParseIdError>(())
//! ```

pub mod access;
pub mod keys;

mod batch;
mod calls;
mod canonical;
mod continuity;
mod contract_step;
mod decision;
mod directive;
mod error_type;
mod finding;
mod gateway_standing;
mod genai;
mod ids;
mod log;
mod metric;
mod name_set;
mod names;
mod observe;
mod rollup;
mod route_weights;
mod sampled;
mod span;
mod summary;
mod tree;
mod value;

pub use batch::{Accepted, Refusal, SpanBatch};
pub use calls::{Call, CallCounts, CallLedger, is_call, nano_usd};
pub use canonical::canonical_json;
pub use continuity::{
    Break, CLOCK_TOLERANCE_NANOS, ClockOddity, ClockSkew, ContinuityCoverage, ContinuityLimits,
    ContinuityReport, ContinuityTracker, Conversation, FOLDED, GRACE_NANOS, KEPT_NANOS,
    MAX_EXAMPLES, MAX_WAIT_NANOS, MIN_SEEN, MissingRoots, ServiceContinuity, Sighting, SpanTimes,
    SplitTraces, SuspectedEdge, USUALLY_PERCENT, clock_oddity, describe_edges, edges_of_spans,
};
pub use contract_step::ContractStep;
pub use decision::{Decision, DecisionId};
pub use directive::{
    ActionError, DIRECTIVE_ID_MAX_CHARS, DIRECTIVE_MAX_BYTES, DIRECTIVE_VERSION, Directive,
    DirectiveAck, DirectiveAction, DirectiveError, DirectiveStatus, DirectiveTarget,
    MAX_RETRY_ATTEMPTS, MAX_RETRY_PAUSE_MS, RetryJitter, RetryStrategy, RetryStrategyError,
};
pub use error_type::ErrorType;
pub use finding::{
    Action, FINDING_ID_MAX_CHARS, Finding, FindingSeverity, FindingState, MAX_EVIDENCE_TRACES,
    Operation, Subject, finding_id,
};
pub use gateway_standing::{
    GatewayStanding, KeySpending, KeyStanding, RouteStanding, RouteTargetStanding, TargetStanding,
};
pub use genai::{SpanRole, Usage};
pub use ids::{ParseIdError, SpanId, TRACE_ID_PATTERN, TraceId};
pub use log::{LogRecord, Severity};
pub use metric::{HistogramValue, MetricKind, MetricPoint, MetricValue};
pub use name_set::NameSet;
pub use names::{Phase, StepName, StepNameError};
pub use observe::{Counts, INDICATOR_ID_MAX_CHARS, Observation, Observe};
pub use rollup::{
    Cuboid, Dimension, Dimensions, DimensionsRef, Fallbacks, LatticeKey, MAX_DIMENSION_CHARS,
    MAX_SERIES_GROUPS, MAX_SERIES_MEASURES, MAX_SERIES_POINTS, Measure, OTHER, OperationKind,
    Operations, Outcome, PhaseName, Resolution, Rollup, SKETCH_ACCURACY, SKETCH_GAMMA,
    SeriesGroups, SeriesPlan, SeriesQuery, SeriesQueryError, Sketch, SpanFacts, SpanFrame, Spent,
};
pub use route_weights::{
    MAX_ROUTE_TARGETS, ROUTE_NAME_MAX_CHARS, RouteTarget, RouteWeights, RouteWeightsError,
};
pub use sampled::{MIN_SAMPLING_RATE, Sampled, SamplingRate};
pub use span::{Event, Link, Resource, SDK_SCOPE, Scope, Span, SpanKind, Status, StatusCode};
pub use summary::{FallbackState, MAX_NAMES_PER_SUMMARY, RootSpan, TraceSummary};
pub use tree::{TraceNode, TraceTree};
pub use value::{Attributes, Value};
