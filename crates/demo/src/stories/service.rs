//! Fjell & Fjord answers its customers: each session is a question, what the customer wants, and an
//! answer. Now and then half the town asks about a recall: they take several messages to say so, and the
//! talk ends far from where it began.

use serde_json::{Value, json};

use crate::provider::{ChatRequest, Reply, Role};
use crate::seed::Seed;

/// The agent's name.
pub const AGENT: &str = "customer_service";

/// Words of the system prompt by which its requests are known.
const MARK: &str = "customer service of Fjell & Fjord";

/// The system prompt.
pub(crate) const INSTRUCTIONS: &str = "You are the customer service of Fjell & Fjord. First find out \
what the customer wants: ask while it is unclear. Answer with JSON alone: {\"ask\": \"your question\"}, \
or {\"intent\": \"what they want\", \"confidence\": 0.9}. When you are told to write the answer, write it \
as plain text.";

/// What the agent says when it wants the answer.
pub(crate) const WRITE: &str = "Write the answer now.";

/// Sessions after which it begins again.
const PERIOD: u64 = 720;

/// Sessions that are about the recall for the most part, of a period.
const RECALL: std::ops::Range<u64> = 66..156;

/// Share of them that are.
const ABOUT_RECALL: f64 = 0.85;

/// What customers ask on ordinary days: the question, the intent, and what is to be said of it.
const QUESTIONS: [(&str, &str, &str); 6] = [
    (
        "When will my parcel with the two tents arrive in Bergen?",
        "delivery_status",
        "tomorrow before noon",
    ),
    (
        "Can I return the brown hiking boots, they are too small?",
        "return",
        "within thirty days, the label is in the box",
    ),
    (
        "Is the red rain jacket in size L in stock in Oslo?",
        "stock",
        "three of them, one is put aside",
    ),
    (
        "My invoice for the sleeping bag shows the wrong address",
        "invoice",
        "a corrected one is on its way",
    ),
    (
        "How do I wash the merino sweater without shrinking it?",
        "care",
        "by hand and cold, dried flat",
    ),
    (
        "Can the voucher be used for the climbing course in May?",
        "voucher",
        "yes, at the desk on the first day",
    ),
];

/// What customers say in turn who mean the recall, and do not say so.
const OF_RECALL: [&str; 3] = [
    "Hello, I have a question about something I bought last winter",
    "It gets warm when nobody uses it, the small one",
    "The headlamp's lithium battery swelled while charging overnight",
];

/// What they are told in the end.
const TOLD: &str = "Stop charging that headlamp: its lithium battery belongs to a recalled batch. A \
courier collects it, and a replacement ships free of charge.";

/// What one customer says, in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Talk {
    /// The session.
    pub session: String,
    words: Vec<&'static str>,
}

impl Talk {
    /// Session number `run`.
    pub fn of(seed: Seed, run: u64) -> Self {
        let mut dice = seed.named("talk").nth(run).dice();
        let words = if RECALL.contains(&(run % PERIOD)) && dice.unit() < ABOUT_RECALL {
            OF_RECALL.to_vec()
        } else {
            vec![QUESTIONS[dice.below(QUESTIONS.len() as u64) as usize].0]
        };
        Self { session: format!("support-{}", 51_000 + run), words }
    }

    /// What the customer begins with.
    pub fn opening(&self) -> &'static str {
        self.words.first().copied().unwrap_or_default()
    }

    /// What the customer says when asked for the `asked`th time, from 1.
    pub fn says(&self, asked: usize) -> &'static str {
        self.words.get(asked).or(self.words.last()).copied().unwrap_or_default()
    }
}

/// What the model takes a message to mean.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meaning {
    /// It asks.
    Ask(String),
    /// It knows what is wanted, and how surely.
    Intent(String, f64),
}

/// The meaning in an answer.
pub(crate) fn read(answer: &str) -> Option<Meaning> {
    let value: Value = serde_json::from_str(answer).ok()?;
    let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
    match text("ask") {
        Some(question) => Some(Meaning::Ask(question)),
        None => Some(Meaning::Intent(text("intent")?, value.get("confidence")?.as_f64()?)),
    }
}

/// What the model says; `None` to anything else.
pub(super) fn perform(seed: Seed, request: &ChatRequest) -> Option<Reply> {
    request.texts(Role::System).find(|text| text.contains(MARK))?;
    let said: Vec<&str> = request.texts(Role::User).filter(|text| *text != WRITE).collect();
    let is_answer = request.texts(Role::User).any(|text| text == WRITE);
    let sure = (seed.named("service").dice().between(0.84, 0.98) * 100.0).round() / 100.0;
    let known = QUESTIONS.iter().find(|(question, ..)| said.contains(question));
    let text = match (known, is_answer) {
        (Some((question, _, told)), true) => format!("{question} That is settled: {told}."),
        (Some((_, intent, _)), false) => json!({"intent": intent, "confidence": sure}).to_string(),
        (None, true) => TOLD.to_owned(),
        (None, false) if said.contains(&OF_RECALL[2]) => {
            json!({"intent": "recall", "confidence": sure - 0.2}).to_string()
        }
        (None, false) => {
            json!({"ask": "I am sorry to hear that. What exactly is it, and what happens with it?"})
                .to_string()
        }
    };
    Some(Reply::text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_sessions_are_understood_at_once_and_recalls_are_not() {
        let seed = Seed::new(7);
        let asked = |run: u64| Talk::of(seed, run).words.len();
        assert!((0..RECALL.start).all(|run| asked(run) == 1));
        let long = RECALL.filter(|run| asked(*run) == 3).count();
        assert!((60..90).contains(&long), "{long}");
        assert_eq!(
            read(r#"{"intent": "return", "confidence": 0.9}"#),
            Some(Meaning::Intent("return".into(), 0.9))
        );
        assert_eq!(read(r#"{"ask": "What?"}"#), Some(Meaning::Ask("What?".into())));
        assert_eq!(read("that is settled"), None);
    }
}
