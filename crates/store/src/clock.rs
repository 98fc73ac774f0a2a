//! The server's clock as the writer trusts it: a jump far ahead is believed when it lasts.

use std::time::{Duration, Instant};

use crate::layout::Day;

/// Days that the clock may be ahead of the open segment without a second look: a server that was
/// off over the weekend is further.
pub(crate) const MAX_UNDOUBTED_DAYS: i64 = 2;

/// How long a jump must last. Until then batches go to the segment that is open; a clock that is
/// set right meanwhile leaves no segment of a future day behind, which nothing could follow.
const DOUBT: Duration = Duration::from_secs(60);

/// Since when the clock has been far ahead.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    since: Option<Instant>,
}

impl Doubt {
    /// The day to write to, when `open` is open and the clock says `told`.
    pub(crate) fn day(&mut self, open: Day, told: Day, now: Instant) -> Day {
        if told.0 <= open.0 + MAX_UNDOUBTED_DAYS {
            self.since = None;
            return told.max(open);
        }
        let since = *self.since.get_or_insert_with(|| {
            tracing::warn!(
                open = open.name(),
                clock = told.name(),
                "the clock is days ahead of the newest segment; it is believed if that lasts"
            );
            now
        });
        if now.duration_since(since) < DOUBT {
            return open;
        }
        self.since = None;
        told
    }
}

/// The day by which ages are told, where nothing moves on with the clock: a server without data
/// opens no segment of a later day.
#[derive(Debug, Default)]
pub(crate) struct Belief {
    doubt: Doubt,
    believed: Day,
}

impl Belief {
    /// The day that is believed, when `open` is open and the clock says `told`. One that was believed
    /// is not doubted again, unless the clock was set back behind it.
    pub(crate) fn day(&mut self, open: Day, told: Day, now: Instant) -> Day {
        let base = if told >= self.believed { self.believed.max(open) } else { open };
        self.believed = self.doubt.day(base, told, now);
        self.believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_believed_is_not_doubted_again_while_nothing_is_written() {
        let (mut belief, begin) = (Belief::default(), Instant::now());
        let mut day =
            |told, seconds| belief.day(Day(100), Day(told), begin + Duration::from_secs(seconds)).0;
        // Three days without data, then for as long as it lasts.
        assert_eq!([day(103, 0), day(103, 59), day(103, 60)], [100, 100, 103]);
        assert_eq!(
            [day(103, 61), day(103, 120), day(104, 180), day(105, 240)],
            [103, 103, 104, 105]
        );
        // A jump is doubted from there on.
        assert_eq!([day(5_000, 300), day(5_000, 360), day(5_000, 361)], [105, 5_000, 5_000]);
        // The clock was set right: what was believed in error counts no more.
        assert_eq!([day(106, 362), day(106, 422), day(106, 423)], [100, 106, 106]);
        assert_eq!([day(99, 424), day(101, 425)], [100, 101]);
    }

    #[test]
    fn a_jump_is_believed_when_it_lasts() {
        let (mut doubt, begin) = (Doubt::default(), Instant::now());
        let mut day =
            |told, seconds| doubt.day(Day(100), Day(told), begin + Duration::from_secs(seconds)).0;
        assert_eq!([day(99, 0), day(101, 0), day(102, 0)], [100, 101, 102]);
        assert_eq!([day(5_000, 1), day(5_000, 60), day(100, 61)], [100, 100, 100]);
        // The clock was set right: a later jump is doubted anew.
        assert_eq!([day(103, 62), day(103, 121), day(103, 122)], [100, 100, 103]);
    }
}
