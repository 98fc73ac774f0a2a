//! What was wrong with the items of a request: each problem has a name, a count, and an answer.

use std::fmt;

use throughline_trace::{Attributes, Value, keys};

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// One thing that can be wrong with an item. All but the rejections leave the item
        /// accepted, with the problem's name in its attribute `throughline.mended`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Problem {
            $($(#[$doc])* $name,)*
        }

        impl Problem {
            /// Every problem.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name in counters and in `throughline.mended`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

problems! {
    /// The trace id is not 16 bytes, or zero: the span is rejected. On a log record: left out.
    TraceId = "trace_id",
    /// The span id is not 8 bytes, or zero: the span is rejected. On a log record: left out.
    SpanId = "span_id",
    /// The parent id is not 8 bytes: the span is taken as a root.
    ParentId = "parent_id",
    /// A link names no valid span: left out, counted among the dropped links.
    Link = "link",
    /// The name is empty: `unnamed` is put in its place.
    EmptyName = "empty_name",
    /// The end is before the start: the end becomes the start.
    EndBeforeStart = "end_before_start",
    /// No start: it becomes the end, or else the time of arrival.
    NoStart = "no_start",
    /// No end: it becomes the start.
    NoEnd = "no_end",
    /// No time at all: it becomes the start of the span, or else the time of arrival.
    NoTime = "no_time",
    /// A time before the year 2000 (seconds or milliseconds sent as nanoseconds?): kept.
    DistantPast = "distant_past",
    /// A time more than a day after arrival: kept.
    Future = "future",
    /// Text that is not UTF-8: U+FFFD stands where bytes could not be read.
    NotUtf8 = "not_utf8",
    /// A value, body or message beyond its limit: cut, its size and hash noted.
    LongValue = "long_value",
    /// A name or key beyond its limit: cut.
    LongName = "long_name",
    /// More bytes in all than an item may have, whatever was cut: the item is rejected.
    LargeItem = "large_item",
    /// More attributes than the limit: the first are kept, the others counted as dropped.
    ManyAttributes = "many_attributes",
    /// More events than the limit: the first are kept, the others counted as dropped.
    ManyEvents = "many_events",
    /// More links than the limit: the first are kept, the others counted as dropped.
    ManyLinks = "many_links",
    /// A string given by its number in a table that only profiles have: kept as empty.
    StringIndex = "string_index",
    /// A decision without a usable id or action: kept as a plain log record.
    Decision = "decision",
    /// A field of a decision that cannot be read: kept as an attribute.
    DecisionField = "decision_field",
    /// A metric without a name: its points are rejected.
    MetricName = "metric_name",
    /// A data point without a value: rejected.
    PointValue = "point_value",
    /// Buckets whose numbers do not fit together: left out, count and sum kept.
    Buckets = "buckets",
    /// The normal form of a foreign span would take more room than there is: what is long of it is
    /// not added. What came is there.
    NormalForm = "normal_form",
    /// A decision that a foreign span shows has no room in the request any more: it is not added, and
    /// only counted. The span is there as it came.
    DerivedDecision = "derived_decision",
}

impl Problem {
    /// Whether something that was sent is not there any more.
    fn is_truncation(self) -> bool {
        matches!(
            self,
            Self::LongValue
                | Self::LongName
                | Self::ManyAttributes
                | Self::ManyEvents
                | Self::ManyLinks
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything that was found wrong with a request that was decoded, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Items that could not be accepted.
    pub rejected: u64,
    /// Items accepted after something about them was put right.
    pub mended: u64,
    /// Items accepted of which something was cut off; a subset of those mended.
    pub truncated: u64,
    /// Exemplars of metric points, which are not kept.
    pub exemplars_left_out: u64,
    /// Notices that a span has begun (Logfire's pending spans), which comes again when it ends.
    pub pending_left_out: u64,
    counts: [u64; Problem::ALL.len()],
    first_rejected: Option<String>,
    first_mended: Option<String>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            rejected: 0,
            mended: 0,
            truncated: 0,
            exemplars_left_out: 0,
            pending_left_out: 0,
            counts: [0; Problem::ALL.len()],
            first_rejected: None,
            first_mended: None,
        }
    }
}

impl Report {
    /// How often `problem` was met.
    pub fn count(&self, problem: Problem) -> u64 {
        self.counts[problem as usize]
    }

    /// Problems that were met, with how often.
    pub fn problems(&self) -> impl Iterator<Item = (Problem, u64)> {
        Problem::ALL.iter().map(|problem| (*problem, self.count(*problem))).filter(|(_, n)| *n > 0)
    }

    /// Whether the request can be answered without a word.
    pub fn is_clean(&self) -> bool {
        self.rejected == 0 && self.mended == 0
    }

    /// The text of `partial_success.error_message`: how many, and the first of them in detail.
    /// Empty when all is well.
    pub fn message(&self) -> String {
        let mut text = String::new();
        if let Some(first) = &self.first_rejected {
            text = format!("rejected {}; first: {first}", self.rejected);
        }
        if let Some(first) = &self.first_mended {
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(&format!("accepted {} with changes; first: {first}", self.mended));
        }
        text
    }

    pub(crate) fn add(&mut self, problem: Problem) {
        self.add_many(problem, 1);
    }

    pub(crate) fn add_many(&mut self, problem: Problem, count: u64) {
        self.counts[problem as usize] += count;
    }

    /// Counts `items` as rejected; `describe` is asked only for the first.
    pub(crate) fn reject(
        &mut self,
        items: u64,
        problem: Problem,
        describe: impl FnOnce() -> String,
    ) {
        if items == 0 {
            return;
        }
        self.add(problem);
        self.rejected += items;
        self.first_rejected.get_or_insert_with(describe);
    }

    /// Counts one item as mended if `notes` has anything; `describe` names the first.
    pub(crate) fn mended(&mut self, notes: &Notes, describe: impl FnOnce() -> String) {
        if notes.text.is_empty() {
            return;
        }
        self.mended += 1;
        self.truncated += u64::from(notes.truncated);
        self.first_mended.get_or_insert_with(|| format!("{}: {}", describe(), notes.text));
    }
}

/// The start of a name, quoted, for an error message.
pub(crate) fn quote(name: &str) -> String {
    /// Characters of a name that a message repeats.
    const MAX_CHARS: usize = 80;
    format!("{:?}", name.chars().take(MAX_CHARS).collect::<String>())
}

/// What was put right about the item in hand.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    text: String,
    truncated: bool,
    place: Place,
    /// Sizes and hashes of values that were cut.
    cut: Vec<(String, Value)>,
    hashes: Vec<(String, Value)>,
}

/// Where in the item in hand we are.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) enum Place {
    #[default]
    Item,
    /// In its event of this number, from 0.
    Event(usize),
    /// In its link of this number, from 0.
    Link(usize),
}

impl Notes {
    pub(crate) fn add(&mut self, problem: Problem) {
        self.truncated |= problem.is_truncation();
        let known = self.text.split(',').any(|part| part == problem.as_str());
        if !known {
            self.push(problem.as_str());
        }
    }

    /// As [`Notes::add`], keeping the bytes of an id that could not be used.
    pub(crate) fn add_id(&mut self, problem: Problem, id: &[u8]) {
        /// Bytes of a wrong id that are kept: twice the longest right one.
        const MAX_ID_BYTES: usize = 32;
        let mut text = format!("{problem}:");
        for byte in id.iter().take(MAX_ID_BYTES) {
            text.push_str(&format!("{byte:02x}"));
        }
        self.push(&text);
    }

    /// Turns to this part of the item.
    pub(crate) fn turn_to(&mut self, place: Place) {
        self.place = place;
    }

    /// Notes that the value under `key` was cut from `bytes`, of which this is the hash.
    pub(crate) fn add_cut(&mut self, key: &str, bytes: usize, hash: String) {
        self.add(Problem::LongValue);
        let key = match self.place {
            Place::Item => key.to_owned(),
            Place::Event(number) => format!("events[{number}].{key}"),
            Place::Link(number) => format!("links[{number}].{key}"),
        };
        self.hashes.push((key.clone(), Value::String(hash)));
        self.cut.push((key, Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX))));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Writes the notes onto the item that they are about, after what an earlier hop wrote.
    pub(crate) fn mark(&mut self, attributes: &mut Attributes) {
        if self.text.is_empty() {
            return;
        }
        let text = match attributes.str(keys::MENDED) {
            // What was exported and comes again is not told twice.
            Some(earlier) => {
                let is_new = |note: &&str| earlier.split(',').all(|told| told != *note);
                let fresh = self.text.split(',').filter(is_new);
                [earlier].into_iter().chain(fresh).collect::<Vec<_>>().join(",")
            }
            None => self.text.clone(),
        };
        attributes.set(keys::MENDED, text);
        if !self.cut.is_empty() {
            attributes.set(keys::TRUNCATED_BYTES, Value::Map(std::mem::take(&mut self.cut)));
            attributes.set(keys::TRUNCATED_HASHES, Value::Map(std::mem::take(&mut self.hashes)));
        }
    }

    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.truncated = false;
        self.place = Place::Item;
        self.cut.clear();
        self.hashes.clear();
    }

    fn push(&mut self, part: &str) {
        if !self.text.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(part);
    }
}
