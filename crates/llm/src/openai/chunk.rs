//! Pieces of streamed answers in OpenAI's form, read field by field, so that what is new in one is
//! noticed without reading every piece twice.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use throughline_trace::Usage;

use super::content::{arguments_of, parts_of};
use super::response::error_within;
use super::{WireError, WireUsage};
use crate::chat::{Chunk, Delta, ToolCallDelta};
use crate::message::{FinishReason, Part, Role};

/// Reads the data of one event of a streamed answer ([`DONE`](crate::sse::DONE) is not one).
///
/// # Errors
/// [`WireError::Api`] when the provider reports an error in the middle of the stream,
/// [`WireError::Json`] when it is neither a chunk nor an error.
pub fn parse_chunk(data: &str) -> Result<Chunk, WireError> {
    if let Some(error) = error_within(data.as_bytes()) {
        return Err(error);
    }
    let Read(wire): Read<WireChunk> = serde_json::from_str(data)
        .map_err(|source| WireError::Json { expected: "a chat completion chunk", source })?;
    let is_unread = wire.choices.iter().any(|Read(choice)| choice.has_unread());
    let deltas: Vec<Delta> =
        wire.choices.into_iter().map(|Read(choice)| Delta::from(choice)).collect();
    let has_unread = is_unread || deltas.iter().any(|delta| delta.has_more);
    Ok(Chunk {
        id: wire.id.unwrap_or_default(),
        model: wire.model.unwrap_or_default(),
        created_unix_secs: wire.created.map_or(0, |secs| secs as u64),
        deltas,
        usage: wire.usage.map(Usage::from),
        seq: wire.seq,
        extra: wire.extra,
        has_unread,
    })
}

/// What is read field by field.
trait Fields<'de>: Default {
    /// Reads the value of a field.
    fn read<A: MapAccess<'de>>(&mut self, field: &str, map: &mut A) -> Result<(), A::Error>;
}

/// An object that was read so. Of a field that is there twice the last one counts.
struct Read<T>(T);

impl<'de, T: Fields<'de>> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor(PhantomData)).map(Self)
    }
}

struct FieldsVisitor<T>(PhantomData<T>);

impl<'de, T: Fields<'de>> Visitor<'de> for FieldsVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut all = T::default();
        while let Some(Name(field)) = map.next_key::<Name<'de>>()? {
            all.read(&field, &mut map)?;
        }
        Ok(all)
    }
}

/// The name of a field, as it lies in the bytes if it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

fn pass_over<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// How much a value says that nobody here reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// Null, false, or empty.
    Nothing,
    /// A number, or true.
    Mark,
    /// Text, a list, or an object, with something in it.
    Content,
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WeightVisitor)
    }
}

struct WeightVisitor;

impl<'de> Visitor<'de> for WeightVisitor {
    type Value = Weight;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Weight, E> {
        Ok(Weight::Nothing)
    }

    fn visit_bool<E>(self, is_true: bool) -> Result<Weight, E> {
        Ok(if is_true { Weight::Mark } else { Weight::Nothing })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Weight, E> {
        Ok(Weight::Mark)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Weight, E> {
        Ok(Weight::Mark)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Weight, E> {
        Ok(Weight::Mark)
    }

    fn visit_str<E>(self, text: &str) -> Result<Weight, E> {
        Ok(if text.is_empty() { Weight::Nothing } else { Weight::Content })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Weight, A::Error> {
        let mut weight = Weight::Nothing;
        while all.next_element::<IgnoredAny>()?.is_some() {
            weight = Weight::Content;
        }
        Ok(weight)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Weight, A::Error> {
        let mut weight = Weight::Nothing;
        while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            weight = Weight::Content;
        }
        Ok(weight)
    }
}

#[derive(Default)]
struct WireChunk {
    /// What a gateway numbers chunks with.
    seq: Option<u64>,
    id: Option<String>,
    model: Option<String>,
    /// A number of seconds; some servers write a fraction.
    created: Option<f64>,
    /// Missing or empty on chunks that only carry usage.
    choices: Vec<Read<WireChoice>>,
    usage: Option<WireUsage>,
    extra: Map<String, Value>,
}

impl<'de> Fields<'de> for WireChunk {
    fn read<A: MapAccess<'de>>(&mut self, field: &str, map: &mut A) -> Result<(), A::Error> {
        match field {
            "chunk_seq" => self.seq = map.next_value()?,
            "id" => self.id = map.next_value()?,
            "model" => self.model = map.next_value()?,
            "created" => self.created = map.next_value()?,
            "choices" => self.choices = map.next_value::<Option<_>>()?.unwrap_or_default(),
            "usage" => self.usage = map.next_value()?,
            // The first is what every chunk says, the second hides how long the others are.
            "object" | "obfuscation" => pass_over(map)?,
            field => {
                let value: Value = map.next_value()?;
                if !value.is_null() {
                    self.extra.insert(field.to_owned(), value);
                }
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct WireChoice {
    index: usize,
    delta: WireDelta,
    finish_reason: Option<String>,
    has_unread: bool,
}

impl WireChoice {
    fn has_unread(&self) -> bool {
        self.has_unread || self.delta.has_unread
    }
}

impl<'de> Fields<'de> for WireChoice {
    fn read<A: MapAccess<'de>>(&mut self, field: &str, map: &mut A) -> Result<(), A::Error> {
        match field {
            "index" => self.index = map.next_value()?,
            "delta" => {
                let delta = map.next_value::<Option<Read<WireDelta>>>()?;
                self.delta = delta.map(|Read(delta)| delta).unwrap_or_default();
            }
            "finish_reason" => self.finish_reason = map.next_value()?,
            // What Azure and OpenRouter add to every answer, and which is not of it.
            "content_filter_results" | "native_finish_reason" => pass_over(map)?,
            _ => self.has_unread |= map.next_value::<Weight>()? != Weight::Nothing,
        }
        Ok(())
    }
}

#[derive(Default)]
struct WireDelta {
    role: Option<String>,
    /// Text; from some servers a list of parts, as in a whole message.
    content: Value,
    reasoning_content: Option<String>,
    /// Some send an object here, which is no text to show.
    reasoning: Value,
    refusal: Option<String>,
    tool_calls: Vec<Read<WireCall>>,
    /// There is content of another kind.
    has_more: bool,
    /// There is something else of which nothing is kept.
    has_unread: bool,
}

impl<'de> Fields<'de> for WireDelta {
    fn read<A: MapAccess<'de>>(&mut self, field: &str, map: &mut A) -> Result<(), A::Error> {
        match field {
            "role" => self.role = map.next_value()?,
            "content" => self.content = map.next_value()?,
            "reasoning_content" => self.reasoning_content = map.next_value()?,
            "reasoning" => {
                self.reasoning = map.next_value()?;
                // It would be written by its other name.
                self.has_unread |= self.reasoning.as_str().is_some_and(|text| !text.is_empty());
                self.has_more |= self.reasoning.as_object().is_some_and(|all| !all.is_empty());
            }
            "refusal" => self.refusal = map.next_value()?,
            "tool_calls" => {
                self.tool_calls = map.next_value::<Option<_>>()?.unwrap_or_default();
                self.has_unread |= self.tool_calls.iter().any(|Read(call)| call.has_unread);
            }
            _ => match map.next_value()? {
                Weight::Nothing => {}
                Weight::Mark => self.has_unread = true,
                Weight::Content => self.has_more = true,
            },
        }
        Ok(())
    }
}

#[derive(Default)]
struct WireCall {
    index: Option<usize>,
    id: Option<String>,
    function: WireFunction,
    has_unread: bool,
}

impl<'de> Fields<'de> for WireCall {
    fn read<A: MapAccess<'de>>(&mut self, field: &str, map: &mut A) -> Result<(), A::Error> {
        match field {
            "index" => self.index = map.next_value()?,
            "id" => self.id = map.next_value()?,
            "function" => self.function = map.next_value::<Option<_>>()?.unwrap_or_default(),
            "type" => pass_over(map)?,
            _ => self.has_unread |= map.next_value::<Weight>()? != Weight::Nothing,
        }
        Ok(())
    }
}

#[derive(Default, Deserialize)]
struct WireFunction {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Value,
}

/// What a list of parts says.
#[derive(Default)]
struct Said {
    text: Option<String>,
    thought: Option<String>,
    /// There are parts of another kind.
    has_more: bool,
}

fn said_in(content: Value) -> Said {
    let mut said = Said::default();
    for part in parts_of(content) {
        let (all, more): (&mut Option<String>, String) = match part {
            Part::Text(more) => (&mut said.text, more),
            Part::Reasoning(more) => (&mut said.thought, more),
            _ => {
                said.has_more = true;
                continue;
            }
        };
        all.get_or_insert_default().push_str(&more);
    }
    said
}

impl From<WireChoice> for Delta {
    fn from(wire: WireChoice) -> Self {
        let delta = wire.delta;
        let said = match delta.content {
            Value::String(text) => Said { text: Some(text), ..Said::default() },
            content => said_in(content),
        };
        let reasoning = match delta.reasoning {
            Value::String(text) => Some(text),
            _ => None,
        };
        let call = |Read(call): Read<WireCall>| ToolCallDelta {
            index: call.index,
            id: call.id.filter(|id| !id.is_empty()),
            name: call.function.name.filter(|name| !name.is_empty()),
            arguments: arguments_of(call.function.arguments),
        };
        Self {
            index: wire.index,
            role: delta.role.as_deref().filter(|role| !role.is_empty()).map(Role::from_text),
            text: said.text,
            reasoning: delta.reasoning_content.or(reasoning).or(said.thought),
            refusal: delta.refusal,
            tool_calls: delta.tool_calls.into_iter().map(call).collect(),
            kept: Vec::new(),
            has_more: delta.has_more || said.has_more,
            finish_reason: wire.finish_reason.as_deref().map(FinishReason::from_text),
        }
    }
}
