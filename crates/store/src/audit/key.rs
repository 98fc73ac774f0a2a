//! The audit key: one secret, from which the key of the links and the key that signs are derived.

use std::fmt;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::control::hex;

/// Least bytes of a key that is given from outside.
pub const MIN_AUDIT_KEY_BYTES: usize = 32;

/// Most bytes of a key that is given from outside; more is a wrong file.
pub const MAX_AUDIT_KEY_BYTES: usize = 4_096;

/// Bytes of the short public name of a key.
const KEY_ID_BYTES: usize = 8;

const LINK_CONTEXT: &str = "throughline 2026 audit chain link v1";
const SIGN_CONTEXT: &str = "throughline 2026 audit checkpoint signature v1";
const NAME_CONTEXT: &str = "throughline 2026 audit key id v1";
const SUBJECT_CONTEXT: &str = "throughline 2026 audit erased subject v1";

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditKeyError {
    /// Too short to be a secret, or too long to be meant.
    #[error(
        "expected an audit key of {MIN_AUDIT_KEY_BYTES} to {MAX_AUDIT_KEY_BYTES} bytes, got {0}; make one with `openssl rand -hex 32`"
    )]
    Length(usize),
    /// The signature's key could not be made of it.
    #[error("the audit key cannot sign: {0}")]
    Unusable(String),
}

/// The secret of the chain. Whoever has it can write records that verify; whoever has only
/// [`AuditKey::public_key`] can check the checkpoints.
#[derive(Clone)]
pub struct AuditKey {
    id: String,
    link: [u8; 32],
    subject: [u8; 32],
    seed: [u8; 32],
    public: [u8; 32],
    is_external: bool,
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditKey({})", self.id)
    }
}

impl PartialEq for AuditKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.public == other.public
    }
}

impl Eq for AuditKey {}

impl AuditKey {
    /// A key from outside the data directory: the text of a file or variable, blanks around it
    /// taken off. Its bytes are the secret, whatever alphabet they are written in.
    ///
    /// # Errors
    /// [`AuditKeyError`].
    pub fn from_text(text: &str) -> Result<Self, AuditKeyError> {
        let bytes = text.trim().as_bytes();
        if !(MIN_AUDIT_KEY_BYTES..=MAX_AUDIT_KEY_BYTES).contains(&bytes.len()) {
            return Err(AuditKeyError::Length(bytes.len()));
        }
        Self::derive(bytes, true)
    }

    /// The key that the data directory keeps itself.
    pub(crate) fn from_secret(secret: &[u8; 32]) -> Result<Self, AuditKeyError> {
        Self::derive(secret, false)
    }

    fn derive(bytes: &[u8], is_external: bool) -> Result<Self, AuditKeyError> {
        let seed = blake3::derive_key(SIGN_CONTEXT, bytes);
        let pair = pair(&seed)?;
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Ok(Self {
            id: hex(&blake3::derive_key(NAME_CONTEXT, bytes)[..KEY_ID_BYTES]),
            link: blake3::derive_key(LINK_CONTEXT, bytes),
            subject: blake3::derive_key(SUBJECT_CONTEXT, bytes),
            seed,
            public,
            is_external,
        })
    }

    /// Short public name, 16 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The Ed25519 public key (RFC 8032), with which anybody can check a checkpoint.
    pub fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// Whether it came from outside the data directory.
    pub fn is_external(&self) -> bool {
        self.is_external
    }

    pub(crate) fn link_key(&self) -> &[u8; 32] {
        &self.link
    }

    /// A name for somebody who was erased: equal for equal subjects, and it tells nobody who it was
    /// without the key.
    pub(crate) fn subject(&self, kind: &str, value: &str) -> String {
        hex(blake3::keyed_hash(&self.subject, format!("{kind}\0{value}").as_bytes()).as_bytes())
    }

    /// Ed25519 over `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<[u8; 64], AuditKeyError> {
        let mut signature = [0; 64];
        signature.copy_from_slice(pair(&self.seed)?.sign(message).as_ref());
        Ok(signature)
    }
}

fn pair(seed: &[u8; 32]) -> Result<Ed25519KeyPair, AuditKeyError> {
    Ed25519KeyPair::from_seed_unchecked(seed)
        .map_err(|error| AuditKeyError::Unusable(error.to_string()))
}

/// Whether `signature` is that of `public` over `message`.
pub(crate) fn is_signed(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

/// The keys of a server or a command: the one that writes, and earlier ones that can still be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditKeys {
    /// The key from outside the data directory; `None` leaves it to the data directory.
    pub current: Option<AuditKey>,
    /// Earlier keys from outside, of which records remain.
    pub previous: Vec<AuditKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_signs_and_only_its_public_key_agrees() {
        let one = AuditKey::from_text(&"a".repeat(32)).unwrap();
        let two = AuditKey::from_text(&"b".repeat(32)).unwrap();
        let signature = one.sign(b"head").unwrap();
        assert!(is_signed(&one.public_key(), b"head", &signature));
        assert!(!is_signed(&two.public_key(), b"head", &signature));
        assert!(!is_signed(&one.public_key(), b"heap", &signature));
        assert_ne!(one.id(), two.id());
        assert_eq!(format!("{one:?}"), format!("AuditKey({})", one.id()));
        assert_ne!(one.subject("session", "a"), one.subject("agent", "a"));
    }

    #[test]
    fn a_short_key_is_no_secret() {
        let refused = AuditKey::from_text("  secret \n").unwrap_err();
        insta::assert_snapshot!(refused, @"expected an audit key of 32 to 4096 bytes, got 6; make one with `openssl rand -hex 32`");
    }
}
