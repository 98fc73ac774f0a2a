//! API keys and secrets, in `control.db`.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};
use throughline_trace::access::{ApiKey, KEY_PREFIX, KEY_SECRET_BYTES, KeyHash, Scope};

use crate::error::ControlError;
use crate::layout::Layout;
use crate::schema::{CONTROL, from_nanos, to_nanos};
use crate::writer::now_unix_nano;

/// Longest name of a key, characters.
const MAX_KEY_NAME_CHARS: usize = 100;

/// Random bytes in the public id of a key.
const KEY_ID_BYTES: usize = 6;

/// Keys and secrets of a data directory; cheap to clone. Its calls are short and block. It has a
/// connection of its own: a command may change keys while the server runs.
#[derive(Debug, Clone)]
pub struct Control {
    connection: Arc<Mutex<Connection>>,
}

impl Control {
    /// Opens the control database of a data directory, beside a running server or without one;
    /// makes it when there is none.
    ///
    /// # Errors
    /// [`ControlError::Open`].
    pub fn open(data_dir: &Path) -> Result<Self, ControlError> {
        let layout = Layout::new(data_dir);
        layout.create()?;
        let path = layout.control();
        let connection = CONTROL.open_writer(&path).map_err(|error| error.on_open(&path))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Makes a key and answers its text, which is shown once and never stored.
    ///
    /// # Errors
    /// [`ControlError::KeyName`], [`ControlError::NoScope`], [`ControlError::Storage`].
    pub fn create_key(
        &self,
        name: &str,
        scopes: &[Scope],
    ) -> Result<(String, ApiKey), ControlError> {
        let name = name.trim();
        let got = name.chars().count();
        if got == 0 || got > MAX_KEY_NAME_CHARS {
            return Err(ControlError::KeyName { max: MAX_KEY_NAME_CHARS, got });
        }
        let mut scopes = scopes.to_vec();
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return Err(ControlError::NoScope);
        }
        let text = format!("{KEY_PREFIX}{}", hex(&rand::random::<[u8; KEY_SECRET_BYTES]>()));
        let key = ApiKey {
            id: hex(&rand::random::<[u8; KEY_ID_BYTES]>()),
            name: name.to_owned(),
            scopes,
            created_unix_nano: now_unix_nano(),
            revoked_unix_nano: None,
        };
        let names: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        self.change_keys(|connection| {
            connection.execute(
                "INSERT INTO keys(id, hash, name, scopes, created) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    key.id,
                    KeyHash::of(&text).0.as_slice(),
                    key.name,
                    names.join(","),
                    from_nanos(key.created_unix_nano)
                ],
            )
        })?;
        Ok((text, key))
    }

    /// All keys, revoked ones too, oldest first.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn list_keys(&self) -> Result<Vec<ApiKey>, ControlError> {
        Ok(self.load_keyring()?.into_iter().map(|(_, key)| key).collect())
    }

    /// Revokes the key with this id and answers it; revoking twice changes nothing.
    ///
    /// # Errors
    /// [`ControlError::NoSuchKey`], [`ControlError::Storage`].
    pub fn revoke_key(&self, id: &str) -> Result<ApiKey, ControlError> {
        self.change_keys(|connection| {
            connection.execute(
                "UPDATE keys SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL",
                params![id, from_nanos(now_unix_nano())],
            )
        })?;
        let key = self.list_keys()?.into_iter().find(|key| key.id == id);
        key.ok_or_else(|| ControlError::NoSuchKey(id.to_owned()))
    }

    /// What a [`Keyring`](throughline_trace::access::Keyring) is filled with, revoked keys too.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn load_keyring(&self) -> Result<Vec<(KeyHash, ApiKey)>, ControlError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT id, hash, name, scopes, created, revoked FROM keys ORDER BY created, id",
        )?;
        let keys = statement.query_map([], read_key)?.collect::<Result<_, _>>()?;
        Ok(keys)
    }

    /// A number that changes whenever any process changes keys.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn keys_version(&self) -> Result<u64, ControlError> {
        let version: i64 = self
            .lock()
            .prepare_cached("SELECT value FROM state WHERE name = 'keys_version'")?
            .query_row([], |row| row.get(0))?;
        Ok(version as u64)
    }

    /// 32 random bytes that are made at the first call under this name and kept.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn secret(&self, name: &str) -> Result<[u8; 32], ControlError> {
        let connection = self.lock();
        let read = || {
            connection
                .query_row("SELECT value FROM secrets WHERE name = ?1", [name], |row| row.get(0))
                .optional()
        };
        if let Some(secret) = read()? {
            return Ok(secret);
        }
        let fresh = rand::random::<[u8; 32]>();
        // Another process may be quicker: the one that is stored counts.
        connection
            .execute("INSERT OR IGNORE INTO secrets VALUES (?1, ?2)", params![name, fresh])?;
        Ok(read()?.unwrap_or(fresh))
    }

    /// Changes keys and their version in one transaction.
    fn change_keys(
        &self,
        change: impl FnOnce(&Connection) -> Result<usize, rusqlite::Error>,
    ) -> Result<(), ControlError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if change(&transaction)? > 0 {
            transaction
                .execute("UPDATE state SET value = value + 1 WHERE name = 'keys_version'", [])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// A panic while the lock was held leaves the connection usable: transactions roll back.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_key(row: &Row<'_>) -> Result<(KeyHash, ApiKey), rusqlite::Error> {
    let scopes: String = row.get(3)?;
    let key = ApiKey {
        id: row.get(0)?,
        name: row.get(2)?,
        // A scope of a later version allows nothing here.
        scopes: scopes.split(',').filter_map(|scope| scope.parse().ok()).collect(),
        created_unix_nano: to_nanos(row.get(4)?),
        revoked_unix_nano: row.get::<_, Option<i64>>(5)?.map(to_nanos),
    };
    Ok((KeyHash(row.get(1)?), key))
}

/// Lowercase hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
