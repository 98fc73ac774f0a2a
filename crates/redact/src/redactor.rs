//! The door to the disk: a batch goes in, a [`Redacted`] batch comes out, and no other is handed on.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use throughline_trace::{
    Attributes, Decision, LogRecord, MetricPoint, Resource, Scope, Span, SpanBatch, keys,
};

use crate::config::RedactionConfig;
use crate::examine::{Examiner, Tally};
use crate::fields::{Place, named};
use crate::rules::{RedactionError, RuleSet};

/// Attributes that name an agent.
const AGENT_KEYS: [&str; 4] =
    [keys::AGENT_ID, keys::GEN_AI_AGENT_ID, keys::GEN_AI_AGENT_NAME, keys::AI_AGENT_NAME];

/// The domain of the key for hashes of what was cut: another one than that of finds.
const CUT_KEY_CONTEXT: &str = "throughline 2026-11 key of hashes of cut values";

/// The fields of a decision as attributes, in the order in which they are looked at.
const DECISION_KEYS: [&str; 9] = [
    keys::STAGE,
    keys::INPUT_HASH,
    keys::MODEL_VERSION,
    keys::DECISION_ACTION,
    keys::DECISION_REASON,
    keys::AGENT_ID,
    keys::SESSION_ID,
    keys::INSTANCE_ID,
    keys::SERVICE_NAME,
];

/// A batch that the rules have looked at. Only a [`Redactor`] makes one, and what hands batches to
/// the store takes nothing else, so that no way in can forget it.
#[derive(Debug)]
pub struct Redacted(SpanBatch);

impl Redacted {
    /// What is in it.
    pub fn batch(&self) -> &SpanBatch {
        &self.0
    }

    /// The batch itself.
    pub fn into_batch(self) -> SpanBatch {
        self.0
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    rule: String,
    field: &'static str,
}

/// The rules, ready to be applied to batches.
#[derive(Debug)]
pub struct Redactor {
    /// `None` when nothing is to be taken out.
    set: Option<RuleSet>,
    cut_key: Option<[u8; 32]>,
    redactions: Family<Labels, Counter>,
}

impl Redactor {
    /// Compiles the rules. `hash_key` is what [`Action::Hash`](crate::Action::Hash) is keyed with;
    /// what is taken out is counted in `registry` as `throughline_redactions_total`.
    ///
    /// # Errors
    /// [`RedactionError`] when the rules do not go together.
    pub fn new(
        config: &RedactionConfig,
        hash_key: [u8; 32],
        registry: &mut Registry,
    ) -> Result<Self, RedactionError> {
        let set = RuleSet::compile(config, hash_key)?;
        let redactor = Self {
            set: (set.all != 0).then_some(set),
            cut_key: Some(blake3::derive_key(CUT_KEY_CONTEXT, &hash_key)),
            redactions: Family::default(),
        };
        registry.register(
            "throughline_redactions",
            "Finds that redaction took out before anything was written, by rule and field",
            redactor.redactions.clone(),
        );
        Ok(redactor)
    }

    /// Takes nothing out: for tests and measurements, which make up their own data.
    pub fn off() -> Self {
        Self { set: None, cut_key: None, redactions: Family::default() }
    }

    /// What the hash of a value is keyed with that was cut before any rule saw it: without a key it would
    /// tell whoever knows the rest of the value what was taken out of it.
    pub fn cut_key(&self) -> Option<&[u8; 32]> {
        self.cut_key.as_ref()
    }

    /// Applies the rules to everything in the batch. Ids, times, numbers of metrics and the structure
    /// stay as they are; an item of which something was taken out says so in its attribute
    /// `throughline.redacted` (metric points do not: their attributes make their series).
    pub fn redact(&self, mut batch: SpanBatch) -> Redacted {
        let Some(set) = &self.set else { return Redacted(batch) };
        let mut work =
            Work { set, tally: Tally::default(), resources: Shared::new(), scopes: Shared::new() };
        batch.spans.iter_mut().for_each(|span| work.span(span));
        batch.logs.iter_mut().for_each(|log| work.log(log));
        batch.decisions.iter_mut().for_each(|decision| work.decision(decision));
        batch.metrics.iter_mut().for_each(|point| work.metric(point));
        for (rule, place, count) in work.tally.iter() {
            let labels = Labels { rule: set.rules[rule].name.clone(), field: place.as_str() };
            self.redactions.get_or_create(&labels).inc_by(count);
        }
        Redacted(batch)
    }
}

/// What was shared by items before, and what they share now: by where it is in memory and the rules
/// that apply. The old one is kept, so that no other can come to lie in its place.
#[derive(Debug)]
struct Shared<T> {
    all: HashMap<(usize, u64), (Arc<T>, Arc<T>)>,
    /// The one that was asked for last: the next item has the same as a rule.
    last: Option<(u64, Arc<T>, Arc<T>)>,
}

impl<T> Shared<T> {
    fn new() -> Self {
        Self { all: HashMap::new(), last: None }
    }

    /// What items share is looked at once, and they go on sharing it.
    fn look(&mut self, rules: u64, shared: &mut Arc<T>, look: impl FnOnce(&T) -> Option<T>) {
        let last = self.last.take();
        let last = last.filter(|(of, old, _)| *of == rules && Arc::ptr_eq(old, shared));
        let (of, old, new) = last.unwrap_or_else(|| {
            let at = Arc::as_ptr(shared) as usize;
            let (old, new) = self.all.entry((at, rules)).or_insert_with(|| {
                let new = look(shared).map_or_else(|| Arc::clone(shared), Arc::new);
                (Arc::clone(shared), new)
            });
            (rules, Arc::clone(old), Arc::clone(new))
        });
        if !Arc::ptr_eq(&old, &new) {
            *shared = Arc::clone(&new);
        }
        self.last = Some((of, old, new));
    }
}

/// One batch in hand.
struct Work<'r> {
    set: &'r RuleSet,
    tally: Tally,
    resources: Shared<Resource>,
    scopes: Shared<Scope>,
}

impl Work<'_> {
    fn span(&mut self, span: &mut Span) {
        let rules = self.set.of_agent(|| agents(&span.attributes, &span.resource));
        let examiner = Examiner::new(self.set, rules, &mut self.tally);
        let mut examiner = examiner.with_normal_form(&span.attributes);
        examiner.text_field(Place::SpanName, named::SPAN_NAME, &mut span.name);
        let message = &mut span.status.message;
        examiner.text_field(Place::StatusMessage, named::STATUS_MESSAGE, message);
        examiner.text_field(Place::TraceState, named::TRACE_STATE, &mut span.trace_state);
        examiner.attributes(Place::SpanAttribute, &mut span.attributes);
        for event in &mut span.events {
            examiner.text_field(Place::EventName, named::EVENT_NAME, &mut event.name);
            examiner.attributes(Place::EventAttribute, &mut event.attributes);
        }
        for link in &mut span.links {
            examiner.text_field(Place::TraceState, named::TRACE_STATE, &mut link.trace_state);
            examiner.attributes(Place::LinkAttribute, &mut link.attributes);
        }
        examiner.mark(&mut span.attributes);
        self.resource(rules, &mut span.resource);
        self.scope(rules, &mut span.scope);
    }

    fn log(&mut self, log: &mut LogRecord) {
        let rules = self.set.of_agent(|| agents(&log.attributes, &log.resource));
        let mut examiner = Examiner::new(self.set, rules, &mut self.tally);
        // An event of the conventions carries its message as the body.
        let mut of_body = self.set.of_field(rules, named::LOG_BODY, 0);
        if log.event_name.starts_with("gen_ai.") {
            of_body |= self.set.of_field(rules, keys::GEN_AI_INPUT_MESSAGES, 0);
        }
        examiner.body(Place::LogBody, of_body, named::LOG_BODY, &mut log.body);
        examiner.text_field(Place::LogText, named::LOG_SEVERITY, &mut log.severity_text);
        examiner.text_field(Place::LogText, named::EVENT_NAME, &mut log.event_name);
        examiner.attributes(Place::LogAttribute, &mut log.attributes);
        examiner.mark(&mut log.attributes);
        self.resource(rules, &mut log.resource);
        self.scope(rules, &mut log.scope);
    }

    fn decision(&mut self, decision: &mut Decision) {
        let rules = self.set.of_agent(|| {
            let own = Some(decision.agent_id.as_str()).filter(|id| !id.is_empty());
            let others = AGENT_KEYS.iter().filter_map(|key| decision.attributes.str(key));
            own.into_iter().chain(others)
        });
        let mut examiner = Examiner::new(self.set, rules, &mut self.tally);
        for (key, text) in DECISION_KEYS.into_iter().zip([
            &mut decision.stage,
            &mut decision.input_hash,
            &mut decision.model_version,
            &mut decision.action,
            &mut decision.reason,
            &mut decision.agent_id,
            &mut decision.session_id,
            &mut decision.instance_id,
            &mut decision.service,
        ]) {
            examiner.attribute_field(Place::Decision, key, text);
        }
        examiner.attributes(Place::DecisionAttribute, &mut decision.attributes);
        examiner.mark(&mut decision.attributes);
    }

    fn metric(&mut self, point: &mut MetricPoint) {
        let rules = self.set.of_agent(|| agents(&point.attributes, &point.resource));
        let mut examiner = Examiner::new(self.set, rules, &mut self.tally);
        examiner.text_field(Place::MetricText, named::METRIC_NAME, &mut point.name);
        let description = &mut point.description;
        examiner.text_field(Place::MetricText, named::METRIC_DESCRIPTION, description);
        examiner.text_field(Place::MetricText, named::METRIC_UNIT, &mut point.unit);
        examiner.attributes(Place::MetricAttribute, &mut point.attributes);
        self.resource(rules, &mut point.resource);
        self.scope(rules, &mut point.scope);
    }

    fn resource(&mut self, rules: u64, shared: &mut Arc<Resource>) {
        let (set, tally) = (self.set, &mut self.tally);
        self.resources.look(rules, shared, |old| {
            let mut new = old.clone();
            let mut examiner = Examiner::new(set, rules, tally);
            examiner.text_field(Place::Resource, named::SCHEMA_URL, &mut new.schema_url);
            examiner.attributes(Place::Resource, &mut new.attributes);
            let has_found = examiner.has_found();
            examiner.mark(&mut new.attributes);
            has_found.then_some(new)
        });
    }

    fn scope(&mut self, rules: u64, shared: &mut Arc<Scope>) {
        let (set, tally) = (self.set, &mut self.tally);
        self.scopes.look(rules, shared, |old| {
            let mut new = old.clone();
            let mut examiner = Examiner::new(set, rules, tally);
            for (field, text) in [
                (named::SCOPE_NAME, &mut new.name),
                (named::SCOPE_VERSION, &mut new.version),
                (named::SCHEMA_URL, &mut new.schema_url),
            ] {
                examiner.text_field(Place::Scope, field, text);
            }
            examiner.attributes(Place::Scope, &mut new.attributes);
            let has_found = examiner.has_found();
            examiner.mark(&mut new.attributes);
            has_found.then_some(new)
        });
    }
}

/// Names of the agent that an item is of: its own, or those of who sent it.
fn agents<'a>(
    attributes: &'a Attributes,
    resource: &'a Resource,
) -> impl Iterator<Item = &'a str> + Clone {
    let of =
        |attributes: &'a Attributes| AGENT_KEYS.iter().filter_map(move |key| attributes.str(key));
    let has_own = AGENT_KEYS.iter().any(|key| attributes.str(key).is_some());
    of(attributes).chain(of(&resource.attributes).filter(move |_| !has_own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_names;

    #[test]
    fn no_field_of_a_decision_is_called_like_a_secret() {
        for key in DECISION_KEYS {
            assert!(!secret_names::is_secret(key), "{key}");
        }
    }
}
