//! Runs in the background: bounded in number, forgotten after a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use throughline_trace::TraceId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::answer::Refusal;
use super::{BACKGROUND_TTL, MAX_BACKGROUND_RUNS};
use crate::agent::{AgentError, AgentRun};
use crate::remote::wire::{RunReply, WireError};

/// What is known of a run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Status {
    pub(super) run_id: Uuid,
    pub(super) agent: String,
    /// `running`, `done` or `failed`.
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<RunReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<WireError>,
}

struct Kept {
    status: Status,
    trace: Option<TraceId>,
    cancel: CancellationToken,
    /// When it was done.
    done: Option<Instant>,
}

/// The runs in the background.
#[derive(Clone, Default)]
pub(super) struct Background(Arc<Mutex<HashMap<Uuid, Kept>>>);

impl Background {
    /// Remembers a run that begins; `None` when there are too many that are not done.
    pub(super) fn begin(
        &self,
        agent: &str,
        trace: Option<TraceId>,
        cancel: CancellationToken,
    ) -> Option<(Status, Unfinished)> {
        let mut runs = self.runs();
        runs.retain(|_, kept| kept.done.is_none_or(|done| done.elapsed() < BACKGROUND_TTL));
        if runs.len() >= MAX_BACKGROUND_RUNS {
            let oldest = runs
                .iter()
                .filter_map(|(id, kept)| Some((*id, kept.done?)))
                .min_by_key(|(_, done)| *done);
            runs.remove(&oldest?.0);
        }
        let status = Status {
            run_id: Uuid::new_v4(),
            agent: agent.to_owned(),
            status: "running",
            trace_id: trace.map(|id| id.to_string()),
            result: None,
            error: None,
        };
        let id = status.run_id;
        runs.insert(id, Kept { status: status.clone(), trace, cancel, done: None });
        Some((status, Unfinished { background: self.clone(), id, is_told: false }))
    }

    /// What is known of a run, and its trace.
    pub(super) fn status(&self, id: &Uuid) -> Option<(Status, Option<TraceId>)> {
        let runs = self.runs();
        let kept = runs.get(id)?;
        let is_fresh = kept.done.is_none_or(|done| done.elapsed() < BACKGROUND_TTL);
        is_fresh.then(|| (kept.status.clone(), kept.trace))
    }

    /// Cancels a run; `false` when it is not known.
    pub(super) fn cancel(&self, id: &Uuid) -> bool {
        let runs = self.runs();
        runs.get(id).inspect(|kept| kept.cancel.cancel()).is_some()
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<Uuid, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that is to tell how it ended. Dropped before, it did not come to its end.
pub(super) struct Unfinished {
    background: Background,
    id: Uuid,
    is_told: bool,
}

impl Unfinished {
    pub(super) fn finish(mut self, result: &Result<AgentRun, AgentError>) {
        match result {
            Ok(run) => self.tell("done", Some(RunReply::from(run)), None),
            Err(error) => self.tell("failed", None, Some(Refusal::of(error).body().error)),
        }
    }

    fn tell(&mut self, status: &'static str, result: Option<RunReply>, error: Option<WireError>) {
        self.is_told = true;
        if let Some(kept) = self.background.runs().get_mut(&self.id) {
            kept.status.status = status;
            kept.status.result = result;
            kept.status.error = error;
            kept.done = Some(Instant::now());
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_told {
            let error = Refusal::of(&AgentError::Cancelled).body().error;
            self.tell("failed", None, Some(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn runs_are_bounded_and_forgotten() {
        let background = Background::default();
        let begin = || background.begin("shop", None, CancellationToken::new());
        let unfinished: Vec<_> = (0..MAX_BACKGROUND_RUNS).filter_map(|_| begin()).collect();
        assert_eq!(unfinished.len(), MAX_BACKGROUND_RUNS);
        assert!(begin().is_none(), "none of them is done");
        let id = unfinished[0].0.run_id;
        drop(unfinished);
        let status = background.status(&id).expect("it is known").0;
        assert_eq!(
            (status.status, status.error.expect("an error").kind.as_str()),
            ("failed", "CANCELLED")
        );
        let next = begin().expect("one that is done makes room");
        tokio::time::advance(BACKGROUND_TTL).await;
        assert!(background.status(&id).is_none());
        assert!(background.status(&next.0.run_id).is_some(), "it goes on");
    }
}
