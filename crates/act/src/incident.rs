//! Incidents: findings about the same thing are one incident, which people follow to its end. Pure:
//! time and names are passed in.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use throughline_trace::{Finding, FindingSeverity, FindingState, Subject, TraceId};

/// Findings that one incident keeps at most; what comes beyond is counted.
pub(crate) const MAX_FINDINGS: usize = 100;

/// Findings that one incident counts beyond those at most.
pub(crate) const MAX_FURTHER: usize = 1_000;

/// Hexadecimal characters of the hash by which a finding is known that is only counted.
const HASH_CHARS: usize = 16;

/// Traces that one incident keeps at most.
pub(crate) const MAX_TRACES: usize = 100;

/// Entries of a timeline at most: the first and the newest stay.
pub(crate) const MAX_ENTRIES: usize = 500;

/// Characters of a note at most.
pub(crate) const MAX_NOTE_CHARS: usize = 2_000;

/// How an incident stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// Nobody said that they look.
    Open,
    /// Somebody looks.
    Acknowledged,
    /// It is over.
    Resolved,
}

/// A finding of an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The finding's id.
    pub id: String,
    /// Its rule.
    pub rule: String,
    /// What kind of thing it is.
    pub kind: String,
    /// Whether it still holds.
    pub state: FindingState,
    /// What it says.
    pub summary: String,
}

/// Something that happened to an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// Who; empty for a rule.
    pub by: String,
    /// What, for people.
    pub what: String,
}

/// Findings that belong together, and what people do about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its id: that of the first finding.
    pub id: String,
    /// What the first finding said.
    pub title: String,
    /// What it is about.
    pub subject: Subject,
    /// The most urgent of its findings.
    pub severity: FindingSeverity,
    /// How it stands.
    pub state: IncidentState,
    /// Nobody is told of it before, nanoseconds since the Unix epoch.
    pub silenced_until_unix_nano: Option<u64>,
    /// Who looks after it; empty for nobody.
    pub assignee: String,
    /// What it is made of.
    pub findings: Vec<Part>,
    /// Findings that came when there were a hundred already, at most a thousand; they are counted, not
    /// kept.
    pub further_findings: u64,
    /// Hashes of their ids: rules tell of a finding again and again, and it counts once.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub counted: BTreeSet<String>,
    /// Traces that show it.
    pub traces: Vec<TraceId>,
    /// When it was opened, nanoseconds since the Unix epoch.
    pub opened_unix_nano: u64,
    /// When it changed last, nanoseconds since the Unix epoch.
    pub changed_unix_nano: u64,
    /// What happened, the oldest first.
    pub timeline: Vec<Entry>,
}

/// What may happen to an incident.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A rule saw, or no longer sees, a finding that belongs to it.
    Seen(Box<Finding>),
    /// Somebody looks.
    Acknowledge,
    /// Nobody is told before, nanoseconds since the Unix epoch.
    Silence(u64),
    /// Somebody is to look; empty for nobody.
    Assign(String),
    /// Somebody wrote something.
    Note(String),
    /// It is over.
    Resolve,
    /// It is not over.
    Reopen,
}

/// Why a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IncidentError {
    /// It does not fit how the incident stands.
    #[error("expected an incident that is {expected}, this one is {is}")]
    State {
        /// How it would have to stand.
        expected: &'static str,
        /// How it stands.
        is: &'static str,
    },
    /// The end of a silence is over already.
    #[error("expected a silence that ends later than now")]
    Silence,
    /// A note is empty or too long.
    #[error("expected a note of 1 to {MAX_NOTE_CHARS} characters, got {0}")]
    Note(usize),
}

impl IncidentState {
    /// `open`, `acknowledged` or `resolved`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }
}

/// The incident that a finding belongs to: the one that has it already, or one that is not over and
/// is about the same subject or has a trace in common.
pub fn group(incidents: &[Incident], finding: &Finding) -> Option<usize> {
    let has = |incident: &Incident| incident.findings.iter().any(|part| part.id == finding.id);
    let traces: BTreeSet<TraceId> = finding.evidence.iter().copied().collect();
    let is_kin = |incident: &Incident| {
        let is_same = !finding.subject.0.is_empty() && incident.subject == finding.subject;
        incident.state != IncidentState::Resolved
            && (is_same || incident.traces.iter().any(|trace| traces.contains(trace)))
    };
    incidents.iter().position(has).or_else(|| incidents.iter().position(is_kin))
}

impl Incident {
    /// The incident that a finding opens.
    pub fn open(finding: &Finding) -> Self {
        let at = finding.at_unix_nano;
        let mut incident = Self {
            id: finding.id.clone(),
            title: finding.summary.clone(),
            subject: finding.subject.clone(),
            severity: finding.severity,
            state: IncidentState::Open,
            silenced_until_unix_nano: None,
            assignee: String::new(),
            findings: Vec::new(),
            further_findings: 0,
            counted: BTreeSet::new(),
            traces: Vec::new(),
            opened_unix_nano: at,
            changed_unix_nano: at,
            timeline: Vec::new(),
        };
        incident.see(finding, at);
        incident
    }

    /// Whether nobody is told of it now.
    pub fn is_silenced(&self, now_unix_nano: u64) -> bool {
        self.silenced_until_unix_nano.is_some_and(|until| until > now_unix_nano)
    }

    /// Makes a change; `false` when it changes nothing.
    ///
    /// # Errors
    /// [`IncidentError`]; nothing is changed.
    pub fn apply(
        &mut self,
        change: Change,
        by: &str,
        now_unix_nano: u64,
    ) -> Result<bool, IncidentError> {
        let what = match change {
            Change::Seen(finding) => return Ok(self.see(&finding, now_unix_nano)),
            Change::Acknowledge => {
                self.expect_live()?;
                if self.state == IncidentState::Acknowledged {
                    return Ok(false);
                }
                self.state = IncidentState::Acknowledged;
                "acknowledged".to_owned()
            }
            Change::Silence(until) => {
                self.expect_live()?;
                if until <= now_unix_nano {
                    return Err(IncidentError::Silence);
                }
                self.silenced_until_unix_nano = Some(until);
                format!("silenced until {}", crate::moments::rfc3339(until))
            }
            Change::Assign(to) => {
                self.expect_live()?;
                if self.assignee == to {
                    return Ok(false);
                }
                self.assignee = to;
                match self.assignee.is_empty() {
                    true => "assigned to nobody".to_owned(),
                    false => format!("assigned to {}", self.assignee),
                }
            }
            Change::Note(text) => {
                let count = text.chars().count();
                if !(1..=MAX_NOTE_CHARS).contains(&count) {
                    return Err(IncidentError::Note(count));
                }
                text
            }
            Change::Resolve => {
                if self.state == IncidentState::Resolved {
                    return Ok(false);
                }
                self.resolve();
                "resolved".to_owned()
            }
            Change::Reopen => {
                if self.state != IncidentState::Resolved {
                    let is = self.state.as_str();
                    return Err(IncidentError::State { expected: "resolved", is });
                }
                self.state = IncidentState::Open;
                "reopened".to_owned()
            }
        };
        self.tell(by, what, now_unix_nano);
        Ok(true)
    }

    fn expect_live(&self) -> Result<(), IncidentError> {
        match self.state {
            IncidentState::Resolved => {
                Err(IncidentError::State { expected: "open or acknowledged", is: "resolved" })
            }
            _ => Ok(()),
        }
    }

    fn resolve(&mut self) {
        self.state = IncidentState::Resolved;
        self.silenced_until_unix_nano = None;
    }

    /// Counts a finding for which there is no place, once; says whether it did.
    fn count(&mut self, finding: &Finding) -> bool {
        let hash = blake3::hash(finding.id.as_bytes()).to_hex();
        let hash: String = hash.chars().take(HASH_CHARS).collect();
        if self.counted.len() >= MAX_FURTHER || !self.counted.insert(hash) {
            return false;
        }
        self.further_findings += 1;
        true
    }

    /// Keeps the traces that show a finding, as far as there is place; says whether one is new.
    fn keep_traces(&mut self, finding: &Finding) -> bool {
        let before = self.traces.len();
        for trace in &finding.evidence {
            if self.traces.len() < MAX_TRACES && !self.traces.contains(trace) {
                self.traces.push(*trace);
            }
        }
        self.traces.len() > before
    }

    /// Takes in what a rule says; whether it changes anything that is worth a further version: that
    /// the words of a summary are others is none. A person who resolved it is believed until something new is seen,
    /// or what was over comes back.
    fn see(&mut self, finding: &Finding, now_unix_nano: u64) -> bool {
        let known = self.findings.iter().position(|part| part.id == finding.id);
        let is_firing = finding.state == FindingState::Firing;
        let is_news = match known {
            Some(place) => {
                let part = &mut self.findings[place];
                finding.summary.clone_into(&mut part.summary);
                std::mem::replace(&mut part.state, finding.state) != finding.state
            }
            None if self.findings.len() >= MAX_FINDINGS => {
                let is_changed = self.count(finding);
                self.touch(is_changed, now_unix_nano);
                return is_changed;
            }
            None => {
                self.findings.push(Part {
                    id: finding.id.clone(),
                    rule: finding.rule.clone(),
                    kind: finding.kind.clone(),
                    state: finding.state,
                    summary: finding.summary.clone(),
                });
                true
            }
        };
        let is_changed = self.keep_traces(finding);
        self.touch(is_changed, now_unix_nano);
        if !is_news {
            return is_changed;
        }
        let word = finding.state.as_str();
        self.tell("", format!("{word}: {}", finding.summary), now_unix_nano);
        if is_firing {
            self.severity = self.severity.max(finding.severity);
            if self.state == IncidentState::Resolved {
                self.state = IncidentState::Open;
            }
        } else if self.state != IncidentState::Resolved
            && self.findings.iter().all(|part| part.state == FindingState::Resolved)
        {
            self.resolve();
            self.tell("", "resolved: nothing of it is seen any more".to_owned(), now_unix_nano);
        }
        true
    }

    /// Notes when it changed, if it did.
    fn touch(&mut self, is_changed: bool, now_unix_nano: u64) {
        if is_changed {
            self.changed_unix_nano = self.changed_unix_nano.max(now_unix_nano);
        }
    }

    fn tell(&mut self, by: &str, what: String, at_unix_nano: u64) {
        if self.timeline.len() >= MAX_ENTRIES {
            // How it began is worth more than what came after.
            self.timeline.remove(MAX_ENTRIES / 2);
        }
        // Rules tell of a time before they are heard; the timeline is in the order of hearing.
        let last = self.timeline.last().map_or(0, |entry| entry.at_unix_nano);
        let at_unix_nano = at_unix_nano.max(last);
        self.timeline.push(Entry { at_unix_nano, by: by.to_owned(), what });
        self.changed_unix_nano = self.changed_unix_nano.max(at_unix_nano);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::notify::tests::{AT, finding};

    fn numbered(number: u8, state: FindingState) -> Finding {
        Finding { id: format!("f-{number}"), ..finding(state) }
    }

    #[test]
    fn findings_of_one_subject_or_one_trace_are_one_incident() {
        let first = finding(FindingState::Firing);
        let mut incident = Incident::open(&first);
        let mut other = numbered(2, FindingState::Firing);
        assert_eq!(group(std::slice::from_ref(&incident), &other), Some(0), "the same subject");
        other.subject = Subject::of("agent", "stock");
        assert_eq!(group(std::slice::from_ref(&incident), &other), Some(0), "the same trace");
        other.evidence.clear();
        assert_eq!(group(std::slice::from_ref(&incident), &other), None);
        incident.apply(Change::Resolve, "ada", AT).expect("resolved");
        other.subject = first.subject.clone();
        assert_eq!(group(std::slice::from_ref(&incident), &other), None, "it is over");
        assert_eq!(group(&[incident], &first), Some(0), "its own");
    }

    #[test]
    fn a_person_is_believed_until_there_is_news() {
        let mut incident = Incident::open(&numbered(1, FindingState::Firing));
        incident.apply(Change::Acknowledge, "ada", AT + 1).expect("acknowledged");
        incident.apply(Change::Silence(AT + 100), "ada", AT + 2).expect("silenced");
        assert!(incident.is_silenced(AT + 99) && !incident.is_silenced(AT + 100));
        incident.apply(Change::Resolve, "ada", AT + 3).expect("resolved");
        let seen = |number, state| Change::Seen(Box::new(numbered(number, state)));
        incident.apply(seen(1, FindingState::Firing), "", AT + 4).expect("seen");
        assert_eq!(incident.state, IncidentState::Resolved, "no news");
        incident.apply(seen(2, FindingState::Firing), "", AT + 5).expect("seen");
        assert_eq!(incident.state, IncidentState::Open);
        incident.apply(seen(1, FindingState::Resolved), "", AT + 6).expect("seen");
        assert_eq!(incident.state, IncidentState::Open, "one still fires");
        incident.apply(seen(2, FindingState::Resolved), "", AT + 7).expect("seen");
        assert_eq!(incident.state, IncidentState::Resolved);
        assert_eq!(
            incident.apply(Change::Silence(AT + 200), "ada", AT + 8),
            Err(IncidentError::State { expected: "open or acknowledged", is: "resolved" })
        );
        let told: Vec<String> =
            incident.timeline.iter().map(|entry| format!("{} {}", entry.by, entry.what)).collect();
        insta::assert_snapshot!(told.join("\n"), @r"
         firing: p95 is 2.8 s, 7 times its baseline <b>
        ada acknowledged
        ada silenced until 2025-11-26T07:55:00.000Z
        ada resolved
         firing: p95 is 2.8 s, 7 times its baseline <b>
         resolved: p95 is 2.8 s, 7 times its baseline <b>
         resolved: p95 is 2.8 s, 7 times its baseline <b>
         resolved: nothing of it is seen any more
        ");
    }

    #[test]
    fn what_is_only_counted_counts_once_and_new_evidence_is_kept() {
        let mut incident = Incident::open(&numbered(0, FindingState::Firing));
        let mut seen = |number, state| {
            let finding = Finding { id: format!("f-{number}"), ..finding(state) };
            let is_changed = incident.apply(Change::Seen(Box::new(finding)), "", AT).expect("seen");
            (is_changed, incident.findings.len(), incident.further_findings)
        };
        for number in 1..MAX_FINDINGS {
            assert_eq!(seen(number, FindingState::Firing), (true, number + 1, 0));
        }
        assert_eq!(seen(MAX_FINDINGS, FindingState::Firing), (true, MAX_FINDINGS, 1));
        assert_eq!(seen(MAX_FINDINGS, FindingState::Firing), (false, MAX_FINDINGS, 1), "again");
        assert_eq!(seen(MAX_FINDINGS + 1, FindingState::Firing), (true, MAX_FINDINGS, 2));
        let shown = Finding {
            evidence: vec!["0af7651916cd43dd8448eb211c80319c".parse().expect("an id")],
            ..numbered(1, FindingState::Firing)
        };
        let mut see = || incident.apply(Change::Seen(Box::new(shown.clone())), "", AT);
        assert_eq!((see(), see()), (Ok(true), Ok(false)));
        assert!(incident.traces.contains(&shown.evidence[0]));
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0..4_u8, any::<bool>()).prop_map(|(number, is_firing)| {
                let state = if is_firing { FindingState::Firing } else { FindingState::Resolved };
                Change::Seen(Box::new(numbered(number, state)))
            }),
            Just(Change::Acknowledge),
            (0..200_u64).prop_map(|after| Change::Silence(AT + after)),
            "[a-b]{0,1}".prop_map(Change::Assign),
            "[a-z]{0,3}".prop_map(Change::Note),
            Just(Change::Resolve),
            Just(Change::Reopen),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_it_is_told_and_stays_in_order(
            changes in prop::collection::vec(change(), 0..60),
        ) {
            let mut incident = Incident::open(&numbered(0, FindingState::Firing));
            for (at, change) in changes.into_iter().enumerate() {
                let now = AT + at as u64;
                let before = incident.clone();
                match incident.apply(change.clone(), "ada", now) {
                    Ok(true) => prop_assert!(
                        incident.timeline.len() > before.timeline.len()
                            || incident.traces.len() > before.traces.len()
                    ),
                    Ok(false) => {
                        prop_assert_eq!(incident.state, before.state);
                        prop_assert_eq!(&incident.timeline, &before.timeline);
                    }
                    Err(_) => prop_assert_eq!(&incident, &before, "nothing is changed"),
                }
                prop_assert!(incident.severity >= before.severity);
                // Only a person, or the end of everything, ends it; and what is over is not silenced.
                let is_over = incident.state == IncidentState::Resolved;
                if is_over && before.state != IncidentState::Resolved {
                    let all = incident.findings.iter().all(|part| part.state == FindingState::Resolved);
                    prop_assert!(change == Change::Resolve || all);
                }
                prop_assert!(!(is_over && incident.silenced_until_unix_nano.is_some()));
                let ids: BTreeSet<&String> = incident.findings.iter().map(|part| &part.id).collect();
                prop_assert_eq!(ids.len(), incident.findings.len(), "each finding once");
                prop_assert!(incident.timeline.is_sorted_by_key(|entry| entry.at_unix_nano));
            }
        }
    }
}
