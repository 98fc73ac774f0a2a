//! API keys and secrets, in `control.db`.

use std::path::Path;

use throughline_trace::access::{ApiKey, KeyHash, Scope};

use crate::error::ControlError;

/// Keys and secrets of a data directory; cheap to clone. Its calls are short and block.
#[derive(Debug, Clone)]
pub struct Control {}

impl Control {
    /// Opens the control database of a data directory, beside a running server or without one.
    ///
    /// # Errors
    /// [`ControlError::Open`].
    pub fn open(data_dir: &Path) -> Result<Self, ControlError> {
        let _ = data_dir;
        Ok(Self {})
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
        let _ = (name, scopes);
        Err(ControlError::NoScope)
    }

    /// All keys, revoked ones too, oldest first.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn list_keys(&self) -> Result<Vec<ApiKey>, ControlError> {
        Ok(Vec::new())
    }

    /// Revokes the key with this id and answers it; revoking twice changes nothing.
    ///
    /// # Errors
    /// [`ControlError::NoSuchKey`], [`ControlError::Storage`].
    pub fn revoke_key(&self, id: &str) -> Result<ApiKey, ControlError> {
        Err(ControlError::NoSuchKey(id.to_owned()))
    }

    /// What a [`Keyring`](throughline_trace::access::Keyring) is filled with.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn load_keyring(&self) -> Result<Vec<(KeyHash, ApiKey)>, ControlError> {
        Ok(Vec::new())
    }

    /// A number that changes whenever any process changes keys.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn keys_version(&self) -> Result<u64, ControlError> {
        Ok(0)
    }

    /// 32 random bytes that are made at the first call under this name and kept.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn secret(&self, name: &str) -> Result<[u8; 32], ControlError> {
        let _ = name;
        Ok([0; 32])
    }
}
