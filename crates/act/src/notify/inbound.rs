//! Alerts of others: the webhooks of Alertmanager (version 4) and Grafana, as findings of the kind
//! `alert.external`. What they send is lenient JSON; an alert that cannot be read is told, not lost.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use throughline_trace::{Finding, FindingSeverity, FindingState, Subject, TraceId, finding_id};

use super::alertmanager::OURS;
use crate::moments::unix_nano_of;

/// Alerts in one request at most.
pub(crate) const MAX_ALERTS: usize = 1_000;

/// Labels of an alert that its subject keeps at most, in the order of their names.
const MAX_LABELS: usize = 20;

/// Characters of a label or text that are kept at most.
const MAX_TEXT_CHARS: usize = 500;

/// Version of the "rule": the form in which we read it.
const FORM: &str = "external-1";

/// What a webhook of Alertmanager or Grafana sends.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AlertWebhook")]
pub(crate) struct Webhook {
    #[schemars(length(max = 1_000))]
    pub(crate) alerts: Vec<Alert>,
}

/// One alert.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "Alert")]
#[derive(Default)]
pub(crate) struct Alert {
    status: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
    /// Grafana's.
    values: Option<BTreeMap<String, Option<f64>>>,
}

/// The findings of a webhook, and how many alerts were ours already: those do not become findings
/// again, or two servers would talk each other up.
pub(crate) fn findings(from: &str, webhook: Webhook, now_unix_nano: u64) -> (Vec<Finding>, usize) {
    let all = webhook.alerts.len();
    let others = webhook.alerts.into_iter().filter(|alert| !alert.labels.contains_key(OURS));
    let findings: Vec<Finding> = others.map(|alert| finding(from, alert, now_unix_nano)).collect();
    let ours = all - findings.len();
    (findings, ours)
}

fn finding(from: &str, alert: Alert, now_unix_nano: u64) -> Finding {
    let name = alert.labels.get("alertname").map_or("unnamed", String::as_str);
    let rule = format!("{from}:{}", cut(name));
    let is_subject = |name: &str| !matches!(name, "alertname" | "severity" | "grafana_folder");
    let labels = alert.labels.iter().filter(|(name, _)| is_subject(name)).take(MAX_LABELS);
    let subject = labels
        .fold(Subject::default(), |subject, (name, value)| subject.and(&cut(name), cut(value)));
    let since = unix_nano_of(&alert.starts_at).unwrap_or(now_unix_nano);
    let is_over = alert.status == "resolved";
    let at = match is_over {
        true => unix_nano_of(&alert.ends_at).unwrap_or(now_unix_nano),
        false => now_unix_nano,
    };
    let annotation = |names: &[&str]| {
        let found = names.iter().find_map(|name| alert.annotations.get(*name));
        found.map(|text| cut(text)).unwrap_or_default()
    };
    let mut summary = annotation(&["summary", "description", "message"]);
    if summary.is_empty() {
        summary = format!("{name} of {from}");
    }
    let runbook = match annotation(&["runbook_url"]) {
        text if text.is_empty() => cut(&alert.generator_url),
        text => text,
    };
    let values = alert.values.unwrap_or_default();
    let values = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
    Finding {
        id: finding_id(&rule, FORM, &subject, since),
        rule,
        rule_version: FORM.to_owned(),
        kind: "alert.external".to_owned(),
        subject,
        severity: severity(alert.labels.get("severity").map_or("", String::as_str)),
        state: if is_over { FindingState::Resolved } else { FindingState::Firing },
        since_unix_nano: since,
        at_unix_nano: at,
        from_unix_nano: since,
        to_unix_nano: at,
        summary,
        values: values.take(MAX_LABELS).collect(),
        confidence: None,
        evidence: evidence(&alert.labels, &alert.annotations),
        runbook,
    }
}

/// The usual words; what is not known is worth a look.
fn severity(text: &str) -> FindingSeverity {
    match text.to_ascii_lowercase().as_str() {
        "critical" | "page" | "emergency" | "error" | "high" => FindingSeverity::Critical,
        "info" | "none" | "low" | "notice" => FindingSeverity::Info,
        _ => FindingSeverity::Warning,
    }
}

/// Traces that an alert names, as exemplars and dashboards do.
fn evidence(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Vec<TraceId> {
    let named = labels.iter().chain(annotations).filter(|(name, _)| {
        let name = name.to_ascii_lowercase().replace(['_', '-'], "");
        name == "traceid" || name == "traceids"
    });
    let texts = named.flat_map(|(_, value)| value.split([' ', ',', ';']));
    texts
        .filter_map(|text| text.parse().ok())
        .take(throughline_trace::MAX_EVIDENCE_TRACES)
        .collect()
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALERTMANAGER: &str = r#"{"version":"4","groupKey":"{}:{}","status":"firing","receiver":"tl","groupLabels":{},"commonLabels":{},"commonAnnotations":{},"externalURL":"http://am:9093","truncatedAlerts":0,"alerts":[
        {"status":"firing","labels":{"alertname":"HighLatency","severity":"page","service":"shop"},"annotations":{"summary":"p99 is 4 s","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"},"startsAt":"2025-11-26T07:55:00Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://prom/g","fingerprint":"a1"},
        {"status":"firing","labels":{"alertname":"latency","throughline_finding":"x"},"annotations":{},"startsAt":"2025-11-26T07:55:00Z","endsAt":"0001-01-01T00:00:00Z"}]}"#;

    #[test]
    fn an_alert_becomes_a_finding_once_and_ours_do_not_come_back() {
        let webhook: Webhook = serde_json::from_str(ALERTMANAGER).expect("readable");
        let (found, ours) = findings("alertmanager", webhook, 1_764_143_760_000_000_000);
        assert_eq!((found.len(), ours), (1, 1));
        let one = &found[0];
        assert_eq!(one.id, "alertmanager:HighLatency/external-1/service=shop/1764143700");
        assert_eq!((one.severity, one.state), (FindingSeverity::Critical, FindingState::Firing));
        assert_eq!((one.summary.as_str(), one.evidence.len()), ("p99 is 4 s", 1));
        let over = ALERTMANAGER.replace(r#"{"status":"firing""#, r#"{"status":"resolved""#);
        let (over, _) = findings("alertmanager", serde_json::from_str(&over).expect("readable"), 1);
        assert_eq!((over[0].id.as_str(), over[0].state), (one.id.as_str(), FindingState::Resolved));
    }

    #[test]
    fn grafanas_values_are_kept() {
        let text = r#"{"receiver":"tl","status":"firing","orgId":1,"title":"x","alerts":[{"status":"firing","labels":{"alertname":"burn","grafana_folder":"slo"},"annotations":{},"startsAt":"2025-11-26T07:55:00+01:00","endsAt":"0001-01-01T00:00:00Z","values":{"B":14.4,"C":null},"silenceURL":"http://g"}]}"#;
        let webhook: Webhook = serde_json::from_str(text).expect("readable");
        let (found, _) = findings("grafana", webhook, 1_764_143_760_000_000_000);
        assert_eq!(found[0].values, BTreeMap::from([("B".to_owned(), 14.4)]));
        assert_eq!(found[0].summary, "burn of grafana");
    }

    proptest::proptest! {
        #[test]
        fn any_alert_is_read_without_a_panic(name in ".{0,30}", value in ".{0,600}", at in ".{0,30}") {
            let alert = Alert {
                labels: [("alertname".to_owned(), name.clone()), (value.clone(), name)].into(),
                starts_at: at,
                annotations: [("trace_id".to_owned(), value)].into(),
                ..Alert::default()
            };
            let finding = finding("x", alert, 5);
            proptest::prop_assert!(finding.id.chars().count() <= throughline_trace::FINDING_ID_MAX_CHARS);
        }
    }
}
