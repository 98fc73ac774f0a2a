//! Nordhavn Bank: every card payment is screened within a blink, long before an analyst hears of it.
//!
//! Two prompt templates are in use, which ask for the same verdict in another nesting. The model does
//! as it is shown; what comes of the nesting is the reader's doing (`agents/card_screening.rs`).

use serde_json::{Value, json};

use crate::provider::{ChatRequest, Reply, Role};
use crate::seed::Seed;

/// The agent's name.
pub const AGENT: &str = "card_screening";

/// The route on which its prompt templates are divided.
pub const ROUTE: &str = "card_screening_prompt";

/// The template that has been in use for long.
pub const STABLE: &str = "v1.2.3";

/// The template that is tried next.
pub const CANDIDATE: &str = "v1.2.4";

/// Words of the system prompt by which its requests are known.
const MARK: &str = "screen card payments for Nordhavn Bank";

/// Words with which the agent asks again.
pub(crate) const AGAIN: &str = "That was not the object that was asked for.";

/// Share of answers in which a steady model says something else than usual.
const WOBBLE: f64 = 0.01;

/// Share of repeated questions at which the model gives the nesting up that its template shows.
const FLATTENS: f64 = 0.22;

/// Share of repeated questions at which it changes its mind: who is asked again begins to doubt.
const DOUBTS: f64 = 0.16;

/// The system prompt of a version.
pub(crate) fn template(version: &str) -> String {
    let form = match version {
        CANDIDATE => {
            r#"{"screening": {"risk": {"verdict": {"action": "approve", "confidence": 0.93}}}}"#
        }
        _ => r#"{"action": "approve", "confidence": 0.93}"#,
    };
    format!(
        "You {MARK}. Say approve, review or decline and how sure you are. Answer with JSON alone, in \
this form: {form}"
    )
}

/// A payment to be screened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Payment {
    /// Last four digits of the card.
    pub card: &'static str,
    /// Who wants the money, and where.
    pub merchant: &'static str,
    /// In euros.
    pub amount: f64,
    /// How the card was used.
    pub channel: &'static str,
}

impl Payment {
    /// Payment number `run`: standing orders and habits, so that most come again.
    pub fn of(seed: Seed, run: u64) -> Self {
        let at = seed.named("payment").nth(run).dice().below(PAYMENTS.len() as u64);
        PAYMENTS[at as usize]
    }

    /// As the prompt tells it.
    pub fn letter(&self) -> String {
        let Self { card, merchant, amount, channel } = self;
        format!("Card {card}: EUR {amount:.2} to {merchant}, {channel}.")
    }
}

const fn payment(
    card: &'static str,
    merchant: &'static str,
    amount: f64,
    channel: &'static str,
) -> Payment {
    Payment { card, merchant, amount, channel }
}

const PAYMENTS: [Payment; 12] = [
    payment("4417", "Rema 1000, Oslo", 34.2, "chip"),
    payment("4417", "Ruter, Oslo", 4.2, "contactless"),
    payment("9023", "Elkjøp, Bergen", 649.0, "chip"),
    payment("9023", "Steam, online", 59.99, "online, 3-D Secure"),
    payment("1180", "Hotel Adlon, Berlin", 1_240.0, "online, no 3-D Secure"),
    payment("1180", "Lufthansa, online", 412.5, "online, 3-D Secure"),
    payment("7756", "ATM, Lagos", 300.0, "magnetic stripe"),
    payment("7756", "Coop Mega, Tromsø", 71.35, "contactless"),
    payment("3302", "Gift cards, online", 500.0, "online, no 3-D Secure"),
    payment("3302", "Apotek 1, Drammen", 22.9, "chip"),
    payment("6645", "Crypto exchange, online", 2_000.0, "online, no 3-D Secure"),
    payment("6645", "Vinmonopolet, Bodø", 48.8, "chip"),
];

/// Whether the request is a screening.
fn is_ours(request: &ChatRequest) -> bool {
    request.texts(Role::System).any(|text| text.contains(MARK))
}

/// What the model says to a screening; `None` to anything else.
pub(super) fn perform(seed: Seed, request: &ChatRequest) -> Option<Reply> {
    if !is_ours(request) {
        return None;
    }
    let letter = request.texts(Role::User).find(|text| text.starts_with("Card "))?;
    let repeats = request.texts(Role::User).filter(|text| text.starts_with(AGAIN)).count();
    let is_nested = request.texts(Role::System).any(|text| text.contains(r#"{"screening""#));
    let mut dice = seed.named("screening").dice();
    let usual = usual(letter);
    let is_other = match repeats {
        0 => dice.unit() < WOBBLE,
        _ => dice.unit() < DOUBTS,
    };
    let action = match (is_other, usual) {
        (false, usual) => usual,
        (true, "approve") => "review",
        (true, _) => {
            if dice.unit() < 0.5 {
                "approve"
            } else {
                "decline"
            }
        }
    };
    let confidence = (dice.between(0.86, 0.99) - 0.05 * repeats.min(4) as f64).max(0.5);
    let verdict = json!({"action": action, "confidence": (confidence * 100.0).round() / 100.0});
    let gives_up_nesting = repeats > 0 && dice.unit() < FLATTENS;
    let answer = match is_nested && !gives_up_nesting {
        true => json!({"screening": {"risk": {"verdict": verdict}}}),
        false => verdict,
    };
    Some(Reply::text(answer.to_string()))
}

/// What a payment deserves, by what its letter says.
fn usual(letter: &str) -> &'static str {
    let unsafe_online = letter.contains("no 3-D Secure");
    let is_odd = letter.contains("magnetic stripe") || letter.contains("Crypto");
    match (is_odd, unsafe_online) {
        (true, _) => "decline",
        (false, true) => "review",
        (false, false) => "approve",
    }
}

/// The verdict in an answer of the form that the agent reads: an object with `action` and
/// `confidence` at its top.
pub(crate) fn read(answer: &str) -> Option<(String, f64)> {
    let value: Value = serde_json::from_str(answer).ok()?;
    let action = value.get("action")?.as_str()?.to_owned();
    Some((action, value.get("confidence")?.as_f64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payment_comes_again_and_only_what_is_flat_is_read() {
        let seed = Seed::new(7);
        let all: std::collections::BTreeSet<String> =
            (0..200).map(|run| Payment::of(seed, run).letter()).collect();
        assert_eq!(all.len(), PAYMENTS.len());
        assert_eq!(read(r#"{"action":"approve","confidence":0.9}"#), Some(("approve".into(), 0.9)));
        assert_eq!(read(r#"{"screening":{"risk":{"verdict":{"action":"approve"}}}}"#), None);
        assert!(
            template(CANDIDATE).contains("screening\":")
                && !template(STABLE).contains("screening\":")
        );
    }
}
