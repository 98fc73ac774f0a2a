//! Experiments: both sides, what is known of their difference, and the verdict.

use maud::{Markup, html};
use throughline_govern::experiment::{ExperimentResult, Verdict};

use crate::format;
use crate::governance::ExperimentStanding;

/// All experiments.
pub(super) fn cards(all: &[ExperimentStanding], now: u64) -> Markup {
    html! { @for one in all { (card(one, now)) } }
}

fn card(of: &ExperimentStanding, now: u64) -> Markup {
    let spec = &of.spec;
    let verdict = of.result.as_ref().map(|result| result.verdict);
    let (class, word) = match (&of.run, verdict) {
        (None, _) => ("badge", "not begun"),
        (_, None | Some(Verdict::Undecided)) => ("badge warn", "runs"),
        (_, Some(Verdict::Treatment)) => ("badge ok", "treatment does better"),
        (_, Some(Verdict::Control)) => ("badge error", "control does better"),
        (_, Some(Verdict::NoDifference)) => ("badge", "no difference that matters"),
    };
    html! {
        article.card.finding.experiment {
            div.title {
                h3 { (of.name) } span class=(class) { (word) }
                span.soft { "of " a.link href={ "/traces?agent=" (crate::params::encode(&spec.agent)) } { (spec.agent) } }
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
