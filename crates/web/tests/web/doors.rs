//! Who may come in.

use axum::http::StatusCode;
use futures_util::StreamExt as _;
use throughline_trace::access::Scope;
use throughline_web::{OPEN_ROUTES, route_paths};
use tower::ServiceExt as _;

use crate::{Answer, Site, fixtures};

/// An address of a route: parameters filled in.
fn address(pattern: &str) -> String {
    pattern
        .replace("{trace_id}", "0000000000000000000000000000000a")
        .replace("{span_id}", "000000000000000b")
        .replace("{decision_id}", "01000000-0000-4000-8000-000000000001")
        .replace("{name}", "x")
        .replace("{hash}", "h")
}

const SAME_ORIGIN: (&str, &str) = ("origin", "http://localhost:4319");

#[tokio::test]
async fn every_route_but_the_short_list_needs_a_key() {
    let site = Site::locked();
    let paths = route_paths();
    for open in OPEN_ROUTES {
        assert!(paths.contains(&open), "{open} is on the list but no route");
    }
    for pattern in paths {
        let answer = site.get(&address(pattern)).await;
        if OPEN_ROUTES.contains(&pattern) {
            assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{pattern}");
            assert_ne!(answer.status, StatusCode::SEE_OTHER, "{pattern}");
        } else if pattern.starts_with("/api/") || pattern == "/metrics" {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{pattern}");
            assert_eq!(answer.json()["code"], "unauthorized", "{pattern}");
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{pattern}");
        } else {
            assert_eq!(answer.status, StatusCode::SEE_OTHER, "{pattern}");
            assert!(answer.header("location").starts_with("/login?next="), "{pattern}");
        }
        let posted = site.post(&address(pattern), "", &[SAME_ORIGIN]).await;
        assert!(!posted.status.is_success(), "POST {pattern} answered {}", posted.status);
    }
    let nowhere = site.get("/api/v2/anything").await;
    assert_eq!(nowhere.status, StatusCode::UNAUTHORIZED, "what is no route tells nothing either");
    assert_eq!(site.get("/wp-admin").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_key_with_the_right_scope_opens_and_a_revoked_one_does_not() {
    let site = Site::locked();
    let (reader, id) = site.key(&[Scope::Read]);
    let (sender, _) = site.key(&[Scope::Ingest]);
    let with = |key: &str| format!("Bearer {key}");
    let path = "/api/v1/stats";
    assert_eq!(
        site.get_with(path, &[("authorization", &with(&reader))]).await.status,
        StatusCode::OK
    );
    let refused = site.get_with(path, &[("authorization", &with(&sender))]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.json()["detail"].as_str().unwrap().contains("scope read"));
    let unknown = site.get_with(path, &[("authorization", "Bearer tl_nope")]).await;
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        site.get_with("/metrics", &[("authorization", &with(&reader))]).await.status,
        StatusCode::OK
    );
    site.store.control().revoke_key(&id).unwrap();
    site.reload_keys();
    let revoked = site.get_with(path, &[("authorization", &with(&reader))]).await;
    assert_eq!(revoked.status, StatusCode::UNAUTHORIZED);
}

/// Opens the sign-in page; its cookie and the token in its form.
async fn open_form(site: &Site) -> (String, String) {
    let page = site.get("/login?next=/decisions").await;
    assert_eq!(page.status, StatusCode::OK);
    let pre = page.cookie("tl_pre").unwrap();
    (pre, hidden(&page, "token"))
}

fn hidden(page: &Answer, name: &str) -> String {
    let field = format!("name=\"{name}\" value=\"");
    let (_, rest) =
        page.body.split_once(&field).unwrap_or_else(|| panic!("no {name} in {}", page.body));
    rest.split('"').next().unwrap().to_owned()
}

async fn sign_in(site: &Site, key: &str) -> Answer {
    let (pre, token) = open_form(site).await;
    let cookie = format!("tl_pre={pre}");
    let form = format!("key={key}&token={token}&next=%2Fdecisions");
    site.post("/login", &form, &[SAME_ORIGIN, ("cookie", &cookie)]).await
}

#[tokio::test]
async fn signing_in_lasts_until_the_key_is_revoked() {
    let site = Site::locked();
    let (key, id) = site.key(&[Scope::Read]);
    let signed_in = sign_in(&site, &key).await;
    assert_eq!(signed_in.status, StatusCode::SEE_OTHER);
    assert_eq!(signed_in.header("location"), "/decisions");
    let set = signed_in.header("set-cookie");
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax"), "{set}");
    assert!(!set.contains(&key), "the cookie does not hold the key");
    let session = format!("tl_session={}", signed_in.cookie("tl_session").unwrap());
    let page = site.get_with("/traces", &[("cookie", &session)]).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(
        site.get_with("/login", &[("cookie", &session)]).await.header("location"),
        "/traces"
    );

    site.store.control().revoke_key(&id).unwrap();
    site.reload_keys();
    let gone = site.get_with("/traces", &[("cookie", &session)]).await;
    assert_eq!(gone.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_statement_that_is_sent_needs_the_token_of_its_page() {
    let site = Site::locked();
    let (key, _) = site.key(&[Scope::Read]);
    let session =
        format!("tl_session={}", sign_in(&site, &key).await.cookie("tl_session").unwrap());
    let cookie = ("cookie", session.as_str());
    let page = site.get_with("/sql", &[cookie]).await;
    let (_, form) = page.body.split_once("action=\"/sql\"").unwrap();
    let token = form.split("value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let with = |token: &str| format!("query=SELECT+40%2B2+AS+n&token={token}");
    for form in ["query=SELECT+40%2B2+AS+n".to_owned(), with(""), with(&"0".repeat(64))] {
        let refused = site.post("/sql", &form, &[SAME_ORIGIN, cookie]).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{form}");
    }
    let run = site.post("/sql", &with(token), &[SAME_ORIGIN, cookie]).await;
    assert!(run.status == StatusCode::OK && run.body.contains(">42<"), "{}", run.body);
    let elsewhere = ("origin", "http://elsewhere.example");
    let refused = site.post("/sql", &with(token), &[elsewhere, cookie]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_sign_in_needs_its_own_form_and_a_good_key() {
    let site = Site::locked();
    let (key, _) = site.key(&[Scope::Read]);
    let (sender, _) = site.key(&[Scope::Ingest]);
    let (pre, token) = open_form(&site).await;
    let cookie = format!("tl_pre={pre}");
    let form = format!("key={key}&token={token}");
    // Without its cookie, with another token, from another site, without an origin: none signs in.
    for (form, headers) in [
        (form.clone(), vec![SAME_ORIGIN]),
        (
            format!("key={key}&token={}", "0".repeat(64)),
            vec![SAME_ORIGIN, ("cookie", cookie.as_str())],
        ),
        (form.clone(), vec![("origin", "http://evil.example"), ("cookie", cookie.as_str())]),
        (
            form.clone(),
            vec![("sec-fetch-site", "cross-site"), SAME_ORIGIN, ("cookie", cookie.as_str())],
        ),
        (form, vec![("cookie", cookie.as_str())]),
    ] {
        let refused = site.post("/login", &form, &headers).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{form} {headers:?}");
        assert_eq!(refused.cookie("tl_session"), None);
    }
    assert_eq!(sign_in(&site, &sender).await.status, StatusCode::FORBIDDEN);
    assert_eq!(sign_in(&site, "tl_wrong").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn guessing_keys_is_slowed_down() {
    let site = Site::locked();
    let (key, _) = site.key(&[Scope::Read]);
    let mut last = StatusCode::OK;
    for _ in 0..11 {
        last = sign_in(&site, "tl_guess").await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let right = sign_in(&site, &key).await;
    assert_eq!(right.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(!right.header("retry-after").is_empty());
}

#[tokio::test]
async fn signing_out_needs_the_token_of_the_page() {
    let site = Site::locked();
    let (key, _) = site.key(&[Scope::Read]);
    let session =
        format!("tl_session={}", sign_in(&site, &key).await.cookie("tl_session").unwrap());
    let page = site.get_with("/traces", &[("cookie", &session)]).await;
    let token = hidden(&page, "token");
    let forged = site.post("/logout", "token=00", &[SAME_ORIGIN, ("cookie", &session)]).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    let foreign = [("origin", "http://evil.example"), ("cookie", session.as_str())];
    let crossed = site.post("/logout", &format!("token={token}"), &foreign).await;
    assert_eq!(crossed.status, StatusCode::FORBIDDEN);
    let out =
        site.post("/logout", &format!("token={token}"), &[SAME_ORIGIN, ("cookie", &session)]).await;
    assert_eq!(out.header("location"), "/login");
    assert_eq!(out.cookie("tl_session").as_deref(), Some(""));
}

#[tokio::test]
async fn other_host_names_are_refused_while_access_control_is_off() {
    let site = Site::open();
    for (host, status) in [
        ("localhost:4319", StatusCode::OK),
        ("127.0.0.1:9", StatusCode::OK),
        ("[::1]:4319", StatusCode::OK),
        ("evil.example", StatusCode::MISDIRECTED_REQUEST),
        ("localhost.evil.example:4319", StatusCode::MISDIRECTED_REQUEST),
    ] {
        let request = axum::http::Request::get("/api/v1/stats").header("host", host);
        let answer = site.send(request.body(axum::body::Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{host}");
    }
}

#[tokio::test]
async fn every_answer_forbids_foreign_content() {
    let site = Site::open();
    for path in ["/traces", "/setup", "/api/v1/stats", "/nowhere", "/healthz"] {
        let answer = site.get(path).await;
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{path}: {policy}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        // What the API reads has a version; browsers may keep it, and ask each time.
        let caching =
            if path.starts_with("/api/") { "private, no-cache" } else { "private, no-store" };
        assert_eq!(answer.header("cache-control"), caching, "{path}");
    }
}

#[tokio::test]
async fn readiness_follows_the_server_and_ends_live_streams() {
    let site = Site::open();
    assert_eq!(site.get("/readyz").await.status, StatusCode::OK);
    let listening = site.get("/api/v1/live");
    let draining = async {
        tokio::task::yield_now().await;
        site.readiness.send(false).unwrap();
    };
    let (stream, ()) = tokio::join!(listening, draining);
    assert_eq!(stream.status, StatusCode::OK);
    assert!(stream.header("content-type").starts_with("text/event-stream"));
    assert_eq!(site.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(site.get("/healthz").await.status, StatusCode::OK, "the process still lives");
}

/// Opens a stream with these headers; its body.
async fn open_stream(site: &Site, header: (&str, &str)) -> axum::body::BodyDataStream {
    let request = axum::http::Request::get("/api/v1/live")
        .header("host", "localhost:4319")
        .header(header.0, header.1);
    let request = request.body(axum::body::Body::empty()).unwrap();
    let response = site.app.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().into_data_stream()
}

/// What a stream still sends until it ends.
async fn rest(frames: axum::body::BodyDataStream) -> String {
    let reading = frames.fold(String::new(), |seen, frame| async move {
        seen + std::str::from_utf8(&frame.unwrap()).unwrap()
    });
    tokio::time::timeout(crate::LISTEN_LIMIT, reading).await.unwrap()
}

#[tokio::test]
async fn a_revoked_key_hears_nothing_more_in_an_open_stream() {
    let site = Site::locked();
    let (key, id) = site.key(&[Scope::Read]);
    let mut frames = open_stream(&site, ("authorization", &format!("Bearer {key}"))).await;
    assert_eq!(frames.next().await.unwrap().unwrap(), ": connected\n\n");
    site.commit(fixtures::fraud(0xf1, crate::recent_ns())).await;
    let heard = frames.next().await.unwrap().unwrap();
    assert!(heard.starts_with(b"event: committed"), "{heard:?}");
    site.store.control().revoke_key(&id).unwrap();
    site.reload_keys();
    site.commit(fixtures::order(0xf2, crate::recent_ns())).await;
    assert_eq!(rest(frames).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_stream_on_which_nothing_happens_ends_with_its_key_too() {
    let site = Site::locked();
    let (key, id) = site.key(&[Scope::Read]);
    let session = sign_in(&site, &key).await.cookie("tl_session").unwrap();
    let mut frames = open_stream(&site, ("cookie", &format!("tl_session={session}"))).await;
    assert_eq!(frames.next().await.unwrap().unwrap(), ": connected\n\n");
    assert_eq!(frames.next().await.unwrap().unwrap(), ": \n\n", "it is kept alive");
    site.store.control().revoke_key(&id).unwrap();
    site.reload_keys();
    assert_eq!(rest(frames).await, "");
}

#[tokio::test]
async fn the_name_that_http2_carries_is_checked_as_a_host_is() {
    let site = Site::open();
    for (uri, host, status) in [
        ("http://localhost:4319/api/v1/stats", None, StatusCode::OK),
        ("http://evil.example/api/v1/stats", None, StatusCode::MISDIRECTED_REQUEST),
        ("http://evil.example/api/v1/stats", Some("localhost"), StatusCode::MISDIRECTED_REQUEST),
        ("/api/v1/stats", Some(""), StatusCode::MISDIRECTED_REQUEST),
        ("/api/v1/stats", None, StatusCode::MISDIRECTED_REQUEST),
    ] {
        let mut request = axum::http::Request::get(uri).version(axum::http::Version::HTTP_2);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let answer = site.send(request.body(axum::body::Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{uri} {host:?}");
    }
}

/// A sign-in as HTTP/2 brings it: without the header `host`.
fn sign_in_request(form: axum::body::Body, cookie: &str) -> axum::http::Request<axum::body::Body> {
    axum::http::Request::post("http://localhost:4319/login")
        .version(axum::http::Version::HTTP_2)
        .header(SAME_ORIGIN.0, SAME_ORIGIN.1)
        .header("cookie", cookie)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .unwrap()
}

#[tokio::test]
async fn people_sign_in_over_http2() {
    let site = Site::locked();
    let (key, _) = site.key(&[Scope::Read]);
    let (pre, token) = open_form(&site).await;
    let form = format!("key={key}&token={token}");
    let answer = site.send(sign_in_request(form.into(), &format!("tl_pre={pre}"))).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert!(answer.cookie("tl_session").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_form_that_does_not_end_is_given_up() {
    let site = Site::locked();
    let never = futures_util::stream::pending::<Result<bytes::Bytes, std::convert::Infallible>>();
    let never = axum::body::Body::from_stream(never);
    let waiting = site.send(sign_in_request(never, ""));
    let answer = tokio::time::timeout(crate::LISTEN_LIMIT, waiting).await.unwrap();
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn a_form_is_small() {
    let site = Site::locked();
    let form = |bytes: usize| axum::body::Body::from(format!("key={}", "k".repeat(bytes)));
    let answer = site.send(sign_in_request(form(10_000), "")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "read, and of no form that we made");
    let answer = site.send(sign_in_request(form(17_000), "")).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}
