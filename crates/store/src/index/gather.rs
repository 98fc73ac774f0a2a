//! What spans add to the index: the values of their attributes, and what they say, wherever they come from.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use throughline_trace::{Attributes, Value};
use twox_hash::XxHash3_64;

use super::block::Key;
use super::error::IndexError;
use super::shelf::Shelf;
use crate::body::{self, BodyError};
use crate::search::content::{self, Said, Written};
use crate::search::folded;

/// Longest text of an attribute's value that has postings, bytes.
pub(super) const MAX_POSTED_BYTES: usize = 256;

/// Longest text that is indexed, bytes; traces that say longer ones are always looked at.
const MAX_INDEXED_BYTES: usize = 256 * 1024;

/// Characters in a row by which texts are found; shorter texts cannot be looked up.
pub(super) const GRAM_CHARS: usize = 3;

/// The text that stands for those that are too long.
pub(super) const LONG_TEXTS: i64 = 0;

/// Keys that begin so hold measures, of which nearly every span has another: they have no postings.
const MEASURES: [&str; 1] = ["gen_ai.usage."];

/// Stands for the name of a span among the keys; no sender can use it by accident.
pub(super) const SPAN_NAME: &str = "\u{1}name";

/// Whether the values of a key have postings.
pub(super) fn is_posted(key: &str) -> bool {
    !MEASURES.iter().any(|measure| key.starts_with(measure))
}

/// What a value is found by, as far as it has postings: its text, or its number if that is whole (XXH3, seeded
/// by the key). Part of the form of an index, so that it must stay as it is. It need not withstand anybody:
/// two values of one hash cost a look at rows.
fn hash(key: &str, kind: u8, value: &[u8]) -> i64 {
    let seed = XxHash3_64::oneshot(key.as_bytes()) ^ u64::from(kind);
    XxHash3_64::oneshot_with_seed(seed, value) as i64
}

/// The hash of a text under a key.
pub(super) fn hash_text(key: &str, text: &str) -> i64 {
    hash(key, 0, text.as_bytes())
}

/// The hash of a whole number under a key; whether it is an integer or not does not matter, nor
/// what lies beyond the precision of a double.
pub(super) fn hash_number(key: &str, number: f64) -> i64 {
    // Minus zero equals zero.
    hash(key, 1, &(number + 0.0).to_le_bytes())
}

/// Tells the hashes by which a value is found: of a list, those of its items.
fn hashes_of(key: &str, value: &Value, tell: &mut impl FnMut(i64)) {
    match value {
        Value::String(text) if text.len() <= MAX_POSTED_BYTES => tell(hash_text(key, text)),
        Value::Bool(truth) => tell(hash_text(key, if *truth { "true" } else { "false" })),
        Value::Int(number) => tell(hash_number(key, *number as f64)),
        Value::Double(number) if number.fract() == 0.0 => tell(hash_number(key, *number)),
        Value::Array(items) => items.iter().for_each(|item| hashes_of(key, item, tell)),
        _ => {}
    }
}

/// A text as it is indexed: in lower case, as searches compare it.
fn gathered(tell_all: impl FnOnce(&mut dyn FnMut(&str))) -> String {
    let mut lower = String::new();
    tell_all(&mut |text| {
        lower.push_str(&folded(text));
        lower.push('\n');
    });
    without_nul(lower)
}

/// Texts end at a zero byte for SQLite's tokenizer: another character stands for it, here and in what
/// is looked for.
pub(super) fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{1}") } else { text }
}

/// Where a text comes from: the same bytes may say different things.
pub(super) type Address = [u8; 16];

/// What the bytes are whose hash an address begins as.
#[derive(Debug, Clone, Copy)]
enum Origin {
    /// What a span says of itself, as text.
    Text,
    /// A message, which is not what a span says of itself.
    Message,
    /// The stored form of a list or map, which may have the bytes of a text.
    Value,
}

fn addressed(mut address: Address, is_json: bool, written: Written, origin: Origin) -> Address {
    address[0] ^= (written as u8) << 1 | u8::from(is_json);
    address[1] ^= origin as u8;
    address
}

/// A text that spans say.
#[derive(Debug)]
pub(super) enum Text {
    /// The index has it under this number.
    Known(i64),
    /// In lower case.
    New(String),
    TooLong,
}

impl Text {
    fn new(text: String) -> Self {
        if text.len() <= MAX_INDEXED_BYTES { Self::New(text) } else { Self::TooLong }
    }
}

/// Longest text of a span that is known by itself rather than by its address while spans are gathered, bytes.
const MAX_SHORT_BYTES: usize = 128;

/// Most texts that are known so.
const MAX_SHORT_TEXTS: usize = 1_024;

/// What a value, a resource or a text of a trace takes while it is gathered, bytes.
const PAIR_BYTES: usize = 32;

/// What a text takes beside what it says, bytes.
const TEXT_BYTES: usize = 80;

/// A message that a span has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    pub(super) address: Address,
    /// Whether its bytes are JSON as text; else they are the stored form of a value.
    pub(super) is_json: bool,
    pub(super) written: Written,
}

/// What a number of spans add.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Values, with the trace.
    pub(super) postings: Vec<(Key, i64)>,
    /// Hashes of values of resources.
    pub(super) resource_postings: Vec<(i64, i64)>,
    /// Resources, with the trace.
    pub(super) resource_traces: HashSet<(i64, i64), RandomState>,
    /// Texts by where they come from.
    pub(super) texts: HashMap<Address, Text, RandomState>,
    /// Which trace says which text.
    pub(super) said: HashSet<(Address, i64), RandomState>,
    /// Spans that were read.
    pub(super) spans: u64,
    /// Bytes of bodies and messages that were read.
    pub(super) bytes: usize,
    /// Resources whose values are gathered.
    resources: HashSet<i64>,
    /// Where short texts have been met: the names of spans are few.
    short: HashMap<Box<str>, Address, RandomState>,
}

impl Gathered {
    /// Begins with a span of so many bytes.
    pub(super) fn begin_span(&mut self, bytes: usize, (resource, trace_no): (i64, i64)) {
        self.spans += 1;
        self.bytes += bytes;
        self.resource_traces.insert((resource, trace_no));
    }

    /// Whether the values of a resource are still to be gathered; it is taken for gathered from now on.
    pub(super) fn wants_resource(&mut self, resource: i64) -> bool {
        self.resources.insert(resource)
    }

    /// Takes the values of a resource.
    pub(super) fn resource(&mut self, resource: i64, attributes: &Attributes) {
        let postings = &mut self.resource_postings;
        for (key, value) in attributes.iter().filter(|(key, _)| is_posted(key)) {
            hashes_of(key, value, &mut |hash| postings.push((hash, resource)));
        }
    }

    /// What it takes in memory, bytes, roughly.
    pub(super) fn weight(&self) -> usize {
        let pairs = self.postings.len() + self.resource_traces.len() + self.said.len();
        self.bytes + pairs * PAIR_BYTES + self.texts.len() * TEXT_BYTES
    }

    /// Takes the name of a span.
    pub(super) fn name(&mut self, shelf: &Shelf<'_>, name: &str, trace_no: i64) {
        if name.len() <= MAX_POSTED_BYTES {
            self.posting(shelf, hash_text(SPAN_NAME, name), trace_no);
        }
    }

    /// Takes an attribute of a span or of one of its events.
    pub(super) fn value(&mut self, shelf: &Shelf<'_>, (key, value): (&str, &Value), trace_no: i64) {
        if is_posted(key) {
            hashes_of(key, value, &mut |hash| self.posting(shelf, hash, trace_no));
        }
    }

    fn posting(&mut self, shelf: &Shelf<'_>, hash: i64, trace_no: i64) {
        let key = Key::value(hash);
        if !shelf.is_full(key) {
            self.postings.push((key, trace_no));
        }
    }

    /// Takes what a span says beside its messages.
    pub(super) fn said(
        &mut self,
        shelf: &mut Shelf<'_>,
        said: Said<'_>,
        trace_no: i64,
    ) -> Result<(), IndexError> {
        // A text that begins like JSON is another thing than the JSON.
        let address = match said {
            Said::Text("") => return Ok(()),
            Said::Text(text) => {
                addressed(self.address_of(text), false, Written::Content, Origin::Text)
            }
            Said::Value(Value::String(text), written) => {
                addressed(self.address_of(text), true, written, Origin::Text)
            }
            Said::Value(value, written) => {
                let stored = body::encode(value).map_err(IndexError::of_segment)?;
                addressed(body::address(&stored), true, written, Origin::Value)
            }
        };
        if !self.is_new(shelf, address, trace_no)? {
            return Ok(());
        }
        let text = match said {
            Said::Text(text) => gathered(|tell| tell(text)),
            Said::Value(value, written) => {
                gathered(|tell| content::texts_in_value(value, written, &mut |text| tell(text)))
            }
        };
        self.text(address, text);
        Ok(())
    }

    /// Takes a message; `read` gives its bytes.
    pub(super) fn message<'m>(
        &mut self,
        shelf: &mut Shelf<'_>,
        message: Message,
        trace_no: i64,
        read: impl FnOnce() -> Result<Cow<'m, [u8]>, IndexError>,
    ) -> Result<(), IndexError> {
        let Message { address, is_json, written } = message;
        let address = addressed(address, is_json, written, Origin::Message);
        if !self.is_new(shelf, address, trace_no)? {
            return Ok(());
        }
        let bytes = read()?;
        self.bytes += bytes.len();
        let text = text_of_message(&bytes, message).map_err(IndexError::of_segment)?;
        self.text(address, text);
        Ok(())
    }

    fn address_of(&mut self, text: &str) -> Address {
        if text.len() > MAX_SHORT_BYTES {
            return body::address(text.as_bytes());
        }
        if let Some(address) = self.short.get(text) {
            return *address;
        }
        let address = body::address(text.as_bytes());
        if self.short.len() < MAX_SHORT_TEXTS {
            self.short.insert(text.into(), address);
        }
        address
    }

    /// Notes that a trace says a text; answers whether the text itself is still to be taken.
    fn is_new(
        &mut self,
        shelf: &mut Shelf<'_>,
        address: Address,
        trace_no: i64,
    ) -> Result<bool, rusqlite::Error> {
        self.said.insert((address, trace_no));
        if self.texts.contains_key(&address) {
            return Ok(false);
        }
        let Some(number) = shelf.text(address)? else { return Ok(true) };
        self.texts.insert(address, Text::Known(number));
        Ok(false)
    }

    fn text(&mut self, address: Address, text: String) {
        self.bytes += text.len();
        self.texts.insert(address, Text::new(text));
    }
}

fn text_of_message(bytes: &[u8], message: Message) -> Result<String, BodyError> {
    let Message { is_json, written, .. } = message;
    if is_json {
        let text = std::str::from_utf8(bytes).map_err(|_| BodyError::Messages)?;
        return Ok(gathered(|tell| content::texts_in_json(text, written, &mut |text| tell(text))));
    }
    let value: Value = body::decode(bytes)?;
    Ok(gathered(|tell| content::texts_in_value(&value, written, &mut |text| tell(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_indexes_that_there_are() {
        assert_eq!(hash_text("user.id", "ada"), -2_821_920_142_944_510_350);
        assert_eq!(hash_number("user.id", 7.0), 6_629_091_892_604_380_089);
        assert_eq!(hash_number("k", -0.0), hash_number("k", 0.0));
        assert_ne!(hash_text("a", "bc"), hash_text("ab", "c"));
        assert_ne!(hash_text("k", "true"), hash("k", 1, b"true"));
    }
}
