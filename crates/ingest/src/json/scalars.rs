//! Text, ids, numbers and names as OTLP/JSON spells them.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{DeserializeSeed, Deserializer, Error, Unexpected, Visitor};

use super::Context;

/// proto3 JSON takes both alphabets, with or without padding.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The name of a field, not copied when it has no escapes.
pub(super) struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Reads a string as bytes: only so does `serde_json` hand out what is no UTF-8.
macro_rules! string_seed {
    ($seed:ident, $value:ty, $expected:literal, $none:expr, |$context:ident, $bytes:ident| $read:expr) => {
        impl<'de> DeserializeSeed<'de> for $seed<'_> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<$value, D::Error> {
                deserializer.deserialize_option(self)
            }
        }

        impl<'de> Visitor<'de> for $seed<'_> {
            type Value = $value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($expected)
            }

            fn visit_none<E>(self) -> Result<$value, E> {
                Ok($none)
            }

            fn visit_unit<E>(self) -> Result<$value, E> {
                Ok($none)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                // A list would be taken for bytes: `StringOnly` refuses it.
                deserializer.deserialize_bytes(StringOnly(self))
            }

            fn visit_bytes<E: Error>(self, $bytes: &[u8]) -> Result<$value, E> {
                let $context = self.0;
                $context.charge($bytes.len())?;
                $read
            }
        }
    };
}

/// Hands on what came as bytes or text, and nothing else.
struct StringOnly<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for StringOnly<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        self.0.visit_bytes(text.as_bytes())
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<V::Value, E> {
        self.0.visit_bytes(bytes)
    }
}

/// Text; `None` for `null`.
pub(super) struct Text<'c>(pub(super) &'c Context<'c>);

string_seed!(Text, Option<String>, "a string", None, |context, bytes| {
    let text = String::from_utf8_lossy(bytes);
    if matches!(text, Cow::Owned(_)) {
        context.mended();
    }
    Ok(Some(text.into_owned()))
});

/// An id in hexadecimal, of either case. Text that is none comes out as bytes of a length that no
/// id has, so that the one span is rejected and not the request.
pub(super) struct Hex<'c>(pub(super) &'c Context<'c>);

string_seed!(Hex, Vec<u8>, "a string of hexadecimal characters", Vec::new(), |_context, bytes| {
    Ok(decode_hex(bytes).unwrap_or_else(|| {
        let mut raw = bytes.to_vec();
        if matches!(raw.len(), 8 | 16) {
            raw.push(0);
        }
        raw
    }))
});

fn decode_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let pairs = text.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

/// Bytes; `None` for `null`.
pub(super) struct Base64<'c>(pub(super) &'c Context<'c>);

string_seed!(Base64, Option<Vec<u8>>, "a string of base64", None, |_context, bytes| {
    STANDARD.decode(bytes).or_else(|_| URL_SAFE.decode(bytes)).map(Some).map_err(|error| {
        let error = error.to_string();
        E::custom(format_args!("expected base64: {}", error.trim_end_matches('.')))
    })
});

/// A number that JSON spells as a number or as text.
pub(super) trait Number: Sized + Default {
    /// What an error says was expected.
    const EXPECTED: &'static str;

    /// The number, if it fits.
    fn from_u64(number: u64) -> Option<Self>;
    /// The number, if it fits.
    fn from_i64(number: i64) -> Option<Self>;
    /// The number, if it fits; integers take whole floats (`1e9`, `5.0`).
    fn from_f64(number: f64) -> Option<Self>;
    /// The number that the text spells.
    fn from_text(text: &str) -> Option<Self>;
    /// The truth, for what is no number.
    fn from_bool(_truth: bool) -> Option<Self> {
        None
    }
}

macro_rules! integers {
    ($($integer:ty, $expected:literal;)*) => {
        $(impl Number for $integer {
            const EXPECTED: &'static str = $expected;

            fn from_u64(number: u64) -> Option<Self> {
                number.try_into().ok()
            }

            fn from_i64(number: i64) -> Option<Self> {
                number.try_into().ok()
            }

            fn from_f64(number: f64) -> Option<Self> {
                // Both bounds are exact: the upper one is the power of two above the largest.
                let fits = number.fract() == 0.0
                    && number >= <$integer>::MIN as f64
                    && number < <$integer>::MAX as f64 + 1.0;
                fits.then_some(number as $integer)
            }

            fn from_text(text: &str) -> Option<Self> {
                let text = text.trim();
                text.parse().ok().or_else(|| Self::from_f64(text.parse().ok()?))
            }
        })*
    };
}

integers! {
    u64, "an unsigned 64-bit integer, as text or number";
    i64, "a 64-bit integer, as text or number";
    u32, "an unsigned 32-bit integer";
    i32, "a 32-bit integer";
}

impl Number for f64 {
    const EXPECTED: &'static str = "a number";

    fn from_u64(number: u64) -> Option<Self> {
        Some(number as Self)
    }

    fn from_i64(number: i64) -> Option<Self> {
        Some(number as Self)
    }

    fn from_f64(number: f64) -> Option<Self> {
        Some(number)
    }

    /// Takes `NaN`, `Infinity` and `-Infinity`, as proto3 JSON spells them.
    fn from_text(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }
}

impl Number for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_u64(_number: u64) -> Option<Self> {
        None
    }

    fn from_i64(_number: i64) -> Option<Self> {
        None
    }

    fn from_f64(_number: f64) -> Option<Self> {
        None
    }

    fn from_text(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }

    fn from_bool(truth: bool) -> Option<Self> {
        Some(truth)
    }
}

/// A number; `None` for `null`.
pub(super) struct NumberSeed<T>(PhantomData<T>);

impl<T> NumberSeed<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Number> DeserializeSeed<'de> for NumberSeed<T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Number> Visitor<'de> for NumberSeed<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Option<T>, E> {
        some_or(T::from_bool(truth), Unexpected::Bool(truth), &self)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<T>, E> {
        some_or(T::from_u64(number), Unexpected::Unsigned(number), &self)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<T>, E> {
        some_or(T::from_i64(number), Unexpected::Signed(number), &self)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Option<T>, E> {
        some_or(T::from_f64(number), Unexpected::Float(number), &self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<T>, E> {
        some_or(T::from_text(text), Unexpected::Str(text), &self)
    }
}

fn some_or<'de, T, E: Error>(
    read: Option<T>,
    got: Unexpected<'_>,
    expected: &impl Visitor<'de>,
) -> Result<Option<T>, E> {
    match read {
        Some(value) => Ok(Some(value)),
        None => Err(E::invalid_value(got, expected)),
    }
}

/// An enum, by number or by name; unknown names are 0, as unknown numbers are where they are used.
pub(super) struct EnumValue(pub(super) fn(&str) -> Option<i32>);

impl<'de> DeserializeSeed<'de> for EnumValue {
    type Value = i32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<i32, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for EnumValue {
    type Value = i32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number of an enum value")
    }

    fn visit_unit<E>(self) -> Result<i32, E> {
        Ok(0)
    }

    fn visit_u64<E>(self, number: u64) -> Result<i32, E> {
        Ok(i32::try_from(number).unwrap_or(0))
    }

    fn visit_i64<E>(self, number: i64) -> Result<i32, E> {
        Ok(i32::try_from(number).unwrap_or(0))
    }

    fn visit_str<E>(self, text: &str) -> Result<i32, E> {
        Ok(text.parse().ok().or_else(|| (self.0)(text)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_of_either_case() {
        assert_eq!(decode_hex(b"00fFA1"), Some(vec![0, 0xff, 0xa1]));
        assert_eq!(decode_hex(b""), Some(vec![]));
        assert_eq!(decode_hex(b"0"), None);
        assert_eq!(decode_hex(b"0g"), None);
        assert_eq!(decode_hex("é".as_bytes()), None);
    }

    #[test]
    fn integers_take_whole_floats_within_their_range() {
        assert_eq!(u64::from_f64(1.7e18), Some(1_700_000_000_000_000_000));
        assert_eq!(u64::from_f64(-1.0), None);
        assert_eq!(u64::from_f64(18_446_744_073_709_551_616.0), None);
        assert_eq!(i64::from_f64(9_223_372_036_854_775_808.0), None);
        assert_eq!(i64::from_f64(-9_223_372_036_854_775_808.0), Some(i64::MIN));
        assert_eq!(i32::from_f64(0.5), None);
        assert_eq!(u64::from_f64(f64::NAN), None);
        assert_eq!(i64::from_text("1e3"), Some(1_000));
        assert_eq!(u64::from_text("18446744073709551615"), Some(u64::MAX));
    }
}
