//! Contracts of a route: what a request must be to be asked, and an answer to be used. JSON Schema for
//! shapes, CEL over `request` and `response` for everything else; both are compiled while the file is
//! read, so that a mistake has its place.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use throughline::telling::{JsonSchema, Quote};
use throughline_llm::{ChatResponse, Choice, Part};
use throughline_rules::schemas::{Exchange, exchange_schema};
use throughline_rules::{ErrorKind, Expression, Match};

use crate::api::Api;
use crate::asked::Asked;
use crate::splice::Object;

/// `contract:` of a route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContractConfig {
    /// What the body of a request must be.
    pub request_schema: Option<ContractSchema>,
    /// What a model's answer must be: its text, read as JSON.
    pub response_schema: Option<ContractSchema>,
    /// What must hold of `request`, the body, and `response`, the answer: JSON when it is JSON, else
    /// its text.
    pub rules: Vec<ContractRule>,
    /// What becomes of a violation.
    pub on_violation: OnViolation,
}

/// What becomes of a violation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnViolation {
    /// It is told, and nothing else happens.
    #[default]
    Count,
    /// The client gets an error instead.
    Block,
    /// The model is told once, and answers anew; an answer that does not hold then either is blocked,
    /// as is a request.
    Repair,
}

/// A JSON Schema.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Value")]
pub struct ContractSchema {
    text: Value,
    compiled: Arc<JsonSchema>,
}

impl TryFrom<Value> for ContractSchema {
    type Error = String;

    fn try_from(text: Value) -> Result<Self, String> {
        let compiled = JsonSchema::compile(&text)
            .map_err(|error| format!("expected a JSON Schema: {error}"))?;
        Ok(Self { text, compiled: Arc::new(compiled) })
    }
}

impl PartialEq for ContractSchema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// A rule in CEL over `request` and `response`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct ContractRule(Expression);

impl TryFrom<String> for ContractRule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Expression::filter(&text, &exchange_schema(None, None)).map(Self).map_err(|mistakes| {
            format!("expected a rule over `request` and `response`:\n{mistakes}")
        })
    }
}

impl PartialEq for ContractRule {
    fn eq(&self, other: &Self) -> bool {
        self.0.source() == other.0.source()
    }
}

/// What is wrong, in words.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    /// For the client and the model: values are quoted, which both of them have.
    pub(crate) told: String,
    /// For spans and decisions: without values where content is not recorded.
    pub(crate) recorded: String,
}

/// What became of an answer.
pub(crate) struct Judged {
    /// Whether it fits the schema; `None` without one, and for an answer that asks for tools.
    pub(crate) fits_schema: Option<bool>,
    pub(crate) violation: Option<Violation>,
}

/// One look at an answer.
struct Looked {
    fits_schema: Option<bool>,
    wrong: Option<String>,
}

impl Violation {
    /// `again` says the same with another quoting.
    fn new(told: String, captures_content: bool, again: impl Fn(Quote) -> Option<String>) -> Self {
        let recorded = match captures_content {
            true => told.clone(),
            false => again(Quote::Types).unwrap_or_default(),
        };
        Self { told, recorded }
    }
}

impl ContractConfig {
    /// Whether answers are looked at.
    pub(crate) fn is_of_answers(&self) -> bool {
        self.response_schema.is_some() || !self.rules.is_empty()
    }

    /// What is wrong with the body of a request.
    pub(crate) fn request_violation(
        &self,
        asked: &Asked,
        captures_content: bool,
    ) -> Option<Violation> {
        let wrong = |quote| self.wrong_request(asked, quote);
        Some(Violation::new(wrong(Quote::Values)?, captures_content, wrong))
    }

    /// What becomes of the answer to a request. One that asks for tools is not an answer yet, and
    /// embeddings are none.
    pub(crate) fn judge(
        &self,
        asked: &Asked,
        response: &ChatResponse,
        captures_content: bool,
    ) -> Judged {
        let look = |quote| self.look_at(asked, response, quote);
        let Looked { fits_schema, wrong } = look(Quote::Values);
        let again = |quote| look(quote).wrong;
        let violation = wrong.map(|told| Violation::new(told, captures_content, again));
        Judged { fits_schema, violation }
    }

    /// Whether nothing is wrong with an answer.
    pub(crate) fn holds(&self, asked: &Asked, response: &ChatResponse) -> bool {
        self.look_at(asked, response, Quote::Types).wrong.is_none()
    }

    fn wrong_request(&self, asked: &Asked, quote: Quote) -> Option<String> {
        let schema = self.request_schema.as_ref()?;
        match read(&asked.body) {
            Ok(body) => schema.compiled.check(&body, quote).err(),
            Err(unread) => Some(unread),
        }
    }

    fn look_at(&self, asked: &Asked, response: &ChatResponse, quote: Quote) -> Looked {
        let mut looked = Looked { fits_schema: None, wrong: None };
        if !self.is_of_answers() || asked.api == Api::Embeddings {
            return looked;
        }
        if response.choices.is_empty() {
            looked.wrong = Some("expected an answer, got none: it has no choices".to_owned());
            return looked;
        }
        // A long conversation is not parsed for rules that are not there.
        let request = match self.rules.is_empty() {
            true => Ok(Value::Null),
            false => read(&asked.body),
        };
        let mut wrong = Vec::new();
        for text in response.choices.iter().filter_map(answer_of) {
            let answer = serde_json::from_str::<Value>(text.trim());
            if let Some(schema) = &self.response_schema {
                let misfit = match &answer {
                    Ok(answer) => schema.compiled.check(answer, quote).err(),
                    Err(error) => Some(format!("expected JSON and nothing else: {error}")),
                };
                looked.fits_schema = Some(looked.fits_schema.unwrap_or(true) && misfit.is_none());
                wrong.extend(misfit);
            }
            // Rules are over what the answer says; where JSON is asked for, what is none says nothing.
            let response = match answer {
                Ok(answer) => answer,
                Err(_) if self.response_schema.is_some() => continue,
                Err(_) => Value::from(text),
            };
            if let Ok(request) = &request {
                wrong.extend(self.broken_rules(request, &response, quote));
            }
        }
        looked.wrong = match request {
            Err(unread) => Some(unread),
            Ok(_) => (!wrong.is_empty()).then(|| wrong.join("; ")),
        };
        looked
    }

    /// The rules that do not hold, in words.
    fn broken_rules(&self, request: &Value, response: &Value, quote: Quote) -> Vec<String> {
        let broken = |ContractRule(rule): &ContractRule| match rule
            .matches(&Exchange { request, response })
        {
            Match::Yes => None,
            Match::No => Some(format!("expected this to hold: {}", rule.source())),
            Match::Error(error) => {
                let why = why(&error.kind, quote);
                Some(format!("expected this to hold: {}: {why}", rule.source()))
            }
        };
        self.rules.iter().filter_map(broken).collect()
    }
}

/// Why a rule has no value. Keys and indices may be of what was said.
fn why(kind: &ErrorKind, quote: Quote) -> String {
    match (kind, quote) {
        (ErrorKind::NoSuchKey(_), Quote::Types) => "no such key".to_owned(),
        (ErrorKind::NoSuchIndex { .. }, Quote::Types) => "no such index".to_owned(),
        _ => kind.to_string(),
    }
}

/// The body of a request as a value. What takes a body for JSON without looking into it takes some that
/// no value holds: half of a surrogate pair, a number out of range, nesting without end.
fn read(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body)
        .map_err(|error| format!("expected a body that can be read as JSON: {error}"))
}

/// The words of an answer; `None` of one that asks for tools, which is not an answer yet.
fn answer_of(choice: &Choice) -> Option<String> {
    let parts = &choice.message.parts;
    let asks_tools = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
    (!asks_tools).then(|| text_of(parts))
}

/// What a model said in words.
pub(crate) fn text_of(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Text(text) => Some(text.clone()),
        _ => None,
    };
    parts.iter().filter_map(text).collect()
}

/// The request once more, with one message that tells what was wrong with the answer; `None` of an API
/// without messages.
pub(crate) fn repairing(api: Api, body: &[u8], said: &str, violation: &str) -> Option<Bytes> {
    let field = match api {
        Api::Chat | Api::Messages => "messages",
        Api::Responses => "input",
        Api::Completions | Api::Embeddings => return None,
    };
    let object = Object::read(body).ok()?;
    let mut messages = match object.get::<Value>(field)? {
        Value::Array(messages) => messages,
        Value::String(text) => vec![json!({"role": "user", "content": text})],
        _ => return None,
    };
    let message = format!(
        "You answered:\n\n{said}\n\nThat answer cannot be used: {violation}. Answer again, with the \
         corrected answer and nothing else."
    );
    messages.push(json!({"role": "user", "content": message}));
    Some(Bytes::from(object.with(field, &Value::from(messages).to_string())))
}

/// The request for a whole answer instead of a stream.
pub(crate) fn unstreamed(body: &[u8]) -> Option<Bytes> {
    let whole = Object::read(body).ok()?.with("stream", "false");
    let rest = Object::read(&whole).ok()?.without("stream_options");
    Some(Bytes::from(rest.unwrap_or(whole)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_is_the_request_with_one_message_more() {
        let of = |api, body: &str| {
            let body = repairing(api, body.as_bytes(), "{}", "no total").unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        };
        insta::assert_snapshot!(of(Api::Chat, r#"{"model":"a", "messages":[{"role":"user","content":"x"}],"z":1e3}"#), @r#"{"model":"a", "messages":[{"content":"x","role":"user"},{"content":"You answered:\n\n{}\n\nThat answer cannot be used: no total. Answer again, with the corrected answer and nothing else.","role":"user"}],"z":1e3}"#);
        insta::assert_snapshot!(of(Api::Responses, r#"{"input":"x"}"#), @r#"{"input":[{"content":"x","role":"user"},{"content":"You answered:\n\n{}\n\nThat answer cannot be used: no total. Answer again, with the corrected answer and nothing else.","role":"user"}]}"#);
        assert_eq!(repairing(Api::Embeddings, b"{\"input\":\"x\"}", "", ""), None);
        let whole = unstreamed(br#"{"model":"a","stream":true,"stream_options":{"x":1}}"#);
        assert_eq!(whole.unwrap(), r#"{"model":"a","stream":false}"#);
    }
}
