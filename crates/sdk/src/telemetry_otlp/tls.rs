//! Whom exports believe over TLS, and how they say who sends them: the PEM files of the OTLP
//! exporter specification.

use super::{OtlpSettings, Signal, said};
use crate::http_client::{self, ClientIdentity, Roots};
use crate::telemetry::TelemetryError;

/// What TLS needs beside the system's authorities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    /// The only authorities that are believed, as PEM; the system's when none are said.
    pub(crate) authorities: Option<Vec<u8>>,
    /// Who the client says that it is, to a receiver that asks.
    pub(crate) identity: Option<ClientIdentity>,
}

impl TlsSettings {
    /// What holds for a signal, or for what is no signal: the builder's, or else what
    /// `OTEL_EXPORTER_OTLP_CERTIFICATE`, `…_CLIENT_CERTIFICATE` and `…_CLIENT_KEY` name.
    ///
    /// # Errors
    /// [`TelemetryError::Setting`]: a file that cannot be read or is no PEM, or one of certificate
    /// and key without the other.
    pub(crate) fn of(
        signal: Option<Signal>,
        settings: &OtlpSettings,
    ) -> Result<Self, TelemetryError> {
        let file = |what| file_of(signal, settings, what);
        let authorities = match &settings.tls.authorities {
            Some(pem) => Some(("certificate".to_owned(), pem.clone())),
            None => file("CERTIFICATE")?,
        };
        if let Some((name, pem)) = &authorities {
            http_client::certificates(pem)
                .map_err(|text| wrong(name, "certificates as PEM", text))?;
        }
        let identity = match &settings.tls.identity {
            Some(identity) => {
                let name = || "client_certificate".to_owned();
                Some(((name(), identity.certificates.clone()), (name(), identity.key.clone())))
            }
            None => match (file("CLIENT_CERTIFICATE")?, file("CLIENT_KEY")?) {
                (None, None) => None,
                (Some(certificates), Some(key)) => Some((certificates, key)),
                (Some((name, _)), None) => {
                    let expected = "OTEL_EXPORTER_OTLP_CLIENT_KEY beside it";
                    return Err(wrong(&name, expected, "no key".to_owned()));
                }
                (None, Some((name, _))) => {
                    let expected = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE beside it";
                    return Err(wrong(&name, expected, "no certificate".to_owned()));
                }
            },
        };
        if let Some(((certificates, pem), (key, key_pem))) = &identity {
            http_client::certificates(pem)
                .map_err(|text| wrong(certificates, "certificates as PEM", text))?;
            http_client::private_key(key_pem)
                .map_err(|text| wrong(key, "a private key as PEM", text))?;
        }
        let identity =
            identity.map(|((_, certificates), (_, key))| ClientIdentity { certificates, key });
        Ok(Self { authorities: authorities.map(|(_, pem)| pem), identity })
    }

    /// Whose certificates are believed of a server that may have one.
    pub(crate) fn roots(&self, is_needed: bool) -> Roots<'_> {
        match &self.authorities {
            Some(pem) => Roots::Only(pem),
            None if is_needed => Roots::System,
            None => Roots::None,
        }
    }
}

/// The variable that names a file, and what is in the file.
fn file_of(
    signal: Option<Signal>,
    settings: &OtlpSettings,
    what: &str,
) -> Result<Option<(String, Vec<u8>)>, TelemetryError> {
    let Some((name, path)) = said(settings.environment, signal, what) else { return Ok(None) };
    let pem = std::fs::read(&path)
        .map_err(|error| wrong(&name, "a readable PEM file", format!("{path} ({error})")))?;
    Ok(Some((name, pem)))
}

fn wrong(name: &str, expected: &'static str, got: String) -> TelemetryError {
    TelemetryError::Setting { name: name.to_owned(), expected, got }
}
