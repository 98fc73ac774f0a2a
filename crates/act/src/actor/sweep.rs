//! What is done now and then: incidents, those who were told of something that is over, and what
//! expired long ago.

use std::sync::Arc;

use throughline_store::{ActionState, ControlError, Evaluation, Governance};
use throughline_trace::{Action, FindingState, Operation};

use super::Actor;
use crate::argo::outcome_id;
use crate::directives::ask;
use crate::moments::{NANOS_PER_SEC, now_unix_nano};

/// Notifications that are looked at for their end.
const RECENT_ACTIONS: usize = 200;

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
    for done in governance.actions(Some(ActionState::Done), RECENT_ACTIONS)? {
        let Operation::Workflow { workflow, .. } = &done.action.operation else { continue };
        let is_young = now.saturating_sub(done.action.at_unix_nano) < WATCH_NANOS;
        let workflow = workflow.clone();
        if is_young && governance.finding(&outcome_id(&done.action, &workflow))?.is_none() {
            running.push((done.action, workflow));
        }
    }
    Ok(running)
}

/// The actions that tell of findings that are over, for each that told of them firing.
fn ends(
    governance: &Governance,
    hears: impl Fn(&str) -> bool,
    now: u64,
) -> Result<Vec<Action>, ControlError> {
    let mut ends = Vec::new();
    for told in governance.actions(Some(ActionState::Done), RECENT_ACTIONS)? {
        let Operation::Notify { receiver } = &told.action.operation else { continue };
        if told.action.id.ends_with(RESOLVED) || told.action.finding.is_empty() || !hears(receiver)
        {
            continue;
        }
        let id = format!("{}{RESOLVED}", told.action.id);
        let is_over = governance
            .finding(&told.action.finding)?
            .is_some_and(|finding| finding.state == FindingState::Resolved);
        if !is_over || governance.action(&id)?.is_some() {
            continue;
        }
        ends.push(Action {
            id,
            at_unix_nano: now,
            reason: "it is over".to_owned(),
            // Whoever heard the beginning hears the end, however soon.
            cool_down_s: 0,
            ..told.action
        });
    }
    Ok(ends)
}
