//! An answer that was kept, given again.

use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use throughline::Outcome;
use throughline::telling::{self, CACHE_HEADER};
use throughline_trace::{DecisionId, SpanKind, SpanRole, Value, keys};

use super::Exchange;
use crate::cache::Kept;
use crate::client::EVENTS;
use crate::contract::ContractConfig;
use crate::route::Route;
use crate::trail::{Decided, Stamp};
use crate::whole;

impl Exchange {
    /// A kept answer; `None` when it cannot be given in the way that is asked, or does not hold: the
    /// contract may be stricter than when it was kept.
    pub(super) fn replay(
        &self,
        route: &Route,
        kept: &Kept,
        stamp: &Stamp,
        decision: &mut Option<DecisionId>,
    ) -> Option<Response> {
        let api = self.asked.api;
        let holds = |contract: &ContractConfig| contract.holds(&self.asked, &kept.response);
        if !route.contract.as_deref().is_none_or(holds) {
            return None;
        }
        let wants_usage = self.asked.is_stream.then(|| self.asked.wants_usage());
        let (body, kind) = match self.streams_whole.or(wants_usage) {
            Some(wants_usage) => (kept.events(api, wants_usage)?, EVENTS),
            None => (kept.body(api)?, "application/json"),
        };
        let (operation, model) = (api.operation(), &self.asked.model);
        let mut span = self.trail.span(
            format!("{operation} {model}"),
            SpanKind::Client,
            SpanRole::LlmCall,
            None,
        );
        span.set(keys::GEN_AI_OPERATION_NAME, operation);
        span.set(keys::GEN_AI_REQUEST_MODEL, model.as_str());
        span.set(keys::IS_CACHED, true);
        if !kept.response.model.is_empty() {
            span.set(keys::GEN_AI_RESPONSE_MODEL, kept.response.model.as_str());
        }
        let reasons =
            kept.response.choices.iter().map(|one| Value::from(one.finish_reason.as_str()));
        span.set(keys::GEN_AI_RESPONSE_FINISH_REASONS, Value::Array(reasons.collect()));
        if self.serving.plan.captures_content {
            if let Some(request) = self.asked.request() {
                span.set_all(telling::input_attributes(&request.messages));
            }
            span.set_all(telling::output_attributes(&kept.response.choices));
        }
        span.stamp(stamp);
        span.outcome(Outcome::Ok);
        let mut attributes = self.input_key();
        attributes.set(keys::ROUTE, route.name.as_str());
        *decision = Some(self.trail.decide(Decided {
            span_id: span.id(),
            stage: "route",
            action: "cache".to_owned(),
            reason: "the same request was answered before, and its answer is kept".to_owned(),
            input_hash: self.input_hash(),
            model_version: &kept.response.model,
            parent: None,
            attributes,
        }));
        span.end();
        let body = whole::body(body, &self.inner, &self.place, route.timing.client_stall);
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_HEADER, HeaderValue::from_static("hit"));
        Some(response)
    }
}
