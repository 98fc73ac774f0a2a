//! `throughline keys`: they are changed in the data directory; a running server notices.

use std::io::Write as _;

use jiff::tz::TimeZone;
use throughline_store::{Control, QueryError};
use throughline_trace::access::{ApiKey, Scope};

use crate::args::KeysAction;
use crate::commands::{of_control, of_query, write_json};
use crate::failure::Outcome;
use crate::settings::Settings;
use crate::show::{DIM, RED, moment, one_line};
use crate::table::{self, Cell, left};

/// Runs one action on the keys of the data directory.
pub(crate) fn run(settings: &Settings, action: KeysAction) -> Outcome {
    if !matches!(action, KeysAction::Create { .. }) && !settings.data_dir.exists() {
        return Err(of_query(QueryError::NoStore(settings.data_dir.clone())));
    }
    let control = Control::open(&settings.data_dir).map_err(|error| of_control(&error))?;
    match action {
        KeysAction::Create { name, scopes } => create(&control, &name, scopes),
        KeysAction::List { json } => list(&control, json),
        KeysAction::Revoke { id } => revoke(&control, &id),
    }
}

/// The key alone goes to stdout, so that a script can take it: `KEY=$(throughline keys create …)`.
fn create(control: &Control, name: &str, mut scopes: Vec<Scope>) -> Outcome {
    scopes.sort();
    scopes.dedup();
    let (text, key) = control.create_key(name, &scopes).map_err(|error| of_control(&error))?;
    writeln!(anstream::stdout().lock(), "{text}")?;
    writeln!(
        anstream::stderr().lock(),
        "created key {} ({}) for {}; it is shown this once and cannot be read again\n\
         send it as `Authorization: Bearer KEY`, with OpenTelemetry as \
         OTEL_EXPORTER_OTLP_HEADERS=\"authorization=Bearer KEY\"",
        key.id,
        one_line(&key.name),
        joined(&key.scopes),
    )?;
    Ok(())
}

fn list(control: &Control, json: bool) -> Outcome {
    let keys = control.list_keys().map_err(|error| of_control(&error))?;
    let mut out = anstream::stdout().lock();
    if json {
        return keys.iter().try_for_each(|key| write_json(&mut out, key));
    }
    if keys.is_empty() {
        writeln!(
            anstream::stderr().lock(),
            "there are no keys; create one with `throughline keys create --name NAME --scope ingest`"
        )?;
        return Ok(());
    }
    let zone = TimeZone::system();
    let rows = keys.iter().map(|key| row(key, &zone)).collect();
    let columns = [left("ID"), left("NAME"), left("SCOPES"), left("CREATED"), left("REVOKED")];
    Ok(table::write(&mut out, &columns, rows)?)
}

fn row(key: &ApiKey, zone: &TimeZone) -> Vec<Cell> {
    let revoked = key.revoked_unix_nano.map(|at| moment(at, zone));
    vec![
        one_line(&key.id).into(),
        one_line(&key.name).into(),
        joined(&key.scopes).into(),
        Cell::styled(moment(key.created_unix_nano, zone), DIM),
        Cell::styled(revoked.unwrap_or_default(), RED),
    ]
}

fn revoke(control: &Control, id: &str) -> Outcome {
    let key = control.revoke_key(id).map_err(|error| of_control(&error))?;
    writeln!(anstream::stderr().lock(), "revoked key {} ({})", key.id, one_line(&key.name))?;
    Ok(())
}

fn joined(scopes: &[Scope]) -> String {
    scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(",")
}
