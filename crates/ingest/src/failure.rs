//! Why a request gets an error for an answer, and how HTTP and gRPC spell it.

use std::time::Duration;

use http::StatusCode;
use throughline_trace::Refusal;
use throughline_trace::access::AccessError;
use tonic::Code;

use crate::decode::DecodeError;

/// A request that is answered with an error; its text goes to the client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No key, an unknown one, or one without the scope.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A path that is not served here.
    #[error("{0}")]
    Path(&'static str),
    /// A browser page's request to a name that is not ours.
    #[error(
        "expected a request of a browser page to be addressed to {expected}, got {got:?}; \
             add the name to the allowed hosts, or switch access control on"
    )]
    Host { expected: String, got: String },
    /// Another method than POST.
    #[error("expected POST, got {0}")]
    Method(http::Method),
    /// A body of another type.
    #[error("expected Content-Type {expected}, got {got}")]
    MediaType { expected: &'static str, got: String },
    /// A body compressed in another way.
    #[error("expected a body compressed with gzip, zstd or not at all (identity), got {0:?}")]
    Compression(String),
    /// A body beyond the limit, before or after decompression.
    #[error(
        "expected a body of at most {limit_bytes} bytes, after decompression too, got more; \
         send smaller batches"
    )]
    TooLarge { limit_bytes: usize },
    /// A body that makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// A body that decodes to nothing, or to too much.
    #[error(transparent)]
    Decode(DecodeError),
    /// A body that stopped coming.
    #[error("expected {expected} within {secs} s, got {got}; send it again")]
    Stalled { expected: &'static str, got: &'static str, secs: u64 },
    /// A connection that broke within the body.
    #[error("expected the rest of the body, but the connection failed")]
    Broken,
    /// The batch was not taken.
    #[error("{}", refusal_text(.0))]
    Refused(Refusal),
    /// Other requests take all the memory there is.
    #[error("too many large requests at once; retry in {} ms", .0.as_millis())]
    Busy(Duration),
    /// A bug of ours.
    #[error("the server failed on this request; its log says more")]
    Internal,
}

/// What a client may know: the text of a storage failure names files of the server.
fn refusal_text(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Storage(_) => {
            format!(
                "the server could not store the batch; retry in {} ms",
                refusal.retry_after_ms()
            )
        }
        other => other.to_string(),
    }
}

impl Failure {
    /// HTTP status. Refusals are 503 and never 429: both are retryable by the specification, but
    /// the Python exporter drops a batch on 429 (opentelemetry-python issue 5339).
    pub(crate) fn http_status(&self) -> StatusCode {
        match self {
            Self::Access(AccessError::Scope { .. }) => StatusCode::FORBIDDEN,
            Self::Access(_) => StatusCode::UNAUTHORIZED,
            Self::Path(_) => StatusCode::NOT_FOUND,
            Self::Host { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::MediaType { .. } | Self::Compression(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. }
            | Self::Decode(DecodeError::TooLarge { .. })
            | Self::Refused(Refusal::Unfit(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Malformed(_) | Self::Decode(_) | Self::Broken => StatusCode::BAD_REQUEST,
            // Not 408: OTLP clients retry only 429, 502, 503 and 504.
            Self::Stalled { .. } | Self::Refused(_) | Self::Busy(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// gRPC status code. What is too large is `RESOURCE_EXHAUSTED` without `RetryInfo`, which
    /// clients must not retry; what was refused is `UNAVAILABLE` with it.
    pub(crate) fn grpc_code(&self) -> Code {
        match self {
            Self::Access(AccessError::Scope { .. }) | Self::Host { .. } => Code::PermissionDenied,
            Self::Access(_) => Code::Unauthenticated,
            Self::Path(_) | Self::Method(_) | Self::Compression(_) => Code::Unimplemented,
            Self::TooLarge { .. }
            | Self::Decode(DecodeError::TooLarge { .. })
            | Self::Refused(Refusal::Unfit(_)) => Code::ResourceExhausted,
            Self::MediaType { .. } | Self::Malformed(_) | Self::Decode(_) => Code::InvalidArgument,
            Self::Stalled { .. } => Code::DeadlineExceeded,
            Self::Broken => Code::Cancelled,
            Self::Refused(_) | Self::Busy(_) => Code::Unavailable,
            Self::Internal => Code::Internal,
        }
    }

    /// When the client may try again; `None` when it should not.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(Refusal::Unfit(_)) => None,
            Self::Refused(refusal) => Some(Duration::from_millis(refusal.retry_after_ms())),
            Self::Busy(retry_after) => Some(*retry_after),
            _ => None,
        }
    }

    /// Value of the label `result`.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Access(AccessError::Scope { .. }) | Self::Host { .. } => "forbidden",
            Self::Access(_) => "unauthenticated",
            Self::Path(_) | Self::Method(_) | Self::MediaType { .. } | Self::Compression(_) => {
                "unsupported"
            }
            Self::TooLarge { .. } | Self::Decode(DecodeError::TooLarge { .. }) => "too_large",
            Self::Malformed(_) | Self::Decode(_) => "malformed",
            Self::Stalled { .. } => "stalled",
            Self::Broken => "disconnected",
            Self::Refused(_) | Self::Busy(_) => "refused",
            Self::Internal => "failed",
        }
    }

    /// Value of the label `reason`, for refusals.
    pub(crate) fn refusal_reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::Refused(Refusal::Full { .. }) => "full",
            Self::Refused(Refusal::ShuttingDown { .. }) => "shutting_down",
            Self::Refused(Refusal::DiskFull { .. }) => "disk_full",
            Self::Refused(Refusal::Unfit(_)) => "unfit",
            Self::Refused(Refusal::Storage(_)) => "storage",
            Self::Busy(_) => "memory",
            _ => return None,
        })
    }
}
