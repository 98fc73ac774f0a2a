//! The service over gRPC: the methods of `proto/agent.proto`, routed by hand.

use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use opentelemetry::KeyValue;
use throughline_trace::{ErrorType, TraceId, keys};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::server::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower_service::Service as Answers;

use super::Service;
use super::answer::{Body, BodyError, Refusal};
use super::routes::Admitted;
use crate::agent::{AgentError, Inbound};
use crate::middleware::exchange::grpc_code_name;
use crate::remote::proto::events::RunEvent;
use crate::remote::proto::{
    ERROR_TYPE, OUTCOME, PUSHBACK_MS, RUN, RUN_STREAM, RunReply, RunRequest,
};
use crate::remote::wire::{self, TRACE_ID_HEADER};

/// Where all methods are.
const PREFIX: &str = "/throughline.agent.v1.Agent/";

/// How long the caller waits.
const TIMEOUT: &str = "grpc-timeout";

/// Whether a path is one of the service's.
pub(super) fn is_ours(path: &str) -> bool {
    path.starts_with(PREFIX)
}

pub(super) async fn answer(
    service: Arc<Service>,
    request: http::Request<Incoming>,
) -> Response<Body> {
    if let Err(refusal) = service.authorize(request.headers()) {
        return boxed(status_of(&refusal, None).into_http());
    }
    let most = service.limits.request_max_bytes;
    let inbound = Inbound::of_grpc(&request, grpc_status);
    match request.uri().path() {
        RUN => {
            let codec: ProstCodec<RunReply, RunRequest> = ProstCodec::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(most);
            boxed(grpc.unary(Run(service, inbound), request).await)
        }
        RUN_STREAM => {
            let codec: ProstCodec<RunEvent, RunRequest> = ProstCodec::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(most);
            boxed(grpc.server_streaming(RunStream(service, inbound), request).await)
        }
        other => {
            let message = format!("expected {RUN} or {RUN_STREAM}, got {other}");
            boxed(Status::unimplemented(message).into_http())
        }
    }
}

fn boxed(response: Response<tonic::body::Body>) -> Response<Body> {
    response.map(|body| body.map_err(|status| BodyError(status.to_string())).boxed_unsync())
}

/// Lets the run that a message asks for begin.
fn admit(
    service: &Service,
    request: tonic::Request<RunRequest>,
    inbound: &Inbound,
) -> Result<Admitted, Status> {
    let limit = timeout_of(request.metadata().as_ref());
    let request = request.into_inner();
    let agent = request.agent.clone();
    let wrong = |message| status_of(&Refusal::wrong(message), None);
    let task = request.into_wire().and_then(wire::RunRequest::into_task).map_err(wrong)?;
    let task = task.answering(inbound.clone());
    service.admit(&agent, task, limit).map_err(|refusal| status_of(&refusal, None))
}

/// `Run`.
struct Run(Arc<Service>, Inbound);

impl Answers<tonic::Request<RunRequest>> for Run {
    type Response = tonic::Response<RunReply>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<RunRequest>) -> Self::Future {
        let admitted = admit(&self.0, request, &self.1);
        Box::pin(async move {
            let admitted = admitted?;
            let trace = admitted.trace;
            match admitted.agent.run(admitted.task).await {
                Ok(run) => {
                    let reply = RunReply::from(wire::RunReply::from(&run));
                    let mut response = tonic::Response::new(reply);
                    tell_trace(response.metadata_mut(), trace.get());
                    Ok(response)
                }
                Err(error) => Err(status_of(&Refusal::of(&error), trace.get())),
            }
        })
    }
}

/// `RunStream`.
struct RunStream(Arc<Service>, Inbound);

type Events = BoxStream<'static, Result<RunEvent, Status>>;

impl Answers<tonic::Request<RunRequest>> for RunStream {
    type Response = tonic::Response<Events>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<RunRequest>) -> Self::Future {
        let admitted = admit(&self.0, request, &self.1);
        Box::pin(async move {
            let admitted = admitted?;
            let mut run = admitted.agent.stream(admitted.task);
            // The trace is known when the run has begun.
            let first = run.next().await;
            let (trace, place) = (admitted.trace, admitted.place);
            let told = Arc::clone(&trace);
            let events: Events = futures_util::stream::iter(first)
                .chain(run)
                .map(move |item| {
                    let _held = &place;
                    item.map(RunEvent::from)
                        .map_err(|error: AgentError| status_of(&Refusal::of(&error), told.get()))
                })
                .boxed();
            let mut response = tonic::Response::new(events);
            tell_trace(response.metadata_mut(), trace.get());
            Ok(response)
        })
    }
}

fn tell_trace(metadata: &mut MetadataMap, trace: Option<&TraceId>) {
    let value = trace.and_then(|id| AsciiMetadataValue::try_from(id.to_string()).ok());
    if let Some(value) = value {
        metadata.insert(TRACE_ID_HEADER, value);
    }
}

/// A refusal as gRPC says it.
fn status_of(refusal: &Refusal, trace: Option<&TraceId>) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(ERROR_TYPE, AsciiMetadataValue::from_static(refusal.kind.as_str()));
    metadata.insert(OUTCOME, AsciiMetadataValue::from_static(refusal.outcome.as_str()));
    if let Some(secs) = refusal.retry_after_secs {
        metadata.insert(PUSHBACK_MS, AsciiMetadataValue::from(secs.saturating_mul(1_000)));
    }
    tell_trace(&mut metadata, trace);
    Status::with_metadata(code_of(refusal), refusal.message.clone(), metadata)
}

/// The status of a run, on its span.
fn grpc_status(error: Option<&AgentError>) -> KeyValue {
    let code = error.map_or(Code::Ok, |error| code_of(&Refusal::of(error)));
    let number = usize::try_from(i32::from(code)).unwrap_or(usize::MAX);
    KeyValue::new(keys::RPC_RESPONSE_STATUS_CODE, grpc_code_name(number))
}

fn code_of(refusal: &Refusal) -> Code {
    match refusal.kind {
        _ if refusal.status == http::StatusCode::NOT_FOUND => Code::NotFound,
        ErrorType::Auth if refusal.status == http::StatusCode::UNAUTHORIZED => {
            Code::Unauthenticated
        }
        ErrorType::Timeout => Code::DeadlineExceeded,
        ErrorType::RateLimited | ErrorType::Overloaded => Code::ResourceExhausted,
        ErrorType::Cancelled => Code::Cancelled,
        ErrorType::PolicyRejected => Code::PermissionDenied,
        ErrorType::ContentFiltered => Code::FailedPrecondition,
        ErrorType::InvalidRequest if refusal.status.is_client_error() => Code::InvalidArgument,
        ErrorType::CircuitOpen | ErrorType::Connection | ErrorType::Server => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// How long the caller waits: digits and a unit (`100m` are milliseconds).
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(amount.saturating_mul(3_600)),
        "M" => Duration::from_secs(amount.saturating_mul(60)),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_time_that_a_caller_waits_is_read() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, HeaderValue::from_str(text).expect("a header"));
            timeout_of(&headers)
        };
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("2H"), Some(Duration::from_secs(7_200)));
        for wrong in ["", "S", "5", "5x", "-5S", "123456789S", "ü"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
