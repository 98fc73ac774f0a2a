//! `throughline contract`: contracts are kept in the data directory and read there, beside a running server
//! or without one; steps are asked for there, and the server takes them.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::json;
use throughline_govern::contract::{
    CONTRACT_KIND, Contract, ContractDocument, Offer, Owner, VERSION_KIND, Version, read_contract,
};
use throughline_store::{Document, Governance, QueryError};
use throughline_trace::{Action, ContractStep, Operation, Subject};

use super::act::{perform, who};
use crate::args::{ContractAction, StepArgs};
use crate::commands::{of_control, of_query, stdin_text, write_json};
use crate::failure::{Failure, Outcome};
use crate::governing::now_unix_nano;
use crate::settings::Settings;
use crate::show::{BOLD, DIM, moment, one_line, short, styled};
use crate::table::{self, Cell, left};

/// Bytes of a contract at most.
const MAX_CONTRACT_BYTES: usize = 1 << 20;

/// Characters of an offer that a list shows.
const SHOWN_CHARS: usize = 80;

/// Runs one action on the data directory.
pub(crate) async fn run(settings: &Settings, action: ContractAction) -> Outcome {
    if !settings.data_dir.exists() {
        return Err(of_query(QueryError::NoStore(settings.data_dir.clone())));
    }
    let governance = Governance::open(&settings.data_dir).map_err(|error| of_control(&error))?;
    let (name, step, of) = match action {
        ContractAction::List { json } => return list(&governance, json),
        ContractAction::Show { name, json } => return show(&governance, &name, json),
        ContractAction::Propose { file, step } => {
            let ContractDocument { name, terms, measured_over_s, .. } = read(&file)?;
            (name, ContractStep::Propose { terms: terms.as_json(), measured_over_s }, step)
        }
        ContractAction::Counter { file, offer, step } => {
            let ContractDocument { name, terms, .. } = read(&file)?;
            (name, ContractStep::Counter { terms: terms.as_json(), offer }, step)
        }
        ContractAction::Accept { name, offer, step } => {
            (name, ContractStep::Accept { offer }, step)
        }
        ContractAction::Reject { name, offer, step } => {
            (name, ContractStep::Reject { offer }, step)
        }
        ContractAction::Withdraw { name, step } => (name, ContractStep::Withdraw, step),
        ContractAction::Restore { name, version, step } => {
            (name, ContractStep::Restore { version }, step)
        }
    };
    let StepArgs { reason, by, wait } = of;
    let known = governance.document(CONTRACT_KIND, &name).map_err(|error| of_control(&error))?;
    let known = known.map(|known| known.read::<Contract>()).transpose();
    let known = known.map_err(|error| of_control(&error))?;
    let subject = Subject::of("contract", name.as_str());
    let operation = Operation::Contract { contract: name, step };
    let action = Action {
        evidence: known.map(|known| known.evidence()).unwrap_or_default(),
        ..Action::of_person((&who(by), &reason), subject, operation, now_unix_nano())
    };
    perform(&governance, action, Duration::from_secs(wait)).await
}

fn read(file: &Path) -> Outcome<ContractDocument> {
    let (name, text) = match file.to_str() {
        Some("-") => ("standard input".to_owned(), stdin_text(MAX_CONTRACT_BYTES)?),
        _ => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::usage(format!("cannot read {}: {error}", file.display()))
            })?;
            (file.display().to_string(), text)
        }
    };
    read_contract(&text).map_err(|error| {
        Failure::usage(format!("{name}: {error}"))
            .hint("docs/governance.md tells what a contract may say")
    })
}

fn list(governance: &Governance, is_json: bool) -> Outcome {
    let documents = governance.documents(CONTRACT_KIND).map_err(|error| of_control(&error))?;
    let mut all = documents
        .iter()
        .map(Document::read::<Contract>)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| of_control(&error))?;
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out = anstream::stdout().lock();
    if is_json {
        return all.iter().try_for_each(|contract| write_json(&mut out, contract));
    }
    if all.is_empty() {
        return Ok(writeln!(anstream::stderr().lock(), "there are no contracts")?);
    }
    let columns =
        [left("NAME"), left("IN FORCE"), left("HELD BY"), left("PROPOSAL"), left("OFFER")];
    Ok(table::write(&mut out, &columns, all.iter().map(row).collect())?)
}

fn row(contract: &Contract) -> Vec<Cell> {
    let in_force = match contract.in_force {
        Some(version) => format!("version {version} of {}", contract.versions),
        None => format!("none of {}", contract.versions),
    };
    let held = match &contract.owner {
        Owner::Negotiated => String::new(),
        Owner::File { file } => one_line(file),
    };
    let (state, offer) = match &contract.proposal {
        None => (String::new(), String::new()),
        Some(proposal) => (
            format!("{} {}", proposal.number, proposal.state.as_str()),
            proposal.last().map(|offer| short(&offered(offer), SHOWN_CHARS)).unwrap_or_default(),
        ),
    };
    vec![contract.name.clone().into(), in_force.into(), held.into(), state.into(), offer.into()]
}

fn offered(offer: &Offer) -> String {
    let expect = offer.terms.expect().split_whitespace().collect::<Vec<_>>().join(" ");
    let objective = 100.0 * offer.terms.objective();
    format!("{}: {objective:.2} % {expect}", offer.side.as_str())
}

fn show(governance: &Governance, name: &str, is_json: bool) -> Outcome {
    let found = governance.document(CONTRACT_KIND, name).map_err(|error| of_control(&error))?;
    let Some(found) = found else {
        return Err(Failure::usage(format!("expected the name of a contract, got {name:?}"))
            .hint("`throughline contract list` has them"));
    };
    let contract: Contract = found.read().map_err(|error| of_control(&error))?;
    let history = governance.document_history(VERSION_KIND, name);
    let mut versions = Vec::new();
    for document in history.map_err(|error| of_control(&error))? {
        let version: Version = document.read().map_err(|error| of_control(&error))?;
        versions.push((document, version));
    }
    let mut out = anstream::stdout().lock();
    if is_json {
        let history: Vec<_> = versions
            .iter()
            .map(|(document, version)| {
                json!({
                    "version": document.version, "at_unix_nano": document.at_unix_nano,
                    "by": document.person, "agreed": version,
                })
            })
            .collect();
        return write_json(&mut out, &json!({"contract": contract, "history": history}));
    }
    Ok(write(&mut out, &contract, &versions)?)
}

fn write(
    out: &mut impl Write,
    contract: &Contract,
    versions: &[(Document, Version)],
) -> io::Result<()> {
    let zone = TimeZone::system();
    let by = |who: &str| if who.is_empty() { "measured".to_owned() } else { one_line(who) };
    let in_force = match contract.in_force {
        Some(version) => format!("version {version} is in force"),
        None => "not in force".to_owned(),
    };
    writeln!(out, "{}  {in_force}", styled(BOLD, &contract.name))?;
    if let Owner::File { file } = &contract.owner {
        writeln!(out, "held by {}: change it there", one_line(file))?;
    }
    if let Some(proposal) = &contract.proposal {
        let turn = match proposal.state.turn() {
            Some(side) => format!(", waits for the {}", side.as_str()),
            None => String::new(),
        };
        writeln!(out, "\nproposal {}: {}{turn}", proposal.number, proposal.state.as_str())?;
        for offer in &proposal.offers {
            let at = moment(offer.at_unix_nano, &zone);
            let at = styled(DIM, &at);
            writeln!(
                out,
                "  {at}  offer {} ({}): {}",
                offer.number,
                by(&offer.by),
                offered(offer)
            )?;
            if let Some(answer) = &offer.answer {
                writeln!(out, "    {}", one_line(&answer.told))?;
            }
        }
    }
    if versions.is_empty() {
        return writeln!(out, "\nno version was agreed yet");
    }
    writeln!(out, "\nversions")?;
    for (document, version) in versions {
        let at = moment(document.at_unix_nano, &zone);
        let at = styled(DIM, &at);
        let from = match version.file.is_empty() {
            true => by(&document.person),
            false => one_line(&version.file),
        };
        let expect = version.terms.expect().split_whitespace().collect::<Vec<_>>().join(" ");
        let objective = 100.0 * version.terms.objective();
        writeln!(out, "  {at}  {} ({from}): {objective:.2} % {expect}", document.version)?;
        if let Some(answer) = &version.evidence {
            writeln!(out, "    {}", one_line(&answer.told))?;
        }
    }
    Ok(())
}
