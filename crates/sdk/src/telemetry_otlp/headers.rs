//! The headers of an export: the exporters lay those of `OTEL_EXPORTER_OTLP_HEADERS` over all
//! others and show them in their `Debug`, so ours are put on where a request leaves.

use std::pin::Pin;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Request, Response};
use opentelemetry_http::{Bytes, HttpClient, HttpError};

#[cfg(feature = "grpc")]
use tonic::{Status, metadata::MetadataMap, service::Interceptor};

use super::answer::{LastAnswer, Rejections};
use super::environment::Environment;
use super::exemplars::with_exemplars;
use crate::metrics::{Exemplars, Taken};

/// What is put on every request.
#[derive(Debug, Clone)]
pub(crate) struct ExportHeaders {
    headers: HeaderMap,
    environment: Environment,
}

impl ExportHeaders {
    pub(crate) fn new(headers: HeaderMap, environment: Environment) -> Self {
        Self { headers, environment }
    }

    /// Makes ours the ones that hold. Without the environment all others go, but for those that
    /// say what the body is and who sends it.
    fn put_on(&self, headers: &mut HeaderMap) {
        if !self.environment.is_read() {
            let all = std::mem::take(headers);
            for name in [CONTENT_TYPE, CONTENT_ENCODING, USER_AGENT] {
                if let Some(value) = all.get(&name) {
                    headers.insert(name, value.clone());
                }
            }
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// An HTTP client that puts the headers on, and notes what is answered.
#[derive(Debug, Clone)]
pub(crate) struct ExportClient {
    pub(crate) client: reqwest::Client,
    pub(crate) headers: ExportHeaders,
    pub(crate) answer: LastAnswer,
    pub(crate) rejections: Rejections,
    /// What is laid onto the points of an export of metrics.
    pub(crate) exemplars: Option<Exemplars>,
}

impl ExportClient {
    /// Lays the exemplars that wait onto the points of the request, and says which they were.
    fn take_exemplars(&self, request: &mut Request<Bytes>) -> Option<Taken> {
        let taken = self.exemplars.as_ref()?.take();
        if taken.is_empty() || request.headers().contains_key(CONTENT_ENCODING) {
            return None;
        }
        *request.body_mut() = with_exemplars(request.body(), &taken)?.into();
        Some(taken)
    }
}

impl HttpClient for ExportClient {
    // The form that `async_trait` gives the method.
    fn send_bytes<'client, 'sending>(
        &'client self,
        mut request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sending>>
    where
        'client: 'sending,
        Self: 'sending,
    {
        self.headers.put_on(request.headers_mut());
        self.answer.forget();
        self.rejections.forget();
        Box::pin(async move {
            let taken = self.take_exemplars(&mut request);
            let answered = self.client.send_bytes(request).await;
            if let Ok(response) = &answered {
                self.answer.note(response.status());
                if response.status().is_success() {
                    self.rejections.note(response.body());
                }
            }
            let has_arrived =
                answered.as_ref().is_ok_and(|response| response.status().is_success());
            if let (Some(exemplars), Some(taken), false) = (&self.exemplars, taken, has_arrived) {
                exemplars.put_back(taken);
            }
            answered
        })
    }
}

#[cfg(feature = "grpc")]
impl Interceptor for ExportHeaders {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        let mut headers = std::mem::take(request.metadata_mut()).into_headers();
        self.put_on(&mut headers);
        *request.metadata_mut() = MetadataMap::from_headers(headers);
        Ok(request)
    }
}
