//! What the spans of one trace show of a query.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _};
use throughline_trace::keys::{self, MESSAGE_KEYS};
use throughline_trace::{Attributes, TraceSummary, Value};

use crate::body::{self, BodyError, SpanBody};
use crate::dictionary;
use crate::error::QueryError;
use crate::insert::read_varints;
use crate::messages::Slot;
use crate::read_spans::RowReader;
use crate::sampled;
use crate::search::{
    Evidence, NameField, NeedleSet, SearchQuery, SpanTerms, Term, TextTest, Written, value_matches,
};
use crate::session::{Held, Segment, Session};
use crate::trace_rows::{self, RowError};

/// Most spans of a trace that a search looks at.
const MAX_SEARCHED_SPANS: u64 = 50_000;

/// Most bytes of bodies and messages of a trace that a search reads.
const MAX_SEARCHED_BYTES: usize = 64 * 1024 * 1024;

/// Attributes beside the messages whose text is searched.
const TEXT_KEYS: [&str; 4] = [
    keys::GEN_AI_TOOL_CALL_ARGUMENTS,
    keys::GEN_AI_TOOL_CALL_RESULT,
    keys::ERROR_MESSAGE,
    "exception.message",
];

/// A query, made ready for spans.
#[derive(Debug)]
pub(crate) struct SpanSearch<'q> {
    query: &'q SearchQuery,
    terms: SpanTerms<'q>,
    needles: NeedleSet,
    /// Whether some term is about attributes: resources are read for them alone.
    has_attributes: bool,
}

impl<'q> SpanSearch<'q> {
    pub(crate) fn new(query: &'q SearchQuery) -> Self {
        let terms = SpanTerms::of(query);
        let needles = NeedleSet::of(&terms);
        let has_attributes = terms.0.iter().any(|term| matches!(term, Term::Attribute(..)));
        Self { query, terms, needles, has_attributes }
    }

    /// Whether a trace fits, looking at its spans in all segments when its summary is not enough.
    /// `None` when it is too large to be looked at whole, or retention took what its spans said, and
    /// what was seen does not tell.
    pub(crate) fn verdict(
        &self,
        session: &Session,
        held: &mut Held<'_>,
        segments: &[Segment],
        summary: &TraceSummary,
    ) -> Result<Option<bool>, QueryError> {
        let named = self.terms.bits(|term| self.is_named(term, summary));
        let found = named | self.needles.bits_in(summary.name());
        let mut evidence = Evidence { found, has_name: true, is_whole: false };
        if let Some(verdict) = self.query.judge(summary, evidence) {
            return Ok(Some(verdict));
        }
        let id = summary.trace_id;
        let mut room = Room { spans: MAX_SEARCHED_SPANS, bytes: MAX_SEARCHED_BYTES };
        let mut is_whole = true;
        for segment in segments.iter().filter(|segment| segment.digest.may_know(id)) {
            session.check_time()?;
            let lease = held.lease(segment.id)?;
            let fails = |error: RowError| error.on_query(lease.path());
            let Some(rows) = trace_rows::find(&lease, id).map_err(fails)? else { continue };
            is_whole &= !segment.is_skeleton;
            if segment.digest.is_sampled {
                let sampled = sampled::of(&lease, id).map_err(|error| lease.fails(&error))?;
                is_whole &= sampled.is_none_or(|of| of.spans_dropped + of.spans_bared == 0);
            }
            let mut look = Look {
                search: self,
                connection: &lease,
                reader: RowReader::new(&lease),
                messages: HashMap::new(),
                room: &mut room,
            };
            let verdict = look.spans(&rows.spaces, summary, &mut evidence).map_err(fails)?;
            if verdict.is_some() {
                return Ok(verdict);
            }
            if room.is_used_up() {
                return Ok(None);
            }
        }
        evidence.is_whole = is_whole;
        Ok(self.query.judge(summary, evidence))
    }

    fn is_named(&self, term: &Term, summary: &TraceSummary) -> bool {
        summary.root.is_some() && is_called(term, summary.name())
    }
}

/// Whether a term is about the name of a span, and this one.
fn is_called(term: &Term, name: &str) -> bool {
    matches!(term, Term::Name(NameField::Span, test) if test.accepts(name))
}

/// What may still be read of a trace.
struct Room {
    spans: u64,
    bytes: usize,
}

impl Room {
    fn is_used_up(&self) -> bool {
        self.spans == 0 || self.bytes == 0
    }
}

/// A look at the spans of a trace in one segment.
struct Look<'a, 'q> {
    search: &'a SpanSearch<'q>,
    connection: &'a Connection,
    reader: RowReader<'a>,
    /// What each message shows: an agent repeats its history at every turn.
    messages: HashMap<i64, u64>,
    room: &'a mut Room,
}

impl Look<'_, '_> {
    /// Looks at span after span until the verdict is clear or there is no room left.
    fn spans(
        &mut self,
        spaces: &[i64],
        summary: &TraceSummary,
        evidence: &mut Evidence,
    ) -> Result<Option<bool>, RowError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT name, resource, messages, body FROM spans
             WHERE key >= ?1 AND key < ?2 ORDER BY key",
        )?;
        for space in spaces {
            let (from, to) = trace_rows::key_range(*space);
            let mut rows = statement.query([from, to])?;
            while let Some(row) = rows.next()? {
                if self.room.is_used_up() {
                    return Ok(None);
                }
                self.room.spans -= 1;
                let before = evidence.found;
                evidence.found |= self.span(row, before)?;
                if evidence.found != before
                    && let Some(verdict) = self.search.query.judge(summary, *evidence)
                {
                    return Ok(Some(verdict));
                }
            }
        }
        Ok(None)
    }

    /// The terms that a span shows beside those in `found`.
    fn span(&mut self, row: &rusqlite::Row<'_>, found: u64) -> Result<u64, RowError> {
        let search = self.search;
        let name = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let stored = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
        let raw = dictionary::unpack(self.connection, stored)?;
        self.room.bytes = self.room.bytes.saturating_sub(raw.len());
        if !search.has_attributes && search.needles.is_empty() {
            return Ok(search.terms.bits(|term| is_called(term, name)) & !found);
        }
        let body: SpanBody = body::decode(&raw)?;
        let resource =
            search.has_attributes.then(|| self.reader.resource(row.get(1)?)).transpose()?;
        let mut bits = search.terms.bits(|term| match term {
            Term::Name(..) => is_called(term, name),
            Term::Attribute(key, test) => {
                let is_message = |slot: &Slot| {
                    !matches!(slot, Slot::Plain(_))
                        && *test == crate::search::AttributeTest::Text(TextTest::Any)
                };
                let meets = |value: &Value| value_matches(test, value);
                let has = |attributes: &Attributes| attributes.get(key).is_some_and(meets);
                body.attributes.iter().any(|(name, slot)| {
                    name == key
                        && match slot {
                            Slot::Plain(value) => meets(value),
                            slot => is_message(slot),
                        }
                }) || resource.as_ref().is_some_and(|of| has(&of.attributes))
                    || body.events.iter().any(|event| has(&event.attributes))
            }
            _ => false,
        });
        if search.needles.is_empty() {
            return Ok(bits & !found);
        }
        bits |= search.needles.bits_in(name) | search.needles.bits_in(&body.status_message);
        for event in &body.events {
            bits |= search.needles.bits_in(&event.name) | self.texts_of(event.attributes.iter());
        }
        let plain = body.attributes.iter().filter_map(|(key, slot)| match slot {
            Slot::Plain(value) => Some((key.as_str(), value)),
            _ => None,
        });
        bits |= self.texts_of(plain);
        if let Some(bytes) = row.get_ref(2)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
            bits |= self.messages_of(&body.attributes, &read_varints(bytes))?;
        }
        Ok(bits & !found)
    }

    fn texts_of<'v>(&self, attributes: impl Iterator<Item = (&'v str, &'v Value)>) -> u64 {
        attributes.filter(|(key, _)| MESSAGE_KEYS.contains(key) || TEXT_KEYS.contains(key)).fold(
            0,
            |bits, (key, value)| {
                bits | self.search.needles.bits_in_value(value, Written::under(key))
            },
        )
    }

    /// What the messages show that the slots refer to by these numbers, in order.
    fn messages_of(&mut self, slots: &[(String, Slot)], numbers: &[i64]) -> Result<u64, RowError> {
        let mut numbers = numbers.iter();
        let mut bits = 0;
        for (key, slot) in slots {
            let written = Written::under(key);
            let (count, is_json) = match slot {
                Slot::Plain(_) => continue,
                Slot::Text { count, .. } => (*count, true),
                Slot::List { count } => (*count, false),
            };
            for number in numbers.by_ref().take(count as usize) {
                bits |= self.message(*number, is_json, written)?;
            }
        }
        Ok(bits)
    }

    fn message(&mut self, number: i64, is_json: bool, written: Written) -> Result<u64, RowError> {
        if let Some(bits) = self.messages.get(&number) {
            return Ok(*bits);
        }
        let stored: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT body FROM messages WHERE message = ?1")?
            .query_row([number], |row| row.get(0))
            .optional()?;
        let stored = stored.ok_or(BodyError::Messages)?;
        let message = dictionary::unpack(self.connection, &stored)?;
        self.room.bytes = self.room.bytes.saturating_sub(message.len());
        let needles = &self.search.needles;
        let bits = if is_json {
            let text = std::str::from_utf8(&message).map_err(|_| BodyError::Messages)?;
            needles.bits_in_json(text, written)
        } else {
            needles.bits_in_value(&body::decode::<Value>(&message)?, written)
        };
        self.messages.insert(number, bits);
        Ok(bits)
    }
}
