//! Telling people and their systems: webhooks, Slack, Alertmanager.
//!
//! What is told is a [`Message`]; how it looks is one file a kind. Nothing here waits for another
//! try: an action that was not delivered stays `asked`, in `govern.db`, and is tried again.

mod alertmanager;
mod slack;
mod webhook;

pub(crate) mod inbound;

use std::collections::BTreeMap;

use reqwest::Client;
use throughline_trace::{Action, Finding, FindingState};

use crate::config::{ActConfig, ActConfigError, ReceiverConfig, ReceiverKind, check_url};
use crate::outgoing::{self, REQUEST_TIMEOUT, Undelivered};
use crate::sign::read_text;

/// The word for what is over.
const RESOLVED: &str = "resolved";

/// What is told.
#[derive(Debug, Clone)]
pub(crate) struct Message<'a> {
    pub(crate) action: &'a Action,
    /// What the rule saw; `None` when a person asked, or it is no longer stored.
    pub(crate) finding: Option<&'a Finding>,
    /// The incident that the finding belongs to.
    pub(crate) incident: Option<&'a str>,
    /// Where people look further.
    pub(crate) link: String,
    /// When it is told, nanoseconds since the Unix epoch.
    pub(crate) now_unix_nano: u64,
}

impl Message<'_> {
    /// Whether what it tells is over.
    fn is_resolved(&self) -> bool {
        self.finding.is_some_and(|finding| finding.state == FindingState::Resolved)
    }

    /// What it is called, on a line.
    fn title(&self) -> &str {
        match self.finding {
            Some(finding) => &finding.rule,
            None if self.action.rule.is_empty() => "throughline",
            None => &self.action.rule,
        }
    }

    /// What happened, in a sentence.
    fn summary(&self) -> &str {
        match self.finding {
            Some(finding) => &finding.summary,
            None => &self.action.reason,
        }
    }
}

/// Who can be told.
#[derive(Debug)]
pub(crate) struct Receivers {
    all: BTreeMap<String, Receiver>,
    client: Client,
    /// Where people reach the pages.
    public_url: String,
}

struct Receiver {
    kind: ReceiverKind,
    url: String,
    secret: Option<Vec<u8>>,
}

/// Without the address and the secret.
impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Receivers {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// [`ActConfigError`].
    pub(crate) fn of(config: &ActConfig, own_url: &str) -> Result<Self, ActConfigError> {
        config.validate()?;
        let all = config.receivers.iter().map(|one| Ok((one.name.clone(), receiver(one)?)));
        let all: BTreeMap<String, Receiver> = all.collect::<Result<_, ActConfigError>>()?;
        let is_tls = all.values().any(|one| one.url.starts_with("https:"));
        let client = outgoing::client(is_tls, REQUEST_TIMEOUT)
            .map_err(|_| ActConfigError::Url { what: "act.receivers".to_owned() })?;
        let public_url = config.public_url.as_deref().unwrap_or(own_url);
        Ok(Self { all, client, public_url: public_url.trim_end_matches('/').to_owned() })
    }

    /// Whether there still is a receiver of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }

    /// The names that rules may use.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.all.keys().map(String::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// Where people look further: at a trace that shows it, or at the decision.
    pub(crate) fn link(&self, action: &Action) -> String {
        let base = &self.public_url;
        match action.evidence.first() {
            Some(trace) => format!("{base}/traces/{trace}"),
            None => format!("{base}/decisions/{}", crate::recorder::decision_id(&action.id)),
        }
    }

    /// Tells one receiver; says what was done. `None` when there is none of that name.
    pub(crate) async fn tell(
        &self,
        name: &str,
        message: &Message<'_>,
    ) -> Option<Result<String, Undelivered>> {
        let receiver = self.all.get(name)?;
        let request = match receiver.kind {
            ReceiverKind::Webhook => {
                webhook::request(&self.client, &receiver.url, receiver.secret.as_deref(), message)
            }
            ReceiverKind::Slack => slack::request(&self.client, &receiver.url, message),
            ReceiverKind::Alertmanager => {
                alertmanager::request(&self.client, &receiver.url, message)
            }
        };
        Some(match outgoing::send(request).await {
            Ok(_) => Ok(delivered(name, message.is_resolved())),
            Err(mut undelivered) => {
                undelivered.message = format!("{name} {}", undelivered.message);
                Err(undelivered)
            }
        })
    }
}

/// What became of an action that told somebody.
pub(crate) fn delivered(receiver: &str, is_resolved: bool) -> String {
    let word = if is_resolved { RESOLVED } else { "firing" };
    format!("told {receiver} ({word})")
}

/// Whether an action told that something is over, by what [`delivered`] wrote.
pub(crate) fn says_resolved(detail: &str) -> bool {
    detail.strip_suffix(')').is_some_and(|rest| rest.ends_with(&format!("({RESOLVED}")))
}

fn receiver(config: &ReceiverConfig) -> Result<Receiver, ActConfigError> {
    let url = match (&config.url, &config.url_file) {
        (Some(url), _) => url.clone(),
        (None, Some(file)) => {
            let url = read_text(file)?.trim().to_owned();
            check_url(&format!("act.receivers[{}].url_file", config.name), &url)?;
            url
        }
        (None, None) => String::new(),
    };
    let secret = match &config.secret_file {
        Some(file) => {
            let text = read_text(file)?;
            let secret = text.trim();
            if secret.len() < crate::MIN_KEY_BYTES {
                let (path, got) = (file.display().to_string(), secret.len());
                return Err(crate::SigningError::Short { path, got }.into());
            }
            Some(secret.as_bytes().to_vec())
        }
        None => None,
    };
    Ok(Receiver { kind: config.kind, url, secret })
}

#[cfg(test)]
pub(crate) mod tests {
    use throughline_trace::{FindingSeverity, Operation, Subject};

    use super::*;

    pub(crate) const AT: u64 = 1_764_143_700_000_000_000;

    pub(crate) fn finding(state: FindingState) -> Finding {
        Finding {
            id: "latency/1/agent=fraud/1764143700".to_owned(),
            rule: "latency".to_owned(),
            rule_version: "1".to_owned(),
            kind: "drift.latency".to_owned(),
            subject: Subject::of("agent", "fraud").and("model.id", "gpt-4o"),
            severity: FindingSeverity::Critical,
            state,
            since_unix_nano: AT,
            at_unix_nano: AT + 60_000_000_000,
            from_unix_nano: AT,
            to_unix_nano: AT + 60_000_000_000,
            summary: "p95 is 2.8 s, 7 times its baseline <b>".to_owned(),
            values: [("p95_s".to_owned(), 2.8)].into(),
            confidence: Some(0.97),
            evidence: vec!["4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("an id")],
            runbook: "https://runbooks.example/latency".to_owned(),
        }
    }

    pub(crate) fn action(finding: &Finding) -> Action {
        Action {
            id: format!("notify/{}", finding.id),
            finding: finding.id.clone(),
            rule: finding.rule.clone(),
            rule_version: "1".to_owned(),
            subject: finding.subject.clone(),
            at_unix_nano: AT,
            operation: Operation::Notify { receiver: "oncall".to_owned() },
            reason: "somebody should look".to_owned(),
            evidence: finding.evidence.clone(),
            cool_down_s: 300,
            is_dry_run: false,
        }
    }

    pub(crate) fn message<'a>(action: &'a Action, finding: &'a Finding) -> Message<'a> {
        Message {
            action,
            finding: Some(finding),
            incident: Some("i-1"),
            link: "https://tl.example/traces/4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
            now_unix_nano: AT + 1_000_000_000,
        }
    }
}
