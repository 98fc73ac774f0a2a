//! Live events: what became durable, as rows for the open lists and as JSON for programs.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt};
use serde_json::{Value as Json, json};
use throughline_store::{Committed, DecisionFilter, TraceFilter};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::doors::Visitor;
use crate::failure::Failure;
use crate::filters;
use crate::format::now_unix_nano;
use crate::params::Params;
use crate::state::Shared;
use crate::{api, pages};

/// What a listener asked for.
enum Wanted {
    Traces(TraceFilter),
    Decisions(DecisionFilter),
    Both(TraceFilter, DecisionFilter),
}

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
    Ok(stream(&app, move |committed| {
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
    Ok(stream(&app, move |committed| {
        let (traces, decisions) = match &wanted {
            Wanted::Traces(filter) => (Some(filter), None),
            Wanted::Decisions(filter) => (None, Some(filter)),
            Wanted::Both(traces, decisions) => (Some(traces), Some(decisions)),
        };
        let traces: Vec<Json> = traces.map_or_else(Vec::new, |filter| {
            let changed = committed.summaries.iter().filter(|summary| filter.matches(summary));
            changed.map(api::shapes::summary).collect()
        });
        let decisions: Vec<Json> = decisions.map_or_else(Vec::new, |filter| {
            let new = committed.decisions.iter().filter(|decision| filter.matches(decision));
            new.map(api::shapes::decision).collect()
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

fn wanted(params: &Params, now_unix_nano: u64) -> Result<Wanted, Failure> {
    let kind = params.read("kind", "traces or decisions", |text| {
        ["traces", "decisions"].into_iter().find(|kind| *kind == text)
    })?;
    match kind {
        Some("traces") => {
            params.expect_only(&[&filters::TRACE_PARAMS, &LIVE_PARAMS])?;
            Ok(Wanted::Traces(filters::traces(params, now_unix_nano)?))
        }
        Some(_) => {
            params.expect_only(&[&filters::DECISION_PARAMS, &LIVE_PARAMS])?;
            Ok(Wanted::Decisions(filters::decisions(params, now_unix_nano)?))
        }
        None => {
            params.expect_only(&[&LIVE_PARAMS, &["agent", "session"]])?;
            let traces = filters::traces(params, now_unix_nano)?;
            Ok(Wanted::Both(traces, filters::decisions(params, now_unix_nano)?))
        }
    }
}

/// Events made from commits, until the server drains.
fn stream<F>(
    app: &Shared,
    mut to_event: F,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<F>>
where
    F: FnMut(&Committed) -> Option<Event> + Send + 'static,
{
    let commits = commits(app.web.committed.subscribe());
    let events = commits.filter_map(move |commit| {
        let event = match commit {
            Ok(committed) => to_event(&committed),
            Err(missed) => {
                Some(Event::default().event("resync").data(json!({ "missed": missed }).to_string()))
            }
        };
        futures_util::future::ready(event.map(Ok))
    });
    // The first bytes tell the browser at once that it is connected.
    let hello = futures_util::stream::once(async { Ok(Event::default().comment("connected")) });
    let events = hello.chain(events).take_until(drained(app.web.ready.clone()));
    Sse::new(events).keep_alive(KeepAlive::default())
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
