//! One decision: what, why, how sure; the chain of decisions that led to it; where it was taken.

use axum::extract::State;
use maud::{Markup, html};
use throughline_api::InPath;
use throughline_store::{ChainPlace, audit_hex};
use throughline_trace::{Decision, DecisionId};

use super::decisions::{confidence, or_dash, trace_link};
use super::span::attribute_row;
use crate::api::audit::ask;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format;
use crate::icons::icon;
use crate::layout::{self, Nav, copy_button};
use crate::params::query_string;
use crate::reads::{Via, note_path};
use crate::state::Shared;

/// Most ancestors that are looked up.
pub(crate) const MAX_CHAIN: usize = 32;

/// Digits of a link that are shown; the rest is a click away.
const LINK_DIGITS: usize = 12;

/// `GET /decisions/{decision_id}`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(decision_id): InPath<String>,
) -> Result<Markup, Failure> {
    let decision = load(&app, &decision_id).await?;
    let chain = chain(&app, &decision).await?;
    let place = place(&app, &decision).await?;
    let path = format!("/decisions/{}", decision.decision_id);
    note_path(&app, &visitor, Via::Page, &path, 1 + chain.len());
    let title = format!("Decision: {}", or_dash(&decision.action));
    let body = draw(&decision, &chain, place.as_ref(), visitor.now_unix_nano);
    Ok(layout::page(&visitor, Nav::Decisions, &title, body))
}

/// The decision of an address.
pub(crate) async fn load(app: &Shared, decision_id: &str) -> Result<Decision, Failure> {
    let id: DecisionId = decision_id
        .parse()
        .map_err(|_| Failure::parameter("decision_id", "a UUID", decision_id))?;
    let found = app.web.reader.decision(id).await?;
    found.ok_or_else(|| Failure::not_found("decision", decision_id))
}

/// The decisions that led to this one, the first of all first. A parent that is not stored ends it.
pub(crate) async fn chain(app: &Shared, decision: &Decision) -> Result<Vec<Decision>, Failure> {
    let mut chain: Vec<Decision> = Vec::new();
    let mut next = decision.parent_decision_id;
    while let Some(id) = next {
        let is_circle =
            id == decision.decision_id || chain.iter().any(|seen| seen.decision_id == id);
        if is_circle || chain.len() >= MAX_CHAIN {
            break;
        }
        let Some(parent) = app.web.reader.decision(id).await? else { break };
        next = parent.parent_decision_id;
        chain.push(parent);
    }
    chain.reverse();
    Ok(chain)
}

/// Where the decision stands in the chain of the audit log, looked at anew.
pub(crate) async fn place(
    app: &Shared,
    decision: &Decision,
) -> Result<Option<ChainPlace>, Failure> {
    let id = decision.decision_id;
    ask(app, move |audit| audit.place(id)).await
}

/// Whether the record is what it was when it came.
fn chain_badge(place: Option<&ChainPlace>) -> Markup {
    let Some(place) = place else {
        return html! { span.badge.error title="The decision has no place in the chain of the audit log: it was put in past the server" { (icon("alert")) "Not in the chain" } };
    };
    let number = format::count(place.number);
    match (place.is_good, &place.problem) {
        (Some(true), _) => html! {
            span.badge.ok title="Its content and its link are what they were when it came" { (icon("tick")) "Chain " (number) " · verified" }
        },
        (_, Some(problem)) => html! {
            span.badge.error title=(problem) { (icon("alert")) "Chain " (number) " · does not verify" }
        },
        _ => html! {
            span.badge title="The audit key of this record is not at hand" { "Chain " (number) " · key missing" }
        },
    }
}

fn draw(
    decision: &Decision,
    chain: &[Decision],
    place: Option<&ChainPlace>,
    now_unix_nano: u64,
) -> Markup {
    let id = decision.decision_id.to_string();
    let has_lost_parent = decision.parent_decision_id.is_some() && chain.is_empty();
    html! {
        div.head {
            div.grow {
                p.crumb {
                    a href="/decisions" { "Decisions" } (icon("right"))
                    span.mono.cut { (id) } (copy_button("Copy the decision id", &id))
                }
                div.title { h1 { (or_dash(&decision.action)) } span.badge.decision { (or_dash(&decision.stage)) } @if decision.derived { span.badge title="Worked out by the server from a span" { "derived" } } (chain_badge(place)) }
            }
            div.tools {
                @if let Some(trace_id) = decision.trace_id {
                    @let span = decision.span_id.map(|span| format!("?span={span}")).unwrap_or_default();
                    a.btn.main href={ "/traces/" (trace_id) (span) } { (icon("traces")) "Show in its trace" }
                }
                a.btn href={ "/api/v1/decisions/" (id) } { "JSON" }
            }
        }
        div.cols {
            div {
                div.card.box {
                    h2 { "Reason" }
                    div.verdict { p.why { (or_dash(&decision.reason)) } }
                }
                div.card.box {
                    h2 { "How it came to this" }
                    @if has_lost_parent { p.flag { "The decision that led here is not stored: " code { @if let Some(parent) = decision.parent_decision_id { (parent) } } } }
                    ol.chain {
                        @for earlier in chain { (link_of(earlier, now_unix_nano, false)) }
                        (link_of(decision, now_unix_nano, true))
                    }
                }
                @if !decision.attributes.is_empty() {
                    div.card.box {
                        h2 { "Attributes" }
                        table.attrs { tbody { @for (key, value) in decision.attributes.iter() { (attribute_row(key, value)) } } }
                    }
                }
            }
            (facts(decision, place, now_unix_nano))
        }
    }
}

fn link_of(decision: &Decision, now_unix_nano: u64, is_this: bool) -> Markup {
    html! {
        li.now[is_this] {
            @if is_this { b { (or_dash(&decision.action)) } }
            @else { a.link href={ "/decisions/" (decision.decision_id) } { b { (or_dash(&decision.action)) } } }
            " " span.muted { (or_dash(&decision.stage)) " · " (format::time(decision.timestamp_ns, now_unix_nano)) }
            @if !is_this && !decision.reason.is_empty() { p.soft { (decision.reason) } }
        }
    }
}

fn facts(decision: &Decision, place: Option<&ChainPlace>, now_unix_nano: u64) -> Markup {
    let filtered = |name: &str, value: &str| html! { a.link href={ "/decisions" (query_string([(name, value)])) } { (value) } };
    let text = |label: &str, value: &str| html! { @if !value.is_empty() { dt { (label) } dd { (value) } } };
    html! {
        div.card.box {
            h2 { "Facts" }
            dl.pairs {
                dt { "Confidence" } dd { (confidence(decision.confidence)) }
                dt { "Taken" } dd { (format::time(decision.timestamp_ns, now_unix_nano)) }
                @if !decision.agent_id.is_empty() { dt { "Agent" } dd { (filtered("agent", &decision.agent_id)) } }
                @if !decision.session_id.is_empty() { dt { "Session" } dd.mono { (filtered("session", &decision.session_id)) } }
                (text("Model version", &decision.model_version))
                dt { "Trace" } dd.mono { (trace_link(decision)) }
                (text("Input hash", &decision.input_hash))
                (text("Service", &decision.service))
                @if !decision.instance_id.is_empty() {
                    dt { "Recorded by" } dd { code { (decision.instance_id) } @if decision.seq > 0 { ", number " (format::count(decision.seq)) } }
                }
                dt { "Received" } dd { (format::time(decision.received_at_ns, now_unix_nano)) }
                @if let Some(place) = place {
                    @let link = audit_hex(&place.link);
                    dt { "Audit chain" } dd { "record " (format::count(place.number)) ", link " code title=(link) { (&link[..LINK_DIGITS]) "…" } (copy_button("Copy the link", &link)) }
                    @if let Some(problem) = &place.problem { dt { "Problem" } dd { (problem) } }
                }
            }
        }
    }
}
