//! Signing in with an API key, and out again.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use throughline_trace::access::{AccessError, KEY_PREFIX, Scope};

use crate::doors::Visitor;
use crate::failure::Failure;
use crate::form::ShortForm;
use crate::icons::mark;
use crate::layout;
use crate::params::Params;
use crate::session::{self, PRE_COOKIE};
use crate::state::Shared;

/// Where people land when no page was asked for.
const HOME: &str = "/traces";
/// How long a sign-in form may stay open, seconds.
const FORM_SECS: u64 = 3_600;

/// `GET /login?next=`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
    headers: HeaderMap,
) -> Response {
    let next = local_path(params.text("next").unwrap_or(HOME));
    if visitor.key.is_some() || !app.web.keyring.is_required() {
        return Redirect::to(next).into_response();
    }
    form_page(&app, &visitor, &headers, next, None, StatusCode::OK)
}

/// The form of the sign-in page.
#[derive(Debug, Deserialize)]
pub(crate) struct SignIn {
    #[serde(default)]
    key: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    next: String,
}

/// `POST /login`
pub(crate) async fn sign_in(
    State(app): State<Shared>,
    visitor: Visitor,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    ShortForm(form): ShortForm<SignIn>,
) -> Response {
    let next = local_path(&form.next);
    let from = peer.map(|Extension(ConnectInfo(address))| address.ip());
    let now = visitor.now_unix_nano;
    let refuse = |status: StatusCode, message: &str| {
        form_page(&app, &visitor, &headers, next, Some(message), status)
    };
    let pre = session::cookie(&headers, PRE_COOKIE).unwrap_or_default();
    if pre.is_empty() || !session::is_form_token(&app.web.cookie_secret, pre, &form.token) {
        return refuse(StatusCode::FORBIDDEN, "This form was open for too long. Please try again.");
    }
    if let Some(secs) = app.sign_ins.wait_secs(from, now) {
        let message = format!("Too many wrong keys. Please wait {secs} seconds.");
        let mut response = refuse(StatusCode::TOO_MANY_REQUESTS, &message);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
        return response;
    }
    match app.web.keyring.check(Some(&form.key), Scope::Read) {
        Ok(Some(key)) => {
            let sealed = session::seal(&app.web.cookie_secret, &key.id, now);
            let mut response = Redirect::to(next).into_response();
            let name = session::session_cookie_name(app.web.is_tls);
            set_cookie(&mut response, name, &sealed, session::SESSION_SECS, app.web.is_tls);
            set_cookie(&mut response, PRE_COOKIE, "", 0, app.web.is_tls);
            response
        }
        Ok(None) => Redirect::to(next).into_response(),
        Err(error) => {
            app.sign_ins.note_failure(from, now);
            let message = match error {
                AccessError::Missing => "Please enter a key.",
                AccessError::Unknown => "This key is not known, or was revoked.",
                AccessError::Scope { .. } => {
                    "This key may not read. A key with the scope read is needed."
                }
            };
            refuse(StatusCode::FORBIDDEN, message)
        }
    }
}

/// The form of the sign-out button.
#[derive(Debug, Deserialize)]
pub(crate) struct SignOut {
    #[serde(default)]
    token: String,
}

/// `POST /logout`
pub(crate) async fn sign_out(
    State(app): State<Shared>,
    headers: HeaderMap,
    ShortForm(form): ShortForm<SignOut>,
) -> Result<Response, Failure> {
    let name = session::session_cookie_name(app.web.is_tls);
    if let Some(cookie) = session::cookie(&headers, name)
        && !session::is_form_token(&app.web.cookie_secret, cookie, &form.token)
    {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "form_token",
            "expected the token of the page's own sign-out form, got another",
            "load the page again and sign out there",
        ));
    }
    let mut response = Redirect::to("/login").into_response();
    set_cookie(&mut response, name, "", 0, app.web.is_tls);
    Ok(response)
}

fn form_page(
    app: &Shared,
    visitor: &Visitor,
    headers: &HeaderMap,
    next: &str,
    problem: Option<&str>,
    status: StatusCode,
) -> Response {
    let known = session::cookie(headers, PRE_COOKIE).filter(|value| is_pre_cookie(value));
    let pre = known.map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned);
    let token = session::form_token(&app.web.cookie_secret, &pre);
    let page = layout::bare_page(visitor, "Sign in", draw(next, &token, problem));
    let mut response = (status, page).into_response();
    set_cookie(&mut response, PRE_COOKIE, &pre, FORM_SECS, app.web.is_tls);
    response
}

/// Only what we could have made goes back into a header.
fn is_pre_cookie(value: &str) -> bool {
    value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn draw(next: &str, token: &str, problem: Option<&str>) -> Markup {
    html! {
        div.in {
            div.mark { (mark()) }
            h1 { "Throughline" }
            p { "One trace from the prompt to the fallback." }
            @if let Some(problem) = problem { div.notice.error role="alert" { (problem) } }
            form method="post" action="/login" {
                input type="hidden" name="token" value=(token);
                input type="hidden" name="next" value=(next);
                label for="key" { "API key" }
                input.field #key type="password" name="key" placeholder={ (KEY_PREFIX) "…" } required autofocus
                    autocomplete="current-password" spellcheck="false";
                button.btn.main type="submit" { "Sign in" }
            }
            p.hint { "Whoever runs the server makes a key with " code { "throughline keys create --scope read" } }
        }
    }
}

fn set_cookie(response: &mut Response, name: &str, value: &str, max_age_secs: u64, is_tls: bool) {
    let secure = if is_tls { "; Secure" } else { "" };
    let text =
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age_secs}{secure}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// The path if it is one of this site, else home: a sign-in must not lead elsewhere.
fn local_path(path: &str) -> &str {
    let is_local = path.starts_with('/')
        && !path.starts_with("//")
        && !path.contains('\\')
        && !path.bytes().any(|byte| byte.is_ascii_control())
        && !path.starts_with("/login");
    if is_local && HeaderValue::from_str(path).is_ok() && path.is_ascii() { path } else { HOME }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_leads_to_this_site_only() {
        assert_eq!(local_path("/decisions?agent=a"), "/decisions?agent=a");
        for elsewhere in [
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "\\\\evil",
            "evil",
            "",
            "/a\r\nset-cookie: x=y",
            "/login?next=/login",
            "/ü",
        ] {
            assert_eq!(local_path(elsewhere), HOME, "{elsewhere:?}");
        }
    }
}
