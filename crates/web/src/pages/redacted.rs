//! What redaction took out before anything was stored: how much of an item, by which rule, and where.

use std::collections::BTreeMap;

use maud::{Markup, PreEscaped, html};
use throughline_trace::{Attributes, LogRecord, Span, Value, keys};

use crate::format;

/// Hexadecimal digits of a hash in the place of a value.
const HASH_DIGITS: usize = 12;

/// How many values each rule took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Redacted(BTreeMap<String, u64>);

impl Redacted {
    /// What was taken out of a span and of log records on it.
    pub(super) fn of<'a>(span: &Span, logs: impl IntoIterator<Item = &'a LogRecord>) -> Self {
        let of_logs = logs.into_iter().map(|log| &log.attributes);
        Self::sum(std::iter::once(&span.attributes).chain(of_logs))
    }

    /// What was taken out of all items with these attributes.
    pub(super) fn sum<'a>(all: impl IntoIterator<Item = &'a Attributes>) -> Self {
        let mut made = Self::default();
        all.into_iter().for_each(|attributes| made.add(attributes));
        made
    }

    fn add(&mut self, attributes: &Attributes) {
        let Some(Value::Map(rules)) = attributes.get(keys::REDACTED) else { return };
        for (rule, count) in rules {
            if let Value::Int(count) = count {
                *self.0.entry(rule.clone()).or_default() += u64::try_from(*count).unwrap_or(0);
            }
        }
    }

    /// How many values.
    pub(super) fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The rules with how often each took something, as a list for people.
    pub(super) fn by_rule(&self) -> String {
        let each = self.0.iter().map(|(rule, count)| format!("{rule} {}", format::count(*count)));
        each.collect::<Vec<_>>().join(", ")
    }

    /// A note, when there is anything to tell.
    pub(super) fn flag(&self) -> Markup {
        html! {
            @if self.count() > 0 {
                p.flag {
                    (format::count(self.count())) " redacted before it was stored, by rule: " (self.by_rule()) "."
                }
            }
        }
    }

    /// The same markup with what stands in the place of a value shown as such: `[rule]`, or
    /// `[rule:hash]`. Only texts are looked at, never tags; a replacement of somebody's own wording
    /// stays a text like any other.
    pub(super) fn mark(&self, markup: Markup) -> Markup {
        if self.0.is_empty() {
            return markup;
        }
        let html = markup.into_string();
        let rules: Vec<_> = self.0.keys().map(|rule| (rule.as_str(), escaped(rule))).collect();
        let mut out = String::with_capacity(html.len() + 64);
        let mut rest = html.as_str();
        // Within texts `<` is written as `&lt;`, within tags `>` as `&gt;`.
        while let Some(at) = rest.find('<') {
            let (text, tag) = rest.split_at(at);
            mark_text(text, &rules, &mut out);
            let end = tag.find('>').map_or(tag.len(), |end| end + 1);
            out.push_str(&tag[..end]);
            rest = &tag[end..];
        }
        mark_text(rest, &rules, &mut out);
        PreEscaped(out)
    }
}

/// The name of a rule as it stands in a page.
fn escaped(rule: &str) -> String {
    html! { (rule) }.into_string()
}

/// Marks what rules, with their names as they stand in a page, have put into a text.
fn mark_text(text: &str, rules: &[(&str, String)], out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find('[') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let found = rules.iter().find_map(|(rule, shown)| Some((rule, length_of(rest, shown)?)));
        match found {
            Some((rule, length)) => {
                let title = format!("Redacted by the rule {rule} before it was stored");
                let shown = PreEscaped(&rest[..length]);
                out.push_str(&html! { mark.redacted title=(title) { (shown) } }.into_string());
                rest = &rest[length..];
            }
            None => {
                out.push('[');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
}

/// Bytes of the replacement by a rule that a text begins with.
fn length_of(text: &str, rule: &str) -> Option<usize> {
    let behind = text.strip_prefix('[')?.strip_prefix(rule)?;
    let length = 1 + rule.len();
    if behind.starts_with(']') {
        return Some(length + 1);
    }
    let hash = behind.strip_prefix(':')?.get(..HASH_DIGITS)?;
    let is_hash = hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_closed = behind[1 + HASH_DIGITS..].starts_with(']');
    (is_hash && is_closed).then_some(length + 2 + HASH_DIGITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(rules: &[(&str, i64)]) -> Redacted {
        let map = rules.iter().map(|(rule, count)| ((*rule).to_owned(), Value::Int(*count)));
        let mut attributes = Attributes::new();
        attributes.set(keys::REDACTED, Value::Map(map.collect()));
        Redacted::sum([&attributes, &attributes])
    }

    #[test]
    fn what_stands_for_a_value_is_marked_in_texts_only() {
        let found = redacted(&[("email", 2), ("a&b", 1)]);
        assert_eq!((found.count(), found.by_rule().as_str()), (6, "a&b 2, email 4"));
        let page = html! {
            p data-text="[email]" { "to [email] or [email:0123456789ab], [emails] [email:xyz] [phone] [a&b]" }
        };
        let told = found.mark(page).into_string();
        assert_eq!(told.matches("<mark").count(), 3, "{told}");
        assert!(told.contains("data-text=\"[email]\""), "{told}");
        assert!(told.contains(">[email:0123456789ab]</mark>, [emails] [email:xyz] [phone] <mark"));
        assert!(
            told.contains("rule a&amp;b before") && told.contains(">[a&amp;b]</mark>"),
            "{told}"
        );
        let plain = html! { p { "[email]" } };
        assert_eq!(Redacted::default().mark(plain.clone()).into_string(), plain.into_string());
    }

    proptest::proptest! {
        #[test]
        fn nothing_but_marks_is_added(text in "[\\[\\]a-c:<é\"0-9f]{0,60}") {
            let page = html! { p title=(text) { (text) } };
            let told = redacted(&[("a", 1), ("b", 1)]).mark(page.clone()).into_string();
            let mut plain = told.replace("</mark>", "");
            for rule in ["a", "b"] {
                let open = format!("<mark class=\"redacted\" title=\"Redacted by the rule {rule} before it was stored\">");
                plain = plain.replace(&open, "");
            }
            proptest::prop_assert_eq!(plain, page.into_string());
        }
    }
}
