//! Signatures: of directives, as docs/directives.md has them, and of webhooks, in the form that
//! Stripe made usual (`t=…,v1=…` over `t.body`).

use std::fmt::{self, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::Value;
use throughline_trace::{Directive, canonical_json};

/// Bytes of a key at least: less can be guessed.
pub const MIN_KEY_BYTES: usize = 16;

/// Bytes of a key file at most: a wrong path should not fill the memory.
const MAX_KEY_FILE_BYTES: u64 = 64 << 10;

/// Field of a directive that holds its signature: `KEY_ID:HEX`.
const SIGNATURE: &str = "signature";

/// Why a key cannot be used. The key itself is never shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The file cannot be read.
    #[error("cannot read the key file {path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        error: String,
    },
    /// Its text is not the form that agents read too.
    #[error(
        "expected ID:BASE64 in {path}, the same that THROUGHLINE_DIRECTIVE_KEY takes, got {got}"
    )]
    Form {
        /// The file.
        path: String,
        /// What is wrong with it.
        got: &'static str,
    },
    /// It is too short.
    #[error("expected a key of at least {MIN_KEY_BYTES} bytes in {path}, got {got}")]
    Short {
        /// The file.
        path: String,
        /// How many bytes there are.
        got: usize,
    },
}

/// The key that directives are signed with, and its name.
#[derive(Clone)]
pub struct DirectiveKey {
    id: String,
    key: hmac::Key,
}

/// The key stays out of sight.
impl fmt::Debug for DirectiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectiveKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl DirectiveKey {
    /// The key in a file of the form `ID:BASE64`.
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn read(path: &Path) -> Result<Self, SigningError> {
        let text = read_text(path)?;
        Self::of_text(&path.display().to_string(), text.trim())
    }

    fn of_text(path: &str, text: &str) -> Result<Self, SigningError> {
        let wrong = |got| SigningError::Form { path: path.to_owned(), got };
        let (id, key) = text.split_once(':').ok_or_else(|| wrong("no colon"))?;
        let is_id = (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_graphic());
        if !is_id {
            return Err(wrong("an id that is not 1 to 64 visible ASCII characters"));
        }
        let bytes = STANDARD.decode(key.trim()).map_err(|_| wrong("no base64"))?;
        if bytes.len() < MIN_KEY_BYTES {
            return Err(SigningError::Short { path: path.to_owned(), got: bytes.len() });
        }
        Ok(Self { id: id.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }

    /// The JSON of a directive with its signature: `ID:hex(HMAC-SHA-256(key, JCS(object)))`.
    pub(crate) fn signed(&self, directive: &Directive) -> Value {
        let mut json = directive.to_json();
        if let Value::Object(fields) = &mut json {
            fields.remove(SIGNATURE);
        }
        let tag = hmac::sign(&self.key, canonical_json(&json).as_bytes());
        json[SIGNATURE] = format!("{}:{}", self.id, hex(tag.as_ref())).into();
        json
    }
}

/// The text of a small file.
pub(crate) fn read_text(path: &Path) -> Result<String, SigningError> {
    let of = |error: String| SigningError::File { path: path.display().to_string(), error };
    let about = std::fs::metadata(path).map_err(|error| of(error.to_string()))?;
    if about.len() > MAX_KEY_FILE_BYTES {
        return Err(of(format!("expected at most {MAX_KEY_FILE_BYTES} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| of(error.to_string()))
}

/// The value of the header `X-Throughline-Signature`: `t=SECONDS,v1=hex(HMAC-SHA-256(key,
/// "SECONDS.BODY"))`. The time is signed too, so that a receiver can refuse what is old.
pub fn webhook_signature(key: &[u8], unix_secs: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut context = hmac::Context::with_key(&key);
    context.update(unix_secs.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    format!("t={unix_secs},v1={}", hex(context.sign().as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use throughline_trace::DirectiveAction;

    use super::*;

    #[test]
    fn a_directive_is_signed_over_its_canonical_form() {
        let key = DirectiveKey::of_text("x", "k1:dGhlIGtleSBvZiB0aGUgc2VydmVy").expect("a key");
        let directive = Directive::new("d-1", 1, 2, DirectiveAction::Stop);
        let mut json = key.signed(&directive);
        let signature = json.as_object_mut().expect("object").remove(SIGNATURE).expect("signed");
        let expected = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, b"the key of the server"),
            canonical_json(&json).as_bytes(),
        );
        assert_eq!(signature, format!("k1:{}", hex(expected.as_ref())));
        assert_eq!(format!("{key:?}"), "DirectiveKey { id: \"k1\", .. }");
    }

    #[test]
    fn a_key_that_cannot_be_meant_is_refused_without_being_shown() {
        let told = |text| DirectiveKey::of_text("a.key", text).expect_err("refused").to_string();
        assert!(told("abc").ends_with("got no colon"));
        assert!(told("k1:***").ends_with("got no base64"));
        assert!(told("k1:c2hvcnQ=").ends_with("got 5"));
        assert!(!told("k1:c2VjcmV0").contains("c2VjcmV0"));
    }

    #[test]
    fn a_webhook_is_signed_with_its_time() {
        // Worked out with `printf '1764143700.{}' | openssl dgst -sha256 -hmac secret`.
        assert_eq!(
            webhook_signature(b"secret", 1_764_143_700, b"{}"),
            "t=1764143700,v1=6beda6e5b99dd6291eb2522db7070898d217e865998e8d3d1c50f3dcaba47138"
        );
    }
}
