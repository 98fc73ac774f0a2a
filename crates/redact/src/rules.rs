//! Rules made ready: compiled, numbered, and sorted into sets of bits.

use std::ops::Range;

use regex::Regex;

use crate::builtin::{Builtin, Definition};
use crate::config::{Action, Detector, RedactionConfig, RuleConfig, Secrets};
use crate::fields;
use crate::glob::Glob;
use crate::path::Step;
use crate::pattern::{self, SECRET_GROUP};
use crate::prefilter::Prefilter;
use crate::{secret_names, sources};

/// Most rules, built-in ones included: their sets are bits of a word.
pub const MAX_RULES: usize = 64;

/// Hexadecimal digits of a hash in a text: 48 bits, so that among a million values hardly two share
/// one (the chance is 1 in 500), and a token is still read at a glance.
const HASH_HEX_DIGITS: usize = 12;

/// What is wrong with the rules as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedactionError {
    /// Two rules of one name.
    #[error("expected a name of its own for each redaction rule, got `{0}` twice")]
    Twice(String),
    /// More than [`MAX_RULES`].
    #[error("expected at most {MAX_RULES} redaction rules with the built-in ones, got {0}")]
    TooMany(usize),
    /// A rule that cannot be compiled.
    #[error("redaction rule `{rule}`: {problem}")]
    Pattern {
        /// Its name.
        rule: String,
        /// Why not.
        problem: String,
    },
}

/// Whether the rules go together, before there is a key or anything to count in.
///
/// # Errors
/// [`RedactionError`] when they do not.
pub fn check(config: &RedactionConfig) -> Result<(), RedactionError> {
    RuleSet::compile(config, [0; 32]).map(drop)
}

/// Least material that a key of hashes is made of, bytes.
pub const MIN_HASH_KEY_BYTES: usize = 16;

/// Makes the key of hashes out of what a file or a variable holds; spaces and line ends around it do
/// not count. `None` when it is shorter than [`MIN_HASH_KEY_BYTES`].
pub fn hash_key(material: &[u8]) -> Option<[u8; 32]> {
    let material = material.trim_ascii();
    let is_enough = material.len() >= MIN_HASH_KEY_BYTES;
    is_enough.then(|| blake3::derive_key("throughline 2026-11 key of redaction hashes", material))
}

/// A rule, ready.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) action: Action,
    pub(crate) mask: String,
    pub(crate) patterns: Vec<Search>,
    pub(crate) definition: Option<Definition>,
    pub(crate) keys: Vec<Glob>,
    pub(crate) steps: Vec<Step>,
    fields: Vec<Glob>,
    /// The names of the normal form among `fields`.
    normal: u64,
    agents: Vec<Glob>,
}

/// An expression to look for.
#[derive(Debug)]
pub(crate) struct Search {
    pub(crate) regex: Regex,
    /// Whether only its group `secret` is taken out.
    pub(crate) has_group: bool,
}

/// All rules. Sets of rules are bits by their numbers.
#[derive(Debug)]
pub(crate) struct RuleSet {
    pub(crate) rules: Vec<Rule>,
    prefilter: Prefilter,
    /// Every rule.
    pub(crate) all: u64,
    /// Those that every text has to be tried against.
    pub(crate) unfiltered: u64,
    /// Those that look for patterns in texts.
    pub(crate) patterned: u64,
    /// Those that look for names given by the configuration.
    pub(crate) keyed: u64,
    /// Those that look at places.
    pub(crate) paths: u64,
    /// The built-in one that looks for names.
    pub(crate) secret_names: u64,
    /// Those that look at integers too.
    pub(crate) numbers: u64,
    /// Those that find what only looks like it, and are not limited to fields on purpose.
    pub(crate) fuzzy: u64,
    /// Those that find nothing where there is no `@`.
    needing_at: u64,
    with_fields: u64,
    /// Whether a rule may mean what the normal form was made of.
    pub(crate) asks_for_sources: bool,
    with_agents: u64,
    hash_key: [u8; 32],
}

impl RuleSet {
    pub(crate) fn compile(
        config: &RedactionConfig,
        hash_key: [u8; 32],
    ) -> Result<Self, RedactionError> {
        let configs = with_secrets(config);
        if configs.len() > MAX_RULES {
            return Err(RedactionError::TooMany(configs.len()));
        }
        for (number, rule) in configs.iter().enumerate() {
            if configs[..number].iter().any(|earlier| earlier.name == rule.name) {
                return Err(RedactionError::Twice(rule.name.clone()));
            }
        }
        let rules: Vec<Rule> = configs.iter().map(Rule::compile).collect::<Result<_, _>>()?;
        let triggers = rules.iter().enumerate().flat_map(|(number, rule)| {
            let triggers = rule.definition.as_ref().map_or(&[][..], |known| known.triggers);
            triggers.iter().map(move |trigger| (*trigger, 1 << number))
        });
        let prefilter = Prefilter::new(triggers);
        let those = |is_one: &dyn Fn(&Rule) -> bool| {
            let bits = rules.iter().enumerate().filter(|(_, rule)| is_one(rule));
            bits.fold(0_u64, |set, (number, _)| set | 1 << number)
        };
        let secret_names = configs.iter().enumerate().fold(0, |set, (number, rule)| {
            let is_it = rule.detector == Detector::Builtin(Builtin::SecretNames);
            set | u64::from(is_it) << number
        });
        Ok(Self {
            all: those(&|_| true),
            unfiltered: those(&|rule| rule.definition.is_none() && !rule.patterns.is_empty()),
            patterned: those(&|rule| !rule.patterns.is_empty()),
            keyed: those(&|rule| !rule.keys.is_empty()),
            paths: those(&|rule| !rule.steps.is_empty()),
            secret_names,
            numbers: those(&|rule| rule.definition.as_ref().is_some_and(|it| it.takes_numbers)),
            fuzzy: those(&|rule| rule.is_fuzzy() && rule.fields.is_empty()),
            needing_at: those(&|rule| rule.definition.as_ref().is_some_and(|it| it.needs_at)),
            with_fields: those(&|rule| !rule.fields.is_empty()),
            asks_for_sources: rules.iter().any(|rule| rule.normal != 0 || !rule.keys.is_empty()),
            with_agents: those(&|rule| !rule.agents.is_empty()),
            prefilter,
            rules,
            hash_key,
        })
    }

    /// The rules that apply to an agent, by any of its names, which are looked up only if a rule asks
    /// for them. Who has no name may be anybody: every rule applies.
    pub(crate) fn of_agent<'n, N>(&self, names: impl FnOnce() -> N) -> u64
    where
        N: Iterator<Item = &'n str> + Clone,
    {
        if self.with_agents == 0 {
            return self.all;
        }
        let names = names();
        if names.clone().next().is_none() {
            return self.all;
        }
        let is_meant = |rule: &Rule| {
            rule.agents.iter().any(|glob| names.clone().any(|name| glob.matches(name)))
        };
        self.without(self.all, self.with_agents, is_meant)
    }

    /// Of these rules: those that apply to a field of an item that has these names of the normal form.
    pub(crate) fn of_field(&self, rules: u64, field: &str, normal: u64) -> u64 {
        let mut left = rules;
        if left & self.with_fields != 0 {
            let is_meant = |rule: &Rule| {
                fields::is_among(&rule.fields, field) || sources::is_in(rule.normal & normal, field)
            };
            left = self.without(left, self.with_fields, is_meant);
        }
        if left & self.fuzzy != 0 && fields::is_machine_made(field) {
            left &= !self.fuzzy;
        }
        left
    }

    /// The rules among these that may have something to find in a text, and whether escapes of JSON
    /// may hide more.
    pub(crate) fn candidates(&self, rules: u64, text: &str) -> (u64, bool) {
        let seen = self.prefilter.scan(text.as_bytes());
        let mut candidates = (seen.rules | self.unfiltered) & rules;
        if candidates & self.needing_at != 0 && !text.as_bytes().contains(&b'@') {
            candidates &= !self.needing_at;
        }
        (candidates, seen.escapes)
    }

    fn without(&self, rules: u64, limited: u64, is_meant: impl Fn(&Rule) -> bool) -> u64 {
        numbers(rules & limited)
            .filter(|number| !is_meant(&self.rules[*number]))
            .fold(rules, |left, number| left & !(1 << number))
    }

    /// The first rule of the configuration that takes what is under this name.
    pub(crate) fn by_key(&self, rules: u64, full: &str, last: &str) -> Option<usize> {
        numbers(rules & self.keyed).find(|number| {
            let keys = &self.rules[*number].keys;
            keys.iter().any(|glob| glob.matches(full) || glob.matches(last))
        })
    }

    /// As [`RuleSet::by_key`], by names of the normal form, with `rest` behind each.
    pub(crate) fn by_normal(&self, rules: u64, normal: u64, rest: &str) -> Option<usize> {
        sources::keys_of(normal).find_map(|name| {
            let full = format!("{name}{rest}");
            self.by_key(rules, &full, full.rsplit('.').next().unwrap_or(&full))
        })
    }

    /// The built-in rule of names, when this is one of them.
    pub(crate) fn by_secret_name(&self, rules: u64, key: &str) -> Option<usize> {
        let set = rules & self.secret_names;
        (set != 0 && secret_names::is_secret(key)).then(|| set.trailing_zeros() as usize)
    }

    /// Whether this stands in the place of something that the rule has taken out before: an item may
    /// come again from an export.
    pub(crate) fn is_replacement(&self, rule: usize, text: &str) -> bool {
        let rule = &self.rules[rule];
        let hash = || {
            let inside = text.strip_prefix('[')?.strip_suffix(']')?;
            inside.strip_prefix(rule.name.as_str())?.strip_prefix(':')
        };
        let is_hash = |hash: &str| {
            hash.len() == HASH_HEX_DIGITS
                && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        text == rule.mask || rule.action == Action::Hash && hash().is_some_and(is_hash)
    }

    /// What stands in the place of `found`.
    pub(crate) fn replacement(&self, rule: usize, found: &str) -> String {
        let rule = &self.rules[rule];
        match rule.action {
            Action::Mask | Action::Drop => rule.mask.clone(),
            Action::Hash => {
                let normal = match &rule.definition {
                    Some(definition) => (definition.normal)(found),
                    None => found.into(),
                };
                let hash = blake3::keyed_hash(&self.hash_key, normal.as_bytes()).to_hex();
                format!("[{}:{}]", rule.name, &hash[..HASH_HEX_DIGITS])
            }
        }
    }
}

impl Rule {
    fn compile(config: &RuleConfig) -> Result<Self, RedactionError> {
        let mut rule = Self {
            name: config.name.clone(),
            action: config.action,
            mask: config.replacement.clone().unwrap_or_else(|| format!("[{}]", config.name)),
            patterns: Vec::new(),
            definition: None,
            keys: Vec::new(),
            steps: Vec::new(),
            fields: config.fields.clone(),
            normal: sources::meant_by(&config.fields),
            agents: config.agents.clone(),
        };
        match &config.detector {
            Detector::Builtin(builtin) => {
                let definition = builtin.definition();
                for text in definition.patterns {
                    let regex =
                        pattern::compile(text).map_err(|error| RedactionError::Pattern {
                            rule: config.name.clone(),
                            problem: error.to_string(),
                        })?;
                    rule.patterns.push(Search::new(regex));
                }
                rule.definition = Some(definition);
            }
            Detector::Pattern(pattern) => rule.patterns.push(Search::new(pattern.0.clone())),
            Detector::Keys(keys) => rule.keys.clone_from(keys),
            Detector::Path(path) => rule.steps.clone_from(&path.steps),
        }
        Ok(rule)
    }

    fn is_fuzzy(&self) -> bool {
        match &self.definition {
            Some(definition) => definition.is_fuzzy,
            None => !self.patterns.is_empty(),
        }
    }
}

impl Search {
    /// The next match in `text` from a place on: all of it, and what is to be taken out of it.
    pub(crate) fn next(&self, text: &str, from: usize) -> Option<(Range<usize>, Range<usize>)> {
        if from > text.len() {
            return None;
        }
        if !self.has_group {
            let whole = self.regex.find_at(text, from)?.range();
            return Some((whole.clone(), whole));
        }
        let captures = self.regex.captures_at(text, from)?;
        let whole = captures.get(0)?.range();
        // Where the group took no part, the whole is what was meant.
        let found = captures.name(SECRET_GROUP).map_or(whole.clone(), |group| group.range());
        Some((whole, found))
    }

    fn new(regex: Regex) -> Self {
        let has_group = regex.capture_names().flatten().any(|name| name == SECRET_GROUP);
        Self { regex, has_group }
    }
}

/// The numbers in a set, lowest first.
pub(crate) fn numbers(set: u64) -> impl Iterator<Item = usize> {
    let mut left = set;
    std::iter::from_fn(move || {
        let number = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        (number < MAX_RULES).then_some(number)
    })
}

/// The rules of the configuration, then those of secrets that it does not have.
fn with_secrets(config: &RedactionConfig) -> Vec<RuleConfig> {
    let mut rules = config.rules.clone();
    let action = match config.secrets {
        Secrets::Off => return rules,
        Secrets::Mask => Action::Mask,
        Secrets::Hash => Action::Hash,
        Secrets::Drop => Action::Drop,
    };
    for builtin in Builtin::SECRETS {
        let is_given = |rule: &RuleConfig| rule.detector == Detector::Builtin(builtin);
        if !config.rules.iter().any(is_given) {
            rules.push(RuleConfig::builtin(builtin, action));
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_agents_are_looked_up_only_if_a_rule_asks() {
        let mut rule = RuleConfig::builtin(Builtin::Email, Action::Mask);
        let rules_of = |rule: &RuleConfig, names: &dyn Fn()| {
            let rules = vec![rule.clone()];
            let config =
                RedactionConfig { secrets: Secrets::Off, rules, ..RedactionConfig::default() };
            let set = RuleSet::compile(&config, [0; 32]).unwrap();
            set.of_agent(|| {
                names();
                ["fraud"].into_iter()
            })
        };
        assert_eq!(rules_of(&rule, &|| panic!("nobody asked")), 1);
        rule.agents = vec![Glob::try_from("support".to_owned()).unwrap()];
        assert_eq!(rules_of(&rule, &|| ()), 0);
    }
}
