//! Rows of the running group: spans, logs, points and what they share.

use rusqlite::{Connection, OptionalExtension as _, params};
use throughline_trace::{Accepted, Attributes, Decision, Sighting, TraceId};

use crate::body;
use crate::decision_rows;
use crate::flush;
use crate::hot::{HotTrace, Novelty};
use crate::index::Placed;
use crate::messages::Message;
use crate::prepare::{Addressed, Prepared};
use crate::recent::Recent;
use crate::rollups::Horizon;
use crate::schema::from_nanos;
use crate::segment::{Changes, Memory};
use crate::trace_rows::{self, RowError};

const INSERT_SPAN: &str = "INSERT INTO spans(key, span_id, parent, kind, status, role, start,
    duration, resource, scope, checksum, name, messages, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

const INSERT_LOG: &str = "INSERT INTO logs(log, time, trace_no, span_id, trace_id, severity,
    event_name, resource, scope, messages, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

/// The connections of the writer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connections<'a> {
    pub(crate) segment: &'a Connection,
    pub(crate) control: &'a Connection,
}

impl Memory {
    /// Writes one batch into the running group, its decisions excepted.
    pub(crate) fn insert(
        &mut self,
        connections: Connections<'_>,
        prepared: &Prepared,
        spans_per_trace_no: u32,
    ) -> Result<Accepted, RowError> {
        let mut accepted = Accepted::default();
        let segment = connections.segment;
        let resources = self.resource_numbers(segment, &prepared.resources)?;
        let scopes = self.scope_numbers(segment, &prepared.scopes)?;
        self.insert_spans(
            connections,
            prepared,
            (&resources, &scopes),
            spans_per_trace_no,
            &mut accepted,
        )?;
        self.insert_logs(connections, prepared, (&resources, &scopes))?;
        self.insert_points(segment, prepared, (&resources, &scopes))?;
        self.changes.batches += 1;
        accepted.logs = prepared.logs.len() as u64;
        accepted.metrics = prepared.points.len() as u64;
        Ok(accepted)
    }

    fn insert_spans(
        &mut self,
        connections: Connections<'_>,
        prepared: &Prepared,
        (resources, scopes): (&[i64], &[i64]),
        spans_per_trace_no: u32,
        accepted: &mut Accepted,
    ) -> Result<(), RowError> {
        let mut insert = connections.segment.prepare_cached(INSERT_SPAN)?;
        let received = prepared.batch.received_unix_nano;
        let horizon = self.changes.see(received);
        self.changes.sightings.reserve(prepared.spans.len());
        let watching =
            (self.watching.generation != prepared.observed_by).then(|| self.watching.clone());
        let mut observed = Vec::new();
        let batch = self.changes.batches;
        self.changes.placed.reserve(prepared.spans.len());
        for (at, (span, row)) in prepared.batch.spans.iter().zip(&prepared.spans).enumerate() {
            let (hot, changes) = self.hot(connections, span.trace_id)?;
            match hot.see(span.span_id, row.checksum) {
                Novelty::New => {}
                Novelty::Conflict => accepted.conflicting_spans += 1,
                Novelty::Duplicate => {
                    accepted.duplicate_spans += 1;
                    continue;
                }
            }
            // Who counts was changed while the batch was on its way.
            let anew = watching.as_ref().map(|watching| {
                watching.observe(span, &mut observed);
                row.facts.clone().observed(&observed)
            });
            let facts = anew.as_ref().unwrap_or(&row.facts);
            let filed = horizon.filed(facts);
            let facts = filed.as_ref().unwrap_or(facts);
            let weight = hot.take_span(span, facts, received, &mut changes.deltas);
            changes.sightings.push(Sighting {
                received_unix_nano: received,
                is_parent_known: span.parent_span_id.is_some_and(|id| hot.knows(id)),
                has_root: hot.summary.root.as_ref().is_some_and(|root| root.is_root),
                ..row.sighting.clone()
            });
            changes.mark(hot);
            let trace_no = hot.trace_no;
            let key = if hot.next < spans_per_trace_no {
                hot.take_key()
            } else {
                self.widen(connections, span.trace_id)?;
                self.hot(connections, span.trace_id)?.0.take_key()
            };
            self.hot.add_weight(weight);
            let (span_no, resource) = (at as u32, resources[row.resource]);
            self.changes.placed.push(Placed { batch, span: span_no, key, trace_no, resource });
            let messages = self.references(connections.segment, &row.messages, &span.attributes)?;
            insert.execute(params![
                key,
                span.span_id.as_u64() as i64,
                span.parent_span_id.map(|id| id.as_u64() as i64),
                span.kind as i64,
                span.status.code as i64,
                row.role as i64,
                from_nanos(span.start_unix_nano),
                span.end_unix_nano.wrapping_sub(span.start_unix_nano) as i64,
                resources[row.resource],
                scopes[row.scope],
                row.checksum as i64,
                span.name,
                messages,
                &prepared.bodies[row.body.clone()],
            ])?;
            accepted.spans += 1;
            self.numbers.spans += 1;
        }
        Ok(())
    }

    fn insert_logs(
        &mut self,
        connections: Connections<'_>,
        prepared: &Prepared,
        (resources, scopes): (&[i64], &[i64]),
    ) -> Result<(), RowError> {
        if prepared.logs.is_empty() {
            return Ok(());
        }
        let mut insert = connections.segment.prepare_cached(INSERT_LOG)?;
        let received = prepared.batch.received_unix_nano;
        for (log, row) in prepared.batch.logs.iter().zip(&prepared.logs) {
            let mut trace_no = None;
            if let Some(id) = log.trace_id {
                let (hot, changes) = self.hot(connections, id)?;
                hot.summary.log_count += 1;
                hot.summary.received_unix_nano = hot.summary.received_unix_nano.max(received);
                trace_no = Some(hot.trace_no);
                changes.mark(hot);
            }
            let messages = self.references(connections.segment, &row.messages, &log.attributes)?;
            self.numbers.log += 1;
            insert.execute(params![
                self.numbers.log,
                from_nanos(log.time_unix_nano),
                trace_no,
                log.span_id.map(|id| id.as_u64() as i64),
                log.trace_id.as_ref().map(|id| id.as_bytes().as_slice()),
                log.severity.0,
                log.event_name,
                resources[row.resource],
                scopes[row.scope],
                messages,
                &prepared.bodies[row.body.clone()],
            ])?;
            self.numbers.logs += 1;
        }
        Ok(())
    }

    fn insert_points(
        &mut self,
        segment: &Connection,
        prepared: &Prepared,
        (resources, scopes): (&[i64], &[i64]),
    ) -> Result<(), RowError> {
        if prepared.points.is_empty() {
            return Ok(());
        }
        let mut insert = segment.prepare_cached(
            "INSERT INTO points(series, time, point, value) VALUES (?1, ?2, ?3, ?4)",
        )?;
        for (point, row) in prepared.batch.metrics.iter().zip(&prepared.points) {
            let series = match self.series.get_mut(&row.series) {
                Some(series) => *series,
                None => {
                    let body = body::encode(&(point.kind, &point.attributes))?;
                    let series = find_or_insert(segment, "series", "series", row.series, || {
                        segment
                            .prepare_cached(
                                "INSERT INTO series VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                            )?
                            .execute(params![
                                row.series,
                                point.name,
                                point.unit,
                                point.description,
                                resources[row.resource],
                                scopes[row.scope],
                                body,
                            ])
                    })?;
                    self.series.insert(row.series, series);
                    self.changes.series.push(row.series);
                    series
                }
            };
            self.numbers.points += 1;
            let value = &prepared.bodies[row.value.clone()];
            insert.execute(params![
                series,
                from_nanos(point.time_unix_nano),
                self.numbers.points,
                value
            ])?;
        }
        Ok(())
    }

    /// Writes one decision's names into its trace; the decision itself is in the control
    /// database. `is_new` when it was inserted there in this group.
    pub(crate) fn note_decision(
        &mut self,
        connections: Connections<'_>,
        decision: &Decision,
        is_new: bool,
    ) -> Result<(), RowError> {
        let Some(id) = decision.trace_id else { return Ok(()) };
        let (hot, changes) = self.hot(connections, id)?;
        hot.take_names(decision);
        hot.decision_count += u64::from(is_new);
        changes.mark(hot);
        Ok(())
    }

    /// The trace, read from the segments or made if it is not at hand; and where a change of it is
    /// noted.
    pub(crate) fn hot(
        &mut self,
        connections: Connections<'_>,
        id: TraceId,
    ) -> Result<(&mut HotTrace, &mut Changes), RowError> {
        let Self { hot, numbers, earlier, changes, day, watching, known, .. } = self;
        let trace = hot.get_or_try_insert(id, || {
            let stored = match known.may_have(id) {
                true => trace_rows::find(connections.segment, id)?,
                false => None,
            };
            let mut trace = HotTrace::new(id, numbers.trace_no + 1);
            if stored.as_ref().is_none_or(|stored| stored.is_carried) {
                let known = earlier.find(id, watching, |span| trace.remember(span));
                trace.is_carried = known.is_some() || stored.is_some();
                // Its first row here has all of it, so that lists find it in one place.
                trace.summary = known.unwrap_or(trace.summary);
            }
            match stored {
                Some(stored) => {
                    trace.trace_no = stored.trace_no;
                    trace.space_no = stored.spaces.last().copied().unwrap_or(stored.trace_no);
                    let horizon = Horizon::new(stored.summary.received_unix_nano, *day);
                    trace.next = trace_rows::seen_spans(
                        connections.segment,
                        (id, &stored.spaces),
                        &horizon,
                        watching,
                        |span| trace.remember(span),
                    )?;
                    trace.posted = flush::posted_of(connections.segment, &stored.summary)?;
                    trace.summary = stored.summary;
                    trace.is_stored = true;
                }
                None => {
                    numbers.trace_no += 1;
                    changes.numbered.push(id);
                    known.insert(id);
                }
            }
            trace.decision_count = decision_rows::count_of_trace(connections.control, id)?;
            Ok::<_, RowError>(Box::new(trace))
        })?;
        Ok((trace, changes))
    }

    /// Gives a trace whose key space is full a further row.
    fn widen(&mut self, connections: Connections<'_>, id: TraceId) -> Result<(), RowError> {
        self.numbers.trace_no += 1;
        let space_no = self.numbers.trace_no;
        let (hot, _) = self.hot(connections, id)?;
        connections.segment.execute(
            "INSERT INTO traces(trace_no, trace_id, continues, carried, start, duration, errors,
                fallback, name, summary) VALUES (?1, ?2, ?3, 0, 0, 0, 0, 0, '', x'')",
            params![space_no, id.as_bytes().as_slice(), hot.trace_no],
        )?;
        hot.space_no = space_no;
        hot.next = 0;
        Ok(())
    }

    /// The numbers of messages, as a span refers to them; messages that are new are written.
    fn references(
        &mut self,
        segment: &Connection,
        messages: &[Message],
        attributes: &Attributes,
    ) -> Result<Option<Vec<u8>>, RowError> {
        if messages.is_empty() {
            return Ok(None);
        }
        let mut references = Vec::with_capacity(messages.len() * 3);
        for message in messages {
            let number = match self.messages.get_mut(&message.address) {
                Some(number) => *number,
                None => {
                    let mut stored = Vec::new();
                    body::pack_into(message.bytes(attributes), &mut stored)?;
                    let number = self.numbers.message + 1;
                    segment
                        .prepare_cached("INSERT INTO messages VALUES (?1, ?2, ?3)")?
                        .execute(params![number, message.address, stored])?;
                    self.numbers.message = number;
                    self.messages.insert(message.address, number);
                    self.changes.messages.push(message.address);
                    number
                }
            };
            push_varint(&mut references, number as u64);
        }
        Ok(Some(references))
    }

    fn resource_numbers(
        &mut self,
        segment: &Connection,
        list: &[Addressed],
    ) -> Result<Vec<i64>, RowError> {
        let Self { resources, changes, .. } = self;
        numbers_of(resources, &mut changes.resources, list, |one| {
            find_or_insert(segment, "resources", "resource", one.address, || {
                segment
                    .prepare_cached("INSERT INTO resources VALUES (NULL, ?1, ?2, ?3)")?
                    .execute(params![one.address, one.service, one.bytes])
            })
        })
    }

    fn scope_numbers(
        &mut self,
        segment: &Connection,
        list: &[Addressed],
    ) -> Result<Vec<i64>, RowError> {
        let Self { scopes, changes, .. } = self;
        numbers_of(scopes, &mut changes.scopes, list, |one| {
            find_or_insert(segment, "scopes", "scope", one.address, || {
                segment
                    .prepare_cached("INSERT INTO scopes VALUES (NULL, ?1, ?2)")?
                    .execute(params![one.address, one.bytes])
            })
        })
    }
}

fn numbers_of(
    known: &mut Recent<[u8; 16], i64>,
    new: &mut Vec<[u8; 16]>,
    list: &[Addressed],
    find: impl Fn(&Addressed) -> Result<i64, rusqlite::Error>,
) -> Result<Vec<i64>, RowError> {
    let mut numbers = Vec::with_capacity(list.len());
    for one in list {
        let number = known.get_or_try_insert(one.address, || {
            new.push(one.address);
            find(one)
        })?;
        numbers.push(*number);
    }
    Ok(numbers)
}

/// The number of the row with this address; `insert` makes one.
fn find_or_insert(
    connection: &Connection,
    table: &str,
    column: &str,
    address: [u8; 16],
    insert: impl FnOnce() -> Result<usize, rusqlite::Error>,
) -> Result<i64, rusqlite::Error> {
    let found = connection
        .prepare_cached(&format!("SELECT {column} FROM {table} WHERE address = ?1"))?
        .query_row([address.as_slice()], |row| row.get(0))
        .optional()?;
    match found {
        Some(number) => Ok(number),
        None => {
            insert()?;
            Ok(connection.last_insert_rowid())
        }
    }
}

/// Appends a number in LEB128.
pub(crate) fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number that [`push_varint`] wrote off; `None` where there is none, or not all of one.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The numbers that [`push_varint`] wrote.
pub(crate) fn read_varints(mut bytes: &[u8]) -> Vec<i64> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        let mut number = 0_u64;
        let mut shift = 0;
        while let Some((byte, rest)) = bytes.split_first() {
            bytes = rest;
            number |= u64::from(byte & 0x7f).wrapping_shl(shift);
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        numbers.push(number as i64);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_back() {
        let numbers = [0, 1, 127, 128, 16_384, i64::MAX];
        let mut bytes = Vec::new();
        numbers.iter().for_each(|number| push_varint(&mut bytes, *number as u64));
        assert_eq!(read_varints(&bytes), numbers);
    }
}
