//! Forms that people send, read within bounds: the sign-in form is open to everybody.

use std::time::Duration;

use axum::Form;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::session;
use crate::state::App;

/// Largest form, bytes: a key, a token and an address are far below.
pub(crate) const MAX_FORM_BYTES: usize = 16 * 1024;

/// How long a form may take to arrive, in all.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// Refuses a form that is not the page's own.
pub(crate) fn check_token(app: &App, headers: &HeaderMap, token: &str) -> Result<(), Failure> {
    let name = session::session_cookie_name(app.web.is_tls);
    if let Some(cookie) = session::cookie(headers, name)
        && !session::is_form_token(&app.web.cookie_secret, cookie, token)
    {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "form_token",
            "expected the token of the page's own form, got another",
            "load the page again and use its button",
        ));
    }
    Ok(())
}

/// A form of at most [`MAX_FORM_BYTES`] (the router sets that limit) within [`FORM_TIMEOUT`].
pub(crate) struct ShortForm<T>(pub(crate) T);

impl<T, S> FromRequest<S> for ShortForm<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let reading = tokio::time::timeout(FORM_TIMEOUT, Form::<T>::from_request(request, state));
        let rejection = match reading.await {
            Ok(Ok(Form(form))) => return Ok(Self(form)),
            Ok(Err(rejection)) => rejection,
            Err(_) => {
                return Err(Failure::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "form_timeout",
                    format!(
                        "expected the whole form within {} s, got a part",
                        FORM_TIMEOUT.as_secs()
                    ),
                    "send it again",
                ));
            }
        };
        let status = rejection.status();
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            return Err(Failure::new(
                status,
                "form_too_large",
                format!("expected a form of at most {MAX_FORM_BYTES} bytes, got more"),
                "send the fields of the page's own form only",
            ));
        }
        Err(Failure::new(
            status,
            "bad_form",
            format!("expected the fields of the page's own form: {rejection}"),
            "load the page again",
        ))
    }
}
