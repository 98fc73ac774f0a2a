//! An endpoint that makes embeddings of texts, asked in OpenAI's wire form: `POST {url}/embeddings` with `{"model", "input":
//! [texts]}`, answered with `{"data": [{"index", "embedding"}]}`
//! ([reference](https://platform.openai.com/docs/api-reference/embeddings)).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::{ActConfigError, check_url};
use crate::outgoing::{self, Undelivered};
use crate::sign::read_text;

/// Requests in a minute where the configuration does not say.
pub const DEFAULT_EMBEDDING_REQUESTS_PER_MINUTE: u32 = 30;

/// Requests in a minute at most.
pub const MAX_EMBEDDING_REQUESTS_PER_MINUTE: u32 = 6_000;

/// Texts in one request.
pub const EMBEDDING_BATCH_TEXTS: usize = 64;

/// Numbers of one embedding at most.
const MAX_NUMBERS: usize = 8_192;

/// How long one try may take where the configuration does not say, milliseconds.
const DEFAULT_TIMEOUT_MS: u64 = 15_000;

/// Longest such time, milliseconds.
const MAX_TIMEOUT_MS: u64 = 60_000;

/// Pauses before further tries, milliseconds; a try that may not fare better is the last.
const PAUSES_MS: [u64; 2] = [500, 2_000];

/// Bytes of an answer that are read: 64 embeddings of 8,192 numbers, each with 25 characters.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// `act.embeddings`: who makes embeddings of what agents are asked. Nobody is asked where it is left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingsConfig {
    /// Its address up to the version (`https://api.openai.com/v1`).
    pub url: String,
    /// The model.
    pub model: String,
    /// Environment variable with its key; at most one of `api_key_env` and `api_key_file`.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// File with its key.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// Requests in a minute at most, each of up to 64 texts.
    #[serde(default)]
    pub requests_per_minute: Option<u32>,
    /// How long one try may take, milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

impl EmbeddingsConfig {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// [`ActConfigError`].
    pub(crate) fn validate(&self) -> Result<(), ActConfigError> {
        check_url("act.embeddings.url", &self.url)?;
        let refused = |field, expected: String, got: String| {
            Err(ActConfigError::Embeddings { field, expected, got })
        };
        if self.model.trim().is_empty() {
            return refused("model", "the name of a model".to_owned(), "none".to_owned());
        }
        if self.api_key_env.is_some() && self.api_key_file.is_some() {
            let expected = "one of `api_key_env` and `api_key_file`".to_owned();
            return refused("api_key_env", expected, "both".to_owned());
        }
        let requests = self.requests_per_minute.unwrap_or(DEFAULT_EMBEDDING_REQUESTS_PER_MINUTE);
        if !(1..=MAX_EMBEDDING_REQUESTS_PER_MINUTE).contains(&requests) {
            let expected = format!("1 to {MAX_EMBEDDING_REQUESTS_PER_MINUTE}");
            return refused("requests_per_minute", expected, requests.to_string());
        }
        let timeout_ms = self.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
        if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
            return refused("timeout_ms", format!("1 to {MAX_TIMEOUT_MS}"), timeout_ms.to_string());
        }
        Ok(())
    }

    fn key(&self) -> Result<Option<String>, ActConfigError> {
        let missing = |field, expected: String, got: &str| ActConfigError::Embeddings {
            field,
            expected,
            got: got.to_owned(),
        };
        let (field, text) = match (&self.api_key_env, &self.api_key_file) {
            (Some(variable), _) => {
                let expected = format!("a key in the environment variable {variable}");
                let text = std::env::var(variable);
                ("api_key_env", text.map_err(|_| missing("api_key_env", expected, "none"))?)
            }
            (None, Some(path)) => ("api_key_file", read_text(path)?),
            (None, None) => return Ok(None),
        };
        match text.trim() {
            "" => Err(missing(field, "a key".to_owned(), "an empty text")),
            key => Ok(Some(key.to_owned())),
        }
    }
}

/// An endpoint, ready to be asked. Cheap to clone; clones share the pace.
#[derive(Clone)]
pub struct Embeddings {
    client: Client,
    url: String,
    model: String,
    key: Option<String>,
    pause: Duration,
    /// When the next request may be sent.
    next: Arc<Mutex<Instant>>,
    requests: Family<[(&'static str, &'static str); 1], Counter>,
    texts: Counter,
}

/// Why there are no embeddings, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint of embeddings gave none: {message}")]
pub struct EmbeddingsError {
    message: String,
    /// What it was answered with; `None` when no answer came, or a wrong one.
    status: Option<StatusCode>,
}

impl EmbeddingsError {
    /// Whether what was sent was refused, not who sent it: fewer texts, or others, may fare better.
    pub fn are_texts_refused(&self) -> bool {
        matches!(
            self.status,
            Some(
                StatusCode::BAD_REQUEST
                    | StatusCode::PAYLOAD_TOO_LARGE
                    | StatusCode::UNPROCESSABLE_ENTITY
            )
        )
    }
}

/// Without the key.
impl std::fmt::Debug for Embeddings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embeddings").field("model", &self.model).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    index: usize,
    embedding: Vec<f32>,
}

impl Embeddings {
    /// Reads what the configuration names; counts on `/metrics`.
    ///
    /// # Errors
    /// [`ActConfigError`].
    pub fn of(config: &EmbeddingsConfig, registry: &mut Registry) -> Result<Self, ActConfigError> {
        config.validate()?;
        let timeout = Duration::from_millis(config.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS));
        let client = outgoing::client(config.url.starts_with("https:"), timeout)
            .map_err(|_| ActConfigError::Url { what: "act.embeddings.url".to_owned() })?;
        let per_minute = config.requests_per_minute;
        let per_minute = per_minute.unwrap_or(DEFAULT_EMBEDDING_REQUESTS_PER_MINUTE);
        let embeddings = Self {
            client,
            url: config.url.trim_end_matches('/').to_owned(),
            model: config.model.clone(),
            key: config.key()?,
            pause: Duration::from_secs(60) / per_minute,
            next: Arc::new(Mutex::new(Instant::now())),
            requests: Family::default(),
            texts: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("throughline_act");
        registry.register(
            "embedding_requests",
            "Requests to the endpoint of embeddings by what came of them (answered, failed)",
            embeddings.requests.clone(),
        );
        registry.register(
            "embedding_texts",
            "Texts whose embedding the endpoint made",
            embeddings.texts.clone(),
        );
        Ok(embeddings)
    }

    /// The model that is asked.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The embeddings of so many texts, in their order; at most [`EMBEDDING_BATCH_TEXTS`]. Waits for its turn, so that
    /// no more requests are sent in a minute than the configuration allows.
    ///
    /// # Errors
    /// [`EmbeddingsError`].
    pub async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbeddingsError> {
        let (told, _) = outgoing::persist(&PAUSES_MS, || async {
            self.turn().await;
            self.once(texts).await
        })
        .await;
        let outcome = if told.is_ok() { "answered" } else { "failed" };
        self.requests.get_or_create(&[("outcome", outcome)]).inc();
        if let Ok(embeddings) = &told {
            self.texts.inc_by(embeddings.len() as u64);
        }
        told.map_err(|failed| EmbeddingsError { message: failed.message, status: failed.status })
    }

    async fn turn(&self) {
        let mut next = self.next.lock().await;
        tokio::time::sleep_until(*next).await;
        *next = Instant::now() + self.pause;
    }

    async fn once(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Undelivered> {
        let body = json!({"model": self.model, "input": texts, "encoding_format": "float"});
        let mut request = self
            .client
            .post(format!("{}/embeddings", self.url))
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        let expected = "`data` as OpenAI's embeddings have it";
        let answer: Answer = outgoing::ask(request, MAX_ANSWER_BYTES, expected).await?;
        let got = answer.data.len();
        in_order(answer.data, texts.len()).ok_or_else(|| {
            let message = format!(
                "expected {} embeddings of 1 to {MAX_NUMBERS} finite numbers, all of one length, got {got} rows",
                texts.len()
            );
            Undelivered { message, is_passing: false, status: None }
        })
    }
}

/// The embeddings in the order of the texts; `None` where one is missing, or cannot be compared.
fn in_order(mut rows: Vec<Row>, texts: usize) -> Option<Vec<Vec<f32>>> {
    rows.sort_by_key(|row| row.index);
    let length = rows.first().map_or(0, |row| row.embedding.len());
    let is_good = rows.len() == texts
        && (1..=MAX_NUMBERS).contains(&length)
        && rows.iter().enumerate().all(|(at, row)| {
            row.index == at
                && row.embedding.len() == length
                && row.embedding.iter().all(|number| number.is_finite())
        });
    is_good.then(|| rows.into_iter().map(|row| row.embedding).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Lock;

    use axum::body::Bytes;
    use axum::http::HeaderMap;
    use serde_json::Value;

    use super::*;

    type Seen = Arc<Lock<Vec<(String, Value)>>>;

    async fn endpoint(answer: &'static str) -> (String, Seen) {
        let seen = Seen::default();
        let noted = Arc::clone(&seen);
        let handler = move |headers: HeaderMap, body: Bytes| {
            let key = headers.get("authorization").and_then(|value| value.to_str().ok());
            let body = serde_json::from_slice(&body).expect("JSON");
            noted.lock().expect("unharmed").push((key.unwrap_or_default().to_owned(), body));
            std::future::ready(answer)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1/", listener.local_addr().expect("an address"));
        let app = axum::Router::new().route("/v1/embeddings", axum::routing::post(handler));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (url, seen)
    }

    fn config(url: &str) -> EmbeddingsConfig {
        EmbeddingsConfig {
            url: url.to_owned(),
            model: "small".to_owned(),
            api_key_env: None,
            api_key_file: None,
            requests_per_minute: Some(6_000),
            timeout_ms: None,
        }
    }

    #[tokio::test]
    async fn r5_7_texts_are_embedded_in_their_order_with_the_key_of_a_file() {
        let answer = r#"{"object": "list", "model": "small", "data": [
            {"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [1.0, 0.5]}]}"#;
        let (url, seen) = endpoint(answer).await;
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("key");
        std::fs::write(&file, "sk-1\n").expect("written");
        let config = EmbeddingsConfig { api_key_file: Some(file), ..config(&url) };
        let mut registry = Registry::default();
        let embeddings = Embeddings::of(&config, &mut registry).expect("an endpoint");
        let told = embeddings.embed(&["one", "two"]).await.expect("embeddings");
        assert_eq!(told, [[1.0, 0.5], [0.0, 2.0]]);
        let asked = seen.lock().expect("unharmed").clone();
        let body = json!({"model": "small", "input": ["one", "two"], "encoding_format": "float"});
        assert_eq!(asked, [("Bearer sk-1".to_owned(), body)]);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        assert!(text.contains("throughline_act_embedding_texts_total 2"), "{text}");
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_compared_is_none() {
        for answer in [
            r#"{"data": [{"index": 0, "embedding": [1.0]}]}"#,
            r#"{"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": []}]}"#,
            r#"{"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]}"#,
            r#"{"data": [{"index": 0, "embedding": [1e39]}, {"index": 1, "embedding": [1.0]}]}"#,
            r#"{"error": "no"}"#,
        ] {
            let (url, _) = endpoint(answer).await;
            let embeddings = Embeddings::of(&config(&url), &mut Registry::default());
            let told = embeddings.expect("an endpoint").embed(&["one", "two"]).await;
            assert!(told.is_err_and(|error| error.to_string().contains("expected")), "{answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_asked_in_a_minute_than_is_allowed() {
        let (url, _) = endpoint("{}").await;
        let config = EmbeddingsConfig { requests_per_minute: Some(2), ..config(&url) };
        let embeddings = Embeddings::of(&config, &mut Registry::default()).expect("an endpoint");
        let start = Instant::now();
        for _ in 0..3 {
            embeddings.turn().await;
        }
        assert_eq!(start.elapsed().as_secs(), 60);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let told = |config: EmbeddingsConfig| {
            Embeddings::of(&config, &mut Registry::default()).expect_err("refused").to_string()
        };
        let good = || config("http://127.0.0.1:9/v1");
        let both = EmbeddingsConfig {
            api_key_env: Some("K".to_owned()),
            api_key_file: Some("k".into()),
            ..good()
        };
        insta::assert_snapshot!(told(both), @"expected `act.embeddings.api_key_env` to be one of `api_key_env` and `api_key_file`, got both");
        let none = EmbeddingsConfig { api_key_env: Some("NO_SUCH_KEY".to_owned()), ..good() };
        insta::assert_snapshot!(told(none), @"expected `act.embeddings.api_key_env` to be a key in the environment variable NO_SUCH_KEY, got none");
        let fast = EmbeddingsConfig { requests_per_minute: Some(0), ..good() };
        insta::assert_snapshot!(told(fast), @"expected `act.embeddings.requests_per_minute` to be 1 to 6000, got 0");
    }
}
