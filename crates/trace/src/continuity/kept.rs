//! What a tracker remembers of one trace.

use std::collections::{HashMap, VecDeque};

use super::Conversation;
use super::skew::SpanTimes;
use super::splits::EntryRoot;
use crate::SpanId;

/// What is remembered of one trace.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) spans: HashMap<SpanId, Known>,
    /// Spans without a parent, by the parent's id.
    pub(super) orphans: HashMap<SpanId, VecDeque<Orphan>>,
    pub(super) last_arrival: u64,
    /// When it is to be looked at.
    pub(super) check_at: u64,
    /// Whether it was looked at when it was quiet.
    pub(super) is_looked_at: bool,
    pub(super) has_root: bool,
    pub(super) entry_root: Option<EntryRoot>,
    pub(super) conversations: Vec<Conversation>,
}

/// A span in detail.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) operation: u32,
    pub(super) times: SpanTimes,
    pub(super) calls_out: bool,
    pub(super) has_children: bool,
}

/// A span whose parent is not there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orphan {
    pub(super) span_id: SpanId,
    pub(super) operation: u32,
    pub(super) times: SpanTimes,
    pub(super) is_entry: bool,
    pub(super) filed: u64,
    pub(super) arrival: u64,
    pub(super) verdict: Verdict,
}

/// What became of a span without a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Waiting,
    Lost {
        /// The operation that its parent probably was.
        caller: Option<u32>,
    },
    Remote,
}

impl Verdict {
    /// Whether it is a verdict of this sort.
    pub(super) fn is_judged(self, is_lost: bool) -> bool {
        match self {
            Self::Waiting => false,
            Self::Lost { .. } => is_lost,
            Self::Remote => !is_lost,
        }
    }
}

impl Trace {
    /// Whether it has lost spans.
    pub(super) fn is_broken(&self) -> bool {
        let mut orphans = self.orphans.values().flatten();
        orphans.any(|orphan| matches!(orphan.verdict, Verdict::Lost { .. }))
    }
}
