//! OTLP exporters from what the builder said and the `OTEL_EXPORTER_OTLP_*` variables say.
//!
//! The exporters read endpoint, headers and timeout from the environment themselves. Here is what they
//! leave to the caller: the protocol, the client, TLS, that the builder's values come first, and that the
//! environment may be left unread. What they make is compressed
//! where it leaves, after the exemplars are laid on; where a host's build has them compress it, that is undone. For gRPC they are the same exporters with another
//! client ([`over_grpc`]), which has to be told the address.

mod answer;
mod environment;
mod exemplars;
mod headers;
#[cfg(feature = "grpc")]
mod over_grpc;
mod tls;
mod trouble;

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
pub(crate) use self::tls::TlsSettings;
pub(crate) use self::trouble::EXPORT_TARGET;
use self::trouble::Troubles;
use crate::http_client::{self, Route, without_userinfo};
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
    pub(crate) is_compressed: Option<bool>,
    pub(crate) tls: TlsSettings,
    pub(crate) environment: Environment,
    /// Of everything that exports by these settings, so that each is told once.
    troubles: Troubles,
}

impl fmt::Debug for OtlpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpSettings")
            .field("endpoint", &self.endpoint.as_deref().map(without_userinfo))
            .field("protocol", &self.protocol)
            // Their values are marked as sensitive.
            .field("headers", &self.headers)
            .field("timeout", &self.timeout)
            .field("is_compressed", &self.is_compressed)
            .field("tls", &self.tls)
            .field("environment", &self.environment)
            .finish()
    }
}

/// What the environment says of exports (`OTEL_EXPORTER_OTLP_{what}`), of a signal's own first: the name
/// of the variable, and its value.
fn said(environment: Environment, signal: Option<Signal>, what: &str) -> Option<(String, String)> {
    let own = signal.map(|signal| format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.variable()));
    let names = own.into_iter().chain([format!("OTEL_EXPORTER_OTLP_{what}")]);
    names.into_iter().find_map(|name| {
        let value = environment.variable(&name)?;
        Some((name, value))
    })
}

/// The signals, as their variables and paths spell them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signal {
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

    /// What the environment says of the signal's export.
    fn said(self, settings: &OtlpSettings, what: &str) -> Option<(String, String)> {
        said(settings.environment, Some(self), what)
    }

    fn protocol(self, settings: &OtlpSettings) -> Result<OtlpProtocol, TelemetryError> {
        if let Some(protocol) = settings.protocol {
            return Ok(protocol);
        }
        let Some((name, got)) = self.said(settings, "PROTOCOL") else {
            return Ok(OtlpProtocol::HttpProtobuf);
        };
        let expected = "grpc or http/protobuf";
        OtlpProtocol::from_text(&got).ok_or(TelemetryError::Setting { name, expected, got })
    }

    /// Whether the signal's exports are compressed, with gzip.
    ///
    /// # Errors
    /// [`TelemetryError::Setting`] when a variable names another way.
    fn is_compressed(self, settings: &OtlpSettings) -> Result<bool, TelemetryError> {
        if let Some(wanted) = settings.is_compressed {
            return Ok(wanted);
        }
        let Some((name, got)) = self.said(settings, "COMPRESSION") else { return Ok(false) };
        match got.to_ascii_lowercase().as_str() {
            "gzip" => Ok(true),
            "none" => Ok(false),
            _ => Err(TelemetryError::Setting { name, expected: "gzip or none", got }),
        }
    }

    /// What the builder or else the environment says of where the signal goes.
    fn said_address(self, settings: &OtlpSettings) -> Option<String> {
        let said = || self.said(settings, "ENDPOINT").map(|(_, address)| address);
        settings.endpoint.clone().or_else(said)
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
        let said = self.said(settings, "INSECURE");
        let is_insecure = said.is_some_and(|(_, text)| text.eq_ignore_ascii_case("true"));
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
        let Some((name, got)) = self.said(settings, "TIMEOUT") else { return Ok(TIMEOUT) };
        let millis = got.parse().map_err(|_| TelemetryError::Setting {
            name,
            expected: "a number of milliseconds",
            got,
        })?;
        Ok(Duration::from_millis(millis))
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
    ways: SignalWays,
}

/// How each signal gets to its receiver.
///
/// By the place of the signal in [`Signal::ALL`].
struct SignalWays {
    #[cfg(feature = "grpc")]
    tls: [TlsSettings; 3],
    http: [reqwest::Client; 3],
}

impl SignalWays {
    /// # Errors
    /// When a file cannot be read or TLS cannot be set up.
    fn of(settings: &OtlpSettings) -> Result<Self, TelemetryError> {
        let address = |signal: Signal| signal.http_address(settings);
        let addresses = Signal::ALL.map(address);
        let is_tls_needed = addresses.iter().flatten().any(|url| url.scheme() == "https");
        let [traces, metrics, logs] =
            Signal::ALL.map(|signal| TlsSettings::of(Some(signal), settings));
        let tls = [traces?, metrics?, logs?];
        // Signals that differ in nothing share their connections.
        let mut made: Vec<(&TlsSettings, Route, reqwest::Client)> = Vec::new();
        for (tls, url) in tls.iter().zip(&addresses) {
            let route = url.as_ref().map_or(Route::AsTheSystemSays, Route::to);
            let same = made.iter().find(|(other, way, _)| *other == tls && *way == route);
            let client = match same {
                Some((_, _, client)) => client.clone(),
                None => {
                    let roots = tls.roots(is_tls_needed);
                    http_client::tls_as(roots, tls.identity.as_ref())
                        .and_then(|config| http_client::client_with(config, route))
                        .map_err(TelemetryError::Exporter)?
                }
            };
            made.push((tls, route, client));
        }
        let http = [0, 1, 2].map(|at| made[at].2.clone());
        Ok(Self {
            http,
            #[cfg(feature = "grpc")]
            tls,
        })
    }
}

impl OtlpExporters {
    /// # Errors
    /// When a file of certificates cannot be read or TLS cannot be set up.
    pub(crate) fn new(settings: OtlpSettings) -> Result<Self, TelemetryError> {
        let ways = SignalWays::of(&settings)?;
        let headers = ExportHeaders::new(settings.headers.clone(), settings.environment);
        Ok(Self { settings, headers, exemplars: Exemplars::default(), ways })
    }

    /// The exporter, and what it hears from the receiver.
    pub(crate) fn spans(&self) -> Result<(SpanExporter, Heard), TelemetryError> {
        let heard = self.heard();
        let builder = SpanExporter::builder().with_http();
        Ok((self.with_client(builder, Signal::Traces, &heard)?.build()?, heard))
    }

    /// The exporter, and what it hears from the receiver.
    pub(crate) fn logs(&self) -> Result<(LogExporter, Heard), TelemetryError> {
        let heard = self.heard();
        let builder = LogExporter::builder().with_http();
        Ok((self.with_client(builder, Signal::Logs, &heard)?.build()?, heard))
    }

    /// The exporter, and what it hears from the receiver.
    pub(crate) fn metrics(&self) -> Result<(MetricExporter, Heard), TelemetryError> {
        let builder =
            MetricExporter::builder().with_temporality(temporality(self.settings.environment)?);
        let (builder, heard) = (builder.with_http(), self.heard());
        Ok((self.with_client(builder, Signal::Metrics, &heard)?.build()?, heard))
    }

    /// What one more exporter hears: nothing so far.
    fn heard(&self) -> Heard {
        Heard::with(self.settings.troubles.of_another())
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
        let is_compressed = signal.is_compressed(&self.settings)?;
        let client = |way| ExportClient {
            way,
            headers: self.headers.clone(),
            heard: heard.clone(),
            is_compressed,
            exemplars: matches!(signal, Signal::Metrics).then(|| self.exemplars.clone()),
        };
        match signal.protocol(&self.settings)? {
            #[cfg(feature = "grpc")]
            OtlpProtocol::Grpc => {
                let address = signal.grpc_address(&self.settings);
                let (tls, timeout) =
                    (&self.ways.tls[signal as usize], signal.timeout(&self.settings)?);
                let way = GrpcWay::new(signal, &address, tls, (timeout, is_compressed))?;
                Ok(builder.with_http_client(client(Way::Grpc(way))).with_endpoint(address))
            }
            #[cfg(not(feature = "grpc"))]
            OtlpProtocol::Grpc => Err(no_grpc()),
            OtlpProtocol::HttpProtobuf => {
                let way = self.ways.http[signal as usize].clone();
                let builder = builder.with_http_client(client(Way::Http(way)));
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
