//! Requests to other machines: one client that trusts what the system trusts, and the words for
//! what went wrong.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// Longest wait for an answer to what an action sends.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters of an answer that a message shows.
const SHOWN_CHARS: usize = 200;

/// Why something was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undelivered {
    /// For people, without secrets.
    pub(crate) message: String,
    /// Whether another try may fare better.
    pub(crate) is_passing: bool,
}

/// A client that trusts what the system trusts, follows no redirects and waits for so long.
///
/// # Errors
/// When there is no TLS to be had.
pub fn client(is_tls: bool, timeout: Duration) -> Result<Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    // A system without roots can reach an address without TLS.
    let builder = match is_tls {
        true => builder.with_platform_verifier().map_err(|error| error.to_string())?,
        false => builder.with_root_certificates(RootCertStore::empty()),
    };
    Client::builder()
        .tls_backend_preconfigured(builder.with_no_client_auth())
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("throughline/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.to_string())
}

/// Sends a request; anything but 2xx is told. 429 and 5xx may pass, and so may a broken connection.
pub(crate) async fn send(request: RequestBuilder) -> Result<Response, Undelivered> {
    let answer = request.send().await.map_err(|error| {
        let cause = error.source().map(ToString::to_string);
        // The address may hold a secret.
        let message = cause.unwrap_or_else(|| error.without_url().to_string());
        Undelivered { message, is_passing: true }
    })?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let is_passing = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    let said = answer.text().await.unwrap_or_default();
    let said: String = said.trim().chars().take(SHOWN_CHARS).collect();
    let message = match said.is_empty() {
        true => format!("answered {status}"),
        false => format!("answered {status}: {said}"),
    };
    Err(Undelivered { message, is_passing })
}
