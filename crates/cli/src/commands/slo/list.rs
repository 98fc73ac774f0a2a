//! `throughline slo list`: how objectives are doing, by the counters of the server that has them, or counted from
//! stored spans.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anstyle::Style;
use serde::Serialize;
use throughline_govern::Rules;
use throughline_govern::slo::{
    IndicatorSet, MAX_CATCH_UP_MIN, MinuteTable, ObjectiveStatus, Slo, SloHealth, SloState,
    evaluate, minute_of,
};
use throughline_store::{Governance, Reader, TraceFilter};
use throughline_trace::TraceSummary;

use super::{DEFAULT_SLO_DIR, read};
use crate::args::SloListArgs;
use crate::commands::check::each;
use crate::commands::of_control;
use crate::commands::signals::of_round;
use crate::commands::{of_query, open_reader, write_json};
use crate::failure::{Failure, Outcome};
use crate::governing::MINUTE_NANOS;
use crate::governing::slos;
use crate::settings::Settings;
use crate::show::{self, DIM, RED, YELLOW, counted, one_line};
use crate::table::{self, Cell, Column, left, right};

/// What was counted from stored spans.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Replay {
    /// Begin, nanoseconds since the Unix epoch.
    since_unix_nano: u64,
    /// Traces that were looked at.
    pub(crate) traces: u64,
    /// Traces whose spans are not all there (sampled away, too large, retired): their minutes are not
    /// covered.
    pub(crate) traces_cut: u64,
    /// There are more traces than `--max` lets through; what is older is not covered.
    pub(crate) is_cut: bool,
    /// Events that an expression had no value for.
    pub(crate) unjudged: i64,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report<'r> {
    /// What was counted.
    source: &'static str,
    /// Of spans; null for counters.
    replay: Option<&'r Replay>,
    objectives: &'r [ObjectiveStatus],
}

pub(super) async fn run(settings: &Settings, args: &SloListArgs) -> Outcome {
    let slos = read(&files(args)?)?.slos;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let reader = open_reader(settings)?;
    let mut out = anstream::stdout().lock();
    if args.since.is_none()
        && let Some(objectives) = by_counters(settings, &reader, &slos, now).await?
    {
        if args.json {
            let report = Report { source: "counters", replay: None, objectives: &objectives };
            return write_json(&mut out, &report);
        }
        table::write(&mut out, &COLUMNS, objectives.iter().map(row).collect())?;
        return Ok(writeln!(out, "\nby the counters that the server keeps")?);
    }
    let since = args.since.unwrap_or_else(|| {
        let begins = slos.iter().map(|slo| slo.window.containing(now / MINUTE_NANOS).0);
        begins.min().unwrap_or(0) * MINUTE_NANOS
    });
    let (counters, replay) = count(&reader, &slos, since, now, args.max).await?;
    let statuses: Vec<ObjectiveStatus> =
        slos.iter().flat_map(|slo| statuses(slo, &counters, now)).collect();
    if args.json {
        let (source, replay) = ("stored_spans", Some(&replay));
        let report = Report { source, replay, objectives: &statuses };
        return write_json(&mut out, &report);
    }
    Ok(write(&mut out, &statuses, &replay)?)
}

/// By the counters of the store; `None` unless it has them of all that is asked about, with some cover.
async fn by_counters(
    settings: &Settings,
    reader: &Reader,
    slos: &[Slo],
    now: u64,
) -> Outcome<Option<Vec<ObjectiveStatus>>> {
    let governance = Governance::open(&settings.data_dir).map_err(|error| of_control(&error))?;
    let rules = Arc::new(Rules { slos: slos.to_vec(), ..Rules::default() });
    let found = slos::statuses(&rules, (reader, &governance), now).await.map_err(of_round)?;
    let is_counted = |one: &ObjectiveStatus| {
        one.health != SloHealth::NotCovered && one.budget.measured.coverage > 0.0
    };
    Ok((!found.is_empty() && found.iter().all(is_counted)).then_some(found))
}

fn files(args: &SloListArgs) -> Outcome<Vec<PathBuf>> {
    if !args.files.is_empty() {
        return Ok(args.files.clone());
    }
    let usual = PathBuf::from(DEFAULT_SLO_DIR);
    if usual.is_dir() {
        return Ok(vec![usual]);
    }
    Err(Failure::not_found(format!("there is no directory `{DEFAULT_SLO_DIR}` with SLOs here"))
        .hint("name files: throughline slo list deploy/slo"))
}

/// How the objectives of an SLO are doing: the last day is walked through, so that what fires is what
/// would fire.
fn statuses(slo: &Slo, counters: &MinuteTable, now: u64) -> Vec<ObjectiveStatus> {
    let begin = now.saturating_sub(MAX_CATCH_UP_MIN * MINUTE_NANOS);
    let first = evaluate(slo, counters, begin, SloState::default());
    evaluate(slo, counters, now, first.state).statuses
}

/// Counts the spans of stored traces, the newest first.
pub(crate) async fn count(
    reader: &Reader,
    slos: &[Slo],
    since: u64,
    now: u64,
    max: usize,
) -> Outcome<(MinuteTable, Replay)> {
    let indicators = slos.iter().flat_map(|slo| &slo.objectives);
    let set = IndicatorSet::new(indicators.map(|objective| Arc::clone(&objective.indicator)));
    let mut table = MinuteTable::default();
    let mut replay = Replay { since_unix_nano: since, ..Replay::default() };
    let mut holes = Vec::new();
    let mut oldest = now;
    let filter = TraceFilter { start_after_unix_nano: Some(since), ..TraceFilter::default() };
    let page = async |cursor: Option<&str>, rows| reader.traces(&filter, cursor, rows).await;
    replay.is_cut = each(max, page, async |summary: TraceSummary| {
        replay.traces += 1;
        oldest = oldest.min(summary.start_unix_nano);
        let ends = summary.start_unix_nano.saturating_add(summary.duration_nano());
        // It may have been retired a moment ago.
        let trace = reader.trace(summary.trace_id).await.map_err(of_query)?;
        let whole = trace.filter(|trace| {
            let is_thinned = trace.is_skeleton || trace.summary.sampled.spans_dropped > 0;
            !is_thinned && trace.truncated.is_none()
        });
        let Some(trace) = whole else {
            replay.traces_cut += 1;
            holes.push((summary.start_unix_nano / MINUTE_NANOS, ends / MINUTE_NANOS + 1));
            return Ok(());
        };
        for span in &trace.spans {
            set.observe(span, |at, seen| {
                let id = set.indicators()[at].id();
                table.add(id, minute_of(span), seen.total, seen.good);
                replay.unjudged += seen.unjudged;
            });
        }
        Ok(())
    })
    .await?;
    // Whether a server ran before the first trace cannot be seen from spans.
    for indicator in set.indicators() {
        table.cover(indicator.id(), oldest.max(since) / MINUTE_NANOS, now / MINUTE_NANOS);
        for (from, to) in &holes {
            table.uncover(indicator.id(), *from, *to);
        }
    }
    Ok((table, replay))
}

const COLUMNS: [Column; 9] = [
    left("SLO"),
    left("OBJECTIVE"),
    right("TARGET"),
    right("ATTAINMENT"),
    right("BUDGET LEFT"),
    right("BURN 1H"),
    right("USED UP IN"),
    left("STATE"),
    right("COVERAGE"),
];

fn write(out: &mut impl Write, statuses: &[ObjectiveStatus], replay: &Replay) -> io::Result<()> {
    table::write(out, &COLUMNS, statuses.iter().map(row).collect())?;
    let traces = counted(replay.traces, "stored trace", "stored traces");
    writeln!(
        out,
        "\ncounted from the spans of {traces}; counters of a running server go back further"
    )?;
    if replay.traces_cut > 0 {
        let cut = counted(replay.traces_cut, "trace is", "traces are");
        writeln!(
            out,
            "{cut} not whole (sampled, too large or retired): those minutes are not covered"
        )?;
    }
    if replay.is_cut {
        writeln!(out, "there are more traces: --max is how many are looked at")?;
    }
    if replay.unjudged > 0 {
        let count = counted(u64::try_from(replay.unjudged).unwrap_or(0), "event", "events");
        writeln!(out, "{count} could not be judged: an expression had no value for them")?;
    }
    Ok(())
}

fn row(status: &ObjectiveStatus) -> Vec<Cell> {
    let share = |share: Option<f64>| share.map(|share| format!("{:.3} %", share * 100.0));
    let style = match status.health {
        SloHealth::Ok => Style::new(),
        SloHealth::Burning => YELLOW,
        SloHealth::Exhausted => RED,
        SloHealth::NoEvents | SloHealth::NotCovered => DIM,
    };
    let mut state = status.health.as_str().replace('_', " ");
    if !status.firing.is_empty() {
        state += &format!(" ({})", one_line(&status.firing.join(", ")));
    }
    let left = status.budget.minutes_to_exhaustion;
    let used_up = left.map(|minutes| show::duration((minutes * MINUTE_NANOS as f64) as u64));
    vec![
        one_line(&status.slo).into(),
        one_line(&status.objective).into(),
        super::percent(status.target).into(),
        share(status.attainment).unwrap_or_default().into(),
        status
            .budget
            .remaining
            .map(|left| format!("{:.1} %", left * 100.0))
            .unwrap_or_default()
            .into(),
        status.burn_rate_1h.map(|rate| format!("{rate:.2}")).unwrap_or_default().into(),
        used_up.unwrap_or_default().into(),
        Cell::styled(state, style),
        format!("{:.0} %", status.budget.measured.coverage * 100.0).into(),
    ]
}
