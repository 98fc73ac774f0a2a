//! Alertmanager's API v2: `POST /api/v2/alerts`.

use std::collections::BTreeMap;

use http::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use super::Message;
use crate::moments::{NANOS_PER_SEC, rfc3339};

/// How long an alert fires when nobody says that it is over, seconds. Without it Alertmanager would
/// let it go after five minutes.
const FIRES_FOR_S: u64 = 24 * 3_600;

/// Label by which an alert of ours is known when it comes back to us: the finding, or the action of a
/// notice that is about none.
pub(super) const OURS: &str = "throughline_finding";

pub(super) fn request(client: &Client, url: &str, message: &Message<'_>) -> RequestBuilder {
    let body = Value::Array(vec![alert(message)]).to_string();
    let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
    client.post(url).header(CONTENT_TYPE, "application/json").body(body)
}

fn alert(message: &Message<'_>) -> Value {
    let action = message.action;
    let mut labels = BTreeMap::new();
    for (name, value) in &action.subject.0 {
        labels.insert(label_name(name), value.clone());
    }
    let mut annotations = BTreeMap::from([
        ("summary".to_owned(), message.summary().to_owned()),
        ("action".to_owned(), action.id.clone()),
        ("reason".to_owned(), action.reason.clone()),
    ]);
    let mut starts = action.at_unix_nano;
    let mut ends = message.now_unix_nano + FIRES_FOR_S * NANOS_PER_SEC;
    if let Some(finding) = message.finding {
        labels.insert("severity".to_owned(), finding.severity.as_str().to_owned());
        labels.insert("kind".to_owned(), finding.kind.clone());
        starts = finding.since_unix_nano;
        if message.is_resolved() {
            ends = message.now_unix_nano;
        }
        if !finding.runbook.is_empty() {
            annotations.insert("runbook_url".to_owned(), finding.runbook.clone());
        }
        let evidence: Vec<String> = finding.evidence.iter().map(ToString::to_string).collect();
        annotations.insert("evidence".to_owned(), evidence.join(" "));
    }
    labels.insert("alertname".to_owned(), message.title().to_owned());
    let ours = if action.finding.is_empty() { &action.id } else { &action.finding };
    labels.insert(OURS.to_owned(), ours.clone());
    // Alertmanager takes a label without a value for one that is not there.
    labels.retain(|_, value| !value.is_empty());
    json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": rfc3339(starts.min(ends)),
        "endsAt": rfc3339(ends),
        "generatorURL": message.link,
    })
}

/// What Prometheus takes as the name of a label.
fn label_name(name: &str) -> String {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut good: String = name.chars().map(|c| if is_good(c) { c } else { '_' }).collect();
    if good.starts_with(|c: char| c.is_ascii_digit()) || good.is_empty() {
        good.insert(0, '_');
    }
    good
}

#[cfg(test)]
mod tests {
    use throughline_trace::{Action, FindingState};

    use super::*;
    use crate::notify::tests::{action, finding, message};

    #[test]
    fn an_alert_fires_for_a_day_unless_it_is_over() {
        let firing = finding(FindingState::Firing);
        let action = action(&firing);
        let alert_of = |finding| alert(&message(&action, finding));
        let fired = alert_of(&firing);
        assert_eq!(fired["startsAt"], "2025-11-26T07:55:00.000Z");
        assert_eq!(fired["endsAt"], "2025-11-27T07:55:01.000Z");
        assert_eq!(fired["labels"]["model_id"], "gpt-4o");
        assert_eq!(fired["labels"]["alertname"], "latency");
        let resolved = finding(FindingState::Resolved);
        let over = alert_of(&resolved);
        assert_eq!(over["endsAt"], "2025-11-26T07:55:01.000Z");
        assert_eq!(over["labels"], fired["labels"], "the same alert");
    }

    #[test]
    fn a_notice_about_no_finding_is_known_as_ours_too() {
        let firing = finding(FindingState::Firing);
        let action = Action { finding: String::new(), ..action(&firing) };
        let notice = Message { finding: None, ..message(&action, &firing) };
        let labels = alert(&notice)["labels"].take();
        assert_eq!(labels[OURS], action.id.as_str());
    }

    proptest::proptest! {
        #[test]
        fn every_label_has_a_name_that_prometheus_takes(name in ".{0,20}") {
            let name = label_name(&name);
            proptest::prop_assert!(!name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()));
            proptest::prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
        }
    }
}
