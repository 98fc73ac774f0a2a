//! The way of every request, whatever it came by: body, decompression, decoding, durability.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, request};
use throughline_redact::{Redacted, Redactor};
use throughline_trace::access::{KEY_PREFIX, Keyring, Scope};
use throughline_trace::{Accepted, Refusal};

use crate::allowance::{Allowance, MemoryGate, Reservation};
use crate::body::{self, Bounds, Compression};
use crate::counters::Counters;
use crate::decode::{self, DecodeError, Decoded, Encoding, Signal};
use crate::failure::Failure;
use crate::grpc;
use crate::hosts;
use crate::options::IngestOptions;
use crate::report::Report;

/// Hands a batch, redacted, to whoever makes it durable; returns when it is, and only then is success
/// answered.
pub type Submit =
    Arc<dyn Fn(Redacted) -> BoxFuture<'static, Result<Accepted, Refusal>> + Send + Sync>;

/// Bodies up to this size, bytes, unfolded if they are compressed, are decoded where they were read;
/// larger ones on a thread of their own, so that they hold up nobody else.
const DECODE_INLINE_BYTES: usize = 256 * 1024;

/// Compressed bodies beyond this size, bytes, are not even tried: most of them unfold to more.
const UNFOLD_INLINE_BYTES: usize = 32 * 1024;

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Grpc,
    Http,
}

impl Transport {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// What kind of request it is; the labels of its counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) transport: Transport,
    pub(crate) signal: Signal,
    /// `None` when the request does not say, or says something else.
    pub(crate) encoding: Option<Encoding>,
}

impl Call {
    /// Value of the label `item` for what this request mainly carries.
    pub(crate) fn item(self) -> &'static str {
        match self.signal {
            Signal::Traces => "span",
            Signal::Logs => "log",
            Signal::Metrics => "metric_point",
        }
    }
}

/// A request that may be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming {
    pub(crate) call: Call,
    pub(crate) encoding: Encoding,
    pub(crate) compression: Compression,
}

/// The good answer; with a text or a count it is a partial success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) rejected: u64,
    pub(crate) message: String,
}

impl Answer {
    pub(crate) fn is_plain(&self) -> bool {
        self.rejected == 0 && self.message.is_empty()
    }
}

/// What all requests share.
pub(crate) struct Receiver {
    pub(crate) options: IngestOptions,
    redactor: Arc<Redactor>,
    submit: Submit,
    keyring: Arc<Keyring>,
    pub(crate) counters: Counters,
    gate: Arc<MemoryGate>,
}

impl Receiver {
    pub(crate) fn new(
        options: IngestOptions,
        redactor: Arc<Redactor>,
        submit: Submit,
        keyring: Arc<Keyring>,
        counters: Counters,
    ) -> Self {
        let gate = MemoryGate::new(options.in_flight_bytes(), counters.in_flight.clone());
        Self { options, redactor, submit, keyring, counters, gate: Arc::new(gate) }
    }

    /// Whether the request may be read at all: its key, and where a browser page sent it.
    pub(crate) fn admit(&self, head: &request::Parts) -> Result<(), Failure> {
        hosts::check(self.options.allowed_hosts.as_deref(), head)?;
        self.authorize(&head.headers)
    }

    /// Asks for a key that may send telemetry.
    fn authorize(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let header = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        // A key alone, without `Bearer`, is what a setting in a hurry looks like.
        let bare = header.map(str::trim).filter(|text| text.starts_with(KEY_PREFIX));
        let key = header.and_then(Keyring::key_of_header).or_else(|| bare.map(str::to_owned));
        self.keyring.check(key.as_deref(), Scope::Ingest)?;
        Ok(())
    }

    /// Counts a request that was answered before its body was looked at.
    pub(crate) fn turned_away(&self, call: Call, failure: &Failure) {
        self.counters.request(call, failure.label());
        self.counters.failure(failure);
    }

    /// Counts a request to a path that is not served here; `label` is its result.
    pub(crate) fn misplaced(
        &self,
        transport: Transport,
        encoding: Option<Encoding>,
        label: &'static str,
    ) {
        self.counters.misplaced(transport, encoding, label);
    }

    /// Reads, decodes and submits; the answer is good only when all that is accepted is durable.
    pub(crate) async fn receive(
        self: &Arc<Self>,
        incoming: Incoming,
        body: &mut Body,
    ) -> Result<Answer, Failure> {
        let mut tally = Tally { receiver: Arc::clone(self), call: incoming.call, counted: false };
        let mut reservation = self.gate.reserve();
        let frame_bytes = match incoming.call.transport {
            Transport::Grpc => grpc::FRAME_BYTES,
            Transport::Http => 0,
        };
        let wire = match body::read(body, self.bounds(), frame_bytes, &mut reservation).await {
            Ok(wire) => wire,
            Err(failure) => {
                tally.count(Err(&failure));
                return Err(failure);
            }
        };
        // A client that goes away drops this future. The request is whole by now, so it goes on in
        // a task of its own: what is committed is counted, and nothing is committed by halves.
        let receiver = Arc::clone(self);
        let task = tokio::spawn(async move {
            let result = receiver.process(incoming, wire, reservation).await;
            tally.count(result.as_ref());
            result
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "decoding or submitting a request panicked");
            Err(Failure::Internal)
        })
    }

    async fn process(
        self: &Arc<Self>,
        incoming: Incoming,
        wire: Bytes,
        mut reservation: Reservation,
    ) -> Result<Answer, Failure> {
        let wire_bytes = wire.len();
        let (payload, compression) = match incoming.call.transport {
            Transport::Http => (wire, incoming.compression),
            Transport::Grpc => grpc::message(wire, incoming.compression)?,
        };
        let call = incoming.call;
        let (batch, report, reservation) =
            match self.unfold_inline(compression, &payload, &mut reservation) {
                Some(body) => self.decode(incoming, wire_bytes, body, reservation)?,
                None => {
                    let receiver = Arc::clone(self);
                    tokio::task::spawn_blocking(move || {
                        let bounds = receiver.bounds();
                        let body = body::unfold(compression, payload, bounds, &mut reservation)?;
                        receiver.decode(incoming, wire_bytes, body, reservation)
                    })
                    .await
                    .map_err(|error| {
                        tracing::error!(%error, "decoding a request panicked");
                        Failure::Internal
                    })??
                }
            };
        let items = batch.batch().len();
        let accepted = if items == 0 {
            Accepted::default()
        } else {
            (self.submit)(batch).await.map_err(|refusal| {
                if let Refusal::Storage(error) = &refusal {
                    tracing::error!(error, items, "storage refused a batch");
                }
                self.counters.refused(call, items);
                Failure::Refused(refusal)
            })?
        };
        drop(reservation);
        self.counters.outcome(call, &accepted, &report);
        Ok(Answer { rejected: report.rejected, message: report.message() })
    }

    /// The body, if it is small enough to be decoded where it was read. Its size on the wire says little
    /// about one that is compressed, and what its header says may be wrong: it is unfolded as far as
    /// that goes. What does not come out of it whole is for the other thread to tell.
    fn unfold_inline(
        &self,
        compression: Compression,
        payload: &Bytes,
        reservation: &mut Reservation,
    ) -> Option<Bytes> {
        if compression == Compression::Identity {
            return (payload.len() <= DECODE_INLINE_BYTES).then(|| payload.clone());
        }
        if payload.len() > UNFOLD_INLINE_BYTES {
            return None;
        }
        let limit_bytes = self.options.max_request_bytes.min(DECODE_INLINE_BYTES);
        let bounds = Bounds { limit_bytes, ..self.bounds() };
        body::try_unfold(compression, payload, bounds, reservation)
    }

    /// Decodes and redacts: all the work on a body, so that it may be done on a thread of its own.
    fn decode(
        &self,
        incoming: Incoming,
        wire_bytes: usize,
        body: Bytes,
        reservation: Reservation,
    ) -> Result<(Redacted, Report, Option<Reservation>), Failure> {
        self.counters.body(incoming.call, wire_bytes, body.len());
        let held = body.len();
        let allowance = Allowance::new(self.options.limits.max_decoded_bytes, Some(reservation));
        let Decoded { batch, report } = decode::decode_within(
            incoming.call.signal,
            incoming.encoding,
            &body,
            &self.options.limits,
            now_unix_nano(),
            &allowance,
            self.redactor.cut_key(),
        )
        .map_err(|error| match error {
            DecodeError::NoRoom => Failure::Busy(self.options.busy_retry_after),
            error => Failure::Decode(error),
        })?;
        drop(body);
        let mut reservation = allowance.into_reservation();
        if let Some(reservation) = &mut reservation {
            reservation.shrink(held);
        }
        Ok((self.redactor.redact(batch), report, reservation))
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            limit_bytes: self.options.max_request_bytes,
            idle_timeout: self.options.body_idle_timeout,
            timeout: self.options.body_timeout,
            busy_retry_after: self.options.busy_retry_after,
        }
    }
}

/// Sees to it that a request is counted once, however it ends.
struct Tally {
    receiver: Arc<Receiver>,
    call: Call,
    counted: bool,
}

impl Tally {
    fn count(&mut self, result: Result<&Answer, &Failure>) {
        self.counted = true;
        let counters = &self.receiver.counters;
        match result {
            Ok(answer) if answer.is_plain() => counters.request(self.call, "ok"),
            Ok(_) => counters.request(self.call, "partial"),
            Err(failure) => {
                counters.request(self.call, failure.label());
                counters.failure(failure);
            }
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !self.counted {
            let result = if std::thread::panicking() { "failed" } else { "disconnected" };
            self.receiver.counters.request(self.call, result);
        }
    }
}

/// Nanoseconds since the Unix epoch; 0 on a machine whose clock is before it.
fn now_unix_nano() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
