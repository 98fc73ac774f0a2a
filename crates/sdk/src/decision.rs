//! The decision log (requirement R4.4): what an agent chose, why and how sure it was, as an OTLP log
//! event `agent.decision` on the span that chose. The form is `docs/decisions.md`.

mod audit;
mod input_hash;
mod record;
mod spool;

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::logs::Logger as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, ContextGuard, Key, Value};
use serde::Serialize;
use throughline_trace::{DecisionId, TraceId, keys};

pub use self::audit::{AUDIT_TIMEOUT, Audit, AuditError};
pub(crate) use self::audit::{Acknowledgements, Done};
pub(crate) use self::input_hash::HashKey;
pub use self::input_hash::INPUT_HASH_KEY_MIN_BYTES;
pub(crate) use self::input_hash::Input;
pub(crate) use self::record::unix_nanos;
use self::record::{DecisionRecord, is_shown, json_of_value};
pub use self::spool::{DECISION_SPOOL_MAX_BYTES, SpoolCounts};
pub(crate) use self::spool::{Deliver, Delivery, Spool, SpoolSettings, Undelivered};
use crate::dimensions::Dimensions;
use crate::export::log_is_dropped;
use crate::instrument::InContext;
use crate::span::ActiveSpan;
use crate::telemetry_pipeline::Pipeline;

/// What stands in a decision whose input JSON cannot spell.
const UNSPELLABLE: &str = "the input cannot be written as JSON, so it has no hash";

/// A decision at this stage of the agent's work (`plan`, `act.tool`, `fallback`, …), to be described
/// and then [recorded](DecisionBuilder::record).
///
/// ```
/// let query = serde_json::json!({ "question": "is the item in stock?" });
/// let id = throughline::decision("plan")
///     .action("check_stock_v1")
///     .reason("the customer asks for availability")
///     .confidence(0.82)
///     .input(&query)
///     .record();
/// # let _ = id;
/// ```
///
/// What is decided in the course of a decision names it as its parent by itself:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use throughline::{current_decision, decision};
///
/// decision("plan")
///     .action("check_stock_v1")
///     .scope(async {
///         assert!(current_decision().is_some());
///         decision("act").action("ask_warehouse").record(); // its parent is the plan
///     })
///     .await;
/// # });
/// # std::io::Result::Ok(())
/// ```
pub fn decision(stage: impl Into<String>) -> DecisionBuilder {
    let record = DecisionRecord { stage: stage.into(), ..DecisionRecord::default() };
    DecisionBuilder { record, input: None, cx: None, is_required: false }
}

/// The decision in whose course this happens: the innermost [`DecisionBuilder::scope`] or
/// [`enter`](DecisionBuilder::enter).
pub fn current_decision() -> Option<DecisionId> {
    Context::map_current(|cx| cx.get::<InDecision>().map(|current| current.0))
}

/// How a context carries the decision in whose course something happens.
struct InDecision(DecisionId);

/// `cx` in the course of this decision.
pub(crate) fn in_decision(cx: &Context, id: DecisionId) -> Context {
    cx.with_value(InDecision(id))
}

/// A decision that is not recorded yet.
#[derive(Debug)]
#[must_use = "a decision is recorded with `record`"]
pub struct DecisionBuilder {
    record: DecisionRecord,
    input: Option<Input>,
    cx: Option<Context>,
    is_required: bool,
}

impl DecisionBuilder {
    /// What was chosen.
    pub fn action(mut self, action: impl Into<String>) -> Self {
        self.record.decision.action = action.into();
        self
    }

    /// Why, for people.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.record.decision.reason = reason.into();
        self
    }

    /// How sure, 0 to 1. What is not a number in that range is left out: a wrong confidence would
    /// steer the agent.
    pub fn confidence(self, confidence: f64) -> Self {
        self.confidence_if(Some(confidence))
    }

    /// [`confidence`](Self::confidence), if it is known.
    pub fn confidence_if(mut self, confidence: Option<f64>) -> Self {
        self.record.decision.confidence = confidence.filter(|sure| (0.0..=1.0).contains(sure));
        self
    }

    /// What could have been chosen instead.
    pub fn alternatives<T: Into<String>>(mut self, others: impl IntoIterator<Item = T>) -> Self {
        self.record.decision.alternatives.extend(others.into_iter().map(Into::into));
        self
    }

    /// Guidelines, policies or documents that the decision follows: their ids or addresses.
    pub fn guidelines<T: Into<String>>(mut self, refs: impl IntoIterator<Item = T>) -> Self {
        self.record.guideline_refs.extend(refs.into_iter().map(Into::into));
        self
    }

    /// What the decision is based on. Only its keyed hash is recorded: equal inputs have equal
    /// hashes, whatever the order of their fields and the form of their numbers
    /// ([`TelemetryBuilder::input_hash_key`](crate::TelemetryBuilder::input_hash_key)). An input
    /// that JSON cannot spell has none; the record says so, and it is counted
    /// ([`Counts::unhashed_inputs`](crate::Counts::unhashed_inputs)).
    pub fn input(mut self, input: &impl Serialize) -> Self {
        self.input = Some(Input::of(input));
        self
    }

    /// [`input`](Self::input) that was read before.
    pub(crate) fn prepared(mut self, input: Input) -> Self {
        self.input = Some(input);
        self
    }

    /// Version of the model or strategy that decided.
    pub fn model_version(mut self, version: impl Into<String>) -> Self {
        self.record.model_version = Some(version.into());
        self
    }

    /// The decision that led to this one, where it is not the [current one](current_decision).
    pub fn parent(mut self, parent: DecisionId) -> Self {
        self.record.parent_decision_id = Some(parent);
        self
    }

    /// [`parent`](Self::parent), if there is one; the current one otherwise.
    pub fn parent_if(mut self, parent: Option<DecisionId>) -> Self {
        self.record.parent_decision_id = parent;
        self
    }

    /// The span that decided, when it is not the current one.
    pub fn on(mut self, span: &ActiveSpan) -> Self {
        self.cx = Some(span.context());
        self
    }

    /// Whatever else belongs to the record.
    pub fn attribute(mut self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        let value = json_of_value(&value.into());
        self.record.attributes.insert(String::from(key.into()), value);
        self
    }

    /// Says that this decision must be durable, whatever
    /// [`TelemetryBuilder::audit`](crate::TelemetryBuilder::audit) says of all: see
    /// [`record_audited`](Self::record_audited).
    pub fn required(mut self) -> Self {
        self.is_required = true;
        self
    }

    /// Records the decision and says its id. Never waits: a record that finds the queue full is
    /// counted ([`Counts::decisions`](crate::Counts::decisions)), and its number is missing from the
    /// sequence that the server checks.
    pub fn record(self) -> DecisionId {
        let cx = self.cx_of();
        self.record_in(&cx, None)
    }

    /// Records the decision and waits until it is durable: on the disk of the
    /// [spool](crate::TelemetryBuilder::decision_spool), or without one acknowledged by the server
    /// within [`AUDIT_TIMEOUT`].
    ///
    /// # Errors
    /// [`AuditError`]: the record could not be made durable. What was decided must not be done.
    pub async fn record_required(self) -> Result<DecisionId, AuditError> {
        let (told, heard) = tokio::sync::oneshot::channel();
        let done: Done = Box::new(move |result| drop(told.send(result)));
        let id = self.record_durably(done);
        heard.await.unwrap_or(Err(AuditError::Stopped))?;
        Ok(id)
    }

    /// [`record_required`](Self::record_required) for code that is not asynchronous. Blocks the
    /// thread.
    ///
    /// # Errors
    /// As [`record_required`](Self::record_required).
    pub fn record_required_blocking(self) -> Result<DecisionId, AuditError> {
        let (told, heard) = std::sync::mpsc::sync_channel(1);
        let done: Done = Box::new(move |result| drop(told.send(result)));
        let id = self.record_durably(done);
        heard.recv().unwrap_or(Err(AuditError::Stopped))?;
        Ok(id)
    }

    /// [`record_required`](Self::record_required) where telemetry's
    /// [`audit`](crate::TelemetryBuilder::audit) or [`required`](Self::required) asks for it,
    /// [`record`](Self::record) otherwise: what every loop and router calls before it acts.
    ///
    /// # Errors
    /// As [`record_required`](Self::record_required).
    pub async fn record_audited(self) -> Result<DecisionId, AuditError> {
        let cx = self.cx_of();
        let is_required = self.is_required
            || Pipeline::of(&cx).is_some_and(|pipeline| pipeline.audit() == Audit::Required);
        match is_required {
            true => self.record_required().await,
            false => Ok(self.record_in(&cx, None)),
        }
    }

    /// Records the decision, and runs the future in its course: decisions that are taken there name
    /// it as their parent.
    pub fn scope<F>(self, inner: F) -> InContext<F> {
        let cx = self.cx_of();
        let id = self.record_in(&cx, None);
        InContext::new(in_decision(&cx, id), inner)
    }

    /// [`scope`](Self::scope) of an action that is only taken when its record is durable, where that
    /// is asked for ([`record_audited`](Self::record_audited)).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use throughline::{AuditError, decision};
    ///
    /// # async fn pay() {}
    /// let paid = decision("act").action("pay").required().scope_audited(pay()).await;
    /// assert_eq!(paid, Err(AuditError::NoTelemetry)); // nothing was paid
    /// # });
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// As [`record_required`](Self::record_required); the future was dropped unpolled.
    pub async fn scope_audited<F: Future>(self, inner: F) -> Result<F::Output, AuditError> {
        let cx = self.cx_of();
        let id = self.record_audited().await?;
        Ok(InContext::new(in_decision(&cx, id), inner).await)
    }

    /// Records the decision, and makes it the current one on this thread until the guard is dropped.
    /// Never hold the guard across an `.await`: use [`scope`](Self::scope) there.
    pub fn enter(self) -> (DecisionId, ContextGuard) {
        let cx = self.cx_of();
        let id = self.record_in(&cx, None);
        (id, in_decision(&cx, id).attach())
    }

    fn cx_of(&self) -> Context {
        self.cx.clone().unwrap_or_else(Context::current)
    }

    fn record_durably(self, done: Done) -> DecisionId {
        let cx = self.cx_of();
        self.record_in(&cx, Some(done))
    }

    fn record_in(mut self, cx: &Context, done: Option<Done>) -> DecisionId {
        let id = id_on(cx);
        let _attached = cx.clone().attach();
        let pipeline = Pipeline::of(cx);
        self.fill(id, cx, pipeline.as_deref());
        match pipeline {
            Some(pipeline) => send(&pipeline, self.record, done),
            // Somebody else set telemetry up: there is no logger to be had from OpenTelemetry, but
            // the span carries the decision as an event.
            None => {
                self.record.show();
                cx.span().add_event(keys::DECISION_EVENT, self.record.entries());
                if let Some(done) = done {
                    done(Err(AuditError::NoTelemetry));
                }
            }
        }
        id
    }

    /// What the builder was not told.
    fn fill(&mut self, id: DecisionId, cx: &Context, pipeline: Option<&Pipeline>) {
        let record = &mut self.record;
        record.decision_id = Some(id);
        record.timestamp_ns = unix_nanos(SystemTime::now());
        record.parent_decision_id = record.parent_decision_id.or_else(current_decision);
        let span = cx.span();
        let span = span.span_context();
        if span.is_valid() {
            record.trace_id = Some(span.trace_id().to_string());
            record.span_id = Some(span.span_id().to_string());
            record.trace_flags = span.trace_flags().to_u8();
        }
        let dimensions = Dimensions::current();
        let text = |id: Option<&str>| id.map(str::to_owned);
        record.agent_id = text(dimensions.agent_id());
        record.session_id = text(dimensions.session_id());
        record.workflow_id = text(dimensions.workflow_id());
        record.agent_role = text(dimensions.agent_role());
        match self.input.take() {
            None => {}
            Some(Input::Canonical(canonical)) => {
                let key = pipeline.map_or_else(HashKey::ephemeral, |pipeline| pipeline.hash_key());
                record.input_hash = Some(key.hash(&canonical));
                record.input_hash_key_id = Some(key.id().to_owned());
            }
            Some(Input::Unspellable) => {
                let key = keys::DECISION_INPUT_PROBLEM.to_owned();
                record.attributes.insert(key, UNSPELLABLE.into());
                if let Some(pipeline) = pipeline {
                    pipeline.note_unhashed_input();
                }
                let stage = &record.stage;
                tracing::warn!(target: "throughline", stage, "{UNSPELLABLE}");
            }
        }
    }
}

/// Hands a record over: to the spool if there is one, or else to the logger.
fn send(pipeline: &Arc<Pipeline>, mut record: DecisionRecord, done: Option<Done>) {
    record.instance_id = Some(pipeline.instance_id().to_owned());
    let refused = match pipeline.spool() {
        Some(spool) => {
            let mut shown = is_shown().then(|| record.clone());
            let refused = spool.push(record, done, |record| {
                record.seq = Some(next_seq(pipeline));
                if let Some(shown) = &mut shown {
                    shown.seq = record.seq;
                }
            });
            if let Some(shown) = shown {
                shown.show();
            }
            refused
        }
        None => {
            record.seq = Some(next_seq(pipeline));
            record.show();
            Some((record, done))
        }
    };
    // The spool's queue was full: the wire may still have room.
    if let Some((record, done)) = refused {
        if let Some(done) = done {
            match (pipeline.spool().is_some(), record.decision_id) {
                (false, Some(id)) => pipeline.acknowledgements().expect(id, done),
                _ if pipeline.acknowledgements().is_closed() => done(Err(AuditError::Stopped)),
                _ => done(Err(AuditError::SpoolFull)),
            }
        }
        emit(pipeline, &record);
    }
}

/// A new id of a decision in this context: on its trace, if it has one.
fn id_on(cx: &Context) -> DecisionId {
    let chance = DecisionId::random();
    match TraceId::from_bytes(cx.span().span_context().trace_id().to_bytes()) {
        Some(trace_id) => DecisionId::on_trace(trace_id, *chance.0.as_bytes()),
        None => chance,
    }
}

fn next_seq(pipeline: &Pipeline) -> i64 {
    i64::try_from(pipeline.next_seq()).unwrap_or(i64::MAX)
}

/// Emits a record by the logger's own queue.
pub(crate) fn emit(pipeline: &Pipeline, record: &DecisionRecord) {
    let logger = pipeline.decision_logger();
    let is_dropped = log_is_dropped(|| logger.emit(record.log_record(logger)));
    // It did not fit into the queue: nobody will acknowledge it.
    if is_dropped && let Some(id) = record.decision_id {
        pipeline.acknowledgements().refuse(id, AuditError::QueueFull);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_4_the_id_of_a_decision_on_a_trace_begins_as_the_traces_does() {
        use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};
        let trace = opentelemetry::trace::TraceId::from_bytes([7; 16]);
        let state = TraceState::default();
        let span =
            SpanContext::new(trace, SpanId::from_bytes([1; 8]), TraceFlags::SAMPLED, false, state);
        let on_trace = Context::new().with_remote_span_context(span);
        let (one, two) = (id_on(&on_trace).0, id_on(&on_trace).0);
        assert_eq!((&one.as_bytes()[..6], one.get_version_num()), (&[7; 6][..], 4));
        assert_ne!(one, two);
        assert_eq!(id_on(&Context::new()).0.get_version_num(), 4);
    }

    #[test]
    fn a_confidence_that_is_none_is_left_out() {
        let of = |builder: DecisionBuilder| builder.record.decision.confidence;
        assert_eq!(of(decision("plan").confidence(0.5)), Some(0.5));
        assert_eq!(of(decision("plan").confidence_if(Some(0.5))), Some(0.5));
        assert_eq!(of(decision("plan").confidence_if(None)), None);
        for wrong in [-0.1, 1.1, f64::NAN] {
            assert_eq!(of(decision("plan").confidence(wrong)), None);
        }
    }
}
