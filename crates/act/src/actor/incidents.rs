//! Incidents from findings, and what people do about them.

use std::collections::HashSet;

use throughline_store::{ControlError, FindingFilter, Governance};
use throughline_trace::{Finding, FindingState};

use super::Actor;
use crate::directives::ask;
use crate::incident::{Change, Incident, IncidentError, group};
use crate::standing::{Standing, body};

/// Kind of the documents.
pub(crate) const KIND: &str = "incident";

/// Why a person's change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotChanged {
    /// There is no such incident.
    Missing,
    /// It does not fit how the incident stands.
    Unfit(IncidentError),
    /// The disk.
    Storage(String),
}

impl Actor {
    /// Takes findings into incidents: those that fire, and those of incidents that are over.
    pub(super) async fn gather(&self) {
        if let Err(error) = ask(&self.inner.governance, gather).await {
            tracing::error!(error, "findings were not taken into incidents");
        }
    }

    /// The incident that a finding belongs to, also when it was not taken in yet: people are told at
    /// once, and findings are gathered now and then.
    ///
    /// # Errors
    /// When the disk cannot be asked.
    pub(super) async fn incident_of(&self, finding: &Finding) -> Result<Option<Incident>, String> {
        let finding = finding.clone();
        let found = ask(&self.inner.governance, move |governance| {
            let mut known = incidents(governance)?;
            let place = place_of(governance, &mut known, &finding)?;
            Ok(place.map(|place| known.swap_remove(place)))
        });
        found.await
    }

    /// Makes a person's change.
    pub(crate) async fn change_incident(
        &self,
        id: &str,
        change: Change,
        by: &str,
        now_unix_nano: u64,
    ) -> Result<Incident, NotChanged> {
        let (id, by) = (id.to_owned(), by.to_owned());
        let changed = ask(&self.inner.governance, move |governance| {
            change_one(governance, &id, &change, &by, now_unix_nano)
        });
        changed.await.map_err(NotChanged::Storage)?
    }
}

fn change_one(
    governance: &Governance,
    id: &str,
    change: &Change,
    by: &str,
    now: u64,
) -> Result<Result<Incident, NotChanged>, ControlError> {
    let Some(known) = governance.document(KIND, id)? else {
        return Ok(Err(NotChanged::Missing));
    };
    let Some(mut incident) = body::<Incident>(&known) else {
        return Ok(Err(NotChanged::Missing));
    };
    // Tried on a copy first, for the error.
    match incident.apply(change.clone(), by, now) {
        Ok(true) => {}
        Ok(false) => return Ok(Ok(incident)),
        Err(error) => return Ok(Err(NotChanged::Unfit(error))),
    }
    let written = Standing(governance).change(KIND, id, by, |known: Option<Incident>| {
        let mut next = known?;
        next.apply(change.clone(), by, now).ok()?;
        Some(next)
    })?;
    Ok(written.ok_or_else(|| NotChanged::Storage("others changed it too; try again".to_owned())))
}

/// All incidents, the one that changed last first.
pub(crate) fn incidents(governance: &Governance) -> Result<Vec<Incident>, ControlError> {
    Ok(governance.documents(KIND)?.iter().filter_map(body).collect())
}

fn gather(governance: &Governance) -> Result<(), ControlError> {
    let mut known = incidents(governance)?;
    let firing = FindingFilter { is_firing: true, ..FindingFilter::default() };
    let mut findings = governance.findings(&firing)?;
    let fires: HashSet<String> = findings.iter().map(|finding| finding.id.clone()).collect();
    for part in known.iter().flat_map(|incident| &incident.findings) {
        if part.state == FindingState::Firing
            && !fires.contains(&part.id)
            && let Some(finding) = governance.finding(&part.id)?
        {
            findings.push(finding);
        }
    }
    // The first one opens the incident.
    findings.sort_by_key(|finding| finding.since_unix_nano);
    for finding in findings {
        let id = finding.id.clone();
        // One that cannot be taken must not keep the others from it.
        if let Err(error) = take(governance, &mut known, finding) {
            tracing::error!(finding = id, %error, "a finding was not taken into an incident");
        }
    }
    Ok(())
}

/// The place of the incident that a finding belongs to. One that is older than all that a list answers
/// is looked up by its id, which is that of the finding that opened it.
pub(super) fn place_of(
    governance: &Governance,
    known: &mut Vec<Incident>,
    finding: &Finding,
) -> Result<Option<usize>, ControlError> {
    if let Some(place) = group(known, finding) {
        return Ok(Some(place));
    }
    let Some(older) = governance.document(KIND, &finding.id)? else { return Ok(None) };
    known.push(older.read()?);
    Ok(Some(known.len() - 1))
}

fn take(
    governance: &Governance,
    known: &mut Vec<Incident>,
    finding: Finding,
) -> Result<(), ControlError> {
    let at = finding.at_unix_nano;
    let Some(place) = place_of(governance, known, &finding)? else {
        if finding.state == FindingState::Resolved {
            return Ok(());
        }
        let opened = Incident::open(&finding);
        let id = opened.id.clone();
        // One that came up meanwhile is another's work; the next look finds it.
        let written = Standing(governance)
            .change(KIND, &id, "", |before| before.is_none().then(|| opened.clone()))?;
        known.splice(0..0, written);
        return Ok(());
    };
    let mut tried = known[place].clone();
    if !matches!(tried.apply(Change::Seen(Box::new(finding.clone())), "", at), Ok(true)) {
        return Ok(());
    }
    let id = tried.id.clone();
    let written = Standing(governance).change(KIND, &id, "", |before: Option<Incident>| {
        let mut next = before?;
        next.apply(Change::Seen(Box::new(finding.clone())), "", at).ok()?;
        Some(next)
    })?;
    if let Some(written) = written {
        known[place] = written;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use throughline_store::{Evaluation, MAX_GOVERNANCE_LIST};
    use throughline_trace::{Subject, TraceId};

    use super::*;
    use crate::notify::tests::{AT, finding};

    #[test]
    fn an_incident_that_no_list_answers_any_more_keeps_what_people_did() {
        let dir = tempfile::tempdir().expect("a directory");
        let governance = Governance::open(dir.path()).expect("govern.db");
        let seen = finding(FindingState::Firing);
        let mut old = Incident::open(&seen);
        old.apply(Change::Assign("ada".to_owned()), "ada", AT).expect("assigned");
        let write = |incident: &Incident| {
            let body = serde_json::to_string(incident).expect("JSON");
            governance.write_document(KIND, &incident.id, 0, "", &body).expect("written");
        };
        write(&old);
        for number in 0..MAX_GOVERNANCE_LIST {
            let subject = Subject::of("agent", number.to_string());
            let id = format!("f-{number}");
            write(&Incident::open(&Finding { id, subject, evidence: Vec::new(), ..seen.clone() }));
        }
        let findings = vec![seen.clone()];
        governance.commit(&Evaluation { findings, ..Evaluation::default() }).expect("committed");
        assert_eq!(group(&incidents(&governance).expect("read"), &seen), None, "too old");
        let kept = || governance.document(KIND, &old.id).expect("read").expect("kept");
        gather(&governance).expect("gathered");
        assert_eq!(kept().read::<Incident>().expect("an incident"), old);
        let trace: TraceId = "0af7651916cd43dd8448eb211c80319c".parse().expect("an id");
        let findings = vec![Finding { evidence: vec![trace], ..seen }];
        governance.commit(&Evaluation { findings, ..Evaluation::default() }).expect("committed");
        gather(&governance).expect("gathered");
        let incident: Incident = kept().read().expect("an incident");
        assert_eq!((kept().version, incident.assignee.as_str()), (2, "ada"));
        assert!(incident.traces.contains(&trace), "it goes on");
    }
}
