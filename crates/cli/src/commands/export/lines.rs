//! Lines of an export: a request each, of a size that a server takes.

use std::io::{self, Write};

use serde_json::Value as Json;
use throughline_ingest::options::MAX_REQUEST_BYTES;

use crate::failure::Outcome;

/// Most bytes of a line, but where a single item has more: a quarter of what a server takes if nothing
/// else is said there.
pub(super) const MAX_LINE_BYTES: usize = MAX_REQUEST_BYTES / 4;

/// Writes a request of these items as a line, or as several where it is longer than `most`: what a text
/// takes in JSON is only known when it is written.
pub(super) fn write<T>(
    out: &mut dyn Write,
    items: &[T],
    most: usize,
    encode: &dyn Fn(&[T]) -> Option<Json>,
) -> Outcome {
    let most_here = if items.len() > 1 { most } else { usize::MAX };
    if write_if_short(out, encode(items), most_here)? {
        return Ok(());
    }
    let (first, second) = items.split_at(items.len() / 2);
    write(out, first, most, encode)?;
    write(out, second, most, encode)
}

/// Writes a request, if it is not longer than `most`; answers whether nothing is left to do.
pub(super) fn write_if_short(
    out: &mut dyn Write,
    request: Option<Json>,
    most: usize,
) -> Outcome<bool> {
    let Some(request) = request else { return Ok(true) };
    let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
    if line.len() > most {
        return Ok(false);
    }
    line.push(b'\n');
    out.write_all(&line)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_several_and_an_item_is_never_divided() {
        let encode = |items: &[String]| (!items.is_empty()).then(|| json!({ "items": items }));
        // Each control character is six in JSON.
        let long = "\u{1}".repeat(100);
        let items: Vec<String> =
            [1, 2, 3, 4, 5].map(|at| format!("{at}{}", &long[..at * 20])).to_vec();
        for most in [0, 300, 700, 1_000, 5_000] {
            let mut out = Vec::new();
            write(&mut out, &items, most, &encode).unwrap();
            let text = String::from_utf8(out).unwrap();
            let lines = text.lines().map(|line| (line.len(), serde_json::from_str(line).unwrap()));
            let mut found = Vec::new();
            for (bytes, line) in lines {
                let line: Json = line;
                let of_line = line["items"].as_array().unwrap();
                assert!(bytes <= most || of_line.len() == 1, "{bytes} bytes");
                found.extend(of_line.iter().map(|item| item.as_str().unwrap().to_owned()));
            }
            assert_eq!(found, items, "at most {most}");
        }
        let mut out = Vec::new();
        write(&mut out, &[], 10, &encode).unwrap();
        assert!(out.is_empty());
    }
}
