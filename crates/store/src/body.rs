//! How spans, logs and values lie in a row: a version byte, then a zstd frame (with its content
//! checksum) of the postcard form of what has no column of its own; or that form itself where it is
//! short and its segment open (`spliced.rs`).

use std::cell::RefCell;
use std::sync::LazyLock;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use throughline_trace::{Event, Link, SpanRole, Value, keys};
use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};
use zstd::zstd_safe::{CParameter, ParamSwitch};

use crate::insert::{push_varint, take_varint};
use crate::messages::Slot;
use crate::spliced;

/// First byte of a blob: as it is. Only in memory.
pub(crate) const VERSION_PLAIN: u8 = 0;

/// First byte of a blob: zstd with [`DICTIONARY_V1`].
const VERSION_ZSTD_V1: u8 = 1;

/// First byte of a blob: zstd with a dictionary of its segment, which `dictionary.rs` reads.
pub(crate) const VERSION_OF_SEGMENT: u8 = 2;

/// First byte of a blob: the body of a span of which nothing but its role is left; then the role as in its column,
/// and the flags in LEB128.
const VERSION_BARE: u8 = 4;

/// First byte of a blob: a body as it is but for the names of its attributes (`spliced.rs`).
pub(crate) const VERSION_SPLICED: u8 = 5;

/// zstd level: bodies are packed again, well, when their segment is closed, so that this one is to be
/// cheap. A negative level looks at every third place only; what it does not find twice is written
/// with the dictionary's Huffman codes all the same, which such a level leaves out by itself.
const ZSTD_LEVEL: i32 = -3;

/// Largest body that is written or read back, bytes.
pub(crate) const MAX_BODY_BYTES: usize = 128 * 1024 * 1024;

/// Why a blob cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("expected a body of at most {MAX_BODY_BYTES} bytes, got {0}")]
    TooLarge(usize),
    #[error("expected body version {VERSION_ZSTD_V1}, found {0}; upgrade the throughline binary")]
    Version(u8),
    #[error("the segment lacks dictionary {0}, with which a body of it was packed")]
    Dictionary(u32),
    #[error("the body of a span of which only its role is left is damaged")]
    Bare,
    #[error("a body that is stored as it is is damaged")]
    Spliced,
    #[error("an empty body")]
    Empty,
    #[error("the compressed body is damaged: {0}")]
    Zstd(std::io::Error),
    #[error("the body is damaged: {0}")]
    Postcard(#[from] postcard::Error),
    #[error("the body refers to messages that are not there")]
    Messages,
    #[error("an id in a row is not valid")]
    Id,
}

/// What a span's body holds; the order of fields is the format.
#[derive(Debug, Deserialize)]
pub(crate) struct SpanBody {
    pub(crate) flags: u32,
    pub(crate) trace_state: String,
    pub(crate) status_message: String,
    pub(crate) attributes: Vec<(String, Slot)>,
    pub(crate) dropped_attributes_count: u32,
    pub(crate) events: Vec<Event>,
    pub(crate) dropped_events_count: u32,
    pub(crate) links: Vec<Link>,
    pub(crate) dropped_links_count: u32,
}

/// [`SpanBody`] as it is written: the same fields in the same order.
#[derive(Debug, Serialize)]
pub(crate) struct SpanBodyRef<'a, A> {
    pub(crate) flags: u32,
    pub(crate) trace_state: &'a str,
    pub(crate) status_message: &'a str,
    pub(crate) attributes: A,
    pub(crate) dropped_attributes_count: u32,
    pub(crate) events: &'a [Event],
    pub(crate) dropped_events_count: u32,
    pub(crate) links: &'a [Link],
    pub(crate) dropped_links_count: u32,
}

/// What a log record's body holds; the order of fields is the format.
#[derive(Debug, Deserialize)]
pub(crate) struct LogBody {
    pub(crate) observed_unix_nano: u64,
    pub(crate) severity_text: String,
    pub(crate) body: Value,
    pub(crate) attributes: Vec<(String, Slot)>,
    pub(crate) dropped_attributes_count: u32,
}

/// [`LogBody`] as it is written: the same fields in the same order.
#[derive(Debug, Serialize)]
pub(crate) struct LogBodyRef<'a, A> {
    pub(crate) observed_unix_nano: u64,
    pub(crate) severity_text: &'a str,
    pub(crate) body: &'a Value,
    pub(crate) attributes: A,
    pub(crate) dropped_attributes_count: u32,
}

/// Appends the postcard form of `value` to `out`.
pub(crate) fn encode_into<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), BodyError> {
    struct Append<'a>(&'a mut Vec<u8>);
    impl postcard::ser_flavors::Flavor for Append<'_> {
        type Output = ();
        fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
            self.0.extend_from_slice(data);
            Ok(())
        }
        fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
            self.0.push(byte);
            Ok(())
        }
        fn finalize(self) -> postcard::Result<()> {
            Ok(())
        }
    }
    Ok(postcard::serialize_with_flavor(value, Append(out))?)
}

/// The postcard form of `value`, not compressed: for small values that are read often.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, BodyError> {
    let mut out = Vec::new();
    encode_into(value, &mut out)?;
    Ok(out)
}

/// The value of a postcard form.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BodyError> {
    Ok(postcard::from_bytes(bytes)?)
}

/// Refuses what no row can hold.
pub(crate) fn check_length(bytes: usize) -> Result<(), BodyError> {
    if bytes > MAX_BODY_BYTES {
        return Err(BodyError::TooLarge(bytes));
    }
    Ok(())
}

/// Appends the stored form of `raw` to `out`: version byte and zstd frame.
pub(crate) fn pack_into(raw: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
    check_length(raw.len())?;
    let at = out.len();
    out.resize(at + 1 + zstd::zstd_safe::compress_bound(raw.len()), 0);
    out[at] = VERSION_ZSTD_V1;
    let room = &mut out[at + 1..];
    let written = with_compressor(|compressor| compressor.compress_to_buffer(raw, room))
        .map_err(BodyError::Zstd)?;
    out.truncate(at + 1 + written);
    Ok(())
}

/// The stored form of a body without what the span said: its role only, which a reader tells by an attribute.
pub(crate) fn bare(role: SpanRole, flags: u32) -> Vec<u8> {
    let mut stored = vec![VERSION_BARE, role as u8];
    push_varint(&mut stored, u64::from(flags));
    stored
}

/// The body that [`bare`] stands for.
fn of_bare(stored: &[u8]) -> Result<Vec<u8>, BodyError> {
    let (number, flags) = stored.split_first().ok_or(BodyError::Empty)?;
    let role = SpanRole::ALL.into_iter().find(|known| *known as u8 == *number);
    let role = role.ok_or(BodyError::Bare)?;
    let mut rest = flags;
    let flags = take_varint(&mut rest).filter(|_| rest.is_empty());
    let flags = flags.and_then(|flags| u32::try_from(flags).ok()).ok_or(BodyError::Bare)?;
    let mut attributes: Vec<(&str, Slot)> = Vec::new();
    if role != SpanRole::Other {
        attributes.push((keys::ROLE, Slot::Plain(role.as_str().into())));
    }
    encode(&SpanBodyRef {
        flags,
        trace_state: "",
        status_message: "",
        attributes,
        dropped_attributes_count: 0,
        events: &[],
        dropped_events_count: 0,
        links: &[],
        dropped_links_count: 0,
    })
}

/// What [`pack_into`] was given.
pub(crate) fn unpack(stored: &[u8]) -> Result<Vec<u8>, BodyError> {
    let (version, frame) = stored.split_first().ok_or(BodyError::Empty)?;
    match *version {
        VERSION_ZSTD_V1 => {}
        VERSION_PLAIN => return Ok(frame.to_vec()),
        VERSION_BARE => return of_bare(frame),
        VERSION_SPLICED => return spliced::unpack(frame),
        other => return Err(BodyError::Version(other)),
    }
    let bound = Decompressor::upper_bound(frame).unwrap_or(MAX_BODY_BYTES);
    if bound > MAX_BODY_BYTES {
        return Err(BodyError::TooLarge(bound));
    }
    with_decompressor(|decompressor| decompressor.decompress(frame, bound)).map_err(BodyError::Zstd)
}

/// The value of a stored form.
pub(crate) fn unpack_value<T: DeserializeOwned>(stored: &[u8]) -> Result<T, BodyError> {
    decode(&unpack(stored)?)
}

/// 128 bits of BLAKE3: the content address of messages, resources, scopes and series.
pub(crate) fn address(bytes: &[u8]) -> [u8; 16] {
    let mut address = [0; 16];
    address.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    address
}

/// 64 bits of BLAKE3: tells a redelivered span from another one with its id.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    u64::from_le_bytes(sum)
}

/// Runs `work` with this thread's compressor: making one costs more than a body.
fn with_compressor<R>(
    work: impl FnOnce(&mut Compressor<'static>) -> std::io::Result<R>,
) -> std::io::Result<R> {
    static PREPARED: LazyLock<EncoderDictionary<'static>> =
        LazyLock::new(|| EncoderDictionary::copy(DICTIONARY_V1, ZSTD_LEVEL));
    thread_local! {
        static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            let mut fresh = Compressor::with_prepared_dictionary(&PREPARED)?;
            fresh.set_parameter(CParameter::ChecksumFlag(true))?;
            fresh.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable))?;
            *slot = Some(fresh);
        }
        match slot {
            Some(compressor) => work(compressor),
            None => Err(std::io::Error::other("no compressor")),
        }
    })
}

/// Runs `work` with this thread's decompressor.
fn with_decompressor<R>(
    work: impl FnOnce(&mut Decompressor<'static>) -> std::io::Result<R>,
) -> std::io::Result<R> {
    static PREPARED: LazyLock<DecoderDictionary<'static>> =
        LazyLock::new(|| DecoderDictionary::copy(DICTIONARY_V1));
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Decompressor::with_prepared_dictionary(&PREPARED)?);
        }
        match slot {
            Some(decompressor) => work(decompressor),
            None => Err(std::io::Error::other("no decompressor")),
        }
    })
}

/// What nearly every body repeats, with entropy tables, so that a body of a few hundred bytes
/// pays for no table of its own: 0.30 of the size at a third of the time, against 0.55 with a
/// plain list of keys. Trained with `ZDICT_trainFromBuffer` on 6,000 generated bodies whose prose
/// is this project's documentation. Part of the format: another one needs a new version byte.
const DICTIONARY_V1: &[u8] = include_bytes!("dictionary_v1.zdict");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_comes_back_and_damage_is_noticed() {
        let raw = b"agent_id fraud gen_ai.request.model gpt-4o ".repeat(9);
        let mut stored = b"before".to_vec();
        pack_into(&raw, &mut stored).unwrap();
        let stored = &stored[6..];
        assert!(stored.len() < raw.len() / 3, "{} of {}", stored.len(), raw.len());
        assert_eq!(unpack(stored).unwrap(), raw);
        let mut silent = 0;
        for at in 0..stored.len() {
            let mut damaged = stored.to_vec();
            damaged[at] ^= 0x10;
            silent += usize::from(unpack(&damaged).is_ok_and(|bytes| bytes != raw));
        }
        assert_eq!(silent, 0);
        assert!(matches!(unpack(&[9, 1, 2]), Err(BodyError::Version(9))));
        assert!(matches!(unpack(&[]), Err(BodyError::Empty)));
    }

    #[test]
    fn a_bare_body_has_its_role_and_flags_in_a_few_bytes() {
        for role in SpanRole::ALL {
            for flags in [0, 0x301, u32::MAX] {
                let stored = bare(role, flags);
                assert!(stored.len() <= 7, "{stored:?}");
                let body: SpanBody = unpack_value(&stored).unwrap();
                assert_eq!(body.flags, flags);
                let expected = (role != SpanRole::Other).then(|| role.as_str().to_owned());
                let found = body.attributes.first().map(|(key, slot)| match slot {
                    Slot::Plain(value) if key == keys::ROLE => value.as_str().unwrap().to_owned(),
                    other => panic!("{key}: {other:?}"),
                });
                assert_eq!((found, body.attributes.len() < 2), (expected, true));
            }
        }
        for damaged in [&[VERSION_BARE][..], &[VERSION_BARE, 1], &[VERSION_BARE, 250, 0]] {
            assert!(unpack(damaged).is_err(), "{damaged:?}");
        }
        assert!(unpack(&[VERSION_BARE, 1, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_err());
    }

    #[test]
    fn prose_without_repetition_becomes_smaller() {
        let raw = "When the wind had gone down, nobody could say how many of those boats out beyond \
                   the lighthouse were still afloat; some thought five, others none at all.";
        let mut stored = Vec::new();
        pack_into(raw.as_bytes(), &mut stored).unwrap();
        assert!(stored.len() * 10 < raw.len() * 8, "{} of {}", stored.len(), raw.len());
        assert_eq!(unpack(&stored).unwrap(), raw.as_bytes());
    }

    #[test]
    fn bodies_of_other_levels_are_read() {
        let raw = b"agent_id fraud gen_ai.request.model gpt-4o ".repeat(9);
        for level in [1, 9] {
            let prepared = EncoderDictionary::copy(DICTIONARY_V1, level);
            let mut compressor = Compressor::with_prepared_dictionary(&prepared).unwrap();
            compressor.set_parameter(CParameter::ChecksumFlag(true)).unwrap();
            let frame = compressor.compress(&raw).unwrap();
            let stored = [&[VERSION_ZSTD_V1][..], &frame].concat();
            assert_eq!(unpack(&stored).unwrap(), raw);
        }
    }
}
