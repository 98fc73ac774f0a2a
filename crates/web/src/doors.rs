//! The doors: who may come in, which requests are ours to answer, and how failures look.
//!
//! Everything goes through [`guard`], also what no route answers. Whether a route is open is
//! decided by its pattern alone, in one short list.

use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use throughline_trace::access::{AccessError, ApiKey, Keyring, Scope};

use crate::failure::{Failure, PROBLEM_JSON};
use crate::format::{NANOS_PER_SEC, now_unix_nano};
use crate::layout::{self, Nav, Theme};
use crate::session;
use crate::state::{App, Shared};

/// The routes that need no key. Everything else needs one with the scope `read` (or what
/// `needed_scope` says), unless access control is off.
pub const OPEN_ROUTES: [&str; 4] = ["/healthz", "/readyz", "/login", "/assets/{hash}/{name}"];

/// Nothing but our own files, no inline script or style, no frames, no other form targets.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

/// Who asks, as far as a page must know. Put into every request by [`guard`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Visitor {
    /// The theme that was chosen; `None` follows the system.
    pub(crate) theme: Option<Theme>,
    /// The key of the request.
    pub(crate) key: Option<ApiKey>,
    /// Token for forms, when signed in by cookie.
    pub(crate) form_token: Option<String>,
    /// When the session of the cookie ends, seconds since the Unix epoch; `None` without one.
    pub(crate) session_ends_unix_secs: Option<u64>,
    /// When the request came, nanoseconds since the Unix epoch.
    pub(crate) now_unix_nano: u64,
    /// Segments that are damaged: the answer lacks what they hold.
    pub(crate) damaged_segments: Vec<String>,
}

impl Visitor {
    /// Whether who was let in would be let in now: an answer that goes on for hours must end when
    /// its key is revoked or its session is over.
    pub(crate) fn may_stay(&self, keyring: &Keyring, now_unix_nano: u64) -> bool {
        let is_over =
            self.session_ends_unix_secs.is_some_and(|ends| now_unix_nano / NANOS_PER_SEC >= ends);
        let is_live = match &self.key {
            Some(key) => keyring.check_id(&key.id, Scope::Read).is_ok(),
            None => !keyring.is_required(),
        };
        is_live && !is_over
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(parts
            .extensions
            .get::<Arc<Self>>()
            .map(|visitor| (**visitor).clone())
            .unwrap_or_default())
    }
}

/// Lets a request in or turns it away, and dresses the answer.
pub(crate) async fn guard(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let mut visitor = Visitor {
        theme: session::cookie(request.headers(), session::THEME_COOKIE).and_then(Theme::from_text),
        now_unix_nano: now_unix_nano(),
        ..Visitor::default()
    };
    let wants = Wants::of(&request);
    let path_and_query =
        request.uri().path_and_query().map_or("/", |whole| whole.as_str()).to_owned();
    let mut response = match enter(&app, &request, &mut visitor) {
        Ok(()) => {
            let damaged = app.web.reader.damaged().into_iter();
            visitor.damaged_segments = damaged.map(|one| one.segment).collect();
            request.extensions_mut().insert(Arc::new(visitor.clone()));
            if let Some(key) = &visitor.key {
                request.extensions_mut().insert(key.clone());
            }
            let mut response = next.run(request).await;
            warn_of_damage(&app, response.headers_mut());
            response
        }
        Err(Turned::ToSignIn) => sign_in_first(wants, &path_and_query),
        Err(Turned::Away(failure)) => failure.into_response(),
    };
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        response = dress(failure, wants, &visitor, &path_and_query, response.headers());
    }
    add_headers(response.headers_mut(), app.web.is_tls);
    response
}

/// What a key must allow for a route, by its pattern.
pub(crate) fn needed_scope(pattern: &str, method: &Method) -> Scope {
    match pattern {
        "/api/v1/decisions" if *method == Method::POST => Scope::Ingest,
        // Running agents have the key that they send telemetry with, and so has who tells alerts.
        "/api/v1/directives" if *method != Method::POST => Scope::Ingest,
        "/api/v1/directives/{id}/ack"
        | "/api/v1/alerts/alertmanager"
        | "/api/v1/alerts/grafana" => Scope::Ingest,
        "/governance/pause" => Scope::Act,
        "/governance/contracts/{name}"
        | "/governance/takeovers/{id}"
        | "/governance/incidents/{id}"
            if *method == Method::POST =>
        {
            Scope::Act
        }
        pattern if *method == Method::POST && acts(pattern) => Scope::Act,
        // Who read what, and what is kept and erased, is not everybody's business.
        "/api/v1/audit/reads"
        | "/api/v1/audit/erase"
        | "/api/v1/audit/holds"
        | "/api/v1/audit/holds/{hold_id}/release" => Scope::Admin,
        _ => Scope::Read,
    }
}

/// Whether a change at this route acts on the world, or on who may.
fn acts(pattern: &str) -> bool {
    let roots =
        ["directives", "actions", "takeovers", "incidents", "holds", "freezes", "contracts"];
    pattern
        .strip_prefix("/api/v1/")
        .and_then(|rest| rest.split('/').next())
        .is_some_and(|root| roots.contains(&root))
}

/// Why a request was not let in.
enum Turned {
    /// Show the sign-in page, then come back.
    ToSignIn,
    Away(Failure),
}

/// In which form an answer is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Page,
    Fragment,
    Data,
}

impl Wants {
    fn of(request: &Request) -> Self {
        let path = request.uri().path();
        if path.starts_with("/api/") || matches!(path, "/metrics" | "/healthz" | "/readyz") {
            Self::Data
        } else if request.headers().contains_key("hx-request") {
            Self::Fragment
        } else {
            Self::Page
        }
    }
}

fn enter(app: &App, request: &Request, visitor: &mut Visitor) -> Result<(), Turned> {
    let address = addressed_to(request);
    check_host(app, address).map_err(Turned::Away)?;
    let headers = request.headers();
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let needed = needed_scope(matched.unwrap_or_default(), request.method());
    let is_open = matched.is_some_and(|path| OPEN_ROUTES.contains(&path));
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(Keyring::key_of_header);
    let checked = match &bearer {
        Some(key) => app.web.keyring.check(Some(key), needed),
        None => check_cookie(app, headers, visitor, needed),
    };
    let is_by_header = bearer.is_some() && checked.is_ok();
    match checked {
        Ok(key) => visitor.key = key,
        Err(_) if is_open => {}
        Err(AccessError::Scope { .. }) if Wants::of(request) == Wants::Page && bearer.is_none() => {
            return Err(Turned::ToSignIn);
        }
        Err(error @ AccessError::Scope { .. }) => {
            return Err(Turned::Away(denied(StatusCode::FORBIDDEN, "forbidden", &error)));
        }
        Err(error) if Wants::of(request) == Wants::Data => {
            return Err(Turned::Away(denied(StatusCode::UNAUTHORIZED, "unauthorized", &error)));
        }
        Err(_) => return Err(Turned::ToSignIn),
    }
    // A program says no origin, a browser always does; a session is a browser's.
    let is_program = visitor.form_token.is_none()
        && request.uri().path().starts_with("/api/")
        && !headers.contains_key("sec-fetch-site")
        && !headers.contains_key(header::ORIGIN);
    if !is_by_header && !is_safe(request.method()) && !is_program {
        check_origin(headers, address).map_err(Turned::Away)?;
    }
    Ok(())
}

fn check_cookie(
    app: &App,
    headers: &HeaderMap,
    visitor: &mut Visitor,
    needed: Scope,
) -> Result<Option<ApiKey>, AccessError> {
    if !app.web.keyring.is_required() {
        return Ok(None);
    }
    let name = session::session_cookie_name(app.web.is_tls);
    let cookie = session::cookie(headers, name).ok_or(AccessError::Missing)?;
    let session = session::unseal(&app.web.cookie_secret, cookie, visitor.now_unix_nano)
        .ok_or(AccessError::Unknown)?;
    let key = app.web.keyring.check_id(session.key_id, needed)?;
    visitor.session_ends_unix_secs = Some(session.expires_unix_secs);
    visitor.form_token = Some(session::form_token(&app.web.cookie_secret, cookie));
    Ok(Some(key))
}

fn denied(status: StatusCode, code: &'static str, error: &AccessError) -> Failure {
    Failure::new(
        status,
        code,
        error.to_string(),
        "send `Authorization: Bearer tl_…`, or sign in at /login",
    )
}

/// The host, with its port if it has one, that a request is addressed to: what HTTP/2 says as
/// `:authority` and a proxy in the request line, or else the header `Host` (RFC 9110, 7.2).
fn addressed_to(request: &Request) -> Option<&str> {
    let authority = request.uri().authority().map(axum::http::uri::Authority::as_str);
    let header = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let address = authority.or_else(header)?;
    // Names of users are no part of an origin.
    let address = address.rsplit_once('@').map_or(address, |(_, host)| host);
    (!address.is_empty()).then_some(address)
}

/// Refuses other host names, so that a hostile web site cannot make its own name mean us.
fn check_host(app: &App, address: Option<&str>) -> Result<(), Failure> {
    let Some(allowed) = &app.web.allowed_hosts else { return Ok(()) };
    let name = address.map(host_name).unwrap_or_default();
    if allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::MISDIRECTED_REQUEST,
        "wrong_host",
        format!("expected a request to {}, got one to {name:?}", allowed.join(", ")),
        "add the name to the allowed hosts, or switch access control on",
    ))
}

/// The host without its port; IPv6 keeps its brackets.
fn host_name(host: &str) -> &str {
    match host.rfind(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or(host),
    }
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// A change asked for by a browser must come from our own pages (forms carry a token besides).
fn check_origin(headers: &HeaderMap, address: Option<&str>) -> Result<(), Failure> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_ours = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let from = origin.split_once("://").map(|(_, host)| host);
            from.is_some() && from == address
        }
        (None, None) => false,
    };
    if is_ours {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::FORBIDDEN,
        "cross_site",
        "expected a request from this site's own pages, got one from elsewhere or without an Origin",
        "programs use `Authorization: Bearer tl_…`",
    ))
}

fn sign_in_first(wants: Wants, path_and_query: &str) -> Response {
    let target = format!("/login?next={}", crate::params::encode(path_and_query));
    let target = HeaderValue::from_str(&target).unwrap_or(HeaderValue::from_static("/login"));
    match wants {
        Wants::Fragment => {
            (StatusCode::UNAUTHORIZED, [("hx-redirect", HeaderValue::from_static("/login"))])
                .into_response()
        }
        _ => (StatusCode::SEE_OTHER, [(header::LOCATION, target)]).into_response(),
    }
}

/// Gives a failure the form that the asker understands.
fn dress(
    failure: Failure,
    wants: Wants,
    visitor: &Visitor,
    path_and_query: &str,
    headers: &HeaderMap,
) -> Response {
    let status = failure.status;
    let mut response = match wants {
        Wants::Data => {
            // The query may hold what was looked for; the path says which question it was.
            let path = path_and_query.split('?').next().unwrap_or_default();
            let media = HeaderValue::from_static(PROBLEM_JSON);
            let body = axum::Json(failure.to_problem(path));
            (status, [(header::CONTENT_TYPE, media)], body).into_response()
        }
        Wants::Fragment => {
            (status, format!("{} ({})", failure.message, failure.hint)).into_response()
        }
        Wants::Page => {
            let page = layout::page(visitor, Nav::None, "Error", failure.to_markup());
            (status, page).into_response()
        }
    };
    for (name, value) in headers {
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        // Who knows better has said so.
        response.headers_mut().entry(header::RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
    }
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"throughline\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Says with every answer that something may be missing from it (RFC 7234, section 5.5): also when
/// it was this request that met the damage.
fn warn_of_damage(app: &App, headers: &mut HeaderMap) {
    let damaged: Vec<String> =
        app.web.reader.damaged().into_iter().map(|one| one.segment).collect();
    if damaged.is_empty() {
        return;
    }
    let text = format!("199 throughline \"damaged segments are left out: {}\"", damaged.join(", "));
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(header::WARNING, value);
    }
}

fn add_headers(headers: &mut HeaderMap, is_tls: bool) {
    for (name, value) in [
        ("content-security-policy", CONTENT_SECURITY_POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_tls {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    // What people see is theirs alone, and may have changed a second later.
    let private = HeaderValue::from_static("private, no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(private);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_lose_their_port() {
        assert_eq!(host_name("localhost:4319"), "localhost");
        assert_eq!(host_name("127.0.0.1"), "127.0.0.1");
        assert_eq!(host_name("[::1]:4319"), "[::1]");
        assert_eq!(host_name("[::1]"), "[::1]");
    }

    #[test]
    fn only_our_own_pages_may_ask_for_changes() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v))).collect()
        };
        let check = |pairs| check_origin(&headers(pairs), Some("tl:1"));
        assert!(check(&[("origin", "http://tl:1")]).is_ok());
        assert!(check(&[("sec-fetch-site", "same-origin")]).is_ok());
        assert!(check(&[("sec-fetch-site", "cross-site")]).is_err());
        assert!(check(&[("origin", "http://evil:1")]).is_err());
        assert!(check(&[("origin", "null")]).is_err());
        assert!(check(&[]).is_err());
        assert!(check_origin(&headers(&[("origin", "http://tl:1")]), None).is_err());
    }

    #[test]
    fn the_authority_of_a_request_goes_before_its_host() {
        let request = |uri: &str, host: Option<&str>| {
            let mut request = axum::http::Request::get(uri);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            let request = request.body(axum::body::Body::empty()).unwrap();
            addressed_to(&request).map(str::to_owned)
        };
        assert_eq!(request("/", Some("tl:1")).as_deref(), Some("tl:1"));
        assert_eq!(request("http://tl:1/", None).as_deref(), Some("tl:1"));
        assert_eq!(request("http://evil:1/", Some("tl:1")).as_deref(), Some("evil:1"));
        assert_eq!(request("http://tl@evil:1/", None).as_deref(), Some("evil:1"));
        assert_eq!(request("/", Some("")), None);
        assert_eq!(request("/", None), None);
    }

    #[test]
    fn who_was_let_in_may_stay_while_key_and_session_hold() {
        use throughline_trace::access::KeyHash;
        let key = ApiKey {
            id: "k".to_owned(),
            name: String::new(),
            scopes: vec![Scope::Read],
            created_unix_nano: 0,
            revoked_unix_nano: None,
        };
        let keyring = Keyring::required();
        keyring.replace([(KeyHash::of("tl_k"), key.clone())]);
        let mut visitor = Visitor { key: Some(key), ..Visitor::default() };
        assert!(visitor.may_stay(&keyring, u64::MAX));
        visitor.session_ends_unix_secs = Some(10);
        assert!(visitor.may_stay(&keyring, 10 * NANOS_PER_SEC - 1));
        assert!(!visitor.may_stay(&keyring, 10 * NANOS_PER_SEC));
        keyring.replace([]);
        assert!(!visitor.may_stay(&keyring, 0));
        assert!(!Visitor::default().may_stay(&keyring, 0));
        assert!(Visitor::default().may_stay(&Keyring::open(), 0));
    }
}
