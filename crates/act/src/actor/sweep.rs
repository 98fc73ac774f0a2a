//! What is done now and then: incidents, those who were told of something that is over, and what
//! expired long ago.

use std::collections::BTreeSet;
use std::sync::Arc;

use throughline_store::{ActionState, ControlError, Evaluation, Governance};
use throughline_trace::{Action, Finding, FindingState, Operation};

use super::Actor;
use super::incidents::{incidents, place_of};
use crate::argo::outcome_id;
use crate::directives::ask;
use crate::incident::Incident;
use crate::moments::{NANOS_PER_SEC, now_unix_nano};
use crate::notify::says_resolved;

/// Notifications, or workflows, that are looked at for their end: the newest.
const RECENT_ACTIONS: usize = 1_000;

/// Kind of the actions that tell somebody.
const NOTIFY: &str = "notify";

/// Kind of the actions that start workflows.
const WORKFLOW: &str = "workflow";

/// How long the end of a workflow is waited for, nanoseconds: a day.
const WATCH_NANOS: u64 = 24 * 3_600 * NANOS_PER_SEC;

/// End of the id of an action that tells that something is over.
const RESOLVED: &str = "/resolved";

impl Actor {
    pub(super) async fn sweep(&self) {
        self.gather().await;
        self.tell_ends().await;
        self.inner.board.forget(now_unix_nano()).await;
        self.begin_watching();
    }

    /// Looks at workflows beside everything else, one look at a time: Argo may be slow to answer, and
    /// neither agents nor the drain wait for it.
    fn begin_watching(&self) {
        let Ok(watching) = Arc::clone(&self.inner.watching).try_lock_owned() else { return };
        let actor = self.clone();
        self.inner.working.spawn(async move {
            tokio::select! {
                () = actor.inner.closing.cancelled() => {}
                () = actor.watch_workflows() => {}
            }
            drop(watching);
        });
    }

    /// Whoever was told that something fires is told when it does no longer.
    async fn tell_ends(&self) {
        let receivers = self.clone();
        let asked = ask(&self.inner.governance, move |governance| {
            let hears = |name: &str| receivers.inner.receivers.has(name);
            let actions = ends(governance, hears, now_unix_nano())?;
            if actions.is_empty() {
                return Ok(0);
            }
            let fresh = governance.commit(&Evaluation { actions, ..Evaluation::default() })?;
            Ok(fresh.len())
        });
        match asked.await {
            Ok(0) => {}
            Ok(_) => self.wake(),
            Err(error) => tracing::error!(error, "cannot look for findings that are over"),
        }
    }
}

impl Actor {
    /// How workflows end that actions have started becomes a finding, once.
    pub(super) async fn watch_workflows(&self) {
        let Some(argo) = &self.inner.argo else { return };
        let now = now_unix_nano();
        let running = ask(&self.inner.governance, move |governance| running(governance, now));
        let running = match running.await {
            Ok(running) => running,
            Err(error) => return tracing::error!(error, "cannot look for workflows"),
        };
        for (action, workflow) in running {
            let found = match argo.outcome(&action, &workflow, now_unix_nano()).await {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    let (action, error) = (action.id, error.message);
                    tracing::warn!(action, error, "how a workflow stands cannot be told");
                    continue;
                }
            };
            // Kept one by one: the next answer may be long in coming.
            let evaluation = Evaluation { findings: vec![found], ..Evaluation::default() };
            let kept =
                ask(&self.inner.governance, move |governance| governance.commit(&evaluation));
            if let Err(error) = kept.await {
                tracing::error!(error, "how a workflow ended was not kept");
            }
        }
    }
}

/// Workflows that were started not too long ago and whose end is not known.
fn running(governance: &Governance, now: u64) -> Result<Vec<(Action, String)>, ControlError> {
    let mut running = Vec::new();
    for started in governance.actions_of(WORKFLOW, RECENT_ACTIONS)? {
        let Operation::Workflow { workflow, .. } = &started.action.operation else { continue };
        let is_young = now.saturating_sub(started.action.at_unix_nano) < WATCH_NANOS;
        if started.state != ActionState::Done || !is_young {
            continue;
        }
        let workflow = workflow.clone();
        if governance.finding(&outcome_id(&started.action, &workflow))?.is_none() {
            running.push((started.action, workflow));
        }
    }
    Ok(running)
}

/// The actions that tell of findings that are over, one for each receiver that was told of them
/// firing and of no end since. Rules wait with it while they are paused or the incident is silenced:
/// an action that is refused is never done.
fn ends(
    governance: &Governance,
    hears: impl Fn(&str) -> bool,
    now: u64,
) -> Result<Vec<Action>, ControlError> {
    let is_paused = governance.pause()?.is_on;
    let mut incidents = None;
    let mut said = BTreeSet::new();
    let mut ends = Vec::new();
    // The newest first: what comes behind an end was told before it.
    for told in governance.actions_of(NOTIFY, RECENT_ACTIONS)? {
        let Operation::Notify { receiver } = &told.action.operation else { continue };
        let about = (receiver.clone(), told.action.finding.clone());
        // What was late told of the end itself, whatever its id.
        let is_end = match told.state {
            ActionState::Done => says_resolved(&told.detail),
            _ => told.action.id.ends_with(RESOLVED),
        };
        if is_end {
            said.insert(about);
            continue;
        }
        if told.state != ActionState::Done || !hears(receiver) || said.contains(&about) {
            continue;
        }
        let finding = governance.finding(&told.action.finding)?;
        let Some(finding) = finding.filter(|finding| finding.state == FindingState::Resolved)
        else {
            continue;
        };
        let is_automatic = !told.action.rule.is_empty();
        if is_automatic && (is_paused || is_silenced(governance, &mut incidents, &finding, now)?) {
            continue;
        }
        said.insert(about);
        ends.push(Action {
            id: format!("{}{RESOLVED}", told.action.id),
            at_unix_nano: now,
            reason: "it is over".to_owned(),
            // Whoever heard the beginning hears the end, however soon.
            cool_down_s: 0,
            ..told.action
        });
    }
    Ok(ends)
}

/// Whether rules tell nobody of a finding now; reads the incidents when it is asked first.
fn is_silenced(
    governance: &Governance,
    known: &mut Option<Vec<Incident>>,
    finding: &Finding,
    now: u64,
) -> Result<bool, ControlError> {
    let known = match known {
        Some(known) => known,
        None => known.insert(incidents(governance)?),
    };
    let place = place_of(governance, known, finding)?;
    Ok(place.and_then(|place| known.get(place)).is_some_and(|one| one.is_silenced(now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::incidents::KIND;
    use crate::incident::Change;
    use crate::notify::delivered;
    use crate::notify::tests::{AT, action, finding};
    use crate::standing::Standing;

    struct Told {
        governance: Governance,
        _dir: tempfile::TempDir,
    }

    impl Told {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let governance = Governance::open(dir.path()).expect("govern.db");
            Self { governance, _dir: dir }
        }

        fn see(&self, findings: Vec<Finding>) {
            self.governance
                .commit(&Evaluation { findings, ..Evaluation::default() })
                .expect("seen");
        }

        /// Notes that the receiver was told.
        fn tell(&self, id: &str, at: u64, is_resolved: bool) {
            let told = Action {
                id: id.to_owned(),
                at_unix_nano: at,
                cool_down_s: 0,
                ..action(&finding(FindingState::Firing))
            };
            let detail = delivered("oncall", is_resolved);
            self.governance.finish(&told, ActionState::Done, &detail, None).expect("noted");
        }

        /// Asks for the ends, as a sweep does; answers their ids.
        fn ends(&self, now: u64) -> Vec<String> {
            let actions = ends(&self.governance, |_| true, now).expect("read");
            let ids = actions.iter().map(|action| action.id.clone()).collect();
            self.governance
                .commit(&Evaluation { actions, ..Evaluation::default() })
                .expect("asked");
            ids
        }
    }

    #[test]
    fn the_end_is_told_once_and_when_it_may_be() {
        let scene = Told::new();
        let governance = &scene.governance;
        let (seen, over) = (finding(FindingState::Firing), finding(FindingState::Resolved));
        let other = Finding { id: "other".to_owned(), ..seen.clone() };
        scene.see(vec![seen.clone(), other.clone()]);
        scene.tell("n1", AT, false);
        scene.tell("n2", AT + 1, false);
        for number in 0..=RECENT_ACTIONS as u64 {
            let operation = Operation::Freeze { ttl_s: 60 };
            let (id, at_unix_nano) = (format!("f-{number}"), AT + 2);
            let freeze = Action { id, at_unix_nano, operation, cool_down_s: 0, ..action(&seen) };
            governance.finish(&freeze, ActionState::Done, "", None).expect("noted");
        }
        assert!(scene.ends(AT + 3).is_empty(), "it fires");
        scene.see(vec![over.clone()]);
        governance.set_pause(true, "ada", "").expect("paused");
        assert!(scene.ends(AT + 4).is_empty(), "paused");
        governance.set_pause(false, "ada", "").expect("resumed");
        let mut incident = Incident::open(&seen);
        for change in [Change::Seen(Box::new(other)), Change::Silence(AT + 6)] {
            incident.apply(change, "ada", AT + 4).expect("changed");
        }
        let change = |_: Option<Incident>| Some(incident.clone());
        Standing(governance).change(KIND, &incident.id, "ada", change).expect("written");
        assert!(scene.ends(AT + 5).is_empty(), "silenced");
        assert_eq!(scene.ends(AT + 6), ["n2/resolved"], "one for both");
        assert!(scene.ends(AT + 7).is_empty(), "it is asked for");
        scene.tell("n2/resolved", AT + 6, true);
        assert!(scene.ends(AT + 8).is_empty(), "it was told");
        scene.see(vec![seen.clone()]);
        scene.tell("n3", AT + 9, false);
        scene.see(vec![over]);
        assert_eq!(scene.ends(AT + 10), ["n3/resolved"], "it came back and is over again");
    }

    #[test]
    fn what_told_of_the_end_by_itself_has_no_other() {
        let scene = Told::new();
        scene.see(vec![finding(FindingState::Resolved)]);
        // It could be delivered only when all was over; another told of it firing before.
        scene.tell("n1", AT, false);
        scene.tell("n2", AT + 1, true);
        assert!(scene.ends(AT + 2).is_empty());
        // The end of another was late, and told that it fires again.
        scene.tell("n2/resolved", AT + 3, false);
        assert_eq!(scene.ends(AT + 4), ["n2/resolved/resolved"]);
    }
}
