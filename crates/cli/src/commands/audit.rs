//! `throughline audit`: verify, checkpoint, erase, hold, and see who read. Works beside a running
//! server: whatever it changes is a record of the same chain.

use std::io::Write as _;
use std::path::Path;

use jiff::tz::TimeZone;
use serde_json::json;
use throughline_store::{
    AnchorLines, AuditError, AuditFilter, AuditLog, ChainError, DecisionRead, Hold, ReadRecord,
    Verification, VerifyOptions, audit_hex,
};

use crate::anchors;
use crate::args::{AuditAction, FilterArgs, HoldAction};
use crate::commands::{of_open, of_query, write_json};
use crate::failure::{Exit, Failure, Outcome};
use crate::settings::Settings;
use crate::show::{self, BOLD, DIM, RED, moment, one_line, short, styled};
use crate::table::{self, Cell, left, right};

/// Most characters of a question or a reason in a list; `--json` has all of it.
const MAX_TEXT_CHARS: usize = 80;

/// Runs one action.
pub(crate) async fn run(settings: &Settings, action: AuditAction) -> Outcome {
    let audit = AuditLog::new(&settings.data_dir, settings.audit.keys.clone());
    match action {
        AuditAction::Verify { anchors, public_keys, json } => {
            verify(settings, &audit, &anchors, &public_keys, json).await
        }
        AuditAction::Checkpoint => checkpoint(&audit),
        AuditAction::Key { json } => key(&audit, json),
        AuditAction::Status { json } => status(&audit, json),
        AuditAction::Erase { filter, reason, dry_run, json } => {
            erase(&audit, &filter.into(), &reason, dry_run, json)
        }
        AuditAction::Hold { action } => hold(&audit, action),
        AuditAction::Reads { limit, json } => reads(&audit, limit, json),
    }
}

/// Notes that a command read decisions. A directory that cannot be written cannot be noted in:
/// that is said, and the answer is given all the same.
pub(crate) fn note_read(settings: &Settings, query: String, rows: usize) {
    let audit = AuditLog::new(&settings.data_dir, settings.audit.keys.clone());
    let read = DecisionRead { who: who(), via: "cli", query, rows: rows as u64 };
    if let Err(error) = audit.note_read(&read) {
        tracing::warn!(%error, "this read could not be noted in the audit log");
    }
}

/// Who runs the command, as far as the system says.
fn who() -> String {
    match std::env::var("USER").or_else(|_| std::env::var("LOGNAME")) {
        Ok(user) => format!("local ({user})"),
        Err(_) => "local".to_owned(),
    }
}

impl From<FilterArgs> for AuditFilter {
    fn from(args: FilterArgs) -> Self {
        Self {
            agent: args.agent,
            session: args.session,
            trace_id: args.trace,
            decision_id: args.decision,
            after_unix_nano: args.since,
            before_unix_nano: args.until,
        }
    }
}

fn of_audit(error: AuditError) -> Failure {
    match error {
        AuditError::Query(error) => of_query(error),
        AuditError::Open(error) => of_open(&error),
        AuditError::NoSuchHold(_) => super::advised(Exit::NotFound, &error.to_string()),
        AuditError::NoCondition | AuditError::Reason { .. } => Failure::usage(error),
        AuditError::Chain(ChainError::OtherKey { .. }) => {
            super::advised(Exit::Usage, &error.to_string())
        }
        error => super::advised(Exit::Failure, &error.to_string()),
    }
}

async fn verify(
    settings: &Settings,
    audit: &AuditLog,
    files: &[std::path::PathBuf],
    public_keys: &[String],
    json: bool,
) -> Outcome {
    let mut options = VerifyOptions::default();
    for text in public_keys {
        options.public_keys.push(parse_public_key(text)?);
    }
    let mut unread = Vec::new();
    for anchor in &settings.audit.anchors {
        match anchors::read(anchor).await {
            Ok(lines) => options.anchors.extend(lines),
            Err(error) => {
                unread.push(format!("the anchor {} cannot be read: {error}", anchor.name))
            }
        }
    }
    for file in files {
        options.anchors.push(read_anchor(file)?);
    }
    let found = audit.verify(&options).map_err(of_audit)?;
    let failing: Vec<_> =
        audit.anchors().map_err(of_audit)?.into_iter().filter(|state| state.failures > 0).collect();
    let mut out = anstream::stdout().lock();
    if json {
        let mut answer = json!(found);
        answer["is_good"] = json!(found.is_good());
        answer["anchors_failing"] = json!(failing);
        answer["anchors_unread"] = json!(unread);
        write_json(&mut out, &answer)?;
    } else {
        report(&mut out, &found)?;
        for state in &failing {
            let error = state.error.as_deref().unwrap_or("no reason");
            writeln!(
                out,
                "anchor {} fails ({} times): {}",
                one_line(&state.name),
                state.failures,
                one_line(error)
            )?;
        }
        unread.iter().try_for_each(|line| writeln!(out, "{}", one_line(line)))?;
    }
    if found.is_good() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Tampered,
        format!(
            "the audit log does not verify: {}",
            show::counted(found.problem_count(), "problem", "problems")
        ),
    )
    .hint("docs/audit.md says what each problem means and what to do"))
}

fn report(out: &mut impl std::io::Write, found: &Verification) -> Outcome {
    for problem in &found.problems {
        writeln!(out, "{}", styled(RED, &one_line(&problem.to_string())))?;
    }
    if found.further_problems > 0 {
        writeln!(out, "and {} more", show::count(found.further_problems))?;
    }
    let verdict = if found.is_good() { "the chain verifies" } else { "the chain does not verify" };
    writeln!(out, "{}", styled(BOLD, verdict))?;
    writeln!(out, "log {}, head {} at record {}", found.log, found.head, found.head_number)?;
    writeln!(
        out,
        "{}, {} with content, {} erased, {} retired",
        show::counted(found.records, "record", "records"),
        show::counted(found.decisions, "decision", "decisions"),
        show::count(found.erased),
        show::count(found.retired),
    )?;
    let last = found.last_checkpoint_number.map(|number| format!(", the last at record {number}"));
    writeln!(
        out,
        "{}{}",
        show::counted(found.checkpoints, "checkpoint", "checkpoints"),
        last.unwrap_or_default()
    )?;
    for anchor in &found.anchors {
        writeln!(
            out,
            "anchor {}: {} of {} agree, up to record {}",
            one_line(&anchor.name),
            anchor.agreed,
            show::counted(anchor.checkpoints, "checkpoint", "checkpoints"),
            anchor.highest_number
        )?;
    }
    if found.anchors.is_empty() {
        writeln!(
            out,
            "no anchor was looked at: a tail that was cut off with its checkpoints is not seen"
        )?;
    }
    Ok(())
}

fn parse_public_key(text: &str) -> Outcome<[u8; 32]> {
    let wrong = || {
        Failure::usage(format!("expected a public key of 64 hexadecimal digits, got {text:?}"))
            .hint("`throughline audit key` prints it")
    };
    let digits = text.trim();
    if digits.len() != 64 || !digits.is_ascii() {
        return Err(wrong());
    }
    let mut key = [0; 32];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(key)
}

fn read_anchor(path: &Path) -> Outcome<AnchorLines> {
    let lines = anchors::lines_of(path).map_err(|error| {
        Failure::usage(format!("cannot read the anchor {}: {error}", path.display()))
    })?;
    Ok(AnchorLines { name: path.display().to_string(), lines })
}

fn checkpoint(audit: &AuditLog) -> Outcome {
    let made = audit.checkpoint().map_err(of_audit)?.ok_or_else(|| {
        Failure::not_found("the chain has no record yet: there is nothing to vouch for")
    })?;
    Ok(writeln!(anstream::stdout().lock(), "{}", made.to_line())?)
}

fn key(audit: &AuditLog, json: bool) -> Outcome {
    let status = audit.status().map_err(of_audit)?;
    let mut out = anstream::stdout().lock();
    let public = audit_hex(&status.public_key);
    if json {
        let answer = json!({
            "key_id": status.key_id, "public_key": public, "is_external": status.is_key_external,
        });
        return write_json(&mut out, &answer);
    }
    writeln!(out, "{public}")?;
    if !status.is_key_external {
        writeln!(
            anstream::stderr().lock(),
            "the key lies in control.db, beside what it protects; name one outside with audit.key_file"
        )?;
    }
    Ok(())
}

fn status(audit: &AuditLog, json: bool) -> Outcome {
    let status = audit.status().map_err(of_audit)?;
    let mut out = anstream::stdout().lock();
    if json {
        return write_json(&mut out, &throughline_web::audit_status_json(&status));
    }
    let zone = TimeZone::system();
    writeln!(
        out,
        "log {}, head {} at record {}",
        status.log,
        audit_hex(&status.head),
        status.head_number
    )?;
    let place = if status.is_key_external { "outside the data directory" } else { "in control.db" };
    writeln!(out, "key {} ({place}), public {}", status.key_id, audit_hex(&status.public_key))?;
    match &status.checkpoint {
        Some(last) => writeln!(
            out,
            "{}, the last at record {}, {}",
            show::counted(status.checkpoints, "checkpoint", "checkpoints"),
            last.number,
            moment(last.time_unix_nano, &zone)
        )?,
        None => writeln!(out, "no checkpoint yet")?,
    }
    match &status.verification {
        Some(last) => writeln!(
            out,
            "verified {} up to record {}: {}",
            moment(last.time_unix_nano, &zone),
            last.head_number,
            show::counted(last.problems, "problem", "problems")
        )?,
        None => writeln!(out, "never verified by the server")?,
    }
    for anchor in &status.anchors {
        let error = anchor.error.as_deref().map(|error| format!(", fails: {}", one_line(error)));
        writeln!(
            out,
            "anchor {} ({}): up to record {}{}",
            one_line(&anchor.name),
            one_line(&anchor.kind),
            anchor.last_number,
            error.unwrap_or_default()
        )?;
    }
    Ok(())
}

fn erase(
    audit: &AuditLog,
    filter: &AuditFilter,
    reason: &str,
    dry_run: bool,
    json: bool,
) -> Outcome {
    let mut out = anstream::stdout().lock();
    if dry_run {
        let count = audit.count(filter).map_err(of_audit)?;
        if json {
            return write_json(&mut out, &json!({ "decisions": count, "is_dry_run": true }));
        }
        return Ok(writeln!(out, "would erase {}", show::counted(count, "decision", "decisions"))?);
    }
    let erased = audit.erase(filter, reason, &who()).map_err(of_audit)?;
    if erased.decisions == 0 {
        return Err(Failure::not_found("no decision fits"));
    }
    if json {
        return write_json(&mut out, &erased);
    }
    let records: Vec<_> = erased.records.iter().map(ToString::to_string).collect();
    writeln!(
        out,
        "erased {}; the chain says so in record {}",
        show::counted(erased.decisions, "decision", "decisions"),
        records.join(", ")
    )?;
    if !erased.is_log_clean {
        writeln!(
            anstream::stderr().lock(),
            "a reader is in the way: old pages stay in control.db-wal until the server writes over them or stops"
        )?;
    }
    Ok(())
}

fn hold(audit: &AuditLog, action: HoldAction) -> Outcome {
    let mut out = anstream::stdout().lock();
    match action {
        HoldAction::Add { filter, reason } => {
            let made = audit.hold(&filter.into(), &reason, &who()).map_err(of_audit)?;
            Ok(writeln!(out, "{}", made.id)?)
        }
        HoldAction::Release { id } => {
            let hold = audit.release(&id, &who()).map_err(of_audit)?;
            writeln!(
                anstream::stderr().lock(),
                "released hold {} ({})",
                hold.id,
                one_line(&hold.reason)
            )?;
            Ok(())
        }
        HoldAction::List { json } => {
            let holds = audit.holds().map_err(of_audit)?;
            if json {
                return holds.iter().try_for_each(|hold| write_json(&mut out, hold));
            }
            let zone = TimeZone::system();
            let columns = [
                left("ID"),
                left("SINCE"),
                left("RELEASED"),
                left("BY"),
                left("KEEPS"),
                left("REASON"),
            ];
            let rows = holds.iter().map(|hold| hold_row(hold, &zone)).collect();
            Ok(table::write(&mut out, &columns, rows)?)
        }
    }
}

fn hold_row(hold: &Hold, zone: &TimeZone) -> Vec<Cell> {
    let released = hold.released_unix_nano.map(|at| moment(at, zone));
    let keeps = json!(hold.filter).to_string();
    vec![
        one_line(&hold.id).into(),
        Cell::styled(moment(hold.created_unix_nano, zone), DIM),
        Cell::styled(released.unwrap_or_default(), DIM),
        one_line(&hold.by).into(),
        short(&one_line(&keeps), MAX_TEXT_CHARS).into(),
        short(&one_line(&hold.reason), MAX_TEXT_CHARS).into(),
    ]
}

fn reads(audit: &AuditLog, limit: usize, json: bool) -> Outcome {
    let reads = audit.reads(None, limit).map_err(of_audit)?;
    let mut out = anstream::stdout().lock();
    if json {
        return reads.iter().try_for_each(|read| write_json(&mut out, read));
    }
    let zone = TimeZone::system();
    let columns =
        [left("LAST"), left("WHO"), left("VIA"), right("TIMES"), right("ROWS"), left("WHAT")];
    Ok(table::write(&mut out, &columns, reads.iter().map(|read| read_row(read, &zone)).collect())?)
}

fn read_row(read: &ReadRecord, zone: &TimeZone) -> Vec<Cell> {
    vec![
        Cell::styled(moment(read.last_unix_nano, zone), DIM),
        one_line(&read.who).into(),
        one_line(&read.via).into(),
        show::count(read.times).into(),
        show::count(read.rows).into(),
        short(&one_line(&read.query), MAX_TEXT_CHARS).into(),
    ]
}
