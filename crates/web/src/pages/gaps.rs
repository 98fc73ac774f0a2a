//! Decisions that are missing: an instance numbers its decisions, and a number never came.

use maud::{Markup, html};
use throughline_store::DecisionGap;

use crate::failure::Failure;
use crate::format;
use crate::state::Shared;

/// How long a missing decision may still be on its way, nanoseconds: exporters retry for about
/// this long.
const SETTLE_NS: u64 = 60 * 1_000_000_000;

/// Most gaps that the notice counts.
const MAX_GAPS: usize = 100;

/// Gaps shown by name in the notice; the API has the others.
const SHOWN_GAPS: usize = 3;

/// The gaps that are not just late, newest first.
pub(crate) async fn known(app: &Shared, now_unix_nano: u64) -> Result<Vec<DecisionGap>, Failure> {
    noticed_before(app, now_unix_nano, None, MAX_GAPS).await
}

/// At most `limit` of them that were noticed before a time, nanoseconds since the Unix epoch.
pub(crate) async fn noticed_before(
    app: &Shared,
    now_unix_nano: u64,
    before_unix_nano: Option<u64>,
    limit: usize,
) -> Result<Vec<DecisionGap>, Failure> {
    let settled = now_unix_nano.saturating_sub(SETTLE_NS);
    let before = before_unix_nano.map_or(settled, |before| before.min(settled));
    Ok(app.web.reader.decision_gaps(before, limit).await?)
}

/// What the list of decisions says about them; nothing when there are none.
pub(crate) fn notice(gaps: &[DecisionGap], now_unix_nano: u64) -> Markup {
    // Saturating: a sender may number its decisions as it likes.
    let missing = gaps.iter().fold(0u64, |sum, gap| sum.saturating_add(gap.missing()));
    html! {
        @if missing > 0 {
            div.notice role="status" {
                div {
                    p {
                        strong { (format::count(missing)) @if missing == 1 { " decision" } @else { " decisions" } " never arrived" }
                        " (agents number their decisions, and these numbers are missing): "
                        @for (at, gap) in gaps.iter().take(SHOWN_GAPS).enumerate() {
                            @if at > 0 { "; " }
                            (numbers(gap)) " of " (gap.agent_id) " "
                            span.mono title=(gap.instance_id) { (gap.instance_id.chars().take(8).collect::<String>()) "…" }
                            " " (format::time(gap.noticed_unix_nano, now_unix_nano))
                        }
                        @if gaps.len() > SHOWN_GAPS { "; and more" }
                        ". " a.link href="/api/v1/decisions/gaps" { "All of them" }
                    }
                }
            }
        }
    }
}

fn numbers(gap: &DecisionGap) -> String {
    if gap.first_seq == gap.last_seq {
        format!("number {}", gap.first_seq)
    } else {
        format!("numbers {} to {}", gap.first_seq, gap.last_seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_large_as_a_sender_likes_are_told() {
        let gap = |instance: &str, last_seq| DecisionGap {
            instance_id: instance.to_owned(),
            agent_id: "fraud".to_owned(),
            first_seq: 1,
            last_seq,
            noticed_unix_nano: 1,
        };
        let largest = i64::MAX as u64 - 1;
        let gaps = [gap("a", largest), gap("b", largest), gap("c", largest)];
        assert!(notice(&gaps, 2).into_string().contains("never arrived"));
        assert!(notice(&[gap("a", 1)], 2).into_string().contains("1 decision never arrived"));
        assert_eq!(notice(&[], 2).into_string(), "");
    }
}
