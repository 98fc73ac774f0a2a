//! OTLP exporters from what the builder said and the `OTEL_EXPORTER_OTLP_*` variables say.
//!
//! The exporters read endpoint, headers and timeout from the environment themselves; they are built
//! without compression. Here is what they leave to the caller: the protocol, the client, TLS roots,
//! that the builder's values come first, and that the environment may be left unread. For gRPC they are
//! the same exporters with another client ([`over_grpc`]), which has to be told the address.

mod answer;
mod environment;
mod exemplars;
mod headers;
#[cfg(feature = "grpc")]
mod over_grpc;

use std::fmt;
use std::time::Duration;

use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig,
    WithHttpConfig,
};
use opentelemetry_sdk::metrics::Temporality;
use reqwest::Url;

pub(crate) use self::answer::{Heard, Rejections};
pub(crate) use self::environment::Environment;
use self::headers::{ExportClient, ExportHeaders, Way};
#[cfg(feature = "grpc")]
use self::over_grpc::GrpcWay;
use crate::http_client::{self, Roots, Route, without_userinfo};
use crate::metrics::Exemplars;
use crate::telemetry::TelemetryError;

/// How long one export may take when nobody says (OTLP exporter specification).
const TIMEOUT: Duration = Duration::from_secs(10);

/// How telemetry travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP/gRPC, by default to port 4317. Needs the feature `grpc`.
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

    /// Where telemetry goes when nobody says (OTLP exporter specification).
    fn default_endpoint(self) -> &'static str {
        match self {
            Self::Grpc => "http://localhost:4317",
            Self::HttpProtobuf => "http://localhost:4318",
        }
    }
}

/// What the builder said about export.
#[derive(Clone, Default)]
pub(crate) struct OtlpSettings {
    pub(crate) endpoint: Option<String>,
    pub(crate) protocol: Option<OtlpProtocol>,
    pub(crate) headers: http::HeaderMap,
    pub(crate) timeout: Option<Duration>,
    pub(crate) environment: Environment,
}

impl fmt::Debug for OtlpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpSettings")
            .field("endpoint", &self.endpoint.as_deref().map(without_userinfo))
            .field("protocol", &self.protocol)
            // Their values are marked as sensitive.
            .field("headers", &self.headers)
            .field("timeout", &self.timeout)
            .field("environment", &self.environment)
            .finish()
    }
}

/// The signals, as their variables and paths spell them.
#[derive(Debug, Clone, Copy)]
enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

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
            if let Some(text) = settings.environment.variable(name) {
                return OtlpProtocol::from_text(&text).ok_or_else(|| TelemetryError::Setting {
                    name: name.to_owned(),
                    expected: "grpc or http/protobuf",
                    got: text,
                });
            }
        }
        Ok(OtlpProtocol::HttpProtobuf)
    }

    /// What the builder or else the environment says of where the signal goes.
    fn said_address(self, settings: &OtlpSettings) -> Option<String> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", self.variable());
        settings
            .endpoint
            .clone()
            .or_else(|| settings.environment.variable(&own))
            .or_else(|| settings.environment.variable("OTEL_EXPORTER_OTLP_ENDPOINT"))
    }

    /// Where the signal goes over gRPC. Without a scheme it is `https`, unless
    /// `OTEL_EXPORTER_OTLP_INSECURE` says otherwise.
    #[cfg(feature = "grpc")]
    fn grpc_address(self, settings: &OtlpSettings) -> String {
        let default = || OtlpProtocol::Grpc.default_endpoint().to_owned();
        let address = self.said_address(settings).unwrap_or_else(default);
        if address.contains("://") {
            return address;
        }
        let own = format!("OTEL_EXPORTER_OTLP_{}_INSECURE", self.variable());
        let variable = |name: &str| settings.environment.variable(name);
        let said = variable(&own).or_else(|| variable("OTEL_EXPORTER_OTLP_INSECURE"));
        let is_insecure = said.is_some_and(|text| text.eq_ignore_ascii_case("true"));
        format!("{}://{address}", if is_insecure { "http" } else { "https" })
    }

    /// How long one export of the signal may take.
    ///
    /// # Errors
    /// [`TelemetryError::Setting`] when a variable says no number of milliseconds.
    #[cfg(feature = "grpc")]
    fn timeout(self, settings: &OtlpSettings) -> Result<Duration, TelemetryError> {
        if let Some(timeout) = settings.timeout {
            return Ok(timeout);
        }
        let own = format!("OTEL_EXPORTER_OTLP_{}_TIMEOUT", self.variable());
        for name in [own.as_str(), "OTEL_EXPORTER_OTLP_TIMEOUT"] {
            if let Some(text) = settings.environment.variable(name) {
                let millis = text.parse().map_err(|_| TelemetryError::Setting {
                    name: name.to_owned(),
                    expected: "a number of milliseconds",
                    got: text,
                })?;
                return Ok(Duration::from_millis(millis));
            }
        }
        Ok(TIMEOUT)
    }

    /// Where the signal goes over HTTP, up to the path. An address that is none is told by the
    /// exporter; until then it is taken for one that may be anywhere.
    fn http_address(self, settings: &OtlpSettings) -> Option<Url> {
        let said = self.said_address(settings);
        let default = OtlpProtocol::HttpProtobuf.default_endpoint();
        Url::parse(said.as_deref().unwrap_or(default)).ok()
    }
}

/// Builds exporters; to be used within the runtime that they are to live on.
pub(crate) struct OtlpExporters {
    settings: OtlpSettings,
    headers: ExportHeaders,
    exemplars: Exemplars,
    #[cfg(feature = "grpc")]
    certificate: Option<Vec<u8>>,
    /// For what is on this machine.
    direct: reqwest::Client,
    /// For what may be elsewhere.
    proxied: reqwest::Client,
}

impl OtlpExporters {
    /// # Errors
    /// When the certificate file cannot be read or TLS cannot be set up.
    pub(crate) fn new(settings: OtlpSettings) -> Result<Self, TelemetryError> {
        let certificate = match settings.environment.variable("OTEL_EXPORTER_OTLP_CERTIFICATE") {
            Some(path) => Some(std::fs::read(&path).map_err(|error| TelemetryError::Setting {
                name: "OTEL_EXPORTER_OTLP_CERTIFICATE".to_owned(),
                expected: "a readable PEM file",
                got: format!("{path} ({error})"),
            })?),
            None => None,
        };
        let addresses = Signal::ALL.map(|signal| signal.http_address(&settings));
        let roots = match &certificate {
            Some(pem) => Roots::SystemAnd(pem),
            None => Roots::needed_for(addresses.iter().flatten()),
        };
        let tls = http_client::tls(roots).map_err(TelemetryError::Exporter)?;
        let client =
            |route| http_client::client_with(tls.clone(), route).map_err(TelemetryError::Exporter);
        let (direct, proxied) = (client(Route::Direct)?, client(Route::AsTheSystemSays)?);
        let headers = ExportHeaders::new(settings.headers.clone(), settings.environment);
        Ok(Self {
            settings,
            headers,
            exemplars: Exemplars::default(),
            #[cfg(feature = "grpc")]
            certificate,
            direct,
            proxied,
        })
    }

    /// The exporter, and what it hears from the receiver.
    pub(crate) fn spans(&self) -> Result<(SpanExporter, Heard), TelemetryError> {
        let heard = Heard::default();
        let builder = SpanExporter::builder().with_http();
        Ok((self.with_client(builder, Signal::Traces, &heard)?.build()?, heard))
    }

    /// The exporter, and what it hears from the receiver.
    pub(crate) fn logs(&self) -> Result<(LogExporter, Heard), TelemetryError> {
        let heard = Heard::default();
        let builder = LogExporter::builder().with_http();
        Ok((self.with_client(builder, Signal::Logs, &heard)?.build()?, heard))
    }

    pub(crate) fn metrics(&self) -> Result<MetricExporter, TelemetryError> {
        let builder =
            MetricExporter::builder().with_temporality(temporality(self.settings.environment)?);
        let (builder, unheard) = (builder.with_http(), Heard::default());
        Ok(self.with_client(builder, Signal::Metrics, &unheard)?.build()?)
    }

    /// The exemplars that the export of metrics takes along.
    ///
    /// # Errors
    /// [`TelemetryError::Setting`] when `OTEL_METRICS_EXEMPLAR_FILTER` says something that it cannot.
    pub(crate) fn exemplars(&self) -> Result<Option<Exemplars>, TelemetryError> {
        const NAME: &str = "OTEL_METRICS_EXEMPLAR_FILTER";
        let environment = self.settings.environment;
        let is_on = match environment.variable(NAME).as_deref() {
            Some("always_off") => false,
            // One that leads to no trace is no use to anybody, so these two are one.
            None | Some("trace_based" | "always_on") => true,
            Some(text) => {
                return Err(TelemetryError::Setting {
                    name: NAME.to_owned(),
                    expected: "always_on, always_off or trace_based",
                    got: text.to_owned(),
                });
            }
        };
        let is_taken = environment.is_wanted("OTEL_METRICS_EXPORTER");
        Ok((is_on && is_taken).then(|| self.exemplars.clone()))
    }

    /// The builder with a client of ours and the address.
    fn with_client<B: WithExportConfig + WithHttpConfig>(
        &self,
        builder: B,
        signal: Signal,
        heard: &Heard,
    ) -> Result<B, TelemetryError> {
        let builder = self.with_timeout(builder).with_protocol(Protocol::HttpBinary);
        let client = |way| ExportClient {
            way,
            headers: self.headers.clone(),
            heard: heard.clone(),
            exemplars: matches!(signal, Signal::Metrics).then(|| self.exemplars.clone()),
        };
        match signal.protocol(&self.settings)? {
            #[cfg(feature = "grpc")]
            OtlpProtocol::Grpc => {
                let address = signal.grpc_address(&self.settings);
                let (certificate, timeout) = (&self.certificate, signal.timeout(&self.settings)?);
                let way = GrpcWay::new(signal, &address, certificate.as_deref(), timeout)?;
                Ok(builder.with_http_client(client(Way::Grpc(way))).with_endpoint(address))
            }
            #[cfg(not(feature = "grpc"))]
            OtlpProtocol::Grpc => Err(no_grpc()),
            OtlpProtocol::HttpProtobuf => {
                let route = signal.http_address(&self.settings).map(|url| Route::to(&url));
                let way = match route {
                    Some(Route::Direct) => &self.direct,
                    Some(Route::AsTheSystemSays) | None => &self.proxied,
                };
                let builder = builder.with_http_client(client(Way::Http(way.clone())));
                let Some(base) = self.http_endpoint() else { return Ok(builder) };
                let base = base.trim_end_matches('/');
                let path = signal.path();
                // The builder takes a base, as OTEL_EXPORTER_OTLP_ENDPOINT does.
                let base = base.strip_suffix(path).unwrap_or(base);
                Ok(builder.with_endpoint(format!("{base}{path}")))
            }
        }
    }

    /// Where telemetry goes; `None` to leave it to the exporter, which reads the environment.
    fn http_endpoint(&self) -> Option<&str> {
        let default = (!self.settings.environment.is_read())
            .then(|| OtlpProtocol::HttpProtobuf.default_endpoint());
        self.settings.endpoint.as_deref().or(default)
    }

    fn with_timeout<B: WithExportConfig>(&self, builder: B) -> B {
        let default = (!self.settings.environment.is_read()).then_some(TIMEOUT);
        match self.settings.timeout.or(default) {
            Some(timeout) => builder.with_timeout(timeout),
            None => builder,
        }
    }
}

/// What a program is told that asks for gRPC and was built without it.
#[cfg(not(feature = "grpc"))]
fn no_grpc() -> TelemetryError {
    TelemetryError::Setting {
        name: "OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(),
        expected: "http/protobuf, since `throughline` was built without its feature `grpc`",
        got: "grpc".to_owned(),
    }
}

fn temporality(environment: Environment) -> Result<Temporality, TelemetryError> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    match environment.variable(NAME) {
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
