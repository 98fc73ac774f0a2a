//! Many indicators over one span: sorted by what a span must be, so that it meets only those that
//! may concern it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use throughline_rules::schemas::GuardField;
use throughline_rules::{Expression, Guard};
use throughline_trace::Span;

use super::indicator::{Indicator, Observation, matches};

/// Indicators, found by the equalities of their filters.
///
/// Filters that ask for the same fields (agent and role, say) are one group, and a group costs a span
/// one look-up, however many indicators it holds.
#[derive(Debug, Clone, Default)]
pub struct IndicatorSet {
    all: Vec<Arc<Indicator>>,
    groups: Vec<Group>,
    /// Fields that some group asks for, bit by place in [`GuardField::ALL`].
    fields: u8,
}

/// Indicators whose filters ask for the same fields.
#[derive(Debug, Clone)]
struct Group {
    /// Bit by place in [`GuardField::ALL`].
    fields: u8,
    entries: HashMap<u64, Vec<Entry>, FixedState>,
}

/// Indicators whose filters are the same.
#[derive(Debug, Clone)]
struct Entry {
    guards: Vec<Guard>,
    residual: Option<Expression>,
    /// Places in `IndicatorSet::all`.
    indicators: Vec<usize>,
}

/// A span's fields, each looked up once and only if some group asks for it.
struct Fields<'s>([(&'s str, u64); GuardField::ALL.len()]);

impl<'s> Fields<'s> {
    fn of(span: &'s Span, wanted: u8) -> Self {
        let mut fields = [("", 0); GuardField::ALL.len()];
        for (at, field) in GuardField::ALL.into_iter().enumerate() {
            if wanted & (1 << at) != 0 {
                let text = field.of(span);
                fields[at] = (text, hash(text));
            }
        }
        Self(fields)
    }

    fn key(&self, wanted: u8) -> u64 {
        let each = self.0.iter().enumerate();
        each.filter(|(at, _)| wanted & (1 << at) != 0)
            .fold(0, |key, (_, (_, hash))| join(key, *hash))
    }

    fn meets(&self, guards: &[Guard]) -> bool {
        guards.iter().all(|guard| self.0[place(guard.field)].0 == &*guard.value)
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Not the same for fields in another order.
fn join(key: u64, hash: u64) -> u64 {
    (key.rotate_left(5) ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn place(field: GuardField) -> usize {
    GuardField::ALL.iter().position(|known| *known == field).unwrap_or_default()
}

impl IndicatorSet {
    /// A set of indicators; those with the same id are one.
    pub fn new(indicators: impl IntoIterator<Item = Arc<Indicator>>) -> Self {
        let mut set = Self::default();
        let mut known = HashSet::new();
        for indicator in indicators {
            if known.insert(indicator.id().to_owned()) {
                set.add(indicator);
            }
        }
        // The same group is asked first whatever order the files came in.
        set.groups.sort_by_key(|group| group.fields);
        set.fields = set.groups.iter().fold(0, |all, group| all | group.fields);
        set
    }

    fn add(&mut self, indicator: Arc<Indicator>) {
        let index = self.all.len();
        let filter = indicator.total().guards();
        self.all.push(indicator);
        let fields: u8 = filter.guards.iter().fold(0, |all, guard| all | (1 << place(guard.field)));
        if fields.count_ones() as usize != filter.guards.len() {
            // Two values of one field: no span is an event.
            return;
        }
        let at = self.groups.iter().position(|group| group.fields == fields).unwrap_or_else(|| {
            self.groups.push(Group { fields, entries: HashMap::default() });
            self.groups.len() - 1
        });
        let mut guards = filter.guards;
        guards.sort_by_key(|guard| place(guard.field));
        let key = guards.iter().fold(0, |key, guard| join(key, hash(&guard.value)));
        let entries = self.groups[at].entries.entry(key).or_default();
        let source = self.all[index].total().source();
        let same = entries.iter_mut().find(|entry| {
            entry
                .indicators
                .first()
                .is_some_and(|first| self.all[*first].total().source() == source)
        });
        match same {
            Some(entry) => entry.indicators.push(index),
            None => {
                entries.push(Entry { guards, residual: filter.residual, indicators: vec![index] })
            }
        }
    }

    /// The indicators.
    pub fn indicators(&self) -> &[Arc<Indicator>] {
        &self.all
    }

    /// Tells `each` what a span adds to whom: the place in [`IndicatorSet::indicators`], and what is
    /// added. In no particular order.
    pub fn observe(&self, span: &Span, mut each: impl FnMut(usize, Observation)) {
        let fields = Fields::of(span, self.fields);
        for group in &self.groups {
            let Some(entries) = group.entries.get(&fields.key(group.fields)) else { continue };
            for entry in entries.iter().filter(|entry| fields.meets(&entry.guards)) {
                if entry.residual.as_ref().is_none_or(|rest| matches(rest, span)) {
                    entry.indicators.iter().for_each(|at| each(*at, self.all[*at].judged(span)));
                }
            }
        }
    }
}
