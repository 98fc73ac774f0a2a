//! Editing a JSON object without writing it anew: single fields at the top are replaced, added or
//! taken out of the bytes, everything else stays as it came, unknown fields and all.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer as _};
use serde_json::value::RawValue;

/// The fields at the top of a JSON object, with their places.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    bytes: &'a [u8],
    fields: Vec<(Name<'a>, &'a str)>,
}

impl<'a> Object<'a> {
    /// Reads an object; only its top is looked at closely.
    ///
    /// # Errors
    /// When it is no JSON object in UTF-8.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        // That all of it is UTF-8 is looked at once, and not at every text in it.
        let fields = match std::str::from_utf8(bytes) {
            Ok(text) => fields_of(serde_json::Deserializer::from_str(text))?,
            Err(_) => fields_of(serde_json::Deserializer::from_slice(bytes))?,
        };
        Ok(Self { bytes, fields })
    }

    /// The text of a field's value, the last one of that name.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().rev().find(|(key, _)| key.0 == name).map(|(_, raw)| *raw)
    }

    /// The value of a field that has the right type.
    pub(crate) fn get<T: serde::Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.raw(name)?).ok()
    }

    /// Whether a field is there more than once: two readers may then not read the same.
    pub(crate) fn is_twice(&self, name: &str) -> bool {
        self.fields.iter().filter(|(key, _)| key.0 == name).count() > 1
    }

    /// Where a value is.
    fn place(&self, raw: &str) -> Range<usize> {
        // Both are of the same bytes.
        let start = (raw.as_ptr() as usize).saturating_sub(self.bytes.as_ptr() as usize);
        start..start + raw.len()
    }

    /// The object with a field of this JSON text, in place of the one that it has.
    pub(crate) fn with(&self, name: &str, json: &str) -> Vec<u8> {
        match self.raw(name) {
            Some(raw) => self.replaced(self.place(raw), json.as_bytes()),
            None => {
                let open = self.bytes.iter().position(|byte| *byte == b'{').unwrap_or(0) + 1;
                let comma = if self.fields.is_empty() { "" } else { "," };
                let key = serde_json::Value::from(name);
                self.replaced(open..open, format!("{key}:{json}{comma}").as_bytes())
            }
        }
    }

    /// The object without a field; `None` when it does not have it.
    pub(crate) fn without(&self, name: &str) -> Option<Vec<u8>> {
        let at = self.fields.iter().rposition(|(key, _)| key.0 == name)?;
        let end_of = |index: usize| self.place(self.fields[index].1).end;
        let open = self.bytes.iter().position(|byte| *byte == b'{').unwrap_or(0) + 1;
        let range = match (at, self.fields.len()) {
            // From the value before, so that the comma between goes too.
            (1.., _) => end_of(at - 1)..end_of(at),
            (0, 1) => open..end_of(0),
            (0, _) => {
                let after = self.bytes[end_of(0)..].iter().position(|byte| *byte == b',')?;
                open..end_of(0) + after + 1
            }
        };
        Some(self.replaced(range, b""))
    }

    fn replaced(&self, range: Range<usize>, by: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + by.len());
        out.extend_from_slice(&self.bytes[..range.start]);
        out.extend_from_slice(by);
        out.extend_from_slice(&self.bytes[range.end..]);
        out
    }
}

fn fields_of<'a, R: serde_json::de::Read<'a>>(
    mut deserializer: serde_json::Deserializer<R>,
) -> Result<Vec<(Name<'a>, &'a str)>, serde_json::Error> {
    let fields = deserializer.deserialize_map(Fields)?;
    deserializer.end()?;
    Ok(fields)
}

/// The name of a field, as it lies in the bytes if it has no escapes.
#[derive(Debug, Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Collects the fields in their order, values unread.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(Name<'de>, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((key, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            fields.push((key, value.get()));
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_is_not_meant_stays_to_the_byte() {
        let body = br#" { "x" : 1e2 ,  "model":"a" , "z":[ 1,2 ]}"#;
        let object = Object::read(body).unwrap();
        assert_eq!(
            text(object.with("model", "\"b\"")),
            r#" { "x" : 1e2 ,  "model":"b" , "z":[ 1,2 ]}"#
        );
        assert_eq!(
            text(object.with("new", "1")),
            r#" {"new":1, "x" : 1e2 ,  "model":"a" , "z":[ 1,2 ]}"#
        );
        assert_eq!(text(object.without("x").unwrap()), r#" {  "model":"a" , "z":[ 1,2 ]}"#);
        assert_eq!(text(object.without("model").unwrap()), r#" { "x" : 1e2 , "z":[ 1,2 ]}"#);
        assert_eq!(text(object.without("z").unwrap()), r#" { "x" : 1e2 ,  "model":"a"}"#);
        assert_eq!(object.without("y"), None);
        assert_eq!(text(Object::read(b"{}").unwrap().with("a", "1")), r#"{"a":1}"#);
        assert_eq!(text(Object::read(b"{\"a\":1}").unwrap().without("a").unwrap()), "{}");
        assert!(Object::read(b"[1]").is_err() && Object::read(b"{} x").is_err());
        assert!(Object::read(br#"{"a":1,"a":2}"#).unwrap().is_twice("a"));
    }

    fn objects() -> impl Strategy<Value = Map<String, Value>> {
        let value = prop_oneof![
            any::<i64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
            Just(json!({"a": [1, {"b": "}\","}], "c": null})),
        ];
        prop::collection::btree_map("[a-d\"\\\\ü]{0,2}", value, 0..6)
            .prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        /// Editing the bytes gives what editing the values would have given.
        #[test]
        fn it_is_as_if_the_values_had_been_edited(object in objects(), name in "[a-d]{1,2}", is_pretty: bool) {
            let value = Value::Object(object.clone());
            let body = if is_pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let body = body.unwrap();
            let read = Object::read(body.as_bytes()).unwrap();
            let with: Value = serde_json::from_slice(&read.with(&name, "[true]")).unwrap();
            let mut expected = object.clone();
            expected.insert(name.clone(), json!([true]));
            prop_assert_eq!(with, Value::Object(expected));
            let mut expected = object.clone();
            let was_there = expected.remove(&name).is_some();
            let without = read.without(&name);
            prop_assert_eq!(without.is_some(), was_there);
            if let Some(without) = without {
                let without: Value = serde_json::from_slice(&without).unwrap();
                prop_assert_eq!(without, Value::Object(expected));
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Object::read(&bytes);
        }
    }
}
