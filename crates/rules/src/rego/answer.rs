//! What a policy is asked, and what its answer means: of `regorus` here, and of an OPA elsewhere.

use regorus::Value;
use serde_json::Value as Json;

/// Messages of one answer at most; further ones are counted.
pub const MAX_MESSAGES: usize = 20;

/// Longest message, characters.
pub const MAX_MESSAGE_CHARS: usize = 500;

/// What a policy is asked, by the last name of its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// `allow`: whether something may be. Only `true` allows; false and undefined deny.
    Allow,
    /// `deny` or `violation`: what speaks against it. `true`, or a set that is not empty, does; false, an
    /// empty set and undefined do not.
    Violation,
}

/// What a policy says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether it is not as it shall be: not allowed, or violated.
    pub is_breach: bool,
    /// What the policy says of that, in order; empty when it only says yes or no.
    pub messages: Vec<String>,
    /// Messages beyond [`MAX_MESSAGES`].
    pub more: usize,
}

impl Question {
    /// The question of a query such as `data.shop.allow`; `None` when it is none.
    pub fn of_query(query: &str) -> Option<Self> {
        let is_name = |part: &str| {
            let mut chars = part.chars();
            chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let rest = query.strip_prefix("data.")?;
        if !rest.split('.').all(is_name) {
            return None;
        }
        match rest.rsplit_once('.')?.1 {
            "allow" => Some(Self::Allow),
            "deny" | "violation" => Some(Self::Violation),
            _ => None,
        }
    }
}

impl Answer {
    /// What a value of the engine says.
    pub(super) fn of_value(question: Question, value: &Value) -> Result<Self, String> {
        match (question, value) {
            (_, Value::Undefined) => Ok(Self::undefined(question)),
            (_, Value::Bool(said)) => Ok(Self::of_bool(question, *said)),
            (Question::Violation, Value::Set(set)) => Self::of_messages(set.iter().map(message)),
            (Question::Violation, Value::Array(array)) => {
                Self::of_messages(array.iter().map(message))
            }
            (Question::Violation, Value::Object(object)) => {
                Self::of_messages(object.iter().map(|(key, _)| message(key)))
            }
            (question, other) => Err(unexpected(question, kind(other))),
        }
    }

    /// What an OPA says: the `result` of its answer, which is not there when the rule is undefined
    /// (<https://www.openpolicyagent.org/docs/rest-api>).
    ///
    /// # Errors
    /// What was expected, when the question cannot be answered so.
    pub fn of_result(question: Question, result: Option<&Json>) -> Result<Self, String> {
        match result {
            None => Ok(Self::undefined(question)),
            Some(result) => Self::of_value(question, &Value::from(result.clone())),
        }
    }

    fn undefined(question: Question) -> Self {
        Self { is_breach: question == Question::Allow, ..Self::default() }
    }

    fn of_bool(question: Question, said: bool) -> Self {
        Self { is_breach: said == (question == Question::Violation), ..Self::default() }
    }

    fn of_messages(told: impl Iterator<Item = Result<String, String>>) -> Result<Self, String> {
        let mut answer = Self::default();
        for message in told {
            let message = message?;
            answer.is_breach = true;
            if answer.messages.len() < MAX_MESSAGES {
                answer.messages.push(message);
            } else {
                answer.more += 1;
            }
        }
        Ok(answer)
    }
}

fn unexpected(question: Question, got: &str) -> String {
    match question {
        Question::Allow => format!("expected `allow` to be true or false, got {got}"),
        Question::Violation => {
            format!("expected a set of messages, true or false, got {got}")
        }
    }
}

/// The message of an element: itself, or its `msg`, as is usual in OPA.
fn message(element: &Value) -> Result<String, String> {
    let text = match element {
        Value::String(text) => Some(text),
        Value::Object(object) => {
            ["msg", "message"].iter().find_map(|key| match object.get(&Value::from(*key)) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            })
        }
        _ => None,
    };
    let text = text.ok_or_else(|| {
        let got = kind(element);
        format!("expected messages as texts, or as objects with `msg`, got {got}")
    })?;
    Ok(text.chars().take(MAX_MESSAGE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Set(_) => "a set",
        Value::Object(_) => "an object",
        Value::Undefined => "nothing",
    }
}
