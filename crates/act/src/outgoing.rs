//! Requests to other machines: one client that trusts what the system trusts, and the words for
//! what went wrong.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::de::DeserializeOwned;

/// Longest wait for an answer to what an action sends.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters of an answer that a message shows.
const SHOWN_CHARS: usize = 200;

/// Bytes of an answer that are read to be shown.
const SHOWN_BYTES: usize = 4 << 10;

/// Why something was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undelivered {
    /// For people, without secrets.
    pub(crate) message: String,
    /// Whether another try may fare better.
    pub(crate) is_passing: bool,
    /// What it was answered with; `None` when no answer came.
    pub(crate) status: Option<StatusCode>,
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

/// What went wrong with a request, for people. The address is left out: it may hold a secret.
pub fn cause(error: reqwest::Error) -> String {
    let cause = error.source().map(ToString::to_string);
    cause.unwrap_or_else(|| error.without_url().to_string())
}

/// Sends a request; anything but 2xx is told. 429 and 5xx may pass, and so may a broken connection.
pub(crate) async fn send(request: RequestBuilder) -> Result<Response, Undelivered> {
    let answer = request.send().await.map_err(|error| Undelivered {
        message: cause(error),
        is_passing: true,
        status: None,
    })?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let is_passing = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    let (said, _) = read(answer, SHOWN_BYTES).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let said: String = said.trim().chars().take(SHOWN_CHARS).collect();
    let message = match said.is_empty() {
        true => format!("answered {status}"),
        false => format!("answered {status}: {said}"),
    };
    Err(Undelivered { message, is_passing, status: Some(status) })
}

/// Reads so many bytes of an answer at most; `false` with them when there are more.
///
/// # Errors
/// When the connection breaks.
pub async fn read(mut answer: Response, max_bytes: usize) -> Result<(Vec<u8>, bool), String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(cause)? {
        let place = max_bytes - bytes.len();
        bytes.extend_from_slice(chunk.get(..place).unwrap_or(&chunk));
        if chunk.len() > place {
            return Ok((bytes, false));
        }
    }
    Ok((bytes, true))
}

/// Asks, and reads the answer: JSON of a type, of so many bytes at most. `expected` says what that is.
///
/// # Errors
/// As [`send`]; an answer that breaks off may fare better another time, one of another form does not.
pub(crate) async fn ask<T: DeserializeOwned>(
    request: RequestBuilder,
    max_bytes: usize,
    expected: &str,
) -> Result<T, Undelivered> {
    let answer = send(request).await?;
    let wrong = |message: String, is_passing| Undelivered { message, is_passing, status: None };
    let (bytes, is_whole) = read(answer, max_bytes).await.map_err(|error| wrong(error, true))?;
    if !is_whole {
        let message = format!("expected an answer of at most {max_bytes} bytes, got more");
        return Err(wrong(message, false));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| wrong(format!("expected {expected} ({error})"), false))
}

/// Tries until it is answered, or refused in a way that another try does not change, or all pauses (milliseconds)
/// between tries are over; and how many tries there were after the first.
pub(crate) async fn persist<T, F>(
    pauses_ms: &[u64],
    mut once: impl FnMut() -> F,
) -> (Result<T, Undelivered>, u64)
where
    F: Future<Output = Result<T, Undelivered>>,
{
    let (mut pauses, mut retries) = (pauses_ms.iter(), 0);
    loop {
        match (once().await, pauses.next()) {
            (Err(failed), Some(pause)) if failed.is_passing => {
                retries += 1;
                tokio::time::sleep(Duration::from_millis(*pause)).await;
            }
            (told, _) => return (told, retries),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};
    use axum::response::IntoResponse as _;
    use futures_util::stream::repeat_with;

    use super::*;

    #[tokio::test]
    async fn of_an_answer_without_an_end_the_beginning_is_read() {
        let endless = || async {
            let chunks = repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1_000])));
            (StatusCode::CONFLICT, Body::from_stream(chunks)).into_response()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = axum::Router::new().fallback(endless);
        tokio::spawn(async move { axum::serve(listener, app).await });
        let client = client(false, REQUEST_TIMEOUT).expect("a client");
        let answer = client.get(&url).send().await.expect("an answer");
        let (bytes, is_all) = read(answer, 2_500).await.expect("read");
        assert_eq!((bytes.len(), is_all), (2_500, false));
        let refused = send(client.get(&url)).await.expect_err("refused");
        assert_eq!(refused.message, format!("answered 409 Conflict: {}", "x".repeat(SHOWN_CHARS)));
        assert_eq!((refused.status, refused.is_passing), (Some(StatusCode::CONFLICT), false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
        let failed =
            |is_passing| Undelivered { message: "no".to_owned(), is_passing, status: None };
        let mut tries = 0;
        let (told, retries) = persist(&[100, 400], || {
            tries += 1;
            std::future::ready(if tries < 3 { Err(failed(true)) } else { Ok(tries) })
        })
        .await;
        assert_eq!((told, retries), (Ok(3), 2));
        let began = tokio::time::Instant::now();
        let never = || std::future::ready(Err::<(), _>(failed(true)));
        assert_eq!(persist(&[100, 400], never).await, (Err(failed(true)), 2));
        assert_eq!(began.elapsed(), Duration::from_millis(500));
        let refused = || std::future::ready(Err::<(), _>(failed(false)));
        assert_eq!(persist(&[100, 400], refused).await, (Err(failed(false)), 0));
    }
}
