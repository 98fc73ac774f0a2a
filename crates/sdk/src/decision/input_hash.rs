//! The keyed hash of what a decision was based on: HMAC-SHA-256 over the canonical JSON. Without a
//! key, whoever sees the log could guess a small input and check the guess.

use std::fmt;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::Serialize;
use throughline_trace::canonical_json;

use crate::telemetry::TelemetryError;
use crate::telemetry_otlp::Environment;

/// The variable that holds the key: `ID:BASE64`, or `@PATH` of a file with that in it.
pub(crate) const KEY_VARIABLE: &str = "THROUGHLINE_INPUT_HASH_KEY";

/// Bytes of a key at least: less can be guessed itself.
pub const INPUT_HASH_KEY_MIN_BYTES: usize = 16;

/// What the ids of keys begin with that live as long as the process.
const EPHEMERAL: &str = "ephemeral:";

/// A key with its name.
#[derive(Clone)]
pub(crate) struct HashKey {
    id: String,
    key: hmac::Key,
}

impl HashKey {
    /// # Errors
    /// [`TelemetryError::Setting`] when the id cannot be told from others or the key is short. The
    /// key itself is never shown.
    pub(crate) fn new(setting: &str, id: &str, bytes: &[u8]) -> Result<Self, TelemetryError> {
        let wrong = |expected, got: String| {
            Err(TelemetryError::Setting { name: setting.to_owned(), expected, got })
        };
        let is_id = (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_graphic());
        if !is_id || id.contains(':') {
            return wrong(
                "an id of 1 to 64 visible ASCII characters without a colon, and a key",
                "another id".to_owned(),
            );
        }
        if bytes.len() < INPUT_HASH_KEY_MIN_BYTES {
            return wrong("a key of at least 16 bytes", format!("{} bytes", bytes.len()));
        }
        Ok(Self { id: id.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, bytes) })
    }

    /// The key of the environment, if there is one.
    ///
    /// # Errors
    /// [`TelemetryError::Setting`] when there is one that cannot be used.
    pub(crate) fn of_environment(environment: Environment) -> Result<Option<Self>, TelemetryError> {
        Self::of_variable(KEY_VARIABLE, environment)
    }

    /// The key that a variable holds: `ID:BASE64`, or `@PATH` of a file with that in it.
    ///
    /// # Errors
    /// As [`of_environment`](Self::of_environment).
    pub(crate) fn of_variable(
        name: &str,
        environment: Environment,
    ) -> Result<Option<Self>, TelemetryError> {
        let Some(text) = environment.variable(name) else { return Ok(None) };
        let wrong = |got: String| TelemetryError::Setting {
            name: name.to_owned(),
            expected: "ID:BASE64, or @PATH of a file that holds it",
            got,
        };
        let text = match text.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| wrong(format!("@{path} ({error})")))?
                .trim()
                .to_owned(),
            None => text,
        };
        let (id, key) = text.split_once(':').ok_or_else(|| wrong("no colon".to_owned()))?;
        let bytes = STANDARD.decode(key.trim()).map_err(|_| wrong("no base64".to_owned()))?;
        Self::new(name, id, &bytes).map(Some)
    }

    /// The key of a process that was given none: random, so that equal inputs can be told within the
    /// process and nowhere else.
    pub(crate) fn ephemeral() -> Self {
        static KEY: OnceLock<HashKey> = OnceLock::new();
        KEY.get_or_init(|| Self {
            id: format!("{EPHEMERAL}{:08x}", rand::random::<u32>()),
            key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()),
        })
        .clone()
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether this hexadecimal text is the hash of the value.
    pub(crate) fn is_tag(&self, value: &serde_json::Value, tag: &str) -> bool {
        let pairs = tag.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> = pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        bytes.is_some_and(|tag| {
            hmac::verify(&self.key, canonical_json(value).as_bytes(), &tag).is_ok()
        })
    }

    /// 64 hexadecimal characters.
    pub(crate) fn hash(&self, canonical: &str) -> String {
        if self.id.starts_with(EPHEMERAL) {
            say_once();
        }
        let tag = hmac::sign(&self.key, canonical.as_bytes());
        tag.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
            use fmt::Write as _;
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// The key stays out of sight.
impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashKey").field("id", &self.id).finish_non_exhaustive()
    }
}

fn say_once() {
    static SAID: OnceLock<()> = OnceLock::new();
    SAID.get_or_init(|| {
        tracing::info!(
            target: "throughline",
            "input_hash has a random key that ends with this process: equal inputs of several \
             processes can be told only with a shared one; set {KEY_VARIABLE}=ID:BASE64"
        );
    });
}

/// What a decision was based on, until it is hashed.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// Canonical JSON.
    Canonical(String),
    /// JSON cannot spell it.
    Unspellable,
}

impl Input {
    pub(crate) fn of(input: &impl Serialize) -> Self {
        match serde_json::to_value(input) {
            Ok(json) => Self::Canonical(canonical_json(&json)),
            Err(_) => Self::Unspellable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"throughline-test-key-0123456789ab";

    fn hash(json: &str) -> String {
        let key = HashKey::new("test", "k1", KEY).expect("a key");
        let value: serde_json::Value = serde_json::from_str(json).expect("json");
        let Input::Canonical(text) = Input::of(&value) else { panic!("json is spellable") };
        key.hash(&text)
    }

    /// The vectors of docs/decisions.md, which Python's standard library agrees with.
    #[test]
    fn r4_4_input_hash_is_what_the_document_says() {
        let document = include_str!("../../../../docs/decisions.md");
        let table = document.split("<!-- vectors -->").nth(1).expect("a table of vectors");
        let mut checked = 0;
        for line in table.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> =
                line.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`'])).collect();
            assert_eq!(hash(cells[0]), cells[1], "{line}");
            checked += 1;
        }
        assert!(checked >= 6, "{checked} vectors");
        assert!(document.contains("throughline-test-key-0123456789ab"));
    }

    #[test]
    fn r4_4_key_order_and_number_form_do_not_change_the_hash() {
        let same = hash(r#"{"a":1,"b":{"c":2,"d":3}}"#);
        assert_eq!(hash(r#"{"b":{"d":3.0,"c":2e0},"a":1.0}"#), same);
        assert_ne!(hash(r#"{"a":"1","b":{"c":2,"d":3}}"#), same);
        assert_eq!(same.len(), 64);
        let other = HashKey::new("test", "k2", b"another key of enough bytes").expect("a key");
        assert_ne!(other.hash(r#"{"a":1,"b":{"c":2,"d":3}}"#), same);
    }

    #[test]
    fn keys_are_checked_and_never_shown() {
        let error = HashKey::new("input_hash_key", "k1", b"short").expect_err("short");
        assert_eq!(
            error.to_string(),
            "expected input_hash_key to be a key of at least 16 bytes, got \"5 bytes\""
        );
        assert!(HashKey::new("input_hash_key", "a:b", KEY).is_err());
        let shown = format!("{:?}", HashKey::new("test", "k1", KEY).expect("a key"));
        assert_eq!(shown, "HashKey { id: \"k1\", .. }");
        let ephemeral = HashKey::ephemeral();
        assert_eq!(ephemeral.id(), HashKey::ephemeral().id());
        assert!(ephemeral.id().starts_with("ephemeral:"));
    }
}
