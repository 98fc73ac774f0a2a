//! The table of policies: their condition, what it speaks of, and whether it holds.

use maud::{Markup, html};
use throughline_govern::policy::{PolicyPhase, PolicyStatus};

use crate::format;

/// All policies, each with the values of its last minute.
pub(super) fn table(all: &[PolicyStatus], now: u64) -> Markup {
    html! {
        div.sheet-list {
            table.list.sums aria-label="Policies" {
                colgroup { col.w-l; col; col.w-xl; col.w-m; }
                thead { tr {
                    th { "Policy" } th { "When" }
                    th title="What the condition speaks of, as it was in the last minute" { "Values now" }
                    th.num { "State" }
                } }
                tbody { @for one in all { (policy(one, now)) } }
            }
        }
    }
}

fn policy(of: &PolicyStatus, now: u64) -> Markup {
    let (class, word) = match of.phase {
        PolicyPhase::Quiet => ("badge ok", "quiet"),
        PolicyPhase::Waiting => ("badge", "holds, waits"),
        PolicyPhase::Firing => ("badge warn", "fires"),
        PolicyPhase::Unknown => ("badge", "unknown"),
    };
    html! {
        tr {
            td.p-name { span.name title=(of.policy) { (of.policy) } " " span.soft { (of.subject) @if of.is_dry_run { ", dry run" } } }
            td.whole data-label="When" { code { (of.when) } }
            td.whole data-label="Values now" {
                @for (name, value) in &of.values {
                    div { span.soft { (name) " " } @match value { Some(value) => (format!("{value:.3}")), None => span.muted { "–" } } }
                }
            }
            td.num data-label="State" title=(of.unknown) {
                span class=(class) { (word) }
                @if let Some(since) = of.since_unix_nano { " " span.soft { (format::time(since, now)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_shown_with_their_values_and_what_they_lack() {
        let policy = PolicyStatus {
            policy: "payment_freeze".to_owned(),
            subject: "agent=payment".to_owned(),
            when: "error_budget_consumption_rate > 0.6 && burn_rate > 1.0".to_owned(),
            values: [
                ("error_budget_consumption_rate".to_owned(), Some(0.7)),
                ("burn_rate".to_owned(), None),
            ]
            .into(),
            phase: PolicyPhase::Unknown,
            since_unix_nano: None,
            unknown: "burn_rate is missing".to_owned(),
            is_dry_run: true,
        };
        let page = table(&[policy], 1).into_string();
        for told in [
            "payment_freeze",
            "agent=payment, dry run",
            "error_budget_consumption_rate &gt; 0.6 &amp;&amp; burn_rate &gt; 1.0",
            "error_budget_consumption_rate </span>0.700",
            "burn_rate </span><span class=\"muted\">–",
            "title=\"burn_rate is missing\"",
        ] {
            assert!(page.contains(told), "{told} is not in {page}");
        }
    }
}
