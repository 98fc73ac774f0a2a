//! A request on a route with a contract: what does not hold is counted, blocked, or repaired once.

use std::sync::Arc;

use http::StatusCode;
use throughline_llm::ChatResponse;
use throughline_trace::{DecisionId, ErrorType, SpanId, keys};

use super::{Answer, Exchange, Whole};
use crate::asked::Asked;
use crate::call::{Call, Turn};
use crate::contract::{self, ContractConfig, OnViolation, Violation};
use crate::fault::Fault;
use crate::reply::{CONTRACT_VIOLATED, Refused};
use crate::route::{Route, RouteTo};
use crate::trail::{Decided, Stamp};

impl Exchange {
    /// The request as one for a whole answer, when the answers of the route are looked at: a stream
    /// cannot be taken back.
    pub(super) fn unstreamed(&self, route: &Route) -> Option<Self> {
        let contract = route.contract.as_ref().filter(|contract| contract.is_of_answers())?;
        if !self.asked.is_stream || contract.on_violation == OnViolation::Count {
            return None;
        }
        let body = contract::unstreamed(&self.asked.body)?;
        let mut whole = self.asking(Asked::read(self.asked.api, body).ok()?);
        whole.streams_whole = Some(self.asked.wants_usage());
        Some(whole)
    }

    /// The same request with another body.
    fn asking(&self, asked: Asked) -> Self {
        Self { asked: Arc::new(asked), ..self.clone() }
    }

    /// Refuses a request that does not hold, if the route wants that.
    pub(super) fn refuse_request(
        &self,
        route: &Route,
        decision: &mut Option<DecisionId>,
    ) -> Option<Refused> {
        let contract = route.contract.as_ref()?;
        let captures_content = self.serving.plan.captures_content;
        let violation = contract.request_violation(&self.asked, captures_content)?;
        let breaks = |wrong: &str| format!("the request breaks the contract of the route: {wrong}");
        let recorded = breaks(&violation.recorded);
        if contract.on_violation == OnViolation::Count {
            // There is no span of it yet; the decision names the caller's.
            let span_id = self.trail.caller.parent.unwrap_or_else(crate::trail::new_span_id);
            self.decide_contract(&route.name, span_id, "count", &recorded);
            return None;
        }
        let span_id = self.trail.refuse(&self.asked, ErrorType::PolicyRejected, &recorded);
        *decision = Some(self.decide_contract(&route.name, span_id, "block", &recorded));
        let told = breaks(&violation.told);
        Some(Refused::new(StatusCode::BAD_REQUEST, CONTRACT_VIOLATED, told))
    }

    /// Holds an answer against the contract of its route.
    pub(super) async fn hold<'r>(
        &self,
        route: &'r Route,
        answer: Answer<'r>,
        decision: &mut Option<DecisionId>,
    ) -> Result<Answer<'r>, Fault> {
        let Some(contract) = &route.contract else { return Ok(answer) };
        let Answer::Whole(whole) = answer else { return Ok(answer) };
        let Some((span_id, violation)) = whole.violation.clone() else {
            return Ok(Answer::Whole(whole));
        };
        match contract.on_violation {
            OnViolation::Count => {
                self.decide_contract(&route.name, span_id, "count", &violation.recorded);
                Ok(Answer::Whole(whole))
            }
            OnViolation::Block => Err(self.block(route, span_id, &violation, decision)),
            OnViolation::Repair => {
                let Some(again) = self.repairing(&whole, &violation.told) else {
                    return Err(self.block(route, span_id, &violation, decision));
                };
                let recorded = &violation.recorded;
                let asked_for = self.decide_contract(&route.name, span_id, "repair", recorded);
                match again.asked_again(route, whole.by, asked_for, decision).await? {
                    Answer::Whole(whole) => match whole.violation.clone() {
                        None => Ok(Answer::Whole(whole)),
                        Some((span_id, violation)) => {
                            Err(self.block(route, span_id, &violation, decision))
                        }
                    },
                    stream @ Answer::Stream(_) => Ok(stream),
                }
            }
        }
    }

    /// Asks who answered: nobody else knows what is to be repaired, and another may be down.
    async fn asked_again<'r>(
        &self,
        route: &'r Route,
        (to, stamp): (&'r RouteTo, Stamp),
        parent: DecisionId,
        decision: &mut Option<DecisionId>,
    ) -> Result<Answer<'r>, Fault> {
        let call = self.call(route, to, stamp, Turn::alone(false));
        let mut attributes = self.input_key();
        attributes.set(keys::ROUTE, route.name.as_str());
        *decision = Some(self.trail.decide(Decided {
            span_id: call.span_id(),
            stage: "route",
            action: to.name.clone(),
            reason: "its answer broke the contract: it is asked to repair it".to_owned(),
            input_hash: self.input_hash(),
            model_version: to.version(&self.asked.model),
            parent: Some(parent),
            attributes,
        }));
        self.ask(route, to, call).await
    }

    fn repairing(&self, whole: &Whole<'_>, violation: &str) -> Option<Self> {
        let said = contract::text_of(&whole.response.choices.first()?.message.parts);
        let body = contract::repairing(self.asked.api, &self.asked.body, &said, violation)?;
        Some(self.asking(Asked::read(self.asked.api, body).ok()?))
    }

    fn block(
        &self,
        route: &Route,
        span_id: SpanId,
        violation: &Violation,
        decision: &mut Option<DecisionId>,
    ) -> Fault {
        let recorded = &violation.recorded;
        *decision = Some(self.decide_contract(&route.name, span_id, "block", recorded));
        let message = format!("the answer breaks the contract of the route: {}", violation.told);
        Fault {
            code: Some(CONTRACT_VIOLATED.to_owned()),
            ..Fault::new(ErrorType::InvalidResponse, message)
        }
    }

    fn decide_contract(
        &self,
        route: &str,
        span_id: SpanId,
        action: &'static str,
        reason: &str,
    ) -> DecisionId {
        self.inner.metrics.violation(route, action);
        self.trail.decide(Decided {
            span_id,
            stage: "contract",
            action: action.to_owned(),
            reason: reason.to_owned(),
            input_hash: self.input_hash(),
            model_version: "",
            parent: None,
            attributes: self.input_key(),
        })
    }
}

/// A streamed answer that is handed on and looked at when it is whole: on routes where violations are
/// only counted.
pub(crate) struct Watch {
    exchange: Exchange,
    contract: Arc<ContractConfig>,
    route: String,
}

impl Watch {
    /// Whether the whole of the answer holds, looked at before its call ends; a violation is told.
    pub(crate) fn holds(self, response: &ChatResponse, call: &mut Call) -> bool {
        let (exchange, contract) = (&self.exchange, &self.contract);
        let captures_content = exchange.serving.plan.captures_content;
        let judged = contract.judge(&exchange.asked, response, captures_content);
        call.tell_schema(judged.fits_schema);
        let Some(Violation { recorded, .. }) = judged.violation else {
            return true;
        };
        let span_id = call.violates(&recorded);
        exchange.decide_contract(&self.route, span_id, "count", &recorded);
        false
    }
}

impl Exchange {
    /// What is to be looked at when a stream is whole.
    pub(super) fn watch(&self, route: &Route) -> Option<Box<Watch>> {
        let contract = route.contract.as_ref().filter(|contract| contract.is_of_answers())?;
        let (contract, route) = (Arc::clone(contract), route.name.clone());
        Some(Box::new(Watch { exchange: self.clone(), contract, route }))
    }
}
