//! A directive that holds, and the records of what it did: one decision when it is obeyed, and one in
//! each trace that it changes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::trace::{TraceContextExt as _, TraceId};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use throughline_trace::{DecisionId, Directive, keys};

use super::SteeringError;
use crate::decision::{Audit, DecisionBuilder, decision};
use crate::dimensions::Dimensions;
use crate::span::{ActiveSpan, span};
use crate::telemetry_pipeline::Pipeline;

/// The stage of decisions about directives.
const STAGE: &str = "directive";

/// Traces of which a directive remembers that it was recorded there; in further ones it is only an
/// attribute of the span.
const REMEMBERED_TRACES: usize = 4_096;

/// A directive that holds.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) directive: Directive,
    /// The decision to obey.
    decision: DecisionId,
    effects: Mutex<HashSet<TraceId>>,
}

impl Holding {
    pub(super) fn new(directive: Directive, decision: DecisionId) -> Self {
        Self { directive, decision, effects: Mutex::default() }
    }

    /// Whether work with these dimensions is meant.
    pub(super) fn is_for(&self, whose: &Dimensions) -> bool {
        let target = &self.directive.target;
        target.is_work(whose.agent_id(), whose.session_id(), whose.workflow_id())
    }

    /// Whether this is the directive's first effect in the trace.
    fn is_first_in(&self, trace: TraceId) -> bool {
        let mut effects = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        effects.len() < REMEMBERED_TRACES && effects.insert(trace)
    }
}

/// What a directive says about something that is about to be done. Whoever does as it says calls
/// [`take_effect`](Self::take_effect).
#[derive(Debug, Clone)]
#[must_use = "a directive that is obeyed takes effect"]
pub struct Told<T> {
    /// What it says.
    pub value: T,
    holding: Arc<Holding>,
}

impl<T> Told<T> {
    pub(super) fn new(value: T, holding: Arc<Holding>) -> Self {
        Self { value, holding }
    }

    pub(super) fn map<U>(self, to: impl FnOnce(T) -> U) -> Told<U> {
        Told { value: to(self.value), holding: self.holding }
    }

    /// The directive.
    pub fn directive(&self) -> &Directive {
        &self.holding.directive
    }

    /// Why, for people: `directive slo-7: the reason`.
    pub fn reason(&self) -> String {
        let Directive { id, reason, .. } = self.directive();
        match reason.as_str() {
            "" => format!("directive {id}"),
            reason => format!("directive {id}: {reason}"),
        }
    }

    /// Notes that the current span does as it says, and says so once in each trace as a decision of
    /// stage `directive`, whose parent is the decision to obey. The value is what it says.
    pub fn take_effect(self) -> T {
        let Self { value, holding } = self;
        let directive = &holding.directive;
        let trace = Context::map_current(|cx| {
            let span = cx.span();
            span.set_attribute(KeyValue::new(keys::DIRECTIVE_ID, directive.id.clone()));
            span.span_context().trace_id()
        });
        if holding.is_first_in(trace) {
            described(directive).parent(holding.decision).record();
        }
        value
    }
}

/// The decision to obey, in a trace of its own: it belongs to no run yet.
pub(super) struct Obedience {
    decided: DecisionBuilder,
    /// Ends when the decision is recorded.
    span: ActiveSpan,
    is_required: bool,
}

pub(super) fn obedience(directive: &Directive, cx: &Context) -> Obedience {
    let _attached = cx.clone().attach();
    let span =
        span(format!("directive {}", directive.action.kind())).attributes(about(directive)).start();
    let decided = described(directive).on(&span);
    let is_required = Pipeline::of(cx).is_some_and(|one| one.audit() == Audit::Required);
    Obedience { decided, span, is_required }
}

impl Obedience {
    /// Records it.
    ///
    /// # Errors
    /// [`SteeringError::Audit`] when decisions must be durable and this one is not.
    pub(super) async fn recorded(self) -> Result<DecisionId, SteeringError> {
        let Self { decided, span, is_required } = self;
        let id = match is_required {
            true => decided.record_required().await?,
            false => decided.record(),
        };
        span.end();
        Ok(id)
    }

    /// [`recorded`](Self::recorded), blocking the thread as long as it takes.
    pub(super) fn recorded_blocking(self) -> Result<DecisionId, SteeringError> {
        let Self { decided, span, is_required } = self;
        let id = match is_required {
            true => decided.record_required_blocking()?,
            false => decided.record(),
        };
        span.end();
        Ok(id)
    }
}

/// Records that a directive does not hold although it was decided to obey it.
pub(super) fn record_reversal(directive: &Directive, decided: DecisionId, why: &SteeringError) {
    described(directive).action("refuse").reason(why.to_string()).parent(decided).record();
}

fn described(directive: &Directive) -> DecisionBuilder {
    about(directive).into_iter().fold(
        decision(STAGE).action(directive.action.to_string()).reason(directive.reason.clone()),
        |builder, entry| builder.attribute(entry.key, entry.value),
    )
}

/// The directive's id, rule and evidence.
fn about(directive: &Directive) -> Vec<KeyValue> {
    let mut all = vec![KeyValue::new(keys::DIRECTIVE_ID, directive.id.clone())];
    if !directive.rule.is_empty() {
        all.push(KeyValue::new(keys::DIRECTIVE_RULE, directive.rule.clone()));
    }
    if !directive.evidence.is_empty() {
        let traces = directive.evidence.iter().map(|id| StringValue::from(id.to_string()));
        let traces = Value::Array(Array::String(traces.collect()));
        all.push(KeyValue::new(keys::DIRECTIVE_EVIDENCE, traces));
    }
    all
}
