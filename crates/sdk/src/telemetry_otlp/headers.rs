//! What is done to an export where it leaves: the exporters lay the headers of
//! `OTEL_EXPORTER_OTLP_HEADERS` over all others and show them in their `Debug`, so ours are put on here;
//! and so are exemplars, which have to be there before the body is compressed.

use std::io::{Read as _, Write as _};
use std::pin::Pin;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response};
use opentelemetry_http::{Bytes, HttpClient, HttpError};

use super::answer::Heard;
use super::environment::Environment;
use super::exemplars::with_exemplars;
#[cfg(feature = "grpc")]
use super::over_grpc::{self, GrpcWay};
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

/// How a request gets to the receiver.
#[derive(Debug, Clone)]
pub(super) enum Way {
    Http(reqwest::Client),
    #[cfg(feature = "grpc")]
    Grpc(GrpcWay),
}

/// The client of an exporter, which puts the headers on, and notes what is answered.
#[derive(Debug, Clone)]
pub(super) struct ExportClient {
    pub(super) way: Way,
    pub(super) headers: ExportHeaders,
    pub(super) heard: Heard,
    /// Whether bodies are compressed, with gzip.
    pub(super) is_compressed: bool,
    /// What is laid onto the points of an export of metrics.
    pub(super) exemplars: Option<Exemplars>,
}

impl ExportClient {
    /// Lays the exemplars that wait onto the points of the request, and says which they were.
    fn take_exemplars(&self, request: &mut Request<Bytes>) -> Option<Taken> {
        let taken = self.exemplars.as_ref()?.take();
        if taken.is_empty() {
            return None;
        }
        *request.body_mut() = with_exemplars(request.body(), &taken)?.into();
        Some(taken)
    }

    /// Sends a request and notes the answer.
    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        match &self.way {
            Way::Http(client) => {
                if self.is_compressed {
                    compress(&mut request)?;
                }
                let attempt = self.heard.trouble.attempt(request.uri());
                let answered = client.send_bytes(request).await;
                match &answered {
                    Ok(response) if response.status().is_success() => attempt.arrived(),
                    Ok(response) => attempt.refused(response.status(), response.headers()),
                    Err(error) => attempt.unreached(&**error),
                }
                let response = answered?;
                self.heard.http(response.status(), response.body());
                Ok(response)
            }
            #[cfg(feature = "grpc")]
            Way::Grpc(way) => {
                let attempt = self.heard.trouble.attempt(request.uri());
                let answered = way.send(request).await;
                match &answered {
                    Ok(_) => attempt.arrived(),
                    Err(status) => attempt.failed(status),
                }
                self.heard.grpc(&answered);
                over_grpc::as_http(&answered)
            }
        }
    }
}

/// Undoes that the exporter has compressed the body: it does where a host's build lets it (the feature
/// `gzip-http` of its crate), and what is done here comes first.
///
/// # Errors
/// When it is no gzip after all.
fn unpack(request: &mut Request<Bytes>) -> std::io::Result<()> {
    if request.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip") {
        let mut body = Vec::new();
        GzDecoder::new(&**request.body()).read_to_end(&mut body)?;
        *request.body_mut() = body.into();
        request.headers_mut().remove(CONTENT_ENCODING);
    }
    Ok(())
}

/// Compresses the body with gzip. With little effort: names and values repeat so much that more gains
/// little, and the time is the agent's.
///
/// # Errors
/// Never, as it is written to memory.
fn compress(request: &mut Request<Bytes>) -> std::io::Result<()> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(request.body())?;
    *request.body_mut() = encoder.finish()?.into();
    let headers = request.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    // The environment may have put one there.
    headers.remove(CONTENT_LENGTH);
    Ok(())
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
        self.heard.forget();
        Box::pin(async move {
            unpack(&mut request)?;
            let taken = self.take_exemplars(&mut request);
            let answered = self.send(request).await;
            let has_arrived =
                answered.as_ref().is_ok_and(|response| response.status().is_success());
            if let (Some(exemplars), Some(taken), false) = (&self.exemplars, taken, has_arrived) {
                exemplars.put_back(taken);
            }
            answered
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_exporter_has_compressed_is_compressed_once() {
        let body = b"resource spans ".repeat(40);
        let mut request = Request::new(Bytes::from(body.clone()));
        compress(&mut request).unwrap();
        assert!(request.body().len() < body.len());
        unpack(&mut request).unwrap();
        assert_eq!((&**request.body(), request.headers().len()), (&*body, 0));
        unpack(&mut request).unwrap();
        assert_eq!(&**request.body(), &*body);
        let mut odd = Request::new(Bytes::from_static(b"plain"));
        odd.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(unpack(&mut odd).is_err());
    }
}
