//! The bytes of one request to one batch. Pure: no IO, no clock.

use std::fmt;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use throughline_trace::SpanBatch;

use crate::allowance::{Allowance, Exceeded};
use crate::convert::{Converter, NotUtf8};
use crate::options::Limits;
use crate::report::Report;
use crate::{json, protobuf, zipkin};

/// What a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records, decisions among them.
    Logs,
    /// Metric points.
    Metrics,
}

impl Signal {
    /// Lowercase name, as in the path `/v1/{signal}` and in counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }
}

/// How a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/x-protobuf`, and all of gRPC.
    Protobuf,
    /// `application/json`.
    Json,
    /// Zipkin v2, `application/json` on a path of its own; spans only.
    Zipkin,
}

impl Encoding {
    /// Lowercase name, as in counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protobuf => "protobuf",
            Self::Json => "json",
            Self::Zipkin => "zipkin",
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request, decoded.
#[derive(Debug)]
pub struct Decoded {
    /// What is accepted, if it becomes durable.
    pub batch: SpanBatch,
    /// What was rejected or put right.
    pub report: Report,
}

/// Why a request as a whole cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no OTLP request.
    #[error("expected {}, got bytes that do not fit: {reason}", asked(*signal, *encoding))]
    Malformed {
        /// What was expected.
        signal: Signal,
        /// As what it was read.
        encoding: Encoding,
        /// Where and why it does not fit.
        reason: String,
    },
    /// It would take too much memory.
    #[error(
        "expected a request of at most {limit_bytes} bytes once decoded, got more; send smaller batches"
    )]
    TooLarge {
        /// [`Limits::max_decoded_bytes`].
        limit_bytes: usize,
    },
    /// All requests in hand together take too much memory; it may come again.
    #[error("too many large requests at once; retry later")]
    NoRoom,
}

/// Decodes the body of an export request, decompressed. `received_unix_nano` is the server's time,
/// nanoseconds since the Unix epoch.
///
/// # Errors
/// [`DecodeError`] when nothing of the request can be read. Single items that are wrong are no
/// error: the [`Report`] has them.
pub fn decode(
    signal: Signal,
    encoding: Encoding,
    body: &[u8],
    limits: &Limits,
    received_unix_nano: u64,
) -> Result<Decoded, DecodeError> {
    let allowance = Allowance::new(limits.max_decoded_bytes, None);
    decode_within(signal, encoding, body, limits, received_unix_nano, &allowance, None)
}

/// As [`decode`], taking memory from `allowance`, with a key for the hashes of values that are cut.
pub(crate) fn decode_within(
    signal: Signal,
    encoding: Encoding,
    body: &[u8],
    limits: &Limits,
    received_unix_nano: u64,
    allowance: &Allowance,
    cut_key: Option<&[u8; 32]>,
) -> Result<Decoded, DecodeError> {
    let read = Reading { signal, encoding, body, allowance, cut_key };
    let (batch, report) = match signal {
        Signal::Traces => match read.plain_traces(limits, received_unix_nano)? {
            Some(done) => done,
            None => {
                let (request, not_utf8) = read.traces()?;
                let mut converter = read.converter(limits, received_unix_nano, &not_utf8);
                converter.traces(request);
                converter.finish()
            }
        },
        Signal::Logs => {
            let (request, not_utf8) =
                read.message::<ExportLogsServiceRequest>(protobuf::Kind::LogsRequest)?;
            let mut converter = read.converter(limits, received_unix_nano, &not_utf8);
            converter.logs(request);
            converter.finish()
        }
        Signal::Metrics => {
            let (request, not_utf8) =
                read.message::<ExportMetricsServiceRequest>(protobuf::Kind::MetricsRequest)?;
            let mut converter = read.converter(limits, received_unix_nano, &not_utf8);
            converter.metrics(request);
            converter.finish()
        }
    };
    match read.exceeded() {
        Some(error) => Err(error),
        None => Ok(Decoded { batch, report }),
    }
}

struct Reading<'a> {
    signal: Signal,
    encoding: Encoding,
    body: &'a [u8],
    allowance: &'a Allowance,
    cut_key: Option<&'a [u8; 32]>,
}

impl Reading<'_> {
    fn converter<'c>(
        &'c self,
        limits: &'c Limits,
        received_unix_nano: u64,
        not_utf8: &'c NotUtf8,
    ) -> Converter<'c> {
        Converter::new(limits, self.allowance, received_unix_nano, not_utf8)
            .with_cut_key(self.cut_key)
    }

    /// Spans as protobuf that is what encoders write; `None` for everything else, which is to be read
    /// as messages.
    fn plain_traces(
        &self,
        limits: &Limits,
        received_unix_nano: u64,
    ) -> Result<Option<(SpanBatch, Report)>, DecodeError> {
        if self.encoding != Encoding::Protobuf {
            return Ok(None);
        }
        let not_utf8 = NotUtf8::default();
        let mut converter = self.converter(limits, received_unix_nano, &not_utf8);
        let read = protobuf::traces::read(self.body, self.allowance, &mut converter);
        match (read, self.exceeded()) {
            (_, Some(error)) => Err(error),
            (Ok(()), None) => Ok(Some(converter.finish())),
            (Err(_), None) => {
                self.allowance.begin_again();
                Ok(None)
            }
        }
    }

    fn traces(&self) -> Result<(ExportTraceServiceRequest, NotUtf8), DecodeError> {
        match self.encoding {
            Encoding::Zipkin => {
                zipkin::decode(self.body, self.allowance).map_err(|e| self.of_json(&e))
            }
            Encoding::Protobuf | Encoding::Json => self.message(protobuf::Kind::TraceRequest),
        }
    }

    /// The message, and where its text was mended.
    fn message<T>(&self, kind: protobuf::Kind) -> Result<(T, NotUtf8), DecodeError>
    where
        T: prost::Message + json::Message + Default,
    {
        match self.encoding {
            Encoding::Protobuf => self.protobuf(kind),
            Encoding::Json => json::decode(self.body, self.allowance).map_err(|e| self.of_json(&e)),
            Encoding::Zipkin => Err(self.malformed(&"Zipkin has spans only")),
        }
    }

    fn of_json(&self, error: &serde_json::Error) -> DecodeError {
        self.exceeded().unwrap_or_else(|| self.malformed(error))
    }

    fn protobuf<T: prost::Message + Default>(
        &self,
        kind: protobuf::Kind,
    ) -> Result<(T, NotUtf8), DecodeError> {
        if self.allowance.charge(protobuf::measure(kind, self.body)).is_err() {
            return Err(self.exceeded().unwrap_or(DecodeError::NoRoom));
        }
        let error = match T::decode(self.body) {
            Ok(message) => return Ok((message, NotUtf8::default())),
            Err(error) => error,
        };
        let no_room = || self.exceeded().unwrap_or(DecodeError::NoRoom);
        let mended = protobuf::mend_text(kind, self.body, self.allowance);
        if let Some(mended) = mended.map_err(|_| no_room())? {
            if self.allowance.charge(mended.grown_bytes).is_err() {
                return Err(no_room());
            }
            if let Ok(message) = T::decode(mended.body.as_slice()) {
                return Ok((message, mended.not_utf8));
            }
        }
        Err(self.malformed(&error))
    }

    fn exceeded(&self) -> Option<DecodeError> {
        Some(match self.allowance.exceeded()? {
            Exceeded::Request => {
                DecodeError::TooLarge { limit_bytes: self.allowance.limit_bytes() }
            }
            Exceeded::Gate => DecodeError::NoRoom,
        })
    }

    fn malformed(&self, error: &dyn fmt::Display) -> DecodeError {
        DecodeError::Malformed {
            signal: self.signal,
            encoding: self.encoding,
            reason: shorten(&error.to_string()),
        }
    }
}

/// What a request should have been.
fn asked(signal: Signal, encoding: Encoding) -> String {
    match encoding {
        Encoding::Zipkin => "a list of Zipkin v2 spans as JSON".to_owned(),
        _ => format!("an OTLP {} request as {encoding}", signal.as_str()),
    }
}

/// An error that quotes what it found may be as long as that. The start of it names the field, the
/// end the line; what is between is left out.
fn shorten(reason: &str) -> String {
    /// Bytes kept of either end: a gRPC status goes into a header, which must be short.
    const MAX_END_BYTES: usize = 300;
    if reason.len() <= 2 * MAX_END_BYTES {
        return reason.to_owned();
    }
    let start = &reason[..reason.floor_char_boundary(MAX_END_BYTES)];
    let end = &reason[reason.ceil_char_boundary(reason.len() - MAX_END_BYTES)..];
    format!("{start} … {end}")
}

#[cfg(test)]
mod tests;
