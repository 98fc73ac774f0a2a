//! Experiments: both sides, what is known of their difference, and the verdict; and a page for each, with what was known over
//! time.

use axum::extract::State;
use maud::{Markup, html};
use throughline_api::InPath;
use throughline_govern::experiment::{Difference, ExperimentResult, Look, Verdict};

use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format;
use crate::governance::ExperimentStanding;
use crate::layout::{self, Nav};
use crate::pages::chart::{self, Points};
use crate::params::{Params, encode};
use crate::state::Shared;

/// Smaller p-values are told as smaller than this.
const LEAST_P: f64 = 0.0001;

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
    let sides = [
        named("difference", of(|known| known.difference)),
        named("lower end", of(|known| known.low)),
        named("upper end", of(|known| known.high)),
    ];
    let sureness = [named("p-value", p_values), named("significant below", limit)];
    html! {
        h2.part { "The p-value over time" }
        p.soft { "It may be looked at whenever one likes: the chance that it ever falls below " (alpha) " where there is no difference is " (alpha) "." }
        (drawn(&sureness))
        h2.part { "The difference of " (metric) " and its interval" }
        p.soft { "Mean of the treatment less that of the control; the interval holds the true one, at every moment at once." }
        (drawn(&sides))
    }
}

/// Lines below what each is.
fn drawn(lines: &[(String, Points)]) -> Markup {
    html! {
        div.card.box.scroll {
            div.legend { @for (at, (name, _)) in lines.iter().enumerate() { span class={ "s" (at % chart::COLOURS) } { i {} (name) } } }
            (chart::lines(lines, short))
        }
    }
}

/// A number of at most four places, without the zeros behind them.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// [`short`], with its sign.
fn signed(value: f64) -> String {
    let text = short(value);
    if value > 0.0 && text != "0" { format!("+{text}") } else { text }
}

fn p_value(value: f64) -> String {
    if value < LEAST_P { format!("p < {LEAST_P}") } else { format!("p = {}", short(value)) }
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
                " · " (metric) " " (signed(known.difference)) " (" (signed(known.low)) " to " (signed(known.high)) ", " (p_value(known.p_value)) ")"
            }
        }
        @for one in &of.guardrails {
            p.soft {
                "guardrail " (one.metric) ": "
                @if one.is_breached { b.bad { "breached" } } @else { "holds" }
                @if let Some(known) = one.difference { ", " (signed(known.difference)) " (" (signed(known.low)) " to " (signed(known.high)) ")" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_places_that_they_need() {
        let told = [-25.0, 0.137_84, -0.000_001, 0.0, 3.5].map(signed);
        assert_eq!(told, ["-25", "+0.1378", "0", "0", "+3.5"]);
        assert_eq!([1.6e-86, 0.05, 1.0].map(p_value), ["p < 0.0001", "p = 0.05", "p = 1"]);
    }
}
