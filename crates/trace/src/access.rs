//! Who may do what: scoped API keys. Only hashes are kept; the text of a key is shown once.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

/// What every key starts with, so that scanners for leaked secrets can find one.
pub const KEY_PREFIX: &str = "tl_";

/// Random bytes in a key.
pub const KEY_SECRET_BYTES: usize = 32;

/// One thing that a key may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Send telemetry.
    Ingest,
    /// Read pages and the API.
    Read,
    /// Ask models through the gateway.
    Gateway,
    /// Cause actions in the world.
    Act,
    /// Everything, key management included.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Read, Self::Gateway, Self::Act, Self::Admin];

    /// Lowercase name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Gateway => "gateway",
            Self::Act => "act",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a scope (ingest, read, gateway, act or admin), got {0:?}")]
pub struct ParseScopeError(String);

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, ParseScopeError> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| ParseScopeError(text.to_owned()))
    }
}

/// BLAKE3 of a key's text. Keys are 256 random bits, so a fast hash without salt is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// The hash of a key as the client sent it.
    pub fn of(key: &str) -> Self {
        Self(*blake3::hash(key.trim().as_bytes()).as_bytes())
    }
}

/// A key as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Public short id, for lists and revocation.
    pub id: String,
    /// What the owner calls it.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// When it was made, nanoseconds since the Unix epoch.
    pub created_unix_nano: u64,
    /// When it was revoked, nanoseconds since the Unix epoch.
    pub revoked_unix_nano: Option<u64>,
}

impl ApiKey {
    /// Whether the key allows `scope`; `admin` allows everything.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

/// Why a request was turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// No key came with the request.
    #[error("expected an API key (Authorization: Bearer {KEY_PREFIX}…), got none")]
    Missing,
    /// The key is not known, or was revoked.
    #[error("the API key is not known or was revoked; list keys with `throughline keys list`")]
    Unknown,
    /// The key is good, but not for this.
    #[error(
        "the API key {id} lacks the scope {needed}; create one with `throughline keys create --scope {needed}`"
    )]
    Scope {
        /// The key's public id.
        id: String,
        /// What would be needed.
        needed: Scope,
    },
}

/// The live keys, asked on every request and swapped as a whole when they change. When access
/// control is off (loopback by default) everything is allowed.
#[derive(Debug)]
pub struct Keyring {
    required: bool,
    keys: ArcSwap<HashMap<KeyHash, ApiKey>>,
}

impl Keyring {
    /// A ring that asks for keys, empty until [`Keyring::replace`].
    pub fn required() -> Self {
        Self { required: true, keys: ArcSwap::default() }
    }

    /// A ring that lets everybody in.
    pub fn open() -> Self {
        Self { required: false, keys: ArcSwap::default() }
    }

    /// Whether requests need a key.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Puts a new set of keys in place; revoked ones are left out.
    pub fn replace(&self, keys: impl IntoIterator<Item = (KeyHash, ApiKey)>) {
        let live = keys.into_iter().filter(|(_, key)| key.revoked_unix_nano.is_none()).collect();
        self.keys.store(std::sync::Arc::new(live));
    }

    /// Checks the key of a request for `needed`. `Ok(None)` when access control is off.
    ///
    /// # Errors
    /// [`AccessError`], whose text may go to the client.
    pub fn check(&self, key: Option<&str>, needed: Scope) -> Result<Option<ApiKey>, AccessError> {
        if !self.required {
            return Ok(None);
        }
        let key = key.map(str::trim).filter(|key| !key.is_empty()).ok_or(AccessError::Missing)?;
        let keys = self.keys.load();
        let found = keys.get(&KeyHash::of(key)).ok_or(AccessError::Unknown)?;
        if !found.allows(needed) {
            return Err(AccessError::Scope { id: found.id.clone(), needed });
        }
        Ok(Some(found.clone()))
    }

    /// Checks a key by its public id for `needed`: what a sealed session names instead of a key.
    ///
    /// # Errors
    /// [`AccessError::Unknown`] when no live key has the id, [`AccessError::Scope`] when it does not
    /// allow `needed`.
    pub fn check_id(&self, id: &str, needed: Scope) -> Result<ApiKey, AccessError> {
        let keys = self.keys.load();
        let found = keys.values().find(|key| key.id == id).ok_or(AccessError::Unknown)?;
        if !found.allows(needed) {
            return Err(AccessError::Scope { id: found.id.clone(), needed });
        }
        Ok(found.clone())
    }

    /// The key of an `Authorization` header: `Bearer …`, or Basic with the key as the password
    /// (what exporters that know only user and password can send).
    pub fn key_of_header(header: &str) -> Option<String> {
        let (scheme, rest) = header.trim().split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(rest.to_owned());
        }
        if scheme.eq_ignore_ascii_case("basic") {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(rest).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            return text.split_once(':').map(|(_, password)| password.to_owned());
        }
        None
    }
}
