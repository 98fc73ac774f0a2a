//! How deep brackets stand in one another. The engine's parser tries each bracket as a comprehension first and
//! begins anew when it is none, so that every level of `[` or `{` doubles its work.

use super::MAX_BRACKETS;
use crate::mistake::At;

/// The first bracket that stands too deep, in text that may be anything.
pub(super) fn too_deep(text: &str) -> Option<At> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'#' => at += line(&bytes[at..]),
            b'"' | b'`' => at += quoted(&bytes[at..]),
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_BRACKETS {
                    return Some(At::new(at, at + 1));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Bytes up to the end of the line.
fn line(rest: &[u8]) -> usize {
    rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
}

/// Bytes up to the quotation mark that ends what one begins; escapes are of `"` alone, which ends with its
/// line if nothing else ends it.
fn quoted(rest: &[u8]) -> usize {
    let quote = rest[0];
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        match (byte, quote) {
            (b'\\', b'"') => at += 1,
            (b'\n', b'"') => return at,
            (byte, quote) if *byte == quote => return at,
            _ => {}
        }
        at += 1;
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn brackets_of_texts_and_comments_are_none() {
        let deep = "[".repeat(MAX_BRACKETS + 1);
        assert_eq!(
            too_deep(&format!("x {deep}")),
            Some(At::new(MAX_BRACKETS + 2, MAX_BRACKETS + 3))
        );
        assert_eq!(too_deep(&deep[1..]), None);
        for none in [
            format!("# {deep}\n"),
            format!("\"{deep}\""),
            format!("\"\\\"{deep}\""),
            format!("`\\`[ `\n{deep}`"),
            "[]{}".repeat(MAX_BRACKETS),
        ] {
            assert_eq!(too_deep(&none), None, "{none}");
        }
        for some in [format!("\"{deep}\n{deep}"), format!("`\\`{deep}"), format!("\"\\\\\"{deep}")]
        {
            assert!(too_deep(&some).is_some(), "{some}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_nothing_breaks(text in "[\\[{}\\]\"`\\\\#\né]{0,80}") {
            if let Some(at) = too_deep(&text) {
                prop_assert!(b"[{".contains(&text.as_bytes()[at.start as usize]), "at {}", at.start);
            }
        }
    }
}
