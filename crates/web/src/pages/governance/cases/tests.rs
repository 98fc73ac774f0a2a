//! What the queue and an incident show, and to whom.

use throughline_trace::access::{ApiKey, Scope};

use super::*;

#[test]
fn a_case_shows_who_and_why_and_buttons_only_while_it_waits_and_to_who_may() {
    let mut one = json!({
        "id": "policy/a=b", "to": "support", "subject": { "agent": "<shop>" }, "reason": "too slow",
        "rule": "policy:slow", "evidence": ["4bf92f3577b34da6a3ce929d0e0e4736"],
        "asked": "2026-01-31T12:00:00.000Z", "state": "waiting", "decided_by": "", "decided": null, "note": "",
    });
    let page = queue(&json!({ "items": [one], "next": null }), &Visitor::default()).into_string();
    for part in [
        "For support",
        "&lt;shop&gt;",
        "policy:slow",
        "/traces/4bf9",
        "policy%2Fa%3Db",
        "Take over",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let reads = ApiKey {
        id: "k1".to_owned(),
        name: "reader".to_owned(),
        scopes: vec![Scope::Read],
        created_unix_nano: 1,
        revoked_unix_nano: None,
    };
    let reader = Visitor { key: Some(reads), ..Visitor::default() };
    let page = queue(&json!({ "items": [one], "next": null }), &reader).into_string();
    assert!(!page.contains("Take over"), "{page}");
    one["state"] = "approved".into();
    one["decided_by"] = "ada".into();
    let page = queue(&json!({ "items": [one], "next": "c" }), &Visitor::default()).into_string();
    for part in ["Nobody waits", "approved by <b>ada</b>", "?cursor=c"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("Take over"), "{page}");
}

#[test]
fn an_incident_shows_its_findings_runbook_and_timeline() {
    let incident = json!({
        "id": "f/1", "title": "slow", "subject": { "agent": "shop" }, "severity": "critical", "state": "open",
        "silenced_until": null, "assignee": "", "further_findings": 2, "traces": [],
        "findings": [{ "id": "f/1", "rule": "drift", "kind": "drift.latency", "state": "firing", "summary": "p95 is 2 s" }],
        "opened": "2026-01-31T12:00:00.000Z", "changed": "2026-01-31T12:00:00.000Z",
        "timeline": [{ "at": "2026-01-31T12:00:00.000Z", "by": "", "what": "opened" }],
    });
    let runbooks = ["https://runbooks/slow".to_owned()];
    let page = whole(&incident, &runbooks, &Visitor::default()).into_string();
    for part in [
        "https://runbooks/slow",
        "p95 is 2 s",
        "I look at it",
        "2 further",
        "nobody looks after it",
        "Silence",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(list(&json!({ "items": [incident], "next": null }), 0).into_string().contains("f%2F1"));
}
