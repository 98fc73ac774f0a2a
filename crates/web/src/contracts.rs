//! Contracts as they are kept, for pages and lists. Nothing is measured here: what stands in a document was
//! when it was answered, and what is attained now is what the last round of rules said.

use throughline_govern::contract::{
    CONTRACT_KIND, Contract, Terms, VERSION_KIND, Version, objective_name,
};
use throughline_store::{ControlError, Document, Governance};

use crate::governance::Standing;

/// A contract with what is in force.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) contract: Contract,
    /// When it changed last, nanoseconds since the Unix epoch.
    pub(crate) at_unix_nano: u64,
    pub(crate) terms: Option<Terms>,
}

/// A version with who agreed to it last, and when.
#[derive(Debug, Clone)]
pub(crate) struct KeptVersion {
    pub(crate) number: u64,
    pub(crate) at_unix_nano: u64,
    /// Empty when what was measured decided.
    pub(crate) by: String,
    pub(crate) version: Version,
}

impl Kept {
    /// The share of calls that were as agreed over the window, as the last round has it.
    pub(crate) fn attained(&self, standing: &Standing) -> Option<f64> {
        let name = objective_name(&self.contract.name);
        self.contract.in_force?;
        standing.slos.iter().find(|slo| slo.slo == name)?.attainment
    }
}

/// All of them, by name; what cannot be read is told in the log and left out. It blocks for a moment.
pub(crate) fn all(governance: &Governance) -> Result<Vec<Kept>, ControlError> {
    let mut found = Vec::new();
    for document in governance.documents(CONTRACT_KIND)? {
        found.extend(kept(governance, &document)?);
    }
    found.sort_by(|a, b| a.contract.name.cmp(&b.contract.name));
    Ok(found)
}

/// One of them. It blocks for a moment.
pub(crate) fn one(governance: &Governance, name: &str) -> Result<Option<Kept>, ControlError> {
    match governance.document(CONTRACT_KIND, name)? {
        Some(document) => kept(governance, &document),
        None => Ok(None),
    }
}

/// The versions of one, the newest first. It blocks for a moment.
pub(crate) fn versions(
    governance: &Governance,
    name: &str,
) -> Result<Vec<KeptVersion>, ControlError> {
    let all = governance.document_history(VERSION_KIND, name)?;
    let version = |document: &Document| {
        let version = readable::<Version>(document)?;
        let (at_unix_nano, by) = (document.at_unix_nano, document.person.clone());
        Some(KeptVersion { number: document.version, at_unix_nano, by, version })
    };
    Ok(all.iter().filter_map(version).collect())
}

fn kept(governance: &Governance, document: &Document) -> Result<Option<Kept>, ControlError> {
    let Some(contract) = readable::<Contract>(document) else { return Ok(None) };
    let terms = match contract.in_force {
        Some(number) => governance.document_version(VERSION_KIND, &contract.name, number)?,
        None => None,
    };
    let terms = terms.as_ref().and_then(readable::<Version>).map(|version| version.terms);
    Ok(Some(Kept { contract, at_unix_nano: document.at_unix_nano, terms }))
}

fn readable<T: serde::de::DeserializeOwned>(document: &Document) -> Option<T> {
    let read = document.read();
    read.inspect_err(|error| tracing::error!(%error, "a contract cannot be read")).ok()
}
