//! The table `decisions`: what agents chose. Reading it is noted, as every other reading of the
//! audit log is.

use throughline_trace::{Decision, DecisionId, TraceId};

use super::columns::columns;
use super::pages::Pages;
use super::source::Source;
use super::view::{Cell, Identity, Op, Plan, Rows, View};
use crate::error::QueryError;
use crate::query::DecisionFilter;
use crate::read_logs;
use crate::sql::SqlViewColumn;

columns! { Column {
    DecisionId "decision_id" Text "id of the decision, a UUID";
    ParentDecisionId "parent_decision_id" Text "decision that led to it, a UUID";
    TraceId "trace_id" Text "trace in whose course it was taken, 32 hexadecimal digits";
    SpanId "span_id" Text "span in whose course it was taken, 16 hexadecimal digits";
    Time "time_unix_nano" Integer "when it was taken, by the agent's clock, nanoseconds since the Unix epoch";
    Received "received_unix_nano" Integer "when it arrived, nanoseconds since the Unix epoch";
    Agent "agent" Text "agent that took it";
    Session "session" Text "session in which it was taken";
    Service "service" Text "service that sent it";
    Stage "stage" Text "where in the agent's work";
    Action "action" Text "what was chosen";
    Reason "reason" Text "why";
    Confidence "confidence" Real "how sure, 0 to 1";
    InputHash "input_hash" Text "keyed hash of what it was based on";
    ModelVersion "model_version" Text "version of the model that decided";
    Instance "instance_id" Text "process that recorded it";
    Seq "seq" Integer "running number within that process";
    Derived "is_derived" Integer "1 when the server derived it from a foreign span, else 0";
    Attributes "attributes" Json "further named values";
} }

/// The table.
pub(super) struct Decisions;

impl View for Decisions {
    const NAME: &'static str = "decisions";
    const ABOUT: &'static str =
        "Decisions of agents. Reading them is noted in the audit log (docs/audit.md).";
    const COLUMNS: &'static [SqlViewColumn] = Column::INFO;
    const NEWEST_FIRST: Option<&'static str> = Some("time_unix_nano");
    type Rows = DecisionRows;

    fn share(column: &str, op: Op) -> Option<f64> {
        match (column, op) {
            ("decision_id", Op::Is) => Some(0.000_001),
            ("trace_id", Op::Is) => Some(0.000_01),
            ("session", Op::Is) => Some(0.000_1),
            ("time_unix_nano", Op::Is) => Some(0.000_01),
            ("time_unix_nano", _) => Some(0.3),
            ("agent" | "stage", Op::Is) => Some(0.1),
            _ => None,
        }
    }

    fn open(source: &Source, plan: &Plan) -> Result<DecisionRows, QueryError> {
        let (least, most) = plan.range("time_unix_nano");
        let mut filter = DecisionFilter {
            agent: plan.text("agent"),
            session: plan.text("session"),
            stage: plan.text("stage"),
            after_unix_nano: Some(least),
            before_unix_nano: most.checked_add(1),
            ..DecisionFilter::default()
        };
        let only = |items| {
            Ok(DecisionRows::new(
                source,
                Pages::of(source, read_logs::decisions, DecisionFilter::default(), items),
            ))
        };
        if let Some(id) = plan.text("decision_id") {
            return only(match id.parse::<DecisionId>() {
                Ok(id) => read_logs::decision(&source.session(), id)?.into_iter().collect(),
                Err(_) => Vec::new(),
            });
        }
        if let Some(id) = plan.text("trace_id") {
            let Ok(id) = id.parse::<TraceId>() else { return only(Vec::new()) };
            filter.trace_id = Some(id);
        }
        // Each of these has an index with the time, and one leads; the others look at its rows.
        let broad = DecisionFilter {
            trace_id: filter.trace_id,
            after_unix_nano: filter.after_unix_nano,
            before_unix_nano: filter.before_unix_nano,
            ..DecisionFilter::default()
        };
        let broad = (filter != broad).then_some(broad);
        Ok(DecisionRows::new(source, Pages::new(source, read_logs::decisions, filter, broad)))
    }
}

/// Rows of the table.
pub(super) struct DecisionRows {
    source: Source,
    pages: Pages<Decision, DecisionFilter>,
}

impl DecisionRows {
    fn new(source: &Source, pages: Pages<Decision, DecisionFilter>) -> Self {
        Self { source: source.clone(), pages }
    }
}

impl Rows for DecisionRows {
    fn next(&mut self) -> Result<bool, QueryError> {
        let is_there = self.pages.next()?;
        if is_there {
            self.source.count_decision();
        }
        Ok(is_there)
    }

    fn identity(&self) -> Identity {
        let id = self.pages.current().map(|decision| decision.decision_id);
        Identity::of(&[id.as_ref().map_or(&[], |id| id.0.as_bytes())])
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>, QueryError> {
        let Some((decision, column)) = self.pages.current().zip(Column::at(column)) else {
            return Ok(Cell::Null);
        };
        fn id<T: ToString>(id: Option<T>) -> Cell<'static> {
            id.map_or(Cell::Null, |id| Cell::owned(id.to_string()))
        }
        Ok(match column {
            Column::DecisionId => Cell::owned(decision.decision_id.to_string()),
            Column::ParentDecisionId => id(decision.parent_decision_id),
            Column::TraceId => id(decision.trace_id),
            Column::SpanId => id(decision.span_id),
            Column::Time => Cell::count(decision.timestamp_ns),
            Column::Received => Cell::count(decision.received_at_ns),
            Column::Agent => Cell::said(&decision.agent_id),
            Column::Session => Cell::said(&decision.session_id),
            Column::Service => Cell::said(&decision.service),
            Column::Stage => Cell::said(&decision.stage),
            Column::Action => Cell::said(&decision.action),
            Column::Reason => Cell::said(&decision.reason),
            Column::Confidence => Cell::real_or_null(decision.confidence),
            Column::InputHash => Cell::said(&decision.input_hash),
            Column::ModelVersion => Cell::said(&decision.model_version),
            Column::Instance => Cell::said(&decision.instance_id),
            Column::Seq => Cell::count(decision.seq),
            Column::Derived => Cell::flag(decision.derived),
            Column::Attributes => Cell::json(&decision.attributes.to_json()),
        })
    }
}
