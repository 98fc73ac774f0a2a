//! Whether a trace fits a query: from its summary as far as that says, then from its spans.

use std::borrow::Cow;

use serde_json::Value as Json;
use throughline_trace::{NameSet, TraceSummary, Value};

use super::content::{self, Said, Written};
use super::{
    AttributeTest, Expression, NameField, NumberField, SearchQuery, Term, TextTest, folded,
};

/// What the spans of a trace have shown so far of the terms in [`SpanTerms`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Terms that hold, a bit each.
    pub(crate) found: u64,
    /// Whether the name of the trace was looked at: what it shows is in `found`.
    pub(crate) has_name: bool,
    /// Whether every span was looked at: what was not found then is not there.
    pub(crate) is_whole: bool,
}

/// The terms that a summary alone cannot answer, in the order in which they stand in the query.
/// There are at most [`super::MAX_QUERY_TERMS`], so that a `u64` has a bit for each.
#[derive(Debug)]
pub(crate) struct SpanTerms<'q>(pub(crate) Vec<&'q Term>);

impl<'q> SpanTerms<'q> {
    pub(crate) fn of(query: &'q SearchQuery) -> Self {
        let mut terms = Vec::new();
        if let Some(expression) = &query.expression {
            gather(expression, &mut terms);
        }
        Self(terms)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bits of the terms that `holds`.
    pub(crate) fn bits(&self, holds: impl Fn(&Term) -> bool) -> u64 {
        let holding = self.0.iter().enumerate().filter(|(_, term)| holds(term));
        holding.fold(0, |bits, (at, _)| bits | 1 << at)
    }
}

fn is_about_spans(term: &Term) -> bool {
    matches!(term, Term::Text(_) | Term::Attribute(..) | Term::Name(NameField::Span, _))
}

fn gather<'q>(expression: &'q Expression, terms: &mut Vec<&'q Term>) {
    match expression {
        Expression::And(parts) | Expression::Or(parts) => {
            parts.iter().for_each(|part| gather(part, terms));
        }
        Expression::Not(one) => gather(one, terms),
        Expression::Term(term) if is_about_spans(term) => terms.push(term),
        Expression::Term(_) => {}
    }
}

impl SearchQuery {
    /// Whether a trace fits; `None` while that depends on spans that were not looked at.
    pub(crate) fn judge(&self, summary: &TraceSummary, evidence: Evidence) -> Option<bool> {
        match &self.expression {
            None => Some(true),
            Some(expression) => judge(expression, summary, evidence, &mut 0),
        }
    }

    /// Whether the number of decisions matters, which summaries of segments do not know.
    pub(crate) fn asks_for_decisions(&self) -> bool {
        self.asks_for(&[NumberField::Decisions])
    }

    /// Whether some term is about one of these numbers.
    pub(crate) fn asks_for(&self, numbers: &[NumberField]) -> bool {
        fn asks(expression: &Expression, numbers: &[NumberField]) -> bool {
            match expression {
                Expression::And(parts) | Expression::Or(parts) => {
                    parts.iter().any(|part| asks(part, numbers))
                }
                Expression::Not(one) => asks(one, numbers),
                Expression::Term(term) => {
                    matches!(term, Term::Number(field, _) if numbers.contains(field))
                }
            }
        }
        self.expression.as_ref().is_some_and(|expression| asks(expression, numbers))
    }
}

/// Three-valued: `None` is not known yet. Every part is visited, so that `next` counts the terms
/// about spans as [`SpanTerms`] does.
fn judge(
    expression: &Expression,
    summary: &TraceSummary,
    evidence: Evidence,
    next: &mut u32,
) -> Option<bool> {
    // The value that decides a list as soon as one part has it.
    let mut list = |parts: &[Expression], deciding: bool| {
        let mut verdict = Some(!deciding);
        for part in parts {
            match judge(part, summary, evidence, next) {
                Some(value) if value == deciding => verdict = Some(deciding),
                None if verdict == Some(!deciding) => verdict = None,
                _ => {}
            }
        }
        verdict
    };
    match expression {
        Expression::And(parts) => list(parts, false),
        Expression::Or(parts) => list(parts, true),
        Expression::Not(one) => judge(one, summary, evidence, next).map(|value| !value),
        Expression::Term(term) if is_about_spans(term) => {
            let is_found = evidence.found >> *next & 1 == 1;
            *next += 1;
            let is_named =
                || matches!(term, Term::Text(text) if Needle::new(text).is_in(summary.name()));
            // Who looks into spans has looked at the name of the trace before.
            match is_found || !evidence.has_name && is_named() {
                true => Some(true),
                false => evidence.is_whole.then_some(false),
            }
        }
        Expression::Term(term) => Some(holds(term, summary)),
    }
}

/// Whether a term that a summary can answer holds.
fn holds(term: &Term, summary: &TraceSummary) -> bool {
    let root = summary.root.as_ref();
    match term {
        Term::Name(field, test) => named(*field, test, summary),
        Term::Number(field, bounds) => bounds.contains(number_of(*field, summary)),
        Term::Start(bounds) => bounds.contains(summary.start_unix_nano),
        Term::Error(error) => *error == (summary.error_count > 0),
        Term::Failed(failed) => *failed == root.is_some_and(|root| root.is_error),
        Term::Fallback(state) => *state == summary.fallback,
        Term::Text(_) | Term::Attribute(..) => false,
    }
}

fn named(field: NameField, test: &TextTest, summary: &TraceSummary) -> bool {
    let any = |names: &NameSet| names.iter().any(|name| test.accepts(name));
    match field {
        NameField::Agent => any(&summary.agents),
        NameField::Session => any(&summary.sessions),
        NameField::User => any(&summary.users),
        NameField::Model => any(&summary.models),
        NameField::Service => any(&summary.services),
        NameField::Tool => any(&summary.tools),
        NameField::ErrorType => any(&summary.error_types),
        NameField::Name => test.accepts(summary.name()),
        NameField::Outcome => summary
            .root
            .as_ref()
            .and_then(|root| root.outcome.as_deref())
            .is_some_and(|outcome| test.accepts(outcome)),
        NameField::Trace => test.accepts(&summary.trace_id.to_string()),
        NameField::Span => false,
    }
}

fn number_of(field: NumberField, summary: &TraceSummary) -> f64 {
    let count = match field {
        NumberField::Cost => return summary.cost_usd(),
        NumberField::Tokens => summary.input_tokens.saturating_add(summary.output_tokens),
        NumberField::InputTokens => summary.input_tokens,
        NumberField::OutputTokens => summary.output_tokens,
        NumberField::Duration => summary.duration_nano(),
        NumberField::Spans => summary.span_count,
        NumberField::Errors => summary.error_count,
        NumberField::LlmCalls => summary.llm_calls,
        NumberField::ToolCalls => summary.tool_calls,
        NumberField::Retries => summary.retries,
        NumberField::Decisions => summary.decision_count,
        NumberField::Logs => summary.log_count,
    };
    count as f64
}

/// Whether the value of an attribute meets a test; of a list, one of its items.
pub(crate) fn value_matches(test: &AttributeTest, value: &Value) -> bool {
    if let Value::Array(items) = value
        && items.iter().any(|item| value_matches(test, item))
    {
        return true;
    }
    match test {
        AttributeTest::Number(bounds) => {
            value.as_f64().is_some_and(|number| bounds.contains(number))
        }
        AttributeTest::Text(TextTest::Any) => true,
        AttributeTest::Text(test) => {
            let text: Cow<'_, str> = match value {
                Value::String(text) => text.into(),
                Value::Int(number) => number.to_string().into(),
                Value::Double(number) => {
                    // Whoever looks for 0.50 means the number.
                    if let TextTest::Is(wanted) = test
                        && wanted.parse::<f64>().is_ok_and(|wanted| wanted == *number)
                    {
                        return true;
                    }
                    number.to_string().into()
                }
                Value::Bool(truth) => truth.to_string().into(),
                _ => return false,
            };
            test.accepts(&text)
        }
    }
}

/// A text that is looked for, in any case of letters.
#[derive(Debug)]
struct Needle(String);

impl Needle {
    fn new(text: &str) -> Self {
        Self(folded(text))
    }

    fn is_in(&self, text: &str) -> bool {
        folded(text).contains(&self.0)
    }
}

/// The texts among [`SpanTerms`], each with its bit.
#[derive(Debug)]
pub(crate) struct NeedleSet(Vec<(u64, Needle)>);

impl NeedleSet {
    pub(crate) fn of(terms: &SpanTerms<'_>) -> Self {
        let texts = terms.0.iter().enumerate().filter_map(|(at, term)| match term {
            Term::Text(text) => Some((1 << at, Needle::new(text))),
            _ => None,
        });
        Self(texts.collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bits of the texts that `text` holds.
    pub(crate) fn bits_in(&self, text: &str) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let lower = folded(text);
        let held = self.0.iter().filter(|(_, needle)| lower.contains(&needle.0));
        held.fold(0, |bits, (bit, _)| bits | bit)
    }

    /// The bits of the texts that JSON as text holds.
    pub(crate) fn bits_in_json(&self, text: &str, written: Written) -> u64 {
        // What is not even in the text is in none of its strings, unless something is escaped.
        let in_text = self.bits_in(text);
        if in_text == 0 && !text.contains('\\') {
            return 0;
        }
        match serde_json::from_str(text) {
            Ok(json) => self.bits_in_tree(&json, written),
            Err(_) => in_text,
        }
    }

    fn bits_in_tree(&self, json: &Json, written: Written) -> u64 {
        let mut bits = 0;
        content::texts_in_tree(json, written, &mut |text| bits |= self.bits_in(text));
        bits
    }

    /// The same for a value, be it structured or JSON as text.
    pub(crate) fn bits_in_value(&self, value: &Value, written: Written) -> u64 {
        match value {
            Value::String(text) if content::may_be_json(text) => self.bits_in_json(text, written),
            _ => {
                let mut bits = 0;
                content::texts_in_value(value, written, &mut |text| bits |= self.bits_in(text));
                bits
            }
        }
    }

    /// The bits of the texts in what a span says.
    pub(crate) fn bits_in_said(&self, said: Said<'_>) -> u64 {
        match said {
            Said::Text(text) => self.bits_in(text),
            Said::Value(value, written) => self.bits_in_value(value, written),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use throughline_trace::keys;

    use super::*;

    #[test]
    fn roles_and_types_are_hidden_in_messages_only() {
        let finds = |text: &str, json: &Json, written: Written| {
            let term = Term::Text(text.to_owned());
            let needles = NeedleSet::of(&SpanTerms(vec![&term]));
            let in_value = needles.bits_in_value(&Value::from_json(json.clone()), written);
            assert_eq!(in_value, needles.bits_in_json(&json.to_string(), written));
            in_value == 1
        };
        let message = json!([{ "role": "assistant", "parts": [
            { "type": "text", "content": "on its way" },
            { "type": "tool_call", "name": "book", "arguments": { "type": "refund", "role": "buyer" } },
        ] }]);
        let openai = json!({ "role": "tool", "content": { "type": "refund" }, "tool_calls": [
            { "type": "function", "function": { "name": "book", "arguments": { "role": "buyer" } } },
        ] });
        for (text, is_there) in [
            ("assistant", false),
            ("tool_call", false),
            ("way", true),
            ("refund", true),
            ("buyer", true),
        ] {
            assert_eq!(finds(text, &message, Written::Message), is_there, "{text}");
        }
        assert!(finds("refund", &openai, Written::Message));
        assert!(finds("buyer", &openai, Written::Message));
        assert!(!finds("function", &openai, Written::Message));
        let arguments = json!({ "type": "refund", "parts": [{ "role": "buyer" }] });
        assert!(finds("refund", &arguments, Written::under(keys::GEN_AI_TOOL_CALL_ARGUMENTS)));
        assert!(finds("buyer", &arguments, Written::under(keys::GEN_AI_TOOL_CALL_ARGUMENTS)));
        let tools = json!([{ "type": "function", "parameters": { "type": "object" } }]);
        assert!(!finds("object", &tools, Written::under(keys::GEN_AI_TOOL_DEFINITIONS)));
    }
}
