//! What a tool answered beside text: images and documents, in the words of whichever form.

use serde_json::Value;

use crate::kept::kind_of;
use crate::message::Part;
use crate::{anthropic, responses};

/// The parts of a result that is a list of texts, images and documents and of nothing else; `None` of
/// anything that is not: a tool's own list of things with a `type` is none.
pub(crate) fn parts_of_result(result: &Value) -> Option<Vec<Part>> {
    let items = result.as_array().filter(|items| !items.is_empty())?;
    items.iter().map(part_of).collect()
}

/// The same, of a result that is more than text.
pub(crate) fn shown_parts(result: &Value) -> Option<Vec<Part>> {
    let is_shown = |parts: &Vec<Part>| parts.iter().any(|part| matches!(part, Part::Media(_)));
    parts_of_result(result).filter(is_shown)
}

fn part_of(item: &Value) -> Option<Part> {
    let part = match kind_of(item)? {
        kind @ ("image" | "document" | "search_result") => anthropic::source_part(kind, item)?,
        _ => responses::content_part(item.clone()),
    };
    matches!(part, Part::Text(_) | Part::Media(_)).then_some(part)
}
