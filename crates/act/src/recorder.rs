//! Every action is a decision: stage `govern.act`, on a span `act {kind}` of its own trace, with the
//! traces that justify it.
//!
//! Trace and decision have ids that are made from the action's id, so that an action that is tried
//! again after a crash is recorded once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use throughline_store::ActionState;
use throughline_trace::{
    Accepted, Action, Attributes, Decision, DecisionId, ErrorType, Refusal, Resource, SDK_SCOPE,
    Scope, Span, SpanBatch, SpanId, Status, StatusCode, TraceId, Value, keys,
};

use crate::metrics::ActMetrics;
use crate::moments::now_unix_nano;
use crate::performed::{Performed, told};

/// Hands a batch to whoever makes it durable, through redaction; returns when it is.
pub type Submit =
    Arc<dyn Fn(SpanBatch) -> BoxFuture<'static, Result<Accepted, Refusal>> + Send + Sync>;

/// What `service.name` the spans bear.
const SERVICE: &str = "throughline";

/// Stage of the decisions.
const STAGE: &str = "govern.act";

/// Attribute with what became of the action, in words.
const DETAIL: &str = "throughline.action.detail";

/// Attribute with what the action is about.
const SUBJECT: &str = "throughline.subject";

/// How often a batch is offered to a full inbox before it is given up.
const OFFERS: u32 = 5;

/// Longest pause before the next offer.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Where records of actions go.
pub(crate) struct Recorder {
    submit: Submit,
    resource: Arc<Resource>,
    scope: Arc<Scope>,
    instance_id: String,
    /// Number of the last decision.
    seq: AtomicU64,
    metrics: ActMetrics,
}

impl Recorder {
    pub(crate) fn new(submit: Submit, metrics: ActMetrics) -> Self {
        let instance_id = uuid::Uuid::new_v4().to_string();
        let mut resource = Attributes::new();
        resource.set(keys::SERVICE_NAME, SERVICE);
        resource.set(keys::SERVICE_VERSION, env!("CARGO_PKG_VERSION"));
        resource.set(keys::SERVICE_INSTANCE_ID, instance_id.as_str());
        Self {
            submit,
            resource: Arc::new(Resource { attributes: resource, schema_url: String::new() }),
            scope: Arc::new(Scope {
                name: SDK_SCOPE.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Scope::default()
            }),
            instance_id,
            seq: AtomicU64::new(0),
            metrics,
        }
    }

    /// Records what became of an action; returns when that is durable. `None` when the store did not
    /// take it, which is counted and logged.
    pub(crate) async fn record(
        &self,
        action: &Action,
        confidence: Option<f64>,
        performed: &Performed,
        started_unix_nano: u64,
    ) -> Option<DecisionId> {
        let batch = self.batch(action, confidence, performed, started_unix_nano);
        let decision_id = batch.decisions.first().map(|decision| decision.decision_id);
        for offer in 1..=OFFERS {
            match (self.submit)(batch.clone()).await {
                Ok(_) => return decision_id,
                Err(Refusal::Full { retry_after_ms } | Refusal::DiskFull { retry_after_ms })
                    if offer < OFFERS =>
                {
                    let pause = Duration::from_millis(retry_after_ms).min(MAX_PAUSE);
                    tokio::time::sleep(pause).await;
                }
                Err(refusal) => {
                    self.metrics.dropped(batch.len() as u64);
                    tracing::error!(action = action.id, %refusal, "an action was not recorded");
                    return None;
                }
            }
        }
        None
    }

    fn batch(
        &self,
        action: &Action,
        confidence: Option<f64>,
        performed: &Performed,
        started_unix_nano: u64,
    ) -> SpanBatch {
        let now = now_unix_nano();
        let trace_id = trace_id(&action.id);
        let span_id = SpanId::from_u64(rand::random::<u64>().max(1));
        let attributes = attributes(action, performed);
        let kind = action.operation.kind();
        let mut span = Span::new(trace_id, span_id, None, format!("act {kind}"));
        span.kind = throughline_trace::SpanKind::Internal;
        span.start_unix_nano = started_unix_nano.min(now);
        span.end_unix_nano = now;
        span.resource = Arc::clone(&self.resource);
        span.scope = Arc::clone(&self.scope);
        span.attributes = attributes.clone();
        if performed.state() == ActionState::Failed {
            span.attributes.set(keys::ERROR_TYPE, ErrorType::Other.as_str());
            let message = performed.detail().to_owned();
            span.status = Status { code: StatusCode::Error, message };
        }
        let decision = Decision {
            decision_id: decision_id(&action.id),
            parent_decision_id: None,
            trace_id: Some(trace_id),
            span_id: Some(span_id),
            timestamp_ns: now,
            received_at_ns: now,
            stage: STAGE.to_owned(),
            input_hash: String::new(),
            model_version: String::new(),
            action: chosen(action, performed),
            reason: action.reason.clone(),
            confidence,
            agent_id: SERVICE.to_owned(),
            session_id: String::new(),
            instance_id: self.instance_id.clone(),
            seq: self.seq.fetch_add(1, Ordering::Relaxed) + 1,
            derived: false,
            service: SERVICE.to_owned(),
            attributes,
        };
        SpanBatch {
            received_unix_nano: now,
            spans: vec![span],
            decisions: vec![decision],
            ..SpanBatch::default()
        }
    }
}

/// What was chosen: also not to act is a choice.
fn chosen(action: &Action, performed: &Performed) -> String {
    let told = told(&action.operation);
    match performed {
        Performed::Refused(_) => format!("refuse {told}"),
        Performed::DryRun(_) => format!("dry run {told}"),
        _ => told,
    }
}

fn attributes(action: &Action, performed: &Performed) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.set(keys::ACTION_ID, action.id.as_str());
    attributes.set(keys::ACTION_STATE, performed.state().as_str());
    attributes.set(DETAIL, performed.detail());
    attributes.set(SUBJECT, action.subject.to_string());
    for (key, text) in [(keys::RULE, &action.rule), (keys::FINDING, &action.finding)] {
        if !text.is_empty() {
            attributes.set(key, text.as_str());
        }
    }
    if !action.evidence.is_empty() {
        let evidence = action.evidence.iter().map(|id| Value::String(id.to_string()));
        attributes.set(keys::EVIDENCE, Value::Array(evidence.collect()));
    }
    attributes
}

/// The trace of an action.
pub(crate) fn trace_id(action_id: &str) -> TraceId {
    let number = u128::from_be_bytes(hash_of("trace", action_id));
    TraceId::from_u128(number.max(1))
}

/// The decision of an action.
pub(crate) fn decision_id(action_id: &str) -> DecisionId {
    DecisionId(uuid::Builder::from_random_bytes(hash_of("decision", action_id)).into_uuid())
}

fn hash_of(what: &str, action_id: &str) -> [u8; 16] {
    let hash = blake3::hash(format!("{what}/{action_id}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    bytes
}
