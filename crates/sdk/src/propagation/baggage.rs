//! W3C Baggage: `key=value;property,key=value`, over as many headers as came.

use opentelemetry::Context;
use opentelemetry::baggage::{BaggageExt as _, KeyValueMetadata};
use throughline_trace::keys;

use crate::dimensions::Dimensions;
use crate::routing::RoutingTags;

/// Bytes of baggage that are read or written at most (W3C Baggage, limits).
pub const BAGGAGE_MAX_BYTES: usize = 8_192;

/// Members of baggage that are read or written at most (W3C Baggage, limits).
pub const BAGGAGE_MAX_MEMBERS: usize = 64;

/// One member of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    key: String,
    value: String,
    /// What stands behind the first `;`, as it came.
    properties: String,
}

/// The members in their order; of a key that comes twice, the last. What is no member is left out,
/// and so is what lies beyond the limits.
pub(super) fn parse(headers: &[&[u8]], is_wanted: impl Fn(&str) -> bool) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    let mut bytes = 0;
    for header in headers {
        let text = String::from_utf8_lossy(header);
        for member in text.split(',') {
            bytes += member.len() + 1;
            if bytes > BAGGAGE_MAX_BYTES + 1 {
                return members;
            }
            let Some(entry) = parse_member(member).filter(|m| is_wanted(&m.key)) else {
                continue;
            };
            let is_full = members.len() == BAGGAGE_MAX_MEMBERS;
            match members.iter_mut().find(|present| present.key == entry.key) {
                Some(present) => *present = entry,
                None if is_full => {}
                None => members.push(entry),
            }
        }
    }
    members
}

fn parse_member(member: &str) -> Option<Member> {
    let (pair, properties) = member.split_once(';').unwrap_or((member, ""));
    // The value goes on to the first `;`: `k=v=w` is `v=w`.
    let (key, value) = pair.split_once('=')?;
    let key = key.trim_matches([' ', '\t']);
    if !is_token(key) {
        return None;
    }
    let value = percent_decode(value.trim_matches([' ', '\t']));
    let properties = properties.trim_matches([' ', '\t']).to_owned();
    Some(Member { key: key.to_owned(), value, properties })
}

/// `cx` with these members in place of the baggage that it has, and with the dimensions that they
/// name. Without members it stays as it is.
pub(super) fn onto(cx: &Context, members: Vec<Member>) -> Context {
    if members.is_empty() {
        return cx.clone();
    }
    let mut dimensions = Dimensions::new();
    for member in &members {
        let value = || member.value.clone();
        match member.key.as_str() {
            keys::AGENT_ID => dimensions = dimensions.agent(value()),
            keys::SESSION_ID => dimensions = dimensions.session(value()),
            keys::WORKFLOW_ID => dimensions = dimensions.workflow(value()),
            _ => {}
        }
    }
    let entries = members.into_iter().map(|m| KeyValueMetadata::new(m.key, m.value, m.properties));
    let cx = cx.with_baggage(entries);
    let cx = if dimensions == Dimensions::new() { cx } else { dimensions.onto(&cx) };
    RoutingTags::adopt(&cx)
}

/// The header of the context's baggage; empty when nothing is to be written. Dimensions come
/// first, so that a full header does not lose them; then the order of the alphabet.
pub(super) fn text(cx: &Context, is_wanted: impl Fn(&str) -> bool) -> String {
    let baggage = cx.baggage();
    let mut members: Vec<_> = baggage
        .iter()
        .map(|(key, (value, properties))| (key.as_str(), value.as_str(), properties.as_str()))
        .filter(|(key, ..)| is_wanted(key) && is_token(key))
        .collect();
    let ids = [keys::AGENT_ID, keys::SESSION_ID, keys::WORKFLOW_ID];
    members.sort_unstable_by_key(|(key, ..)| (!ids.contains(key), *key));
    let mut text = String::new();
    for (key, value, properties) in members.into_iter().take(BAGGAGE_MAX_MEMBERS) {
        let mut member = format!("{key}={}", percent_encode(value));
        if !properties.is_empty() && is_properties(properties) {
            member.push(';');
            member.push_str(properties);
        }
        let comma = usize::from(!text.is_empty());
        if text.len() + comma + member.len() > BAGGAGE_MAX_BYTES {
            continue;
        }
        if comma == 1 {
            text.push(',');
        }
        text.push_str(&member);
    }
    text
}

/// The characters that a name may have in HTTP (RFC 9110, token).
fn is_token(text: &str) -> bool {
    let is_mark = |c: u8| b"!#$%&'*+-.^_`|~".contains(&c);
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || is_mark(c))
}

/// Whether properties can stand in a header without beginning a member of their own.
fn is_properties(text: &str) -> bool {
    text.bytes().all(|c| matches!(c, b' '..=b'~' | b'\t') && !matches!(c, b',' | b'"' | b'\\'))
}

/// Everything but the characters that W3C Baggage allows in a value as they are.
fn percent_encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let is_plain =
            byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\' | b'%');
        if is_plain {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 0xf)]));
        }
    }
    encoded
}

/// The text of a percent-encoded one: `+` is itself, a `%` that starts nothing too, and bytes that
/// are no UTF-8 become U+FFFD (W3C Baggage).
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use opentelemetry::KeyValue;
    use proptest::prelude::*;

    use super::*;

    fn by_key(cx: &Context) -> BTreeMap<String, String> {
        let entries = cx.baggage().iter();
        entries.map(|(key, (value, _))| (key.to_string(), value.to_string())).collect()
    }

    fn read(headers: &[&str]) -> Vec<String> {
        let headers: Vec<&[u8]> = headers.iter().map(|header| header.as_bytes()).collect();
        parse(&headers, |_| true)
            .iter()
            .map(|m| format!("{}={};{}", m.key, m.value, m.properties))
            .collect()
    }

    #[test]
    fn every_rule_of_baggage() {
        for (header, expected) in [
            ("k=v=w", "k=v=w;"),
            ("k=a+b", "k=a+b;"),
            ("k=a%20b%C3%BC", "k=a bü;"),
            ("k=%ff", "k=\u{fffd};"),
            ("k=100%", "k=100%;"),
            (" k = v ; p = 1 ;q ", "k=v;p = 1 ;q"),
            ("k=", "k=;"),
        ] {
            assert_eq!(read(&[header]), [expected], "{header}");
        }
        for nothing in ["", ",,", "k", "=v", "k y=v", "k@=v", ";p=1"] {
            assert_eq!(read(&[nothing]), [""; 0], "{nothing}");
        }
        assert_eq!(read(&["a=1,b=2", "c=3, a=4"]), ["a=4;", "b=2;", "c=3;"]);
        assert_eq!(parse(&[b"k=\xff"], |_| true)[0].value, "\u{fffd}", "bytes that are no text");
    }

    #[test]
    fn limits_hold_both_ways() {
        let many: Vec<String> = (0..70).map(|n| format!("k{n:02}=v")).collect();
        assert_eq!(read(&[&many.join(",")]).len(), BAGGAGE_MAX_MEMBERS);
        let exact = format!("k={}", "v".repeat(BAGGAGE_MAX_BYTES - 2));
        assert_eq!(read(&[&exact]).len(), 1, "8192 bytes are allowed");
        let long = format!("a=1,{exact},b=2");
        assert_eq!(read(&[&long]), ["a=1;"], "what lies beyond is left out");
        let entries = (0..3).map(|n| KeyValue::new(format!("k{n}"), "ü".repeat(1_000)));
        let cx = Context::new().with_baggage(entries);
        assert!(text(&cx, |_| true).len() <= BAGGAGE_MAX_BYTES);
        let cx = Dimensions::new().session("s").onto(&cx);
        assert!(text(&cx, |_| true).starts_with("session_id=s,"), "dimensions come first");
    }

    #[test]
    fn properties_pass_unless_they_would_break_the_header() {
        let cx = onto(&Context::new(), parse(&[b"a=1;p=1;q,b=2"], |_| true));
        assert_eq!(text(&cx, |_| true), "a=1;p=1;q,b=2");
        let evil = KeyValueMetadata::new("a", "1", "x,evil=1");
        let cx = Context::new().with_baggage([evil]);
        assert_eq!(text(&cx, |_| true), "a=1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&[&bytes], |_| true);
        }

        #[test]
        fn values_survive(value in "\\PC{0,40}") {
            prop_assert_eq!(percent_decode(&percent_encode(&value)), value.clone());
            let cx = Context::new().with_baggage([KeyValue::new("k", value)]);
            let written = text(&cx, |_| true);
            let again = onto(&Context::new(), parse(&[written.as_bytes()], |_| true));
            prop_assert_eq!(by_key(&again), by_key(&cx));
        }
    }
}
