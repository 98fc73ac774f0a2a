//! `throughline act`: the switch and the list are in the data directory, beside a running server or
//! without one; what is to be done is asked for there, and the server does it.

use std::env;
use std::io::Write as _;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use serde_json::json;
use throughline_act::{ActConfig, ManifestOptions, Standing, manifests};
use throughline_store::{
    ActionRecord, ActionState, Evaluation, Governance, MAX_GOVERNANCE_LIST, QueryError,
};
use throughline_trace::{Action, Operation, Subject};

use crate::args::ActAction;
use crate::commands::{of_control, of_query, stdin_text, write_json};
use crate::failure::{Exit, Failure, Outcome};
use crate::governing::now_unix_nano;
use crate::settings::Settings;
use crate::show::{DIM, RED, moment, one_line, short};
use crate::table::{self, Cell, left};

/// Bytes of an operation at most.
const MAX_OPERATION_BYTES: usize = 1 << 20;

/// How often it is looked whether the server has done it.
const POLL: Duration = Duration::from_millis(100);

/// Characters of what became of an action that a list shows.
const SHOWN_CHARS: usize = 60;

/// Runs one action on the data directory.
pub(crate) async fn run(settings: &Settings, act: &ActConfig, action: ActAction) -> Outcome {
    if !settings.data_dir.exists() {
        return Err(of_query(QueryError::NoStore(settings.data_dir.clone())));
    }
    let governance = Governance::open(&settings.data_dir).map_err(|error| of_control(&error))?;
    match action {
        ActAction::Pause { reason, by } => switch(&governance, true, &who(by), &reason),
        ActAction::Resume { by } => switch(&governance, false, &who(by), ""),
        ActAction::Status { json } => status(&governance, json),
        ActAction::List { state, limit, json } => list(&governance, state.as_deref(), limit, json),
        ActAction::Manifests { gateway, namespace, port } => {
            print_manifests(&governance, act, &ManifestOptions { gateway, namespace, port })
        }
        ActAction::Run { operation, reason, subject, by, dry_run, wait } => {
            let action = asked(&operation, &reason, &subject, &who(by), dry_run)?;
            perform(&governance, action, Duration::from_secs(wait)).await
        }
    }
}

/// Who asks: as said, or the user of this shell.
pub(super) fn who(by: Option<String>) -> String {
    let user = || env::var("USER").or_else(|_| env::var("LOGNAME")).ok();
    by.or_else(user).filter(|name| !name.is_empty()).unwrap_or_else(|| "somebody".to_owned())
}

fn switch(governance: &Governance, is_on: bool, by: &str, reason: &str) -> Outcome {
    governance.set_pause(is_on, by, reason).map_err(|error| of_control(&error))?;
    let told = match is_on {
        true => "automatic actions are paused until `throughline act resume`",
        false => "automatic actions go on",
    };
    Ok(writeln!(anstream::stderr().lock(), "{told}")?)
}

fn status(governance: &Governance, is_json: bool) -> Outcome {
    let pause = governance.pause().map_err(|error| of_control(&error))?;
    let actions = governance.actions(None, 0).map_err(|error| of_control(&error))?;
    let count = |state| actions.iter().filter(|one| one.state == state).count();
    let mut out = anstream::stdout().lock();
    if is_json {
        let mut told = json!({
            "is_paused": pause.is_on, "person": pause.person, "reason": pause.reason,
            "among_last": actions.len(),
        });
        for state in ActionState::ALL {
            told[state.as_str()] = count(state).into();
        }
        return write_json(&mut out, &told);
    }
    if pause.is_on {
        let at = moment(pause.at_unix_nano, &TimeZone::system());
        let why = if pause.reason.is_empty() { "no reason given" } else { &pause.reason };
        writeln!(out, "paused by {} since {at}: {}", one_line(&pause.person), one_line(why))?;
    } else {
        writeln!(out, "automatic actions are on")?;
    }
    let counts: Vec<String> = ActionState::ALL
        .into_iter()
        .map(|state| format!("{} {}", count(state), state.as_str()))
        .collect();
    writeln!(out, "of the last {} actions: {}", actions.len(), counts.join(", "))?;
    Ok(())
}

fn list(governance: &Governance, state: Option<&str>, limit: usize, is_json: bool) -> Outcome {
    let state = match state {
        None => None,
        Some(text) => {
            let found = ActionState::ALL.into_iter().find(|state| state.as_str() == text);
            Some(found.ok_or_else(|| {
                Failure::usage(format!(
                    "expected asked, done, failed, refused or dry_run as --state, got {text:?}"
                ))
            })?)
        }
    };
    let limit = limit.clamp(1, MAX_GOVERNANCE_LIST);
    let actions = governance.actions(state, limit).map_err(|error| of_control(&error))?;
    let mut out = anstream::stdout().lock();
    if is_json {
        return actions.iter().try_for_each(|record| write_json(&mut out, &as_json(record)));
    }
    if actions.is_empty() {
        return Ok(writeln!(anstream::stderr().lock(), "there are no such actions")?);
    }
    let zone = TimeZone::system();
    let rows = actions.iter().map(|record| row(record, &zone)).collect();
    let columns = [
        left("AT"),
        left("KIND"),
        left("SUBJECT"),
        left("RULE"),
        left("STATE"),
        left("WHAT BECAME OF IT"),
    ];
    Ok(table::write(&mut out, &columns, rows)?)
}

fn as_json(record: &ActionRecord) -> serde_json::Value {
    json!({
        "action": record.action, "state": record.state.as_str(), "detail": record.detail,
        "decision_id": record.decision_id,
    })
}

fn row(record: &ActionRecord, zone: &TimeZone) -> Vec<Cell> {
    let ActionRecord { action, state, detail, .. } = record;
    let rule = if action.rule.is_empty() { "(a person)" } else { &action.rule };
    let state = match state {
        ActionState::Failed | ActionState::Refused => Cell::styled(state.as_str().to_owned(), RED),
        _ => state.as_str().to_owned().into(),
    };
    vec![
        Cell::styled(moment(action.at_unix_nano, zone), DIM),
        action.operation.kind().to_owned().into(),
        one_line(&action.subject.to_string()).into(),
        one_line(rule).into(),
        state,
        short(&one_line(detail), SHOWN_CHARS).into(),
    ]
}

fn print_manifests(governance: &Governance, act: &ActConfig, options: &ManifestOptions) -> Outcome {
    if act.xds.routes.is_empty() {
        return Err(Failure::usage("expected routes in `act.xds.routes`, got none")
            .hint("docs/acting.md tells what `act:` may say"));
    }
    let set = Standing(governance).weights().map_err(|error| of_control(&error))?;
    write_json(&mut anstream::stdout().lock(), &manifests(&act.xds, &set, options))
}

/// The action that the arguments ask for.
fn asked(
    operation: &str,
    reason: &str,
    subject: &[String],
    by: &str,
    is_dry_run: bool,
) -> Outcome<Action> {
    let text = match operation {
        "-" => stdin_text(MAX_OPERATION_BYTES)?,
        text => text.to_owned(),
    };
    let operation: Operation = serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("expected an operation as JSON: {error}"))
            .hint("docs/acting.md lists the operations and their fields")
    })?;
    let mut about = Subject::default();
    for pair in subject {
        let (label, value) = pair.split_once('=').ok_or_else(|| {
            Failure::usage(format!("expected --subject LABEL=VALUE, got {pair:?}"))
        })?;
        about = about.and(label, value);
    }
    let asked = Action::of_person((by, reason), about, operation, now_unix_nano());
    Ok(Action { is_dry_run, ..asked })
}

/// Asks for an action and waits until the server has done it.
pub(super) async fn perform(governance: &Governance, action: Action, wait: Duration) -> Outcome {
    let id = action.id.clone();
    let evaluation = Evaluation { actions: vec![action], ..Evaluation::default() };
    governance.commit(&evaluation).map_err(|error| of_control(&error))?;
    let until = Instant::now() + wait;
    loop {
        let record = governance.action(&id).map_err(|error| of_control(&error))?;
        if let Some(record) = record.filter(|record| record.state != ActionState::Asked) {
            write_json(&mut anstream::stdout().lock(), &as_json(&record))?;
            return match record.state {
                ActionState::Done | ActionState::DryRun => Ok(()),
                state => {
                    let detail = one_line(&record.detail);
                    Err(Failure::new(Exit::Failure, format!("{}: {detail}", state.as_str())))
                }
            };
        }
        if Instant::now() >= until {
            let waited = wait.as_secs();
            return Err(Failure::new(
                Exit::Busy,
                format!("the action {id} is asked for, and was not done within {waited} s"),
            )
            .hint("a running server does it; `throughline act list` tells how it stands"));
        }
        tokio::time::sleep(POLL).await;
    }
}
