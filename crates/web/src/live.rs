//! Live events: what became durable, as rows for the open lists and as JSON for programs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use futures_util::{Stream, StreamExt};
use serde_json::{Value as Json, json};
use throughline_store::{Committed, DecisionFilter, SearchQuery, TraceFilter};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::wrappers::{BroadcastStream, IntervalStream};

use crate::doors::Visitor;
use crate::failure::Failure;
use crate::filters;
use crate::format::now_unix_nano;
use crate::params::Params;
use crate::reads::{Via, note};
use crate::state::Shared;
use crate::{api, pages};

/// What a listener asked for.
enum Wanted {
    Traces(Box<TraceFilter>),
    Decisions(Box<DecisionFilter>),
    Both(Box<TraceFilter>, Box<DecisionFilter>),
}

/// How often something is sent when nothing happens, so that nobody between takes the connection
/// for dead; also how long a listener may stay after its key was revoked or its session ended.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Parameters of the stream besides the filters.
const LIVE_PARAMS: [&str; 2] = ["kind", "scale"];

/// `GET /live`: rows of a list page, rendered, as events `rows` with `[{id, html}]`; `resync` when
/// the listener was too slow and should load the page again.
pub(crate) async fn rows(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let scale_ns: u64 = params
        .read("scale", "nanoseconds", |text| text.parse().ok())?
        .unwrap_or(crate::format::NANOS_PER_SEC);
    let wanted = wanted(&params, visitor.now_unix_nano)?;
    note_listener(&app, &visitor, Via::Page, &wanted, params.question("/live"));
    Ok(stream(&app, visitor, move |committed| {
        let now = now_unix_nano();
        let mut rows: Vec<Json> = Vec::new();
        if let Wanted::Traces(filter) | Wanted::Both(filter, _) = &wanted {
            let changed = committed.summaries.iter().filter(|summary| filter.matches(summary));
            rows.extend(changed.map(|summary| {
                let html = pages::traces::row(summary, scale_ns, now).into_string();
                json!({ "id": pages::traces::row_id(summary.trace_id), "html": html })
            }));
        }
        if let Wanted::Decisions(filter) | Wanted::Both(_, filter) = &wanted {
            let new = committed.decisions.iter().filter(|decision| filter.matches(decision));
            rows.extend(new.map(|decision| {
                let html = pages::decisions::row(decision, now).into_string();
                json!({ "id": pages::decisions::row_id(decision), "html": html })
            }));
        }
        (!rows.is_empty())
            .then(|| Event::default().event("rows").data(Json::from(rows).to_string()))
    }))
}

/// `GET /api/v1/live`: events `committed` with `{batch_no, traces, decisions, log_count,
/// metric_count}`; `resync` with `{missed}` when the listener was too slow.
pub(crate) async fn events(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let wanted = wanted(&params, visitor.now_unix_nano)?;
    note_listener(&app, &visitor, Via::Api, &wanted, params.question("/api/v1/live"));
    Ok(stream(&app, visitor, move |committed| {
        let (traces, decisions) = match &wanted {
            Wanted::Traces(filter) => (Some(filter), None),
            Wanted::Decisions(filter) => (None, Some(filter)),
            Wanted::Both(traces, decisions) => (Some(traces), Some(decisions)),
        };
        let traces: Vec<_> = traces.map_or_else(Vec::new, |filter| {
            let changed = committed.summaries.iter().filter(|summary| filter.matches(summary));
            changed.map(api::shapes::summary).collect()
        });
        let decisions: Vec<_> = decisions.map_or_else(Vec::new, |filter| {
            let new = committed.decisions.iter().filter(|decision| filter.matches(decision));
            new.map(api::records::decision).collect()
        });
        if traces.is_empty() && decisions.is_empty() {
            return None;
        }
        let data = json!({
            "batch_no": committed.batch_no,
            "traces": traces,
            "decisions": decisions,
            "log_count": committed.log_count,
            "metric_count": committed.metric_count,
        });
        Some(Event::default().event("committed").data(data.to_string()))
    }))
}

/// Notes that somebody listens to decisions; how many will come is not known yet.
fn note_listener(app: &Shared, visitor: &Visitor, via: Via, wanted: &Wanted, question: String) {
    if !matches!(wanted, Wanted::Traces(_)) {
        note(app, visitor, via, question, 0);
    }
}

fn wanted(params: &Params, now_unix_nano: u64) -> Result<Wanted, Failure> {
    let kind = params.read("kind", "traces or decisions", |text| {
        ["traces", "decisions"].into_iter().find(|kind| *kind == text)
    })?;
    match kind {
        Some("traces") => {
            params.expect_only(&[&filters::TRACE_PARAMS, &LIVE_PARAMS])?;
            let filter = filters::traces(params, now_unix_nano)?;
            if filter.query.as_ref().is_some_and(SearchQuery::needs_spans) {
                return Err(Failure::parameter(
                    "q",
                    "a query that summaries can answer: live events do not look into spans",
                    params.text("q").unwrap_or_default(),
                ));
            }
            Ok(Wanted::Traces(Box::new(filter)))
        }
        Some(_) => {
            params.expect_only(&[&filters::DECISION_PARAMS, &LIVE_PARAMS])?;
            Ok(Wanted::Decisions(Box::new(filters::decisions(params, now_unix_nano)?)))
        }
        None => {
            params.expect_only(&[&LIVE_PARAMS, &["agent", "session"]])?;
            let traces = Box::new(filters::traces(params, now_unix_nano)?);
            Ok(Wanted::Both(traces, Box::new(filters::decisions(params, now_unix_nano)?)))
        }
    }
}

/// What a stream wakes up for.
enum Turn {
    Commit(Result<Arc<Committed>, u64>),
    KeepAlive,
}

/// Events made from commits, until the server drains or the listener may not listen any more.
fn stream<F>(
    app: &Shared,
    visitor: Visitor,
    mut to_event: F,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<F>>
where
    F: FnMut(&Committed) -> Option<Event> + Send + 'static,
{
    let commits = commits(app.web.committed.subscribe()).map(Turn::Commit);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let ticks = IntervalStream::new(ticks).map(|_| Turn::KeepAlive);
    let keyring = Arc::clone(&app.web.keyring);
    let events = futures_util::stream::select(commits, ticks)
        .take_while(move |_| {
            futures_util::future::ready(visitor.may_stay(&keyring, now_unix_nano()))
        })
        .filter_map(move |turn| {
            let event = match turn {
                Turn::Commit(Ok(committed)) => to_event(&committed),
                Turn::Commit(Err(missed)) => {
                    let data = json!({ "missed": missed }).to_string();
                    Some(Event::default().event("resync").data(data))
                }
                Turn::KeepAlive => Some(Event::default().comment("")),
            };
            futures_util::future::ready(event.map(Ok))
        });
    // The first bytes tell the browser at once that it is connected.
    let hello = futures_util::stream::once(async { Ok(Event::default().comment("connected")) });
    Sse::new(hello.chain(events).take_until(drained(app.web.ready.clone())))
}

/// Commits as they come; how many were missed when the listener fell behind.
fn commits(
    receiver: broadcast::Receiver<Arc<Committed>>,
) -> impl Stream<Item = Result<Arc<Committed>, u64>> {
    BroadcastStream::new(receiver)
        .map(|next| next.map_err(|BroadcastStreamRecvError::Lagged(missed)| missed))
}

/// Resolves when the server stops being ready, or nobody can tell any more.
async fn drained(mut ready: watch::Receiver<bool>) {
    let _ = ready.wait_for(|is_ready| !is_ready).await;
}
