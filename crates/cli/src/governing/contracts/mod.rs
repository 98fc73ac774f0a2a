//! Contracts as they are negotiated: every step is an action, what becomes of it is a document, and what is
//! in force is read beside the rule files.

mod follow;
mod measure;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use throughline_act::Performed;
use throughline_govern::InFile;
use throughline_govern::contract::{
    CONTRACT_KIND, Contract, ProposalState, Step, Terms, VERSION_KIND, Verdict, Version,
};
use throughline_store::{ControlError, Document, Governance};
use throughline_trace::{Action, ContractStep, Operation};

use measure::Measuring;

/// Contracts at most, those of files too; each is also a policy, of which there may be so many more.
const MAX_CONTRACTS: usize = 100;

/// Proposals that wait for an answer at most: each has the store count up to fourteen things of each call.
const MAX_OPEN: usize = 20;

/// Pause after the disk did not take something, or somebody else wrote.
const STORAGE_PAUSE: Duration = Duration::from_secs(1);

/// Seconds of a day.
const DAY_S: u64 = 24 * 3_600;

/// All contracts.
pub(crate) struct Contracts {
    governance: Governance,
    /// What the rule files hold, by name.
    in_files: Mutex<BTreeMap<String, InFile>>,
    /// What is kept; `None` when it must be read anew.
    kept: Mutex<Option<Arc<Vec<Kept>>>>,
    /// Whether what is counted and watched must be put together anew.
    has_changed: AtomicBool,
    measuring: Mutex<Measuring>,
}

/// A contract as its document has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    contract: Contract,
    /// The last action that changed it: it is done once, though it be asked for again after a crash.
    action: String,
    /// The version of the document.
    #[serde(skip)]
    document: u64,
    /// What is in force.
    #[serde(skip)]
    terms: Option<Terms>,
}

impl Contracts {
    pub(crate) fn new(governance: Governance) -> Arc<Self> {
        Arc::new(Self {
            governance,
            in_files: Mutex::default(),
            kept: Mutex::default(),
            has_changed: AtomicBool::new(true),
            measuring: Mutex::default(),
        })
    }

    /// Does what an action asks of a contract.
    pub(crate) async fn perform(self: Arc<Self>, action: Action) -> Performed {
        let done = tokio::task::spawn_blocking(move || self.change(&action)).await;
        match done {
            Ok(Ok(performed)) => performed,
            Ok(Err(error)) => Performed::Later(error.to_string(), STORAGE_PAUSE),
            Err(error) => Performed::Later(error.to_string(), STORAGE_PAUSE),
        }
    }

    fn change(&self, action: &Action) -> Result<Performed, ControlError> {
        let Operation::Contract { contract: name, step } = &action.operation else {
            return Ok(Performed::Failed("expected an operation of contracts".to_owned()));
        };
        let step = match self.understood(name, step, action) {
            Ok(step) => step,
            Err(wrong) => return Ok(Performed::Failed(wrong)),
        };
        // Only actions change contracts, and they are done one at a time.
        let found = self.governance.document(CONTRACT_KIND, name)?;
        let kept: Option<Kept> = found.as_ref().map(Document::read).transpose()?;
        if let Some(objection) = self.objection(name, kept.as_ref(), &step)? {
            return Ok(Performed::Refused(objection));
        }
        if kept.as_ref().is_some_and(|kept| kept.action == action.id) {
            return Ok(Performed::Done("it was done before".to_owned()));
        }
        let known = kept.map_or_else(|| Contract::new(name), |kept| kept.contract);
        let document = found.as_ref().map_or(0, |found| found.version);
        let in_force = self.terms_in_force(&known)?;
        // Empty for what was measured.
        let by = action.person().unwrap_or_default().to_owned();
        let taken = known.step(step, in_force.as_ref(), (&by, action.at_unix_nano));
        let (contract, version) = match taken {
            Ok(taken) => taken,
            Err(illegal) => return Ok(Performed::Refused(illegal.to_string())),
        };
        if let Some(version) = &version
            && !self.write_version(&contract, version, &by)?
        {
            let other = "another version has this number";
            return Ok(Performed::Later(other.to_owned(), STORAGE_PAUSE));
        }
        let kept = Kept { contract, action: action.id.clone(), document: 0, terms: None };
        let body = serde_json::to_string(&kept).unwrap_or_default();
        let written = self.governance.write_document(CONTRACT_KIND, name, document, &by, &body)?;
        if written.is_none() {
            return Ok(Performed::Later("somebody else changed it".to_owned(), STORAGE_PAUSE));
        }
        *lock(&self.kept) = None;
        self.has_changed.store(true, Ordering::Release);
        Ok(Performed::Done(told(&kept.contract)))
    }

    /// Writes the version that a step made; `false` when another one has its number. The same one is there
    /// when the server stopped between it and the contract.
    fn write_version(
        &self,
        contract: &Contract,
        version: &Version,
        by: &str,
    ) -> Result<bool, ControlError> {
        let (name, number) = (&contract.name, contract.versions);
        let body = serde_json::to_string(version).unwrap_or_default();
        let before = number.saturating_sub(1);
        let governance = &self.governance;
        if governance.write_document(VERSION_KIND, name, before, by, &body)?.is_some() {
            return Ok(true);
        }
        let newest = governance.document(VERSION_KIND, name)?;
        Ok(newest.is_some_and(|newest| newest.version == number && newest.body == body))
    }

    /// The terms that hold; `None` also when their version is not there.
    fn terms_in_force(&self, contract: &Contract) -> Result<Option<Terms>, ControlError> {
        let Some(version) = contract.in_force else { return Ok(None) };
        let found = self.governance.document_version(VERSION_KIND, &contract.name, version)?;
        Ok(found.map(|found| found.read::<Version>()).transpose()?.map(|version| version.terms))
    }

    /// The step that is meant.
    fn understood(&self, name: &str, step: &ContractStep, action: &Action) -> Result<Step, String> {
        let is_rule = !action.rule.is_empty();
        Ok(match step {
            ContractStep::Propose { terms, measured_over_s } => {
                Step::Propose(Terms::read(name, terms)?, *measured_over_s)
            }
            ContractStep::Accept { offer } => Step::Accept(*offer),
            ContractStep::Counter { terms, offer } => {
                Step::Counter(Terms::read(name, terms)?, *offer)
            }
            ContractStep::Reject { offer } => Step::Reject(*offer),
            ContractStep::Answer { proposal, offer, measured } if is_rule => Step::Answer {
                proposal: *proposal,
                offer: *offer,
                measured: serde_json::from_value(measured.clone()).map_err(|e| e.to_string())?,
                evidence: action.evidence.clone(),
            },
            ContractStep::Withdraw => Step::Withdraw,
            ContractStep::Restore { version } => Step::Restore(*version),
            ContractStep::Load { terms, file } => {
                let in_files = lock(&self.in_files);
                let held = in_files.get(name);
                let is_so =
                    held.is_some_and(|held| held.file == *file && held.terms.as_json() == *terms);
                match held {
                    Some(held) if is_so => Step::Load(held.terms.clone(), file.clone()),
                    _ => {
                        return Err(format!(
                            "expected what the rule files hold, got other terms of {name}"
                        ));
                    }
                }
            }
            ContractStep::Unload if !lock(&self.in_files).contains_key(name) => Step::Unload,
            ContractStep::Unload => return Err(format!("a rule file holds {name}")),
            ContractStep::Answer { .. } => {
                return Err(
                    "expected an answer that was measured; a person accepts, counters or rejects"
                        .to_owned(),
                );
            }
        })
    }

    /// What stands against a step whatever the contract says.
    fn objection(
        &self,
        name: &str,
        kept: Option<&Kept>,
        step: &Step,
    ) -> Result<Option<String>, ControlError> {
        let all = self.all()?;
        if kept.is_none() {
            if !matches!(step, Step::Propose(..) | Step::Load(..)) {
                return Ok(Some(format!(
                    "expected a contract that is kept, got {name:?}: propose it first"
                )));
            }
            if all.len() >= MAX_CONTRACTS {
                return Ok(Some(format!("expected at most {MAX_CONTRACTS} contracts")));
            }
        }
        if !matches!(step, Step::Propose(..)) {
            return Ok(None);
        }
        // Before its document knows of the file that was loaded just now.
        if let Some(held) = lock(&self.in_files).get(name) {
            return Ok(Some(format!(
                "{name} is held by the rule file {}: change it there, or remove it from there first",
                held.file
            )));
        }
        let open = all.iter().filter(|one| one.contract.open().is_some()).count();
        Ok((open >= MAX_OPEN).then(|| {
            format!("expected at most {MAX_OPEN} open proposals: answer or reject one first")
        }))
    }

    /// What is kept. It is read once, until something changes it.
    fn all(&self) -> Result<Arc<Vec<Kept>>, ControlError> {
        let mut known = lock(&self.kept);
        if let Some(known) = &*known {
            return Ok(Arc::clone(known));
        }
        let mut all = Vec::new();
        for found in self.governance.documents(CONTRACT_KIND)? {
            match found.read::<Kept>() {
                Ok(kept) => {
                    let terms = self.terms_in_force(&kept.contract)?;
                    all.push(Kept { document: found.version, terms, ..kept });
                }
                Err(error) => {
                    tracing::error!(%error, "a contract cannot be read and is not watched")
                }
            }
        }
        all.sort_by(|a, b| a.contract.name.cmp(&b.contract.name));
        let all = Arc::new(all);
        *known = Some(Arc::clone(&all));
        Ok(all)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a contract stands after a step, one sentence.
fn told(contract: &Contract) -> String {
    let in_force = match contract.in_force {
        Some(version) => format!("version {version} of {} is in force", contract.name),
        None => format!("no version of {} is in force", contract.name),
    };
    let Some(proposal) = &contract.proposal else { return in_force };
    let Some(last) = proposal.last() else { return in_force };
    let (number, over) = (proposal.number, days(proposal.measured_over_s));
    let answer = proposal.offers.iter().rev().find_map(|offer| offer.answer.as_ref());
    let of_proposal = match proposal.state {
        ProposalState::Proposed => format!(
            "offer {} of proposal {number} waits for {}, whose answer is measured over {over}",
            last.number,
            last.terms.provider()
        ),
        ProposalState::Insufficient => match answer.map(|answer| &answer.verdict) {
            Some(Verdict::Insufficient { more_calls }) => format!(
                "proposal {number} has insufficient data: at least {more_calls} more calls are needed"
            ),
            _ => format!("proposal {number} has insufficient data"),
        },
        ProposalState::Countered => format!(
            "offer {} of proposal {number} waits for {}",
            last.number,
            last.terms.consumer()
        ),
        ProposalState::Accepted => return in_force,
        ProposalState::Rejected => format!("proposal {number} is rejected"),
        ProposalState::Superseded => return in_force,
    };
    format!("{of_proposal}; {in_force}")
}

fn days(seconds: u64) -> String {
    match seconds {
        DAY_S => "a day".to_owned(),
        of_days if of_days.is_multiple_of(DAY_S) => format!("{} days", of_days / DAY_S),
        other => format!("{} hours", other / 3_600),
    }
}
