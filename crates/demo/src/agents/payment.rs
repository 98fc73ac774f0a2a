//! Takes payments: a small model chooses the acquirer, and the amount is captured in at most two tries.

use std::sync::atomic::{AtomicU64, Ordering};

use throughline::llm::ChatRequest;
use throughline::{
    AbGroup, ChatModel as _, Dimensions, Experiment, Phase, Resilience, RoutingTags, Traced,
    decision, step, workflow,
};

use super::{Failed, within};
use crate::stories::payment::{
    AGENT, Acquirers, Charge, EXPERIMENT, INSTRUCTIONS, SHORT_INSTRUCTIONS, read,
};

/// Small and quick.
const MODEL: &str = "gpt-4.1-nano";

/// Who captures when the model's answer cannot be read.
const USUAL: &str = "fjordpay";

/// How sure nobody is of that.
const UNREAD_CONFIDENCE: f64 = 0.3;

/// The agent.
#[derive(Debug, Clone)]
pub(crate) struct PaymentAgent {
    model: Traced,
    two_tries: Resilience,
    acquirers: Acquirers,
}

impl PaymentAgent {
    /// An agent over this model.
    pub(crate) fn new(model: Traced, two_tries: Resilience, acquirers: Acquirers) -> Self {
        Self { model, two_tries, acquirers }
    }

    /// Takes one payment.
    ///
    /// # Errors
    /// [`Failed`], when the model cannot be asked or nothing was captured.
    pub(crate) async fn take(&self, charge: Charge) -> Result<(), Failed> {
        let session = format!("order-{}", charge.reference);
        let whose = Dimensions::new().agent(AGENT).session(session).role("payments");
        workflow("payment")
            .id(charge.reference.as_str())
            .dimensions(whose)
            .run(async {
                let group = Experiment::new(EXPERIMENT, 0.5).assign();
                group.scope(self.charge(&charge)).await
            })
            .await
    }

    async fn charge(&self, charge: &Charge) -> Result<(), Failed> {
        let acquirer = self.choose(charge).await?;
        let step = step(AGENT, Phase::Act, "capture")
            .attribute("payment.acquirer", acquirer.clone())
            .start();
        within(step, self.capture(&acquirer, charge)).await
    }

    /// Has the model choose who captures.
    async fn choose(&self, charge: &Charge) -> Result<String, Failed> {
        let letter = charge.letter();
        let instructions = match RoutingTags::current().ab_test_group() {
            Some(AbGroup::Treatment) => SHORT_INSTRUCTIONS,
            _ => INSTRUCTIONS,
        };
        let request = ChatRequest::new(MODEL).system(instructions).user(letter.as_str());
        let answer = self.model.chat(request).await.map_err(Failed::of)?.text();
        let (acquirer, confidence) =
            read(&answer).unwrap_or_else(|| (USUAL.to_owned(), UNREAD_CONFIDENCE));
        decision("plan.acquirer")
            .action(acquirer.as_str())
            .reason("the cheaper one where the card was issued")
            .confidence(confidence)
            .input(&letter)
            .model_version(MODEL)
            .record();
        Ok(acquirer)
    }

    async fn capture(&self, acquirer: &str, charge: &Charge) -> Result<(), Failed> {
        let tries = AtomicU64::new(0);
        let capture = |_| {
            let attempt = tries.fetch_add(1, Ordering::Relaxed);
            self.acquirers.capture(acquirer, charge, attempt)
        };
        let captured = self.two_tries.run("capture", capture).await;
        if captured.is_err() {
            decision("act.payment")
                .action("capture_later")
                .reason("no acquirer could ask the issuer")
                .confidence(1.0)
                .record();
        }
        captured.map(|_| ()).map_err(Failed::of)
    }
}
