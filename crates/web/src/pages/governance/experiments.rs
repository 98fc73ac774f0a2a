//! Experiments: both sides, what is known of their difference, and the verdict; and a page for each, with what was known over
//! time.

use axum::extract::State;
use maud::{Markup, html};
use throughline_govern::experiment::{Difference, ExperimentResult, Look, Verdict};

use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format;
use crate::governance::ExperimentStanding;
use crate::layout::{self, Nav};
use crate::pages::chart::{self, Points};
use crate::params::{InPath, Params, encode};
use crate::state::Shared;

/// Before the name of an experiment in the address of its page.
const PAGE: &str = "/governance/experiments/";

/// `GET /governance/experiments/{name}`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(name): InPath<String>,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[])?;
    let standing = app.web.governance.standing.borrow().clone();
    let found = standing.experiments.iter().find(|one| one.name == name);
    let found = found.ok_or_else(|| Failure::not_found("experiment", &name))?;
    let address = format!("{PAGE}{}", encode(&name));
    let body = html! {
        div.head {
            h1 { (name) }
            p.grow { "An experiment: sessions of both sides, compared at any time" }
            div.tools {
                a.btn href="/governance" { "All of governance" }
                a.btn href="/api/v1/experiments" { "JSON" }
            }
        }
        div #experiment hx-get=(address) hx-trigger="every 10s" hx-select="#experiment" hx-swap="outerHTML" {
            (card(found, visitor.now_unix_nano))
            (over_time(&found.looks, found.spec.alpha, found.spec.metric.as_str()))
        }
    };
    Ok(layout::page(&visitor, Nav::Governance, &name, body))
}

/// What was known over time, as lines.
fn over_time(looks: &[Look], alpha: f64, metric: &str) -> Markup {
    let of = |value: fn(Difference) -> f64| -> Points {
        let known = looks.iter().filter_map(|look| Some((look.at_unix_nano, look.difference?)));
        known.map(|(at, difference)| (at, value(difference))).collect()
    };
    let p_values = of(|known| known.p_value);
    if p_values.len() < 2 {
        return html! { p.soft { "There is a line over time once it was looked at twice with something to compare." } };
    }
    let named = |name: &str, points: Points| (name.to_owned(), points);
    let limit: Points = p_values.iter().map(|(at, _)| (*at, alpha)).collect();
    let four = |value: f64| format!("{value:.4}");
    html! {
        h2.part { "The p-value over time" }
        p.soft { "It may be looked at whenever one likes: the chance that it ever falls below " (alpha) " where there is no difference is " (alpha) "." }
        div.card.box.scroll { (chart::lines(&[named("p-value", p_values), named("where it is significant", limit)], four)) }
        h2.part { "The difference of " (metric) " and its interval" }
        p.soft { "Mean of the treatment less that of the control; the interval holds the true one, at every moment at once." }
        @let lines = [named("difference", of(|known| known.difference)), named("lower end", of(|known| known.low)), named("upper end", of(|known| known.high))];
        div.card.box.scroll { (chart::lines(&lines, four)) }
    }
}

/// All experiments.
pub(super) fn cards(all: &[ExperimentStanding], now: u64) -> Markup {
    html! { @for one in all { (card(one, now)) } }
}

fn card(of: &ExperimentStanding, now: u64) -> Markup {
    let spec = &of.spec;
    let verdict = of.result.as_ref().map(|result| result.verdict);
    let (class, word) = match (&of.run, verdict) {
        (None, _) => ("badge", "not begun"),
        (Some(run), _) if run.stopped.is_some() => ("badge", "stopped"),
        (_, None | Some(Verdict::Undecided)) => ("badge warn", "runs"),
        (_, Some(Verdict::Treatment)) => ("badge ok", "treatment does better"),
        (_, Some(Verdict::Control)) => ("badge error", "control does better"),
        (_, Some(Verdict::NoDifference)) => ("badge", "no difference that matters"),
    };
    html! {
        article.card.finding.experiment {
            div.title {
                h3 { a.link href={ (PAGE) (encode(&of.name)) } { (of.name) } } span class=(class) { (word) }
                span.soft { "of " a.link href={ "/traces?agent=" (encode(&spec.agent)) } { (spec.agent) } }
            }
            p.soft {
                b { (spec.control) } " " (100 - spec.share) " % · " b { (spec.treatment) } " " (spec.share) " % by " code { (spec.by) }
                @if let Some(run) = &of.run { ", since " (format::time(run.since_unix_nano, now)) }
            }
            @if let Some(result) = &of.result { (told(result, spec.metric.as_str())) }
            @if !of.note.is_empty() { p.soft { (of.note) } }
        }
    }
}

fn told(of: &ExperimentResult, metric: &str) -> Markup {
    html! {
        p { (of.reason) }
        p.soft {
            (of.control_units) " units of the control, " (of.treatment_units) " of the treatment"
            @if let Some(known) = of.difference {
                " · " (metric) " " (format!("{:+.4} ({:+.4} to {:+.4}, p = {:.4})", known.difference, known.low, known.high, known.p_value))
            }
        }
        @for one in &of.guardrails {
            p.soft {
                "guardrail " (one.metric) ": "
                @if one.is_breached { b.bad { "breached" } } @else { "holds" }
                @if let Some(known) = one.difference { (format!(", {:+.4} ({:+.4} to {:+.4})", known.difference, known.low, known.high)) }
            }
        }
    }
}
