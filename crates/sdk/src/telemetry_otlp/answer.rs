//! What a receiver's answer means for records that it did not take. The exporters make text of it, so
//! its status is kept where the answer arrives.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::error::OTelSdkError;
use prost::Message as _;

use super::trouble::Trouble;
use crate::decision::Undelivered;

/// What is heard from the receiver by an exporter that waits for one answer at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    pub(crate) answer: LastAnswer,
    pub(crate) rejections: Rejections,
    /// What keeps the exports from arriving.
    pub(super) trouble: Trouble,
}

impl Heard {
    pub(super) fn with(trouble: Trouble) -> Self {
        Self { trouble, ..Self::default() }
    }

    /// The request and all further attempts at it have failed.
    pub(crate) fn given_up(&self) {
        self.trouble.given_up();
    }

    /// A request leaves: it has no answer yet.
    pub(super) fn forget(&self) {
        *self.answer.last() = None;
        self.rejections.forget();
    }

    pub(super) fn http(&self, status: StatusCode, body: &[u8]) {
        *self.answer.last() = Some(Answer::Http(status));
        if status.is_success() {
            self.rejections.note(body);
        }
    }

    #[cfg(feature = "grpc")]
    pub(super) fn grpc(&self, answered: &Result<bytes::Bytes, tonic::Status>) {
        match answered {
            Ok(body) => self.rejections.note(body),
            Err(status) => *self.answer.last() = Some(Answer::Grpc(status.clone())),
        }
    }
}

/// The status of the last answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastAnswer(Arc<Mutex<Option<Answer>>>);

#[derive(Debug)]
enum Answer {
    Http(StatusCode),
    #[cfg(feature = "grpc")]
    Grpc(tonic::Status),
}

impl LastAnswer {
    fn last(&self) -> MutexGuard<'_, Option<Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the exporter's error means.
    pub(crate) fn explain(&self, error: &OTelSdkError) -> Undelivered {
        match &*self.last() {
            Some(Answer::Http(status)) => of_http(*status),
            #[cfg(feature = "grpc")]
            Some(Answer::Grpc(status)) => of_grpc(status),
            None => Undelivered::Later(error.to_string()),
        }
    }
}

/// How many items of the request under way the receiver did not take although it took the others
/// (OTLP, "partial success").
#[derive(Debug, Clone, Default)]
pub(crate) struct Rejections(Arc<AtomicU64>);

impl Rejections {
    /// Reads the body of a success. The answers of all signals have one form on the wire; one that
    /// cannot be read rejects nothing.
    pub(super) fn note(&self, body: &[u8]) {
        let partial =
            ExportTraceServiceResponse::decode(body).ok().and_then(|it| it.partial_success);
        let rejected = partial.map_or(0, |partial| partial.rejected_spans);
        self.0.store(u64::try_from(rejected).unwrap_or(0), Ordering::Release);
    }

    pub(super) fn forget(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// Those of the last request.
    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Those of the last request, once.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::AcqRel)
    }
}

/// The kinds of HTTP statuses. What OTLP calls not to be retried (all but 429, 502, 503 and 504) is
/// parted by what would help; a 5xx may be mended at the other end, and nothing is given up for it alone.
fn of_http(status: StatusCode) -> Undelivered {
    let problem = format!("the receiver answered {status}");
    match status {
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => Undelivered::Refused(problem),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Undelivered::Later(problem)
        }
        _ if status.is_client_error() || status.is_redirection() => Undelivered::Denied(problem),
        StatusCode::INTERNAL_SERVER_ERROR => Undelivered::Broken(problem),
        _ => Undelivered::Later(problem),
    }
}

/// The kinds of gRPC codes, as those of HTTP statuses. One that never came from the receiver, as that
/// of a broken connection, is `Unavailable` or `Unknown` with a cause.
#[cfg(feature = "grpc")]
fn of_grpc(status: &tonic::Status) -> Undelivered {
    use tonic::Code;
    let problem = match status.message() {
        "" => format!("the receiver answered {:?}", status.code()),
        message => format!("the receiver answered {:?}: {message}", status.code()),
    };
    if std::error::Error::source(status).is_some() {
        return Undelivered::Later(problem);
    }
    match status.code() {
        Code::InvalidArgument | Code::AlreadyExists => Undelivered::Refused(problem),
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::Unimplemented
        | Code::NotFound
        | Code::FailedPrecondition => Undelivered::Denied(problem),
        Code::Internal | Code::Unknown => Undelivered::Broken(problem),
        _ => Undelivered::Later(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(of: &Undelivered) -> &'static str {
        match of {
            Undelivered::Later(_) => "later",
            Undelivered::Denied(_) => "denied",
            Undelivered::Refused(_) => "refused",
            Undelivered::Broken(_) => "broken",
        }
    }

    #[test]
    fn r4_4_a_status_says_whether_time_a_person_or_nothing_helps() {
        for (status, expected) in [
            (400, "refused"),
            (401, "denied"),
            (403, "denied"),
            (404, "denied"),
            (408, "later"),
            (413, "refused"),
            (415, "denied"),
            (422, "refused"),
            (429, "later"),
            (500, "broken"),
            (502, "later"),
            (503, "later"),
            (301, "denied"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(kind(&of_http(status)), expected, "{status}");
        }
    }

    #[test]
    fn rejections_are_read_from_the_answer_of_any_signal_and_told_once() {
        use opentelemetry_proto::tonic::collector::logs::v1::{
            ExportLogsPartialSuccess, ExportLogsServiceResponse,
        };
        let rejections = Rejections::default();
        let answer = |rejected_log_records| ExportLogsServiceResponse {
            partial_success: Some(ExportLogsPartialSuccess {
                rejected_log_records,
                error_message: "no such agent".to_owned(),
            }),
        };
        for (body, expected) in [
            (answer(3).encode_to_vec(), 3),
            (answer(-1).encode_to_vec(), 0),
            (Vec::new(), 0),
            (b"<html>".to_vec(), 0),
        ] {
            rejections.note(&body);
            assert_eq!((rejections.take(), rejections.take()), (expected, 0));
        }
    }

    #[test]
    fn an_error_without_an_answer_is_one_that_time_helps() {
        let heard = Heard::default();
        let error = OTelSdkError::InternalFailure("network error".to_owned());
        assert_eq!(kind(&heard.answer.explain(&error)), "later");
        heard.http(StatusCode::UNAUTHORIZED, b"");
        assert_eq!(kind(&heard.answer.explain(&error)), "denied");
        heard.forget();
        assert_eq!(kind(&heard.answer.explain(&error)), "later");
    }
}
