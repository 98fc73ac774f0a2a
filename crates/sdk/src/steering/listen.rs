//! Listening to the server: server-sent events over the connection that telemetry is authenticated
//! with, on the export thread. Off unless it is switched on.

#![expect(
    clippy::disallowed_methods,
    reason = "what listens belongs to the process and to no trace"
)]

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, StatusCode};
use opentelemetry::Context;
use reqwest::Url;
use serde_json::Value;
use throughline_trace::{Directive, DirectiveAck, DirectiveStatus};
use tokio::runtime::Handle;

use super::Steering;
use super::sse::{SseEvent, SseReader};
use crate::decision::HashKey;
use crate::http_client;
use crate::telemetry::TelemetryError;
use crate::telemetry_otlp::TlsSettings;
use crate::telemetry_pipeline::Pipeline;

/// First pause before a new connection; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause before a new connection.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Shortest pause before a new connection, whatever the server asks for.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);

/// A connection on which nothing comes for so long, not even a comment, is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);

/// How long the server may take to answer an acknowledgement.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an acknowledgement is tried.
const ACK_TRIES: u32 = 3;

/// Name of the events that carry directives.
const EVENT: &str = "directive";

/// Field of a directive that holds its signature: `KEY_ID:HEX`.
const SIGNATURE: &str = "signature";

/// Where to listen, and whom to believe.
#[derive(Debug, Clone)]
pub(crate) struct ListenSettings {
    url: Url,
    headers: HeaderMap,
    key: Option<HashKey>,
    tls: TlsSettings,
}

impl ListenSettings {
    /// # Errors
    /// [`TelemetryError::Setting`]: the address is none, or nothing there says that the server is
    /// the one it claims to be.
    pub(crate) fn new(
        url: &str,
        headers: HeaderMap,
        key: Option<HashKey>,
        tls: TlsSettings,
    ) -> Result<Self, TelemetryError> {
        let wrong = |expected| {
            let got = http_client::without_userinfo(url).to_string();
            Err(TelemetryError::Setting { name: "directives".to_owned(), expected, got })
        };
        let Ok(parsed) = Url::parse(url) else {
            return wrong("an address such as https://host:4319");
        };
        let is_local = http_client::Route::to(&parsed) == http_client::Route::Direct;
        match parsed.scheme() {
            "http" if !is_local && key.is_none() => {
                wrong("https, or on this machine, or signed (directive_key)")
            }
            "https" if !is_local && key.is_none() && !headers.contains_key(AUTHORIZATION) => {
                wrong("a server that we have a key of (api_key), or signed (directive_key)")
            }
            "http" | "https" => Ok(Self { url: parsed, headers, key, tls }),
            _ => wrong("an address such as https://host:4319"),
        }
    }

    fn at(&self, segments: &[&str]) -> Url {
        let mut url = self.url.clone();
        url.set_query(None);
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1", "directives"]).extend(segments);
        }
        url
    }
}

/// Starts listening on `runtime`, for as long as the pipeline lives.
///
/// # Errors
/// When no HTTP client can be made.
pub(crate) fn listen(
    settings: ListenSettings,
    pipeline: &Arc<Pipeline>,
    runtime: &Handle,
) -> Result<(), TelemetryError> {
    let roots = settings.tls.roots(settings.url.scheme() == "https");
    let client = http_client::tls_as(roots, settings.tls.identity.as_ref())
        .and_then(|tls| http_client::client_with(tls, http_client::Route::to(&settings.url)))
        .map_err(TelemetryError::Exporter)?;
    let process = pipeline.steering().shared.process.clone();
    let mut address = settings.at(&[]);
    address
        .query_pairs_mut()
        .append_pair("service", &process.service)
        .append_pair("instance_id", &process.instance_id);
    let listener = Listener {
        client,
        address,
        instance_id: process.instance_id,
        settings,
        pipeline: Arc::downgrade(pipeline),
        last_id: None,
        is_told: false,
    };
    runtime.spawn(listener.run());
    Ok(())
}

struct Listener {
    client: reqwest::Client,
    address: Url,
    settings: ListenSettings,
    instance_id: String,
    pipeline: Weak<Pipeline>,
    /// The last event that was handled, to resume from.
    last_id: Option<String>,
    /// Whether a failure was told since the last connection.
    is_told: bool,
}

impl Listener {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while self.pipeline.strong_count() > 0 {
            let asked_for = match self.connection().await {
                // It was up: whatever ended it is worth a quick try.
                Ok(asked_for) => {
                    pause = FIRST_PAUSE;
                    asked_for
                }
                Err(problem) => {
                    if !std::mem::replace(&mut self.is_told, true) {
                        self.warn(&format!(
                            "expected to hear directives, will try again: {problem}"
                        ));
                    }
                    None
                }
            };
            let wait = within_bounds(asked_for.unwrap_or(pause));
            tokio::time::sleep(wait / 2 + (wait / 2).mul_f64(rand::random::<f64>())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection to its end; `Err` when there was none. Says what pause the server asked for.
    async fn connection(&mut self) -> Result<Option<Duration>, String> {
        let mut request = self
            .client
            .get(self.address.clone())
            .headers(self.settings.headers.clone())
            .header(ACCEPT, "text/event-stream");
        if let Some(id) = &self.last_id {
            request = request.header("last-event-id", id);
        }
        let answer = tokio::time::timeout(SILENCE, request.send()).await;
        let answer = answer.map_err(|_| "no answer".to_owned())?;
        let answer = answer.map_err(|error| error.without_url().to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the server answered {}", answer.status()));
        }
        self.is_told = false;
        let (mut reader, mut body) = (SseReader::default(), answer.bytes_stream());
        while let Ok(Some(Ok(bytes))) = tokio::time::timeout(SILENCE, body.next()).await {
            let events = match reader.push(&bytes) {
                Ok(events) => events,
                Err(error) => {
                    self.warn(&error.to_string());
                    break;
                }
            };
            for event in events {
                self.hear(event).await;
            }
        }
        Ok(reader.retry())
    }

    async fn hear(&mut self, event: SseEvent) {
        let SseEvent { name, data, last_id } = event;
        if name.is_empty() || name == EVENT {
            let Some(pipeline) = self.pipeline.upgrade() else { return };
            let key = self.settings.key.clone();
            // Obeying may wait until the decision to obey is durable.
            let answer =
                tokio::task::spawn_blocking(move || answer(&pipeline, key.as_ref(), &data)).await;
            if let Ok(Some((id, mut ack))) = answer {
                ack.instance_id.clone_from(&self.instance_id);
                self.acknowledge(&id, ack);
            }
        }
        self.last_id = last_id.or(self.last_id.take());
    }

    /// Tells the server, beside what comes next.
    fn acknowledge(&self, id: &str, ack: DirectiveAck) {
        let request = self
            .client
            .post(self.settings.at(&[id, "ack"]))
            .headers(self.settings.headers.clone())
            .timeout(ACK_TIMEOUT)
            .json(&ack);
        tokio::spawn(async move {
            let mut pause = FIRST_PAUSE;
            for _ in 0..ACK_TRIES {
                let Some(request) = request.try_clone() else { return };
                if request.send().await.is_ok_and(|answer| !answer.status().is_server_error()) {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        });
    }

    /// Tells the logs of the pipeline: this thread makes no telemetry of its own.
    fn warn(&self, message: &str) {
        let Some(pipeline) = self.pipeline.upgrade() else { return };
        let _attached = pipeline.onto(&Context::new()).attach();
        tracing::warn!(target: "throughline", "{message}");
    }
}

/// A pause that neither wears the server out nor leaves the agent without orders.
fn within_bounds(pause: Duration) -> Duration {
    pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// What becomes of a directive that came, and what the sender is told; `None` when it was known, or
/// is for somebody else.
fn answer(
    pipeline: &Arc<Pipeline>,
    key: Option<&HashKey>,
    data: &str,
) -> Option<(String, DirectiveAck)> {
    let cx = pipeline.onto(&Context::new());
    let _attached = cx.clone().attach();
    let ack = |status, decision_id, reason: String| DirectiveAck {
        instance_id: String::new(),
        status,
        decision_id,
        reason,
    };
    let refused = |problem: String| {
        tracing::warn!(target: "throughline", "expected a directive that can be obeyed: {problem}");
        ack(DirectiveStatus::Refused, None, problem)
    };
    let directive = match Directive::from_json(data) {
        Ok(directive) => directive,
        Err(error) => return Some((error.id?, refused(error.problem))),
    };
    let id = directive.id.clone();
    if let Some(key) = key
        && !is_signed(key, data)
    {
        return Some((id, refused(format!("it is not signed with the key {}", key.id()))));
    }
    let steering: &Steering = pipeline.steering();
    match steering.obey(directive, &cx) {
        Ok(Some(decision)) => {
            Some((id, ack(DirectiveStatus::Applied, Some(decision), String::new())))
        }
        // It was heard before, and the answer may have been lost.
        Ok(None) => Some((id, ack(DirectiveStatus::Applied, None, String::new()))),
        Err(error) => {
            let status = error.status()?;
            Some((id, ack(status, None, error.to_string())))
        }
    }
}

/// Whether the JSON's signature is that of its canonical form without it.
fn is_signed(key: &HashKey, json: &str) -> bool {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(json) else { return false };
    let Some(Value::String(signature)) = fields.remove(SIGNATURE) else { return false };
    match signature.split_once(':') {
        Some((id, tag)) => id == key.id() && key.is_tag(&Value::Object(fields), tag),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_asks_for_no_pause_is_not_asked_in_a_tight_loop() {
        assert_eq!(within_bounds(Duration::ZERO), SHORTEST_PAUSE);
        assert_eq!(within_bounds(Duration::from_secs(2)), Duration::from_secs(2));
        assert_eq!(within_bounds(Duration::MAX), LONGEST_PAUSE);
    }
}
