//! Telephone numbers, found by their shape. Digits alone are never one: they are ids, times and
//! counts. A number has a `+` and a country code, or the groups in which people write it.

use std::ops::Range;

/// Digits of a number with its country code (E.164 allows 15; fewer than 9 are rare and short
/// numbers are what diffs and scores look like).
const DIGITS_WITH_COUNTRY: Range<usize> = 9..16;

/// Digits of a number within a country.
const DIGITS_WITHOUT: Range<usize> = 9..13;

/// International numbers, those of North America in their usual groups, and those that begin with
/// the trunk prefix 0 of most other countries.
pub(crate) const PATTERNS: &[&str] = &[
    r"(?:\+|\b00)[1-9](?:[ ./-]?\(?[0-9]+\)?){1,7}",
    r"(?:\+?1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}",
    r"\(?0[1-9][0-9]{1,4}\)?[ /-][0-9]{3,8}(?:[ -][0-9]{2,5}){0,3}",
];

/// The longest beginning of `found` that is a telephone number: groups of other digits may follow.
pub(crate) fn check(text: &str, found: Range<usize>) -> Option<Range<usize>> {
    let matched = text.get(found.clone())?;
    let gaps = matched.rmatch_indices([' ', '-', '/', '.']).map(|(at, _)| found.start + at);
    std::iter::once(found.end)
        .chain(gaps)
        .map(|end| found.start..end)
        .find(|part| is_phone(text, part).unwrap_or(false))
}

/// Whether what it is and what is around it speak for a telephone number.
fn is_phone(text: &str, found: &Range<usize>) -> Option<bool> {
    let matched = text.get(found.clone())?;
    let digits = matched.bytes().filter(u8::is_ascii_digit).count();
    let is_international = matched.starts_with('+') || matched.starts_with("00");
    let allowed = if is_international { DIGITS_WITH_COUNTRY } else { DIGITS_WITHOUT };
    if !allowed.contains(&digits) || (!is_international && is_date(matched)) {
        return Some(false);
    }
    // `00` before digits without a space between them is a padded number.
    if matched.starts_with("00") && !matched.contains([' ', '-', '/', '(']) {
        return Some(false);
    }
    let mut before = text.get(..found.start)?.chars().rev();
    let mut after = text.get(found.end..)?.chars();
    let is_part_of_left = match before.next() {
        Some(mark @ ('_' | '-' | '.' | '/' | '+' | ':')) => {
            !(is_international && matches!(mark, ':' | '/'))
                && before.next().is_some_and(|beyond| beyond.is_alphanumeric())
        }
        Some(mark) => mark.is_alphanumeric(),
        None => false,
    };
    let is_part_of_right = match after.next() {
        Some('_' | '-' | '.' | ':' | '/') => after.next().is_some_and(char::is_alphanumeric),
        Some(mark) => mark.is_alphanumeric(),
        None => false,
    };
    Some(!is_part_of_left && !is_part_of_right)
}

/// Whether it may be read as day, month and year: `01-02-2026`, `01/02/2026`.
fn is_date(text: &str) -> bool {
    let mut groups = text.split(['-', '/', ' ']);
    let lengths = [groups.next(), groups.next(), groups.next()].map(|group| group.map(str::len));
    matches!(lengths, [Some(2), Some(2), Some(4)])
}
