//! One item under the eye of the rules: every text of it is looked at, and what was found is noted.

use std::ops::Range;

use throughline_trace::{Attributes, Value, keys};

use crate::config::Action;
use crate::fields::Place;
use crate::json;
use crate::rules::{RuleSet, numbers};
use crate::sources;
use crate::trail::{Trail, Verdict};

/// JSON in a text in JSON in a text, and so on: how deep it is read as such. Beyond, texts are
/// looked at as they are. Each level doubles the backslashes, so nobody gets far.
const MAX_EMBEDDED: usize = 8;

/// Smallest integer that is looked at, when a rule looks at integers: cards have 13 digits.
const LEAST_NUMBER: i64 = 1_000_000_000_000;

/// What is to be done with a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// This stands in its place.
    Text(String),
    /// The attribute that holds it is dropped, by this rule.
    Drop(usize),
}

/// Finds of a whole batch: how often, by rule and place.
#[derive(Debug, Default)]
pub(crate) struct Tally(Vec<((usize, usize), u64)>);

impl Tally {
    fn add(&mut self, rule: usize, place: Place) {
        let key = (rule, place as usize);
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, count)) => *count += 1,
            None => self.0.push((key, 1)),
        }
    }

    /// Rule, place and count.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, Place, u64)> {
        self.0.iter().map(|((rule, place), count)| (*rule, Place::ALL[*place], *count))
    }
}

/// The names in what [`Examiner::mark`] has said on an item that comes again; `None` when an attribute
/// is anything else.
fn names_of_mark<'v>(
    key: &str,
    value: &'v mut Value,
) -> Option<impl Iterator<Item = &'v mut String>> {
    let Value::Map(said) = value else { return None };
    let is_count = |value: &Value| matches!(value, Value::Int(0..LEAST_NUMBER));
    let is_mark = key == keys::REDACTED && said.iter().all(|(_, value)| is_count(value));
    is_mark.then(|| said.iter_mut().map(|(name, _)| name))
}

/// Looks at one item.
pub(crate) struct Examiner<'r> {
    pub(crate) set: &'r RuleSet,
    /// The rules that apply to the item's agent.
    pub(crate) rules: u64,
    pub(crate) tally: &'r mut Tally,
    place: Place,
    /// The names of the normal form that the item has: rules on them apply to what they were made of.
    normal: u64,
    /// Rules and how often each found something in this item.
    found: Vec<(usize, i64)>,
}

impl<'r> Examiner<'r> {
    pub(crate) fn new(set: &'r RuleSet, rules: u64, tally: &'r mut Tally) -> Self {
        Self { set, rules, tally, place: Place::SpanName, normal: 0, found: Vec::new() }
    }

    /// As [`Examiner::new`], of an item whose normal form is among these attributes.
    pub(crate) fn with_normal_form(mut self, attributes: &Attributes) -> Self {
        if self.set.asks_for_sources {
            self.normal = sources::of_item(attributes);
        }
        self
    }

    /// Notes one find.
    pub(crate) fn note(&mut self, rule: usize) {
        self.tally.add(rule, self.place);
        match self.found.iter_mut().find(|(known, _)| *known == rule) {
            Some((_, count)) => *count += 1,
            None => self.found.push((rule, 1)),
        }
    }

    /// Whether anything was found in the item.
    pub(crate) fn has_found(&self) -> bool {
        !self.found.is_empty()
    }

    /// Says on the item what was taken out, adding to what somebody before us has said.
    pub(crate) fn mark(self, attributes: &mut Attributes) {
        if self.found.is_empty() {
            return;
        }
        let mut said = match attributes.remove(keys::REDACTED) {
            Some(Value::Map(said)) => said,
            _ => Vec::new(),
        };
        for (rule, count) in self.found {
            let name = &self.set.rules[rule].name;
            match said.iter_mut().find(|(known, _)| known == name) {
                Some((_, Value::Int(known))) => *known = known.saturating_add(count),
                Some((_, other)) => *other = Value::Int(count),
                None => said.push((name.clone(), Value::Int(count))),
            }
        }
        attributes.set(keys::REDACTED, Value::Map(said));
    }

    /// Looks at a text that is no attribute. Where a rule would drop it, its mask stands instead: the
    /// field is always there.
    pub(crate) fn text_field(&mut self, place: Place, field: &str, text: &mut String) {
        let rules = self.set.of_field(self.rules, field, self.normal);
        self.look_at_field(place, rules, field, text);
    }

    /// As [`Examiner::text_field`], of a field that was an attribute when it came, so that rules of the
    /// configuration by name apply too. None is called like a secret.
    pub(crate) fn attribute_field(&mut self, place: Place, key: &str, text: &mut String) {
        let rules = self.set.of_field(self.rules, key, self.normal);
        let (Some(rule), false) = (self.by_own_name(rules, key), text.is_empty()) else {
            return self.look_at_field(place, rules, key, text);
        };
        self.place = place;
        let mut value = Value::String(std::mem::take(text));
        *text = match (self.take_whole(rule, &mut value), value) {
            (Some(rule), _) => self.set.rules[rule].mask.clone(),
            (None, Value::String(text)) => text,
            (None, other) => other.to_text(),
        };
    }

    fn look_at_field(&mut self, place: Place, rules: u64, field: &str, text: &mut String) {
        self.place = place;
        match self.looked_at_text(rules, field, text) {
            Some(Edit::Text(new)) => *text = new,
            Some(Edit::Drop(rule)) => text.clone_from(&self.set.rules[rule].mask),
            None => {}
        }
    }

    /// Looks at all attributes: their names, and their values.
    pub(crate) fn attributes(&mut self, place: Place, attributes: &mut Attributes) {
        let set = self.set;
        attributes.0.retain_mut(|(key, value)| {
            self.place = place.of_key(key);
            let rules = set.of_field(self.rules, key, self.normal);
            if let Some(names) = names_of_mark(key, value) {
                // Its counts stand under names of rules, which may be those of secrets.
                names.for_each(|name| self.key(rules & !set.fuzzy, name));
                return true;
            }
            // Names of attributes are written by programmers: what only looks like something there
            // is none.
            let (of_key, _) = set.candidates(rules & !set.fuzzy, key);
            let dropped = self.named_value(rules, of_key, key, value).is_some();
            if of_key != 0 {
                self.key(of_key, key);
            }
            !dropped
        });
    }

    /// Looks at the body of a log record.
    pub(crate) fn body(&mut self, place: Place, rules: u64, field: &str, body: &mut Value) {
        self.place = place;
        if let Some(rule) = self.looked_at(rules, field, body) {
            *body = Value::String(self.set.rules[rule].mask.clone());
        }
    }

    /// Looks at the value of an attribute; answers the rule that drops it. `of_key` are the rules whose
    /// triggers are in the name.
    fn named_value(
        &mut self,
        rules: u64,
        of_key: u64,
        key: &str,
        value: &mut Value,
    ) -> Option<usize> {
        let set = self.set;
        if let Some(rule) = self.by_own_name(rules, key) {
            return self.take_whole(rule, value);
        }
        if let Some(rule) = set.by_secret_name(of_key, key) {
            return self.take_scalars(rule, &mut Trail::new(set, rules, key, self.normal), value);
        }
        self.looked_at(rules, key, value)
    }

    /// The rule of the configuration that takes what has this name.
    fn by_own_name(&self, rules: u64, key: &str) -> Option<usize> {
        if rules & self.set.keyed == 0 {
            return None;
        }
        let last = key.rsplit('.').next().unwrap_or(key);
        let normal = || sources::copied_from(self.normal, key);
        let by_normal = || self.set.by_normal(rules, normal(), "");
        self.set.by_key(rules, key, last).or_else(by_normal)
    }

    /// Looks at a value by what is in it; answers the rule that drops it.
    fn looked_at(&mut self, rules: u64, field: &str, value: &mut Value) -> Option<usize> {
        match value {
            Value::Empty | Value::Bool(_) | Value::Double(_) => None,
            Value::Int(_) if rules & self.set.numbers == 0 => None,
            Value::String(text) => match self.looked_at_text(rules, field, text)? {
                Edit::Text(new) => {
                    *text = new;
                    None
                }
                Edit::Drop(rule) => Some(rule),
            },
            _ if rules == 0 => None,
            _ => self.value(&mut Trail::new(self.set, rules, field, self.normal), value),
        }
    }

    /// As [`Examiner::looked_at`], of a text. In most there is nothing to find.
    fn looked_at_text(&mut self, rules: u64, field: &str, text: &str) -> Option<Edit> {
        if rules == 0 || text.is_empty() {
            return None;
        }
        let seen = self.set.candidates(rules, text);
        let (candidates, escapes) = seen;
        if candidates == 0 && !(self.needs_structure(rules, escapes) && json::may_be(text)) {
            return None;
        }
        self.seen_text(&mut Trail::new(self.set, rules, field, self.normal), text, seen)
    }

    /// Whether JSON has to be read even if its text has no trigger.
    fn needs_structure(&self, rules: u64, escapes: bool) -> bool {
        escapes || rules & (self.set.keyed | self.set.paths) != 0
    }

    /// Looks at a value and what is in it; answers the rule that drops the attribute.
    fn value(&mut self, trail: &mut Trail, value: &mut Value) -> Option<usize> {
        match value {
            Value::String(text) => match self.text(trail, text)? {
                Edit::Text(new) => *text = new,
                Edit::Drop(rule) => return Some(rule),
            },
            Value::Int(number) => {
                if let Some(new) = self.number(trail.rules, *number) {
                    match new {
                        Edit::Text(new) => *value = Value::String(new),
                        Edit::Drop(rule) => return Some(rule),
                    }
                }
            }
            Value::Bytes(bytes) => match self.bytes(trail, bytes)? {
                Edit::Text(new) => *bytes = new.into_bytes(),
                Edit::Drop(rule) => return Some(rule),
            },
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let verdict = trail.enter_index(self.set, index);
                    let dropped = self.by_verdict(verdict, trail, item);
                    trail.leave();
                    if dropped.is_some() {
                        return dropped;
                    }
                }
            }
            Value::Map(entries) => {
                for (key, item) in entries {
                    let verdict = trail.enter_key(self.set, key);
                    let dropped = self.by_verdict(verdict, trail, item);
                    trail.leave();
                    if dropped.is_some() {
                        return dropped;
                    }
                    self.key(trail.rules, key);
                }
            }
            Value::Empty | Value::Bool(_) | Value::Double(_) => {}
        }
        None
    }

    fn by_verdict(
        &mut self,
        verdict: Verdict,
        trail: &mut Trail,
        value: &mut Value,
    ) -> Option<usize> {
        match verdict {
            Verdict::Look => self.value(trail, value),
            Verdict::Whole(rule) => {
                if self.take_whole(rule, value).is_some() {
                    *value = Value::Empty;
                }
                None
            }
            Verdict::Scalars(rule) => {
                let dropped = self.take_scalars(rule, trail, value)?;
                if dropped != rule {
                    return Some(dropped);
                }
                *value = Value::Empty;
                None
            }
        }
    }

    /// Takes out a value as a whole; answers the rule if that drops it.
    fn take_whole(&mut self, rule: usize, value: &mut Value) -> Option<usize> {
        let text = match value {
            Value::Empty => return None,
            Value::String(text) if text.is_empty() => return None,
            Value::String(text) => std::mem::take(text),
            ref other => other.to_text(),
        };
        if self.set.is_replacement(rule, &text) {
            // Somebody before us has taken it out.
            *value = Value::String(text);
            return None;
        }
        self.note(rule);
        *value = Value::String(self.set.replacement(rule, &text));
        (self.set.rules[rule].action == Action::Drop).then_some(rule)
    }

    /// Takes out texts and numbers, also those in a list; other values are looked at.
    fn take_scalars(&mut self, rule: usize, trail: &mut Trail, value: &mut Value) -> Option<usize> {
        match value {
            Value::String(_) | Value::Int(_) | Value::Double(_) | Value::Bytes(_) => {
                self.take_whole(rule, value)
            }
            Value::Array(items) => {
                let mut dropped = None;
                for (index, item) in items.iter_mut().enumerate() {
                    let found = match trail.enter_index(self.set, index) {
                        Verdict::Look => self.take_scalars(rule, trail, item),
                        verdict => self.by_verdict(verdict, trail, item),
                    };
                    trail.leave();
                    dropped = dropped.or(found);
                }
                dropped
            }
            Value::Map(_) => self.value(trail, value),
            Value::Empty | Value::Bool(_) => None,
        }
    }

    /// Looks at the name of an attribute or a member. A name is never dropped.
    fn key(&mut self, rules: u64, key: &mut String) {
        if let Some(new) = self.name(rules, key) {
            *key = new;
        }
    }

    /// What a name is to be instead, if anything is found in it.
    pub(crate) fn name(&mut self, rules: u64, name: &str) -> Option<String> {
        let (candidates, _) = self.set.candidates(rules, name);
        match self.plain(candidates, name)? {
            Edit::Text(new) => Some(new),
            Edit::Drop(rule) => Some(self.set.rules[rule].mask.clone()),
        }
    }

    /// Looks at a text, inside its strings if it is JSON.
    pub(crate) fn text(&mut self, trail: &mut Trail, text: &str) -> Option<Edit> {
        let seen = self.set.candidates(trail.rules, text);
        self.seen_text(trail, text, seen)
    }

    /// As [`Examiner::text`], when it is known which rules may have something to find in it, and
    /// whether escapes may hide more.
    fn seen_text(
        &mut self,
        trail: &mut Trail,
        text: &str,
        (candidates, escapes): (u64, bool),
    ) -> Option<Edit> {
        let has_cause = candidates != 0 || self.needs_structure(trail.rules, escapes);
        if has_cause && trail.embedded < MAX_EMBEDDED && json::may_be(text) {
            trail.embedded += 1;
            let edit = json::redact(self, trail, text, candidates);
            trail.embedded -= 1;
            return edit;
        }
        self.plain(candidates, text)
    }

    /// Looks at text that is no JSON.
    pub(crate) fn plain_text(&mut self, rules: u64, text: &str) -> Option<Edit> {
        self.plain(self.set.candidates(rules, text).0, text)
    }

    /// Looks at an integer as at its digits.
    pub(crate) fn number(&mut self, rules: u64, number: i64) -> Option<Edit> {
        let rules = rules & self.set.numbers;
        if rules == 0 || number < LEAST_NUMBER {
            return None;
        }
        self.plain_text(rules, &number.to_string())
    }

    /// Looks at bytes as far as they are text; what is not stays as it is.
    fn bytes(&mut self, trail: &mut Trail, bytes: &mut Vec<u8>) -> Option<Edit> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return self.text(trail, text);
        }
        let mut new = Vec::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            match self.plain_text(trail.rules, chunk.valid()) {
                Some(Edit::Drop(rule)) => return Some(Edit::Drop(rule)),
                Some(Edit::Text(text)) => new.extend_from_slice(text.as_bytes()),
                None => new.extend_from_slice(chunk.valid().as_bytes()),
            }
            new.extend_from_slice(chunk.invalid());
        }
        *bytes = new;
        None
    }

    /// Replaces what these rules find. Finds that overlap become one, so that no end of a longer
    /// one stays behind; the one that begins first gives it its name, then the earlier rule.
    fn plain(&mut self, candidates: u64, text: &str) -> Option<Edit> {
        if candidates == 0 {
            return None;
        }
        let mut finds: Vec<(Range<usize>, usize)> = Vec::new();
        for rule in numbers(candidates) {
            self.find(rule, text, &mut finds);
        }
        if finds.is_empty() {
            return None;
        }
        finds.sort_by_key(|(range, rule)| (range.start, *rule));
        let mut merged: Vec<(Range<usize>, usize)> = Vec::new();
        for (range, rule) in finds {
            match merged.last_mut() {
                Some((last, _)) if range.start < last.end => last.end = last.end.max(range.end),
                _ => merged.push((range, rule)),
            }
        }
        let mut new = String::with_capacity(text.len());
        let (mut copied, mut dropped) = (0, None);
        for (range, rule) in merged {
            self.note(rule);
            if self.set.rules[rule].action == Action::Drop {
                dropped = dropped.or(Some(rule));
            }
            new.push_str(&text[copied..range.start]);
            new.push_str(&self.set.replacement(rule, &text[range.clone()]));
            copied = range.end;
        }
        if let Some(rule) = dropped {
            return Some(Edit::Drop(rule));
        }
        new.push_str(&text[copied..]);
        Some(Edit::Text(new))
    }

    fn find(&self, number: usize, text: &str, finds: &mut Vec<(Range<usize>, usize)>) {
        let rule = &self.set.rules[number];
        for search in &rule.patterns {
            let mut from = 0;
            while let Some((whole, found)) = search.next(text, from) {
                let kept = match &rule.definition {
                    Some(definition) => (definition.check)(text, found),
                    None => Some(found),
                };
                // Where only a part of a match was meant, or none, the rest may hold another.
                from = match (&kept, &rule.definition) {
                    (Some(kept), _) => kept.end,
                    (None, Some(definition)) => (definition.resume)(text, &whole),
                    (None, None) => whole.end,
                };
                from = text.ceil_char_boundary(from.max(whole.start + 1));
                let is_new = |kept: &Range<usize>| {
                    !kept.is_empty() && !self.set.is_replacement(number, &text[kept.clone()])
                };
                finds.extend(kept.filter(is_new).map(|kept| (kept, number)));
            }
        }
    }
}
