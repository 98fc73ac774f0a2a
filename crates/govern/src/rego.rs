//! Policies and contracts in Rego as files have them: inline, or in a `.rego` file beside.

use std::collections::BTreeMap;
use std::path::Path;

use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};
use throughline_rules::rego::{
    InputShape, MAX_RANGE, MAX_TEXT_BYTES, MAX_TIME, Question, RegoLimits, RegoPolicy,
};

use crate::signals::Problem;

/// The ending of a file with a policy.
pub(crate) const REGO_ENDING: &str = ".rego";

/// The `.rego` files that were read along, and the file that speaks of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside<'a> {
    /// The file with the rule.
    pub(crate) file: &'a str,
    /// Texts by the names that messages call them.
    pub(crate) texts: &'a BTreeMap<String, &'a str>,
}

impl<'a> Beside<'a> {
    /// The file of a name in the same folder: what messages call it, and its text.
    fn find(&self, name: &str) -> Option<(&'a str, &'a str)> {
        let path = Path::new(self.file).with_file_name(name);
        let (name, text) = self.texts.get_key_value(path.to_str()?)?;
        Some((name, text))
    }
}

/// `rego_limits`: what one evaluation may cost, where it is not the usual.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsFile {
    /// How long it may take, milliseconds.
    time_ms: Option<Spanned<u64>>,
    /// Largest text, bytes.
    text_bytes: Option<Spanned<u64>>,
    /// Largest array of `numbers.range`, elements.
    range: Option<Spanned<u64>>,
}

/// What an evaluation may cost where nothing is said, and how long it may be given at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usual {
    /// Where nothing is said.
    pub(crate) limits: RegoLimits,
    /// Longest time that may be asked for.
    pub(crate) max_time: Duration,
}

impl Usual {
    /// Of policies, which are asked once a minute.
    pub(crate) fn of_policies() -> Self {
        Self { limits: RegoLimits::default(), max_time: MAX_TIME }
    }
}

impl LimitsFile {
    /// The limits that are meant.
    fn read(&self, usual: Usual, wrong: &mut Vec<Problem>) -> RegoLimits {
        let mut limit = |what: &str, told: &Option<Spanned<u64>>, usual: u64, most: u64| {
            let Some(told) = told else { return usual };
            if !(1..=most).contains(&told.value) {
                let message = format!("expected `{what}` to be 1 to {most}, got {}", told.value);
                wrong.push(Problem::at(told.referenced, message, ""));
            }
            told.value
        };
        let RegoLimits { time, text_bytes, range } = usual.limits;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let time_ms = limit("time_ms", &self.time_ms, ms(time), ms(usual.max_time));
        let text = limit("text_bytes", &self.text_bytes, text_bytes as u64, MAX_TEXT_BYTES as u64);
        RegoLimits {
            time: Duration::from_millis(time_ms),
            text_bytes: usize::try_from(text).unwrap_or(usize::MAX),
            range: limit("range", &self.range, range, MAX_RANGE),
        }
    }
}

/// What limits add to what a rule means: nothing where they are the usual ones.
pub(crate) fn meaning_of(limits: RegoLimits, usual: RegoLimits) -> String {
    let RegoLimits { time, text_bytes, range } = limits;
    match limits == usual {
        true => String::new(),
        false => format!(" within {} ms, {text_bytes} bytes, {range} numbers", time.as_millis()),
    }
}

/// What a rule says in the place of CEL.
pub(crate) struct Told<'s> {
    /// `rego`: the policy itself.
    pub(crate) rego: Option<&'s Spanned<String>>,
    /// `rego_file`: the file it stands in.
    pub(crate) rego_file: Option<&'s Spanned<String>>,
    /// `query`: what is asked.
    pub(crate) query: Option<&'s Spanned<String>>,
    /// `rego_limits`: what it may cost.
    pub(crate) limits: Option<&'s LimitsFile>,
}

impl Told<'_> {
    /// Compiles it; `text` is the document that it stands in.
    pub(crate) fn load(
        &self,
        text: &str,
        beside: Beside<'_>,
        shape: &InputShape,
        usual: Usual,
    ) -> Result<RegoPolicy, Vec<Problem>> {
        let at = self.at();
        let mut wrong = Vec::new();
        let limits = self.limits.map_or(usual.limits, |told| told.read(usual, &mut wrong));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let Some(query) = self.query else {
            let message = "expected `query`: the rule of the policy that is asked for";
            let hint = "query: data.PACKAGE.violation (or .deny, .allow)";
            return Err(vec![Problem::at(at, message, hint)]);
        };
        if Question::of_query(&query.value).is_none() {
            let message = format!(
                "expected a query that ends in allow, deny or violation, got `{}`",
                query.value
            );
            return Err(vec![Problem::at(
                query.referenced,
                message,
                "write it as data.PACKAGE.violation",
            )]);
        }
        match (self.rego, self.rego_file) {
            (Some(source), None) => RegoPolicy::compile(&source.value, &query.value, shape, limits)
                .map_err(|mistakes| Problem::of_expression(text, source, &mistakes)),
            (None, Some(file)) => {
                let Some((name, policy)) = beside.find(&file.value) else {
                    let message = format!(
                        "expected a file beside this one that ends in {REGO_ENDING}, got `{}`",
                        file.value
                    );
                    return Err(vec![Problem::at(
                        at,
                        message,
                        "name it without its folder, on a line of its own: rego_file: NAME.rego",
                    )]);
                };
                RegoPolicy::compile(policy, &query.value, shape, limits).map_err(|mistakes| {
                    let told = mistakes.0.into_iter().map(|one| {
                        let message =
                            format!("{name}:{}:{}: {}", one.line, one.column, one.message);
                        Problem::at(file.referenced, message, one.hint.unwrap_or_default())
                    });
                    told.collect()
                })
            }
            _ => {
                let message = "expected one of `rego` and `rego_file`, got both";
                Err(vec![Problem::at(at, message, "")])
            }
        }
    }

    /// Where it is said.
    pub(crate) fn at(&self) -> Location {
        let first = self.rego.or(self.rego_file).or(self.query);
        first.map_or(Location::UNKNOWN, |told| told.referenced)
    }
}

/// The names of `.rego` files that a file with rules speaks of, whatever else is wrong with it.
pub fn rego_files(text: &str) -> Vec<String> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("rego_file:"));
    let bare = named.map(|name| {
        let name = name.split(" #").next().unwrap_or_default().trim();
        name.trim_matches(|c| matches!(c, '"' | '\'')).to_owned()
    });
    bare.filter(|name| {
        name.ends_with(REGO_ENDING) && Path::new(name).file_name() == Some(name.as_ref())
    })
    .collect()
}
