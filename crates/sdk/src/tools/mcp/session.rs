//! The session of a server over streamable HTTP. rmcp keeps it to itself, so it is read where the
//! messages go through: a client of HTTP that notes the `Mcp-Session-Id` that comes back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::BoxStream;
use http::{HeaderName, HeaderValue};
use opentelemetry::{KeyValue, StringValue};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
    StreamableHttpResponseLimits,
};
use sse_stream::Sse;
use throughline_trace::keys;

/// The id of a session, as long as the server has given one. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Session(Arc<Mutex<Option<Arc<str>>>>);

impl Session {
    /// The id; `None` without a session: over standard input and output, and with servers that keep
    /// none.
    fn id(&self) -> Option<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `mcp.session.id`, if there is one.
    pub(super) fn attribute(&self) -> Option<KeyValue> {
        self.id().map(|id| KeyValue::new(keys::MCP_SESSION_ID, StringValue::from(id)))
    }

    /// A connection begins anew.
    pub(super) fn forget(&self) {
        self.note(None);
    }

    fn note(&self, id: Option<Arc<str>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }
}

/// A client that notes the session.
#[derive(Clone)]
pub(super) struct SessionClient {
    inner: reqwest::Client,
    session: Session,
}

type Answer<T> = Result<T, StreamableHttpError<reqwest::Error>>;

impl SessionClient {
    pub(super) fn new(inner: reqwest::Client, session: Session) -> Self {
        Self { inner, session }
    }

    /// Notes what an answer to a message of the session `of` says.
    fn noted(
        &self,
        of: Option<Arc<str>>,
        answer: StreamableHttpPostResponse,
    ) -> StreamableHttpPostResponse {
        let given = match &answer {
            StreamableHttpPostResponse::Json(_, id) | StreamableHttpPostResponse::Sse(_, id) => {
                id.as_deref().map(Arc::from)
            }
            _ => None,
        };
        self.session.note(given.or(of));
        answer
    }
}

impl StreamableHttpClient for SessionClient {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Answer<StreamableHttpPostResponse> {
        let of = session_id.clone();
        let posted =
            self.inner.post_message(uri, message, session_id, auth_header, custom_headers).await;
        posted.map(|answer| self.noted(of, answer))
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        limits: StreamableHttpResponseLimits,
    ) -> Answer<StreamableHttpPostResponse> {
        let of = session_id.clone();
        let posted = self
            .inner
            .post_message_with_response_limits(
                uri,
                message,
                session_id,
                auth_header,
                custom_headers,
                limits,
            )
            .await;
        posted.map(|answer| self.noted(of, answer))
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Answer<()> {
        self.inner.delete_session(uri, session_id, auth_header, custom_headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Answer<BoxStream<'static, Result<Sse, SseError>>> {
        self.inner.get_stream(uri, session_id, last_event_id, auth_header, custom_headers).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        max_sse_event_size: usize,
    ) -> Answer<BoxStream<'static, Result<Sse, SseError>>> {
        self.inner
            .get_stream_with_max_sse_event_size(
                uri,
                session_id,
                last_event_id,
                auth_header,
                custom_headers,
                max_sse_event_size,
            )
            .await
    }
}
