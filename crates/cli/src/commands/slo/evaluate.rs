//! `throughline slo evaluate`: what SLOs would have said of given counts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use throughline_govern::slo::{
    Length, Measured, MinuteTable, Objective, RECENT_MIN, Slo, SloState, evaluate,
};
use throughline_trace::{Action, Finding};

use super::{read, text_of};
use crate::commands::write_json;
use crate::failure::{Failure, Outcome};
use crate::governing::MINUTE_NANOS;
use crate::show::{self, counted, one_line};
use crate::table::{self, Cell, left};

/// Largest file of counts, bytes.
const MAX_SERIES_BYTES: usize = 64 << 20;

/// Most minutes of one series: a month.
const MAX_MINUTES: usize = 31 * 24 * 60;

/// What is known to be quiet before the first minute, minutes: as long as any window.
const QUIET_BEFORE_MIN: u64 = 400 * 24 * 60;

/// The file of counts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesFile {
    /// The first minute.
    start: String,
    series: Vec<Series>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Series {
    slo: String,
    objective: String,
    /// Events of each minute.
    events: Vec<f64>,
    /// Good ones of each minute.
    good: Vec<f64>,
}

/// What an objective was like after a minute.
#[derive(Debug, Serialize)]
struct Minute<'s> {
    /// The end of the minute, seconds since the Unix epoch.
    unix_s: u64,
    slo: &'s str,
    objective: &'s str,
    /// By window; `null` where there was too little to say.
    burn_rates: BTreeMap<String, Option<f64>>,
    /// Alerts that fire.
    firing: Vec<String>,
    /// What of the budget is left.
    budget_remaining: Option<f64>,
}

/// What is printed as JSON.
#[derive(Debug, Default, Serialize)]
struct Report<'s> {
    minutes: Vec<Minute<'s>>,
    findings: Vec<Finding>,
    actions: Vec<Action>,
}

pub(super) fn run(series: &Path, files: &[PathBuf], json: bool) -> Outcome {
    let slos = read(files)?.slos;
    let text = text_of(series, MAX_SERIES_BYTES)?;
    let file: SeriesFile = serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("expected counts as JSON in {}: {error}", series.display()))
            .hint("`throughline slo evaluate --help` shows the form")
    })?;
    let start_min = start_min(&file.start)?;
    let (counters, minutes) = counters_of(&slos, &file, start_min)?;
    let mut report = Report::default();
    for slo in &slos {
        replay(slo, &counters, start_min, minutes, json, &mut report);
    }
    let mut out = anstream::stdout().lock();
    if json {
        return write_json(&mut out, &report);
    }
    let zone = TimeZone::system();
    let row = |finding: &Finding| -> Vec<Cell> {
        vec![
            show::moment(finding.since_unix_nano, &zone).into(),
            finding.severity.as_str().into(),
            finding.state.as_str().into(),
            show::moment(finding.at_unix_nano, &zone).into(),
            one_line(&finding.rule).into(),
            one_line(&finding.summary).into(),
        ]
    };
    if !report.findings.is_empty() {
        let columns =
            [left("SINCE"), left("SEVERITY"), left("STATE"), left("AT"), left("RULE"), left("")];
        table::write(&mut out, &columns, report.findings.iter().map(row).collect())?;
    }
    let findings = counted(report.findings.len() as u64, "finding", "findings");
    let actions = counted(report.actions.len() as u64, "action", "actions");
    Ok(writeln!(out, "{findings}, {actions} asked for, in {minutes} minutes")?)
}

/// The first minute, minutes since the Unix epoch.
fn start_min(text: &str) -> Outcome<u64> {
    let moment: Option<jiff::Timestamp> = text.parse().ok();
    let second = moment.and_then(|moment| u64::try_from(moment.as_second()).ok());
    match second {
        Some(second) if second.is_multiple_of(60) => Ok(second / 60),
        _ => Err(Failure::usage(format!(
            "expected `start` as a whole minute such as 2026-11-26T00:00:00Z, got {text:?}"
        ))),
    }
}

/// The counters of the file, and for how many minutes.
fn counters_of(slos: &[Slo], file: &SeriesFile, start_min: u64) -> Outcome<(MinuteTable, u64)> {
    let mut table = MinuteTable::default();
    let mut filled = BTreeSet::new();
    let mut longest = 0;
    for series in &file.series {
        let (name, objective) = (&series.slo, &series.objective);
        let slo = slos.iter().find(|slo| slo.name == *name);
        let found = slo.and_then(|slo| slo.objectives.iter().find(|one| one.name == *objective));
        let Some(objective) = found else {
            return Err(Failure::usage(format!(
                "expected series of the SLOs in these files, got `{name}`, objective `{objective}`"
            ))
            .hint("an objective is called by its displayName, or by its target in percent"));
        };
        let minutes = series.events.len();
        if minutes != series.good.len() || minutes > MAX_MINUTES {
            return Err(Failure::usage(format!(
                "expected as many `good` as `events` of `{name}`, at most {MAX_MINUTES}, got {} and {minutes}",
                series.good.len()
            )));
        }
        longest = longest.max(minutes as u64);
        let (id, units) = (objective.indicator.id(), objective.indicator.units_per_event() as f64);
        if !filled.insert(id.to_owned()) {
            // Objectives of one indicator share its counters.
            continue;
        }
        table.cover(id, start_min.saturating_sub(QUIET_BEFORE_MIN), start_min + minutes as u64);
        for (minute, (events, good)) in (start_min..).zip(series.events.iter().zip(&series.good)) {
            if !(*events >= 0.0 && *good >= 0.0 && good <= events && events.is_finite()) {
                return Err(Failure::usage(format!(
                    "expected 0 ≤ good ≤ events in every minute of `{name}`, got {good} of {events}"
                )));
            }
            table.add(id, minute, (events * units).round() as i64, (good * units).round() as i64);
        }
    }
    Ok((table, longest))
}

fn replay<'s>(
    slo: &'s Slo,
    counters: &MinuteTable,
    start_min: u64,
    minutes: u64,
    wants_minutes: bool,
    report: &mut Report<'s>,
) {
    let mut state = SloState::default();
    let mut findings = BTreeMap::new();
    for minute in start_min..=start_min + minutes {
        let done = evaluate(slo, counters, minute * MINUTE_NANOS, state);
        state = done.state;
        findings.extend(done.findings.into_iter().map(|finding| (finding.id.clone(), finding)));
        report.actions.extend(done.actions);
        if !wants_minutes {
            continue;
        }
        for (objective, status) in slo.objectives.iter().zip(done.statuses) {
            report.minutes.push(Minute {
                unix_s: minute * 60,
                slo: &slo.name,
                objective: &objective.name,
                burn_rates: burn_rates(slo, objective, counters, minute),
                firing: status.firing,
                budget_remaining: status.budget.remaining,
            });
        }
    }
    report.findings.extend(findings.into_values());
}

fn burn_rates(
    slo: &Slo,
    objective: &Objective,
    counters: &MinuteTable,
    minute: u64,
) -> BTreeMap<String, Option<f64>> {
    let alerts = slo.alerts.iter().flat_map(|alert| [alert.long_min, alert.short_min]);
    let rate = |minutes: u64| {
        let from = minute.saturating_sub(minutes);
        let measured = Measured::of(objective, counters, from, minute);
        (
            Length::of_minutes(minutes).to_string(),
            measured.burn(objective, f64::MIN_POSITIVE).rate(),
        )
    };
    alerts.chain([RECENT_MIN]).map(rate).collect()
}
