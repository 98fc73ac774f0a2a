//! What is taken out before anything is written: the rules of the configuration, and the key that
//! its hashes are made with.

use std::env;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use throughline_gateway::Offer;
use throughline_ingest::Submit;
use throughline_redact::{MIN_HASH_KEY_BYTES, Redacted, RedactionConfig, Redactor, hash_key};
use throughline_store::Control;

use crate::commands::of_control;
use crate::failure::{Failure, Outcome};

/// Name of the secret that hashes are keyed with when the configuration gives none.
const HASH_SECRET: &str = "redaction-hash";

/// Variable with the key of hashes; it wins over the file.
const HASH_KEY_VARIABLE: &str = "THROUGHLINE_REDACTION_KEY";

/// Largest key file that is read, bytes: a wrong path should not fill the memory.
const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;

/// How a key comes into being.
const KEY_HINT: &str =
    "make one with `openssl rand -hex 32`, or leave it out to use the one in the data directory";

/// Refuses rules that do not go together. What is wrong with one alone was told when the file was
/// read.
pub(crate) fn resolve(config: &RedactionConfig) -> Outcome<RedactionConfig> {
    throughline_redact::check(config).map_err(|error| {
        Failure::usage(error).hint("see `redaction.rules` in the configuration file")
    })?;
    Ok(config.clone())
}

/// The rules, ready.
pub(crate) fn redactor(
    config: &RedactionConfig,
    control: &Control,
    registry: &mut Registry,
) -> Outcome<Arc<Redactor>> {
    let key = match (env::var_os(HASH_KEY_VARIABLE), &config.hash_key_file) {
        (Some(text), _) => made_of(text.as_encoded_bytes(), HASH_KEY_VARIABLE)?,
        (None, Some(path)) => read(path)?,
        (None, None) => control.secret(HASH_SECRET).map_err(|error| of_control(&error))?,
    };
    Ok(Arc::new(Redactor::new(config, key, registry).map_err(Failure::usage)?))
}

/// The door for batches that `ingest` has not seen: what the API is sent.
pub(crate) fn before(redactor: Arc<Redactor>, submit: Submit) -> throughline_web::Submit {
    Arc::new(move |batch| submit(redactor.redact(batch)))
}

/// The same for the gateway, which offers its records again when the inbox is full.
pub(crate) fn before_offers(
    redactor: Arc<Redactor>,
    offer: impl Fn(Redacted) -> Box<dyn Offer> + Send + Sync + 'static,
) -> throughline_gateway::Submit {
    Arc::new(move |batch| offer(redactor.redact(batch)))
}

fn read(path: &Path) -> Outcome<[u8; 32]> {
    let mut material = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_KEY_FILE_BYTES).read_to_end(&mut material))
        .map_err(|error| {
            Failure::usage(format!(
                "cannot read `redaction.hash_key_file` {}: {error}",
                path.display()
            ))
            .hint(KEY_HINT)
        })?;
    made_of(&material, &path.display().to_string())
}

fn made_of(material: &[u8], origin: &str) -> Outcome<[u8; 32]> {
    hash_key(material).ok_or_else(|| {
        Failure::usage(format!(
            "expected at least {MIN_HASH_KEY_BYTES} bytes as the key of redaction hashes in {origin}, got {}",
            material.trim_ascii().len()
        ))
        .hint(KEY_HINT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FileConfig;

    #[test]
    fn the_examples_of_the_guide_are_good() {
        let guide = include_str!("../../../docs/redaction.md");
        let examples: Vec<&str> = guide.split("```yaml\n").skip(1).collect();
        assert_eq!(examples.len(), 2);
        for example in examples {
            let yaml = example.split("```").next().expect("an end");
            let config = FileConfig::parse(Path::new("x.yaml"), yaml);
            let config = config.map_err(|failure| failure.to_text()).expect("good");
            resolve(&config.redaction).map_err(|failure| failure.to_text()).expect("good rules");
        }
    }

    #[test]
    fn a_key_that_is_missing_or_short_is_refused() {
        let refusal = |outcome: Outcome<[u8; 32]>| outcome.expect_err("a refusal").to_text();
        insta::assert_snapshot!(refusal(read(Path::new("/nowhere/redaction.key"))), @r"
        error(2): cannot read `redaction.hash_key_file` /nowhere/redaction.key: No such file or directory (os error 2)
        hint: make one with `openssl rand -hex 32`, or leave it out to use the one in the data directory
        ");
        insta::assert_snapshot!(refusal(made_of(b" short\n", HASH_KEY_VARIABLE)), @r"
        error(2): expected at least 16 bytes as the key of redaction hashes in THROUGHLINE_REDACTION_KEY, got 5
        hint: make one with `openssl rand -hex 32`, or leave it out to use the one in the data directory
        ");
        assert_eq!(
            made_of(b"0123456789abcdef\n", "x").expect("a key"),
            made_of(b"0123456789abcdef", "y").expect("a key"),
            "the end of the line is no part of it"
        );
    }
}
