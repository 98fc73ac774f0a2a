//! Times that a page offers: the buttons, and the one that the address names.

use maud::{Markup, html};

use crate::failure::Failure;
use crate::params::Params;

/// One time back from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time {
    /// Its name in the address.
    pub(super) name: &'static str,
    /// Its name for people.
    label: &'static str,
    pub(super) seconds: u64,
}

/// The times of a page, and which of them counts when none is chosen.
#[derive(Debug)]
pub(super) struct Times {
    offered: &'static [Time],
    usual: Time,
}

const fn time(name: &'static str, label: &'static str, seconds: u64) -> Time {
    Time { name, label, seconds }
}

const HOUR: Time = time("1h", "1 h", 3_600);
const DAY: Time = time("24h", "24 h", 86_400);

/// Times of what is counted by the minute and longer.
pub(super) const OF_ROLLUPS: Times = Times {
    offered: &[HOUR, DAY, time("7d", "7 d", 7 * 86_400), time("30d", "30 d", 30 * 86_400)],
    usual: DAY,
};

/// Times of continuity: the tracker keeps no more than the last, and the score is of the usual one.
pub(super) const OF_CONTINUITY: Times =
    Times { offered: &[time("15m", "15 m", 900), HOUR, time("6h", "6 h", 6 * 3_600)], usual: HOUR };

impl Times {
    /// The time that the address names.
    pub(super) fn chosen(&self, params: &Params) -> Result<Time, Failure> {
        let names: Vec<&str> = self.offered.iter().map(|time| time.name).collect();
        let expected = format!("one of {}", names.join(", "));
        let chosen = params.read("since", &expected, |text| {
            self.offered.iter().find(|time| time.name == text).copied()
        })?;
        Ok(chosen.unwrap_or(self.usual))
    }

    /// The buttons that choose a time of the page at `path`.
    pub(super) fn buttons(&self, params: &Params, path: &str, chosen: Time) -> Markup {
        html! {
            div.group {
                @for time in self.offered {
                    a.btn href={ (path) (params.with("since", Some(time.name))) } aria-pressed=((*time == chosen).to_string()) { (time.label) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_names_one_of_the_times() {
        let chosen = |query: &str| OF_CONTINUITY.chosen(&Params::of_query(query));
        assert_eq!(chosen("").unwrap().seconds, 3_600);
        assert_eq!(chosen("since=6h").unwrap().seconds, 6 * 3_600);
        let refused = chosen("since=7d").unwrap_err().message;
        assert_eq!(refused, "parameter `since`: expected one of 15m, 1h, 6h, got \"7d\"");
    }
}
