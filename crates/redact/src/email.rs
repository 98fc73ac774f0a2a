//! E-mail addresses, also those that are not ASCII. Scripts that put no space between words (Chinese,
//! Japanese, Thai, …) write on right beside an address: what is of them is no part of it, unless the
//! address itself is.

use std::ops::Range;

/// Letters of any script; what is too much is cut off by [`check`].
pub(crate) const PATTERN: &str = r"[\p{L}0-9_%+-][\p{L}0-9._%+'-]*@(?:[\p{L}0-9-]+\.)+\p{L}{2,}";

/// The address within `found`; `None` for that of a repository over ssh.
pub(crate) fn check(text: &str, found: Range<usize>) -> Option<Range<usize>> {
    let matched = text.get(found.clone())?;
    let (local, domain) = matched.split_once('@')?;
    if local == "git" {
        return None;
    }
    let own = local.rfind(is_unspaced).map_or(local, |at| {
        local.get(at..).and_then(|rest| rest.get(rest.chars().next()?.len_utf8()..)).unwrap_or("")
    });
    // The local part is of such a script itself.
    let own = if own.is_empty() { local } else { own };
    let (kept, _) = domain.split_at(domain.find(is_unspaced).unwrap_or(domain.len()));
    let is_whole = kept.rsplit_once('.').is_some_and(|(host, top)| {
        !host.is_empty() && top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_alphabetic())
    });
    let kept = if is_whole { kept } else { domain };
    let start = found.start + (local.len() - own.len());
    let end = found.end - (domain.len() - kept.len());
    Some(start..end)
}

/// Whether a letter is of a script without spaces.
fn is_unspaced(letter: char) -> bool {
    matches!(letter, '\u{e00}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..)
}
