//! `throughline signals`: what agents did over the minutes before now, by the table of signals and by the
//! team's own, read from the store beside a server or without one.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use anstyle::Style;
use serde::Serialize;
use throughline_govern::Rules;
use throughline_govern::signals::{
    CompositeSignal, CompositeValue, DEFINITIONS, Definition, Direction, Level, ObjectiveReading,
    Reading,
};
use throughline_govern::slo::ObjectiveStatus;
use throughline_store::{Governance, Reader};

use crate::args::SignalsArgs;
use crate::commands::{of_control, open_reader, write_json};
use crate::failure::{Exit, Failure, Outcome};
use crate::governing::policies::{look_at, why_missing};
use crate::governing::signals::MAX_TRACES_PER_ROUND;
use crate::governing::{MINUTE_NANOS, RoundError, RuleFiles, SECOND_NANOS, now_unix_nano, slos};
use crate::settings::Settings;
use crate::show::{self, BOLD, DIM, RED, YELLOW, one_line, styled};
use crate::table::{self, Cell, left, right};

/// Seconds of a minute.
const MINUTE_S: u64 = 60;

/// One signal of the table.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    reading: Reading,
    unit: &'static str,
    counted: &'static str,
    min_count: u64,
    direction: Direction,
    /// `input`, `processing` or `output`, for signals of data quality.
    layer: Option<&'static str>,
    /// Over how long, seconds; 0 where an SLO says it.
    window_s: u64,
}

/// One signal of the team's own.
#[derive(Debug, Serialize)]
struct OwnRow {
    name: String,
    #[serde(flatten)]
    value: CompositeValue,
    unit: String,
    direction: Direction,
    window_s: u64,
    formula: String,
    /// The parts that are known.
    parts: BTreeMap<String, f64>,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report<'r> {
    agent: Option<&'r str>,
    at_unix_nano: u64,
    signals: &'r [Row],
    own: &'r [OwnRow],
}

/// Prints the table.
pub(crate) async fn run(settings: &Settings, mut files: RuleFiles, args: &SignalsArgs) -> Outcome {
    let rules = Arc::new(files.read()?);
    let reader = open_reader(settings)?;
    let governance = Governance::open(&settings.data_dir).map_err(|error| of_control(&error))?;
    let now = now_unix_nano();
    let (rows, own) = read(&reader, &governance, &rules, args, now).await.map_err(of_round)?;
    let mut out = anstream::stdout().lock();
    if args.json {
        let agent = args.agent.as_deref();
        return write_json(
            &mut out,
            &Report { agent, at_unix_nano: now, signals: &rows, own: &own },
        );
    }
    Ok(write(&mut out, &rows, &own)?)
}

pub(crate) fn of_round(error: RoundError) -> Failure {
    match error {
        RoundError::Query(error) => super::of_query(error),
        RoundError::Control(error) => of_control(&error),
        other => Failure::new(Exit::Failure, other),
    }
}

async fn read(
    reader: &Reader,
    governance: &Governance,
    rules: &Arc<Rules>,
    args: &SignalsArgs,
    now: u64,
) -> Result<(Vec<Row>, Vec<OwnRow>), RoundError> {
    let statuses: Vec<ObjectiveStatus> = slos::statuses(rules, (reader, governance), now).await?;
    // The minute that is not over yet is shown too: whoever looks has just sent something.
    let to_min = now / MINUTE_NANOS + 1;
    let agent = args.agent.as_deref();
    let minutes = |window_s: u64| args.window.unwrap_or(window_s.div_ceil(MINUTE_S).max(1));
    let mut looks = BTreeMap::new();
    for row in &DEFINITIONS {
        look_at(&mut looks, (agent, minutes(row.window_s)), to_min).names.insert(row.id);
    }
    for signal in rules.signals.values() {
        look_at(&mut looks, (agent, minutes(signal.window_s)), to_min).add(signal);
    }
    let (mut rows, mut own) = (Vec::new(), Vec::new());
    for ((_, minutes), look) in looks {
        let mut traces_left = MAX_TRACES_PER_ROUND;
        let objectives = ObjectiveReading::of_agent(&rules.slos, &statuses, agent);
        let mut seen = look.see(reader, objectives, &mut traces_left).await?;
        for name in &look.names {
            rows.extend(seen.readings.remove(name).map(|reading| row(reading, minutes)));
        }
        for signal in &look.composites {
            let told = seen.composites.remove(&signal.name);
            own.extend(told.map(|(value, parts)| own_row(signal, value, parts, minutes)));
        }
    }
    rows.sort_by_key(|row| row.reading.name);
    Ok((rows, own))
}

fn row(reading: Reading, minutes: u64) -> Row {
    let definition: &Definition = throughline_govern::signals::definition(reading.name);
    Row {
        reading,
        unit: definition.unit,
        counted: definition.counted,
        min_count: definition.min_count,
        direction: definition.direction,
        layer: definition.layer.map(throughline_govern::signals::Layer::as_str),
        window_s: if definition.window_s == 0 { 0 } else { minutes * MINUTE_S },
    }
}

fn own_row(
    signal: &CompositeSignal,
    value: CompositeValue,
    parts: BTreeMap<String, f64>,
    minutes: u64,
) -> OwnRow {
    OwnRow {
        name: signal.name.clone(),
        value,
        unit: signal.unit.clone(),
        direction: signal.direction,
        window_s: minutes * MINUTE_S,
        formula: signal.formula().to_owned(),
        parts,
    }
}

fn write(out: &mut impl Write, rows: &[Row], own: &[OwnRow]) -> io::Result<()> {
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

fn cells(row: &Row) -> Vec<Cell> {
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
        Cell::styled(worse(row.direction), style),
        Cell::styled(window(row.window_s), style),
        Cell::styled(meaning, style),
    ]
}

fn own_cells(row: &OwnRow) -> Vec<Cell> {
    let parts = row.parts.iter().map(|(name, value)| format!("{name} {value:.3}"));
    let parts = parts.collect::<Vec<_>>().join(", ");
    let made_of = match row.value.value {
        Some(_) => format!("{} with {parts}", row.formula),
        None if parts.is_empty() => format!("missing: {}", why_missing(&row.value)),
        None => format!("missing: {}; known are {parts}", why_missing(&row.value)),
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
        Cell::styled(worse(row.direction), style),
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

fn worse(direction: Direction) -> &'static str {
    match direction {
        Direction::UpIsBad => "up",
        Direction::DownIsBad => "down",
        Direction::EitherIsBad => "either",
    }
}

fn window(seconds: u64) -> String {
    if seconds == 0 { "of the SLO".to_owned() } else { show::duration(seconds * SECOND_NANOS) }
}
