//! Dictionaries of segments. When a segment is packed, a zstd dictionary is trained on what its own
//! bodies repeat and kept in it (table `dictionaries`); bodies that it makes smaller begin with
//! [`VERSION_OF_SEGMENT`], and their zstd frame names it by its number.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _};
use serde::de::DeserializeOwned;
use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::DecoderDictionary;
use zstd::zstd_safe::{self, CParameter, DCtx};

use crate::body::{self, BodyError, MAX_BODY_BYTES, VERSION_OF_SEGMENT, VERSION_PLAIN};
use crate::trace_rows::RowError;

/// zstd level of packed bodies. Searching the dictionary is what higher levels spend their time with: level 12 makes
/// spans with prose 7 % smaller for six times the time, and with level 15, for 8 %, packing fell behind 10,000 spans a
/// second.
const PACKED_LEVEL: i32 = 3;

/// Dictionaries that are kept ready for reading, the last used last; each is as large as it is stored
/// and its tables, some 100 KiB.
const MAX_READY: usize = 32;

/// A dictionary that is ready for reading.
struct Ready {
    /// The file that it was read from: numbers of two files may be equal.
    path: String,
    number: u32,
    dictionary: Arc<DecoderDictionary<'static>>,
}

static READY: Mutex<Vec<Ready>> = Mutex::new(Vec::new());

thread_local! {
    static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// What a body in a row of this segment was packed from.
pub(crate) fn unpack(segment: &Connection, stored: &[u8]) -> Result<Vec<u8>, RowError> {
    match stored.split_first() {
        Some((&VERSION_OF_SEGMENT, frame)) => unpack_frame(segment, frame),
        _ => Ok(body::unpack(stored)?),
    }
}

/// A body in a row of this segment, in a form that can be read without it.
pub(crate) fn portable(segment: &Connection, stored: Vec<u8>) -> Result<Vec<u8>, RowError> {
    match stored.split_first() {
        Some((&VERSION_OF_SEGMENT, frame)) => {
            let mut plain = vec![VERSION_PLAIN];
            plain.append(&mut unpack_frame(segment, frame)?);
            Ok(plain)
        }
        _ => Ok(stored),
    }
}

/// The value of a body in a row of this segment.
pub(crate) fn unpack_value<T: DeserializeOwned>(
    segment: &Connection,
    stored: &[u8],
) -> Result<T, RowError> {
    Ok(body::decode(&unpack(segment, stored)?)?)
}

fn unpack_frame(segment: &Connection, frame: &[u8]) -> Result<Vec<u8>, RowError> {
    let damaged = |what: &str| RowError::Body(BodyError::Zstd(io::Error::other(what.to_owned())));
    let number = zstd_safe::get_dict_id_from_frame(frame)
        .ok_or_else(|| damaged("a body of a packed segment names no dictionary"))?;
    let bound = Decompressor::upper_bound(frame).unwrap_or(MAX_BODY_BYTES);
    if bound > MAX_BODY_BYTES {
        return Err(BodyError::TooLarge(bound).into());
    }
    let dictionary = ready(segment, number.get())?;
    let mut raw = Vec::with_capacity(bound);
    CONTEXT.with_borrow_mut(|context| {
        context
            .get_or_insert_with(DCtx::create)
            .decompress_using_ddict(&mut raw, frame, dictionary.as_ddict())
            .map_err(|code| damaged(zstd_safe::get_error_name(code)))
    })?;
    Ok(raw)
}

fn ready(segment: &Connection, number: u32) -> Result<Arc<DecoderDictionary<'static>>, RowError> {
    let path = segment.path().unwrap_or_default();
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = ready.iter().position(|one| one.number == number && one.path == path) {
        if at + 1 < ready.len() {
            let used = ready.remove(at);
            ready.push(used);
        }
        return Ok(Arc::clone(&ready[ready.len() - 1].dictionary));
    }
    let bytes: Option<Vec<u8>> = segment
        .prepare_cached("SELECT body FROM dictionaries WHERE dictionary = ?1")?
        .query_row([number], |row| row.get(0))
        .optional()?;
    let bytes = bytes.ok_or(BodyError::Dictionary(number))?;
    let dictionary = Arc::new(DecoderDictionary::try_copy(&bytes).map_err(BodyError::Zstd)?);
    if ready.len() >= MAX_READY {
        ready.remove(0);
    }
    let path = path.to_owned();
    ready.push(Ready { path, number, dictionary: Arc::clone(&dictionary) });
    Ok(dictionary)
}

/// A trained dictionary, with which bodies are packed.
pub(crate) struct Packer {
    /// The number that frames name it by.
    pub(crate) number: u32,
    /// As it is stored.
    pub(crate) bytes: Vec<u8>,
    compressor: Compressor<'static>,
}

impl Packer {
    /// Trains on samples, which lie one behind the other and have these lengths. `None` when there
    /// are too few to learn from.
    pub(crate) fn train(samples: &[u8], lengths: &[usize], max_bytes: usize) -> Option<Self> {
        let bytes = zstd::dict::from_continuous(samples, lengths, max_bytes).ok()?;
        let number = zstd_safe::get_dict_id_from_dict(&bytes)?.get();
        let mut compressor = Compressor::new(PACKED_LEVEL).ok()?;
        compressor.set_dictionary(PACKED_LEVEL, &bytes).ok()?;
        compressor.set_parameter(CParameter::ChecksumFlag(true)).ok()?;
        Some(Self { number, bytes, compressor })
    }

    /// The packed form of `raw`, or what is stored now where that is not larger.
    pub(crate) fn pack(&mut self, raw: &[u8], stored: &[u8]) -> Result<Vec<u8>, BodyError> {
        let frame = self.compressor.compress(raw).map_err(BodyError::Zstd)?;
        if frame.len() + 1 >= stored.len() && !stored.is_empty() {
            return Ok(stored.to_vec());
        }
        let mut packed = Vec::with_capacity(frame.len() + 1);
        packed.push(VERSION_OF_SEGMENT);
        packed.extend_from_slice(&frame);
        Ok(packed)
    }
}
