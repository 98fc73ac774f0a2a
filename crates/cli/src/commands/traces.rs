//! `throughline traces`: a list, newest first.

use std::io::{IsTerminal as _, Write as _};

use jiff::tz::TimeZone;
use throughline_store::{SearchQuery, TraceFilter};
use throughline_trace::{FallbackState, TraceSummary};

use crate::args::TracesArgs;
use crate::commands::{PAGE_ROWS, of_query, open_reader, write_json};
use crate::failure::{Failure, Outcome};
use crate::settings::Settings;
use crate::show::{self, DIM, RED, YELLOW, one_line, short};
use crate::table::{self, Cell, left, right};

/// Most characters of a name in the list.
const MAX_NAME_CHARS: usize = 48;
/// Most characters of an agent in the list.
const MAX_AGENT_CHARS: usize = 24;

/// Prints traces, newest first.
pub(crate) async fn run(settings: &Settings, args: &TracesArgs) -> Outcome {
    let reader = open_reader(settings)?;
    let filter = TraceFilter {
        agent: args.agent.clone(),
        session: args.session.clone(),
        user: args.user.clone(),
        model: args.model.clone(),
        service: args.service.clone(),
        error: args.error.then_some(true),
        fallback: args.fallback,
        min_duration_ms: args.min_duration,
        max_duration_ms: args.max_duration,
        text: args.text.clone(),
        start_after_unix_nano: args.list.since,
        start_before_unix_nano: args.list.until,
        query: args.query.as_deref().map(parse_query).transpose()?,
    };
    let mut found: Vec<TraceSummary> = Vec::new();
    let (mut cursor, mut traces_cut) = (None, 0);
    while found.len() < args.list.limit {
        let rows = PAGE_ROWS.min(args.list.limit - found.len());
        let page = reader.traces(&filter, cursor.as_deref(), rows).await.map_err(of_query)?;
        found.extend(page.items);
        traces_cut += page.search.traces_cut;
        if let Some(until) = page.search.searched_until_unix_nano
            && std::io::stderr().is_terminal()
        {
            let until = show::moment(until, &TimeZone::system());
            writeln!(anstream::stderr().lock(), "searched back to {until}, going on")?;
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if traces_cut > 0 {
        let were = show::counted(traces_cut, "trace", "traces");
        writeln!(
            anstream::stderr().lock(),
            "{were} could not be searched whole (too large, or in part retired) and left out"
        )?;
    }
    let mut out = anstream::stdout().lock();
    if args.list.json {
        return found
            .iter()
            .try_for_each(|summary| write_json(&mut out, &throughline_web::summary_json(summary)));
    }
    if found.is_empty() {
        writeln!(anstream::stderr().lock(), "no traces fit")?;
        return Ok(());
    }
    let zone = TimeZone::system();
    let columns = [
        left("STARTED"),
        left("TRACE"),
        left("NAME"),
        left("AGENT"),
        right("DURATION"),
        right("SPANS"),
        right("CALLS"),
        right("TOKENS"),
        right("COST"),
        left("STATE"),
    ];
    table::write(&mut out, &columns, found.iter().map(|trace| row(trace, &zone)).collect())?;
    Ok(())
}

fn parse_query(text: &str) -> Result<SearchQuery, Failure> {
    let now = jiff::Timestamp::now().as_nanosecond();
    SearchQuery::parse(text, u64::try_from(now).unwrap_or(0)).map_err(|error| {
        let hint =
            error.hint.clone().unwrap_or_else(|| "docs/search.md has the language".to_owned());
        let message = format!("the query cannot be read: {error}\n{}", error.pointed(text));
        Failure::usage(message).hint(hint)
    })
}

fn row(trace: &TraceSummary, zone: &TimeZone) -> Vec<Cell> {
    let tokens = trace.input_tokens.saturating_add(trace.output_tokens);
    vec![
        Cell::styled(show::moment(trace.start_unix_nano, zone), DIM),
        trace.trace_id.to_string().into(),
        short(&one_line(trace.name()), MAX_NAME_CHARS).into(),
        short(&one_line(trace.agent().unwrap_or_default()), MAX_AGENT_CHARS).into(),
        show::duration(trace.duration_nano()).into(),
        show::count(trace.span_count).into(),
        if trace.llm_calls == 0 { Cell::default() } else { show::count(trace.llm_calls).into() },
        if tokens == 0 { Cell::default() } else { show::count(tokens).into() },
        show::cost(trace.cost_usd()).into(),
        state(trace),
    ]
}

/// The worst that can be said of a trace, in a word or two.
fn state(trace: &TraceSummary) -> Cell {
    let root = trace.root.as_ref();
    let outcome = root.and_then(|root| root.outcome.as_deref()).map(one_line);
    let is_failed = root.is_some_and(|root| root.is_error);
    match outcome {
        Some(outcome) if is_failed => Cell::styled(outcome, RED),
        None if is_failed => Cell::styled("error", RED),
        Some(outcome) if outcome != "ok" => Cell::styled(outcome, YELLOW),
        _ if trace.fallback == FallbackState::Failed => Cell::styled("fallback failed", RED),
        _ if trace.fallback == FallbackState::Degraded => Cell::styled("degraded", YELLOW),
        _ if trace.error_count > 0 => {
            Cell::styled(show::counted(trace.error_count, "error inside", "errors inside"), YELLOW)
        }
        Some(outcome) => outcome.into(),
        None => Cell::default(),
    }
}
