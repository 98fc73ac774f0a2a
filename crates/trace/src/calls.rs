//! Model calls that a trace tells more than once, so that each counts once in its totals.
//!
//! A program may have two instrumentations: one of its framework, one of the provider's client. Both
//! tell the call as an inference, with the same usage. They are one call when one is the parent of
//! the other, or when they name the same answer of the provider (`gen_ai.response.id`) at the same
//! time, wherever in the trace they are: instrumentations do not always see each other. (At another
//! time it is a provider in a test that gives every answer one id.)

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::{Attributes, Span, SpanFacts, SpanId, SpanRole, Usage, keys};

/// Tellings of one answer, or under one span id, that a further one is compared with: the latest.
/// There are two or three of them, unless somebody means harm.
const MAX_COMPARED: usize = 64;

/// Calls of a trace up to which a further one is compared with each: most traces have no more, and maps of places
/// take more memory than such calls do.
const FEW_CALLS: usize = 12;

/// What model calls stand for in the totals of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallCounts {
    /// How many calls.
    pub calls: u64,
    /// Their tokens in.
    pub input_tokens: u64,
    /// Their tokens out.
    pub output_tokens: u64,
    /// Their cost, billionths of a US dollar.
    pub cost_nano_usd: u64,
}

impl CallCounts {
    fn has_usage(self) -> bool {
        self.input_tokens > 0 || self.output_tokens > 0
    }

    fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cost_nano_usd: self.cost_nano_usd.saturating_add(other.cost_nano_usd),
        }
    }
}

/// One telling of a model call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    span_id: SpanId,
    parent: Option<SpanId>,
    /// Hash of the provider's id of the answer.
    answer: Option<u64>,
    start_unix_nano: u64,
    end_unix_nano: u64,
    counts: CallCounts,
    /// What it added to rollups, to be taken back if it turns out not to count.
    facts: Option<Box<SpanFacts>>,
}

impl Call {
    /// The call that a span tells; `None` when its role is not that of an inference.
    pub fn of(span: &Span) -> Option<Self> {
        is_call(span.role()).then(|| {
            let time = (span.start_unix_nano, span.end_unix_nano);
            Self::of_parts(span.span_id, span.parent_span_id, time, &span.attributes)
        })
    }

    /// The call of a span that is known to be one, from what is needed of it. Start and end are
    /// nanoseconds since the Unix epoch.
    pub fn of_parts(
        span_id: SpanId,
        parent: Option<SpanId>,
        (start_unix_nano, end_unix_nano): (u64, u64),
        attributes: &Attributes,
    ) -> Self {
        let answer = attributes.str(keys::GEN_AI_RESPONSE_ID).map(|id| {
            let mut hasher = DefaultHasher::new();
            id.hash(&mut hasher);
            hasher.finish()
        });
        let usage = Usage::from_attributes(attributes).unwrap_or_default();
        let cost = attributes.f64(keys::COST_USD).filter(|cost| cost.is_finite() && *cost >= 0.0);
        let counts = CallCounts {
            calls: 1,
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cost_nano_usd: cost.map_or(0, nano_usd),
        };
        Self { span_id, parent, answer, start_unix_nano, end_unix_nano, counts, facts: None }
    }

    /// The same call with what it adds to rollups.
    #[must_use]
    pub fn with_facts(self, facts: SpanFacts) -> Self {
        Self { facts: Some(Box::new(facts)), ..self }
    }

    /// What it stands for if it counts.
    pub fn counts(&self) -> CallCounts {
        self.counts
    }

    /// Whether the two tell one call and `other` is the telling that counts. Of parent and child it
    /// is the child, which is nearer to the provider, unless only the parent knows the tokens; of
    /// others the one that knows the tokens, then the later one. Depends on the two alone, so that
    /// what counts does not depend on the order of arrival.
    fn loses_to(&self, other: &Self) -> bool {
        if self.span_id != other.span_id {
            let knows = (self.counts.has_usage(), other.counts.has_usage());
            if other.parent == Some(self.span_id) {
                return knows != (true, false);
            }
            if self.parent == Some(other.span_id) {
                return knows == (false, true);
            }
            let at_one_time = self.start_unix_nano <= other.end_unix_nano
                && other.start_unix_nano <= self.end_unix_nano;
            if self.answer.is_none() || self.answer != other.answer || !at_one_time {
                return false;
            }
        }
        self.rank() < other.rank()
    }

    fn rank(&self) -> impl Ord {
        let CallCounts { input_tokens, output_tokens, cost_nano_usd, .. } = self.counts;
        let counts = (input_tokens, output_tokens, cost_nano_usd);
        let time = (self.start_unix_nano, self.end_unix_nano);
        (self.counts.has_usage(), time, self.span_id, counts, self.parent, self.answer)
    }
}

/// Whether spans of this role are inferences, whose usage counts in totals.
pub fn is_call(role: SpanRole) -> bool {
    matches!(role, SpanRole::LlmCall | SpanRole::Embeddings)
}

/// Billionths of a dollar: an integer, so that sums are exact.
pub fn nano_usd(usd: f64) -> u64 {
    (usd * 1e9).round() as u64
}

/// The model calls of one trace, by which a call that is told again is found.
#[derive(Debug, Clone, Default)]
pub struct CallLedger {
    calls: Vec<(Call, bool)>,
    /// Where calls are, once there are more than [`FEW_CALLS`].
    places: Option<Box<Places>>,
}

/// Places in the list of calls.
#[derive(Debug, Clone, Default)]
struct Places {
    by_span: HashMap<SpanId, Vec<usize>>,
    by_parent: HashMap<SpanId, Vec<usize>>,
    by_answer: HashMap<u64, Vec<usize>>,
}

impl Places {
    fn note(&mut self, at: usize, call: &Call) {
        self.by_span.entry(call.span_id).or_default().push(at);
        if let Some(parent) = call.parent {
            self.by_parent.entry(parent).or_default().push(at);
        }
        if let Some(answer) = call.answer {
            self.by_answer.entry(answer).or_default().push(at);
        }
    }

    /// The calls that may be the same as this one.
    fn akin(&self, call: &Call) -> Vec<usize> {
        let latest = |list: Option<&Vec<usize>>| {
            list.into_iter().flatten().rev().take(MAX_COMPARED).copied().collect::<Vec<_>>()
        };
        let mut akin = latest(self.by_span.get(&call.span_id));
        akin.extend(latest(call.parent.and_then(|parent| self.by_span.get(&parent))));
        akin.extend(latest(call.answer.and_then(|answer| self.by_answer.get(&answer))));
        akin.extend(self.by_parent.get(&call.span_id).into_iter().flatten());
        akin
    }
}

impl CallLedger {
    /// Takes a call in. Answers what is to be taken back from totals in which each call was counted
    /// as it came.
    pub fn add(&mut self, call: Call) -> CallCounts {
        self.add_telling(call, |_| {})
    }

    /// [`CallLedger::add`] that also tells the facts of each call that is to be taken back.
    pub fn add_telling(&mut self, call: Call, mut take_back: impl FnMut(&SpanFacts)) -> CallCounts {
        let mut back = CallCounts::default();
        let mut counts = true;
        for other in self.akin(&call) {
            let (told, is_counted) = &mut self.calls[other];
            if told.loses_to(&call) && std::mem::take(is_counted) {
                back = back.plus(told.counts);
                told.facts.as_deref().into_iter().for_each(&mut take_back);
            }
            counts &= !call.loses_to(told);
        }
        if !counts {
            back = back.plus(call.counts);
            call.facts.as_deref().into_iter().for_each(&mut take_back);
        }
        let at = self.calls.len();
        if at == FEW_CALLS {
            let mut places = Box::<Places>::default();
            for (at, (known, _)) in self.calls.iter().enumerate() {
                places.note(at, known);
            }
            self.places = Some(places);
        }
        if let Some(places) = &mut self.places {
            places.note(at, &call);
        } else {
            // Most traces have one call or two: room for four would be the most of what they take.
            self.calls.reserve_exact(1);
        }
        self.calls.push((call, counts));
        back
    }

    /// How many calls it holds.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The calls that may be the same as this one.
    fn akin(&self, call: &Call) -> Vec<usize> {
        if let Some(places) = &self.places {
            return places.akin(call);
        }
        let is_akin = |other: &Call| {
            other.span_id == call.span_id
                || call.parent == Some(other.span_id)
                || other.parent == Some(call.span_id)
                || (call.answer.is_some() && call.answer == other.answer)
        };
        let calls = self.calls.iter().enumerate();
        calls.filter(|(_, (other, _))| is_akin(other)).map(|(at, _)| at).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(id: u64, parent: u64, answer: u64, start: u64, tokens: u64) -> Call {
        Call {
            span_id: SpanId::from_u64(id),
            parent: (parent > 0).then(|| SpanId::from_u64(parent)),
            answer: (answer > 0).then_some(answer),
            start_unix_nano: start,
            end_unix_nano: start + 3,
            counts: CallCounts { calls: 1, input_tokens: tokens, ..CallCounts::default() },
            facts: None,
        }
    }

    /// Calls and tokens that count, as the totals of a summary have them.
    fn totals(calls: &[Call]) -> (u64, u64) {
        let mut ledger = CallLedger::default();
        let (mut sum, mut back) = (CallCounts::default(), CallCounts::default());
        for call in calls {
            sum = sum.plus(call.counts);
            back = back.plus(ledger.add(call.clone()));
        }
        (sum.calls - back.calls, sum.input_tokens - back.input_tokens)
    }

    #[test]
    fn a_call_told_twice_counts_once() {
        // Wrapper and client, parent and child.
        assert_eq!(totals(&[call(2, 1, 0, 5, 10), call(1, 0, 0, 4, 10)]), (1, 10));
        // Cousins that name the same answer.
        assert_eq!(totals(&[call(2, 7, 9, 5, 10), call(1, 8, 9, 4, 10)]), (1, 10));
        // A wrapper with the sum of two attempts.
        let tries = [call(2, 1, 3, 5, 10), call(3, 1, 4, 6, 20), call(1, 0, 0, 4, 30)];
        assert_eq!(totals(&tries), (2, 30));
        // The client does not know the tokens (a stream without usage): the wrapper's count.
        assert_eq!(totals(&[call(1, 0, 0, 4, 10), call(2, 1, 0, 5, 0)]), (1, 10));
        // A provider in a test that gives every answer the same id.
        assert_eq!(totals(&[call(1, 0, 9, 4, 10), call(2, 0, 9, 8, 10)]), (2, 20));
        // Two calls of one parent, and two answers.
        assert_eq!(totals(&[call(2, 1, 5, 5, 10), call(3, 1, 6, 6, 20)]), (2, 30));
    }

    proptest! {
        #[test]
        fn what_counts_does_not_depend_on_the_order(
            calls in proptest::collection::vec(
                (1..6_u64, 0..6_u64, 0..3_u64, 0..9_u64, 0..3_u64)
                    .prop_map(|(id, parent, answer, start, n)| call(id, parent, answer, start, n)),
                // As few as are compared with each, and more, which have places.
                0..3 * FEW_CALLS),
            seed in any::<usize>(),
        ) {
            // A telling that is equal to the byte is a redelivery, and does not come here.
            let mut distinct: Vec<Call> = Vec::new();
            for call in calls {
                if !distinct.contains(&call) {
                    distinct.push(call);
                }
            }
            let mut shuffled = distinct.clone();
            let mut seed = seed;
            for at in (1..shuffled.len()).rev() {
                shuffled.swap(at, seed % (at + 1));
                seed /= at + 1;
            }
            prop_assert_eq!(totals(&distinct), totals(&shuffled));
        }
    }
}
