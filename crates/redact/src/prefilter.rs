//! One cheap pass over a text that tells which rules may have something to find in it.
//!
//! Each rule names its *triggers*: up to four bytes, one of which every find contains. Four tables
//! of 256 words say for each byte which triggers it may begin, go on and so forth. They are asked
//! only where two bytes stand that are part of a trigger: of texts, only every second place is looked at,
//! since a trigger of three bytes has two of its bytes there wherever it begins. Whatever the number of
//! rules, a text is read once, and most texts of most spans end there.

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

impl Trigger {
    /// The bytes that it may have at a place; none where it asks nothing.
    fn bytes_at(self, at: usize) -> Vec<u8> {
        match self {
            Self::Text(text) => text.as_bytes().get(at..=at).unwrap_or_default().to_vec(),
            Self::AnyCase(text) => {
                let byte = text.as_bytes().get(at).copied();
                let cases = |byte: u8| [byte.to_ascii_lowercase(), byte.to_ascii_uppercase()];
                byte.into_iter().flat_map(cases).collect()
            }
            Self::Sets(sets) => sets.get(at).copied().unwrap_or_default().to_vec(),
        }
    }
}

/// How often a byte is in texts and names of attributes, about, thousandths: only what costs less is
/// chosen by it.
fn share_in_texts(byte: u8) -> u32 {
    /// Of the letters from `a` on.
    const LETTERS: [u32; 26] = [
        75, 13, 30, 38, 100, 20, 18, 45, 65, 1, 6, 40, 25, 65, 70, 20, 1, 60, 60, 80, 28, 9, 18, 2,
        18, 1,
    ];
    match byte {
        b'a'..=b'z' => LETTERS[usize::from(byte - b'a')],
        b' ' => 150,
        b'_' | b'"' | b'.' => 25,
        b'0'..=b'9' | b'-' | b':' | b'/' => 8,
        _ => 3,
    }
}

/// What the pass has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Rules that may have something to find: bits by their numbers.
    pub(crate) rules: u64,
    /// There are escapes of JSON behind which anything may be hidden.
    pub(crate) escapes: bool,
}

/// A trigger may begin with these two bytes.
const BEGINS: u8 = 1;
/// A trigger of three bytes and more that began one byte before may go on with these two.
const GOES_ON: u8 = 2;
/// A trigger of one or two bytes may begin with the second of these.
const BEGINS_NEXT: u8 = 4;
/// A trigger of four bytes that began two bytes before may end with these two.
const ENDS: u8 = 8;

/// Bytes that are looked at together.
const EIGHT: usize = 8;

/// Every value of two bytes.
const PAIRS: usize = 1 << 16;

/// The tables.
#[derive(Debug)]
pub(crate) struct Prefilter {
    /// For two bytes, the first of them the lower: where a trigger may be; 0 where none is.
    pairs: Box<[u8; PAIRS]>,
    tables: Box<[[u64; 256]; WIDTH]>,
    /// Triggers of one or two bytes.
    short: u64,
    /// Triggers whose last two bytes are rarer than their first two, and are looked for instead.
    by_end: u64,
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
            pairs: Box::new([0; PAIRS]),
            tables: Box::new([[0; 256]; WIDTH]),
            short: 0,
            by_end: 0,
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
        prefilter.pair();
        prefilter
    }

    /// Works out what two bytes may be part of.
    fn pair(&mut self) {
        let [first, second, third, fourth] = &*self.tables;
        for (pair, may) in self.pairs.iter_mut().enumerate() {
            let (one, two) = (pair % 256, pair / 256);
            for (kind, triggers) in [
                (BEGINS, first[one] & second[two] & !self.by_end),
                (GOES_ON, second[one] & third[two] & !self.short),
                (BEGINS_NEXT, first[two] & self.short),
                (ENDS, third[one] & fourth[two] & self.by_end),
            ] {
                *may |= if triggers == 0 { 0 } else { kind };
            }
        }
    }

    /// Takes in a trigger and answers its bit, 0 when there is no room for it.
    fn add(&mut self, trigger: Trigger, rule: u64) -> u64 {
        if self.rules.len() == MAX_TRIGGERS {
            return 0;
        }
        let bit = 1 << self.rules.len();
        self.rules.push(rule);
        let sets: [Vec<u8>; WIDTH] = std::array::from_fn(|at| trigger.bytes_at(at));
        for (set, table) in sets.iter().zip(self.tables.iter_mut()) {
            match &set[..] {
                // What a trigger asks nothing of is anything.
                [] => table.iter_mut().for_each(|entry| *entry |= bit),
                set => set.iter().for_each(|byte| table[usize::from(*byte)] |= bit),
            }
        }
        let common = |at: usize| sets[at].iter().map(|byte| share_in_texts(*byte)).sum::<u32>();
        if sets[2].is_empty() {
            self.short |= bit;
        } else if !sets[3].is_empty() && common(2) * common(3) < common(0) * common(1) {
            self.by_end |= bit;
        }
        bit
    }

    /// Reads a text once.
    pub(crate) fn scan(&self, text: &[u8]) -> Seen {
        let mut hits = 0;
        let (eights, _) = text.as_chunks::<EIGHT>();
        for (number, eight) in eights.iter().enumerate() {
            hits |= self.hits(text, EIGHT * number, *eight);
        }
        hits |= match text.last_chunk::<EIGHT>() {
            Some(_) if text.len().is_multiple_of(EIGHT) => 0,
            // What was looked at already is so again.
            Some(last) => self.hits(text, text.len() - EIGHT, *last),
            None => {
                // What a trigger asks nothing of, a zero fits.
                let mut all = [0; EIGHT];
                all[..text.len()].copy_from_slice(text);
                self.hits(text, 0, all)
            }
        };
        let mut rules = self.crowded_out;
        let mut left = hits;
        while left != 0 {
            rules |= self.rules[left.trailing_zeros() as usize];
            left &= left - 1;
        }
        Seen { rules, escapes: hits & self.escape != 0 }
    }

    /// The triggers that are where these eight bytes stand in a text.
    #[inline(always)]
    fn hits(&self, text: &[u8], at: usize, eight: [u8; EIGHT]) -> u64 {
        let word = u64::from_le_bytes(eight);
        let may_be = |shift: u32| self.pairs[usize::from((word >> shift) as u16)];
        let may = [may_be(0), may_be(16), may_be(32), may_be(48)];
        if may[0] | may[1] | may[2] | may[3] == 0 {
            return 0;
        }
        let mut hits = 0;
        for (pair, may) in may.into_iter().enumerate() {
            if may != 0 {
                hits |= self.hits_of_pair(text, at + 2 * pair, may);
            }
        }
        hits
    }

    /// The triggers that are where two bytes of this place tell that one may be.
    fn hits_of_pair(&self, text: &[u8], at: usize, may: u8) -> u64 {
        let mut hits = 0;
        if may & BEGINS != 0 {
            hits |= self.begun(text, at);
        }
        if let (GOES_ON, Some(before)) = (may & GOES_ON, at.checked_sub(1)) {
            hits |= self.begun(text, before);
        }
        if may & BEGINS_NEXT != 0 {
            hits |= self.begun(text, at + 1);
        }
        if let (ENDS, Some(before)) = (may & ENDS, at.checked_sub(2)) {
            hits |= self.begun(text, before);
        }
        hits
    }

    /// The triggers that begin at a place, with zeros behind the end of the text.
    fn begun(&self, text: &[u8], at: usize) -> u64 {
        let [first, second, third, fourth] = &*self.tables;
        let bytes = match text.get(at..).and_then(<[u8]>::first_chunk::<WIDTH>) {
            Some(bytes) => *bytes,
            None => {
                let rest = text.get(at..).unwrap_or_default();
                std::array::from_fn(|place| rest.get(place).copied().unwrap_or(0))
            }
        };
        let [a, b, c, d] = bytes.map(usize::from);
        first[a] & second[b] & third[c] & fourth[d]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::examine::{Examiner, Tally};
    use crate::fields::Place;
    use crate::rules::RuleSet;
    use crate::{Action, Builtin, RedactionConfig, RuleConfig};

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

    /// What the pass is to see, trigger by trigger at every place.
    fn seen_plainly(triggers: &[(Trigger, u64)], text: &[u8]) -> u64 {
        let is_at = |trigger: Trigger, text: &[u8]| match trigger {
            Trigger::Text(wanted) => {
                text.starts_with(&wanted.as_bytes()[..wanted.len().min(WIDTH)])
            }
            Trigger::AnyCase(wanted) => {
                let wanted = &wanted.as_bytes()[..wanted.len().min(WIDTH)];
                text.get(..wanted.len()).is_some_and(|text| text.eq_ignore_ascii_case(wanted))
            }
            Trigger::Sets(sets) => {
                text.len() >= sets.len()
                    && sets.iter().zip(text).all(|(set, byte)| set.contains(byte))
            }
        };
        let is_in = |trigger| (0..text.len()).any(|at| is_at(trigger, &text[at..]));
        triggers.iter().filter(|(trigger, _)| is_in(*trigger)).fold(0, |all, (_, rule)| all | rule)
    }

    /// Every trigger that is built in, each as a rule of its own, as far as there are bits.
    fn triggers() -> Vec<(Trigger, u64)> {
        let more = [Builtin::Email, Builtin::Phone, Builtin::Card];
        let all = Builtin::SECRETS.into_iter().chain(more);
        let all = all.flat_map(|builtin| builtin.definition().triggers.iter().copied());
        all.take(MAX_TRIGGERS - ESCAPES.len()).enumerate().map(|(at, it)| (it, 1 << at)).collect()
    }

    /// Every built-in rule and one of the configuration.
    fn config() -> RedactionConfig {
        let more = [Builtin::Email, Builtin::Phone, Builtin::Card];
        let rules = more.map(|builtin| RuleConfig::builtin(builtin, Action::Mask)).to_vec();
        RedactionConfig { rules, ..RedactionConfig::default() }
    }

    /// A text as these rules leave it.
    fn redacted(set: &RuleSet, text: &str) -> String {
        let mut tally = Tally::default();
        let mut examiner = Examiner::new(set, set.all, &mut tally);
        let mut text = text.to_owned();
        examiner.text_field(Place::SpanName, "some.text", &mut text);
        text
    }

    static QUICK: LazyLock<RuleSet> =
        LazyLock::new(|| RuleSet::compile(&config(), [0; 32]).unwrap());
    static PLAIN: LazyLock<RuleSet> = LazyLock::new(|| {
        let mut set = RuleSet::compile(&config(), [0; 32]).unwrap();
        set.unfiltered = set.all;
        set
    });

    /// Pieces of which finds are made, whole and broken.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[ -~]{1,3}",
            "\\PC{1,2}",
            "[0-9 .+()/-]{1,12}",
            "[A-Za-z0-9_-]{16,40}",
            proptest::sample::select(&[
                "sk-",
                "sk-ant-",
                "AIza",
                "ya29.",
                "GOCSPX-",
                "hf_",
                "r8_",
                "gsk_",
                "xai-",
                "npm_",
                "sk_live_",
                "glpat-",
                "SG.",
                "tl_",
                "ghp_",
                "github_pat_",
                "AKIA",
                "aws_secret_key=",
                "xoxb-",
                "xapp-1-",
                "hooks.slack.com/services/",
                "eyJ",
                ".eyJ",
                "Bearer ",
                "BEARER ",
                "authorization: basic ",
                "-----BEGIN RSA PRIVATE KEY-----",
                "://",
                "user:",
                "@",
                "example.com",
                "4111 1111 1111 1111",
                "+49 170 1234567",
                "(030) 1234567",
                "Pass_Word",
                "{\"passwd\":\"",
                "\"api_token\":\"",
                "\"API-KEY\": [\"",
                "\"passphrase\":1",
                "\",",
                "\"}",
                "]",
                "\\u0040",
                "\\/",
            ])
            .prop_map(str::to_owned),
        ];
        proptest::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat())
    }

    proptest::proptest! {
        #[test]
        fn it_sees_what_looking_for_each_trigger_sees(text in pieces(), short in "[a-z:/@_0-9-]{0,9}") {
            let all = triggers();
            let quick = Prefilter::new(all.iter().copied());
            for text in [&text, &short] {
                let seen = quick.scan(text.as_bytes());
                proptest::prop_assert_eq!(seen.rules, seen_plainly(&all, text.as_bytes()), "{}", text);
                proptest::prop_assert_eq!(seen.escapes, text.contains("\\u") || text.contains("\\/"));
            }
        }

        #[test]
        fn what_it_lets_pass_no_rule_would_have_found(text in pieces()) {
            proptest::prop_assert_eq!(redacted(&QUICK, &text), redacted(&PLAIN, &text));
        }

        #[test]
        fn nothing_is_missed(before in "[a-k@ ]{0,9}", after in "[a-k@ ]{0,9}") {
            let text = format!("{before}sk-{after}");
            proptest::prop_assert_eq!(prefilter().scan(text.as_bytes()).rules & 1, 1);
        }
    }
}
