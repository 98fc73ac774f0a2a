//! What the span of a call tells of its answer: who answered, what, with how many tokens, at what cost.

use std::sync::Arc;
use std::time::Duration;

use throughline::telling::{self, CountedUsage, Prompt};
use throughline_llm::tokens::{CountMethod, TokenCount};
use throughline_llm::{ChatRequest, ChatResponse};
use throughline_resilience::{BreakerChange, BreakerState};
use throughline_trace::{Attributes, DecisionId, Value, keys};

use super::Call;
use crate::asked::Asked;
use crate::caller::Caller;
use crate::choosing::BYTES_PER_TOKEN;
use crate::provider::Provider;
use crate::trail::{Decided, OpenSpan, count};

/// Who is asked for which model.
pub(super) fn tell_endpoint(span: &mut OpenSpan, provider: &Provider, model: &str) {
    span.set(keys::GEN_AI_PROVIDER_NAME, provider.known_as.as_str());
    span.set(keys::GEN_AI_REQUEST_MODEL, model);
    span.set(keys::SERVER_ADDRESS, provider.host());
    span.set(keys::SERVER_PORT, i64::from(provider.port()));
}

/// What the caller asks for beside the request.
pub(super) fn tell_caller(span: &mut OpenSpan, caller: &Caller, budget: Option<Duration>) {
    if let Some(budget) = budget {
        let ms = i64::try_from(budget.as_millis()).unwrap_or(i64::MAX);
        span.set(keys::LATENCY_BUDGET_MS, ms);
    }
    if let Some(mistake) = &caller.unread_bag {
        let told = vec![(keys::EXCEPTION_MESSAGE, Value::from(mistake.as_str()))];
        span.event("context_bag.unreadable", told);
    }
}

/// What is kept of a request until its usage is known. One of which nothing is understood counts by the
/// bytes of its body, where its provider does not tell its tokens: limits hold for it too.
pub(super) fn prompt_of(asked: &Asked, request: Option<&Arc<ChatRequest>>) -> Prompt {
    match request.filter(|request| !request.messages.is_empty()) {
        Some(request) => Prompt::of(request),
        None => {
            let tokens = (asked.body.len() as u64).div_ceil(BYTES_PER_TOKEN);
            Prompt::Counted(TokenCount { tokens, method: CountMethod::Bytes })
        }
    }
}

impl Call {
    pub(super) fn tell_breaker(&mut self, change: BreakerChange) {
        let (from, to) = (change.from.as_str(), change.to.as_str());
        let name = self.shared.name.clone();
        self.span.event(
            "breaker.state_changed",
            vec![
                (keys::BREAKER_TARGET, Value::from(name.as_str())),
                (keys::BREAKER_FROM, Value::from(from)),
                (keys::BREAKER_STATE, Value::from(to)),
            ],
        );
        let reason = match change.to {
            BreakerState::Open { .. } => "too many attempts failed",
            BreakerState::HalfOpen => "it was open long enough to try again",
            BreakerState::Closed => "the attempts to see succeeded",
        };
        self.decide_breaker(to, format!("{name}: {reason}"));
        self.metrics.breaker(&name, change.to);
    }

    pub(super) fn decide_breaker(&self, action: &str, reason: String) -> DecisionId {
        let mut attributes = Attributes::new();
        attributes.set(keys::BREAKER_TARGET, self.shared.name.as_str());
        self.trail.decide(Decided {
            span_id: self.span.id(),
            stage: "breaker",
            action: action.to_owned(),
            reason,
            input_hash: "",
            model_version: "",
            parent: None,
            attributes,
        })
    }

    /// Fields of the request that were left out, since the provider's form does not have them.
    pub(crate) fn tell_left_out(&mut self, fields: &[String]) {
        if !fields.is_empty() {
            let names = fields.iter().map(|name| Value::from(name.as_str())).collect();
            self.span.set(keys::REQUEST_LEFT_OUT, Value::Array(names));
        }
    }

    /// Whether the answer fits the schema of its route, where there is one: what
    /// `response_schema_compliance_rate` is made of.
    pub(crate) fn tell_schema(&mut self, is_valid: Option<bool>) {
        if let Some(is_valid) = is_valid {
            self.span.set(keys::RESPONSE_SCHEMA_VALID, is_valid);
        }
    }

    pub(super) fn tell_part(&mut self, part: &ChatResponse) {
        self.tell_answer(part);
        let usage = self.prompt.usage_of_part(&self.model, part);
        self.tell_usage(usage, telling::service_tier(part));
    }

    pub(super) fn tell_answer(&mut self, response: &ChatResponse) {
        let reasons: Vec<Value> = response
            .choices
            .iter()
            .map(|choice| Value::from(choice.finish_reason.as_str()))
            .collect();
        if !reasons.is_empty() {
            self.span.set(keys::GEN_AI_RESPONSE_FINISH_REASONS, Value::Array(reasons));
        }
        if !response.id.is_empty() {
            self.span.set(keys::GEN_AI_RESPONSE_ID, response.id.as_str());
        }
        if !response.model.is_empty() {
            self.span.set(keys::GEN_AI_RESPONSE_MODEL, response.model.as_str());
            self.response_model = Some(response.model.clone());
        }
        self.status = response.status_code;
        let limits = response.limits.unwrap_or_default();
        for (key, left) in [
            (keys::LIMIT_REQUESTS, limits.remaining_requests),
            (keys::LIMIT_TOKENS, limits.remaining_tokens),
        ] {
            if let Some(left) = left {
                self.span.set(key, count(left));
            }
        }
        if self.captures_content && !response.choices.is_empty() {
            self.span.set_all(telling::output_attributes(&response.choices));
        }
    }

    pub(super) fn tell_usage(&mut self, counted: CountedUsage, tier: Option<&str>) {
        let CountedUsage { usage, method } = counted;
        if let Some(method) = method {
            self.span.set(keys::USAGE_ESTIMATED, true);
            self.span.set(keys::USAGE_METHOD, method.as_str());
        }
        self.span.set(keys::GEN_AI_USAGE_INPUT_TOKENS, count(usage.input_tokens));
        if self.asked.api.operation() != "embeddings" {
            self.span.set(keys::GEN_AI_USAGE_OUTPUT_TOKENS, count(usage.output_tokens));
        }
        for (key, tokens) in usage.details().into_iter().filter(|(_, tokens)| *tokens > 0) {
            self.span.set(key, count(tokens));
        }
        let answered = self.response_model.as_deref();
        let price = self.shared.price(&self.prices, answered, &self.model);
        let cost = price.as_ref().and_then(|price| price.cost_usd(usage, tier));
        if let (Some(cost), Some(price)) = (cost, &price) {
            self.span.set(keys::COST_USD, cost);
            self.span.set(keys::PRICE_VERSION, price.version());
        }
        self.metrics.used(&self.shared.name, &self.shared.counters, usage, cost);
        if let Some(meter) = &self.meter {
            let least = || price.as_ref().map(|price| price.least_usd(usage));
            meter.used(usage.total_tokens(), cost.or_else(least).unwrap_or_default());
        }
    }
}
