//! Files with rules: OpenSLO documents, and documents of our own (`apiVersion: throughline/v1`). A file
//! holds documents of one `apiVersion`; which kinds there are is told by [`KINDS`].

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::Location;

use crate::contract::{ContractFile, Terms, Watched};
use crate::experiment::{self, ExperimentSpec};
use crate::policy::{Policy, PolicyFile, Vocabulary};
use crate::rego::{Beside, REGO_ENDING};
use crate::rollout::{self, RolloutSpec, SpecMistake};
use crate::signals::{CompositeSignal, Problem, Problems};
use crate::slo::{Slo, Source, read_openslo};

/// The `apiVersion` of our own documents.
pub const API_VERSION: &str = "throughline/v1";

/// Kinds of our own documents.
pub const KINDS: [&str; 5] = ["Contract", "Experiment", "Policy", "Rollout", "Signal"];

/// What files say.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// SLOs, and the objectives that contracts are watched by.
    pub slos: Vec<Slo>,
    /// Rollouts by name.
    pub rollouts: BTreeMap<String, RolloutSpec>,
    /// Experiments by name.
    pub experiments: BTreeMap<String, ExperimentSpec>,
    /// Signals of the team's own by name.
    pub signals: BTreeMap<String, CompositeSignal>,
    /// Policies by name, and what is done while contracts are broken.
    pub policies: BTreeMap<String, Policy>,
    /// Contracts by name; each is also among the SLOs and the policies.
    pub contracts: BTreeMap<String, InFile>,
    /// Proposals of contracts by name, each with the seconds over which it is measured where it says them.
    pub proposals: BTreeMap<String, (InFile, Option<u64>)>,
    /// What is allowed and will surprise, one text each.
    pub notes: Vec<String>,
}

/// A contract, or the proposal of one, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct InFile {
    /// The name of the source.
    pub file: String,
    /// What it says.
    pub terms: Terms,
}

/// All that is wrong with files, each with its place and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesError(pub Vec<String>);

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for RulesError {}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<T> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default, rename = "displayName")]
    _display_name: String,
}

/// Reads files that belong together.
///
/// # Errors
/// [`RulesError`]: all that is wrong, with file, line and column.
pub fn read_rules(sources: &[Source<'_>]) -> Result<Rules, RulesError> {
    let (mut rules, mut wrong) = (Rules::default(), Vec::new());
    let (mut openslo, mut policies) = (Vec::new(), Vec::new());
    let (modules, sources): (Vec<&Source<'_>>, Vec<&Source<'_>>) =
        sources.iter().partition(|source| source.name.ends_with(REGO_ENDING));
    let modules: BTreeMap<String, &str> =
        modules.into_iter().map(|one| (one.name.to_owned(), one.text)).collect();
    for source in sources {
        let parts: Vec<(usize, &str)> = documents(source.text);
        let is_ours = parts.iter().any(|(_, text)| {
            serde_saphyr::from_str::<Header>(text)
                .is_ok_and(|header| header.api_version == API_VERSION)
        });
        if is_ours {
            for (line, text) in parts {
                let beside = Beside { file: source.name, texts: &modules };
                let place = Place { file: source.name, line, text, beside };
                match read(place, &mut rules) {
                    Ok(policy) => policies.extend(policy.map(|policy| (place, policy))),
                    Err(mistake) => wrong.push(mistake),
                }
            }
        } else {
            openslo.push(*source);
        }
    }
    match read_openslo(&openslo) {
        Ok(found) => {
            rules.slos.splice(0..0, found.slos);
            rules.notes.extend(found.notes.iter().map(ToString::to_string));
        }
        Err(mistakes) => wrong.extend(mistakes.0.iter().map(ToString::to_string)),
    }
    // What policies may speak of is known when all else is read.
    if wrong.is_empty() {
        wrong = load_policies(policies, &mut rules);
    }
    if wrong.is_empty() { Ok(rules) } else { Err(RulesError(wrong)) }
}

/// A document with its file and the number of lines before it.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    line: usize,
    text: &'a str,
    beside: Beside<'a>,
}

/// Puts policies beside what they speak of; answers what is wrong with them.
fn load_policies(
    policies: Vec<(Place<'_>, (String, PolicyFile))>,
    rules: &mut Rules,
) -> Vec<String> {
    let slos = rules.slos.iter().map(|slo| slo.name.clone()).collect();
    let vocabulary = Vocabulary::new(rules.signals.keys().cloned().collect(), slos);
    let mut wrong = Vec::new();
    for (Place { file, line, text, beside }, (name, told)) in policies {
        let first = format!("{file}:{}:1", line + 1);
        match told.load(&name, text, &vocabulary, beside) {
            Ok(policy) => {
                rules.notes.extend(policy.notes().map(|note| format!("{first}: {note}")));
                if rules.policies.insert(name.clone(), policy).is_some() {
                    wrong.push(format!(
                        "{first}: expected each policy and contract to have a name of its own, got {name:?} twice"
                    ));
                }
            }
            Err(problems) => wrong.push(place(file, line, &problems)),
        }
    }
    if rules.policies.len() > MAX_POLICIES {
        let got = rules.policies.len();
        wrong.push(format!("expected at most {MAX_POLICIES} policies in all files, got {got}"));
    }
    wrong
}

/// The documents of a file that say anything, each with the number of lines before it.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut begin, mut first_line) = (0, 0);
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_end() == "---" {
            found.push((first_line, &text[begin..at]));
            (begin, first_line) = (at + line.len(), number + 1);
        }
        at += line.len();
    }
    found.push((first_line, &text[begin..]));
    let is_said = |part: &str| {
        part.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    };
    found.retain(|(_, part)| is_said(part));
    found
}

/// Takes a document in; a policy is answered, for when what it speaks of is known.
fn read(
    Place { file, line, text, beside }: Place<'_>,
    rules: &mut Rules,
) -> Result<Option<(String, PolicyFile)>, String> {
    let at = |error: &serde_saphyr::Error| explain(file, line, error);
    let header: Header = serde_saphyr::from_str(text).map_err(|error| at(&error))?;
    let first = format!("{file}:{}:1", line + 1);
    if header.api_version != API_VERSION {
        let got = header.api_version;
        return Err(format!(
            "{first}: expected `apiVersion: {API_VERSION}`, got {got:?}; a file holds documents of one apiVersion"
        ));
    }
    match header.kind.as_str() {
        "Policy" => return parse::<PolicyFile>(file, line, text).map(Some),
        "Contract" => {
            let (name, told) = parse::<ContractFile>(file, line, text)?;
            return contract(Place { file, line, text, beside }, &name, told, rules);
        }
        "Rollout" => {
            let (name, spec) = parse::<RolloutSpec>(file, line, text)?;
            spec.check()
                .map_err(|wrong| place(file, line, &placed(wrong, &rollout::places(text))))?;
            if rules.rollouts.insert(name.clone(), spec).is_some() {
                return Err(format!(
                    "{first}: expected each rollout to have a name of its own, got {name:?} twice"
                ));
            }
        }
        "Experiment" => {
            let (name, spec) = parse::<ExperimentSpec>(file, line, text)?;
            spec.check()
                .map_err(|wrong| place(file, line, &placed(wrong, &experiment::places(text))))?;
            if rules.experiments.insert(name.clone(), spec).is_some() {
                return Err(format!(
                    "{first}: expected each experiment to have a name of its own, got {name:?} twice"
                ));
            }
        }
        "Signal" => {
            let signal = CompositeSignal::parse(text).map_err(|wrong| place(file, line, &wrong))?;
            let name = signal.name.clone();
            rules.notes.extend(signal.warnings.iter().map(|note| format!("{first}: {note}")));
            if rules.signals.insert(name.clone(), signal).is_some() {
                return Err(format!(
                    "{first}: expected each signal to have a name of its own, got {name:?} twice"
                ));
            }
        }
        other => {
            let kinds = KINDS.join(", ");
            return Err(format!("{first}: expected a kind ({kinds}), got {other:?}"));
        }
    }
    Ok(None)
}

/// Mistakes with their places in the document.
fn placed(wrong: Vec<SpecMistake>, places: &BTreeMap<String, Location>) -> Problems {
    let placed = |SpecMistake { part, message }: SpecMistake| {
        let (line, column) = places.get(&part).map_or((1, 1), |at| (at.line(), at.column()));
        Problem { line, column, message, hint: String::new() }
    };
    let mut wrong: Vec<Problem> = wrong.into_iter().map(placed).collect();
    wrong.sort_by_key(|problem| (problem.line, problem.column));
    Problems(wrong)
}

/// Takes a contract in, or the proposal of one: which is not watched.
fn contract(
    Place { file, line, text, beside }: Place<'_>,
    name: &str,
    told: ContractFile,
    rules: &mut Rules,
) -> Result<Option<(String, PolicyFile)>, String> {
    let first = format!("{file}:{}:1", line + 1);
    let proposed = told.proposed();
    let Watched { slo, policy } =
        told.load(name, text, beside).map_err(|wrong| place(file, line, &wrong))?;
    let terms = Terms::of_document(text).map_err(|error| format!("{first}: {error}"))?;
    if rules.proposals.contains_key(name)
        || proposed.is_some() && rules.contracts.contains_key(name)
    {
        return Err(format!(
            "{first}: expected each contract and proposal to have a name of its own, got {name:?} twice"
        ));
    }
    let here = InFile { file: file.to_owned(), terms };
    if let Some(over_s) = proposed {
        rules.proposals.insert(name.to_owned(), (here, over_s));
        return Ok(None);
    }
    rules.contracts.insert(name.to_owned(), here);
    rules.slos.push(slo);
    Ok(Some(policy))
}

fn parse<T: DeserializeOwned>(file: &str, line: usize, text: &str) -> Result<(String, T), String> {
    let document: Document<T> =
        serde_saphyr::from_str(text).map_err(|error| explain(file, line, &error))?;
    let name = document.metadata.name;
    check_name(&name).map_err(|error| format!("{file}:{}:1: {error}", line + 1))?;
    Ok((name, document.spec))
}

/// Refuses what is no name of a rule.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(is_name) {
        return Err(format!(
            "expected a metadata.name of 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`, got {name:?}"
        ));
    }
    Ok(())
}

/// Policies in all files at most.
pub const MAX_POLICIES: usize = 200;

/// Longest name of a rule, bytes.
const MAX_NAME_BYTES: usize = 100;

/// What is wrong with a document, with the places that it has in the file.
fn place(file: &str, line: usize, wrong: &Problems) -> String {
    let told = |problem: &Problem| {
        let (of_document, column) = (problem.line.max(1), problem.column.max(1));
        let placed = Problem { line: line as u64 + of_document, column, ..problem.clone() };
        format!("{file}:{placed}")
    };
    wrong.0.iter().map(told).collect::<Vec<_>>().join("\n")
}

fn explain(file: &str, line: usize, error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    let text = error.to_string();
    match error.location() {
        Some(at) => {
            let (of_file, column) = (line as u64 + at.line(), at.column());
            // The place is told once, as that of the file.
            let text = text.split(" at line ").next().unwrap_or(&text).to_owned();
            format!("{file}:{of_file}:{column}: {text}")
        }
        None => format!("{file}:{}:1: {text}", line + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rego_files;

    const ROLLOUT: &str = "
apiVersion: throughline/v1
kind: Rollout
metadata: {name: card-screening}
spec:
  agent: card_screening
  route: card_screening_prompt
  stable: v1.2.3
  steps: [{weight: 50, hold_s: 60}]
";

    fn of(text: &str) -> Result<Rules, RulesError> {
        read_rules(&[Source { name: "rules.yaml", text }])
    }

    #[test]
    fn documents_of_a_file_are_read_one_by_one() {
        let text =
            format!("# nothing\n---\n{ROLLOUT}---\n{}", ROLLOUT.replace("card-screening", "other"));
        let rules = of(&text).unwrap();
        assert_eq!(rules.rollouts.len(), 2);
        assert_eq!(rules.rollouts["other"].steps[0].weight, 50);
    }

    #[test]
    fn experiments_are_read_and_their_mistakes_have_a_place() {
        let text = "
apiVersion: throughline/v1
kind: Experiment
metadata: {name: answers}
spec:
  agent: support
  metric: success_rate
  min_effect: 0.02
  share: 20
";
        let rules = of(&format!("{ROLLOUT}---{text}")).unwrap();
        assert_eq!(rules.experiments["answers"].config().treatment_share, 0.2);
        let wrong = |text: &str| of(&format!("{ROLLOUT}---{text}")).unwrap_err().to_string();
        assert_eq!(
            wrong(&text.replace("share: 20", "share: 0")),
            "rules.yaml:18:10: expected a share of 1 to 99 percent, got 0"
        );
        let metric = wrong(&text.replace("success_rate", "joy"));
        assert!(metric.starts_with("rules.yaml:16:11: unknown variant `joy`"), "{metric}");
        let twice = wrong(&format!("{text}---{text}"));
        assert!(twice.starts_with("rules.yaml:20:1: expected each experiment"), "{twice}");
    }

    const SIGNAL: &str = "
apiVersion: throughline/v1
kind: Signal
metadata: {name: checkout_score}
spec:
  direction: down_is_bad
  indicators: {fallback_activation_ratio: }
  formula: 0.5*fallback_activation_ratio
";

    #[test]
    fn signals_are_read_beside_rollouts_and_their_mistakes_have_a_place() {
        let rules = of(&format!("{ROLLOUT}---{SIGNAL}")).unwrap();
        assert_eq!(rules.rollouts.len(), 1);
        assert_eq!(rules.signals["checkout_score"].formula(), "0.5*fallback_activation_ratio");
        insta::assert_snapshot!(rules.notes.join("\n"), @"rules.yaml:11:1: more fallback_activation_ratio is worse, and yet it makes checkout_score look better");
        let wrong = |text: &str| of(&format!("{ROLLOUT}---{text}")).unwrap_err().to_string();
        insta::assert_snapshot!(wrong(&SIGNAL.replace("0.5*fallback", "0.5*fall")));
        insta::assert_snapshot!(wrong(&SIGNAL.replace("direction", "directions")));
        insta::assert_snapshot!(wrong(&format!("{SIGNAL}---{SIGNAL}")), @r#"rules.yaml:19:1: expected each signal to have a name of its own, got "checkout_score" twice"#);
        let long = format!("{SIGNAL}#{}", " ".repeat(crate::signals::MAX_SIGNAL_FILE_BYTES));
        insta::assert_snapshot!(wrong(&long), @"rules.yaml:11:1: expected at most 65536 bytes, got 65726");
    }

    #[test]
    fn every_file_that_is_shipped_is_read() {
        fn files(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    files(&path, found);
                } else if path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml") {
                    found.push(path);
                }
            }
        }
        let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        let mut found = Vec::new();
        files(&deploy, &mut found);
        found.sort();
        let mut told = String::new();
        for file in found {
            let text = std::fs::read_to_string(&file).unwrap();
            let shown = file.strip_prefix(&deploy).unwrap().display().to_string();
            let name = file.file_name().unwrap().to_str().unwrap();
            let beside: Vec<(String, String)> = rego_files(&text)
                .into_iter()
                .map(|name| (std::fs::read_to_string(file.with_file_name(&name)).unwrap(), name))
                .map(|(text, name)| (name, text))
                .collect();
            let mut sources = vec![Source { name, text: &text }];
            sources.extend(beside.iter().map(|(name, text)| Source { name, text }));
            let rules = read_rules(&sources).unwrap_or_else(|wrong| panic!("{shown}: {wrong}"));
            let slos: Vec<&str> = rules.slos.iter().map(|slo| slo.name.as_str()).collect();
            let rollouts: Vec<&String> = rules.rollouts.keys().collect();
            let signals: Vec<&String> = rules.signals.keys().collect();
            let policies: Vec<&String> = rules.policies.keys().collect();
            let experiments: Vec<&String> = rules.experiments.keys().collect();
            let of_slos = slos.len() + rollouts.len() + experiments.len();
            let all = of_slos + signals.len() + policies.len();
            assert!(all > 0, "{shown} says nothing");
            told += &format!(
                "{shown}: SLOs {slos:?}, rollouts {rollouts:?}, experiments {experiments:?}, signals {signals:?}, policies {policies:?}\n"
            );
            rules.notes.iter().for_each(|note| told += &format!("  {note}\n"));
        }
        insta::assert_snapshot!(told);
    }

    #[test]
    fn mistakes_are_told_with_their_place_in_the_file() {
        let wrong = |text: &str| of(text).unwrap_err().to_string();
        let text = format!("{ROLLOUT}---\n{}", ROLLOUT.replace("route:", "rout:"));
        insta::assert_snapshot!(wrong(&text));
        insta::assert_snapshot!(wrong(&ROLLOUT.replace("kind: Rollout", "kind: Rolout")), @r#"rules.yaml:1:1: expected a kind (Contract, Experiment, Policy, Rollout, Signal), got "Rolout""#);
        insta::assert_snapshot!(wrong(&ROLLOUT.replace("weight: 50", "weight: 500")), @"rules.yaml:9:20: expected step 1 to have a weight of 1 to 99 percent, got 500; leave it out: behind the last step the candidate becomes stable and has all traffic");
        let many = ROLLOUT.replace("stable: v1.2.3", "stable: ''")
            + "  analysis:\n    alpha: 2\n    min_events: 0\n";
        insta::assert_snapshot!(wrong(&format!("{ROLLOUT}---{many}")), @r"
        rules.yaml:17:11: expected stable to name something, got an empty text
        rules.yaml:20:12: expected analysis.alpha to be above 0 and below 0.5, got 2
        rules.yaml:21:17: expected analysis.min_events to be at least 1, got 0
        ");
        insta::assert_snapshot!(wrong(&ROLLOUT.replace("[{weight: 50, hold_s: 60}]", "[]")), @"rules.yaml:9:10: expected at least one step, got none");
        insta::assert_snapshot!(wrong(&format!("{ROLLOUT}---{ROLLOUT}")), @r#"rules.yaml:11:1: expected each rollout to have a name of its own, got "card-screening" twice"#);
    }
}
