//! What spans add to the index: the values of their attributes, and what they say.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hasher as _;

use fnv::FnvHasher;
use rusqlite::{Connection, OptionalExtension as _};
use throughline_trace::Value;

use super::error::IndexError;
use crate::body::{self, BodyError, SpanBody};
use crate::dictionary;
use crate::insert::read_varints;
use crate::messages::Slot;
use crate::read_spans::RowReader;
use crate::search::content::{self, Referred, Said, Written};
use crate::trace_rows::{self, RowError};

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

/// What a value is found by, as far as it has postings: its text, or its number if that is whole.
/// Part of the form of an index, so that it must stay as it is. It need not withstand anybody: two
/// values of one hash cost a look at rows.
fn hash(key: &str, kind: u8, value: &[u8]) -> i64 {
    let mut hasher = FnvHasher::default();
    hasher.write(&(key.len() as u32).to_le_bytes());
    hasher.write(key.as_bytes());
    hasher.write(&[kind]);
    hasher.write(value);
    hasher.finish() as i64
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
fn folded(tell_all: impl FnOnce(&mut dyn FnMut(&str))) -> String {
    let mut folded = String::new();
    tell_all(&mut |text| {
        folded.push_str(&text.to_lowercase());
        folded.push('\n');
    });
    without_nul(folded)
}

/// Texts end at a zero byte for SQLite's tokenizer: another character stands for it, here and in what
/// is looked for.
pub(super) fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{1}") } else { text }
}

/// Where a text comes from: the same bytes may say different things.
type Address = [u8; 16];

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

/// What a number of spans add.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Hashes of values, with the trace.
    pub(super) postings: Vec<(i64, i64)>,
    /// Hashes of values of resources.
    pub(super) resource_postings: Vec<(i64, i64)>,
    /// Resources, with the trace.
    pub(super) resource_traces: BTreeSet<(i64, i64)>,
    /// Texts by where they come from.
    pub(super) texts: HashMap<Address, Text>,
    /// Which trace says which text.
    pub(super) said: HashSet<(Address, i64)>,
    /// Spans that were read.
    pub(super) spans: u64,
    /// Bytes of bodies and messages that were read.
    pub(super) bytes: usize,
}

/// Reads spans of one segment.
pub(super) struct Gatherer<'c> {
    connection: &'c Connection,
    index: &'c Connection,
    reader: RowReader<'c>,
    resources: HashSet<i64>,
    messages: HashMap<Referred, Address>,
    pub(super) gathered: Gathered,
}

impl<'c> Gatherer<'c> {
    /// Reads from `connection` what is not in `index` yet.
    pub(super) fn new(connection: &'c Connection, index: &'c Connection) -> Self {
        let reader = RowReader::new(connection);
        let (resources, messages, gathered) = Default::default();
        Self { connection, index, reader, resources, messages, gathered }
    }

    /// Reads the spans of a row of `traces` from a key on, at most so many and, but for the last of
    /// them, until so many bytes are gathered, as those of the trace of the row `trace_no`. Answers
    /// the key behind the last, and whether that is all.
    pub(super) fn spans(
        &mut self,
        space: i64,
        trace_no: i64,
        from: i64,
        (most, most_bytes): (usize, usize),
    ) -> Result<(i64, bool), IndexError> {
        let (first, behind) = trace_rows::key_range(space);
        let mut next = from.max(first);
        let connection = self.connection;
        let mut statement = connection
            .prepare_cached(
                "SELECT key, name, resource, messages, body FROM spans
                 WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3",
            )
            .map_err(IndexError::of_segment)?;
        let mut rows =
            statement.query([next, behind, most as i64]).map_err(IndexError::of_segment)?;
        let mut read = 0;
        while let Some(row) = rows.next().map_err(IndexError::of_segment)? {
            if self.gathered.bytes >= most_bytes {
                return Ok((next, false));
            }
            let span = SpanRow::read(connection, row).map_err(IndexError::Segment)?;
            next = span.key + 1;
            read += 1;
            self.span(span, trace_no)?;
        }
        Ok((next, read < most))
    }

    fn span(&mut self, span: SpanRow<'_>, trace_no: i64) -> Result<(), IndexError> {
        let SpanRow { name, body, resource, messages, .. } = span;
        self.gathered.spans += 1;
        self.gathered.bytes += span.bytes;
        self.gathered.resource_traces.insert((resource, trace_no));
        if self.resources.insert(resource) {
            let read = self.reader.resource(resource).map_err(IndexError::of_segment)?;
            let postings = &mut self.gathered.resource_postings;
            for (key, value) in read.attributes.iter().filter(|(key, _)| is_posted(key)) {
                hashes_of(key, value, &mut |hash| postings.push((hash, resource)));
            }
        }
        let postings = &mut self.gathered.postings;
        if name.len() <= MAX_POSTED_BYTES {
            postings.push((hash_text(SPAN_NAME, name), trace_no));
        }
        let own = body.attributes.iter().filter_map(|(key, slot)| match slot {
            Slot::Plain(value) => Some((key.as_str(), value)),
            Slot::Text { .. } | Slot::List { .. } => None,
        });
        let of_events = body.events.iter().flat_map(|event| event.attributes.iter());
        for (key, value) in own.chain(of_events).filter(|(key, _)| is_posted(key)) {
            hashes_of(key, value, &mut |hash| postings.push((hash, trace_no)));
        }
        for said in content::said_by(name, &body) {
            self.said(said, trace_no)?;
        }
        for referred in content::messages_of(&body.attributes, messages) {
            self.message(referred, trace_no)?;
        }
        Ok(())
    }

    fn said(&mut self, said: Said<'_>, trace_no: i64) -> Result<(), IndexError> {
        // A text that begins like JSON is another thing than the JSON.
        let address = match said {
            Said::Text("") => return Ok(()),
            Said::Text(text) => {
                addressed(body::address(text.as_bytes()), false, Written::Content, Origin::Text)
            }
            Said::Value(Value::String(text), written) => {
                addressed(body::address(text.as_bytes()), true, written, Origin::Text)
            }
            Said::Value(value, written) => {
                let stored = body::encode(value).map_err(IndexError::of_segment)?;
                addressed(body::address(&stored), true, written, Origin::Value)
            }
        };
        self.gathered.said.insert((address, trace_no));
        if self.is_known(address)? {
            return Ok(());
        }
        let text = match said {
            Said::Text(text) => folded(|tell| tell(text)),
            Said::Value(value, written) => {
                folded(|tell| content::texts_in_value(value, written, &mut |text| tell(text)))
            }
        };
        self.gathered.bytes += text.len();
        self.gathered.texts.insert(address, Text::new(text));
        Ok(())
    }

    /// Whether a text needs no further look.
    fn is_known(&mut self, address: Address) -> Result<bool, rusqlite::Error> {
        if self.gathered.texts.contains_key(&address) {
            return Ok(true);
        }
        let known: Option<i64> = self
            .index
            .prepare_cached("SELECT text FROM texts WHERE address = ?1")?
            .query_row([address], |row| row.get(0))
            .optional()?;
        let Some(number) = known else { return Ok(false) };
        self.gathered.texts.insert(address, Text::Known(number));
        Ok(true)
    }

    fn message(&mut self, referred: Referred, trace_no: i64) -> Result<(), IndexError> {
        if let Some(address) = self.messages.get(&referred) {
            self.gathered.said.insert((*address, trace_no));
            return Ok(());
        }
        let (address, stored) =
            self.stored_message(referred.message).map_err(IndexError::Segment)?;
        let address = addressed(address, referred.is_json, referred.written, Origin::Message);
        self.messages.insert(referred, address);
        self.gathered.said.insert((address, trace_no));
        if self.is_known(address)? {
            return Ok(());
        }
        let message =
            dictionary::unpack(self.connection, &stored).map_err(IndexError::of_segment)?;
        self.gathered.bytes += message.len();
        let text = text_of_message(&message, referred).map_err(IndexError::of_segment)?;
        self.gathered.texts.insert(address, Text::new(text));
        Ok(())
    }

    /// Address and stored form of a message.
    fn stored_message(&self, message: i64) -> Result<(Address, Vec<u8>), RowError> {
        let stored = self
            .connection
            .prepare_cached("SELECT address, body FROM messages WHERE message = ?1")?
            .query_row([message], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(stored.ok_or(BodyError::Messages)?)
    }
}

fn text_of_message(message: &[u8], referred: Referred) -> Result<String, BodyError> {
    let written = referred.written;
    if referred.is_json {
        let text = std::str::from_utf8(message).map_err(|_| BodyError::Messages)?;
        return Ok(folded(|tell| content::texts_in_json(text, written, &mut |text| tell(text))));
    }
    let value: Value = body::decode(message)?;
    Ok(folded(|tell| content::texts_in_value(&value, written, &mut |text| tell(text))))
}

/// What a row of `spans` says that is indexed.
struct SpanRow<'r> {
    key: i64,
    name: &'r str,
    resource: i64,
    /// Numbers of the messages that it refers to.
    messages: Vec<i64>,
    body: SpanBody,
    /// Length of the body, bytes.
    bytes: usize,
}

impl<'r> SpanRow<'r> {
    fn read(segment: &Connection, row: &'r rusqlite::Row<'_>) -> Result<Self, RowError> {
        let name = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        let messages = row.get_ref(3)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
        let stored = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
        let raw = dictionary::unpack(segment, stored)?;
        Ok(Self {
            key: row.get(0)?,
            name,
            resource: row.get(2)?,
            messages: messages.map(read_varints).unwrap_or_default(),
            body: body::decode(&raw)?,
            bytes: raw.len(),
        })
    }
}

impl Gathered {
    /// Adds everything to the index, in the transaction that is open. Rows go in in their order.
    pub(super) fn add_to(mut self, index: &Connection) -> Result<(), rusqlite::Error> {
        add_pairs(index, "postings", &mut self.postings)?;
        add_pairs(index, "resource_postings", &mut self.resource_postings)?;
        let mut traces: Vec<(i64, i64)> = self.resource_traces.into_iter().collect();
        add_pairs(index, "resource_traces", &mut traces)?;
        let numbers = add_texts(index, self.texts)?;
        let number = |address| numbers.get(address).copied();
        let mut said: Vec<(i64, i64)> = self
            .said
            .iter()
            .filter_map(|(address, trace_no)| Some((number(address)?, *trace_no)))
            .collect();
        add_pairs(index, "text_traces", &mut said)
    }
}

fn add_pairs(
    index: &Connection,
    table: &str,
    pairs: &mut Vec<(i64, i64)>,
) -> Result<(), rusqlite::Error> {
    pairs.sort_unstable();
    pairs.dedup();
    let mut insert =
        index.prepare_cached(&format!("INSERT OR IGNORE INTO {table} VALUES (?1, ?2)"))?;
    for (first, second) in pairs {
        insert.execute([*first, *second])?;
    }
    Ok(())
}

/// The numbers of the texts; new ones are indexed.
fn add_texts(
    index: &Connection,
    texts: HashMap<Address, Text>,
) -> Result<HashMap<Address, i64>, rusqlite::Error> {
    let mut note = index.prepare_cached("INSERT INTO texts VALUES (?1, ?2)")?;
    let mut add = index.prepare_cached("INSERT INTO fulltext(rowid, said) VALUES (?1, ?2)")?;
    let last: Option<i64> = index
        .prepare_cached("SELECT max(text) FROM text_traces")?
        .query_row([], |row| row.get(0))?;
    let mut last = last.unwrap_or(LONG_TEXTS);
    let mut numbers = HashMap::with_capacity(texts.len());
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.sort_unstable_by_key(|(address, _)| *address);
    for (address, text) in texts {
        let number = match text {
            Text::Known(number) => number,
            Text::TooLong => {
                note.execute((address, LONG_TEXTS))?;
                LONG_TEXTS
            }
            // Nothing of it can be looked up: it must not take the place of what can.
            Text::New(text) if text.chars().count() <= GRAM_CHARS => continue,
            Text::New(text) => {
                last += 1;
                add.execute((last, &text))?;
                note.execute((address, last))?;
                last
            }
        };
        numbers.insert(address, number);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_indexes_that_there_are() {
        assert_eq!(hash_text("user.id", "ada"), 7_224_931_165_082_556_760);
        assert_eq!(hash_number("user.id", 7.0), 4_146_588_910_941_478_195);
        assert_eq!(hash_number("k", -0.0), hash_number("k", 0.0));
        assert_ne!(hash_text("a", "bc"), hash_text("ab", "c"));
    }
}
