//! What the spans of one trace show of a query.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _};
use throughline_trace::keys::MESSAGE_KEYS;
use throughline_trace::{Attributes, Resource, Span, TraceSummary, Value};

use crate::body::{self, BodyError, SpanBody};
use crate::dictionary;
use crate::error::QueryError;
use crate::insert::read_varints;
use crate::messages::Slot;
use crate::read_spans::RowReader;
use crate::sampled;
use crate::search::content::{self, Referred};
use crate::search::{
    AttributeTest, Evidence, NameField, NeedleSet, SearchQuery, SpanTerms, Term, TextTest,
    value_matches,
};
use crate::session::{Held, Segment, Session};
use crate::trace_rows::{self, RowError};

/// Most spans of a trace that a search looks at.
const MAX_SEARCHED_SPANS: u64 = 50_000;

/// Most bytes of bodies and messages of a trace that a search reads.
const MAX_SEARCHED_BYTES: usize = 64 * 1024 * 1024;

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
        let mut evidence = self.named(summary);
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

    /// Whether a trace fits by its summary alone; `None` when that depends on its spans.
    pub(crate) fn judge_by_summary(&self, summary: &TraceSummary) -> Option<bool> {
        self.query.judge(summary, self.named(summary))
    }

    /// Whether a trace fits with these of its spans, which may be all; `None` when what is seen
    /// does not tell.
    pub(crate) fn judge_by_spans(
        &self,
        summary: &TraceSummary,
        spans: &[Span],
        is_whole: bool,
    ) -> Option<bool> {
        let mut evidence = Evidence { is_whole, ..self.named(summary) };
        evidence.found |= spans.iter().fold(0, |bits, span| bits | self.shown_by(span));
        self.query.judge(summary, evidence)
    }

    /// What the name of a trace shows.
    fn named(&self, summary: &TraceSummary) -> Evidence {
        let named = self.terms.bits(|term| self.is_named(term, summary));
        let found = named | self.needles.bits_in(summary.name());
        Evidence { found, has_name: true, is_whole: false }
    }

    /// The terms that a span shows which has its messages in its attributes.
    fn shown_by(&self, span: &Span) -> u64 {
        let is_message = |key: &str, value: &Value| match value {
            Value::String(text) => MESSAGE_KEYS.contains(&key) && content::may_be_json(text),
            Value::Array(_) => MESSAGE_KEYS.contains(&key),
            _ => false,
        };
        let has = |term: &Term| match term {
            Term::Attribute(key, test) => {
                let meets = |value: &Value| value_matches(test, value);
                let has = |of: &Attributes| of.get(key).is_some_and(meets);
                // As of stored messages: that there are some is all that is told of them.
                let is_any = *test == AttributeTest::Text(TextTest::Any);
                span.attributes.iter().any(|(name, value)| {
                    name == key && if is_message(name, value) { is_any } else { meets(value) }
                }) || has(&span.resource.attributes)
                    || span.events.iter().any(|event| has(&event.attributes))
            }
            term => is_called(term, &span.name),
        };
        let bits = self.terms.bits(has);
        let said = content::said_by_span(span);
        said.fold(bits, |bits, said| bits | self.needles.bits_in_said(said))
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
    messages: HashMap<Referred, u64>,
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
        let mut bits = search.terms.bits(|term| is_called(term, name));
        if !search.has_attributes && search.needles.is_empty() {
            // Its name was all that is asked for.
            return Ok(bits & !found);
        }
        let stored = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
        let raw = dictionary::unpack(self.connection, stored)?;
        self.room.bytes = self.room.bytes.saturating_sub(raw.len());
        let body: SpanBody = body::decode(&raw)?;
        if search.has_attributes {
            let resource = self.reader.resource(row.get(1)?)?;
            bits |= search.terms.bits(|term| match term {
                Term::Attribute(key, test) => has_attribute(key, test, &body, &resource),
                _ => false,
            });
        }
        if search.needles.is_empty() {
            return Ok(bits & !found);
        }
        for said in content::said_by(name, &body) {
            bits |= search.needles.bits_in_said(said);
        }
        if let Some(bytes) = row.get_ref(2)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
            for referred in content::messages_of(&body.attributes, read_varints(bytes)) {
                bits |= self.message(referred)?;
            }
        }
        Ok(bits & !found)
    }

    /// What a message shows.
    fn message(&mut self, referred: Referred) -> Result<u64, RowError> {
        if let Some(bits) = self.messages.get(&referred) {
            return Ok(*bits);
        }
        let stored: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT body FROM messages WHERE message = ?1")?
            .query_row([referred.message], |row| row.get(0))
            .optional()?;
        let stored = stored.ok_or(BodyError::Messages)?;
        let message = dictionary::unpack(self.connection, &stored)?;
        self.room.bytes = self.room.bytes.saturating_sub(message.len());
        let needles = &self.search.needles;
        let bits = if referred.is_json {
            let text = std::str::from_utf8(&message).map_err(|_| BodyError::Messages)?;
            needles.bits_in_json(text, referred.written)
        } else {
            needles.bits_in_value(&body::decode::<Value>(&message)?, referred.written)
        };
        self.messages.insert(referred, bits);
        Ok(bits)
    }
}

/// Whether a span, one of its events or its resource has an attribute of which this holds.
fn has_attribute(key: &str, test: &AttributeTest, body: &SpanBody, resource: &Resource) -> bool {
    let meets = |value: &Value| value_matches(test, value);
    let has = |attributes: &Attributes| attributes.get(key).is_some_and(meets);
    // Messages lie elsewhere: that there are some is all that is told of them.
    let is_any = *test == AttributeTest::Text(TextTest::Any);
    body.attributes.iter().any(|(name, slot)| {
        name == key
            && match slot {
                Slot::Plain(value) => meets(value),
                Slot::Text { .. } | Slot::List { .. } => is_any,
            }
    }) || has(&resource.attributes)
        || body.events.iter().any(|event| has(&event.attributes))
}
