//! `act:` of the configuration file: who is told, and with which key directives are signed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;
use throughline_trace::RouteWeightsError;

use crate::argo::ArgoConfig;
use crate::embeddings::EmbeddingsConfig;
use crate::opa::{MAX_OPA_TIMEOUT_MS, OpaConfig};
use crate::xds::XdsConfig;

/// Characters of the name of a receiver at most.
const MAX_NAME_CHARS: usize = 64;

/// `act:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActConfig {
    /// File with `ID:BASE64`, the key that directives are signed with; they are not signed without.
    pub directive_key_file: Option<PathBuf>,
    /// Where people reach the pages (`https://throughline.example.com`), for links in messages.
    pub public_url: Option<String>,
    /// Who is told.
    pub receivers: Vec<ReceiverConfig>,
    /// Routes that Envoy follows.
    pub xds: XdsConfig,
    /// Where workflows are started.
    pub argo: Option<ArgoConfig>,
    /// Who has the policies with `opa:`.
    pub opa: Option<OpaConfig>,
    /// Who makes embeddings of what agents are asked.
    pub embeddings: Option<EmbeddingsConfig>,
}

/// One of `act.receivers`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiverConfig {
    /// What rules call it.
    pub name: String,
    /// What it understands.
    pub kind: ReceiverKind,
    /// Its address; one of `url` and `url_file`.
    #[serde(default)]
    pub url: Option<String>,
    /// File with its address, where that is a secret (Slack's is).
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// File with the secret that webhooks are signed with.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
}

/// What a receiver understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiverKind {
    /// Our own JSON, signed.
    Webhook,
    /// A Slack incoming webhook, and what speaks like one.
    Slack,
    /// Alertmanager's API v2; the address is that of the server (`http://alertmanager:9093`).
    Alertmanager,
}

/// What cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActConfigError {
    /// A name cannot be told from others.
    #[error(
        "expected a name of 1 to {MAX_NAME_CHARS} letters, digits, `_`, `-` and `.` in `act.receivers`, got {0:?}"
    )]
    Name(String),
    /// Two receivers have the same name.
    #[error("expected every name in `act.receivers` once, got {0:?} twice")]
    Twice(String),
    /// There is no address, or two.
    #[error("expected one of `url` and `url_file` in `act.receivers[{name}]`, got {got}")]
    Address {
        /// The receiver.
        name: String,
        /// How many there are.
        got: &'static str,
    },
    /// The address is none.
    #[error("expected `{what}` to be an address such as https://host/path, got another text")]
    Url {
        /// Which setting.
        what: String,
    },
    /// Something is signed that nobody could check.
    #[error("expected `secret_file` with `kind: webhook` only, got it in `act.receivers[{0}]`")]
    Secret(String),
    /// Weights of a route cannot be followed.
    #[error("`act.xds.routes`: {0}")]
    Xds(#[from] RouteWeightsError),
    /// A name that Kubernetes would not take.
    #[error("expected names of letters, digits, `-` and `.` in `act.argo`, got {0:?}")]
    Kubernetes(String),
    /// Rules are asked every minute.
    #[error("expected `act.opa.timeout_ms` to be 1 to {MAX_OPA_TIMEOUT_MS}, got {0}")]
    OpaTimeout(u64),
    /// Embeddings could not be asked for so.
    #[error("expected `act.embeddings.{field}` to be {expected}, got {got}")]
    Embeddings {
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// Traffic would be divided as if nobody had ever set weights.
    #[error(
        "expected to read the weights that were set last, got: {0}; a later version may have written \
         them: start that one"
    )]
    Weights(String),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] crate::SigningError),
}

impl ActConfig {
    /// The paths, which are relative to the file.
    pub fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let of_receivers = self.receivers.iter_mut().flat_map(|receiver| {
            [&mut receiver.url_file, &mut receiver.secret_file].into_iter().flatten()
        });
        let of_argo = self.argo.as_mut().and_then(|argo| argo.token_file.as_mut());
        let of_opa = self.opa.as_mut().and_then(|opa| opa.token_file.as_mut());
        let of_embeddings = self.embeddings.as_mut().and_then(|of| of.api_key_file.as_mut());
        let of_opa = of_opa.into_iter().chain(of_embeddings);
        self.directive_key_file.iter_mut().chain(of_receivers).chain(of_argo).chain(of_opa)
    }

    /// Refuses what cannot be meant, without reading files.
    ///
    /// # Errors
    /// [`ActConfigError`].
    pub fn validate(&self) -> Result<(), ActConfigError> {
        self.xds.validate()?;
        self.argo.as_ref().map_or(Ok(()), ArgoConfig::validate)?;
        self.opa.as_ref().map_or(Ok(()), OpaConfig::validate)?;
        self.embeddings.as_ref().map_or(Ok(()), EmbeddingsConfig::validate)?;
        let mut names = BTreeSet::new();
        for receiver in &self.receivers {
            let name = &receiver.name;
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if !(1..=MAX_NAME_CHARS).contains(&name.len()) || !name.chars().all(is_name) {
                return Err(ActConfigError::Name(name.clone()));
            }
            if !names.insert(name) {
                return Err(ActConfigError::Twice(name.clone()));
            }
            let address = |got| ActConfigError::Address { name: name.clone(), got };
            match (&receiver.url, &receiver.url_file) {
                (None, None) => return Err(address("none")),
                (Some(_), Some(_)) => return Err(address("both")),
                (Some(url), None) => check_url(&format!("act.receivers[{name}].url"), url)?,
                (None, Some(_)) => {}
            }
            if receiver.secret_file.is_some() && receiver.kind != ReceiverKind::Webhook {
                return Err(ActConfigError::Secret(name.clone()));
            }
        }
        match &self.public_url {
            Some(url) => check_url("act.public_url", url),
            None => Ok(()),
        }
    }
}

/// Refuses what is no address. It may hold a secret, so that it is not shown.
pub(crate) fn check_url(what: &str, url: &str) -> Result<(), ActConfigError> {
    let is_http = reqwest::Url::parse(url)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if is_http { Ok(()) } else { Err(ActConfigError::Url { what: what.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(name: &str, url: Option<&str>) -> ReceiverConfig {
        ReceiverConfig {
            name: name.to_owned(),
            kind: ReceiverKind::Slack,
            url: url.map(str::to_owned),
            url_file: None,
            secret_file: None,
        }
    }

    fn refusal(receivers: Vec<ReceiverConfig>) -> String {
        let config = ActConfig { receivers, ..ActConfig::default() };
        config.validate().map_or_else(|error| error.to_string(), |()| "good".to_owned())
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let good = || receiver("oncall", Some("https://hooks.slack.example/T1/x"));
        assert_eq!(refusal(vec![good()]), "good");
        insta::assert_snapshot!(refusal(vec![good(), good()]), @r#"expected every name in `act.receivers` once, got "oncall" twice"#);
        insta::assert_snapshot!(refusal(vec![receiver("a b", None)]), @r#"expected a name of 1 to 64 letters, digits, `_`, `-` and `.` in `act.receivers`, got "a b""#);
        insta::assert_snapshot!(refusal(vec![receiver("a", None)]), @"expected one of `url` and `url_file` in `act.receivers[a]`, got none");
        insta::assert_snapshot!(refusal(vec![receiver("a", Some("secret-token"))]), @"expected `act.receivers[a].url` to be an address such as https://host/path, got another text");
        let signed = ReceiverConfig { secret_file: Some("x".into()), ..good() };
        insta::assert_snapshot!(refusal(vec![signed]), @"expected `secret_file` with `kind: webhook` only, got it in `act.receivers[oncall]`");
    }
}
