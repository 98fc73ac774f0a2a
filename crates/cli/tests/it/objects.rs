//! Checkpoints of the audit log in an object store. The store here checks every signature by AWS's description
//! of Signature Version 4, worked out anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use ring::{digest, hmac};
use serde_json::Value as Json;

use crate::audit::record;
use crate::server::{Server, run, until};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// Objects by name.
type Objects = Arc<Mutex<BTreeMap<String, String>>>;

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sign(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// The signature that a request should have: the canonical request, the string to sign and the signing key.
fn expected_signature(request: &Request, secret: &str) -> Option<(String, String)> {
    let query = request.uri().query()?;
    let mut pairs: Vec<&str> = query.split('&').collect();
    let value = |name: &str| {
        let of = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        of.map(|text| text.replace("%2F", "/").replace("%3B", ";"))
    };
    let (date, credential) = (value("X-Amz-Date")?, value("X-Amz-Credential")?);
    let (signed, given) = (value("X-Amz-SignedHeaders")?, value("X-Amz-Signature")?);
    pairs.retain(|pair| !pair.starts_with("X-Amz-Signature="));
    pairs.sort_unstable();
    let headers: String = signed
        .split(';')
        .map(|name| Some(format!("{name}:{}\n", request.headers().get(name)?.to_str().ok()?)))
        .collect::<Option<String>>()?;
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{signed}\nUNSIGNED-PAYLOAD",
        request.method(),
        request.uri().path(),
        pairs.join("&"),
    );
    let (_, scope) = credential.split_once('/')?;
    let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()));
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in scope.split('/') {
        key = sign(&key, part).as_ref().to_vec();
    }
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
    Some((hex(sign(&key, &to_sign)), given))
}

async fn answer(State(objects): State<Objects>, request: Request) -> Response {
    let refuse = |status: StatusCode, code: &str| {
        let text =
            format!("<Error><Code>{code}</Code><Message>told by the store</Message></Error>");
        (status, text).into_response()
    };
    match expected_signature(&request, SECRET) {
        Some((expected, given)) if expected == given => {}
        _ => return refuse(StatusCode::FORBIDDEN, "SignatureDoesNotMatch"),
    }
    let Some(name) = request.uri().path().strip_prefix("/vault/") else {
        return refuse(StatusCode::NOT_FOUND, "NoSuchBucket");
    };
    let name = name.replace("%20", " ");
    if request.method() == Method::PUT {
        let is_new_wanted = request.headers().get("if-none-match").is_some_and(|of| of == "*");
        let body: Bytes = axum::body::to_bytes(request.into_body(), 1 << 20).await.expect("a body");
        let mut objects = objects.lock().expect("objects");
        if is_new_wanted && objects.contains_key(&name) {
            return refuse(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        objects.insert(name, String::from_utf8(body.to_vec()).expect("text"));
        return StatusCode::OK.into_response();
    }
    let objects = objects.lock().expect("objects");
    if !name.is_empty() {
        return match objects.get(&name) {
            Some(text) => text.clone().into_response(),
            None => refuse(StatusCode::NOT_FOUND, "NoSuchKey"),
        };
    }
    // A list, two names a page.
    let query = request.uri().query().unwrap_or_default();
    let after = query.split('&').find_map(|pair| pair.strip_prefix("continuation-token="));
    let after = after.unwrap_or_default().replace("%2F", "/").replace("%20", " ");
    let rest: Vec<&String> = objects.keys().filter(|name| **name > after).collect();
    let page = &rest[..rest.len().min(2)];
    let contents: String =
        page.iter().map(|name| format!("<Contents><Key>{name}</Key></Contents>")).collect();
    let next = match page.last() {
        Some(last) if rest.len() > page.len() => {
            format!("<NextContinuationToken>{last}</NextContinuationToken>")
        }
        _ => String::new(),
    };
    let is_cut = !next.is_empty();
    format!("<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>vault</Name><IsTruncated>{is_cut}</IsTruncated>{contents}{next}</ListBucketResult>")
        .into_response()
}

async fn store(objects: Objects) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let app = Router::new().fallback(answer).with_state(objects);
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn credentials(dir: &Path, secret: &str) {
    let text = format!(
        "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = {secret}\n"
    );
    fs::write(dir.join("s3.ini"), text).expect("written");
}

/// The state of the anchor, once it says so.
async fn anchor(server: &Server, what: &str, is_so: impl Fn(&Json) -> bool) -> Json {
    until(what, async || {
        let status = server.get_json("/api/v1/audit/verify").await;
        let of = status["anchors"].as_array()?.first()?.clone();
        is_so(&of).then_some(of)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)] // The terminal asks the store too.
async fn r4_4_checkpoints_go_to_an_object_store_signed_and_are_never_written_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let objects = Objects::default();
    let url = store(Arc::clone(&objects)).await;
    let config = dir.path().join("throughline.yaml");
    fs::write(
        &config,
        format!(
            "audit:\n  checkpoint_count: 1\n  anchors:\n  - {{ name: vault, s3: 's3://vault/audit log', endpoint: '{url}', region: eu-central-1, credentials_file: s3.ini }}\n"
        ),
    )
    .expect("written");
    let config = config.display().to_string();
    credentials(dir.path(), "wrong");
    let server = Server::start_with(&data_dir, &["--config", &config, "serve"]);
    record(&server, 1..4).await;
    let refused = anchor(&server, "a refusal", |of| of["failures"].as_u64() > Some(0)).await;
    let error = refused["error"].as_str().expect("an error");
    assert!(error.contains("403 Forbidden SignatureDoesNotMatch: told by the store"), "{error}");
    assert!(error.contains("s3://vault/audit log/") && !error.contains("X-Amz"), "{error}");

    // Credentials that were put right are read without a restart.
    credentials(dir.path(), SECRET);
    anchor(&server, "the head", |of| of["last_number"] == 3 && of["failures"] == 0).await;
    record(&server, 4..5).await;
    anchor(&server, "the next", |of| of["last_number"] == 4).await;
    record(&server, 5..6).await;
    anchor(&server, "the one after", |of| of["last_number"] == 5).await;
    let verify = ["--config", &config, "audit", "verify", "--json"];
    let verified: Json = serde_json::from_str(&run(&data_dir, &verify).ok()).expect("JSON");
    let kept = objects.lock().expect("objects").len() as u64;
    assert!(kept >= 3, "{kept} objects over two pages");
    assert_eq!(verified["anchors"][0]["agreed"], kept, "{verified}");

    // Somebody was there before us: nothing is written over, and it is told.
    let name = "audit log/00000000000000000006.json".to_owned();
    objects.lock().expect("objects").insert(name.clone(), "{\"number\":6}".to_owned());
    record(&server, 6..7).await;
    let refused = anchor(&server, "the conflict", |of| of["failures"].as_u64() > Some(0)).await;
    let error = refused["error"].as_str().expect("an error");
    assert!(error.contains("holds another checkpoint of this number already"), "{error}");
    assert_eq!(objects.lock().expect("objects")[&name], "{\"number\":6}");
    server.stop();
}
