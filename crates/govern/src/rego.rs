//! Policies and contracts in Rego as files have them: inline, or in a `.rego` file beside.

use std::collections::BTreeMap;
use std::path::Path;

use serde_saphyr::{Location, Spanned};
use throughline_rules::rego::{InputShape, Question, RegoPolicy};

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

/// What a rule says in the place of CEL.
pub(crate) struct Told<'s> {
    /// `rego`: the policy itself.
    pub(crate) rego: Option<&'s Spanned<String>>,
    /// `rego_file`: the file it stands in.
    pub(crate) rego_file: Option<&'s Spanned<String>>,
    /// `query`: what is asked.
    pub(crate) query: Option<&'s Spanned<String>>,
}

impl Told<'_> {
    /// Compiles it; `text` is the document that it stands in.
    pub(crate) fn load(
        &self,
        text: &str,
        beside: Beside<'_>,
        shape: &InputShape,
    ) -> Result<RegoPolicy, Vec<Problem>> {
        let at = self.at();
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
            (Some(source), None) => RegoPolicy::compile(&source.value, &query.value, shape)
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
                RegoPolicy::compile(policy, &query.value, shape).map_err(|mistakes| {
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
