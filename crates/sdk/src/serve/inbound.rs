//! What a run's span tells of the request that it answers.

use http::{Request, StatusCode};
use opentelemetry::KeyValue;
use throughline_trace::keys;

use super::answer::Refusal;
use crate::agent::{AgentError, Inbound};
use crate::middleware::naming::http_server_attributes;

impl Inbound {
    /// A request over HTTP that came along this route.
    pub(super) fn of_http<B>(request: &Request<B>, route: &str) -> Self {
        let attributes = http_server_attributes(request, Some(route.to_owned()));
        Self { attributes, status: http_status }
    }

    /// The same, answered as events: the status was told before anybody knew how the run ends.
    pub(super) fn with_events(self) -> Self {
        Self { status: |_| told(StatusCode::OK), ..self }
    }

    /// A call over gRPC.
    #[cfg(feature = "grpc")]
    pub(super) fn of_grpc<B>(
        request: &Request<B>,
        status: fn(Option<&AgentError>) -> KeyValue,
    ) -> Self {
        let attributes = crate::middleware::naming::grpc_server_attributes(request);
        Self { attributes, status }
    }
}

fn http_status(error: Option<&AgentError>) -> KeyValue {
    told(error.map_or(StatusCode::OK, |error| Refusal::of(error).status))
}

fn told(status: StatusCode) -> KeyValue {
    KeyValue::new(keys::HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16()))
}
