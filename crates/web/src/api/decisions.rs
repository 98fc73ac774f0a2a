//! `/api/v1/decisions`: lists, one decision with the chain that led to it, numbers that never came.

use std::cmp::Reverse;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use throughline_api::InPath;
use throughline_store::{ChainPlace, DecisionGap, audit_hex};

use super::forms::Hash;
use super::paging::{self, Keyed};
use super::records::{self, Decision, Gap, listed};
use super::shapes::{Page, SearchedPage};
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::filters;
use crate::pages::decision::{chain, load, place};
use crate::pages::gaps;
use crate::params::Params;
use crate::reads::{Via, note, note_path};
use crate::state::Shared;

/// `GET /api/v1/decisions`
pub(crate) async fn list(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Response, Failure> {
    let filter = filters::decisions(&params, visitor.now_unix_nano)?;
    let _turn = app.turns.take().await?;
    let page = app.web.reader.decisions(&filter, params.text("cursor"), params.limit()?).await?;
    let ids = page.items.iter().map(|decision| decision.decision_id).collect();
    let places = app.web.reader.chain_places(ids).await?;
    note(&app, &visitor, Via::Api, params.question("/api/v1/decisions"), page.items.len());
    let page = SearchedPage::of(&page, |of| listed(of, places.get(&of.decision_id)));
    Ok(Json(page).into_response())
}

/// A decision, the chain that led to it and its place in the audit log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DecisionAnswer {
    /// Null when it was put in past the server.
    audit: Option<Placed>,
    decision: Decision,
    /// What led to it, the first ancestor first.
    chain: Vec<Decision>,
}

/// A place in the audit log, looked at anew.
#[derive(Debug, Serialize, JsonSchema)]
struct Placed {
    number: u64,
    #[schemars(with = "Hash")]
    link: String,
    /// Content and link are what they were; null when the key of the record is not at hand.
    is_good: Option<bool>,
    problem: Option<String>,
}

/// `GET /api/v1/decisions/{decision_id}`: `{decision, chain, audit}`.
pub(crate) async fn one(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(decision_id): InPath<String>,
) -> Result<Json<DecisionAnswer>, Failure> {
    let decision = load(&app, &decision_id).await?;
    let chain = chain(&app, &decision).await?;
    let place = place(&app, &decision).await?;
    let path = format!("/api/v1/decisions/{}", decision.decision_id);
    note_path(&app, &visitor, Via::Api, &path, 1 + chain.len());
    let placed = |place: ChainPlace| Placed {
        number: place.number,
        link: audit_hex(&place.link),
        is_good: place.is_good,
        problem: place.problem,
    };
    Ok(Json(DecisionAnswer {
        audit: place.map(placed),
        decision: records::decision(&decision),
        chain: chain.iter().map(records::decision).collect(),
    }))
}

/// Where a page of gaps ends: those noticed last first, then by instance and number.
type GapKey = (Reverse<u64>, String, u64);

fn gap_key(gap: &DecisionGap) -> GapKey {
    (Reverse(gap.noticed_unix_nano), gap.instance_id.clone(), gap.first_seq)
}

/// `GET /api/v1/decisions/gaps`
pub(crate) async fn missing(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Page<Gap>>, Failure> {
    let (after, limit) = (Keyed::Gaps.key::<GapKey>(&params)?, params.limit()?);
    let below = after.as_ref().map(|(Reverse(noticed), ..)| noticed.saturating_add(1));
    // More are read until the page is full, or there are no more: many may have been noticed at once.
    let mut wanted = limit + 1;
    let gaps = loop {
        let read = gaps::noticed_before(&app, visitor.now_unix_nano, below, wanted).await?;
        let is_all = read.len() < wanted;
        let behind = |gap: &&DecisionGap| after.as_ref().is_none_or(|after| gap_key(gap) > *after);
        if is_all || read.iter().filter(behind).count() > limit {
            break read;
        }
        wanted = wanted.saturating_mul(2);
    };
    let page = paging::page(Keyed::Gaps, gaps, gap_key, after.as_ref(), limit)?;
    Ok(Json(Page { items: page.items.iter().map(records::gap).collect(), next: page.next }))
}
