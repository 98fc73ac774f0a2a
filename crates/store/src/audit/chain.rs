//! The chain: numbers, links and commitments, and how a record is appended.
//!
//! For the record with number `n`, `‖` being concatenation and integers 8 bytes, big-endian:
//!
//! ```text
//! commitment(n) = blake3_keyed(salt, content)
//! link(n)       = blake3_keyed(key, link(n−1) ‖ n ‖ received_at_ns ‖ kind ‖ decision_id ‖ commitment)
//! link(0)       = blake3("throughline audit log " ‖ id of the log)
//! ```
//!
//! `kind` is one byte; `decision_id` is 16 bytes, zeros for what is no decision. The salt is 32
//! random bytes and lies beside the content: without both nobody can say what a commitment is of,
//! not even by guessing. The content of a decision is its stored form before compression.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::json;

use crate::audit::key::{AuditKey, AuditKeyError, AuditKeys};
use crate::body::{self, BodyError};
use crate::schema::from_nanos;
use crate::trace_rows::RowError;
use crate::writer::now_unix_nano;

/// Bytes of a salt.
pub(crate) const SALT_BYTES: usize = 32;

/// Name of the data directory's own key among its secrets.
const OWN_KEY: &str = "audit-key";

/// What a record of the chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A decision, in `decisions`.
    Decision = 0,
    /// Content of decisions was erased.
    Erasure = 1,
    /// The key changed.
    Key = 2,
    /// A legal hold began.
    Hold = 3,
    /// A legal hold ended.
    Release = 4,
}

impl Kind {
    /// The kind of a column.
    pub(crate) fn of_column(column: i64) -> Option<Self> {
        [Self::Decision, Self::Erasure, Self::Key, Self::Hold, Self::Release]
            .into_iter()
            .find(|kind| *kind as i64 == column)
    }

    /// Lowercase name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Erasure => "erasure",
            Self::Key => "key",
            Self::Hold => "hold",
            Self::Release => "release",
        }
    }
}

/// The link of a record, or another 32 bytes.
pub(crate) type Hash = [u8; 32];

/// What a link is made of, beside the key.
#[derive(Debug, Clone)]
pub(crate) struct LinkInput {
    pub(crate) previous: Hash,
    pub(crate) number: u64,
    pub(crate) received_unix_nano: u64,
    pub(crate) kind: u8,
    pub(crate) decision_id: [u8; 16],
    pub(crate) commitment: Hash,
}

impl LinkInput {
    pub(crate) fn link(&self, key: &Hash) -> Hash {
        let mut message = [0; 32 + 8 + 8 + 1 + 16 + 32];
        message[..32].copy_from_slice(&self.previous);
        message[32..40].copy_from_slice(&self.number.to_be_bytes());
        message[40..48].copy_from_slice(&self.received_unix_nano.to_be_bytes());
        message[48] = self.kind;
        message[49..65].copy_from_slice(&self.decision_id);
        message[65..].copy_from_slice(&self.commitment);
        *blake3::keyed_hash(key, &message).as_bytes()
    }
}

/// A commitment to content, with its fresh salt.
pub(crate) fn commit(content: &[u8]) -> ([u8; SALT_BYTES], Hash) {
    let salt = rand::random();
    (salt, commitment(&salt, content))
}

/// The commitment to content under a salt.
pub(crate) fn commitment(salt: &[u8; SALT_BYTES], content: &[u8]) -> Hash {
    *blake3::keyed_hash(salt, content).as_bytes()
}

/// The link before the first record of a log.
pub(crate) fn genesis(log: &str) -> Hash {
    *blake3::hash(format!("throughline audit log {log}").as_bytes()).as_bytes()
}

/// Why the chain cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The key that is given is not the one that the chain goes on with.
    #[error(
        "expected the audit key {expected}, with which the chain is written, got {got}; give the key in `audit.key_file` or THROUGHLINE_AUDIT_KEY, and to change keys name the old one in `audit.previous_key_files`"
    )]
    OtherKey {
        /// The key of the chain.
        expected: String,
        /// The key that came, or `none`.
        got: String,
    },
    /// No server has begun the chain yet.
    #[error("the audit log has not begun; start `throughline serve` once")]
    NotReady,
    /// The key is no key.
    #[error(transparent)]
    Key(#[from] AuditKeyError),
    /// A row cannot be read.
    #[error("a row of control.db cannot be read: {0}")]
    Row(String),
    /// Something that storage said.
    #[error("storage failed: {0}")]
    Storage(#[from] rusqlite::Error),
}

impl From<BodyError> for ChainError {
    fn from(error: BodyError) -> Self {
        Self::Row(error.to_string())
    }
}

impl From<RowError> for ChainError {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Sqlite(error) => Self::Storage(error),
            RowError::Body(error) => error.into(),
        }
    }
}

/// The key that writes, with its number in `audit_keys`.
#[derive(Debug, Clone)]
pub(crate) struct ChainKey {
    pub(crate) key: AuditKey,
    pub(crate) row: i64,
}

impl ChainKey {
    /// The key that the chain goes on with, without changing anything.
    pub(crate) fn current(control: &Connection, keys: &AuditKeys) -> Result<Self, ChainError> {
        let last = last_key(control)?;
        if last.is_none() {
            return Err(ChainError::NotReady);
        }
        let key = resolve(control, keys, last.as_ref())?;
        match last {
            Some((row, id, _)) if id == key.id() => Ok(Self { key, row }),
            Some((_, expected, _)) => {
                Err(ChainError::OtherKey { expected, got: key.id().to_owned() })
            }
            None => Err(ChainError::NotReady),
        }
    }

    /// The key that a server goes on with: enters it, and chains a change of keys. Changing away
    /// from a key from outside needs that key too, so that a forgotten variable does not weaken
    /// the chain in silence. The caller holds a write transaction.
    fn adopt(control: &Connection, keys: &AuditKeys) -> Result<Self, ChainError> {
        let last = last_key(control)?;
        let key = resolve(control, keys, last.as_ref())?;
        let (before, was_external) = match last {
            Some((row, id, _)) if id == key.id() => return Ok(Self { key, row }),
            Some((_, id, external)) => (Some(id), external),
            None => (None, false),
        };
        if let Some(before) = &before
            && was_external
            && !(key.is_external() && keys.previous.iter().any(|old| old.id() == before))
        {
            let got = if keys.current.is_some() { key.id().to_owned() } else { "none".to_owned() };
            return Err(ChainError::OtherKey { expected: before.clone(), got });
        }
        control.execute(
            "INSERT INTO audit_keys(key_id, public, external, since) VALUES (?1, ?2, ?3, ?4)",
            params![
                key.id(),
                key.public_key(),
                key.is_external(),
                Head::read(control)?.number as i64 + 1
            ],
        )?;
        let this = Self { row: control.last_insert_rowid(), key };
        if let Some(before) = before {
            let body = json!({
                "before": before,
                "after": this.key.id(),
                "is_external": this.key.is_external(),
            });
            append_record(control, &this, Kind::Key, &body)?;
        }
        Ok(this)
    }
}

/// Number, id and origin of the newest key.
fn last_key(control: &Connection) -> Result<Option<(i64, String, bool)>, rusqlite::Error> {
    control
        .query_row(
            "SELECT key, key_id, external FROM audit_keys ORDER BY key DESC LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()
}

/// The key from outside, or the data directory's own.
fn resolve(
    control: &Connection,
    keys: &AuditKeys,
    last: Option<&(i64, String, bool)>,
) -> Result<AuditKey, ChainError> {
    if let Some(key) = &keys.current {
        return Ok(key.clone());
    }
    if let Some((_, expected, true)) = last {
        return Err(ChainError::OtherKey { expected: expected.clone(), got: "none".to_owned() });
    }
    own_key(control)?.ok_or(ChainError::NotReady)
}

/// The data directory's own key, if it has one.
pub(crate) fn own_key(control: &Connection) -> Result<Option<AuditKey>, ChainError> {
    let secret: Option<[u8; 32]> = control
        .query_row("SELECT value FROM secrets WHERE name = ?1", [OWN_KEY], |row| row.get(0))
        .optional()?;
    Ok(secret.map(|secret| AuditKey::from_secret(&secret)).transpose()?)
}

/// Where the chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) number: u64,
    pub(crate) link: Hash,
}

impl Head {
    /// Reads it; the caller holds a transaction. Retention never takes the last record.
    pub(crate) fn read(control: &Connection) -> Result<Self, rusqlite::Error> {
        let last = control
            .prepare_cached("SELECT number, link FROM chain ORDER BY number DESC LIMIT 1")?
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
            .optional()?;
        match last {
            Some((number, link)) => Ok(Self { number: number as u64, link }),
            None => Ok(Self { number: 0, link: genesis(&log_id(control)?) }),
        }
    }
}

/// The id of the log, 32 hexadecimal digits.
pub(crate) fn log_id(control: &Connection) -> Result<String, rusqlite::Error> {
    control.query_row("SELECT log FROM audit_log", [], |row| row.get(0))
}

/// The chain within one write transaction.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    control: &'a Connection,
    key: &'a ChainKey,
    head: Head,
}

impl<'a> Chain<'a> {
    /// Begins where the chain ends. Other processes append too: the head is read anew each time.
    pub(crate) fn begin(
        control: &'a Connection,
        key: &'a ChainKey,
    ) -> Result<Self, rusqlite::Error> {
        Ok(Self { control, key, head: Head::read(control)? })
    }

    /// The number that the next record gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.head.number + 1
    }

    /// Appends a record; its content has been written beside it.
    pub(crate) fn append(
        &mut self,
        kind: Kind,
        decision_id: Option<[u8; 16]>,
        received_unix_nano: u64,
        commitment: Hash,
    ) -> Result<(), rusqlite::Error> {
        let input = LinkInput {
            previous: self.head.link,
            number: self.next_number(),
            received_unix_nano,
            kind: kind as u8,
            decision_id: decision_id.unwrap_or_default(),
            commitment,
        };
        let link = input.link(self.key.key.link_key());
        self.control
            .prepare_cached("INSERT INTO chain VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![
                input.number as i64,
                kind as i64,
                decision_id.as_ref().map(<[u8; 16]>::as_slice),
                from_nanos(received_unix_nano),
                self.key.row,
                commitment.as_slice(),
                link.as_slice(),
            ])?;
        self.head = Head { number: input.number, link };
        Ok(())
    }

    /// Notes where the chain ends beside it, which shows a tail that was cut off carelessly.
    pub(crate) fn end(self) -> Result<(), rusqlite::Error> {
        self.control
            .prepare_cached("UPDATE state SET value = ?1 WHERE name = 'chain_head'")?
            .execute([self.head.number as i64])?;
        Ok(())
    }
}

/// Appends a record that is no decision, and answers its number. The caller holds a write
/// transaction.
pub(crate) fn append_record(
    control: &Connection,
    key: &ChainKey,
    kind: Kind,
    body: &serde_json::Value,
) -> Result<u64, rusqlite::Error> {
    let text = body.to_string();
    let (salt, commitment) = commit(text.as_bytes());
    let mut chain = Chain::begin(control, key)?;
    let number = chain.next_number();
    control.execute(
        "INSERT INTO audit_records VALUES (?1, ?2, ?3)",
        params![number as i64, salt.as_slice(), text],
    )?;
    chain.append(kind, None, now_unix_nano(), commitment)?;
    chain.end()?;
    Ok(number)
}

/// Makes the chain ready for a server: the key is entered, and the decisions of an earlier version
/// get their places in the order in which they were stored. One transaction; a crash repeats it.
pub(crate) fn make_ready(
    control: &mut Connection,
    keys: &AuditKeys,
) -> Result<ChainKey, ChainError> {
    let transaction =
        control.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    if keys.current.is_none() {
        transaction.execute(
            "INSERT OR IGNORE INTO secrets VALUES (?1, ?2)",
            params![OWN_KEY, rand::random::<[u8; 32]>()],
        )?;
    }
    let key = ChainKey::adopt(&transaction, keys)?;
    let unchained: i64 =
        transaction
            .query_row("SELECT value FROM state WHERE name = 'unchained'", [], |row| row.get(0))?;
    if unchained != 0 {
        let count = chain_stored(&transaction, &key)?;
        if count > 0 {
            tracing::info!(decisions = count, "decisions of an earlier version were chained");
        }
        transaction.execute("UPDATE state SET value = 0 WHERE name = 'unchained'", [])?;
    }
    transaction.commit()?;
    Ok(key)
}

fn chain_stored(control: &Connection, key: &ChainKey) -> Result<u64, ChainError> {
    let mut stored = control.prepare(
        "SELECT decision, decision_id, received, body FROM decisions WHERE number IS NULL
         ORDER BY decision",
    )?;
    let mut place =
        control.prepare("UPDATE decisions SET number = ?2, salt = ?3 WHERE decision = ?1")?;
    let mut chain = Chain::begin(control, key)?;
    let mut rows = stored.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let body: Vec<u8> = row.get(3)?;
        let (salt, commitment) = commit(&body::unpack(&body)?);
        place.execute(params![
            row.get::<_, i64>(0)?,
            chain.next_number() as i64,
            salt.as_slice()
        ])?;
        let received = crate::schema::to_nanos(row.get(2)?);
        chain.append(Kind::Decision, Some(row.get(1)?), received, commitment)?;
        count += 1;
    }
    chain.end()?;
    Ok(count)
}
