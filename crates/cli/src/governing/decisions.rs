//! Decisions from the store, as many as a rule looks at.

use throughline_store::{DecisionFilter, Reader};
use throughline_trace::Decision;

use super::RoundError;

/// Decisions in one answer of the store.
const DECISIONS_PER_PAGE: usize = 500;

/// The newest decisions of a filter that `is_meant` takes, about `most` of them: the last page is whole.
/// Also whether there are more.
pub(super) async fn newest(
    reader: &Reader,
    filter: &DecisionFilter,
    most: usize,
    is_meant: impl Fn(&Decision) -> bool,
) -> Result<(Vec<Decision>, bool), RoundError> {
    let (mut found, mut cursor, mut seen) = (Vec::new(), None, 0);
    while seen < most {
        let page = reader.decisions(filter, cursor.as_deref(), DECISIONS_PER_PAGE).await?;
        seen += page.items.len();
        found.extend(page.items.into_iter().filter(&is_meant));
        cursor = page.next;
        if cursor.is_none() {
            return Ok((found, false));
        }
    }
    Ok((found, true))
}
