//! `throughline continuity`: where traces broke, read from the rows, beside a server or without one.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use throughline_trace::{ContinuityReport, ServiceContinuity, TraceId};

use crate::args::ContinuityArgs;
use crate::commands::{of_query, open_reader, write_json};
use crate::failure::Outcome;
use crate::settings::Settings;
use crate::show::{self, BOLD, DIM, RED, YELLOW, counted, one_line, short, styled};
use crate::table::{self, Cell, left, right};

/// Most characters of a service in the table.
const MAX_SERVICE_CHARS: usize = 40;

/// Time that is told of when none is asked for, nanoseconds: that of the continuity score.
const DEFAULT_BACK_NANOS: u64 = 3_600 * 1_000_000_000;

/// Prints services with their score, and what was found.
pub(crate) async fn run(settings: &Settings, args: &ContinuityArgs) -> Outcome {
    let reader = open_reader(settings)?.with_continuity_grace(settings.continuity_grace);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let since = args.since.unwrap_or(now.saturating_sub(DEFAULT_BACK_NANOS));
    let report = reader.continuity(since).await.map_err(of_query)?;
    let mut out = anstream::stdout().lock();
    if args.json {
        return write_json(&mut out, &throughline_web::continuity_json(&report));
    }
    if report.services.is_empty() {
        writeln!(anstream::stderr().lock(), "no spans in this time")?;
        return Ok(());
    }
    Ok(write(&mut out, &report, &TimeZone::system())?)
}

fn write(out: &mut impl Write, report: &ContinuityReport, zone: &TimeZone) -> io::Result<()> {
    let columns = [
        left("SERVICE"),
        right("SCORE"),
        right("SPANS"),
        right("ORPHANS"),
        right("REMOTE"),
        right("WAITING"),
    ];
    table::write(out, &columns, report.services.iter().map(row).collect())?;
    if report.is_well() {
        return writeln!(out, "\nall is well: every parent came or is outside of what is traced");
    }
    for edge in &report.edges {
        let count = counted(edge.count, "span", "spans");
        heading(out, &format!("lost parent  {} ({count})", one_line(&edge.label())))?;
        writeln!(out, "  {}", edge.kind.hint())?;
        let last = show::moment(edge.last_unix_nano, zone);
        writeln!(out, "  last {last}, such as {}", ids(&edge.examples))?;
    }
    let roots = &report.missing_roots;
    if roots.count > 0 {
        heading(out, &format!("missing root  {}", counted(roots.count, "trace", "traces")))?;
        writeln!(out, "  such as {}", ids(&roots.examples))?;
    }
    for split in &report.splits {
        let (from, to) = (one_line(&split.from), one_line(&split.to));
        let (operation, count) = (one_line(&split.operation), split.count);
        let times = counted(count, "time", "times");
        heading(out, &format!("split trace  {from} → {to} ({operation}) ({times})"))?;
        writeln!(out, "  {}", split.hint())?;
        for (caller, callee) in &split.examples {
            writeln!(out, "  {caller} → {callee}")?;
        }
    }
    for skew in &report.skews {
        let by = show::duration(skew.offset_nano.unsigned_abs());
        let way = if skew.offset_nano < 0 { "behind" } else { "ahead of" };
        let (from, to) = (one_line(&skew.from), one_line(&skew.to));
        heading(out, &format!("clock  {to} is {by} {way} {from}"))?;
        writeln!(out, "  {} of {} calls, such as {}", skew.odd, skew.calls, ids(&skew.examples))?;
    }
    Ok(())
}

fn heading(out: &mut impl Write, text: &str) -> io::Result<()> {
    writeln!(out, "\n{}", styled(BOLD, text))
}

fn ids(ids: &[TraceId]) -> String {
    ids.iter().map(TraceId::to_string).collect::<Vec<_>>().join(" ")
}

fn row(of: &ServiceContinuity) -> Vec<Cell> {
    let number = |number: u64| match number {
        0 => Cell::default(),
        number => show::count(number).into(),
    };
    let score = match of.score() {
        None => Cell::styled("-", DIM),
        Some(score) if score >= 1.0 => "1".into(),
        // Rounded down: what is not whole never reads as whole.
        Some(score) => Cell::styled(
            format!("{:.4}", (score * 10_000.0).floor() / 10_000.0),
            if score < 0.95 { RED } else { YELLOW },
        ),
    };
    vec![
        short(&one_line(&of.service), MAX_SERVICE_CHARS).into(),
        score,
        show::count(of.spans).into(),
        number(of.lost),
        number(of.remote),
        number(of.waiting),
    ]
}
