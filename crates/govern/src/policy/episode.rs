//! How long something has held, minute by minute: what begins, goes on and ends.

use serde::{Deserialize, Serialize};

/// Minutes after which what was seen to hold, and did not last long enough yet, is forgotten when nothing
/// is known any more.
pub const PENDING_FORGET_MIN: u64 = 10;

/// Minutes after which what holds counts as over when nothing is known any more.
pub const OPEN_FORGET_MIN: u64 = 60;

/// What is remembered between minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// The minute that was looked at last, minutes since the Unix epoch.
    pub evaluated_min: Option<u64>,
    /// The last minute that was seen to hold.
    seen_min: u64,
    /// Minutes that were seen to hold, before it began.
    held: u64,
    /// Since when it lasts.
    since_min: Option<u64>,
}

/// What a minute made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The minute was looked at before.
    Same,
    /// It does not hold.
    Quiet,
    /// It holds, and not for long enough.
    Waiting,
    /// Nobody knows, and nothing changes.
    Unknown,
    /// It begins with this minute.
    Begins,
    /// It goes on since that minute.
    GoesOn(u64),
    /// It ends with this minute.
    Ends,
    /// It counts as over, since nothing was known for long.
    Forgotten,
}

impl Episode {
    /// Takes in whether it holds in a minute, `None` where nobody knows. It begins when it was seen to
    /// hold for `for_min` minutes after the first, without one that did not.
    ///
    /// A minute of which nothing is known, or that was not looked at, counts for neither.
    pub fn step(&mut self, minute: u64, holds: Option<bool>, for_min: u64) -> Turn {
        if self.evaluated_min.is_some_and(|last| minute <= last) {
            return Turn::Same;
        }
        self.evaluated_min = Some(minute);
        let silent_min = minute.saturating_sub(self.seen_min);
        match (holds, self.since_min) {
            (Some(true), Some(since)) => {
                self.seen_min = minute;
                Turn::GoesOn(since)
            }
            (Some(true), None) => {
                let known = if silent_min > PENDING_FORGET_MIN { 0 } else { self.held };
                (self.held, self.seen_min) = (known + 1, minute);
                if self.held <= for_min {
                    return Turn::Waiting;
                }
                (self.held, self.since_min) = (0, Some(minute));
                Turn::Begins
            }
            (Some(false), since) => {
                (self.held, self.since_min) = (0, None);
                if since.is_some() { Turn::Ends } else { Turn::Quiet }
            }
            (None, Some(_)) if silent_min >= OPEN_FORGET_MIN => {
                (self.held, self.since_min) = (0, None);
                Turn::Forgotten
            }
            (None, _) => {
                if silent_min >= PENDING_FORGET_MIN {
                    self.held = 0;
                }
                Turn::Unknown
            }
        }
    }

    /// Since when it lasts, minutes since the Unix epoch.
    pub fn since_min(&self) -> Option<u64> {
        self.since_min
    }

    /// Minutes that were seen to hold before it begins; 0 when it lasts or does not hold.
    pub fn held_min(&self) -> u64 {
        self.held
    }
}
