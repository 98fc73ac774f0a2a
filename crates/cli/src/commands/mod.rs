//! One file a command.

pub(crate) mod act;
pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod clickhouse;
pub(crate) mod continuity;
pub(crate) mod contract;
pub(crate) mod decisions;
pub(crate) mod demo;
pub(crate) mod experiment;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod keys;
pub(crate) mod query;
pub(crate) mod serve;
pub(crate) mod signals;
pub(crate) mod slo;
pub(crate) mod store;
pub(crate) mod trace;
pub(crate) mod traces;
pub(crate) mod version;

use std::io::{self, Read as _, Write};

use serde::Serialize;
use throughline_store::{ControlError, OpenError, QueryError, Reader};

use crate::failure::{Exit, Failure, Outcome};
use crate::settings::Settings;

/// Rows that are asked for at a time.
const PAGE_ROWS: usize = 500;

/// Opens the data directory for reading, beside a running server or without one.
fn open_reader(settings: &Settings) -> Outcome<Reader> {
    Reader::open(&settings.data_dir).map_err(of_query)
}

/// One JSON value on one line.
fn write_json(out: &mut impl Write, value: &impl Serialize) -> Outcome {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// The text on standard input. Of more than `most` bytes only so much is read, and given, that
/// whoever asks sees it is too long.
fn stdin_text(most: usize) -> Outcome<String> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        // The cut may fall within a character.
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage("standard input is not UTF-8"))
}

/// A question that got no answer.
fn of_query(error: QueryError) -> Failure {
    let exit = match error {
        QueryError::NoStore(_) => Exit::NotFound,
        _ => Exit::Failure,
    };
    advised(exit, &error.to_string())
}

/// A store that did not open.
pub(crate) fn of_open(error: &OpenError) -> Failure {
    let exit = match error {
        OpenError::InUse { .. } => Exit::Busy,
        OpenError::Audit(_) => Exit::Usage,
        _ => Exit::Failure,
    };
    advised(exit, &error.to_string())
}

/// Keys that could not be read or changed.
pub(crate) fn of_control(error: &ControlError) -> Failure {
    match error {
        ControlError::NoSuchKey(_) => advised(Exit::NotFound, &error.to_string()),
        ControlError::KeyName { .. } | ControlError::NoScope => Failure::usage(error),
        ControlError::Open(error) => of_open(error),
        ControlError::Storage(_) => Failure::new(Exit::Failure, error),
    }
}

/// The store's messages end with what to do, after a semicolon: that becomes the hint.
pub(crate) fn advised(exit: Exit, message: &str) -> Failure {
    match message.rsplit_once("; ") {
        Some((message, hint)) => Failure::new(exit, message).hint(hint),
        None => Failure::new(exit, message),
    }
}
