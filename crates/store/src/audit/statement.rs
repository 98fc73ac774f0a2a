//! Signed statements: checkpoints about the head, and bridges over what retention took.
//!
//! A checkpoint signs this text with Ed25519, every line ended by one newline:
//!
//! ```text
//! throughline audit checkpoint v1
//! <id of the log>
//! <chain number, decimal>
//! <head: link of that record, 64 hexadecimal digits>
//! <time, nanoseconds since the Unix epoch, decimal>
//! <decisions stored, decimal>
//! ```
//!
//! As a line for an anchor it is one JSON object with the same parts, the public key and the
//! signature, so that it can be checked anywhere with that line alone.

use serde::{Deserialize, Serialize};

use crate::audit::chain::Hash;
use crate::audit::key::{AuditKey, AuditKeyError, is_signed};
use crate::control::hex;

/// What the field `type` of a line says.
const LINE_TYPE: &str = "throughline.audit.checkpoint";

/// Version of the line and of the signed text.
const LINE_VERSION: u32 = 1;

/// A signed statement about the head of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log that it is about.
    pub log: String,
    /// Number of the record at the head.
    pub number: u64,
    /// Its link.
    pub head: [u8; 32],
    /// When it was made, nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// Decisions that were stored then.
    pub count: u64,
    /// The key that checks the signature.
    pub public_key: [u8; 32],
    /// Ed25519 over the text of the module's documentation.
    pub signature: Vec<u8>,
}

/// [`Checkpoint`] as a line; 64-bit numbers that may pass 2⁵³ are text.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    version: u32,
    log: String,
    number: u64,
    head: String,
    time_ns: String,
    count: u64,
    public_key: String,
    signature: String,
}

/// Why a line is no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a checkpoint as one JSON object, got {0}")]
pub struct CheckpointLineError(pub String);

impl Checkpoint {
    /// Signs a statement.
    pub(crate) fn sign(
        key: &AuditKey,
        log: &str,
        number: u64,
        head: Hash,
        time_unix_nano: u64,
        count: u64,
    ) -> Result<Self, AuditKeyError> {
        let mut made = Self {
            log: log.to_owned(),
            number,
            head,
            time_unix_nano,
            count,
            public_key: key.public_key(),
            signature: Vec::new(),
        };
        made.signature = key.sign(made.text().as_bytes())?.to_vec();
        Ok(made)
    }

    fn text(&self) -> String {
        format!(
            "throughline audit checkpoint v1\n{}\n{}\n{}\n{}\n{}\n",
            self.log,
            self.number,
            hex(&self.head),
            self.time_unix_nano,
            self.count
        )
    }

    /// Whether the signature is that of the key which the statement names. Whether that key is
    /// ours is another question.
    pub fn is_signed(&self) -> bool {
        is_signed(&self.public_key, self.text().as_bytes(), &self.signature)
    }

    /// The line for an anchor, without a newline.
    pub fn to_line(&self) -> String {
        let line = Line {
            kind: LINE_TYPE.to_owned(),
            version: LINE_VERSION,
            log: self.log.clone(),
            number: self.number,
            head: hex(&self.head),
            time_ns: self.time_unix_nano.to_string(),
            count: self.count,
            public_key: hex(&self.public_key),
            signature: hex(&self.signature),
        };
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// The checkpoint of a line.
    ///
    /// # Errors
    /// [`CheckpointLineError`]; whether it is signed is not looked at.
    pub fn from_line(line: &str) -> Result<Self, CheckpointLineError> {
        let odd = |what: &str| CheckpointLineError(what.to_owned());
        let line: Line =
            serde_json::from_str(line.trim()).map_err(|error| odd(&error.to_string()))?;
        if line.kind != LINE_TYPE || line.version != LINE_VERSION {
            return Err(odd(&format!("`{}` version {}", line.kind, line.version)));
        }
        let hash = |name: &str, text: &str| {
            unhex(text)
                .and_then(|bytes| Hash::try_from(bytes).ok())
                .ok_or_else(|| odd(&format!("a `{name}` that is not 64 hexadecimal digits")))
        };
        Ok(Self {
            head: hash("head", &line.head)?,
            public_key: hash("public_key", &line.public_key)?,
            time_unix_nano: line.time_ns.parse().map_err(|_| odd("a `time_ns` that is no time"))?,
            signature: unhex(&line.signature)
                .ok_or_else(|| odd("a `signature` that is not hex"))?,
            log: line.log,
            number: line.number,
            count: line.count,
        })
    }
}

/// What retention leaves in place of records `first` to `last`: the links at both ends, signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Link of the record before `first`.
    pub(crate) before: Hash,
    /// Link of the record `last`.
    pub(crate) after: Hash,
    /// Decisions among the records.
    pub(crate) decisions: u64,
    pub(crate) time_unix_nano: u64,
    pub(crate) signature: Vec<u8>,
}

impl Bridge {
    fn text(&self, log: &str) -> String {
        format!(
            "throughline audit bridge v1\n{log}\n{}\n{}\n{}\n{}\n{}\n{}\n",
            self.first,
            self.last,
            hex(&self.before),
            hex(&self.after),
            self.decisions,
            self.time_unix_nano
        )
    }

    pub(crate) fn signed(mut self, key: &AuditKey, log: &str) -> Result<Self, AuditKeyError> {
        self.signature = key.sign(self.text(log).as_bytes())?.to_vec();
        Ok(self)
    }

    pub(crate) fn is_signed(&self, public: &[u8], log: &str) -> bool {
        is_signed(public, self.text(log).as_bytes(), &self.signature)
    }
}

/// The bytes of hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> AuditKey {
        AuditKey::from_text(&"k".repeat(40)).unwrap()
    }

    #[test]
    fn a_line_keeps_the_statement_and_any_change_breaks_the_signature() {
        let made = Checkpoint::sign(&key(), "aa", 7, [3; 32], u64::MAX, 9).unwrap();
        let read = Checkpoint::from_line(&made.to_line()).unwrap();
        assert_eq!(read, made);
        assert!(read.is_signed());
        for changed in [
            Checkpoint { number: 8, ..made.clone() },
            Checkpoint { head: [4; 32], ..made.clone() },
            Checkpoint { time_unix_nano: 1, ..made.clone() },
            Checkpoint { count: 10, ..made.clone() },
            Checkpoint { log: "ab".to_owned(), ..made.clone() },
        ] {
            assert!(!changed.is_signed(), "{changed:?}");
        }
    }

    #[test]
    fn a_bridge_is_signed_for_its_log() {
        let bridge = Bridge {
            first: 1,
            last: 4,
            before: [0; 32],
            after: [1; 32],
            decisions: 4,
            time_unix_nano: 5,
            signature: Vec::new(),
        };
        let signed = bridge.signed(&key(), "aa").unwrap();
        assert!(signed.is_signed(&key().public_key(), "aa"));
        assert!(!signed.is_signed(&key().public_key(), "ab"));
        assert!(!Bridge { last: 5, ..signed }.is_signed(&key().public_key(), "aa"));
    }

    proptest! {
        #[test]
        fn any_line_is_answered_without_a_panic(line in "\\PC{0,80}", number in any::<u64>()) {
            let _ = Checkpoint::from_line(&line);
            let _ = Checkpoint::from_line(&format!("{{\"type\":\"{LINE_TYPE}\",\"number\":{number}}}"));
            let _ = unhex(&line);
        }
    }
}
