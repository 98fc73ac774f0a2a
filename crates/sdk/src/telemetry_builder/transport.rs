//! What the builder says of how telemetry gets to its receiver.

use std::time::Duration;

use super::TelemetryBuilder;
use crate::http_client::{ClientIdentity, secret_header};
use crate::telemetry_otlp::{Environment, OtlpProtocol};

impl TelemetryBuilder {
    /// Where telemetry goes, as `OTEL_EXPORTER_OTLP_ENDPOINT` spells it: `http://host:4317` for
    /// gRPC, `http://host:4318` for HTTP (the path of the signal is added).
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.otlp.endpoint = Some(url.into());
        self
    }

    /// How telemetry travels (`OTEL_EXPORTER_OTLP_PROTOCOL`); HTTP when nobody says.
    pub fn protocol(mut self, protocol: OtlpProtocol) -> Self {
        self.otlp.protocol = Some(protocol);
        self
    }

    /// Whether the `OTEL_*` variables are read; they are when nobody says. Without them, what is
    /// not said has its default: for telemetry whose receiver the program itself chooses, which the
    /// variables of a shell must not send elsewhere or switch off. `RUST_LOG` and the proxy of the
    /// system hold all the same.
    pub fn environment(mut self, is_read: bool) -> Self {
        self.otlp.environment = Environment::new(is_read);
        self
    }

    /// A header of every export (`OTEL_EXPORTER_OTLP_HEADERS`). Its value is never shown.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match secret_header(name, value) {
            Ok((name, value)) => {
                self.otlp.headers.insert(name, value);
            }
            Err(_) => self.bad_header = Some(name.to_owned()),
        }
        self
    }

    /// The key of a Throughline server, sent as `Authorization: Bearer …`.
    pub fn api_key(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    /// How long one export may take (`OTEL_EXPORTER_OTLP_TIMEOUT`, 10 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.otlp.timeout = Some(timeout);
        self
    }

    /// Whether exports are compressed, with gzip (`OTEL_EXPORTER_OTLP_COMPRESSION`; they are not).
    pub fn compress(mut self, wanted: bool) -> Self {
        self.otlp.is_compressed = Some(wanted);
        self
    }

    /// The authorities that are believed when a receiver shows its certificate, in place of the
    /// system's: certificates as PEM (`OTEL_EXPORTER_OTLP_CERTIFICATE`, which names a file of them).
    pub fn certificate(mut self, authorities_pem: impl Into<Vec<u8>>) -> Self {
        self.otlp.tls.authorities = Some(authorities_pem.into());
        self
    }

    /// Who this process says that it is to a receiver that asks: its certificate, those that lead to an
    /// authority after it, and its private key, as PEM (`OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE` and
    /// `OTEL_EXPORTER_OTLP_CLIENT_KEY`, which name files). The key is never shown.
    pub fn client_certificate(
        mut self,
        certificates_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        let (certificates, key) = (certificates_pem.into(), key_pem.into());
        self.otlp.tls.identity = Some(ClientIdentity { certificates, key });
        self
    }
}
