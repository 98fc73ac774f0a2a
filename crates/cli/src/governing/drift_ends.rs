//! Findings of drift whose detector is no more: its agent made room, was silent for long, or what was known of it could
//! not be read. Nobody else would ever say that they are over.

use std::collections::{BTreeMap, BTreeSet};

use throughline_govern::{DetectorStanding, Watches};
use throughline_store::Governance;
use throughline_trace::{Finding, FindingState};

use super::{RoundError, investigate};

/// Everything about drift that fires, as it is written down.
pub(super) async fn firing(governance: &Governance) -> Result<Vec<Finding>, RoundError> {
    let mut found = Vec::new();
    for watches in Watches::ALL {
        found.extend(investigate::firing(governance, watches.kind()).await?);
    }
    Ok(found)
}

/// Ends what fires, as it is written down or as it was said just now, where no detector of that agent and kind has its
/// alarm on; nanoseconds since the Unix epoch.
pub(super) fn end(
    standing: &[DetectorStanding],
    firing: Vec<Finding>,
    now: u64,
    said: &mut Vec<Finding>,
) {
    let watches = |one: &Finding| {
        Watches::ALL.into_iter().find(|of| one.kind == of.kind() && one.rule == of.kind())
    };
    let on: BTreeSet<(&str, Watches)> = standing
        .iter()
        .filter(|one| one.is_firing)
        .map(|one| (one.agent.as_str(), one.watches))
        .collect();
    // Of what was said several times the last counts, and it counts more than what is written.
    let mut known: BTreeMap<String, Finding> =
        firing.into_iter().map(|one| (one.id.clone(), one)).collect();
    let of_drift = said.iter().filter(|one| watches(one).is_some());
    known.extend(of_drift.map(|one| (one.id.clone(), one.clone())));
    for mut finding in known.into_values() {
        let agent = finding.subject.get("agent");
        let (Some(of), Some(agent)) = (watches(&finding), agent) else { continue };
        if finding.state != FindingState::Firing || on.contains(&(agent, of)) {
            continue;
        }
        let name = of.signal();
        finding.summary = format!(
            "{name} of {agent} is no longer followed from where this began: whether it is as usual again is not known"
        );
        finding.state = FindingState::Resolved;
        finding.at_unix_nano = now;
        said.push(finding);
    }
}

#[cfg(test)]
mod tests {
    use throughline_trace::Subject;

    use super::*;

    fn finding(agent: &str, of: Watches, id: &str, state: FindingState) -> Finding {
        Finding {
            id: id.to_owned(),
            rule: of.kind().to_owned(),
            rule_version: "1".to_owned(),
            kind: of.kind().to_owned(),
            subject: Subject::of("agent", agent),
            severity: throughline_trace::FindingSeverity::Warning,
            state,
            since_unix_nano: 1,
            at_unix_nano: 2,
            from_unix_nano: 1,
            to_unix_nano: 2,
            summary: "it drifted".to_owned(),
            values: BTreeMap::new(),
            confidence: None,
            evidence: Vec::new(),
            runbook: String::new(),
        }
    }

    fn standing(agent: &str, watches: Watches, is_firing: bool) -> DetectorStanding {
        let agent = agent.to_owned();
        DetectorStanding { agent, watches, reading: None, is_firing, seen_unix_nano: 2 }
    }

    #[test]
    fn what_no_detector_holds_any_more_is_over() {
        use FindingState::{Firing, Resolved};
        use Watches::{Latency, Tokens};
        // "back" was forgotten and came back: its detectors are new ones.
        let standing = [
            standing("here", Latency, true),
            standing("here", Tokens, false),
            standing("back", Latency, false),
        ];
        let firing = vec![
            finding("here", Latency, "on", Firing),
            finding("here", Tokens, "state-lost", Firing),
            finding("back", Latency, "came-back", Firing),
            finding("gone", Latency, "gone", Firing),
            finding("gone", Tokens, "ended-itself", Firing),
        ];
        let mut said = vec![
            finding("gone", Tokens, "ended-itself", Firing),
            finding("gone", Tokens, "ended-itself", Resolved),
            finding("new", Tokens, "made-room-at-once", Firing),
            finding("new", Tokens, "made-room-at-once", Firing),
            finding("here", Latency, "on", Firing),
            // That of an objective is not one of these, whatever it is called.
            Finding { kind: "burn_rate".to_owned(), ..finding("gone", Latency, "slo", Firing) },
        ];
        let before = said.clone();
        end(&standing, firing, 9, &mut said);
        let (kept, ended) = said.split_at(before.len());
        assert_eq!(kept, before);
        let told: Vec<(&str, u64)> =
            ended.iter().map(|one| (one.id.as_str(), one.at_unix_nano)).collect();
        let over = ["came-back", "gone", "made-room-at-once", "state-lost"];
        assert_eq!(told, over.map(|id| (id, 9)));
        assert!(ended.iter().all(|one| one.state == Resolved));
        insta::assert_snapshot!(ended[1].summary, @"agent_decision_latency of gone is no longer followed from where this began: whether it is as usual again is not known");
    }
}
