//! OTLP exporters from what the builder said and the `OTEL_EXPORTER_OTLP_*` variables say.
//!
//! The exporters read endpoint, headers, timeout and compression from the environment themselves;
//! here is what they leave to the caller: the protocol, the HTTP client, TLS roots, and that the
//! builder's values come first.

use std::time::Duration;

use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::metrics::Temporality;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::telemetry::TelemetryError;

/// How telemetry travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP/gRPC, by default to port 4317.
    Grpc,
    /// OTLP/HTTP with protobuf bodies, by default to port 4318.
    HttpProtobuf,
}

impl OtlpProtocol {
    /// The protocol that a value of `OTEL_EXPORTER_OTLP_PROTOCOL` names. `http/json` becomes
    /// protobuf: every receiver of the one takes the other on the same port.
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "grpc" => Some(Self::Grpc),
            "http/protobuf" | "http/json" => Some(Self::HttpProtobuf),
            _ => None,
        }
    }
}

/// What the builder said about export.
#[derive(Debug, Clone, Default)]
pub(crate) struct OtlpSettings {
    pub(crate) endpoint: Option<String>,
    pub(crate) protocol: Option<OtlpProtocol>,
    pub(crate) headers: http::HeaderMap,
    pub(crate) timeout: Option<Duration>,
}

/// The signals, as their variables and paths spell them.
#[derive(Debug, Clone, Copy)]
enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    fn variable(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
        }
    }

    fn protocol(self, settings: &OtlpSettings) -> Result<OtlpProtocol, TelemetryError> {
        if let Some(protocol) = settings.protocol {
            return Ok(protocol);
        }
        let own = format!("OTEL_EXPORTER_OTLP_{}_PROTOCOL", self.variable());
        for name in [own.as_str(), "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            if let Some(text) = variable(name) {
                return OtlpProtocol::from_text(&text).ok_or_else(|| TelemetryError::Setting {
                    name: name.to_owned(),
                    expected: "grpc or http/protobuf",
                    got: text,
                });
            }
        }
        Ok(OtlpProtocol::HttpProtobuf)
    }
}

/// A variable that is set and not empty (OpenTelemetry treats empty as unset).
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Builds exporters; to be used within the runtime that they are to live on.
pub(crate) struct OtlpExporters {
    settings: OtlpSettings,
    certificate: Option<Vec<u8>>,
    client: reqwest::Client,
}

impl OtlpExporters {
    /// # Errors
    /// When the certificate file cannot be read or TLS cannot be set up.
    pub(crate) fn new(settings: OtlpSettings) -> Result<Self, TelemetryError> {
        // Only if the host has not chosen one: the first choice of a process stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificate = match variable("OTEL_EXPORTER_OTLP_CERTIFICATE") {
            Some(path) => Some(std::fs::read(&path).map_err(|error| TelemetryError::Setting {
                name: "OTEL_EXPORTER_OTLP_CERTIFICATE".to_owned(),
                expected: "a readable PEM file",
                got: format!("{path} ({error})"),
            })?),
            None => None,
        };
        let mut client = reqwest::Client::builder();
        if let Some(pem) = &certificate {
            for root in
                reqwest::Certificate::from_pem_bundle(pem).map_err(TelemetryError::client)?
            {
                client = client.add_root_certificate(root);
            }
        }
        let client = client.build().map_err(TelemetryError::client)?;
        Ok(Self { settings, certificate, client })
    }

    pub(crate) fn spans(&self) -> Result<SpanExporter, TelemetryError> {
        let builder = SpanExporter::builder();
        let built = match Signal::Traces.protocol(&self.settings)? {
            OtlpProtocol::Grpc => self.grpc(builder.with_tonic()).build(),
            OtlpProtocol::HttpProtobuf => self.http(builder.with_http(), Signal::Traces).build(),
        };
        Ok(built?)
    }

    pub(crate) fn logs(&self) -> Result<LogExporter, TelemetryError> {
        let builder = LogExporter::builder();
        let built = match Signal::Logs.protocol(&self.settings)? {
            OtlpProtocol::Grpc => self.grpc(builder.with_tonic()).build(),
            OtlpProtocol::HttpProtobuf => self.http(builder.with_http(), Signal::Logs).build(),
        };
        Ok(built?)
    }

    pub(crate) fn metrics(&self) -> Result<MetricExporter, TelemetryError> {
        let builder = MetricExporter::builder().with_temporality(temporality()?);
        let built = match Signal::Metrics.protocol(&self.settings)? {
            OtlpProtocol::Grpc => self.grpc(builder.with_tonic()).build(),
            OtlpProtocol::HttpProtobuf => self.http(builder.with_http(), Signal::Metrics).build(),
        };
        Ok(built?)
    }

    fn grpc<B: WithExportConfig + WithTonicConfig>(&self, builder: B) -> B {
        let mut tls = ClientTlsConfig::new().with_enabled_roots();
        if let Some(pem) = &self.certificate {
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
        let mut builder = self
            .with_timeout(builder)
            .with_tls_config(tls)
            .with_metadata(MetadataMap::from_headers(self.settings.headers.clone()));
        if let Some(endpoint) = &self.settings.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        builder
    }

    fn http<B: WithExportConfig + WithHttpConfig>(&self, builder: B, signal: Signal) -> B {
        let headers =
            self.settings.headers.iter().filter_map(|(name, value)| {
                Some((name.to_string(), value.to_str().ok()?.to_owned()))
            });
        let mut builder = self
            .with_timeout(builder)
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(self.client.clone())
            .with_headers(headers.collect());
        if let Some(base) = &self.settings.endpoint {
            let base = base.trim_end_matches('/');
            let path = signal.path();
            // The builder takes a base, as OTEL_EXPORTER_OTLP_ENDPOINT does.
            let base = base.strip_suffix(path).unwrap_or(base);
            builder = builder.with_endpoint(format!("{base}{path}"));
        }
        builder
    }

    fn with_timeout<B: WithExportConfig>(&self, builder: B) -> B {
        match self.settings.timeout {
            Some(timeout) => builder.with_timeout(timeout),
            None => builder,
        }
    }
}

fn temporality() -> Result<Temporality, TelemetryError> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    match variable(NAME) {
        None => Ok(Temporality::Cumulative),
        Some(text) => text.parse().map_err(|()| TelemetryError::Setting {
            name: NAME.to_owned(),
            expected: "cumulative, delta or lowmemory",
            got: text,
        }),
    }
}

impl From<ExporterBuildError> for TelemetryError {
    fn from(error: ExporterBuildError) -> Self {
        Self::Exporter(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_names_are_those_of_the_specification() {
        assert_eq!(OtlpProtocol::from_text("grpc"), Some(OtlpProtocol::Grpc));
        assert_eq!(OtlpProtocol::from_text("http/protobuf"), Some(OtlpProtocol::HttpProtobuf));
        assert_eq!(OtlpProtocol::from_text("http/json"), Some(OtlpProtocol::HttpProtobuf));
        assert_eq!(OtlpProtocol::from_text("gRPC"), None);
    }
}
