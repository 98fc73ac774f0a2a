//! Argo Workflows: a configured template is submitted through the server's API, once for an action,
//! and how it ends becomes a finding.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::json;
use throughline_trace::{Action, Finding, FindingSeverity, FindingState, finding_id};

use crate::config::{ActConfigError, check_url};
use crate::outgoing::{self, REQUEST_TIMEOUT, Undelivered};
use crate::recorder::decision_id;
use crate::sign::read_text;

/// Hexadecimal characters of an action's hash in the name of its workflow.
const HASH_CHARS: usize = 16;

/// Bytes of a workflow that are read at most. Kubernetes keeps 1.5 MiB; Argo keeps the nodes of a
/// large one elsewhere, and answers with them.
const MAX_WORKFLOW_BYTES: usize = 16 << 20;

/// Version of the "rule" that tells how a workflow ended.
const FORM: &str = "argo-1";

/// `act.argo`: the server of Argo Workflows, and what may be started there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArgoConfig {
    /// Its address (`https://argo.example:2746`).
    pub url: String,
    /// File with the token of a service account.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The namespace of the workflows.
    pub namespace: String,
    /// What may be started, by the names that rules use.
    pub workflows: Vec<WorkflowConfig>,
}

/// One of `act.argo.workflows`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowConfig {
    /// What rules call it.
    pub name: String,
    /// The `WorkflowTemplate` that is started.
    pub template: String,
}

/// The server, ready to be asked.
pub(crate) struct Argo {
    client: Client,
    url: String,
    token: Option<String>,
    namespace: String,
    templates: BTreeMap<String, String>,
}

/// Without the token.
impl std::fmt::Debug for Argo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Argo").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// What `GET /api/v1/workflows/{namespace}/{name}` says, as far as it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Workflow {
    status: Phase,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Phase {
    phase: String,
    message: String,
}

impl ArgoConfig {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// [`ActConfigError`].
    pub(crate) fn validate(&self) -> Result<(), ActConfigError> {
        check_url("act.argo.url", &self.url)?;
        let is_name = |text: &str| {
            !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        };
        let named = self.workflows.iter().map(|workflow| &workflow.template);
        match named.chain([&self.namespace]).find(|name| !is_name(name)) {
            Some(name) => Err(ActConfigError::Kubernetes(name.clone())),
            None => Ok(()),
        }
    }
}

impl Argo {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// [`ActConfigError`].
    pub(crate) fn of(config: &ArgoConfig) -> Result<Self, ActConfigError> {
        let token = config.token_file.as_deref().map(read_text).transpose()?;
        let is_tls = config.url.starts_with("https:");
        let client = outgoing::client(is_tls, REQUEST_TIMEOUT)
            .map_err(|_| ActConfigError::Url { what: "act.argo.url".to_owned() })?;
        let of = |workflow: &WorkflowConfig| (workflow.name.clone(), workflow.template.clone());
        Ok(Self {
            client,
            url: config.url.trim_end_matches('/').to_owned(),
            token: token.map(|token| token.trim().to_owned()),
            namespace: config.namespace.clone(),
            templates: config.workflows.iter().map(of).collect(),
        })
    }

    /// The names that rules may use.
    pub(crate) fn names(&self) -> String {
        self.templates.keys().cloned().collect::<Vec<_>>().join(", ")
    }

    /// Starts a workflow, unless this action has started it before; says its name. `None` when none of
    /// that name is configured.
    pub(crate) async fn submit(
        &self,
        action: &Action,
        workflow: &str,
        parameters: &BTreeMap<String, String>,
    ) -> Option<Result<String, Undelivered>> {
        let template = self.templates.get(workflow)?;
        let name = name_of(template, &action.id);
        let parameters: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let body = json!({
            "namespace": self.namespace,
            "resourceKind": "WorkflowTemplate",
            "resourceName": template,
            "submitOptions": {
                "name": name,
                "parameters": parameters,
                // Argo splits this text at `,` and `=`, which ids of actions have.
                "annotations": format!("throughline.dev/decision={}", decision_id(&action.id)),
            },
        });
        let address = format!("{}/api/v1/workflows/{}/submit", self.url, self.namespace);
        let request = self
            .authorized(self.client.post(address))
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        Some(match outgoing::send(request).await {
            Ok(_) => Ok(format!("submitted as {name}")),
            // An answer that was lost: it has the name that only this action gives.
            Err(refused) if refused.status == Some(StatusCode::CONFLICT) => {
                Ok(format!("submitted as {name}"))
            }
            Err(mut undelivered) => {
                undelivered.message = format!("Argo {}", undelivered.message);
                Err(undelivered)
            }
        })
    }

    /// How the workflow of an action ended; `None` while it runs.
    pub(crate) async fn outcome(
        &self,
        action: &Action,
        workflow: &str,
        now_unix_nano: u64,
    ) -> Result<Option<Finding>, Undelivered> {
        let Some(template) = self.templates.get(workflow) else { return Ok(None) };
        let name = name_of(template, &action.id);
        let address = format!("{}/api/v1/workflows/{}/{name}", self.url, self.namespace);
        let answer = outgoing::send(self.authorized(self.client.get(address))).await?;
        let status = Some(answer.status());
        let unreadable = |error: String| {
            let message = format!("Argo's answer cannot be read: {error}");
            Undelivered { message, is_passing: true, status }
        };
        let (bytes, is_all) =
            outgoing::read(answer, MAX_WORKFLOW_BYTES).await.map_err(unreadable)?;
        if !is_all {
            return Err(unreadable(format!("expected at most {MAX_WORKFLOW_BYTES} bytes")));
        }
        let found: Workflow =
            serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        Ok(finding(action, workflow, &name, &found.status, now_unix_nano))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }
}

/// The id of the finding that tells how the workflow of an action ended.
pub(crate) fn outcome_id(action: &Action, workflow: &str) -> String {
    finding_id(&rule_of(workflow), FORM, &action.subject, action.at_unix_nano)
}

fn rule_of(workflow: &str) -> String {
    format!("workflow:{workflow}")
}

/// The same action has a workflow of the same name, so that it cannot start two.
fn name_of(template: &str, action_id: &str) -> String {
    let hash = blake3::hash(action_id.as_bytes()).to_hex();
    let hash: String = hash.chars().take(HASH_CHARS).collect();
    // The name of a Kubernetes object has at most 63 characters here.
    let template: String = template.chars().take(63 - HASH_CHARS - 1).collect();
    format!("{template}-{hash}")
}

fn finding(
    action: &Action,
    workflow: &str,
    name: &str,
    status: &Phase,
    now: u64,
) -> Option<Finding> {
    let (severity, state, word) = match status.phase.as_str() {
        "Succeeded" => (FindingSeverity::Info, FindingState::Resolved, "succeeded"),
        "Failed" => (FindingSeverity::Critical, FindingState::Firing, "failed"),
        "Error" => (FindingSeverity::Critical, FindingState::Firing, "ended in an error"),
        _ => return None,
    };
    let mut summary = format!("the workflow {name} {word}");
    if !status.message.is_empty() {
        summary.push_str(&format!(": {}", status.message));
    }
    tracing::info!(workflow = name, phase = status.phase, "a workflow ended");
    Some(Finding {
        id: outcome_id(action, workflow),
        rule: rule_of(workflow),
        rule_version: FORM.to_owned(),
        kind: "workflow.outcome".to_owned(),
        subject: action.subject.clone(),
        severity,
        state,
        since_unix_nano: action.at_unix_nano,
        at_unix_nano: now,
        from_unix_nano: action.at_unix_nano,
        to_unix_nano: now,
        summary,
        values: BTreeMap::new(),
        confidence: None,
        evidence: action.evidence.clone(),
        runbook: String::new(),
    })
}
