//! A client of OpenAI's chat completions, and of the many servers that speak the same form.

use std::fmt;

use futures_util::future::BoxFuture;
use futures_util::stream::StreamExt as _;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use opentelemetry::Context;
use reqwest::{Response, Url};
use throughline_llm::openai::{self, ApiError, CHAT_COMPLETIONS_PATH, WireError};
use throughline_llm::{ChatRequest, ChatResponse};
use throughline_trace::ErrorType;

use super::errors::{causes, quoted, refusal_type, retry_after, status_text, told_type};
use super::stream::Chunks;
use crate::chat::{ChatError, ChatModel, ChatStream, Endpoint};
use crate::http_client::without_userinfo;
use crate::{http_client, propagation};

/// Where OpenAI itself is.
pub const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";

/// Longest whole answer that is read, bytes.
const MAX_RESPONSE_BYTES: usize = 32 * 1024 * 1024;

/// Longest body of an error that is read, bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Hosts whose provider is known by another name than `openai` (GenAI conventions).
const PROVIDERS: [(&str, &str); 9] = [
    ("openai.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("api.anthropic.com", "anthropic"),
    ("api.deepseek.com", "deepseek"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
];

/// A client of one provider. Clones share its connections.
///
/// Requests carry the trace context of the current context, and its allow-listed baggage only when
/// [`OpenAiBuilder::propagate_baggage`] says so. The client neither retries nor makes spans: wrap it
/// in [`Traced`](crate::Traced).
#[derive(Clone)]
pub struct OpenAi {
    http: reqwest::Client,
    url: Url,
    endpoint: Endpoint,
    headers: HeaderMap,
    propagates_baggage: bool,
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenAiError {
    /// The base address is no HTTP address.
    #[error(
        "expected an http or https address such as {OPENAI_BASE_URL}, got {got:?}; set OPENAI_BASE_URL or call base_url"
    )]
    BaseUrl {
        /// What came, without user and password.
        got: String,
    },
    /// A key or header has characters that HTTP cannot carry.
    #[error("expected a header value of visible ASCII characters in {name}, got others")]
    Header {
        /// The header.
        name: String,
    },
    /// TLS or the connection pool could not be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
}

/// How a client is to be.
#[derive(Clone)]
pub struct OpenAiBuilder {
    base_url: String,
    api_key: Option<String>,
    provider: Option<String>,
    headers: Vec<(String, String)>,
    propagates_baggage: bool,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi")
            .field("url", &without_userinfo(self.url.as_str()))
            .field("endpoint", &self.endpoint)
            .field("propagates_baggage", &self.propagates_baggage)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for OpenAiBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("OpenAiBuilder")
            .field("base_url", &without_userinfo(&self.base_url))
            .field("has_api_key", &self.api_key.is_some())
            .field("provider", &self.provider)
            .field("headers", &headers)
            .field("propagates_baggage", &self.propagates_baggage)
            .finish()
    }
}

impl OpenAi {
    /// A client of `OPENAI_BASE_URL` (else [`OPENAI_BASE_URL`]) with `OPENAI_API_KEY`, if set.
    ///
    /// # Errors
    /// [`OpenAiError`] when a variable has a value that cannot be meant.
    pub fn from_env() -> Result<Self, OpenAiError> {
        let variable =
            |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let mut builder = Self::builder();
        if let Some(url) = variable("OPENAI_BASE_URL") {
            builder = builder.base_url(url);
        }
        if let Some(key) = variable("OPENAI_API_KEY") {
            builder = builder.api_key(key);
        }
        builder.build()
    }

    /// A client of OpenAI itself without a key, to be changed.
    pub fn builder() -> OpenAiBuilder {
        OpenAiBuilder {
            base_url: OPENAI_BASE_URL.to_owned(),
            api_key: None,
            provider: None,
            headers: Vec::new(),
            propagates_baggage: false,
        }
    }

    async fn send(
        &self,
        request: &ChatRequest,
        accept: &'static str,
    ) -> Result<Response, ChatError> {
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        let cx = Context::current();
        if self.propagates_baggage {
            propagation::inject_context(&cx, &mut headers);
        } else {
            propagation::inject_trace(&cx, &mut headers);
        }
        let sending = self
            .http
            .post(self.url.clone())
            .headers(headers)
            .body(openai::request_to_json(request).to_string())
            .send();
        let response =
            sending.await.map_err(|error| self.transport_error(&request.model, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(&request.model, response).await)
    }

    /// The error that an answer with a status other than 2xx is.
    async fn refusal(&self, model: &str, response: Response) -> ChatError {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let body = read(response, MAX_ERROR_BYTES).await.unwrap_or_default();
        let told = openai::parse_error(&body)
            .unwrap_or_else(|| ApiError { message: quoted(&body), ..ApiError::default() });
        let message =
            format!("{model} at {} answered {}: {told}", self.host(), status_text(status));
        ChatError {
            code: told.raw_code().map(str::to_owned),
            status_code: Some(status.as_u16()),
            retry_after,
            ..ChatError::new(refusal_type(status, &told), message)
        }
    }

    fn transport_error(&self, model: &str, error: &reqwest::Error) -> ChatError {
        let kind = if error.is_timeout() {
            ErrorType::Timeout
        } else if error.is_decode() {
            ErrorType::InvalidResponse
        } else {
            ErrorType::Connection
        };
        ChatError::new(kind, format!("cannot reach {model} at {}: {}", self.host(), causes(error)))
    }

    /// The error that an answer with status 2xx turned out to be.
    pub(crate) fn invalid(&self, model: &str, status: StatusCode, error: WireError) -> ChatError {
        let (kind, code) = match &error {
            WireError::Api(told) => (told_type(told), told.raw_code().map(str::to_owned)),
            _ => (ErrorType::InvalidResponse, None),
        };
        let message =
            format!("{model} at {} answered {}: {error}", self.host(), status_text(status));
        ChatError { code, status_code: Some(status.as_u16()), ..ChatError::new(kind, message) }
    }

    /// The provider's host, for messages.
    pub(crate) fn host(&self) -> &str {
        self.endpoint.server_address.as_deref().unwrap_or_default()
    }

    async fn chat_once(&self, request: ChatRequest) -> Result<ChatResponse, ChatError> {
        let request = ChatRequest { stream: false, ..request };
        let model = request.model.as_str();
        let response = self.send(&request, "application/json").await?;
        let status = response.status();
        let body = read(response, MAX_RESPONSE_BYTES).await.map_err(|error| match error {
            ReadError::Transport(error) => self.transport_error(model, &error),
            ReadError::TooLong => {
                let message = format!(
                    "{model} at {} answered more than {MAX_RESPONSE_BYTES} bytes",
                    self.host()
                );
                ChatError::new(ErrorType::InvalidResponse, message)
            }
        })?;
        let mut answer =
            openai::parse_response(&body).map_err(|error| self.invalid(model, status, error))?;
        answer.status_code = Some(status.as_u16());
        Ok(answer)
    }

    async fn stream_once(&self, request: ChatRequest) -> Result<ChatStream, ChatError> {
        let request = ChatRequest { stream: true, ..request };
        let response = self.send(&request, "text/event-stream").await?;
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        if !content_type.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let got = content_type.unwrap_or("none").to_owned();
            let message = format!(
                "{} at {} answered {} with content type {got}, expected text/event-stream",
                request.model,
                self.host(),
                status_text(status)
            );
            let mut error = ChatError::new(ErrorType::InvalidResponse, message);
            error.status_code = Some(status.as_u16());
            return Err(error);
        }
        let body = response.bytes_stream().boxed();
        let chunks = Chunks::new(self.clone(), request.model, status, body);
        Ok(ChatStream::new(Some(status.as_u16()), chunks.into_stream()))
    }
}

impl ChatModel for OpenAi {
    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        Box::pin(self.chat_once(request))
    }

    fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        Box::pin(self.stream_once(request))
    }
}

impl OpenAiBuilder {
    /// The address below which `/chat/completions` is (`http://127.0.0.1:4319/v1`).
    #[must_use]
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// The key, sent as a bearer token.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// `gen_ai.provider.name`; known by the host when not said, else `openai`.
    #[must_use]
    pub fn provider(mut self, name: impl Into<String>) -> Self {
        self.provider = Some(name.into());
        self
    }

    /// A header of every request (`api-key`, `OpenAI-Organization`).
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Whether requests carry the agent, session and workflow ids, and what else of the baggage may
    /// cross processes ([`propagation`]). They do not when nobody says: a provider is a third party,
    /// to whom these ids say who asks. Say yes for a gateway or a model server of your own, whose
    /// spans are to bear them. The trace context always goes: its ids mean nothing to others.
    #[must_use]
    pub fn propagate_baggage(mut self, wanted: bool) -> Self {
        self.propagates_baggage = wanted;
        self
    }

    /// Makes the client. Nothing is connected yet.
    ///
    /// # Errors
    /// [`OpenAiError`] when the address, the key or a header cannot be meant, or TLS not be set up.
    pub fn build(self) -> Result<OpenAi, OpenAiError> {
        let bad_url = || OpenAiError::BaseUrl { got: without_userinfo(&self.base_url) };
        let whole =
            format!("{}{CHAT_COMPLETIONS_PATH}", self.base_url.trim().trim_end_matches('/'));
        let url = Url::parse(&whole).map_err(|_| bad_url())?;
        let host = url.host_str().ok_or_else(bad_url)?.to_owned();
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad_url());
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.api_key {
            insert(&mut headers, AUTHORIZATION.as_str(), &format!("Bearer {}", key.trim()))?;
        }
        for (name, value) in &self.headers {
            insert(&mut headers, name, value)?;
        }
        let is_provider = |suffix: &str| host == suffix || host.ends_with(&format!(".{suffix}"));
        let known = PROVIDERS.iter().find(|(suffix, _)| is_provider(suffix));
        let endpoint = Endpoint {
            provider: self
                .provider
                .unwrap_or_else(|| known.map_or("openai", |(_, name)| name).to_owned()),
            server_port: url.port_or_known_default(),
            server_address: Some(host),
        };
        let http = http_client::client(&url).map_err(OpenAiError::Client)?;
        let propagates_baggage = self.propagates_baggage;
        Ok(OpenAi { http, url, endpoint, headers, propagates_baggage })
    }
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), OpenAiError> {
    let bad = || OpenAiError::Header { name: name.to_owned() };
    let key = HeaderName::try_from(name).map_err(|_| bad())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
    value.set_sensitive(true);
    headers.insert(key, value);
    Ok(())
}

#[derive(Debug)]
enum ReadError {
    Transport(reqwest::Error),
    TooLong,
}

/// Reads a body of at most `limit` bytes.
async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(ReadError::Transport)? {
        if body.len() + bytes.len() > limit {
            return Err(ReadError::TooLong);
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_known_by_their_host() {
        let provider =
            |url: &str| OpenAi::builder().base_url(url).build().map(|c| c.endpoint().provider);
        assert_eq!(provider("https://api.groq.com/openai/v1").ok().as_deref(), Some("groq"));
        assert_eq!(
            provider("https://acme.openai.azure.com/").ok().as_deref(),
            Some("azure.ai.openai")
        );
        assert_eq!(provider("http://127.0.0.1:4319/v1/").ok().as_deref(), Some("openai"));
        let client =
            OpenAi::builder().base_url("http://127.0.0.1:1/v1/").build().expect("a client");
        assert_eq!(client.url.as_str(), "http://127.0.0.1:1/v1/chat/completions");
        assert_eq!(client.endpoint.server_port, Some(1));
    }

    #[test]
    fn secrets_do_not_show() {
        let builder = OpenAi::builder()
            .base_url("http://user:hunter2@127.0.0.1:1/v1")
            .api_key("hunter2")
            .header("api-key", "hunter2");
        insta::assert_snapshot!(format!("{builder:?}"), @r#"OpenAiBuilder { base_url: "http://127.0.0.1:1/v1", has_api_key: true, provider: None, headers: ["api-key"], propagates_baggage: false }"#);
        let client = format!("{:?}", builder.build().expect("a client"));
        assert!(client.contains("127.0.0.1") && !client.contains("hunter2"), "{client}");
        for bad in ["ftp://user:hunter2@x", "user:hunter2@x", "http://user:hunter2@x:port"] {
            let error = OpenAi::builder().base_url(bad).build().expect_err("a bad address");
            let told = format!("{error} {error:?}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn bad_settings_say_what_is_expected() {
        let message = |builder: OpenAiBuilder| builder.build().map(|_| ()).unwrap_err().to_string();
        insta::assert_snapshot!(message(OpenAi::builder().base_url("ftp://x")), @r#"expected an http or https address such as https://api.openai.com/v1, got "ftp://x"; set OPENAI_BASE_URL or call base_url"#);
        insta::assert_snapshot!(message(OpenAi::builder().api_key("a\nb")), @"expected a header value of visible ASCII characters in authorization, got others");
    }
}
