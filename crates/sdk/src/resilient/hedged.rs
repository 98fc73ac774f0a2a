//! An attempt that may have several copies, driven: the first answer counts, the others are given
//! up.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::{Either, OptionFuture, select};
use futures_util::stream::FuturesUnordered;
use throughline_resilience::{Hedge, HedgeEvent, HedgeNext, Moment, Next};
use tokio::time::{Instant, sleep_until};

use super::attempt::{FaultReport, Who};
use super::run::{Run, no_answer_since};

/// One attempt; `Err` with what the machine says when it reached its limit.
pub(super) async fn try_hedged<T, E, F>(
    run: &mut Run,
    index: u32,
    deadline: Option<Moment>,
    describe: &impl Fn(&E) -> FaultReport,
    attempt: &mut impl FnMut(u32) -> F,
) -> Result<Result<T, E>, Next>
where
    F: Future<Output = Result<T, E>>,
{
    let shared = Arc::clone(&run.shared);
    let began = Instant::now();
    run.attempt_began = began;
    let mut hedge = {
        let target = shared.target();
        Hedge::begin(run.policy.hedge.as_ref(), target.latencies(), shared.moment(began))
    };
    let mut begun = vec![began];
    let mut copies = FuturesUnordered::new();
    copies.push(Box::pin(copy_of(run, Who { index, copy: 0 }, attempt(index))));
    let mut due = hedge.due();
    loop {
        let wake = [due, deadline].into_iter().flatten().min();
        let waking = OptionFuture::from(wake.map(|at| sleep_until(shared.instant(at))));
        let ended = match wake {
            None => copies.next().await,
            Some(_) => match select(copies.next(), std::pin::pin!(waking)).await {
                Either::Left((ended, _)) => ended,
                Either::Right(_) => None,
            },
        };
        let now = shared.now();
        let next = match ended {
            Some((copy, Ok(value))) => {
                hedge.on(HedgeEvent::Succeeded { copy }, now);
                // What the others still do while dropped belongs inside their spans.
                drop(copies);
                run.copy = copy;
                run.attempt_began = begun.get(copy as usize).copied().unwrap_or(began);
                run.spans.cancel_others(copy);
                return Ok(Ok(value));
            }
            Some((copy, Err(error))) => match hedge.on(HedgeEvent::Failed { copy }, now) {
                HedgeNext::Done { .. } => {
                    run.copy = copy;
                    return Ok(Err(error));
                }
                next => {
                    run.fail_copy(copy, &describe(&error));
                    next
                }
            },
            None if deadline.is_some_and(|deadline| now >= deadline) => {
                // What the copies still do while dropped says why.
                let note = run.timeout_note();
                note.write(Some(no_answer_since(began)));
                drop(copies);
                note.write(None);
                run.copy = hedge.begun() - 1;
                return Err(run.time_out());
            }
            None => {
                let is_due = due.is_some_and(|due| now >= due);
                let may_start = is_due && shared.target().withdraw_hedge(now);
                hedge.on(HedgeEvent::Due { may_start }, now)
            }
        };
        due = match next {
            HedgeNext::Start { copy, due } => {
                begun.push(Instant::now());
                copies.push(Box::pin(copy_of(run, Who { index, copy }, attempt(index))));
                due
            }
            HedgeNext::Wait { due } => due,
            HedgeNext::Done { .. } => None,
        };
    }
}

/// One copy, in its span.
fn copy_of<F: Future>(
    run: &mut Run,
    who: Who,
    work: F,
) -> impl Future<Output = (u32, F::Output)> + use<F> {
    let work = match run.spans.begin(who) {
        Some(span) => Either::Left(span.instrument(work)),
        None => Either::Right(work),
    };
    async move { (who.copy, work.await) }
}
