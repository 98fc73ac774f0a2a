//! What a search asks the index: which traces of a segment may fit.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use throughline_trace::TraceId;

use super::block::Key;
use super::file::{self, Standing};
use super::gather::{
    GRAM_CHARS, LONG_TEXTS, MAX_POSTED_BYTES, SPAN_NAME, hash_number, hash_text, is_posted,
    without_nul,
};
use super::runs;
use crate::error::QueryError;
use crate::schema::SchemaError;
use crate::search::{self, AttributeTest, Expression, NameField, SearchQuery, Term, TextTest};
use crate::session::{Digest, Lease, Segment, Session};

/// Most traces of one condition that are gathered; what more of a segment's traces have does not
/// narrow a walk down all of them by much. Nor are more written than that.
pub(super) const MAX_LISTED_TRACES: usize = 100_000;

/// Most texts that are gathered for one condition.
const MAX_LISTED_TEXTS: usize = 20_000;

/// Longest that the index of one segment is asked, milliseconds; a page that looks for a second has
/// time left to walk.
const MAX_LOOKUP_MILLIS: u64 = 250;

/// Most groups of three characters that a text is looked up by, evenly taken from it.
const MAX_GRAMS: usize = 24;

/// So few traces are looked at sooner than they are narrowed by texts.
const FEW_TRACES: usize = 16;

/// What a query lets the index be asked for.
#[derive(Debug)]
pub(crate) struct Narrowing(Node);

#[derive(Debug)]
enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    /// One of these values.
    Values(Vec<i64>),
    /// A text with all of these, as FTS5 is asked.
    Text(String),
}

impl Narrowing {
    /// `None` when nothing of the query is looked up.
    pub(crate) fn of(query: &SearchQuery) -> Option<Self> {
        query.expression.as_ref().and_then(compile).map(Self)
    }
}

/// A superset of what fits; `None` for everything.
fn compile(expression: &Expression) -> Option<Node> {
    match expression {
        Expression::And(parts) => {
            let mut nodes: Vec<Node> = parts.iter().filter_map(compile).collect();
            // Values are looked up sooner than texts.
            nodes.sort_by_key(|node| matches!(node, Node::Text(_)));
            match nodes.len() {
                0 | 1 => nodes.pop(),
                _ => Some(Node::And(nodes)),
            }
        }
        Expression::Or(parts) => {
            parts.iter().map(compile).collect::<Option<Vec<Node>>>().map(Node::Or)
        }
        Expression::Not(_) => None,
        Expression::Term(Term::Attribute(key, AttributeTest::Text(TextTest::Is(value)))) => {
            values(key, value)
        }
        Expression::Term(Term::Name(NameField::Span, TextTest::Is(name))) => {
            let is_short = name.len() <= MAX_POSTED_BYTES;
            is_short.then(|| Node::Values(vec![hash_text(SPAN_NAME, name)]))
        }
        Expression::Term(Term::Text(text)) => grams(text).map(Node::Text),
        Expression::Term(_) => None,
    }
}

/// The values that equal a text, as [`crate::search::value_matches`] has it.
fn values(key: &str, value: &str) -> Option<Node> {
    if !is_posted(key) || value.len() > MAX_POSTED_BYTES {
        return None;
    }
    let mut hashes = vec![hash_text(key, value)];
    if let Ok(number) = value.parse::<f64>() {
        // Other numbers have no postings.
        if !number.is_finite() || number.fract() != 0.0 {
            return None;
        }
        hashes.push(hash_number(key, number));
    }
    Some(Node::Values(hashes))
}

/// A text as FTS5 is asked for it: what has all of its groups of characters may have it.
fn grams(text: &str) -> Option<String> {
    let folded: Vec<char> = without_nul(search::folded(text)).chars().collect();
    let count = (folded.len() + 1).checked_sub(GRAM_CHARS).filter(|count| *count > 0)?;
    let taken = count.min(MAX_GRAMS);
    let grams: BTreeSet<String> = (0..taken)
        .map(|at| at * (count - 1) / (taken - 1).max(1))
        .map(|at| folded[at..at + GRAM_CHARS].iter().collect::<String>())
        .collect();
    let quoted = grams.iter().map(|gram| format!("\"{}\"", gram.replace('"', "\"\"")));
    Some(quoted.collect::<Vec<_>>().join(" "))
}

/// What the index says of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Candidates {
    /// Whatever fits is among these, in rising order.
    Rows(Vec<i64>),
    /// Too many may fit for the index to be of help.
    Many,
    /// Nothing is known of so many spans: the segment is walked.
    Unknown { spans: u64 },
}

/// The traces of a segment that may fit. `lease` is the snapshot that will be read, of the segment that
/// is open: what it has is either in the index or among what waits. A closed segment need not be opened.
pub(crate) fn candidates(
    session: &Session,
    segment: &Segment,
    lease: Option<&Lease>,
    narrowing: &Narrowing,
) -> Result<Candidates, QueryError> {
    let pool = session.index();
    let unknown = Candidates::Unknown { spans: segment.digest.spans };
    if segment.is_skeleton {
        // It says nothing that could be looked up, and what it cannot say is told by the walk.
        return Ok(Candidates::Many);
    }
    if pool.is_damaged(segment.id) {
        return Ok(unknown);
    }
    let snapshot = match lease {
        Some(lease) => lease
            .prepare_cached("SELECT batch_no FROM state")
            .and_then(|mut state| state.query_row([], |row| row.get::<_, i64>(0)))
            .map_err(|error| lease.fails(&error))? as u64,
        None => segment.digest.batch_no,
    };
    // Before the index: what leaves it now is in the index's snapshot.
    let waiting = pool.pending().map(|pending| pending.waiting(segment.id));
    let path = session.layout().index(segment.id);
    let (deadline, abandoned) = session.ends();
    let until = deadline.min(Instant::now() + Duration::from_millis(MAX_LOOKUP_MILLIS));
    let look = || -> Result<Option<Candidates>, SchemaError> {
        let Some(index) = pool.lease(segment.id, &path, until, abandoned)? else {
            return Ok(None);
        };
        let standing = Standing::read(&index)?;
        let beyond = match &waiting {
            Some(waiting) => waiting.beyond(standing.batch_no, snapshot),
            None => (snapshot <= standing.batch_no).then(BTreeSet::new),
        };
        let Some(beyond) = beyond.filter(|_| standing.is_whole) else { return Ok(None) };
        let is_of_segment = match lease {
            Some(lease) => file::is_of(&index, lease)?,
            None => is_of_closed(&index, standing, &segment.digest)?,
        };
        if !is_of_segment {
            return Ok(None);
        }
        let Some(mut rows) = find(&index, &narrowing.0)? else {
            return Ok(Some(Candidates::Many));
        };
        rows.extend(column(&index, "SELECT trace_no FROM carried", [], usize::MAX)?);
        rows.extend(beyond);
        rows.sort_unstable();
        rows.dedup();
        Ok(Some(Candidates::Rows(rows)))
    };
    match look() {
        Ok(found) => Ok(found.unwrap_or(unknown)),
        Err(error) => match error.on_query(&path) {
            QueryError::Timeout { .. } => Ok(Candidates::Many),
            // It may have gone with its segment, or is made anew: what it says is in the rows too.
            error => {
                tracing::debug!(segment = segment.id.stem(), %error, "a search index is not used");
                if matches!(error, QueryError::Damaged { .. }) {
                    pool.mark_damaged(segment.id);
                }
                Ok(unknown)
            }
        },
    }
}

/// Whether an index is of a segment that is closed, as far as its digest says: groups have numbers that
/// no other segment of the store has. The follower has looked into the segment itself.
fn is_of_closed(
    index: &Connection,
    standing: Standing,
    digest: &Digest,
) -> Result<bool, rusqlite::Error> {
    let id: Option<Vec<u8>> =
        index.prepare_cached("SELECT trace_id FROM state")?.query_row([], |row| row.get(0))?;
    let id = id.and_then(|id| TraceId::from_slice(&id).ok());
    Ok(standing.batch_no == digest.batch_no
        && standing.spans == digest.spans
        && id.is_none_or(|id| digest.may_know(id)))
}

/// The traces of a node, in any order and some perhaps twice; `None` when there are too many.
fn find(index: &Connection, node: &Node) -> Result<Option<Vec<i64>>, rusqlite::Error> {
    match node {
        Node::Values(hashes) => {
            let mut found = Vec::new();
            for hash in hashes {
                if !of_value(index, *hash, &mut found)? {
                    return Ok(None);
                }
            }
            Ok(Some(found))
        }
        Node::Text(grams) => of_text(index, grams),
        Node::Or(nodes) => {
            let mut all = Vec::new();
            for node in nodes {
                let Some(found) = find(index, node)? else { return Ok(None) };
                all.extend(found);
            }
            Ok(Some(all))
        }
        Node::And(nodes) => {
            let mut common: Option<BTreeSet<i64>> = None;
            for node in nodes {
                if common.as_ref().is_some_and(|common| common.len() <= FEW_TRACES) {
                    break;
                }
                let Some(found) = find(index, node)? else { continue };
                common = Some(match common {
                    None => found.into_iter().collect(),
                    Some(common) => {
                        found.into_iter().filter(|trace| common.contains(trace)).collect()
                    }
                });
            }
            Ok(common.map(|common| common.into_iter().collect()))
        }
    }
}

/// Adds the traces of which a span, an event or a resource has a value; `false` when there are too
/// many.
fn of_value(index: &Connection, hash: i64, found: &mut Vec<i64>) -> Result<bool, rusqlite::Error> {
    let resources = "SELECT resource FROM resource_postings WHERE hash = ?1 LIMIT ?2";
    let mut keys: Vec<Key> = column(index, resources, [hash], MAX_LISTED_TRACES)?
        .into_iter()
        .map(Key::resource)
        .collect();
    keys.push(Key::value(hash));
    traces(index, keys, found)
}

/// Adds the traces of keys; `false` when there are too many.
fn traces(
    index: &Connection,
    mut keys: Vec<Key>,
    found: &mut Vec<i64>,
) -> Result<bool, rusqlite::Error> {
    keys.sort_unstable();
    runs::look_up(index, &keys, MAX_LISTED_TRACES, found)?;
    Ok(found.len() < MAX_LISTED_TRACES)
}

/// The traces that say a text, or one that is too long to be looked up.
fn of_text(index: &Connection, grams: &str) -> Result<Option<Vec<i64>>, rusqlite::Error> {
    let mut find =
        index.prepare_cached("SELECT rowid FROM fulltext WHERE fulltext MATCH ?1 LIMIT ?2")?;
    let texts: Vec<i64> = find
        .query_map((grams, MAX_LISTED_TEXTS as i64), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if texts.len() >= MAX_LISTED_TEXTS {
        return Ok(None);
    }
    let mut found = Vec::new();
    let keys = texts.into_iter().chain([LONG_TEXTS]).map(Key::text).collect();
    Ok(traces(index, keys, &mut found)?.then_some(found))
}

/// The numbers that a statement gives, whose last parameter is how many it may give at most.
fn column<const N: usize>(
    index: &Connection,
    sql: &str,
    parameters: [i64; N],
    most: usize,
) -> Result<Vec<i64>, rusqlite::Error> {
    let mut statement = index.prepare_cached(sql)?;
    for (at, value) in parameters.iter().enumerate() {
        statement.raw_bind_parameter(at + 1, value)?;
    }
    if statement.parameter_count() > N {
        statement.raw_bind_parameter(N + 1, i64::try_from(most).unwrap_or(i64::MAX))?;
    }
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(row.get(0)?);
    }
    Ok(found)
}
