//! Contracts of rule files and contracts that were negotiated, side by side.

use std::sync::atomic::Ordering;

use throughline_govern::contract::Owner;
use throughline_govern::slo::Source;
use throughline_govern::{Rules, read_rules};
use throughline_store::{ControlError, Evaluation};
use throughline_trace::{Action, ContractStep, Operation, Subject};

use super::{Contracts, lock};
use crate::governing::RuleText;

/// Characters of a hash that tells two texts apart.
const HASH_CHARS: usize = 16;

impl Contracts {
    /// Notes what the rule files hold now.
    pub(in crate::governing) fn set_files(&self, rules: &Rules) {
        *lock(&self.in_files) = rules.contracts.clone();
        self.has_changed.store(true, Ordering::Release);
    }

    /// Whether what is counted and watched must be put together anew; then it is noted as done.
    pub(in crate::governing) fn take_change(&self) -> bool {
        self.has_changed.swap(false, Ordering::AcqRel)
    }

    /// Has it put together once more.
    pub(in crate::governing) fn try_again(&self) {
        self.has_changed.store(true, Ordering::Release);
    }

    /// The rules of the files' texts with the contracts that are in force and that no file holds. One that
    /// cannot be read any more is told, and left out.
    pub(in crate::governing) fn beside(
        &self,
        rules: &Rules,
        texts: &[RuleText],
    ) -> Result<Rules, ControlError> {
        let mut negotiated = Vec::new();
        for kept in self.all()?.iter() {
            let contract = &kept.contract;
            let (Some(version), Some(terms)) = (contract.in_force, &kept.terms) else { continue };
            let is_held = rules.contracts.contains_key(&contract.name);
            if is_held || contract.owner != Owner::Negotiated {
                continue;
            }
            let name = format!("contract {}, version {version}", contract.name);
            let text = terms.document(&contract.name);
            match read_rules(&[Source { name: &name, text: &text }]) {
                Ok(_) => negotiated.push(RuleText { name, text }),
                Err(error) => tracing::error!(%error, "a contract is not watched"),
            }
        }
        if negotiated.is_empty() {
            return Ok(rules.clone());
        }
        let read = |beside: &[RuleText]| {
            let all = texts.iter().chain(beside);
            let sources: Vec<Source<'_>> =
                all.map(|one| Source { name: &one.name, text: &one.text }).collect();
            read_rules(&sources)
        };
        if let Ok(all) = read(&negotiated) {
            return Ok(all);
        }
        // One that does not fit the files (they hold as many policies as there may be, or an SLO of its
        // name) must not take the others along.
        let (mut fitting, mut found) = (Vec::new(), rules.clone());
        for one in negotiated {
            let name = one.name.clone();
            fitting.push(one);
            match read(&fitting) {
                Ok(all) => found = all,
                Err(error) => {
                    tracing::error!(%error, name, "it does not fit the rule files, and is not watched");
                    fitting.pop();
                }
            }
        }
        Ok(found)
    }

    /// Asks for what the rule files changed: contracts that they hold or no longer hold, and proposals.
    pub(in crate::governing) fn follow_files(
        &self,
        rules: &Rules,
        now: u64,
        evaluation: &mut Evaluation,
    ) -> Result<(), ControlError> {
        let all = self.all()?;
        let known = |name: &str| all.iter().find(|kept| kept.contract.name == name);
        for (name, here) in &rules.contracts {
            let kept = known(name);
            if let Some(kept) = kept
                && kept.contract.owner == (Owner::File { file: here.file.clone() })
                && kept.terms.as_ref() == Some(&here.terms)
            {
                continue;
            }
            let terms = here.terms.as_json();
            let file = here.file.clone();
            let id = id(name, "load", kept.map_or(0, |kept| kept.document), &(&terms, &file));
            let step = ContractStep::Load { terms, file };
            let word = (here.file.as_str(), "the rule file holds these terms");
            evaluation.actions.push(of_file(id, (name, step), word, now));
        }
        for kept in all.iter().filter(|kept| !rules.contracts.contains_key(&kept.contract.name)) {
            let Owner::File { file } = &kept.contract.owner else { continue };
            let name = &kept.contract.name;
            let id = id(name, "unload", kept.document, &());
            let word = (file.as_str(), "the rule file holds it no longer");
            evaluation.actions.push(of_file(id, (name, ContractStep::Unload), word, now));
        }
        for (name, (here, measured_over_s)) in &rules.proposals {
            // What was proposed once is not proposed again when it was answered.
            let terms = here.terms.as_json();
            let id = id(name, "propose", 0, &(&terms, measured_over_s));
            let step = ContractStep::Propose { terms, measured_over_s: *measured_over_s };
            let word = (here.file.as_str(), "the rule file proposes these terms");
            evaluation.actions.push(of_file(id, (name, step), word, now));
        }
        Ok(())
    }
}

fn of_file(
    id: String,
    (contract, step): (&str, ContractStep),
    word: (&str, &str),
    now: u64,
) -> Action {
    let operation = Operation::Contract { contract: contract.to_owned(), step };
    // A file is a person's word: no pause of automatic actions stands against it.
    Action { id, ..Action::of_person(word, Subject::of("contract", contract), operation, now) }
}

/// The same words at the same state of a contract, the same id.
fn id(name: &str, what: &str, document: u64, words: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(words).unwrap_or_default();
    let hash = blake3::hash(text.as_bytes()).to_hex();
    format!("contract/{name}/{what}/{document}/{}", &hash[..HASH_CHARS])
}
