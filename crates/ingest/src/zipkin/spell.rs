//! How Zipkin v2 spells a span in JSON, and what OTLP calls the same.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, de};
use std::fmt;

/// Starts of the keys whose values are numbers in the conventions of GenAI.
const NUMBER_PREFIXES: [&str; 7] = [
    "gen_ai.usage.",
    "gen_ai.request.",
    "gen_ai.response.time_to_",
    "llm.token_count.",
    "llm.usage.",
    "ai.usage.",
    "throughline.stream.",
];

/// Keys whose values are numbers or truth values in ours.
const NUMBER_KEYS: [&str; 10] = [
    "retry_count",
    "ai.step_index",
    "chunk_seq",
    "is_cached",
    "latency_budget_ms",
    "routing_weight",
    "status_code",
    "http.response.status_code",
    "server.port",
    "throughline.cost_usd",
];

/// One span as Zipkin has it. Unknown fields are skipped; `null` is as if a field were absent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ZipkinSpan {
    pub(super) trace_id: String,
    pub(super) id: String,
    #[serde(default)]
    pub(super) parent_id: Option<String>,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) kind: Option<Kind>,
    /// Microseconds since the Unix epoch.
    #[serde(default)]
    pub(super) timestamp: Option<u64>,
    /// Microseconds.
    #[serde(default)]
    pub(super) duration: Option<u64>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) shared: bool,
    #[serde(default)]
    pub(super) local_endpoint: Option<Endpoint>,
    #[serde(default)]
    pub(super) remote_endpoint: Option<Endpoint>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) annotations: Vec<Annotation>,
    #[serde(default, deserialize_with = "tags")]
    pub(super) tags: Vec<(String, String)>,
}

impl ZipkinSpan {
    /// What it takes of memory once it is an OTLP span, about.
    pub(super) fn bytes(&self) -> usize {
        let tags =
            self.tags.iter().map(|(key, value)| size_of::<KeyValue>() + key.len() + value.len());
        let annotations = self.annotations.iter().map(|annotation| {
            // Each attribute of an event has a colon behind its name.
            let attributes = match has_attributes(&annotation.value) {
                true => annotation.value.bytes().filter(|byte| *byte == b':').count(),
                false => 0,
            };
            size_of::<opentelemetry_proto::tonic::trace::v1::span::Event>()
                + 2 * annotation.value.len()
                + attributes * size_of::<KeyValue>()
        });
        let name = self.name.as_ref().map_or(0, String::len);
        size_of::<opentelemetry_proto::tonic::trace::v1::Span>()
            + name
            + tags.sum::<usize>()
            + annotations.sum::<usize>()
    }
}

/// The span's place between caller and callee. Without one it is internal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Kind {
    Client,
    Server,
    Producer,
    Consumer,
}

impl Kind {
    pub(super) fn otlp(self) -> SpanKind {
        match self {
            Self::Client => SpanKind::Client,
            Self::Server => SpanKind::Server,
            Self::Producer => SpanKind::Producer,
            Self::Consumer => SpanKind::Consumer,
        }
    }
}

/// Something that happened at a moment.
#[derive(Debug, Deserialize)]
pub(super) struct Annotation {
    /// Microseconds since the Unix epoch.
    #[serde(default)]
    pub(super) timestamp: Option<u64>,
    pub(super) value: String,
}

/// One side of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    #[serde(default)]
    service_name: Option<String>,
    #[serde(default)]
    ipv4: Option<String>,
    #[serde(default)]
    ipv6: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

impl Endpoint {
    /// The endpoint as that of the sender.
    pub(super) fn resource_attributes(self) -> Vec<KeyValue> {
        let name = self.service_name.filter(|name| !name.is_empty());
        let address = self.ipv4.or(self.ipv6).filter(|address| !address.is_empty());
        let name = name.map(|name| text("service.name", name));
        name.into_iter().chain(address.map(|address| text("host.ip", address))).collect()
    }

    /// The endpoint as that of the other side.
    pub(super) fn peer_attributes(self) -> Vec<KeyValue> {
        let name = self.service_name.filter(|name| !name.is_empty());
        let address = self.ipv4.or(self.ipv6).filter(|address| !address.is_empty());
        let port = self.port.filter(|port| *port > 0);
        let port = port.map(|port| key_value("network.peer.port", whole(i64::from(port))));
        name.map(|name| text("service.peer.name", name))
            .into_iter()
            .chain(address.map(|address| text("network.peer.address", address)))
            .chain(port)
            .collect()
    }
}

/// An id in bytes. Zipkin leaves zeros in front away. What is no id comes out as the start of its
/// text, too short for one, so that the span is rejected with that as any other is.
pub(super) fn id_bytes(id: &str, bytes: usize) -> Vec<u8> {
    let id = id.trim();
    if id.is_empty() || id.len() > 2 * bytes || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return id.bytes().take(bytes - 1).collect();
    }
    let padded = format!("{id:0>width$}", width = 2 * bytes);
    let pairs = (0..bytes).map(|at| u8::from_str_radix(&padded[2 * at..2 * at + 2], 16));
    pairs.map(Result::unwrap_or_default).collect()
}

/// A tag as an attribute, of the type that its convention has.
pub(super) fn tag(key: String, value: String) -> KeyValue {
    let is_number = NUMBER_KEYS.contains(&key.as_str())
        || NUMBER_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    let value = if is_number { typed(value) } else { any_value::Value::StringValue(value) };
    key_value(key, value)
}

/// The number or truth value that the text is, if it is written as that would be.
fn typed(text: String) -> any_value::Value {
    if let Ok(number) = text.parse::<i64>()
        && number.to_string() == text
    {
        return whole(number);
    }
    match text.as_str() {
        "true" => return any_value::Value::BoolValue(true),
        "false" => return any_value::Value::BoolValue(false),
        _ => {}
    }
    let looks_real = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    match text.parse::<f64>() {
        Ok(number) if looks_real && number.is_finite() => any_value::Value::DoubleValue(number),
        _ => any_value::Value::StringValue(text),
    }
}

pub(super) fn truth(key: &str, value: bool) -> KeyValue {
    key_value(key, any_value::Value::BoolValue(value))
}

fn text(key: &str, value: String) -> KeyValue {
    key_value(key, any_value::Value::StringValue(value))
}

fn whole(number: i64) -> any_value::Value {
    any_value::Value::IntValue(number)
}

fn key_value(key: impl Into<String>, value: any_value::Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

/// Whether an annotation may be an event with attributes: exporters of OpenTelemetry write
/// `"name": {…}`.
fn has_attributes(annotation: &str) -> bool {
    annotation.trim_start().starts_with('"')
}

/// Name and attributes of an annotation.
pub(super) fn event(value: String) -> (String, Vec<KeyValue>) {
    if !has_attributes(&value) {
        return (value, Vec::new());
    }
    let written = format!("{{{value}}}");
    let Ok(serde_json::Value::Object(one)) = serde_json::from_str(&written) else {
        return (value, Vec::new());
    };
    let mut entries = one.into_iter();
    match (entries.next(), entries.next()) {
        (Some((name, serde_json::Value::Object(attributes))), None) => {
            let attributes = attributes.into_iter().map(|(key, value)| attribute(key, value));
            (name, attributes.collect())
        }
        _ => (value, Vec::new()),
    }
}

fn attribute(key: String, value: serde_json::Value) -> KeyValue {
    use serde_json::Value;
    let value = match value {
        Value::Bool(truth) => any_value::Value::BoolValue(truth),
        Value::String(text) => any_value::Value::StringValue(text),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => whole(number),
            (None, Some(number)) => any_value::Value::DoubleValue(number),
            (None, None) => any_value::Value::StringValue(number.to_string()),
        },
        other => any_value::Value::StringValue(other.to_string()),
    };
    key_value(key, value)
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Tags in their order. Values are text; a number or a truth value, which some clients write, is
/// taken as its text.
fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    struct Tags;

    impl<'de> Visitor<'de> for Tags {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of tags")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut tags = Vec::new();
            while let Some(key) = map.next_key::<String>()? {
                let value: Loose<'de> = map
                    .next_value()
                    .map_err(|error| A::Error::custom(format_args!("tags.{key}: {error}")))?;
                if let Loose::Some(text) = value {
                    tags.push((key, text.into_owned()));
                }
            }
            Ok(tags)
        }
    }

    deserializer.deserialize_any(Tags)
}

/// A tag's value.
enum Loose<'de> {
    Some(Cow<'de, str>),
    Nothing,
}

impl<'de> Deserialize<'de> for Loose<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;

        impl<'de> Visitor<'de> for Value {
            type Value = Loose<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Loose<'de>, E> {
                Ok(Loose::Some(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Loose<'de>, E> {
                Ok(Loose::Some(Cow::Owned(text.to_owned())))
            }

            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Loose<'de>, E> {
                Ok(Loose::Some(Cow::Owned(truth.to_string())))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Loose<'de>, E> {
                Ok(Loose::Some(Cow::Owned(number.to_string())))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Loose<'de>, E> {
                Ok(Loose::Some(Cow::Owned(number.to_string())))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Loose<'de>, E> {
                Ok(Loose::Some(Cow::Owned(number.to_string())))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Loose<'de>, E> {
                Ok(Loose::Nothing)
            }
        }

        deserializer.deserialize_any(Value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_annotation(value: &str) -> ZipkinSpan {
        let json = serde_json::json!({
            "traceId": "1", "id": "2", "annotations": [{ "value": value }],
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn attributes_of_annotations_are_charged() {
        let members: Vec<String> = (0..1_000).map(|number| format!("\"{number}\":1")).collect();
        let annotation = format!("\"e\": {{{}}}", members.join(","));
        let span = with_annotation(&annotation);
        let (name, attributes) = event(annotation);
        assert_eq!((name.as_str(), attributes.len()), ("e", 1_000));
        let taken = attributes.iter().map(|one| size_of_val(one) + one.key.len()).sum::<usize>();
        assert!(span.bytes() > taken, "{} for {taken}", span.bytes());
        let prose = "::::::::::".repeat(100);
        assert!(with_annotation(&prose).bytes() < 4 * prose.len());
    }

    #[test]
    fn only_a_quoted_name_has_attributes() {
        for (written, name, count) in [
            (" \"e\" : {\"a\":1}", "e", 1),
            ("}, {", "}, {", 0),
            ("e: {\"a\":1}", "e: {\"a\":1}", 0),
            ("\"said\"", "\"said\"", 0),
        ] {
            let (got, attributes) = event(written.to_owned());
            assert_eq!((got.as_str(), attributes.len()), (name, count));
        }
    }
}
