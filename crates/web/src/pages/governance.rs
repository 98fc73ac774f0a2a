//! What was observed, and what it led to: rollouts with both versions side by side, what rules said
//! and what was done on one timeline, SLOs with their budgets, and the button that stops every
//! automatic action.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use throughline_govern::rollout::{Phase, Verdict};
use throughline_govern::slo::{ObjectiveStatus, SloHealth};
use throughline_store::{ActionRecord, ActionState, FindingFilter, Pause};
use throughline_trace::access::Scope;
use throughline_trace::{Finding, FindingSeverity, FindingState, Operation, TraceId};

use crate::contracts::Kept;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::form::{ShortForm, check_token};
use crate::format;
use crate::governance::{RolloutStanding, Standing, remembered};
use crate::icons::{icon, line_art};
use crate::layout::{self, Nav};
use crate::params::Params;
use crate::state::{App, Shared};

mod answering;
pub(crate) mod cases;
mod contracts;
mod experiments;
mod policies;
mod signals;

pub(crate) use answering::answer;
pub(crate) use contracts::show as show_contract;
pub(crate) use experiments::show as show_experiment;
pub(crate) use signals::show as show_signals;

const PATH: &str = "/governance";

/// Entries of the timeline at most.
const MAX_ENTRIES: usize = 60;

/// Kind of the findings that say what caused another.
const CAUSE_KIND: &str = "root_cause";

/// How old the last round may be, nanoseconds: a few of the longest intervals.
const STALE_NANOS: u64 = 180_000_000_000;

/// Characters of a trace id that a link shows.
const ID_CHARS: usize = 8;

/// Shares of the budget below which it is shown as a warning, and as bad.
const LOW_BUDGET: f64 = 0.25;

/// What the page shows.
struct Shown {
    standing: std::sync::Arc<Standing>,
    findings: Vec<Finding>,
    actions: Vec<ActionRecord>,
    pause: Pause,
    contracts: Vec<Kept>,
}

/// `GET /governance`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[])?;
    let shown = load(&app).await?;
    let body = html! {
        div.head {
            h1 { "Governance" }
            p.grow { "What was observed, and what it led to" }
            div.tools {
                (pause_button(&shown.pause, &visitor))
                a.btn href="/governance/signals" { "Signals" }
                a.btn href="/governance/takeovers" { "Takeovers" }
                a.btn href="/governance/incidents" { "Incidents" }
                a.btn href="/api/v1/findings" { "JSON" }
            }
        }
        div #governed hx-get=(PATH) hx-trigger="every 5s" hx-select="#governed" hx-swap="outerHTML" {
            (draw(&shown, &visitor))
        }
    };
    Ok(layout::page(&visitor, Nav::Governance, "Governance", body))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Switch {
    #[serde(default)]
    token: String,
    pause: bool,
}

/// `POST /governance/pause`
pub(crate) async fn switch(
    State(app): State<Shared>,
    visitor: Visitor,
    headers: HeaderMap,
    ShortForm(form): ShortForm<Switch>,
) -> Result<Response, Failure> {
    check_token(&app, &headers, &form.token)?;
    let person = visitor.key.as_ref().map_or("somebody on the page", |key| key.name.as_str());
    let (governance, person) = (app.web.governance.governance.clone(), person.to_owned());
    remembered(move || governance.set_pause(form.pause, &person, "the button on the page")).await?;
    Ok(Redirect::to(PATH).into_response())
}

async fn load(app: &App) -> Result<Shown, Failure> {
    let standing = app.web.governance.standing.borrow().clone();
    let governance = app.web.governance.governance.clone();
    remembered(move || {
        let filter = FindingFilter { limit: MAX_ENTRIES, ..FindingFilter::default() };
        let mut findings = governance.findings(&filter)?;
        // What still holds is shown however old it is.
        let firing = governance.findings(&FindingFilter { is_firing: true, ..filter })?;
        findings.retain(|one| one.state != FindingState::Firing);
        findings.extend(firing);
        Ok(Shown {
            standing,
            findings,
            actions: governance.actions(None, MAX_ENTRIES)?,
            pause: governance.pause()?,
            contracts: crate::contracts::all(&governance)?,
        })
    })
    .await
}

/// Whether who looks at the page may act; without keys everybody may.
fn may_act(visitor: &Visitor) -> bool {
    visitor.key.as_ref().is_none_or(|key| key.allows(Scope::Act))
}

/// What tells that a form is the page's own.
fn token(visitor: &Visitor) -> Markup {
    html! { @if let Some(token) = &visitor.form_token { input type="hidden" name="token" value=(token); } }
}

fn pause_button(pause: &Pause, visitor: &Visitor) -> Markup {
    let (label, title) = match pause.is_on {
        true => ("Resume actions", "Let rules act again"),
        false => ("Pause actions", "Stop every automatic action until somebody resumes"),
    };
    html! { @if may_act(visitor) {
        form.inline method="post" action="/governance/pause" {
            (token(visitor))
            input type="hidden" name="pause" value=(!pause.is_on);
            button.btn type="submit" title=(title) { (label) }
        }
    } }
}

fn draw(shown: &Shown, visitor: &Visitor) -> Markup {
    let Shown { standing, findings, actions, pause, contracts: agreed } = shown;
    let now = visitor.now_unix_nano;
    let firing = findings.iter().filter(|one| one.state == FindingState::Firing).count();
    html! {
        @if pause.is_on {
            div.notice role="status" { (icon("alert")) p {
                "Every automatic action is stopped by " b { (pause.person) } " " (format::time(pause.at_unix_nano, now))
                @if !pause.reason.is_empty() { ": " (pause.reason) } "."
            } }
        }
        @if standing.at_unix_nano > 0 && now.saturating_sub(standing.at_unix_nano) > STALE_NANOS {
            div.notice role="alert" { (icon("alert")) p {
                "Rules were evaluated last " (format::time(standing.at_unix_nano, now)) "; what stands here is of then. The server's log says why."
            } }
        }
        @if standing.rollouts.is_empty() && standing.slos.is_empty() && standing.policies.is_empty() && standing.experiments.is_empty() && findings.is_empty() && actions.is_empty() && agreed.is_empty() {
            div.none { (line_art()) p { "No rules are in place. " code { "governance.rules" } " of the configuration names files with SLOs, rollouts and policies." } }
        } @else {
            @if firing == 0 { div.well { (icon("tick")) p { b { "All is well." } " No rule has anything to say at the moment." } } }
            @for one in &standing.rollouts { (rollout(one, now)) }
            @if !standing.experiments.is_empty() { h2.part { "Experiments" } (experiments::cards(&standing.experiments, now)) }
            @if !agreed.is_empty() { h2.part { "Contracts" } (contracts::cards(agreed, standing, visitor)) }
            @if !standing.slos.is_empty() { h2.part { "Objectives" } (objectives(&standing.slos)) }
            @if !standing.policies.is_empty() { h2.part { "Policies" } (policies::table(&standing.policies, now)) }
            @if !(findings.is_empty() && actions.is_empty()) { h2.part { "What happened" } (timeline(findings, actions, now)) }
        }
    }
}

fn rollout(of: &RolloutStanding, now: u64) -> Markup {
    let (state, spec) = (&of.rollout, &of.spec);
    let (class, word) = match (&state.phase, state.changes.last().map(|last| last.kind.as_str())) {
        (Phase::Progressing { .. }, _) => ("badge warn", "in progress"),
        (Phase::Stable, Some("rolled_back")) => ("badge error", "rolled back"),
        (Phase::Stable, Some("promoted")) => ("badge ok", "promoted"),
        (Phase::Stable, _) => ("badge", "stable"),
    };
    let candidate = state.candidate.as_deref();
    html! {
        article.card.finding.rollout {
            div.title {
                h3 { (state.name) } span class=(class) { (word) }
                span.soft { "of " a.link href={ "/traces?agent=" (spec.agent) } { (spec.agent) } }
            }
            div.shares role="img" aria-label={ (state.stable) " has " (100 - of.weight) " percent of the traffic" } {
                svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
                    rect.stable width=(100 - of.weight) height="4" {}
                    rect.tried x=(100 - of.weight) width=(of.weight) height="4" {}
                }
                p.soft {
                    b { (state.stable) } " " (100 - of.weight) " %"
                    @if let Some(candidate) = candidate { " · " b { (candidate) } " " (of.weight) " %" }
                }
            }
            @match &of.verdict {
                Some(Verdict::Fail(why)) => p.bad { (why) },
                Some(Verdict::Pass(why)) => p { (why) },
                Some(Verdict::NotEnough(why)) => p.soft { "Not enough to compare yet: " (why) },
                None => {}
            }
            @if !state.changes.is_empty() {
                ol.changes {
                    @for change in state.changes.iter().rev().take(5) {
                        li {
                            span.soft { (format::time(change.at_unix_nano, now)) }
                            b { (change.version) } " " (told_change(&change.kind)) ", " (change.weight) " %"
                            @if !change.reason.is_empty() { span.soft { (change.reason) } }
                        }
                    }
                }
            }
        }
    }
}

fn told_change(kind: &str) -> String {
    kind.replace('_', " ")
}

fn objectives(slos: &[ObjectiveStatus]) -> Markup {
    html! {
        div.sheet-list {
            table.list.sums aria-label="Objectives" {
                colgroup { col; col.w-s; col.w-s; col.w-m; col.w-s; col.w-m; }
                thead { tr {
                    th { "Objective" } th.num { "Target" } th.num { "Attained" }
                    th.num title="What is left of the error budget of the window" { "Budget left" }
                    th.num title="How fast the budget is used: 1 uses it up exactly by the end of the window" { "Burn 1 h" }
                    th.num { "State" }
                } }
                tbody { @for one in slos { (objective(one)) } }
            }
        }
    }
}

fn objective(of: &ObjectiveStatus) -> Markup {
    let percent = |share: f64| format!("{:.3} %", share * 100.0);
    let none = html! { span.muted { "–" } };
    let (class, word) = match of.health {
        SloHealth::Ok => ("badge ok", "ok"),
        SloHealth::Burning => ("badge warn", "burning"),
        SloHealth::Exhausted => ("badge error", "exhausted"),
        SloHealth::NoEvents => ("badge", "no events"),
        SloHealth::NotCovered => ("badge", "not covered"),
    };
    html! {
        tr {
            td.p-name { span.name title=(of.slo) { (of.slo) } " " span.soft { (of.objective) } }
            td.num data-label="Target" { (percent(of.target)) }
            td.num data-label="Attained" { @match of.attainment { Some(share) => (percent(share)), None => (none) } }
            td.num data-label="Budget left" { @match of.budget.remaining { Some(left) => (budget(left)), None => (none) } }
            td.num data-label="Burn 1 h" { @match of.burn_rate_1h { Some(rate) => (format!("{rate:.2}")), None => (none) } }
            td.num data-label="State" { span class=(class) { (word) } }
        }
    }
}

fn budget(left: f64) -> Markup {
    let class = match left {
        left if left <= 0.0 => "score bad",
        left if left < LOW_BUDGET => "score some",
        _ => "score",
    };
    html! {
        span class=(class) {
            span { (format!("{:.1} %", left * 100.0)) }
            svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
                rect.track width="100" height="4" {}
                rect.bar width=(format!("{:.1}", left.clamp(0.0, 1.0) * 100.0)) height="4" {}
            }
        }
    }
}

/// Findings and actions, the newest first.
fn timeline(findings: &[Finding], actions: &[ActionRecord], now: u64) -> Markup {
    let said = findings
        .iter()
        .map(|one| (one.since_unix_nano, 0, one.state == FindingState::Firing, finding(one, now)));
    // The weights that follow from a rollout's step stand with the step, and what an investigation
    // found is a finding.
    let is_own = |one: &&ActionRecord| {
        let operation = one.action.operation.kind();
        let is_follow_up = one.action.subject.get("rollout").is_some() && operation == "weights";
        let is_found = operation == "investigate" && one.state == ActionState::Done;
        !is_follow_up && !is_found
    };
    let done = actions.iter().filter(is_own).map(|one| {
        (one.finished_unix_nano.unwrap_or(one.action.at_unix_nano), 1, false, action(one, now))
    });
    let mut entries: Vec<_> = said.chain(done).collect();
    entries.sort_by_key(|(at, kind, ..)| std::cmp::Reverse((*at, *kind)));
    let shown = entries.into_iter().enumerate();
    // What still holds is not cut.
    let shown = shown.filter(|(at, (_, _, is_firing, _))| *at < MAX_ENTRIES || *is_firing);
    html! { ol.events { @for (_, (.., entry)) in shown { (entry) } } }
}

fn finding(of: &Finding, now: u64) -> Markup {
    let class = match (of.state, of.severity) {
        (FindingState::Resolved, _) => "badge ok",
        (_, FindingSeverity::Critical) => "badge error",
        (_, FindingSeverity::Warning) => "badge warn",
        (_, FindingSeverity::Info) => "badge",
    };
    let (class, word) = match of.state {
        // It tells what was, and needs no end.
        _ if of.kind == CAUSE_KIND => ("badge plum", "cause"),
        FindingState::Resolved => (class, "resolved"),
        FindingState::Firing => (class, of.severity.as_str()),
    };
    html! {
        li {
            div.when { (format::time(of.since_unix_nano, now)) }
            div.what {
                p { span class=(class) { (word) } " " span.soft.mono { (of.kind) } " " (of.rule) }
                p { (of.summary) }
                @if !of.runbook.is_empty() && of.runbook.starts_with("http") { p { a.link href=(of.runbook) rel="noopener noreferrer" { "Runbook" } } }
                (evidence(&of.evidence))
            }
        }
    }
}

fn action(of: &ActionRecord, now: u64) -> Markup {
    let (class, word) = match of.state {
        ActionState::Done => ("badge decision", "done"),
        ActionState::Asked => ("badge", "waits"),
        ActionState::DryRun => ("badge", "dry run"),
        ActionState::Refused => ("badge warn", "refused"),
        ActionState::Failed => ("badge error", "failed"),
    };
    let asked = &of.action;
    let at = of.finished_unix_nano.unwrap_or(asked.at_unix_nano);
    html! {
        li {
            div.when { (format::time(at, now)) }
            div.what {
                p { span class=(class) { (word) } " " b { (told(&asked.operation)) } }
                p { (asked.reason) }
                @if !of.detail.is_empty() { p.soft { (of.detail) } }
                p.soft {
                    @if asked.rule.is_empty() { "asked by a person" } @else { "asked by " (asked.rule) }
                    @if let Some(id) = of.decision_id { " · " a.link href={ "/decisions/" (id) } { "its decision" } }
                }
            }
        }
    }
}

/// What an operation does, for people.
fn told(operation: &Operation) -> String {
    match operation {
        Operation::Directive { action, .. } => format!("Agents were told {action}"),
        Operation::Weights { weights } => {
            let shares = weights.targets.iter().map(|one| format!("{} {} %", one.name, one.weight));
            format!("Traffic of {}: {}", weights.route, shares.collect::<Vec<_>>().join(", "))
        }
        Operation::Start { rollout, version } => format!("{rollout} starts with {version}"),
        Operation::RollBack { rollout } => format!("{rollout} goes back"),
        Operation::Advance { rollout } => format!("{rollout} goes on"),
        Operation::Freeze { .. } => "No new strategies".to_owned(),
        Operation::Investigate => "Root-cause analysis".to_owned(),
        Operation::HandOver { .. } => "Handed over to a person".to_owned(),
        Operation::Notify { receiver } => format!("{receiver} was told"),
        Operation::Workflow { workflow, .. } => format!("Workflow {workflow}"),
        Operation::Contract { contract, step } => format!("Contract {contract}: {}", step.kind()),
    }
}

fn evidence(ids: &[TraceId]) -> Markup {
    html! {
        @if !ids.is_empty() {
            p.soft {
                "such as "
                @for (at, id) in ids.iter().enumerate().take(5) {
                    @if at > 0 { " " }
                    @let text = id.to_string();
                    a.link.mono href={ "/traces/" (text) } title=(text) { (text[..ID_CHARS]) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Shown {
        Shown {
            standing: std::sync::Arc::default(),
            findings: Vec::new(),
            actions: Vec::new(),
            pause: Pause::default(),
            contracts: Vec::new(),
        }
    }

    #[test]
    fn an_empty_page_says_what_to_do_and_a_pause_is_told() {
        let page = draw(&shown(), &Visitor::default()).into_string();
        assert!(page.contains("governance.rules"), "{page}");
        let pause = Pause {
            is_on: true,
            at_unix_nano: 1,
            person: "<ada>".to_owned(),
            reason: "a release".to_owned(),
        };
        let page =
            draw(&Shown { pause, ..shown() }, &Visitor { now_unix_nano: 2, ..Visitor::default() })
                .into_string();
        assert!(
            page.contains("stopped by <b>&lt;ada&gt;</b>") && page.contains(": a release."),
            "{page}"
        );
    }
}
