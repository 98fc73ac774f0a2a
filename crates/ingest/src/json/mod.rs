//! OTLP/JSON to OTLP messages, streaming, as lenient as the specification asks and exporters need.
//!
//! Of the proto3 JSON mapping OTLP takes lowerCamelCase names, with ids in hexadecimal (either
//! case) and enums as integers. Beyond that: 64-bit integers as text or numbers, floats as numbers
//! or as `"NaN"` and the infinities, enums also by name, base64 in either alphabet with or without
//! padding, `null` for anything as if it were absent, unknown fields skipped, a repeated field's
//! last value. Text that is not UTF-8 (raw bytes, lone surrogates) gets U+FFFD, and the item that it
//! belongs to is noted. What has the wrong type fails with the path of fields that leads there.

mod logs;
mod metrics;
mod scalars;
mod traces;
mod values;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::allowance::Allowance;
use crate::convert::NotUtf8;
use scalars::{Base64, EnumValue, Hex, KeySeed, Number, NumberSeed, Text};

/// Decodes `body`, and says where its text had to be mended.
pub(crate) fn decode<T: Message>(
    body: &[u8],
    allowance: &Allowance,
) -> Result<(T, NotUtf8), serde_json::Error> {
    if body.trim_ascii().is_empty() {
        return Ok(Default::default());
    }
    let context = Context {
        allowance,
        replaced: Cell::new(0),
        next_item: Cell::new(0),
        not_utf8: RefCell::default(),
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let message = MessageSeed::<T>::new(&context).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((message, context.not_utf8.into_inner()))
}

/// A message of OTLP that JSON can spell.
pub(crate) trait Message: Default {
    /// Whether it is what OTLP counts: a span, a log record, a data point.
    const IS_ITEM: bool = false;

    /// Reads the value of the field `name`, or skips it.
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error>;
}

/// What decoding one request keeps track of.
struct Context<'a> {
    allowance: &'a Allowance,
    /// Texts mended so far.
    replaced: Cell<u64>,
    next_item: Cell<u32>,
    not_utf8: RefCell<NotUtf8>,
}

impl Context<'_> {
    /// Counts a text that was mended; what is in an item is taken back at its end.
    fn mended(&self) {
        self.replaced.set(self.replaced.get() + 1);
        self.not_utf8.borrow_mut().elsewhere += 1;
    }

    fn charge<E: serde::de::Error>(&self, bytes: usize) -> Result<(), E> {
        self.allowance.charge(bytes).map_err(|_| E::custom("too large once decoded"))
    }
}

/// The value of one field, not read yet.
pub(crate) struct Slot<'s, 'c, A> {
    name: &'s str,
    map: &'s mut A,
    context: &'c Context<'c>,
}

impl<'de, A: MapAccess<'de>> Slot<'_, '_, A> {
    /// Reads with `seed`; an error names the field.
    fn read<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let name = self.name;
        self.map
            .next_value_seed(seed)
            .map_err(|error| A::Error::custom(format_args!("{name}: {error}")))
    }

    fn skip(self) -> Result<(), A::Error> {
        self.map.next_value::<IgnoredAny>().map(drop)
    }

    fn text(self, slot: &mut String) -> Result<(), A::Error> {
        let context = self.context;
        *slot = self.read(Text(context))?.unwrap_or_default();
        Ok(())
    }

    fn optional_text(self) -> Result<Option<String>, A::Error> {
        let context = self.context;
        self.read(Text(context))
    }

    fn hex(self, slot: &mut Vec<u8>) -> Result<(), A::Error> {
        let context = self.context;
        *slot = self.read(Hex(context))?;
        Ok(())
    }

    fn base64(self) -> Result<Option<Vec<u8>>, A::Error> {
        let context = self.context;
        self.read(Base64(context))
    }

    fn number<T: Number + Default>(self, slot: &mut T) -> Result<(), A::Error> {
        *slot = self.read(NumberSeed::new())?.unwrap_or_default();
        Ok(())
    }

    fn optional_number<T: Number>(self) -> Result<Option<T>, A::Error> {
        self.read(NumberSeed::new())
    }

    fn optional_number_into<T: Number>(self, slot: &mut Option<T>) -> Result<(), A::Error> {
        *slot = self.optional_number()?;
        Ok(())
    }

    fn enumeration(self, slot: &mut i32, by_name: fn(&str) -> Option<i32>) -> Result<(), A::Error> {
        *slot = self.read(EnumValue(by_name))?;
        Ok(())
    }

    fn message<T: Message>(self) -> Result<Option<T>, A::Error> {
        let context = self.context;
        self.read(OptionalSeed(MessageSeed::new(context)))
    }

    fn message_into<T: Message>(self, slot: &mut Option<T>) -> Result<(), A::Error> {
        *slot = self.message()?;
        Ok(())
    }

    fn list<T: Message>(self, slot: &mut Vec<T>) -> Result<(), A::Error> {
        let context = self.context;
        *slot = self.read(ListSeed::<T>(context, PhantomData))?;
        Ok(())
    }

    fn numbers<T: Number>(self, slot: &mut Vec<T>) -> Result<(), A::Error> {
        let context = self.context;
        *slot = self.read(NumbersSeed::<T>(context, PhantomData))?;
        Ok(())
    }
}

struct MessageSeed<'c, T> {
    context: &'c Context<'c>,
    message: PhantomData<T>,
}

impl<'c, T> MessageSeed<'c, T> {
    fn new(context: &'c Context<'c>) -> Self {
        Self { context, message: PhantomData }
    }
}

impl<'de, T: Message> DeserializeSeed<'de> for MessageSeed<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, T: Message> Visitor<'de> for MessageSeed<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_none<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let context = self.context;
        let replaced_before = context.replaced.get();
        let item = context.next_item.get();
        if T::IS_ITEM {
            context.next_item.set(item.saturating_add(1));
        }
        let mut message = T::default();
        while let Some(name) = map.next_key_seed(KeySeed)? {
            message.field(&name, Slot { name: &name, map: &mut map, context })?;
        }
        if T::IS_ITEM && context.replaced.get() > replaced_before {
            let mut not_utf8 = context.not_utf8.borrow_mut();
            not_utf8.items.push(item);
            not_utf8.elsewhere -= context.replaced.get() - replaced_before;
        }
        Ok(message)
    }
}

/// `null` as `None`, all else as the inner seed reads it.
struct OptionalSeed<S>(S);

impl<'de, T: Message> DeserializeSeed<'de> for OptionalSeed<MessageSeed<'_, T>> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, T: Message> Visitor<'de> for OptionalSeed<MessageSeed<'_, T>> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_map(self.0).map(Some)
    }
}

/// A list of messages; `null` is an empty one.
struct ListSeed<'c, T>(&'c Context<'c>, PhantomData<T>);

impl<'de, T: Message> DeserializeSeed<'de> for ListSeed<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, T: Message> Visitor<'de> for ListSeed<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_none<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(message) = seq.next_element_seed(MessageSeed::new(self.0))? {
            self.0.charge(size_of::<T>())?;
            list.push(message);
        }
        Ok(list)
    }
}

/// A list of numbers; `null` is an empty one, and within the list a zero.
struct NumbersSeed<'c, T>(&'c Context<'c>, PhantomData<T>);

impl<'de, T: Number> DeserializeSeed<'de> for NumbersSeed<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, T: Number> Visitor<'de> for NumbersSeed<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list, each {}", T::EXPECTED)
    }

    fn visit_none<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(number) = seq.next_element_seed(NumberSeed::<T>::new())? {
            self.0.charge(size_of::<T>())?;
            list.push(number.unwrap_or_default());
        }
        Ok(list)
    }
}
