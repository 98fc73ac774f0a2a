//! One cheap pass over a text that tells which rules may have something to find in it.
//!
//! Each rule names its *triggers*: up to four bytes, one of which every find contains. Four tables
//! of 256 words say for each byte which triggers it may begin, go on and so forth; a text is read
//! once, whatever the number of rules, and most texts of most spans end there.

/// Bytes of a trigger that are looked at.
const WIDTH: usize = 4;

/// Triggers that there is room for: bits of a word.
const MAX_TRIGGERS: usize = 64;

/// What a find begins with, or bears within.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trigger {
    /// These bytes.
    Text(&'static str),
    /// These letters in either case (ASCII).
    AnyCase(&'static str),
    /// One byte of each of these sets after another.
    Sets(&'static [&'static [u8]]),
}

/// What the pass has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Rules that may have something to find: bits by their numbers.
    pub(crate) rules: u64,
    /// There are escapes of JSON behind which anything may be hidden.
    pub(crate) escapes: bool,
}

/// The tables.
#[derive(Debug)]
pub(crate) struct Prefilter {
    tables: Box<[[u64; 256]; WIDTH]>,
    /// The rule of each trigger, as a bit.
    rules: Vec<u64>,
    /// Rules whose triggers had no room: always tried.
    crowded_out: u64,
    escape: u64,
}

/// Escapes that may hide letters or what stands in an address.
const ESCAPES: [Trigger; 2] = [Trigger::Text("\\u"), Trigger::Text("\\/")];

impl Prefilter {
    /// Tables of triggers, each with the bit of its rule.
    pub(crate) fn new(triggers: impl IntoIterator<Item = (Trigger, u64)>) -> Self {
        let mut prefilter = Self {
            tables: Box::new([[0; 256]; WIDTH]),
            rules: Vec::new(),
            crowded_out: 0,
            escape: 0,
        };
        for trigger in ESCAPES {
            prefilter.escape |= prefilter.add(trigger, 0);
        }
        for (trigger, rule) in triggers {
            if prefilter.add(trigger, rule) == 0 {
                prefilter.crowded_out |= rule;
            }
        }
        prefilter
    }

    /// Takes in a trigger and answers its bit, 0 when there is no room for it.
    fn add(&mut self, trigger: Trigger, rule: u64) -> u64 {
        if self.rules.len() == MAX_TRIGGERS {
            return 0;
        }
        let bit = 1 << self.rules.len();
        self.rules.push(rule);
        for (at, table) in self.tables.iter_mut().enumerate() {
            let set: &[u8] = match trigger {
                Trigger::Text(text) | Trigger::AnyCase(text) => {
                    text.as_bytes().get(at..=at).unwrap_or_default()
                }
                Trigger::Sets(sets) => sets.get(at).copied().unwrap_or_default(),
            };
            if set.is_empty() {
                table.iter_mut().for_each(|entry| *entry |= bit);
                continue;
            }
            for byte in set {
                table[usize::from(*byte)] |= bit;
                if matches!(trigger, Trigger::AnyCase(_)) {
                    table[usize::from(byte.to_ascii_uppercase())] |= bit;
                    table[usize::from(byte.to_ascii_lowercase())] |= bit;
                }
            }
        }
        bit
    }

    /// Reads a text once.
    pub(crate) fn scan(&self, text: &[u8]) -> Seen {
        let [first, second, third, fourth] = &*self.tables;
        let mut hits = 0;
        for window in text.windows(WIDTH) {
            let begun = first[usize::from(window[0])]
                & second[usize::from(window[1])]
                & third[usize::from(window[2])];
            if begun != 0 {
                hits |= begun & fourth[usize::from(window[3])];
            }
        }
        // The last bytes, with zeros behind them: what a trigger asks nothing of, a zero fits.
        let mut tail = [0; 2 * (WIDTH - 1)];
        let last = &text[text.len().saturating_sub(WIDTH - 1)..];
        tail[..last.len()].copy_from_slice(last);
        for window in tail.windows(WIDTH) {
            hits |= first[usize::from(window[0])]
                & second[usize::from(window[1])]
                & third[usize::from(window[2])]
                & fourth[usize::from(window[3])];
        }
        let mut rules = self.crowded_out;
        let mut left = hits;
        while left != 0 {
            rules |= self.rules[left.trailing_zeros() as usize];
            left &= left - 1;
        }
        Seen { rules, escapes: hits & self.escape != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &[u8] = b"0123456789";

    fn prefilter() -> Prefilter {
        Prefilter::new([
            (Trigger::Text("sk-"), 1),
            (Trigger::AnyCase("bear"), 2),
            (Trigger::Text("@"), 4),
            (Trigger::Sets(&[DIGITS, b" -", DIGITS]), 8),
        ])
    }

    #[test]
    fn triggers_are_found_wherever_they_stand() {
        for (text, rules) in [
            ("", 0),
            ("sk-", 1),
            ("ask-me", 1),
            ("a sk", 0),
            ("BeArer", 2),
            ("bea", 0),
            ("@", 4),
            ("x@", 4),
            ("sk-bear@", 7),
            ("1 2", 8),
            ("12", 0),
            ("é@é", 4),
        ] {
            assert_eq!(prefilter().scan(text.as_bytes()).rules, rules, "{text}");
        }
        assert!(prefilter().scan(b"{\"a\":\"\\u0040\"}").escapes);
        assert!(!prefilter().scan(b"{\"a\":\"\\n\"}").escapes);
    }

    #[test]
    fn a_rule_whose_triggers_have_no_room_is_always_tried() {
        let many = (0..100).map(|_| (Trigger::Text("zzzz"), 1)).chain([(Trigger::Text("a"), 2)]);
        assert_eq!(Prefilter::new(many).scan(b"nothing").rules, 3);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_missed(before in "[a-k@ ]{0,9}", after in "[a-k@ ]{0,9}") {
            let text = format!("{before}sk-{after}");
            proptest::prop_assert_eq!(prefilter().scan(text.as_bytes()).rules & 1, 1);
        }
    }
}
