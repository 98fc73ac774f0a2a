//! An agent elsewhere over gRPC.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http::HeaderMap;
use http::uri::PathAndQuery;
use reqwest::Url;
use throughline_trace::ErrorType;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Extensions, Request, Status};
use tonic_prost::ProstCodec;

use super::proto::events::RunEvent;
use super::proto::{ERROR_TYPE, OUTCOME, PUSHBACK_MS, RUN, RUN_STREAM, RunReply, RunRequest};
use super::streaming::RemoteEvent;
use super::wire::{self, remote_error};
use super::{ANSWER_MAX_BYTES, RemoteError, RemoteRun};
use crate::http_client;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The service of an agent.
pub(super) struct GrpcAgent {
    endpoint: Endpoint,
    /// Made with the first call: a channel needs the runtime that it is used in.
    channel: OnceLock<Channel>,
    address: String,
}

impl GrpcAgent {
    pub(super) fn new(url: &Url) -> Result<Self, RemoteError> {
        let address = http_client::shown(url).trim_end_matches('/').to_owned();
        let wrong = |error: tonic::transport::Error| {
            let message = format!("expected a gRPC address, got {address}: {error}");
            RemoteError::new(ErrorType::InvalidRequest, message)
        };
        let endpoint = Endpoint::from_shared(url.as_str().to_owned()).map_err(wrong)?;
        let mut endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
        if url.scheme() == "https" {
            let tls = ClientTlsConfig::new().with_enabled_roots();
            endpoint = endpoint.tls_config(tls).map_err(wrong)?;
        }
        Ok(Self { endpoint, channel: OnceLock::new(), address: address.clone() })
    }

    pub(super) async fn run(
        &self,
        agent: &str,
        headers: HeaderMap,
        request: wire::RunRequest,
    ) -> Result<RemoteRun, RemoteError> {
        let mut grpc = self.ready().await?;
        let request = Self::request(agent, headers, request);
        let codec: ProstCodec<RunRequest, RunReply> = ProstCodec::default();
        let reply = grpc.unary(request, PathAndQuery::from_static(RUN), codec).await;
        match reply {
            Ok(reply) => Ok(wire::RunReply::from(reply.into_inner()).into_run()),
            Err(status) => Err(self.error(&status)),
        }
    }

    /// The events of a run, from the first message on.
    pub(super) fn events(
        self: Arc<Self>,
        agent: &str,
        headers: HeaderMap,
        request: wire::RunRequest,
    ) -> impl Stream<Item = Result<RemoteEvent, RemoteError>> + Send + 'static {
        let request = Self::request(agent, headers, request);
        let opening = async move {
            let mut grpc = self.ready().await?;
            let codec: ProstCodec<RunRequest, RunEvent> = ProstCodec::default();
            let path = PathAndQuery::from_static(RUN_STREAM);
            let answered = grpc.server_streaming(request, path, codec).await;
            let messages = answered.map_err(|status| self.error(&status))?.into_inner();
            Ok::<_, RemoteError>(messages.filter_map(move |message| {
                let read = match message {
                    Ok(message) => message.into_remote().map(Ok),
                    Err(status) => Some(Err(self.error(&status))),
                };
                std::future::ready(read)
            }))
        };
        stream::once(opening).try_flatten()
    }

    fn request(agent: &str, headers: HeaderMap, request: wire::RunRequest) -> Request<RunRequest> {
        let metadata = MetadataMap::from_headers(headers);
        Request::from_parts(metadata, Extensions::new(), RunRequest::of(agent, request))
    }

    async fn ready(&self) -> Result<Grpc<Channel>, RemoteError> {
        let channel = self.channel.get_or_init(|| self.endpoint.connect_lazy()).clone();
        let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_MAX_BYTES);
        grpc.ready().await.map_err(|error| {
            let message = format!("expected {} to be reachable: {error}", self.address);
            RemoteError::new(ErrorType::Connection, message)
        })?;
        Ok(grpc)
    }

    fn error(&self, status: &Status) -> RemoteError {
        let said = |key: &str| {
            status.metadata().get(key).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let message = match status.message() {
            "" => format!("expected an answer from {}, got {:?}", self.address, status.code()),
            message => message.to_owned(),
        };
        let mut error = match said(ERROR_TYPE) {
            "" => RemoteError::new(kind_of(status.code()), message),
            kind => remote_error(kind, said(OUTCOME), message),
        };
        error.status_code = u16::try_from(i32::from(status.code())).ok();
        error.retry_after = said(PUSHBACK_MS).parse().ok().map(Duration::from_millis);
        error
    }
}

/// What a gRPC code means that comes without our own word for it.
fn kind_of(code: Code) -> ErrorType {
    match code {
        Code::Cancelled => ErrorType::Cancelled,
        Code::DeadlineExceeded => ErrorType::Timeout,
        Code::ResourceExhausted => ErrorType::RateLimited,
        Code::Unauthenticated | Code::PermissionDenied => ErrorType::Auth,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented => ErrorType::InvalidRequest,
        Code::Unavailable => ErrorType::Connection,
        _ => ErrorType::Server,
    }
}
