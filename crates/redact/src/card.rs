//! Numbers of payment cards: ranges of issuers, lengths, and the check digit of Luhn
//! (ISO/IEC 7812-1). A number of 16 digits that is an id passes all three about once in fifty times
//! that it begins like a card; a time in nanoseconds never does, because no card begins with 1.

use std::ops::Range;

/// Most groups of digits of one card.
const MAX_GROUPS: usize = 5;

/// Digits that may begin with a card: many together, or as many groups as one may have. Whether it is
/// one, and how much of it, [`check`] says.
pub(crate) const PATTERN: &str = r"[0-9](?:[0-9]{12,18}|[0-9]{3}(?:[ -][0-9]{1,6}){2,4})";

/// The card that `found` in `text` begins with: groups of digits stand behind it that are its date or
/// code, or numbers of their own. `None` when it begins with none; one that begins with a later group is
/// a match of its own.
pub(crate) fn check(text: &str, found: Range<usize>) -> Option<Range<usize>> {
    let matched = text.get(found.clone())?;
    let gaps = matched.rmatch_indices([' ', '-']).map(|(at, _)| at);
    // The longest first: with more digits it is less likely to be chance.
    std::iter::once(matched.len()).chain(gaps).find_map(|end| {
        let part = &matched[..end];
        let range = found.start..found.start + end;
        let is_it = is_grouped(part.split([' ', '-'])) && is_card(part);
        (is_it && stands_alone(text, &range)).then_some(range)
    })
}

/// Only digits, so that spelling makes no difference to the hash.
pub(crate) fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// Whether nothing around it makes it part of something longer: an id, a decimal fraction.
fn stands_alone(text: &str, found: &Range<usize>) -> bool {
    let before = text.get(..found.start).unwrap_or_default();
    let after = text.get(found.end..).unwrap_or_default();
    let mut before = before.chars().rev();
    let mut after = after.chars();
    let is_part = |mark: Option<char>, beyond: Option<char>| match mark {
        Some('_') => true,
        Some('-' | '.' | ',') => beyond.is_some_and(char::is_alphanumeric),
        Some(mark) => mark.is_alphanumeric(),
        None => false,
    };
    // A comma behind or before a digit without a space: a list of numbers, each of its own.
    let of = |chars: &mut dyn Iterator<Item = char>| (chars.next(), chars.next());
    let ((left, left_beyond), (right, right_beyond)) = (of(&mut before), of(&mut after));
    let left_is_part = left != Some(',') && is_part(left, left_beyond);
    let right_is_part = right != Some(',') && is_part(right, right_beyond);
    !left_is_part && !right_is_part
}

/// Whether the digits stand as they do on cards: together, in fours, or as American Express and
/// Diners print them.
fn is_grouped<'t>(groups: impl Iterator<Item = &'t str>) -> bool {
    let mut lengths = [0; MAX_GROUPS];
    let mut count = 0;
    for group in groups {
        match lengths.get_mut(count) {
            Some(length) => *length = group.len(),
            None => return false,
        }
        count += 1;
    }
    matches!(
        lengths[..count],
        [13..=19] | [4, 4, 4, 4] | [4, 4, 4, 4, 1..=3] | [4, 6, 4 | 5] | [4, 4, 4, 1]
    )
}

fn is_card(text: &str) -> bool {
    let number = digits(text);
    is_issued(&number) && luhn(&number)
}

/// Whether an issuer gives out numbers that begin so, of this length.
fn is_issued(number: &str) -> bool {
    let prefix = |digits: usize| number.get(..digits).and_then(|text| text.parse::<u32>().ok());
    let (Some(two), Some(three), Some(four)) = (prefix(2), prefix(3), prefix(4)) else {
        return false;
    };
    match (two, number.len()) {
        (40..=49, 13 | 16 | 19) => true,
        (51..=55, 16) => true,
        (34 | 37, 15) => true,
        (36 | 38 | 39, 14..=19) => true,
        (30, 14..=19) => (300..=305).contains(&three) || three == 309,
        (35, 16..=19) => (3528..=3589).contains(&four),
        (22..=27, 16) => (2221..=2720).contains(&four),
        (62, 16..=19) => true,
        (65, 16..=19) => true,
        (60, 16..=19) => four == 6011,
        (64, 16..=19) => (644..=649).contains(&three),
        (50 | 56..=58 | 63 | 67, 13..=19) => {
            matches!(four, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763)
        }
        _ => false,
    }
}

/// Every second digit from the right doubled, digits of it added: a multiple of ten.
fn luhn(number: &str) -> bool {
    let sum: u32 = number
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, byte)| match u32::from(byte - b'0') {
            digit if at % 2 == 0 => digit,
            digit if digit > 4 => digit * 2 - 9,
            digit => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luhn_and_issuers() {
        for card in [
            "4111111111111111",
            "4222222222222",
            "5555555555554444",
            "2223003122003222",
            "378282246310005",
            "6011111111111117",
            "30569309025904",
            "3530111333300000",
            "6200000000000005",
        ] {
            assert!(is_card(card), "{card}");
        }
        for other in ["4111111111111112", "1795348800000000000", "0000000000000000", "41111"] {
            assert!(!is_card(other), "{other}");
        }
    }
}
