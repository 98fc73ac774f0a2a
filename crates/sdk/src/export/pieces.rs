//! Batches in pieces that receivers take: they are counted in items by who makes them, and limited in
//! bytes by who takes them.

use opentelemetry::logs::AnyValue;
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::logs::SdkLogRecord;
use opentelemetry_sdk::trace::SpanData;

/// Content of one export, bytes. Receivers of gRPC take messages of 4 MiB when nobody says otherwise;
/// names and numbers around the content take their share.
pub(super) const MAX_EXPORT_BYTES: usize = 3 * 1024 * 1024;

/// Bytes of a span or record beside its texts: ids, times, lengths, tags.
const ITEM_BYTES: usize = 128;

/// Bytes of an attribute beside its texts.
const ATTRIBUTE_BYTES: usize = 16;

/// The items in order, as few pieces as there can be of at most `max_bytes` each. An item that is
/// larger by itself is a piece of its own: whether it is taken, its receiver knows.
pub(super) fn pieces<T>(
    items: impl IntoIterator<Item = T>,
    bytes_of: impl Fn(&T) -> usize,
    max_bytes: usize,
) -> Vec<Vec<T>> {
    let mut pieces: Vec<Vec<T>> = Vec::with_capacity(1);
    let mut filled: usize = 0;
    for item in items {
        let bytes = bytes_of(&item);
        match pieces.last_mut() {
            Some(piece) if filled.saturating_add(bytes) <= max_bytes => piece.push(item),
            _ => {
                pieces.push(vec![item]);
                filled = 0;
            }
        }
        filled = filled.saturating_add(bytes);
    }
    pieces
}

/// What a span takes, bytes, rather too many than too few.
pub(super) fn span_bytes(span: &SpanData) -> usize {
    let events = span.events.iter();
    let links = span.links.iter();
    ITEM_BYTES
        + span.name.len()
        + attribute_bytes(&span.attributes)
        + events
            .map(|event| ITEM_BYTES + event.name.len() + attribute_bytes(&event.attributes))
            .sum::<usize>()
        + links.map(|link| ITEM_BYTES + attribute_bytes(&link.attributes)).sum::<usize>()
}

/// What a log record takes, bytes.
pub(super) fn record_bytes(record: &SdkLogRecord) -> usize {
    let attributes = record.attributes_iter();
    ITEM_BYTES
        + record.body().map_or(0, any_bytes)
        + attributes
            .map(|(key, value)| ATTRIBUTE_BYTES + key.as_str().len() + any_bytes(value))
            .sum::<usize>()
}

fn attribute_bytes(attributes: &[KeyValue]) -> usize {
    let bytes =
        |entry: &KeyValue| ATTRIBUTE_BYTES + entry.key.as_str().len() + value_bytes(&entry.value);
    attributes.iter().map(bytes).sum()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.as_str().len(),
        Value::Array(Array::String(texts)) => {
            texts.iter().map(|text| ATTRIBUTE_BYTES + text.as_str().len()).sum()
        }
        Value::Array(Array::Bool(list)) => ATTRIBUTE_BYTES * list.len(),
        Value::Array(Array::I64(list)) => ATTRIBUTE_BYTES * list.len(),
        Value::Array(Array::F64(list)) => ATTRIBUTE_BYTES * list.len(),
        _ => ATTRIBUTE_BYTES,
    }
}

fn any_bytes(value: &AnyValue) -> usize {
    match value {
        AnyValue::String(text) => text.as_str().len(),
        AnyValue::Bytes(bytes) => bytes.len(),
        AnyValue::ListAny(list) => list.iter().map(|it| ATTRIBUTE_BYTES + any_bytes(it)).sum(),
        AnyValue::Map(map) => map
            .iter()
            .map(|(key, value)| ATTRIBUTE_BYTES + key.as_str().len() + any_bytes(value))
            .sum(),
        _ => ATTRIBUTE_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_turned_round_or_too_large(
            sizes in proptest::collection::vec(0_usize..40, 0..60),
            max_bytes in 1_usize..60,
        ) {
            let made = pieces(sizes.iter().copied(), |size| *size, max_bytes);
            proptest::prop_assert_eq!(made.concat(), sizes);
            for piece in &made {
                let is_small = piece.iter().sum::<usize>() <= max_bytes;
                proptest::prop_assert!(piece.len() == 1 || is_small);
            }
            for two in made.windows(2) {
                let with_next = two[0].iter().sum::<usize>() + two[1][0];
                proptest::prop_assert!(with_next > max_bytes);
            }
        }
    }

    #[test]
    fn texts_count_wherever_they_are() {
        let text = "x".repeat(1_000);
        for value in
            [Value::from(text.clone()), Value::Array(Array::String(vec![text.clone().into()]))]
        {
            assert!(attribute_bytes(&[KeyValue::new("key", value)]) >= 1_000);
        }
        for value in [
            AnyValue::from(text.clone()),
            AnyValue::Bytes(Box::new(text.clone().into_bytes())),
            AnyValue::ListAny(Box::new(vec![text.clone().into()])),
            AnyValue::Map(Box::new([("key".into(), text.clone().into())].into())),
        ] {
            assert!(any_bytes(&value) >= 1_000);
        }
    }
}
