//! Spans that the writer hands over, so that they need not be read back.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use throughline_trace::TraceId;

use super::error::IndexError;
use super::gather::{Gathered, Message};
use super::shelf::Shelf;
use crate::messages::Taken;
use crate::prepare::Prepared;
use crate::search::content::{self, Written};
use crate::trace_rows::SPAN_BITS;

/// Spans after which what was handed over is written.
const MAX_GROWN_SPANS: u64 = 32_768;

/// Bytes that what was handed over takes once it is gathered, after which it is written, 16 MiB.
const MAX_GROWN_BYTES: usize = 16 * 1024 * 1024;

/// A group that is committed.
#[derive(Debug)]
pub(crate) struct Fed {
    /// Its batches; their bodies are not needed.
    pub(crate) batches: Vec<Prepared>,
    /// Where their spans are.
    pub(crate) placed: Vec<Placed>,
    /// Rows of traces that it changed and that earlier segments know too.
    pub(crate) carried: Vec<i64>,
    /// Bytes that the inbox counted.
    pub(crate) bytes: usize,
}

/// Where a span of a group is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    /// Which batch of the group.
    pub(crate) batch: u32,
    /// Which span of the batch.
    pub(crate) span: u32,
    /// The key of its row.
    pub(crate) key: i64,
    /// The row of its trace.
    pub(crate) trace_no: i64,
    /// The number of its resource.
    pub(crate) resource: i64,
}

/// What groups that were handed over add to an index, until it is written.
#[derive(Debug)]
pub(super) struct Grown {
    pub(super) gathered: Gathered,
    /// The last group.
    pub(super) batch_no: u64,
    /// When the first was told.
    pub(super) since: Instant,
    /// The key behind the last of each row of `traces`.
    pub(super) marks: BTreeMap<i64, i64>,
    pub(super) carried: BTreeSet<i64>,
    /// The trace of the first span, by its row and id.
    pub(super) first: Option<(i64, TraceId)>,
}

impl Grown {
    /// Nothing, up to a group.
    pub(super) fn new(batch_no: u64, since: Instant) -> Self {
        let (gathered, marks, carried, first) = Default::default();
        Self { gathered, batch_no, since, marks, carried, first }
    }

    /// Whether it is as much as one transaction is to write.
    pub(super) fn is_large(&self) -> bool {
        self.gathered.spans >= MAX_GROWN_SPANS || self.gathered.weight() >= MAX_GROWN_BYTES
    }

    /// Takes a group.
    pub(super) fn add(
        &mut self,
        shelf: &mut Shelf<'_>,
        batch_no: u64,
        fed: &Fed,
    ) -> Result<(), IndexError> {
        self.batch_no = batch_no;
        self.carried.extend(&fed.carried);
        for placed in &fed.placed {
            let batch = fed.batches.get(placed.batch as usize);
            // A place is of a span of its batch: the writer numbered both.
            let Some(batch) = batch else { continue };
            self.span(shelf, batch, placed)?;
        }
        Ok(())
    }

    fn span(
        &mut self,
        shelf: &mut Shelf<'_>,
        batch: &Prepared,
        placed: &Placed,
    ) -> Result<(), IndexError> {
        let at = placed.span as usize;
        let (Some(span), Some(row)) = (batch.batch.spans.get(at), batch.spans.get(at)) else {
            return Ok(());
        };
        let Placed { key, trace_no, resource, .. } = *placed;
        self.first.get_or_insert((trace_no, span.trace_id));
        self.marks.insert(key >> SPAN_BITS, key + 1);
        let gathered = &mut self.gathered;
        gathered.begin_span(0, (resource, trace_no));
        if gathered.wants_resource(resource) {
            gathered.resource(resource, &span.resource.attributes);
        }
        gathered.name(shelf, &span.name, trace_no);
        let is_taken = |at: usize| row.taken.iter().any(|taken| taken.attribute == at);
        for (at, attribute) in span.attributes.iter().enumerate() {
            if !is_taken(at) {
                gathered.value(shelf, attribute, trace_no);
            }
        }
        for attribute in span.events.iter().flat_map(|event| event.attributes.iter()) {
            gathered.value(shelf, attribute, trace_no);
        }
        for said in content::said_beside(span, &row.taken) {
            gathered.said(shelf, said, trace_no)?;
        }
        let mut messages = row.messages.iter();
        for Taken { attribute, count, is_json } in row.taken.iter().copied() {
            let key = span.attributes.0.get(attribute).map_or("", |(key, _)| key);
            let written = Written::under(key);
            for message in messages.by_ref().take(count as usize) {
                let told = Message { address: message.address, is_json, written };
                let bytes = || Ok(Cow::Borrowed(message.bytes(&span.attributes)));
                gathered.message(shelf, told, trace_no, bytes)?;
            }
        }
        Ok(())
    }
}
