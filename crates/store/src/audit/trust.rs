//! Which keys a verification trusts, and for which records.
//!
//! The data directory's own key lies in the database that it protects. Once there is a key from
//! outside, whoever can write to the database must not be able to go on with the own one: it is
//! trusted for what came before the record of the change, which is linked with the key from outside,
//! and for nothing else.

use std::collections::HashMap;

use rusqlite::Connection;
use serde_json::Value as Json;

use crate::audit::chain::{ChainError, Hash, Kind, own_key};
use crate::audit::key::AuditKeys;

/// A key of `audit_keys`.
#[derive(Debug)]
struct KnownKey {
    id: String,
    public: Vec<u8>,
    /// `None` when its secret was not given.
    link: Option<Hash>,
    is_own: bool,
}

/// What is at hand of the key of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secret {
    /// The key of its link.
    Held(Hash),
    /// It is the data directory's own, where that counts no more.
    Own,
    /// It was not given.
    Missing,
}

/// The keys of a log.
#[derive(Debug)]
pub(crate) struct Trust {
    keys: HashMap<i64, KnownKey>,
    /// Public keys that are trusted for every record.
    public: Vec<Vec<u8>>,
    own_public: Option<Vec<u8>>,
    /// The own key is trusted for records below this number.
    own_below: u64,
}

impl Trust {
    /// Reads the keys of a log. The caller holds a transaction.
    pub(crate) fn read(
        control: &Connection,
        given: &AuditKeys,
        public_keys: &[[u8; 32]],
    ) -> Result<Self, ChainError> {
        let own = own_key(control)?;
        let external: Vec<_> = given.current.iter().chain(&given.previous).collect();
        let mut keys = HashMap::new();
        let mut statement = control.prepare("SELECT key, key_id, public FROM audit_keys")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (row_no, id, public): (i64, String, Vec<u8>) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let outside = external.iter().find(|key| key.id() == id).map(|key| *key.link_key());
            let inside = own.as_ref().filter(|key| key.id() == id).map(|key| *key.link_key());
            let is_own = outside.is_none() && inside.is_some();
            keys.insert(row_no, KnownKey { id, public, link: outside.or(inside), is_own });
        }
        let own_below = match &own {
            Some(own) if !external.is_empty() => change_from(control, own.id(), &keys)?,
            _ => u64::MAX,
        };
        Ok(Self {
            keys,
            public: external
                .iter()
                .map(|key| key.public_key().to_vec())
                .chain(public_keys.iter().map(|key| key.to_vec()))
                .collect(),
            own_public: own.map(|own| own.public_key().to_vec()),
            own_below,
        })
    }

    /// The secret of the record with this number, whose key has this row.
    pub(crate) fn secret(&self, key: i64, number: u64) -> Secret {
        match self.keys.get(&key) {
            Some(KnownKey { is_own: true, .. }) if number >= self.own_below => Secret::Own,
            Some(KnownKey { link: Some(link), .. }) => Secret::Held(*link),
            _ => Secret::Missing,
        }
    }

    /// Short name of a key, if it is listed.
    pub(crate) fn id(&self, key: i64) -> Option<&str> {
        self.keys.get(&key).map(|key| key.id.as_str())
    }

    /// Public key of a row; empty when it is not listed.
    pub(crate) fn public(&self, key: i64) -> &[u8] {
        self.keys.get(&key).map_or(&[], |key| &key.public)
    }

    /// Whether what this key signs about the record with this number is believed.
    pub(crate) fn believes(&self, public: &[u8], number: u64) -> bool {
        self.public.iter().any(|trusted| trusted == public)
            || (number < self.own_below && self.own_public.as_deref() == Some(public))
    }
}

/// The first record that says, linked with a key from outside, that the own key was given up; 0
/// when none does. The walk checks its link and its content as it does those of every record.
fn change_from(
    control: &Connection,
    own: &str,
    keys: &HashMap<i64, KnownKey>,
) -> Result<u64, ChainError> {
    // Records are few and decisions, which are in the chain too, are many: the order of the two is said.
    let mut statement = control.prepare(
        "SELECT c.number, c.key, r.body FROM audit_records r CROSS JOIN chain c ON c.number = r.number
         WHERE c.kind = ?1 ORDER BY r.number",
    )?;
    let mut rows = statement.query([Kind::Key as i64])?;
    while let Some(row) = rows.next()? {
        let key = keys.get(&row.get(1)?);
        let is_external = key.is_some_and(|key| key.link.is_some() && !key.is_own);
        let body: Json = serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default();
        if is_external && body["before"].as_str() == Some(own) {
            return Ok(u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0));
        }
    }
    Ok(0)
}
