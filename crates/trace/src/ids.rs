//! Trace and span ids as W3C Trace Context defines them: 16 and 8 bytes, hexadecimal in text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a trace id may look like when it is given, as a regular expression of JSON Schema (ECMA 262): 32 hexadecimal
/// characters, not all zeros.
pub const TRACE_ID_PATTERN: &str = "^(?!0{32})[0-9a-fA-F]{32}$";

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text has the wrong number of characters.
    #[error("expected {expected} hexadecimal characters, got {got}")]
    Length {
        /// Characters that an id of this kind has.
        expected: usize,
        /// Characters that came.
        got: usize,
    },
    /// A character is not a hexadecimal digit.
    #[error("expected hexadecimal characters only (0-9, a-f)")]
    Digit,
    /// All bytes are zero, which W3C Trace Context reserves for "no id".
    #[error("expected an id that is not all zeros")]
    Zero,
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Bytes of this kind of id.
            pub const BYTES: usize = $bytes;

            /// The id of these bytes, or `None` when all are zero.
            pub fn from_bytes(bytes: [u8; $bytes]) -> Option<Self> {
                (bytes != [0; $bytes]).then_some(Self(bytes))
            }

            /// The id of a slice as it came over a wire: it must have the exact length and not be zero.
            ///
            /// # Errors
            /// [`ParseIdError::Length`] (in hexadecimal characters) or [`ParseIdError::Zero`].
            pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseIdError> {
                let exact: [u8; $bytes] = bytes.try_into().map_err(|_| ParseIdError::Length {
                    expected: $bytes * 2,
                    got: bytes.len() * 2,
                })?;
                Self::from_bytes(exact).ok_or(ParseIdError::Zero)
            }

            /// The bytes, most significant first.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// The text that the id is written as: lowercase hexadecimal digits, in ASCII.
            pub fn to_hex(&self) -> [u8; $bytes * 2] {
                let mut hex = [0; $bytes * 2];
                for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
                    pair[0] = HEX_DIGITS[usize::from(byte >> 4)];
                    pair[1] = HEX_DIGITS[usize::from(byte & 0xf)];
                }
                hex
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Written at once: ids are written far more often than anything else.
                let hex = self.to_hex();
                f.write_str(std::str::from_utf8(&hex).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            /// Accepts both cases, as OTLP/JSON asks; text that we write is lowercase.
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                if text.len() != $bytes * 2 {
                    return Err(ParseIdError::Length {
                        expected: $bytes * 2,
                        got: text.chars().count(),
                    });
                }
                let mut bytes = [0; $bytes];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let digit = |c: u8| (c as char).to_digit(16).ok_or(ParseIdError::Digit);
                    let [high, low] = pair else { return Err(ParseIdError::Digit) };
                    *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
                }
                Self::from_bytes(bytes).ok_or(ParseIdError::Zero)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::Error as _;
                if deserializer.is_human_readable() {
                    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                    text.parse().map_err(D::Error::custom)
                } else {
                    let bytes = <[u8; $bytes]>::deserialize(deserializer)?;
                    Self::from_bytes(bytes).ok_or_else(|| D::Error::custom(ParseIdError::Zero))
                }
            }
        }
    };
}

id!(
    /// The id that all spans of one trace share: 16 bytes, never all zero.
    TraceId,
    16
);
id!(
    /// The id of one span within its trace: 8 bytes, never all zero.
    SpanId,
    8
);

impl TraceId {
    /// The id with this numeric value (0 becomes 1: zero is no id). For tests and generators.
    pub fn from_u128(value: u128) -> Self {
        Self(value.max(1).to_be_bytes())
    }
}

impl SpanId {
    /// The id with this numeric value (0 becomes 1: zero is no id).
    pub fn from_u64(value: u64) -> Self {
        Self(value.max(1).to_be_bytes())
    }

    /// The numeric value, most significant byte first.
    pub fn as_u64(self) -> u64 {
        u64::from_be_bytes(self.0)
    }
}
