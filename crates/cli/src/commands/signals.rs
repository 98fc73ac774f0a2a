//! `throughline signals`: what agents did over the minutes before now, by the table of signals and by the
//! team's own, read from the store beside a server or without one.

use std::io::{self, Write};
use std::sync::Arc;

use anstyle::Style;
use throughline_govern::signals::{Level, OwnSignalRow, Reading, SignalReport, SignalRow};
use throughline_store::Governance;

use crate::args::SignalsArgs;
use crate::commands::{of_control, open_reader, write_json};
use crate::failure::{Exit, Failure, Outcome};
use crate::governing::signals::MAX_TRACES_PER_ROUND;
use crate::governing::{RoundError, RuleFiles, SECOND_NANOS, now_unix_nano, report, slos};
use crate::settings::Settings;
use crate::show::{self, BOLD, DIM, RED, YELLOW, one_line, styled};
use crate::table::{self, Cell, left, right};

/// Prints the table.
pub(crate) async fn run(settings: &Settings, files: RuleFiles, args: &SignalsArgs) -> Outcome {
    let reader = open_reader(settings)?;
    let governance = Governance::open(&settings.data_dir).map_err(|error| of_control(&error))?;
    let mut files = files.with_kept(&governance).map_err(|error| of_control(&error))?;
    let rules = Arc::new(files.read()?);
    let now = now_unix_nano();
    let statuses = slos::statuses(&rules, (&reader, &governance), now).await.map_err(of_round)?;
    let stores = (&reader, Some(&governance));
    let asked = (args.agent.as_deref(), args.window);
    let read = report::read(stores, &rules, &statuses, asked, MAX_TRACES_PER_ROUND, now)
        .await
        .map_err(of_round)?;
    let mut out = anstream::stdout().lock();
    if args.json {
        return write_json(&mut out, &read);
    }
    Ok(write(&mut out, &read)?)
}

pub(crate) fn of_round(error: RoundError) -> Failure {
    match error {
        RoundError::Query(error) => super::of_query(error),
        RoundError::Control(error) => of_control(&error),
        other => Failure::new(Exit::Failure, other),
    }
}

fn write(out: &mut impl Write, report: &SignalReport) -> io::Result<()> {
    let SignalReport { signals: rows, own, .. } = report;
    let columns = [
        left("SIGNAL"),
        right("VALUE"),
        right("COUNT"),
        left("WORSE"),
        right("WINDOW"),
        left("MEANING"),
    ];
    table::write(out, &columns, rows.iter().map(cells).collect())?;
    if own.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", styled(BOLD, "Signals of your own"))?;
    let columns = [left("SIGNAL"), right("VALUE"), left("WORSE"), right("WINDOW"), left("MADE OF")];
    table::write(out, &columns, own.iter().map(own_cells).collect())
}

fn cells(row: &SignalRow) -> Vec<Cell> {
    let Reading { name, estimate, lacks, of } = &row.reading;
    let formula = throughline_govern::signals::definition(*name).formula;
    let meaning = match (lacks.is_empty(), of.is_empty()) {
        (true, true) => formula.to_owned(),
        (true, false) => format!("{formula} ({of})"),
        (false, _) => format!("missing: {lacks}"),
    };
    let style = if lacks.is_empty() { Style::new() } else { DIM };
    vec![
        Cell::styled(name.as_str(), style),
        Cell::styled(number(estimate.value, row.unit), style),
        Cell::styled(show::count(estimate.count), style),
        Cell::styled(row.direction.worse(), style),
        Cell::styled(window(row.window_s), style),
        Cell::styled(meaning, style),
    ]
}

fn own_cells(row: &OwnSignalRow) -> Vec<Cell> {
    let parts = row.parts.iter().map(|(name, value)| format!("{name} {value:.3}"));
    let parts = parts.collect::<Vec<_>>().join(", ");
    let made_of = match row.value.value {
        Some(_) => format!("{} with {parts}", row.formula),
        None if parts.is_empty() => format!("missing: {}", row.value.why_missing()),
        None => format!("missing: {}; known are {parts}", row.value.why_missing()),
    };
    let style = match row.value.level {
        Some(Level::Critical) => RED,
        Some(Level::Warning) => YELLOW,
        Some(Level::Ok) => Style::new(),
        None => DIM,
    };
    vec![
        Cell::styled(one_line(&row.name), style),
        Cell::styled(number(row.value.value, &row.unit), style),
        Cell::styled(row.direction.worse(), style),
        Cell::styled(window(row.window_s), style),
        Cell::styled(one_line(&made_of), style),
    ]
}

/// A value with its unit; ratios and distances have none.
fn number(value: Option<f64>, unit: &str) -> String {
    match (value, unit) {
        (None, _) => "–".to_owned(),
        (Some(value), "ratio" | "1" | "0–2") => format!("{value:.3}"),
        (Some(value), unit) => format!("{value:.3} {}", one_line(unit)),
    }
}

fn window(seconds: u64) -> String {
    if seconds == 0 { "of the SLO".to_owned() } else { show::duration(seconds * SECOND_NANOS) }
}
