//! Conversation messages, taken out of the attributes that hold lists of them.
//!
//! An agent repeats its history at every turn. Each element of such a list is stored once in its
//! segment; the span keeps what is needed to give the original value back to the byte.

use std::ops::Range;

use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};
use throughline_trace::keys::MESSAGE_KEYS;
use throughline_trace::{Attributes, Value};

use crate::body::{self, BodyError};

/// Shorter texts stay in the span: a reference and a row cost more.
const MIN_TEXT_BYTES: usize = 48;

/// Longer lists stay in the span: they are no conversation.
const MAX_ELEMENTS: usize = 4_096;

/// What a body holds under an attribute's key.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Slot {
    /// The value itself.
    Plain(Value),
    /// A JSON text: `open`, then `count` messages with `separator` between them, then `close`.
    Text { open: String, separator: String, close: String, count: u32 },
    /// A list of `count` messages, each a [`Value`].
    List { count: u32 },
}

/// Where the bytes of one message are.
#[derive(Debug)]
pub(crate) enum MessageBytes {
    /// A range of the attribute's text.
    Text { attribute: usize, range: Range<usize> },
    /// The postcard form of a structured element.
    Encoded(Vec<u8>),
}

/// One message of a span or log, not yet stored.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its content address.
    pub(crate) address: [u8; 16],
    /// Its bytes.
    pub(crate) bytes: MessageBytes,
}

impl Message {
    /// The bytes, given the attributes that they were taken from.
    pub(crate) fn bytes<'a>(&'a self, attributes: &'a Attributes) -> &'a [u8] {
        match &self.bytes {
            MessageBytes::Encoded(bytes) => bytes,
            MessageBytes::Text { attribute, range } => attributes
                .0
                .get(*attribute)
                .and_then(|(_, value)| value.as_str())
                .and_then(|text| text.as_bytes().get(range.clone()))
                .unwrap_or_default(),
        }
    }
}

/// The attributes of a span or log with their messages taken out.
#[derive(Debug)]
pub(crate) struct Extracted<'a> {
    attributes: &'a Attributes,
    lists: Vec<(usize, List)>,
    /// The messages, in the order in which the slots refer to them.
    pub(crate) messages: Vec<Message>,
}

/// A list of messages that was taken out of an attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// Which attribute.
    pub(crate) attribute: usize,
    /// How many messages.
    pub(crate) count: u32,
    /// Whether they are JSON as text; else they are the stored form of a value.
    pub(crate) is_json: bool,
}

impl<'a> Extracted<'a> {
    /// The attributes that they were taken out of.
    pub(crate) fn of(&self) -> &'a Attributes {
        self.attributes
    }

    /// Each key with what a body holds under it.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (&'a str, SlotRef<'a, '_>)> {
        let mut lists = self.lists.iter().peekable();
        self.attributes.0.iter().enumerate().map(move |(at, (key, value))| {
            let slot = match lists.next_if(|(list_at, _)| *list_at == at) {
                Some((_, list)) => SlotRef::List(value, list),
                None => SlotRef::Plain(value),
            };
            (key.as_str(), slot)
        })
    }

    /// The lists that were taken out, in the order of their messages.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        let taken = |(attribute, list): &(usize, List)| {
            let (count, is_json) = match list {
                List::Text { count, .. } => (*count, true),
                List::Structured { count } => (*count, false),
            };
            Taken { attribute: *attribute, count, is_json }
        };
        self.lists.iter().map(taken).collect()
    }
}

/// How a list of messages was written.
#[derive(Debug)]
pub(crate) enum List {
    Text { open: Range<usize>, separator: Range<usize>, close: Range<usize>, count: u32 },
    Structured { count: u32 },
}

/// Takes the messages out of `attributes`.
pub(crate) fn extract(attributes: &Attributes) -> Result<Extracted<'_>, BodyError> {
    let mut extracted = Extracted { attributes, lists: Vec::new(), messages: Vec::new() };
    for (at, (key, value)) in attributes.0.iter().enumerate() {
        if !(key.starts_with("gen_ai.") && MESSAGE_KEYS.contains(&key.as_str())) {
            continue;
        }
        match value {
            Value::String(text) if text.len() >= MIN_TEXT_BYTES => {
                let Some(split) = split_text(text) else { continue };
                for range in &split.elements {
                    body::check_length(range.len())?;
                    let address = body::address(&text.as_bytes()[range.clone()]);
                    let bytes = MessageBytes::Text { attribute: at, range: range.clone() };
                    extracted.messages.push(Message { address, bytes });
                }
                let count = split.elements.len() as u32;
                let SplitText { open, separator, close, .. } = split;
                extracted.lists.push((at, List::Text { open, separator, close, count }));
            }
            Value::Array(items) if (1..=MAX_ELEMENTS).contains(&items.len()) => {
                for item in items {
                    let bytes = body::encode(item)?;
                    body::check_length(bytes.len())?;
                    let address = body::address(&bytes);
                    let bytes = MessageBytes::Encoded(bytes);
                    extracted.messages.push(Message { address, bytes });
                }
                extracted.lists.push((at, List::Structured { count: items.len() as u32 }));
            }
            _ => {}
        }
    }
    Ok(extracted)
}

impl Serialize for Extracted<'_> {
    /// The form that `Vec<(String, Slot)>` is read from.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.attributes.0.len()))?;
        for entry in self.slots() {
            seq.serialize_element(&entry)?;
        }
        seq.end()
    }
}

/// [`Slot`] as it is written.
#[derive(Debug)]
pub(crate) enum SlotRef<'a, 'l> {
    Plain(&'a Value),
    List(&'a Value, &'l List),
}

impl Serialize for SlotRef<'_, '_> {
    /// The form that [`Slot`] is read from.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStructVariant as _;
        match self {
            Self::Plain(value) => serializer.serialize_newtype_variant("Slot", 0, "Plain", value),
            Self::List(value, List::Text { open, separator, close, count }) => {
                let text = value.as_str().unwrap_or_default();
                let part = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
                let mut slot = serializer.serialize_struct_variant("Slot", 1, "Text", 4)?;
                slot.serialize_field("open", part(open))?;
                slot.serialize_field("separator", part(separator))?;
                slot.serialize_field("close", part(close))?;
                slot.serialize_field("count", count)?;
                slot.end()
            }
            Self::List(_, List::Structured { count }) => {
                let mut slot = serializer.serialize_struct_variant("Slot", 2, "List", 1)?;
                slot.serialize_field("count", count)?;
                slot.end()
            }
        }
    }
}

/// Puts the messages back: the attributes as they came. `next` gives the messages in order.
pub(crate) fn restore<'m>(
    slots: Vec<(String, Slot)>,
    mut next: impl FnMut() -> Option<&'m [u8]>,
) -> Result<Attributes, BodyError> {
    let mut attributes = Vec::with_capacity(slots.len());
    for (key, slot) in slots {
        let value = match slot {
            Slot::Plain(value) => value,
            Slot::Text { open, separator, close, count } => {
                let mut text = open;
                for index in 0..count {
                    if index > 0 {
                        text.push_str(&separator);
                    }
                    let bytes = next().ok_or(BodyError::Messages)?;
                    text.push_str(std::str::from_utf8(bytes).map_err(|_| BodyError::Messages)?);
                }
                text.push_str(&close);
                Value::String(text)
            }
            Slot::List { count } => {
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(body::decode(next().ok_or(BodyError::Messages)?)?);
                }
                Value::Array(items)
            }
        };
        attributes.push((key, value));
    }
    Ok(Attributes(attributes))
}

/// A JSON list as text, in parts that together are the whole text.
#[derive(Debug, PartialEq)]
struct SplitText {
    open: Range<usize>,
    separator: Range<usize>,
    close: Range<usize>,
    elements: Vec<Range<usize>>,
}

/// Splits the text of a JSON list into its elements. `None` when it is no list, is empty, or is
/// written so unevenly that its parts would not give it back.
fn split_text(text: &str) -> Option<SplitText> {
    let bytes = text.as_bytes();
    let blank =
        |at: usize| bytes.get(at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
    let skip = |mut at: usize| {
        while blank(at) {
            at += 1;
        }
        at
    };
    if bytes.first() != Some(&b'[') {
        return None;
    }
    let mut at = skip(1);
    let open = 0..at;
    let mut separator: Option<Range<usize>> = None;
    let mut elements = Vec::new();
    loop {
        let start = at;
        let stop = element_end(bytes, start)?;
        let mut end = stop;
        while end > start && blank(end - 1) {
            end -= 1;
        }
        if end == start || elements.len() == MAX_ELEMENTS {
            return None;
        }
        elements.push(start..end);
        at = skip(stop + 1);
        if bytes[stop] == b']' {
            let separator = separator.unwrap_or(0..0);
            return (at == bytes.len()).then_some(SplitText {
                open,
                separator,
                close: end..at,
                elements,
            });
        }
        let this = end..at;
        match &separator {
            None => separator = Some(this),
            Some(first) if bytes[first.clone()] == bytes[this] => {}
            Some(_) => return None,
        }
    }
}

/// Where the `,` or `]` after the element that begins at `start` is.
fn element_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = start;
    loop {
        match *bytes.get(at)? {
            b'"' => {
                at += 1;
                loop {
                    match *bytes.get(at)? {
                        b'\\' => at += 2,
                        b'"' => break,
                        _ => at += 1,
                    }
                }
            }
            b'{' | b'[' => depth += 1,
            b',' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elements(text: &str) -> Option<Vec<&str>> {
        split_text(text).map(|split| split.elements.into_iter().map(|range| &text[range]).collect())
    }

    #[test]
    fn a_list_is_split_at_its_own_commas_only() {
        assert_eq!(
            elements(r#"[{"a":[1,2]}, {"b":"],\"["}]"#),
            Some(vec![r#"{"a":[1,2]}"#, r#"{"b":"],\"["}"#])
        );
        assert_eq!(elements("[1 ,2 ,3]"), Some(vec!["1", "2", "3"]));
        assert_eq!(elements("[\n  1\n]\n"), Some(vec!["1"]));
        for odd in ["", "[]", "[ ]", "{}", "[1,2", "[1, 2,3]", "[1}]", "[1]x", "[,]", "[\"\\"] {
            assert_eq!(elements(odd), None, "{odd}");
        }
    }

    fn round_trip(attributes: &Attributes) -> (Attributes, usize) {
        let extracted = extract(attributes).unwrap();
        let bytes = body::encode(&extracted).unwrap();
        let slots: Vec<(String, Slot)> = body::decode(&bytes).unwrap();
        let mut messages = extracted.messages.iter().map(|message| message.bytes(attributes));
        let restored = restore(slots, || messages.next()).unwrap();
        assert_eq!(messages.next(), None);
        (restored, extracted.messages.len())
    }

    #[test]
    fn text_and_structure_are_both_taken_out() {
        let text = r#"[{"role":"user","parts":[{"type":"text","content":"hello"}]}, {"role":"x"}]"#;
        let mut attributes = Attributes::new();
        attributes.set("gen_ai.input.messages", text);
        attributes.0.push((
            "gen_ai.output.messages".to_owned(),
            Value::Array(vec![Value::Map(vec![("role".to_owned(), "assistant".into())])]),
        ));
        attributes.set("other", text);
        assert_eq!(round_trip(&attributes), (attributes, 3));
    }

    proptest! {
        #[test]
        fn every_text_comes_back_to_the_byte(
            text in r#"(\[|\{|\]|\}|,|"|\\|:| |\n|a|é|1){0,90}"#,
            list in r#"\[( ?\{"[a-z,\]]{0,30}":"(é|\\\\|\\"){0,9}"\} ?,?){0,9}\]"#,
        ) {
            let mut attributes = Attributes::new();
            attributes.set("gen_ai.input.messages", text);
            attributes.set("gen_ai.output.messages", list);
            prop_assert_eq!(&round_trip(&attributes).0, &attributes);
        }
    }
}
