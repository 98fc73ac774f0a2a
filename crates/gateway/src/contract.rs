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

impl Violation {
    fn of(captures_content: bool, wrong: impl Fn(Quote) -> Option<String>) -> Option<Self> {
        let told = wrong(Quote::Values)?;
        let recorded = match captures_content {
            true => told.clone(),
            false => wrong(Quote::Types).unwrap_or_default(),
        };
        Some(Self { told, recorded })
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
        Violation::of(captures_content, |quote| self.wrong_request(asked, quote))
    }

    /// What is wrong with the answer to a request. One that asks for tools is not an answer yet, and
    /// embeddings are none.
    pub(crate) fn answer_violation(
        &self,
        asked: &Asked,
        response: &ChatResponse,
        captures_content: bool,
    ) -> Option<Violation> {
        Violation::of(captures_content, |quote| self.wrong_answer(asked, response, quote))
    }

    /// Whether nothing is wrong with an answer.
    pub(crate) fn holds(&self, asked: &Asked, response: &ChatResponse) -> bool {
        self.wrong_answer(asked, response, Quote::Types).is_none()
    }

    /// Whether an answer fits the schema; `None` without one, and for an answer that asks for tools.
    pub(crate) fn fits_schema(&self, response: &ChatResponse) -> Option<bool> {
        let schema = self.response_schema.as_ref()?;
        let mut texts = response.choices.iter().filter_map(answer_of).peekable();
        texts.peek()?;
        Some(texts.all(|text| {
            serde_json::from_str::<Value>(text.trim())
                .is_ok_and(|answer| schema.compiled.check(&answer, Quote::Types).is_ok())
        }))
    }

    fn wrong_request(&self, asked: &Asked, quote: Quote) -> Option<String> {
        let schema = self.request_schema.as_ref()?;
        match read(&asked.body) {
            Ok(body) => schema.compiled.check(&body, quote).err(),
            Err(unread) => Some(unread),
        }
    }

    fn wrong_answer(&self, asked: &Asked, response: &ChatResponse, quote: Quote) -> Option<String> {
        if !self.is_of_answers() || asked.api == Api::Embeddings {
            return None;
        }
        if response.choices.is_empty() {
            return Some("expected an answer, got none: it has no choices".to_owned());
        }
        // A long conversation is not parsed for rules that are not there.
        let request = match self.rules.is_empty() {
            true => Value::Null,
            false => match read(&asked.body) {
                Ok(request) => request,
                Err(unread) => return Some(unread),
            },
        };
        let mut wrong = Vec::new();
        for text in response.choices.iter().filter_map(answer_of) {
            wrong.extend(self.wrong_text(&request, &text, quote));
        }
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }

    fn wrong_text(&self, request: &Value, text: &str, quote: Quote) -> Vec<String> {
        let read = serde_json::from_str::<Value>(text.trim());
        if let (Some(_), Err(error)) = (&self.response_schema, &read) {
            return vec![format!("expected JSON and nothing else: {error}")];
        }
        let response = read.unwrap_or_else(|_| Value::from(text));
        let schema = self.response_schema.as_ref();
        let mut wrong: Vec<String> = schema
            .and_then(|schema| schema.compiled.check(&response, quote).err())
            .into_iter()
            .collect();
        for ContractRule(rule) in &self.rules {
            match rule.matches(&Exchange { request, response: &response }) {
                Match::Yes => {}
                Match::No => wrong.push(format!("expected this to hold: {}", rule.source())),
                Match::Error(error) => wrong.push(format!(
                    "expected this to hold: {}: {}",
                    rule.source(),
                    why(&error.kind, quote)
                )),
            }
        }
        wrong
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
