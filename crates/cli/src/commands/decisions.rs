//! `throughline decisions`: a list, newest first; with `--follow` it goes on as they arrive.

use std::collections::HashSet;
use std::io::Write as _;
use std::time::Duration;

use jiff::tz::TimeZone;
use throughline_store::{DecisionFilter, Reader};
use throughline_trace::{Decision, DecisionId};

use crate::args::DecisionsArgs;
use crate::commands::audit::note_read;
use crate::commands::{PAGE_ROWS, of_query, open_reader, write_json};
use crate::failure::{Failure, Outcome};
use crate::settings::Settings;
use crate::show::{self, DIM, YELLOW, one_line, short, styled};
use crate::table::{self, Cell, left, right};

/// Most characters of a reason in the list; `--json` has all of it.
const MAX_REASON_CHARS: usize = 100;
/// Most characters of an agent, stage or action in the list.
const MAX_WORD_CHARS: usize = 28;
/// How often `--follow` looks.
const FOLLOW_POLL: Duration = Duration::from_secs(1);
/// How far `--follow` looks back for late arrivals, decisions.
const FOLLOW_WINDOW: usize = 1_000;

/// Prints decisions.
pub(crate) async fn run(settings: &Settings, args: &DecisionsArgs) -> Outcome {
    let reader = open_reader(settings)?;
    let filter = DecisionFilter {
        agent: args.agent.clone(),
        session: args.session.clone(),
        stage: args.stage.clone(),
        action: args.action.clone(),
        model_version: args.model_version.clone(),
        input_hash: args.input_hash.clone(),
        instance: args.instance.clone(),
        derived: args.derived,
        trace_id: args.trace,
        text: args.text.clone(),
        min_confidence: args.min_confidence,
        max_confidence: args.max_confidence,
        after_unix_nano: args.list.since,
        before_unix_nano: args.list.until,
    };
    if args.follow {
        // What arrives later is not known yet; that somebody watched is.
        note_read(settings, format!("{} follow", question(args)), 0);
        return follow(&reader, &filter, args).await;
    }
    let found = match args.id {
        Some(id) => vec![one(&reader, id).await?],
        None => newest(&reader, &filter, args.list.limit).await?,
    };
    note_read(settings, question(args), found.len());
    let mut out = anstream::stdout().lock();
    if args.list.json {
        return found
            .iter()
            .try_for_each(|found| write_json(&mut out, &throughline_web::decision_json(found)));
    }
    if found.is_empty() {
        writeln!(anstream::stderr().lock(), "no decisions fit")?;
        return Ok(());
    }
    let zone = TimeZone::system();
    let columns = [
        left("TAKEN"),
        left("AGENT"),
        left("STAGE"),
        left("ACTION"),
        right("SURE"),
        left("TRACE"),
        left("REASON"),
    ];
    table::write(&mut out, &columns, found.iter().map(|found| row(found, &zone)).collect())?;
    Ok(())
}

/// What was asked, for the log of reads.
fn question(args: &DecisionsArgs) -> String {
    let mut text = "decisions".to_owned();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!(" {name}={value}"));
        }
    };
    add("id", args.id.map(|id| id.to_string()));
    add("agent", args.agent.clone());
    add("session", args.session.clone());
    add("stage", args.stage.clone());
    add("action", args.action.clone());
    add("model_version", args.model_version.clone());
    add("input_hash", args.input_hash.clone());
    add("instance", args.instance.clone());
    add("derived", args.derived.map(|derived| derived.to_string()));
    add("trace_id", args.trace.map(|id| id.to_string()));
    add("text", args.text.clone());
    add("min_confidence", args.min_confidence.map(|share| share.to_string()));
    add("max_confidence", args.max_confidence.map(|share| share.to_string()));
    text
}

async fn one(reader: &Reader, id: DecisionId) -> Outcome<Decision> {
    reader.decision(id).await.map_err(of_query)?.ok_or_else(|| {
        Failure::not_found(format!("no decision {id}"))
            .hint("list them with `throughline decisions`")
    })
}

async fn newest(reader: &Reader, filter: &DecisionFilter, limit: usize) -> Outcome<Vec<Decision>> {
    let mut found = Vec::new();
    let mut cursor = None;
    while found.len() < limit {
        let rows = PAGE_ROWS.min(limit - found.len());
        let page = reader.decisions(filter, cursor.as_deref(), rows).await.map_err(of_query)?;
        found.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    Ok(found)
}

/// Prints the newest ones oldest first, then goes on until it is interrupted or nobody reads.
/// Decisions that arrive late, with an older time, are printed when they arrive.
async fn follow(reader: &Reader, filter: &DecisionFilter, args: &DecisionsArgs) -> Outcome {
    let zone = TimeZone::system();
    let mut shown: Option<HashSet<DecisionId>> = None;
    loop {
        let window = newest(reader, filter, FOLLOW_WINDOW.max(args.list.limit)).await?;
        let is_new = |found: &&Decision| {
            shown.as_ref().is_none_or(|shown| !shown.contains(&found.decision_id))
        };
        let most = if shown.is_none() { args.list.limit } else { usize::MAX };
        let news: Vec<&Decision> = window.iter().filter(is_new).take(most).collect();
        {
            let mut out = anstream::stdout().lock();
            for found in news.iter().rev() {
                if args.list.json {
                    write_json(&mut out, &throughline_web::decision_json(found))?;
                } else {
                    writeln!(out, "{}", line(found, &zone))?;
                }
            }
            out.flush()?;
        }
        shown = Some(window.iter().map(|found| found.decision_id).collect());
        tokio::time::sleep(FOLLOW_POLL).await;
    }
}

fn row(found: &Decision, zone: &TimeZone) -> Vec<Cell> {
    let word = |text: &str| Cell::from(short(&one_line(text), MAX_WORD_CHARS));
    vec![
        Cell::styled(show::moment(found.timestamp_ns, zone), DIM),
        word(&found.agent_id),
        word(&found.stage),
        Cell::styled(short(&one_line(&found.action), MAX_WORD_CHARS), YELLOW),
        sureness(found).into(),
        found.trace_id.map(|id| id.to_string()).unwrap_or_default().into(),
        short(&one_line(&found.reason), MAX_REASON_CHARS).into(),
    ]
}

/// One decision without columns to align: what comes next is not known yet.
fn line(found: &Decision, zone: &TimeZone) -> String {
    let trace = found.trace_id.map(|id| id.to_string()).unwrap_or_default();
    format!(
        "{}  {}  {}: {} {}  {}  {}",
        styled(DIM, &show::moment(found.timestamp_ns, zone)),
        one_line(&found.agent_id),
        one_line(&found.stage),
        styled(YELLOW, &one_line(&found.action)),
        sureness(found),
        trace,
        short(&one_line(&found.reason), MAX_REASON_CHARS),
    )
}

/// How sure the agent was; or that no agent told the decision, and so nobody says.
fn sureness(found: &Decision) -> String {
    match found.confidence {
        Some(confidence) => format!("{confidence:.2}"),
        None if found.derived => "derived".to_owned(),
        None => String::new(),
    }
}
