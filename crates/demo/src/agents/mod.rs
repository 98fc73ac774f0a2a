//! The agents, each written as any user of the SDK would write it; here is what they share: the
//! provider's client, how patient they are, and how a run of each is started.

pub(crate) mod card_screening;
pub(crate) mod customer_service;
pub(crate) mod fraud_check;
pub(crate) mod inventory;
pub(crate) mod medical_triage;
pub(crate) mod payment;
pub(crate) mod shop_order;
pub(crate) mod web_researcher;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use throughline::resilience::{BreakerPolicy, Policy, RetryPolicy, TimeoutPolicy};
use throughline::{ActiveSpan, ErrorType, Fault, OpenAi, Resilience, Traced, TracedEmbeddings};

use self::card_screening::CardScreening;
use self::customer_service::CustomerService;
use self::inventory::InventoryAgent;
use self::payment::PaymentAgent;
use crate::pace::Pace;
use crate::seed::Seed;
use crate::stories::inventory::Features;
use crate::stories::payment::Acquirers;
use crate::stories::{fraud, research, shop, triage};

/// How long a model may take for one attempt.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(12);

/// How long a model may take for all attempts together.
const TOTAL_LIMIT: Duration = Duration::from_secs(30);

/// How long a payment or another slow tool may take for one attempt.
const TOOL_LIMIT: Duration = Duration::from_secs(6);

/// No limit is shorter than this at any pace: work takes its time even when nothing waits.
const LEAST_LIMIT: Duration = Duration::from_secs(2);

/// The first pause before another attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(350);

/// Where the agents work.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where the models answer.
    pub provider: SocketAddr,
    /// What decides the stories.
    pub seed: Seed,
    /// Factor on every wait.
    pub pace: Pace,
}

/// One agent of the demo, ready for any of its runs.
#[derive(Debug, Clone)]
pub struct Performer {
    part: Part,
    setting: Setting,
    openai: OpenAi,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    FraudCheck,
    ShopOrder,
    WebResearcher,
    MedicalTriage,
}

impl Performer {
    /// The four whose runs come one after the other.
    ///
    /// # Errors
    /// When no client of the provider can be made.
    pub fn all(setting: &Setting) -> anyhow::Result<Vec<Self>> {
        let openai = OpenAi::builder()
            .base_url(format!("http://{}/v1", setting.provider))
            .api_key("demo")
            .build()
            .context("making a client of the simulated provider")?;
        let parts = [Part::FraudCheck, Part::ShopOrder, Part::WebResearcher, Part::MedicalTriage];
        let performer = |part| Self { part, setting: setting.clone(), openai: openai.clone() };
        Ok(parts.into_iter().map(performer).collect())
    }

    /// The name of the service that the agent runs as.
    pub fn service(&self) -> &'static str {
        match self.part {
            Part::FraudCheck => "fraud-llm-agent",
            Part::ShopOrder => "shop-agent",
            Part::WebResearcher => "research-agent",
            Part::MedicalTriage => "triage-agent",
        }
    }

    /// The agent's name.
    pub fn agent(&self) -> &'static str {
        match self.part {
            Part::FraudCheck => fraud::AGENT,
            Part::ShopOrder => shop::AGENT,
            Part::WebResearcher => research::AGENT,
            Part::MedicalTriage => triage::AGENT,
        }
    }

    /// The agent that screens payments in great number, beside these.
    ///
    /// # Errors
    /// When no router can be made.
    pub(crate) fn card_screening(&self) -> anyhow::Result<CardScreening> {
        let kit = self.kit(0);
        CardScreening::new(&kit.model("card screening"))
    }

    /// The agent that takes payments, beside these.
    pub(crate) fn payment(&self) -> PaymentAgent {
        let Setting { seed, pace, .. } = &self.setting;
        let kit = self.kit(0);
        let acquirers = Acquirers::of(*seed, pace.clone());
        PaymentAgent::new(kit.model("payment"), kit.two_tries(), acquirers)
    }

    /// The agent that answers customers, beside these.
    pub(crate) fn customer_service(&self) -> CustomerService {
        let kit = self.kit(0);
        let embeddings = TracedEmbeddings::new(self.openai.clone());
        CustomerService::new(kit.model("service"), embeddings, self.setting.pace.clone())
    }

    /// The agent that forecasts sales from these features, beside these.
    pub(crate) fn inventory(&self, features: Features) -> InventoryAgent {
        InventoryAgent::new(self.kit(0).model("inventory"), features, self.setting.seed)
    }

    fn kit(&self, run: u64) -> Kit {
        let Setting { seed, pace, .. } = &self.setting;
        let seed = seed.named("agent").named(self.agent()).nth(run);
        Kit { openai: self.openai.clone(), pace: pace.clone(), seed }
    }

    /// Plays run `run` on the telemetry of the current context, and says whether it reached its end.
    pub async fn run(self, run: u64) -> bool {
        let Setting { seed, pace, .. } = &self.setting;
        let (seed, world_pace) = (*seed, pace.clone());
        let kit = self.kit(run);
        let ended = match self.part {
            Part::FraudCheck => {
                let bank = fraud::Bank::of(seed, run, world_pace);
                fraud_check::check(&kit, &bank, &fraud::Case::of(seed, run)).await
            }
            Part::ShopOrder => {
                let warehouse = shop::Warehouse::of(seed, run, world_pace);
                shop_order::fulfil(&kit, &warehouse, &shop::Order::of(seed, run)).await
            }
            Part::WebResearcher => {
                let web = research::Web::of(seed, run, world_pace);
                web_researcher::answer(&kit, &web, &research::Brief::of(seed, run)).await
            }
            Part::MedicalTriage => {
                let clinic = triage::Clinic::of(seed, run, world_pace);
                medical_triage::assess(&kit, &clinic, &triage::Intake::of(seed, run)).await
            }
        };
        ended.is_ok()
    }
}

/// What an agent is given for one run.
#[derive(Debug)]
pub(crate) struct Kit {
    openai: OpenAi,
    pace: Pace,
    seed: Seed,
}

impl Kit {
    /// The provider's models on the trace, retried under a policy of their own.
    pub(crate) fn model(&self, purpose: &str) -> Traced {
        let seed = self.seed.named(purpose).dice().bits();
        Traced::new(self.openai.clone()).resilience(Resilience::seeded(self.model_policy(), seed))
    }

    /// How long a tool may run.
    pub(crate) fn tool_limit(&self) -> Duration {
        self.pace.limit(TOOL_LIMIT, LEAST_LIMIT)
    }

    /// Two attempts within a time limit, for a system behind a tool.
    pub(crate) fn two_tries(&self) -> Resilience {
        let timeouts =
            TimeoutPolicy { attempt_ms: Some(millis(self.tool_limit())), ..TimeoutPolicy::none() };
        let retry = RetryPolicy { max_attempts: 2, ..self.retry() };
        let seed = self.seed.named("tool").dice().bits();
        Resilience::seeded(Policy { retry, timeouts, ..Policy::none() }, seed)
    }

    fn model_policy(&self) -> Policy {
        let attempt_ms = Some(millis(self.pace.limit(ATTEMPT_LIMIT, LEAST_LIMIT)));
        let timeouts = TimeoutPolicy {
            attempt_ms,
            first_token_ms: attempt_ms,
            total_ms: Some(millis(self.pace.limit(TOTAL_LIMIT, LEAST_LIMIT * 3))),
        };
        // A run is short: four failures are enough to leave a model alone for the rest of it.
        let breaker =
            BreakerPolicy { min_attempts: 4, open_ms: 60_000, ..BreakerPolicy::default() };
        Policy { retry: self.retry(), timeouts, breaker: Some(breaker), ..Policy::default() }
    }

    fn retry(&self) -> RetryPolicy {
        let base_delay_ms = millis(self.pace.limit(RETRY_PAUSE, Duration::from_millis(1)));
        RetryPolicy { base_delay_ms, ..RetryPolicy::default() }
    }
}

/// What stopped a piece of steady work, in the words of whatever it was.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failed {
    kind: ErrorType,
    message: String,
}

impl Failed {
    fn of(error: impl Fault) -> Self {
        Self { kind: error.error_type(), message: error.to_string() }
    }
}

impl Fault for Failed {
    fn error_type(&self) -> ErrorType {
        self.kind
    }
}

/// Does work within the span of a step, which fails as the work does.
async fn within<T>(
    step: ActiveSpan,
    work: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    let done = step.instrument(work).await;
    if let Err(failed) = &done {
        step.fail(failed.kind, failed.message.as_str());
    }
    done
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The number after `confidence` in the last line of what a model said, 0 to 1.
fn confidence_in(answer: &str) -> Option<f64> {
    let (_, after) = answer.lines().next_back()?.split_once("confidence ")?;
    after.trim_end_matches(')').trim().parse().ok().filter(|sure| (0.0..=1.0).contains(sure))
}

/// The word after `key:` in the last line of an answer.
fn word_in<'a>(answer: &'a str, key: &str) -> Option<&'a str> {
    let (_, after) = answer.lines().next_back()?.split_once(key)?;
    after.trim_start_matches(':').split(',').next().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_read() {
        let answer = "confidence in people\n\nverdict: review, confidence 0.57";
        assert_eq!(
            (word_in(answer, "verdict"), confidence_in(answer)),
            (Some("review"), Some(0.57))
        );
        assert_eq!(confidence_in("I look at the history. (confidence 0.84)"), Some(0.84));
        assert_eq!(confidence_in("verdict: review, confidence high"), None);
        assert_eq!(confidence_in("verdict: review, confidence 7"), None);
        assert_eq!(word_in("no last line like that", "verdict"), None);
    }
}
