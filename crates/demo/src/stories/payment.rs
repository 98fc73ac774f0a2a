//! Fjell & Fjord takes money: for each order the agent chooses one of two acquirers and captures the
//! amount. Now and then the directory that one of them asks for 3-D Secure is down for a while.

use std::time::Duration;

use serde_json::{Value, json};

use crate::pace::Pace;
use crate::provider::{ChatRequest, Reply, Role};
use crate::seed::Seed;
use crate::world::Unavailable;

/// The agent's name.
pub const AGENT: &str = "payment";

/// Words of the system prompt by which its requests are known.
const MARK: &str = "take payments for Fjell & Fjord";

/// The system prompt.
pub(crate) const INSTRUCTIONS: &str = "You take payments for Fjell & Fjord. Two acquirers are under \
contract: fjordpay is cheap in the Nordic countries, baltika everywhere else. Say which one captures \
the amount and how sure you are, as JSON alone, in this form: {\"acquirer\": \"fjordpay\", \
\"confidence\": 0.95}";

/// The same in fewer words, which an experiment holds against them.
pub(crate) const SHORT_INSTRUCTIONS: &str = "You take payments for Fjell & Fjord: fjordpay in the Nordic countries, baltika \
elsewhere. Answer as JSON alone: {\"acquirer\": \"fjordpay\", \"confidence\": 0.95}";

/// The experiment, which divides the sessions evenly.
pub(crate) const EXPERIMENT: &str = "payment_instructions";

/// Orders after which it begins again.
const PERIOD: u64 = 1_800;

/// Orders at which the directory is down, of a period.
const OUTAGE: std::ops::Range<u64> = 100..160;

/// Share of calls that the directory leaves unanswered while it is down.
const LOST: f64 = 0.95;

/// The acquirer that asks it.
const ASKS: &str = "fjordpay";

/// How long an acquirer usually takes.
const CAPTURE: Duration = Duration::from_millis(140);

/// Countries that cards come from, and who is cheap there.
const COUNTRIES: [(&str, &str); 5] = [
    ("Norway", "fjordpay"),
    ("Sweden", "fjordpay"),
    ("Germany", "baltika"),
    ("Denmark", "fjordpay"),
    ("Poland", "baltika"),
];

/// An order that is to be paid.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    /// Reference of the order.
    pub reference: String,
    /// In euros.
    pub amount_eur: f64,
    /// Where the card was issued.
    pub country: &'static str,
    run: u64,
}

impl Charge {
    /// Order number `run`.
    pub fn of(seed: Seed, run: u64) -> Self {
        let mut dice = seed.named("charge").nth(run).dice();
        let (country, _) = COUNTRIES[dice.below(COUNTRIES.len() as u64) as usize];
        // Whole steps of five euros: the same question comes again.
        let amount_eur = 5.0 * (2 + dice.below(28)) as f64;
        Self { reference: format!("FF-{}", 40_200 + run), amount_eur, country, run }
    }

    /// As the prompt tells it.
    pub fn letter(&self) -> String {
        format!("EUR {:.2}, card issued in {}.", self.amount_eur, self.country)
    }
}

/// Both acquirers.
#[derive(Debug, Clone)]
pub struct Acquirers {
    seed: Seed,
    pace: Pace,
}

impl Acquirers {
    /// Those of a seed.
    pub fn of(seed: Seed, pace: Pace) -> Self {
        Self { seed: seed.named("acquirers"), pace }
    }

    /// Captures an amount, at attempt number `attempt`.
    ///
    /// # Errors
    /// [`Unavailable`] when the directory does not answer.
    pub async fn capture(
        &self,
        acquirer: &str,
        charge: &Charge,
        attempt: u64,
    ) -> Result<Value, Unavailable> {
        let mut dice = self.seed.nth(charge.run).nth(attempt).dice();
        self.pace.wait(CAPTURE.mul_f64(dice.between(0.6, 1.7))).await;
        if acquirer == ASKS && is_down(charge.run) && dice.unit() < LOST {
            return Err(Unavailable {
                system: "3ds-directory.example",
                detail: "the issuer could not be found",
            });
        }
        Ok(json!({"order": charge.reference, "acquirer": acquirer, "status": "captured"}))
    }
}

/// Whether the directory is down when an order of this number is paid.
fn is_down(run: u64) -> bool {
    OUTAGE.contains(&(run % PERIOD))
}

/// What the model says to an order; `None` to anything else.
pub(super) fn perform(seed: Seed, request: &ChatRequest) -> Option<Reply> {
    request.texts(Role::System).find(|text| text.contains(MARK))?;
    let letter = request.texts(Role::User).next()?;
    let (_, acquirer) = COUNTRIES.iter().find(|(country, _)| letter.contains(country))?;
    let sure = (seed.named("payment").dice().between(0.88, 0.99) * 100.0).round() / 100.0;
    Some(Reply::text(json!({"acquirer": acquirer, "confidence": sure}).to_string()))
}

/// The acquirer and the confidence in an answer.
pub(crate) fn read(answer: &str) -> Option<(String, f64)> {
    let value: Value = serde_json::from_str(answer).ok()?;
    Some((value.get("acquirer")?.as_str()?.to_owned(), value.get("confidence")?.as_f64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn captures_fail_while_the_directory_is_down_and_only_then() {
        let seed = Seed::new(7);
        let acquirers = Acquirers::of(seed, Pace::new(0.0));
        let mut failed = Vec::new();
        for run in 0..300 {
            let charge = Charge::of(seed, run);
            let (first, second) = (
                acquirers.capture("fjordpay", &charge, 1).await,
                acquirers.capture("fjordpay", &charge, 2).await,
            );
            if first.is_err() && second.is_err() {
                failed.push(run);
            }
            assert!(acquirers.capture("baltika", &charge, 1).await.is_ok(), "it asks another one");
        }
        assert!(failed.iter().all(|run| OUTAGE.contains(run)), "{failed:?}");
        assert!((45..=60).contains(&failed.len()), "{} of 60", failed.len());
    }
}
