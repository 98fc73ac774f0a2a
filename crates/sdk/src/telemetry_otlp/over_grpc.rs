//! The way of an export over gRPC. The messages are those that the exporters make for HTTP, and so is
//! what they do about an answer: what OTLP says of a gRPC code is told to them as the HTTP status of
//! the same meaning. So all that is heard and laid on over HTTP is so over gRPC: what a receiver
//! rejects, the code itself, exemplars.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, TE, USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use opentelemetry_http::{Bytes, HttpError};
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Extensions, Status};
use tonic_types::StatusExt as _;

use super::{Signal, TlsSettings};
use crate::http_client::ClientIdentity;
use crate::telemetry::TelemetryError;

/// Headers of HTTP that a gRPC request has of its own.
const NOT_METADATA: [http::HeaderName; 6] =
    [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH, HOST, TE, USER_AGENT];

impl Signal {
    /// The method of the signal's service (OTLP specification).
    fn method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }
}

/// A connection to the service of a signal.
#[derive(Debug, Clone)]
pub(super) struct GrpcWay {
    channel: Channel,
    method: PathAndQuery,
    is_compressed: bool,
}

impl GrpcWay {
    /// A connection that is made when it is first needed, in the runtime that this is called in.
    ///
    /// # Errors
    /// When the address is none, or TLS cannot be set up.
    pub(super) fn new(
        signal: Signal,
        address: &str,
        settings: &TlsSettings,
        (timeout, is_compressed): (Duration, bool),
    ) -> Result<Self, TelemetryError> {
        let wrong = |error: tonic::transport::Error| {
            let mut text = format!("expected a gRPC address, got {address}: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            TelemetryError::Exporter(text)
        };
        let mut endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(wrong)?
            .timeout(timeout)
            .user_agent(concat!("throughline/", env!("CARGO_PKG_VERSION")))
            .map_err(wrong)?;
        if endpoint.uri().scheme() == Some(&http::uri::Scheme::HTTPS) {
            let mut tls = match &settings.authorities {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_enabled_roots(),
            };
            if let Some(ClientIdentity { certificates, key }) = &settings.identity {
                tls = tls.identity(Identity::from_pem(certificates, key));
            }
            endpoint = endpoint.tls_config(tls).map_err(wrong)?;
        }
        let method = PathAndQuery::from_static(signal.method());
        Ok(Self { channel: endpoint.connect_lazy(), method, is_compressed })
    }

    /// Sends a message and takes the answer to it.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Bytes, Status> {
        let (mut parts, message) = request.into_parts();
        for name in NOT_METADATA {
            parts.headers.remove(name);
        }
        let metadata = MetadataMap::from_headers(parts.headers);
        let request = tonic::Request::from_parts(metadata, Extensions::new(), message);
        let mut client = Grpc::new(self.channel.clone());
        if self.is_compressed {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        client.ready().await.map_err(|error| {
            let mut status = Status::unavailable(error.to_string());
            status.set_source(Arc::new(error));
            status
        })?;
        Ok(client.unary(request, self.method.clone(), AsItIs).await?.into_inner())
    }
}

/// An answer as the exporters read it: they retry what OTLP lets them retry, after the pause that the
/// receiver asked for.
///
/// # Errors
/// When the response cannot be put together, which the types do not rule out.
pub(super) fn as_http(answered: &Result<Bytes, Status>) -> Result<Response<Bytes>, HttpError> {
    let status = match answered {
        Ok(body) => return Ok(Response::new(body.clone())),
        Err(status) => status,
    };
    let pause = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let mut headers = HeaderMap::new();
    if let Some(pause) = pause {
        // Seconds, and none too few.
        let secs = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(secs));
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => StatusCode::SERVICE_UNAVAILABLE,
        Code::ResourceExhausted if pause.is_some() => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::BAD_REQUEST,
    };
    *response.headers_mut() = headers;
    Ok(response)
}

/// Messages that are bytes already.
struct AsItIs;

impl Codec for AsItIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(to, item);
        Ok(())
    }
}

impl Decoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let rest = bytes::Buf::remaining(from);
        Ok(Some(bytes::Buf::copy_to_bytes(from, rest)))
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    /// OTLP, "Failures": which codes may be retried, and that RESOURCE_EXHAUSTED may with RetryInfo.
    #[test]
    fn r2_1_what_otlp_lets_be_retried_is_retried() {
        let plain = |code| as_http(&Err(Status::new(code, "as the test says"))).expect("an answer");
        for (code, expected) in [
            (Code::Unavailable, 503),
            (Code::DataLoss, 503),
            (Code::ResourceExhausted, 400),
            (Code::InvalidArgument, 400),
            (Code::Unauthenticated, 400),
            (Code::Internal, 400),
        ] {
            assert_eq!(plain(code).status().as_u16(), expected, "{code:?}");
            assert!(!plain(code).headers().contains_key(RETRY_AFTER));
        }
        let asks = ErrorDetails::with_retry_info(Some(Duration::from_millis(1_500)));
        let busy = Status::with_error_details(Code::ResourceExhausted, "busy", asks);
        let told = as_http(&Err(busy)).expect("an answer");
        assert_eq!(
            (told.status().as_u16(), &told.headers()[RETRY_AFTER]),
            (429, &HeaderValue::from(2))
        );
    }
}
