//! The segments of a streamed answer: when one ends, why, and when the next begins (requirement
//! R3.2). Chunks, silence, gaps and ends go in; what is to be opened and closed comes out.

use std::time::Duration;

use crate::moment::Moment;

/// When segments end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentPolicy {
    /// Silence that ends a segment.
    pub idle: Duration,
    /// Age at which a segment ends and is followed by another, so that a long answer is seen before
    /// it ends.
    pub max_age: Duration,
    /// Chunks in a row that must be missing for the segment to have broken; 0 means 1.
    pub missing: u64,
}

impl Default for SegmentPolicy {
    fn default() -> Self {
        Self { idle: Duration::from_secs(30), max_age: Duration::from_secs(10), missing: 2 }
    }
}

/// Why a segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SegmentEnd {
    /// The first token came.
    FirstToken,
    /// The stream ended well.
    Done,
    /// Nothing came for too long.
    Idle,
    /// It was old.
    Rotated,
    /// Chunks are missing, or came again or too late.
    Gap,
    /// The stream broke.
    Failed,
    /// The consumer went away.
    Cancelled,
    /// The time of the whole operation was over.
    Timeout,
}

impl SegmentEnd {
    /// The value of `throughline.stream.end`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FirstToken => "first_token",
            Self::Done => "done",
            Self::Idle => "idle",
            Self::Rotated => "rotated",
            Self::Gap => "gap",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
        }
    }

    /// Whether the segment bears `error=true`.
    pub fn is_error(self) -> bool {
        matches!(self, Self::Gap | Self::Failed)
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentEvent {
    /// A chunk came.
    Chunk {
        /// Its number, if the wire carries one.
        seq: Option<u64>,
        /// Bytes of content that it brought.
        bytes: u64,
    },
    /// The chunk that came last brought the first token.
    FirstToken,
    /// Time has passed.
    Tick,
    /// The stream was cut, and is to go on where it broke off.
    Cut,
    /// The stream is over, for this reason.
    Over(SegmentEnd),
}

/// What to do, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentStep {
    /// Open a segment.
    Open {
        /// Whether it is the first of the stream.
        is_init: bool,
        /// Number of its first chunk.
        seq: u64,
    },
    /// Close the open one.
    Close {
        /// Why.
        end: SegmentEnd,
        /// Chunks that came in it.
        chunks: u64,
        /// Bytes of their content.
        bytes: u64,
    },
}

/// At most three steps.
pub type SegmentSteps = [Option<SegmentStep>; 3];

/// What came of a whole stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamTotals {
    /// Chunks.
    pub chunks: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

/// The machine of one stream.
#[derive(Debug, Clone)]
pub struct Segments {
    policy: SegmentPolicy,
    open: Option<Open>,
    /// The number that the next chunk should have.
    next_seq: u64,
    /// Whether that number is more than a guess.
    is_counting: bool,
    totals: StreamTotals,
    last_at: Moment,
    is_answering: bool,
    is_over: bool,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    began: Moment,
    before: StreamTotals,
}

impl Segments {
    /// A stream that was opened `now`, and its first step.
    pub fn begin(policy: SegmentPolicy, now: Moment) -> (Self, SegmentStep) {
        Self::resume(policy, None, now)
    }

    /// A stream that goes on after the chunk `last_seq` of an earlier one.
    pub fn resume(
        policy: SegmentPolicy,
        last_seq: Option<u64>,
        now: Moment,
    ) -> (Self, SegmentStep) {
        let next_seq = last_seq.map_or(0, |last| last.saturating_add(1));
        let open = Open { began: now, before: StreamTotals::default() };
        let machine = Self {
            policy,
            open: Some(open),
            next_seq,
            is_counting: last_seq.is_some(),
            totals: StreamTotals::default(),
            last_at: now,
            is_answering: last_seq.is_some(),
            is_over: false,
        };
        (machine, SegmentStep::Open { is_init: last_seq.is_none(), seq: next_seq })
    }

    /// What to do after something happened.
    pub fn on(&mut self, event: SegmentEvent, now: Moment) -> SegmentSteps {
        if self.is_over {
            return [None; 3];
        }
        match event {
            SegmentEvent::Chunk { seq, bytes } => self.chunk(seq, bytes, now),
            // A stream that goes on has had its first token.
            SegmentEvent::FirstToken if self.is_answering => [None; 3],
            SegmentEvent::FirstToken => {
                self.is_answering = true;
                [self.close(SegmentEnd::FirstToken), None, None]
            }
            SegmentEvent::Tick => match self.idle_at() {
                Some(idle_at) if now >= idle_at => [self.close(SegmentEnd::Idle), None, None],
                _ => [None; 3],
            },
            SegmentEvent::Cut => self.end(SegmentEnd::Failed, now),
            SegmentEvent::Over(end) => {
                self.is_over = true;
                self.end(end, now)
            }
        }
    }

    /// When the open segment ends for silence; `None` when none is open. To be asked again then:
    /// chunks move it.
    pub fn idle_at(&self) -> Option<Moment> {
        self.open.map(|_| self.last_at + self.policy.idle)
    }

    /// The number that the next chunk should have.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// What has come so far.
    pub fn totals(&self) -> StreamTotals {
        self.totals
    }

    /// Whether nothing can follow.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    fn end(&mut self, end: SegmentEnd, now: Moment) -> SegmentSteps {
        // A stream that breaks between two segments still has one that says so.
        let opened = (self.open.is_none() && end.is_error()).then(|| self.open(self.next_seq, now));
        [opened, self.close(end), None]
    }

    fn chunk(&mut self, seq: Option<u64>, bytes: u64, now: Moment) -> SegmentSteps {
        let number = seq.unwrap_or(self.next_seq);
        let is_broken = self.is_counting && seq.is_some() && self.is_gap(number);
        let mut steps = [None; 3];
        if is_broken {
            // Also between two segments the gap is told, by one that has nothing else to tell.
            if self.open.is_none() {
                steps[0] = Some(self.open(self.next_seq, now));
            }
            steps[1] = self.close(SegmentEnd::Gap);
        } else if let Some(open) = self.open {
            if now >= self.last_at + self.policy.idle {
                steps[0] = self.close(SegmentEnd::Idle);
            } else if self.is_answering && now.since(open.began) > self.policy.max_age {
                steps[0] = self.close(SegmentEnd::Rotated);
            }
        }
        if self.open.is_none() {
            steps[2] = Some(self.open(number, now));
        }
        self.next_seq = number.saturating_add(1);
        self.is_counting = true;
        self.last_at = now;
        self.totals.chunks += 1;
        self.totals.bytes = self.totals.bytes.saturating_add(bytes);
        steps
    }

    fn is_gap(&self, number: u64) -> bool {
        match number.checked_sub(self.next_seq) {
            None => true,
            Some(missing) => missing >= self.policy.missing.max(1),
        }
    }

    fn open(&mut self, seq: u64, now: Moment) -> SegmentStep {
        self.open = Some(Open { began: now, before: self.totals });
        self.last_at = now;
        SegmentStep::Open { is_init: false, seq }
    }

    fn close(&mut self, end: SegmentEnd) -> Option<SegmentStep> {
        let open = self.open.take()?;
        Some(SegmentStep::Close {
            end,
            chunks: self.totals.chunks - open.before.chunks,
            bytes: self.totals.bytes - open.before.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    /// What a stream with these wire numbers, one a second, does.
    fn tell(numbers: &[Option<u64>]) -> String {
        let (mut machine, first) = Segments::begin(SegmentPolicy::default(), at(0));
        let mut told = vec![word(first)];
        for (second, seq) in (1..).zip(numbers) {
            let event = SegmentEvent::Chunk { seq: *seq, bytes: 1 };
            let steps = machine.on(event, at(second * 1_000));
            told.extend(steps.into_iter().flatten().map(word));
        }
        let steps = machine.on(SegmentEvent::Over(SegmentEnd::Done), at(9_000));
        told.extend(steps.into_iter().flatten().map(word));
        told.join(" ")
    }

    fn word(step: SegmentStep) -> String {
        match step {
            SegmentStep::Open { is_init: true, seq } => format!("init({seq})"),
            SegmentStep::Open { seq, .. } => format!("open({seq})"),
            SegmentStep::Close { end, chunks, .. } => format!("{}[{chunks}]", end.as_str()),
        }
    }

    #[test]
    fn r3_2_a_number_that_does_not_grow_or_two_missing_break_the_segment() {
        let wire = |numbers: &[u64]| tell(&numbers.iter().copied().map(Some).collect::<Vec<_>>());
        assert_eq!(wire(&[0, 1, 2]), "init(0) done[3]");
        assert_eq!(wire(&[0, 1, 3]), "init(0) done[3]", "one missing is borne");
        assert_eq!(wire(&[0, 1, 4]), "init(0) gap[2] open(4) done[1]");
        assert_eq!(wire(&[0, 1, 1]), "init(0) gap[2] open(1) done[1]");
        assert_eq!(wire(&[0, 5, 4]), "init(0) gap[1] open(5) gap[1] open(4) done[1]");
        assert_eq!(wire(&[7, 8]), "init(0) done[2]", "a stream may begin where it likes");
        assert_eq!(tell(&[None, None, None]), "init(0) done[3]", "counted here");
        assert_eq!(tell(&[None, Some(1), Some(9)]), "init(0) gap[2] open(9) done[1]");
    }

    #[test]
    fn r3_2_silence_ends_a_segment() {
        let (mut machine, _) = Segments::begin(SegmentPolicy::default(), at(0));
        let chunk = SegmentEvent::Chunk { seq: None, bytes: 3 };
        machine.on(chunk, at(1_000));
        assert_eq!(machine.idle_at(), Some(at(31_000)));
        assert_eq!(machine.on(SegmentEvent::Tick, at(30_999)), [None; 3]);
        let close = SegmentStep::Close { end: SegmentEnd::Idle, chunks: 1, bytes: 3 };
        assert_eq!(machine.on(SegmentEvent::Tick, at(31_000)), [Some(close), None, None]);
        assert_eq!(machine.idle_at(), None);
        let open = SegmentStep::Open { is_init: false, seq: 1 };
        assert_eq!(machine.on(chunk, at(40_000)), [None, None, Some(open)]);
    }

    #[test]
    fn r3_2_a_stream_that_is_cut_may_go_on_in_another_segment() {
        let (mut machine, _) = Segments::begin(SegmentPolicy::default(), at(0));
        let chunk = |seq| SegmentEvent::Chunk { seq: Some(seq), bytes: 2 };
        machine.on(chunk(0), at(1));
        machine.on(chunk(1), at(2));
        let close = SegmentStep::Close { end: SegmentEnd::Failed, chunks: 2, bytes: 4 };
        assert_eq!(machine.on(SegmentEvent::Cut, at(3)), [None, Some(close), None]);
        assert_eq!(machine.idle_at(), None, "nobody waits for a stream that is cut");
        let open = SegmentStep::Open { is_init: false, seq: 2 };
        assert_eq!(machine.on(chunk(2), at(90_000)), [None, None, Some(open)]);
        assert_eq!(machine.totals(), StreamTotals { chunks: 3, bytes: 6 });
    }

    #[test]
    fn r3_2_a_resumed_stream_goes_on_counting() {
        let (mut machine, first) = Segments::resume(SegmentPolicy::default(), Some(4), at(0));
        assert_eq!(first, SegmentStep::Open { is_init: false, seq: 5 });
        assert_eq!(machine.on(SegmentEvent::FirstToken, at(0)), [None; 3]);
        assert_eq!(machine.on(SegmentEvent::Chunk { seq: Some(5), bytes: 0 }, at(1)), [None; 3]);
        let [_, gap, open] = machine.on(SegmentEvent::Chunk { seq: Some(5), bytes: 0 }, at(2));
        assert!(matches!(gap, Some(SegmentStep::Close { end: SegmentEnd::Gap, chunks: 1, .. })));
        assert_eq!(open, Some(SegmentStep::Open { is_init: false, seq: 5 }));
    }

    proptest! {
        /// Random histories: every segment that was opened ends exactly once, one at a time, also
        /// when the stream is just dropped; the numbers grow within a segment; what the segments
        /// tell sums to the whole.
        #[test]
        fn r3_2_segments_neither_leak_nor_end_twice(
            events in proptest::collection::vec((0u8..7, 0u64..45_000, proptest::option::of(0u64..12), 0u64..9), 0..80),
            last in 0u8..4, resumed in proptest::option::of(0u64..9), missing in 0u64..4,
        ) {
            let policy = SegmentPolicy { missing, ..SegmentPolicy::default() };
            let (mut machine, first) = Segments::resume(policy, resumed, at(0));
            let mut history = vec![(first, None)];
            let mut now = 0;
            for (what, pause, seq, bytes) in events {
                now += pause;
                let event = match what {
                    0 => SegmentEvent::Tick,
                    1 => SegmentEvent::FirstToken,
                    2 => SegmentEvent::Cut,
                    _ => SegmentEvent::Chunk { seq, bytes },
                };
                let steps = machine.on(event, at(now));
                history.extend(steps.into_iter().flatten().map(|step| (step, None)));
                if let SegmentEvent::Chunk { .. } = event {
                    history.last_mut().expect("the first step").1.get_or_insert_with(Vec::new).push(machine.next_seq() - 1);
                }
            }
            let end = [SegmentEnd::Done, SegmentEnd::Failed, SegmentEnd::Cancelled, SegmentEnd::Timeout][usize::from(last)];
            let steps = machine.on(SegmentEvent::Over(end), at(now));
            history.extend(steps.into_iter().flatten().map(|step| (step, None)));
            prop_assert_eq!(machine.on(SegmentEvent::Over(end), at(now)), [None; 3], "over is over");
            prop_assert_eq!(machine.on(SegmentEvent::Chunk { seq: None, bytes: 1 }, at(now)), [None; 3]);

            let (mut is_open, mut sum) = (false, StreamTotals::default());
            for (step, numbers) in &history {
                match step {
                    SegmentStep::Open { seq, .. } => {
                        prop_assert!(!is_open, "one at a time");
                        is_open = true;
                        let numbers = numbers.as_deref().unwrap_or_default();
                        prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", numbers);
                        prop_assert!(resumed.is_none() && *seq == 0 || numbers.first().is_none_or(|first| first >= seq));
                    }
                    SegmentStep::Close { chunks, bytes, .. } => {
                        prop_assert!(is_open, "none ends twice");
                        is_open = false;
                        sum.chunks += chunks;
                        sum.bytes += bytes;
                    }
                }
            }
            prop_assert!(!is_open, "none leaks");
            prop_assert_eq!(sum, machine.totals());
        }
    }
}
