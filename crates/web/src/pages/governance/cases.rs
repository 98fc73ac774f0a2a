//! What people decide: the queue of takeovers, and incidents with their timelines. It is read and done by the
//! operations of the API that whoever acts answers, so that a button does what a program does.

use axum::extract::State;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};
use throughline_api::InPath;
use throughline_store::parse_moment;

use super::{ID_CHARS, may_act, token};
use crate::doors::Visitor;
use crate::failure::{Failure, shown};
use crate::form::{ShortForm, check_token};
use crate::format;
use crate::layout::{self, Nav};
use crate::params::{Params, encode};
use crate::state::{App, Shared};

/// Traces that a page links.
const MAX_LINKS: usize = 20;

/// Times for which an incident can be silenced with a button, seconds.
const SILENCES: [(u64, &str); 3] = [(3_600, "1 hour"), (28_800, "8 hours"), (86_400, "1 day")];

/// `GET /governance/takeovers`
pub(crate) async fn takeovers(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&["cursor"]])?;
    let page = read(&app, &visitor, &paged("/api/v1/takeovers", &params)).await?;
    let body = html! {
        (head("Takeovers", "Cases that a rule, or a person, wants a person to decide", "/api/v1/takeovers"))
        div #queue hx-get="/governance/takeovers" hx-trigger="every 5s [!document.activeElement.matches('input')]" hx-select="#queue" hx-swap="outerHTML" {
            (queue(&page, &visitor))
        }
    };
    Ok(layout::page(&visitor, Nav::Governance, "Takeovers", body))
}

/// `GET /governance/incidents`
pub(crate) async fn incidents(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&["cursor"]])?;
    let page = read(&app, &visitor, &paged("/api/v1/incidents", &params)).await?;
    let body = html! {
        (head("Incidents", "Findings about the same thing are one incident", "/api/v1/incidents"))
        (list(&page, visitor.now_unix_nano))
    };
    Ok(layout::page(&visitor, Nav::Governance, "Incidents", body))
}

/// `GET /governance/incidents/{id}`
pub(crate) async fn incident(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(id): InPath<String>,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[])?;
    let address = format!("/api/v1/incidents/{}", encode(&id));
    let incident = read(&app, &visitor, &address).await?;
    let runbooks = runbooks(&app, &incident).await?;
    let title = text(&incident["title"]);
    let body = html! {
        (head("Incident", title, &address))
        (whole(&incident, &runbooks, &visitor))
    };
    Ok(layout::page(&visitor, Nav::Governance, "Incident", body))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Decision {
    #[serde(default)]
    token: String,
    decision: String,
    #[serde(default)]
    note: String,
}

/// `POST /governance/takeovers/{id}`: a person approves or rejects.
pub(crate) async fn decide(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(id): InPath<String>,
    headers: HeaderMap,
    ShortForm(form): ShortForm<Decision>,
) -> Result<Response, Failure> {
    check_token(&app, &headers, &form.token)?;
    if !matches!(form.decision.as_str(), "approve" | "reject") {
        return Err(odd("approve or reject", &form.decision));
    }
    let address = format!("/api/v1/takeovers/{}/{}", encode(&id), form.decision);
    ask(&app, &visitor, Method::POST, &address, &json!({ "note": form.note.trim() })).await?;
    Ok(Redirect::to("/governance/takeovers").into_response())
}

#[derive(Debug, Deserialize)]
pub(crate) struct Change {
    #[serde(default)]
    token: String,
    change: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    text: String,
    for_s: Option<u64>,
}

/// `POST /governance/incidents/{id}`: what a person does about it.
pub(crate) async fn change(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(id): InPath<String>,
    headers: HeaderMap,
    ShortForm(form): ShortForm<Change>,
) -> Result<Response, Failure> {
    check_token(&app, &headers, &form.token)?;
    let body = match form.change.as_str() {
        "acknowledge" | "resolve" | "reopen" => json!({}),
        "assign" => json!({ "to": form.to.trim() }),
        "note" => json!({ "text": form.text.trim() }),
        "silence" => json!({ "for_s": form.for_s.unwrap_or(SILENCES[0].0) }),
        other => {
            return Err(odd("acknowledge, resolve, reopen, assign, note or silence", other));
        }
    };
    let id = encode(&id);
    let address = format!("/api/v1/incidents/{id}/{}", form.change);
    ask(&app, &visitor, Method::POST, &address, &body).await?;
    Ok(Redirect::to(&format!("/governance/incidents/{id}")).into_response())
}

fn odd(expected: &str, got: &str) -> Failure {
    Failure::new(
        axum::http::StatusCode::BAD_REQUEST,
        "bad_request",
        format!("expected {expected}, got {:?}", shown(got)),
        "load the page again and use its button",
    )
}

fn paged(path: &str, params: &Params) -> String {
    match params.text("cursor") {
        Some(cursor) => format!("{path}?cursor={}", encode(cursor)),
        None => path.to_owned(),
    }
}

async fn read(app: &App, visitor: &Visitor, address: &str) -> Result<Value, Failure> {
    ask(app, visitor, Method::GET, address, &Value::Null).await
}

async fn ask(
    app: &App,
    visitor: &Visitor,
    method: Method,
    address: &str,
    body: &Value,
) -> Result<Value, Failure> {
    app.beside.ask((method, address), visitor.key.as_ref(), body).await
}

/// Runbooks that the findings of an incident name, each once.
async fn runbooks(app: &App, incident: &Value) -> Result<Vec<String>, Failure> {
    let ids: Vec<String> =
        items(&incident["findings"]).map(|one| text(&one["id"]).to_owned()).collect();
    let governance = app.web.governance.governance.clone();
    crate::governance::remembered(move || {
        let mut found = Vec::new();
        for id in ids {
            let runbook = governance.finding(&id)?.map(|finding| finding.runbook);
            let link = runbook.filter(|link| link.starts_with("http") && !found.contains(link));
            found.extend(link);
        }
        Ok(found)
    })
    .await
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn head(title: &str, about: &str, address: &str) -> Markup {
    html! {
        div.head {
            h1 { (title) }
            p.grow { (about) }
            div.tools {
                a.btn href="/governance" { "All of governance" }
                a.btn href=(address) { "JSON" }
            }
        }
    }
}

fn time(moment: &Value, now: u64) -> Markup {
    match moment.as_str().and_then(|text| parse_moment(text, now)) {
        Some(at) => format::time(at, now),
        None => html! { span.muted { "–" } },
    }
}

fn subject(of: &Value) -> Markup {
    html! {
        @for (name, value) in of.as_object().into_iter().flatten() {
            span.badge title=(name) { span.soft { (name) " " } (text(value)) } " "
        }
    }
}

fn traces(of: &Value) -> Markup {
    html! {
        @if items(of).next().is_some() {
            p.soft {
                "such as "
                @for id in items(of).take(MAX_LINKS).map(text) {
                    a.link.mono href={ "/traces/" (id) } title=(id) { (id.get(..ID_CHARS).unwrap_or(id)) } " "
                }
            }
        }
    }
}

fn next(page: &Value, path: &str) -> Markup {
    html! { @if let Some(cursor) = page["next"].as_str() {
        p { a.btn href={ (path) "?cursor=" (encode(cursor)) } { "Earlier ones" } }
    } }
}

fn none(what: &str) -> Markup {
    html! { div.none { (crate::icons::line_art()) p { (what) } } }
}

fn queue(page: &Value, visitor: &Visitor) -> Markup {
    let (waiting, decided): (Vec<&Value>, Vec<&Value>) =
        items(&page["items"]).partition(|one| one["state"] == "waiting");
    html! {
        @if waiting.is_empty() && decided.is_empty() {
            (none("No case was ever handed to a person. A policy with hand_over puts them here."))
        } @else if waiting.is_empty() {
            div.well { (crate::icons::icon("tick")) p { b { "Nobody waits." } " Every case is decided." } }
        }
        @for one in waiting { (case(one, visitor)) }
        @if !decided.is_empty() { h2.part { "Decided" } @for one in decided { (case(one, visitor)) } }
        (next(page, "/governance/takeovers"))
    }
}

fn case(of: &Value, visitor: &Visitor) -> Markup {
    let now = visitor.now_unix_nano;
    let state = text(&of["state"]);
    let class = match state {
        "waiting" => "badge warn",
        "approved" => "badge plum",
        _ => "badge",
    };
    html! {
        article.card.finding.case {
            div.title {
                h3 { @match text(&of["to"]) { "" => "For anybody", to => { "For " (to) } } }
                span class=(class) { (state) } (subject(&of["subject"]))
            }
            p { (text(&of["reason"])) }
            p.soft {
                "asked " (time(&of["asked"], now))
                @match text(&of["rule"]) { "" => " by a person", rule => { " by " (rule) } }
            }
            (traces(&of["evidence"]))
            @if !text(&of["decided_by"]).is_empty() {
                p.soft {
                    (state) " by " b { (text(&of["decided_by"])) } " " (time(&of["decided"], now))
                    @if !text(&of["note"]).is_empty() { ": " (text(&of["note"])) }
                }
            }
            @if state == "waiting" && may_act(visitor) {
                form.answers method="post" action={ "/governance/takeovers/" (encode(text(&of["id"]))) } {
                    (token(visitor))
                    input.field.grow name="note" maxlength="1000" aria-label="Why" placeholder="Why (optional)";
                    button.btn.main type="submit" name="decision" value="approve" title="A person takes over: the agent is told to hand over" { "Take over" }
                    button.btn type="submit" name="decision" value="reject" title="The agent goes on" { "Leave it to the agent" }
                }
            }
        }
    }
}

fn badge(state: &str) -> &'static str {
    match state {
        "open" | "critical" => "badge error",
        "acknowledged" | "warning" => "badge warn",
        "resolved" => "badge ok",
        _ => "badge",
    }
}

fn list(page: &Value, now: u64) -> Markup {
    html! {
        @if items(&page["items"]).next().is_none() {
            (none("No incident yet. Findings that fire become one; those about the same thing share it."))
        } @else {
            div.sheet-list {
                table.list.sums aria-label="Incidents" {
                    colgroup { col; col.w-m; col.w-m; col.w-m; col.w-s; }
                    thead { tr { th { "Incident" } th { "State" } th { "Looked after by" } th { "Changed" } th.num { "Findings" } } }
                    tbody { @for one in items(&page["items"]) { (row(one, now)) } }
                }
            }
            (next(page, "/governance/incidents"))
        }
    }
}

fn row(of: &Value, now: u64) -> Markup {
    let further = of["further_findings"].as_u64().unwrap_or(0);
    let findings = items(&of["findings"]).count() as u64 + further;
    html! {
        tr {
            td.p-name {
                a.name href={ "/governance/incidents/" (encode(text(&of["id"]))) } title=(text(&of["title"])) { (text(&of["title"])) }
            }
            td data-label="State" {
                span class=(badge(text(&of["state"]))) { (text(&of["state"])) } " "
                @if of["state"] != "resolved" { span class=(badge(text(&of["severity"]))) { (text(&of["severity"])) } }
            }
            td data-label="Looked after by" { @match text(&of["assignee"]) { "" => span.muted { "–" }, who => (who) } }
            td data-label="Changed" { (time(&of["changed"], now)) }
            td.num data-label="Findings" { (findings) }
        }
    }
}

fn whole(of: &Value, runbooks: &[String], visitor: &Visitor) -> Markup {
    let now = visitor.now_unix_nano;
    let further = of["further_findings"].as_u64().unwrap_or(0);
    html! {
        article.card.finding.case {
            div.title {
                span class=(badge(text(&of["state"]))) { (text(&of["state"])) }
                span class=(badge(text(&of["severity"]))) { (text(&of["severity"])) }
                (subject(&of["subject"]))
            }
            p.soft {
                "opened " (time(&of["opened"], now)) ", changed " (time(&of["changed"], now)) " · "
                @match text(&of["assignee"]) { "" => "nobody looks after it", who => { (who) " looks after it" } }
                @if !of["silenced_until"].is_null() { " · nobody is told before " (time(&of["silenced_until"], now)) }
            }
            @for link in runbooks { p { a.link href=(link) rel="noopener noreferrer" { "Runbook" } " " span.soft { (link) } } }
            (traces(&of["traces"]))
            @if may_act(visitor) { (buttons(of, visitor)) }
        }
        h2.part { "Findings" }
        ol.events {
            @for one in items(&of["findings"]) {
                @let state = text(&one["state"]);
                li {
                    div.when { span class=(if state == "firing" { "badge warn" } else { "badge ok" }) { (state) } }
                    div.what {
                        p { span.soft.mono { (text(&one["kind"])) } " " (text(&one["rule"])) }
                        p { (text(&one["summary"])) }
                    }
                }
            }
        }
        @if further > 0 { p.soft { "and " (further) " further findings, which are counted and not kept" } }
        h2.part { "Timeline" }
        ol.events {
            @for entry in of["timeline"].as_array().into_iter().flatten().rev() {
                li {
                    div.when { (time(&entry["at"], now)) }
                    div.what { p { (text(&entry["what"])) } p.soft { @match text(&entry["by"]) { "" => "a rule", who => (who) } } }
                }
            }
        }
    }
}

fn buttons(of: &Value, visitor: &Visitor) -> Markup {
    let action = format!("/governance/incidents/{}", encode(text(&of["id"])));
    let button = |change: &str, label: &str, class: &str| {
        html! {
            form.inline method="post" action=(action) {
                (token(visitor))
                input type="hidden" name="change" value=(change);
                button class=(class) type="submit" { (label) }
            }
        }
    };
    let is_over = of["state"] == "resolved";
    html! {
        div.answers {
            @if of["state"] == "open" { (button("acknowledge", "I look at it", "btn main")) }
            @if is_over { (button("reopen", "Open it again", "btn")) } @else { (button("resolve", "It is over", "btn")) }
        }
        @if !is_over {
            form.answers method="post" action=(action) {
                (token(visitor))
                input type="hidden" name="change" value="assign";
                input.field.grow name="to" maxlength="200" aria-label="Who" placeholder="Who looks after it (empty for nobody)" value=(text(&of["assignee"]));
                button.btn type="submit" { "Assign" }
            }
            form.answers method="post" action=(action) {
                (token(visitor))
                input type="hidden" name="change" value="silence";
                select.field name="for_s" aria-label="For how long" { @for (seconds, label) in SILENCES { option value=(seconds) { (label) } } }
                button.btn type="submit" title="Nobody is told of it before" { "Silence" }
            }
        }
        form.answers method="post" action=(action) {
            (token(visitor))
            input type="hidden" name="change" value="note";
            input.field.grow name="text" maxlength="2000" required aria-label="Note" placeholder="A note for the timeline";
            button.btn type="submit" { "Note" }
        }
    }
}

#[cfg(test)]
mod tests;
