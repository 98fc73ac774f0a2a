//! Clocks of two services that disagree, seen by children that stick out of their parents.

use std::collections::{HashMap, VecDeque};

use super::report::{ClockSkew, keep_example};
use crate::{SpanKind, TraceId};

/// How far a child may stick out of its parent before its clock is doubted, nanoseconds.
pub const CLOCK_TOLERANCE_NANOS: u64 = 1_000_000;

/// The last calls of a pair of services that the median is taken of.
const SAMPLES: usize = 64;

/// Fewest calls, and fewest odd ones among them, that a skew is told of.
const MIN_SAMPLES: usize = 3;

/// When a span was, by its sender's clock, and what it was to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanTimes {
    /// Its kind.
    pub kind: SpanKind,
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// End, nanoseconds since the Unix epoch.
    pub end_unix_nano: u64,
}

impl SpanTimes {
    fn duration(self) -> u64 {
        self.end_unix_nano.saturating_sub(self.start_unix_nano)
    }
}

/// What cannot be if both clocks are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockOddity {
    /// The child starts this many nanoseconds before its parent.
    StartsBefore(u64),
    /// The answer to a call ends this many nanoseconds after the call, though it would fit inside.
    EndsAfter(u64),
}

/// What is odd about a child of *another service*, if anything. A server that goes on after its
/// caller has given up takes longer than the call, and is not odd.
pub fn clock_oddity(parent: SpanTimes, child: SpanTimes) -> Option<ClockOddity> {
    let before = parent.start_unix_nano.saturating_sub(child.start_unix_nano);
    if before > CLOCK_TOLERANCE_NANOS {
        return Some(ClockOddity::StartsBefore(before));
    }
    let is_call = parent.kind == SpanKind::Client && child.kind == SpanKind::Server;
    let after = child.end_unix_nano.saturating_sub(parent.end_unix_nano);
    (is_call && after > CLOCK_TOLERANCE_NANOS && child.duration() <= parent.duration())
        .then_some(ClockOddity::EndsAfter(after))
}

/// How far the child's clock is ahead of the parent's, by this one call: the middle of a server's
/// span is taken to be the middle of the call, as NTP does; otherwise only a start that comes too
/// early says anything.
fn offset(parent: SpanTimes, child: SpanTimes) -> i64 {
    let ahead = |of: u64, than: u64| of.wrapping_sub(than) as i64;
    let start = ahead(child.start_unix_nano, parent.start_unix_nano);
    if parent.kind == SpanKind::Client && child.kind == SpanKind::Server {
        let end = ahead(child.end_unix_nano, parent.end_unix_nano);
        start / 2 + end / 2
    } else {
        start.min(0)
    }
}

/// Calls between pairs of services, and how their clocks differ.
#[derive(Debug, Default)]
pub(super) struct Skews {
    pairs: HashMap<(u16, u16), Pair>,
    /// Calls of pairs beyond the limit.
    pub(super) left_out: u64,
}

#[derive(Debug, Default)]
struct Pair {
    /// Offset, moment, and whether it was odd.
    calls: VecDeque<(i64, u64, bool)>,
    examples: VecDeque<TraceId>,
}

impl Skews {
    /// Takes in one call from one service to another.
    pub(super) fn add(
        &mut self,
        services: (u16, u16),
        (parent, child): (SpanTimes, SpanTimes),
        (trace_id, at): (TraceId, u64),
        max_pairs: usize,
    ) {
        if self.pairs.len() >= max_pairs && !self.pairs.contains_key(&services) {
            self.left_out += 1;
            return;
        }
        let pair = self.pairs.entry(services).or_default();
        if pair.calls.len() >= SAMPLES {
            pair.calls.pop_front();
        }
        let is_odd = clock_oddity(parent, child).is_some();
        if is_odd {
            keep_example(&mut pair.examples, trace_id);
        }
        pair.calls.push_back((offset(parent, child), at, is_odd));
    }

    /// Forgets pairs without a call since then.
    pub(super) fn prune(&mut self, since: u64) {
        self.pairs.retain(|_, pair| pair.calls.back().is_some_and(|(_, at, _)| *at >= since));
    }

    /// The pairs whose clocks disagree, the widest apart first.
    pub(super) fn report(&self, since: u64, name: impl Fn(u16) -> String) -> Vec<ClockSkew> {
        let mut skews: Vec<ClockSkew> = self
            .pairs
            .iter()
            .filter_map(|(&(from, to), pair)| {
                let calls = || pair.calls.iter().filter(|(_, at, _)| *at >= since);
                let mut offsets: Vec<i64> = calls().map(|(offset, ..)| *offset).collect();
                let odd = calls().filter(|(.., is_odd)| *is_odd).count();
                if odd < MIN_SAMPLES {
                    return None;
                }
                offsets.sort_unstable();
                let median = offsets[offsets.len() / 2];
                (median.unsigned_abs() > CLOCK_TOLERANCE_NANOS).then(|| ClockSkew {
                    from: name(from),
                    to: name(to),
                    offset_nano: median,
                    calls: offsets.len() as u64,
                    odd: odd as u64,
                    last_unix_nano: calls().map(|(_, at, _)| *at).max().unwrap_or(0),
                    examples: pair.examples.iter().rev().copied().collect(),
                })
            })
            .collect();
        skews.sort_by(|a, b| {
            let key = |skew: &ClockSkew| std::cmp::Reverse(skew.offset_nano.unsigned_abs());
            key(a).cmp(&key(b)).then_with(|| (&a.from, &a.to).cmp(&(&b.from, &b.to)))
        });
        skews
    }
}
