//! Rules as they are written in the configuration. What is wrong with one value is told while it is
//! read, so that the reader can name the place.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::builtin::Builtin;
use crate::glob::Glob;
use crate::path::JsonPath;
use crate::pattern::Pattern;

/// Longest name of a rule, characters: it is in masks and in counters.
const MAX_NAME_CHARS: usize = 40;

/// Longest replacement, bytes.
const MAX_REPLACEMENT_BYTES: usize = 256;

/// The section `redaction` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedactionConfig {
    /// What is done with keys and tokens ([`Builtin::SECRETS`]) for which there is no rule.
    pub secrets: Secrets,
    /// Further rules; an earlier one wins where two find the same.
    pub rules: Vec<RuleConfig>,
    /// File with the key of hashes, at least 16 bytes.
    pub hash_key_file: Option<PathBuf>,
}

impl RedactionConfig {
    /// Nothing is taken out.
    pub fn off() -> Self {
        Self { secrets: Secrets::Off, ..Self::default() }
    }
}

/// What is done with keys and tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Secrets {
    /// A mask in their place.
    #[default]
    Mask,
    /// A keyed hash in their place.
    Hash,
    /// The attribute is dropped.
    Drop,
    /// Nothing.
    Off,
}

/// What is done with a find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A fixed text in its place: `[email]`.
    #[default]
    Mask,
    /// A keyed hash in its place, the same for the same find: `[email:9f86d081884c]`.
    Hash,
    /// The attribute in which it is found is dropped.
    Drop,
}

/// What a rule looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detector {
    /// What a built-in rule finds.
    Builtin(Builtin),
    /// What a regular expression finds, or its group `secret`.
    Pattern(Pattern),
    /// Values under these names, of attributes and of members of JSON objects.
    Keys(Vec<Glob>),
    /// Values at this place of a structured attribute.
    Path(JsonPath),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawRule")]
pub struct RuleConfig {
    /// Its name in masks, counters and `throughline.redacted`.
    pub name: String,
    /// What it looks for.
    pub detector: Detector,
    /// What is done with it.
    pub action: Action,
    /// The mask; `[name]` if not said.
    pub replacement: Option<String>,
    /// Attribute keys and names of fields that it is limited to; empty for everywhere.
    pub fields: Vec<Glob>,
    /// Agents that it is limited to, by id or name; empty for all.
    pub agents: Vec<Glob>,
}

impl RuleConfig {
    /// A rule that finds what the built-in one finds, everywhere.
    pub fn builtin(builtin: Builtin, action: Action) -> Self {
        Self {
            name: builtin.as_str().to_owned(),
            detector: Detector::Builtin(builtin),
            action,
            replacement: None,
            fields: Vec::new(),
            agents: Vec::new(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRule {
    name: Option<String>,
    builtin: Option<Builtin>,
    pattern: Option<Pattern>,
    keys: Option<Vec<Glob>>,
    path: Option<JsonPath>,
    action: Action,
    replacement: Option<String>,
    fields: Vec<Glob>,
    agents: Vec<Glob>,
}

impl TryFrom<RawRule> for RuleConfig {
    type Error = String;

    fn try_from(raw: RawRule) -> Result<Self, String> {
        let named = |name: &Option<String>| match name {
            Some(name) => format!("rule `{name}`: "),
            None => "this rule: ".to_owned(),
        };
        let rule = named(&raw.name);
        let given =
            [raw.builtin.is_some(), raw.pattern.is_some(), raw.keys.is_some(), raw.path.is_some()];
        let count = given.iter().filter(|is_given| **is_given).count();
        if count != 1 {
            return Err(format!(
                "{rule}expected exactly one of `builtin`, `pattern`, `keys`, `path`, got {count}"
            ));
        }
        let default_name = raw.builtin.map(|builtin| builtin.as_str().to_owned());
        let Some(name) = raw.name.or(default_name) else {
            return Err(format!("{rule}expected a `name`, which masks and counters show"));
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > MAX_NAME_CHARS || !name.chars().all(is_plain) {
            return Err(format!(
                "{rule}expected a name of 1 to {MAX_NAME_CHARS} letters, digits, `_`, `-` and `.`, got `{name}`"
            ));
        }
        if let Some(replacement) = &raw.replacement {
            if raw.action != Action::Mask {
                return Err(format!("{rule}expected `replacement` with `action: mask` only"));
            }
            if replacement.len() > MAX_REPLACEMENT_BYTES {
                return Err(format!(
                    "{rule}expected a replacement of at most {MAX_REPLACEMENT_BYTES} bytes, got {}",
                    replacement.len()
                ));
            }
        }
        if raw.keys.as_ref().is_some_and(Vec::is_empty) {
            return Err(format!("{rule}expected at least one name in `keys`"));
        }
        let detector = raw
            .builtin
            .map(Detector::Builtin)
            .or(raw.pattern.map(Detector::Pattern))
            .or(raw.keys.map(Detector::Keys))
            .or(raw.path.map(Detector::Path))
            .ok_or_else(|| format!("{rule}expected something to look for"))?;
        Ok(Self {
            name,
            detector,
            action: raw.action,
            replacement: raw.replacement,
            fields: raw.fields,
            agents: raw.agents,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    secrets: Secrets,
    rules: Vec<RuleConfig>,
    hash_key_file: Option<PathBuf>,
}

impl<'de> Deserialize<'de> for RedactionConfig {
    /// A mapping, or the word `off`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MappingOrOff)
    }
}

struct MappingOrOff;

impl<'de> Visitor<'de> for MappingOrOff {
    type Value = RedactionConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`off`, or a mapping with secrets, rules, hash_key_file")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RedactionConfig, A::Error> {
        let raw = RawConfig::deserialize(MapAccessDeserializer::new(map))?;
        let RawConfig { secrets, rules, hash_key_file } = raw;
        Ok(RedactionConfig { secrets, rules, hash_key_file })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RedactionConfig, E> {
        match text {
            "off" => Ok(RedactionConfig::off()),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<RedactionConfig, E> {
        match truth {
            // How YAML 1.1 reads the word.
            false => Ok(RedactionConfig::off()),
            true => Err(E::invalid_value(de::Unexpected::Bool(true), &self)),
        }
    }
}
