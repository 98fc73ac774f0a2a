//! Our own webhook: JSON with the finding and the action, an idempotency key, and a signature.

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use super::Message;
use crate::moments::{NANOS_PER_SEC, rfc3339};
use crate::performed::told;
use crate::sign::webhook_signature;

/// Header of the signature.
const SIGNATURE: &str = "x-throughline-signature";

/// Header that is the same for every try of one delivery.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

pub(super) fn request(
    client: &Client,
    url: &str,
    secret: Option<&[u8]>,
    message: &Message<'_>,
) -> RequestBuilder {
    let body = body(message).to_string();
    let mut request = client
        .post(url)
        .header(CONTENT_TYPE, "application/json")
        .header(IDEMPOTENCY_KEY, idempotency_key(&message.action.id));
    if let Some(secret) = secret {
        let seconds = message.now_unix_nano / NANOS_PER_SEC;
        request = request.header(SIGNATURE, webhook_signature(secret, seconds, body.as_bytes()));
    }
    request.body(body)
}

/// The id of the action; where it cannot stand in a header, its hash.
fn idempotency_key(id: &str) -> HeaderValue {
    let is_plain = id.bytes().all(|byte| byte.is_ascii_graphic());
    let plain = is_plain.then(|| HeaderValue::from_str(id).ok()).flatten();
    let hash = || HeaderValue::from_str(blake3::hash(id.as_bytes()).to_hex().as_str());
    plain.or_else(|| hash().ok()).unwrap_or(HeaderValue::from_static("unnamed"))
}

fn body(message: &Message<'_>) -> Value {
    let action = message.action;
    json!({
        "type": if message.finding.is_some() { "finding" } else { "message" },
        "status": if message.is_resolved() { "resolved" } else { "firing" },
        "action": {
            "id": action.id,
            "rule": action.rule,
            "subject": action.subject,
            "reason": action.reason,
            "operation": told(&action.operation),
            "at": rfc3339(action.at_unix_nano),
            "evidence": action.evidence,
        },
        "finding": message.finding,
        "incident": message.incident,
        "url": message.link,
    })
}

#[cfg(test)]
mod tests {
    use throughline_trace::FindingState;

    use super::*;
    use crate::notify::tests::{action, finding, message};

    #[test]
    fn the_body_has_the_finding_whole_and_the_same_key_at_each_try() {
        let finding = finding(FindingState::Firing);
        let action = action(&finding);
        let message = message(&action, &finding);
        let body = body(&message);
        assert_eq!(body["finding"]["values"]["p95_s"], 2.8);
        assert_eq!((&body["status"], &body["incident"]), (&"firing".into(), &"i-1".into()));
        let client =
            crate::outgoing::client(false, std::time::Duration::from_secs(1)).expect("one");
        let secret = Some(b"0123456789abcdef".as_slice());
        let request = request(&client, "http://h/x", secret, &message).build().expect("one");
        let header = |name: &str| request.headers()[name].to_str().expect("text").to_owned();
        assert_eq!(header("idempotency-key"), action.id);
        let sent = request.body().and_then(|body| body.as_bytes()).expect("a body");
        let expected = webhook_signature(b"0123456789abcdef", 1_764_143_701, sent);
        assert_eq!(header(SIGNATURE), expected);
        assert_eq!(idempotency_key("a b\n").len(), 64);
    }
}
