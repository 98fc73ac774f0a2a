//! An OPA elsewhere, asked by its [REST API](https://www.openpolicyagent.org/docs/rest-api): `POST
//! /v1/data/{path}` with `{"input": …}`. An answer without `result` is undefined; no answer is no answer, and
//! is told as one.

use std::path::PathBuf;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{ActConfigError, check_url};
use crate::outgoing::{self, Undelivered};
use crate::sign::read_text;

/// How long one try may take where the configuration does not say, milliseconds.
pub const DEFAULT_OPA_TIMEOUT_MS: u64 = 2_000;

/// Longest such time, milliseconds: rules are asked every minute.
pub const MAX_OPA_TIMEOUT_MS: u64 = 10_000;

/// Pauses before further tries, milliseconds; a try that may not fare better is the last.
const PAUSES_MS: [u64; 2] = [100, 400];

/// Bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// `act.opa`: the OPA that policies with `opa:` ask.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpaConfig {
    /// Its address (`http://opa:8181`).
    pub url: String,
    /// File with a bearer token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// How long one try may take, milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

impl OpaConfig {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// [`ActConfigError`].
    pub(crate) fn validate(&self) -> Result<(), ActConfigError> {
        check_url("act.opa.url", &self.url)?;
        let timeout_ms = self.timeout_ms.unwrap_or(DEFAULT_OPA_TIMEOUT_MS);
        if !(1..=MAX_OPA_TIMEOUT_MS).contains(&timeout_ms) {
            return Err(ActConfigError::OpaTimeout(timeout_ms));
        }
        Ok(())
    }
}

/// An OPA, ready to be asked. Cheap to clone.
#[derive(Clone)]
pub struct Opa {
    client: Client,
    url: String,
    token: Option<String>,
    requests: Family<[(&'static str, &'static str); 1], Counter>,
    retries: Counter,
}

/// Without the token.
impl std::fmt::Debug for Opa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opa").finish_non_exhaustive()
    }
}

/// What OPA answers, as far as it matters.
#[derive(Deserialize)]
struct Document {
    result: Option<Value>,
}

impl Opa {
    /// Reads what the configuration names; counts on `/metrics`.
    ///
    /// # Errors
    /// [`ActConfigError`].
    pub fn of(config: &OpaConfig, registry: &mut Registry) -> Result<Self, ActConfigError> {
        config.validate()?;
        let token = config.token_file.as_deref().map(read_text).transpose()?;
        let timeout = Duration::from_millis(config.timeout_ms.unwrap_or(DEFAULT_OPA_TIMEOUT_MS));
        let client = outgoing::client(config.url.starts_with("https:"), timeout)
            .map_err(|_| ActConfigError::Url { what: "act.opa.url".to_owned() })?;
        let opa = Self {
            client,
            url: config.url.trim_end_matches('/').to_owned(),
            token: token.map(|token| token.trim().to_owned()),
            requests: Family::default(),
            retries: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("throughline_act");
        registry.register(
            "opa_questions",
            "Questions to the OPA by what came of them (answered, undefined, failed)",
            opa.requests.clone(),
        );
        registry.register(
            "opa_retries",
            "Questions to the OPA that were tried again",
            opa.retries.clone(),
        );
        Ok(opa)
    }

    /// Asks for the document at a path such as `throughline/payments/allow`; `None` when it is undefined.
    ///
    /// # Errors
    /// Why there is no answer, for people: whoever asks takes that for unknown, never for a yes.
    pub async fn ask(&self, path: &str, input: &Value) -> Result<Option<Value>, String> {
        let (answer, retries) = outgoing::persist(&PAUSES_MS, || self.once(path, input)).await;
        self.retries.inc_by(retries);
        let outcome = match &answer {
            Ok(Some(_)) => "answered",
            Ok(None) => "undefined",
            Err(_) => "failed",
        };
        self.requests.get_or_create(&[("outcome", outcome)]).inc();
        answer.map_err(|failed| format!("the OPA gave no answer: {}", failed.message))
    }

    async fn once(&self, path: &str, input: &Value) -> Result<Option<Value>, Undelivered> {
        let mut request = self
            .client
            .post(format!("{}/v1/data/{path}", self.url))
            .header(CONTENT_TYPE, "application/json")
            .body(json!({"input": input}).to_string());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let expected = "a JSON object as OPA's REST API answers, got other text";
        let document: Document = outgoing::ask(request, MAX_ANSWER_BYTES, expected).await?;
        Ok(document.result)
    }
}

#[cfg(test)]
mod tests;
