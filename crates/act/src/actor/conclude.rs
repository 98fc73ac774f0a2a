//! Whether an action may be done, and the end of one: another try, or a decision and a state.

use std::time::Duration;

use throughline_store::{ActionRecord, Pause};
use throughline_trace::Action;
use tokio::time::Instant;

use super::{Actor, Tries, Waiting, as_asked};
use crate::directives::ask;
use crate::moments::{NANOS_PER_SEC, now_unix_nano, rfc3339};
use crate::performed::{Performed, told};
use crate::standing::Standing;

/// An action that nobody got to do for so long no longer fits what is, nanoseconds: an hour. It is
/// also how long one that fails in passing is tried again.
const FITS_FOR_NANOS: u64 = 3_600 * NANOS_PER_SEC;

/// First pause before another try; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause before another try.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

impl Actor {
    /// Whether an action may be done now; `Err` says what becomes of it instead. Read from the disk
    /// each time, so that a pause stops what comes next whoever said it.
    pub(super) async fn admit(&self, action: &Action, now: u64) -> Result<(), Performed> {
        let is_automatic = !action.rule.is_empty();
        let asked = action.clone();
        let read = ask(&self.inner.governance, move |governance| {
            let pause = governance.pause()?;
            let objection = match is_automatic {
                true => Standing(governance).objection(&asked, now)?,
                false => None,
            };
            Ok((pause, objection))
        });
        // Whoever cannot tell whether it may act does not act.
        let (pause, objection) =
            read.await.map_err(|error| Performed::Later(error, FIRST_PAUSE))?;
        if is_automatic && pause.is_on {
            return Err(Performed::Refused(paused(&pause)));
        }
        if let Some(objection) = objection {
            return Err(Performed::Refused(objection));
        }
        let age = now.saturating_sub(action.at_unix_nano);
        // One that was tried in time is given up elsewhere, with what went wrong.
        let was_tried = self.tries().waiting.contains_key(&action.id);
        if is_automatic && !was_tried && age > FITS_FOR_NANOS {
            let minutes = age / NANOS_PER_SEC / 60;
            return Err(Performed::Refused(format!(
                "it was asked for {minutes} minutes ago and may no longer fit"
            )));
        }
        if action.is_dry_run {
            return Err(Performed::DryRun(format!("would have done: {}", told(&action.operation))));
        }
        Ok(())
    }

    /// Records and notes what became of an action, or has it tried again.
    pub(super) async fn conclude(
        &self,
        action: &Action,
        performed: Performed,
        started_unix_nano: u64,
    ) -> ActionRecord {
        let performed = match performed {
            Performed::Later(why, least) => match self.again(action, &why, least) {
                Some(detail) => {
                    let (id, text) = (action.id.clone(), detail.clone());
                    let noted = ask(&self.inner.governance, move |governance| {
                        governance.note_progress(&id, &text)
                    });
                    if let Err(error) = noted.await {
                        tracing::warn!(error, "how an action stands was not noted");
                    }
                    return as_asked(action, &detail);
                }
                None => Performed::Failed(format!("given up: {why}")),
            },
            done => done,
        };
        self.tries().waiting.remove(&action.id);
        let state = performed.state();
        self.inner.metrics.action(action.operation.kind(), state.as_str());
        tracing::info!(
            action = action.id,
            rule = action.rule,
            state = state.as_str(),
            detail = performed.detail(),
            "acted"
        );
        let confidence = self.confidence(action).await;
        let recorder = &self.inner.recorder;
        let decision_id = recorder.record(action, confidence, &performed, started_unix_nano).await;
        let record = ActionRecord {
            action: action.clone(),
            state,
            detail: performed.detail().to_owned(),
            decision_id,
            finished_unix_nano: Some(now_unix_nano()),
        };
        self.note(record).await
    }

    /// Notes what became of an action. What cannot be noted is kept in memory, and the note alone is
    /// tried again: the receiver that was told must not hear it at each poll while the disk is full.
    pub(super) async fn note(&self, record: ActionRecord) -> ActionRecord {
        let ActionRecord { action, state, detail, decision_id, .. } = record.clone();
        let id = action.id.clone();
        let noted = ask(&self.inner.governance, move |governance| {
            governance.finish(&action, state, &detail, decision_id)
        });
        match noted.await {
            Ok(()) => {
                let mut tries = self.tries();
                tries.unnoted.remove(&id);
                tries.waiting.remove(&id);
            }
            Err(error) => {
                tracing::error!(action = id, error, "what became of an action was not noted");
                self.keep(record.clone());
            }
        }
        record
    }

    /// Keeps what could not be noted until the next try.
    pub(super) fn keep(&self, record: ActionRecord) {
        let mut tries = self.tries();
        tries.wait(&record.action.id, Duration::ZERO);
        tries.unnoted.insert(record.action.id.clone(), record);
    }

    /// When it is tried again, in words; `None` when it was tried for long enough.
    fn again(&self, action: &Action, why: &str, least: Duration) -> Option<String> {
        if now_unix_nano().saturating_sub(action.at_unix_nano) > FITS_FOR_NANOS {
            return None;
        }
        let (count, pause) = self.tries().wait(&action.id, least);
        Some(format!("{why}; tried {count} times, again in {} s", pause.as_secs().max(1)))
    }

    /// How sure the rule was.
    async fn confidence(&self, action: &Action) -> Option<f64> {
        if action.finding.is_empty() {
            return None;
        }
        let id = action.finding.clone();
        let found = ask(&self.inner.governance, move |governance| governance.finding(&id));
        found.await.ok().flatten().and_then(|finding| finding.confidence)
    }
}

impl Tries {
    /// Has an action wait for another try; answers how often it was tried, and the pause.
    fn wait(&mut self, id: &str, least: Duration) -> (u32, Duration) {
        let count = self.waiting.get(id).map_or(0, |waiting| waiting.tries).saturating_add(1);
        let pause = pause_after(count, rand::random::<f64>()).max(least.min(LONGEST_PAUSE));
        self.waiting.insert(id.to_owned(), Waiting { tries: count, next: Instant::now() + pause });
        (count, pause)
    }
}

/// Why nothing automatic is done.
fn paused(pause: &Pause) -> String {
    let Pause { person, reason, at_unix_nano, .. } = pause;
    let at = rfc3339(*at_unix_nano);
    match reason.is_empty() {
        true => format!("automatic actions are paused by {person} since {at}"),
        false => format!("automatic actions are paused by {person} since {at}: {reason}"),
    }
}

/// The pause after so many tries, half of it at random (`random` of 0 to 1), so that not everybody
/// comes back at once.
fn pause_after(tries: u32, random: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1_u32 << tries.saturating_sub(1).min(16));
    let pause = doubled.min(LONGEST_PAUSE);
    pause / 2 + (pause / 2).mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn pauses_grow_to_a_bound(tries in 1_u32..100, random in 0.0..1.0) {
            let pause = pause_after(tries, random);
            proptest::prop_assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE);
            proptest::prop_assert!(pause_after(tries + 1, random) >= pause);
        }
    }
}
