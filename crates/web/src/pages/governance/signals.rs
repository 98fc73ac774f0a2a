//! Signals of agents by where they are measured, and what of them drifted: data quality on one page
//! (requirements R5.7 and R6.2).

use std::collections::BTreeSet;

use axum::extract::State;
use maud::{Markup, html};
use throughline_govern::DetectorStanding;
use throughline_govern::signals::{
    Layer, Level, OwnSignalRow, SignalReport, SignalRow, definition,
};

use crate::api::signals::{self as api, SIGNAL_PARAMS, WINDOWS};
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format;
use crate::governance::Standing;
use crate::layout::{self, Nav};
use crate::params::Params;
use crate::state::Shared;

const PATH: &str = "/governance/signals";

/// The groups of the table: layer, title, what it is.
const GROUPS: [(Layer, &str, &str); 3] = [
    (Layer::Input, "Input", "what agents are given"),
    (Layer::Processing, "Processing", "what they make of it on the way"),
    (Layer::Output, "Output", "what they answer, and what it came to"),
];

/// `GET /governance/signals`
pub(crate) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Markup, Failure> {
    params.expect_only(&[&SIGNAL_PARAMS])?;
    let window = api::window(&params)?;
    let report = api::asked(&app, &params).await?;
    let standing = app.web.governance.standing.borrow().clone();
    let query = params.question("");
    let body = html! {
        div.head {
            h1 { "Signals" }
            p.grow { "Data quality, drift and outcomes of " @match &report.agent { Some(agent) => b { (agent) }, None => "all agents" } }
            div.tools {
                div.group {
                    a.btn href={ (PATH) (params.with("window", None)) } aria-pressed=((window.is_none()).to_string()) title="The window that each signal is defined over" { "as defined" }
                    @for (name, _) in WINDOWS {
                        a.btn href={ (PATH) (params.with("window", Some(name))) } aria-pressed=((window.is_some_and(|(chosen, _)| chosen == name)).to_string()) { (name) }
                    }
                }
                a.btn href="/governance" { "All of governance" }
                a.btn href={ "/api/v1/signals" (query) } { "JSON" }
            }
        }
        (agents(&params, &standing, report.agent.as_deref()))
        div #signals hx-get={ (PATH) (query) } hx-trigger="every 15s" hx-select="#signals" hx-swap="outerHTML" {
            (drift(&standing, report.agent.as_deref(), visitor.now_unix_nano))
            (tables(&report))
        }
    };
    Ok(layout::page(&visitor, Nav::Governance, "Signals", body))
}

/// The agents that are watched, to choose from.
fn agents(params: &Params, standing: &Standing, chosen: Option<&str>) -> Markup {
    let mut names: BTreeSet<&str> =
        standing.detectors.iter().map(|one| one.agent.as_str()).collect();
    names.extend(chosen);
    html! {
        nav.agents aria-label="Agents" {
            a.btn href={ (PATH) (params.with("agent", None)) } aria-pressed=(chosen.is_none().to_string()) { "all agents" }
            @for name in names {
                a.btn href={ (PATH) (params.with("agent", Some(name))) } aria-pressed=((chosen == Some(name)).to_string()) { (name) }
            }
        }
    }
}

fn tables(report: &SignalReport) -> Markup {
    html! {
        @for (layer, title, what) in GROUPS {
            @let rows: Vec<&SignalRow> = report.signals.iter().filter(|row| row.layer == Some(layer)).collect();
            @if !rows.is_empty() {
                h2.part { (title) " " span.soft { (what) } }
                div.sheet-list {
                    table.list.sums aria-label=(title) {
                        (columns())
                        tbody { @for row in rows { (signal(row)) } }
                    }
                }
            }
        }
        @if !report.own.is_empty() {
            h2.part { "Your own" }
            div.sheet-list { table.list.sums aria-label="Your own" { (columns()) tbody { @for row in &report.own { (own(row)) } } } }
        }
    }
}

fn columns() -> Markup {
    html! {
        colgroup { col; col.w-m; col.w-s; col.w-s; col.w-s; }
        thead { tr {
            th { "Signal" } th.num { "Value" }
            th.num title="Observations that it rests on" { "Count" }
            th.num title="The way in which it gets worse" { "Worse" }
            th.num { "Window" }
        } }
    }
}

fn signal(row: &SignalRow) -> Markup {
    let (reading, definition) = (&row.reading, definition(row.reading.name));
    let told = if reading.lacks.is_empty() { definition.formula } else { reading.lacks.as_str() };
    html! {
        tr {
            td.p-name.signal {
                span.name title=(definition.name) { (definition.name) }
                p.soft title=(definition.formula) { @if !reading.lacks.is_empty() { "Missing: " } (told) @if !reading.of.is_empty() { " (" (reading.of) ")" } }
            }
            td.num data-label="Value" { (value(reading.estimate.value.filter(|_| reading.lacks.is_empty()), row.unit)) }
            td.num data-label="Count" { (format::count(reading.estimate.count)) }
            td.num data-label="Worse" { (row.direction.worse()) }
            td.num data-label="Window" { (window_of(row.window_s)) }
        }
    }
}

fn own(row: &OwnSignalRow) -> Markup {
    let missing = row.value.why_missing();
    let level = match row.value.level {
        Some(Level::Critical) => Some("badge error"),
        Some(Level::Warning) => Some("badge warn"),
        Some(Level::Ok) => Some("badge ok"),
        None => None,
    };
    let parts = row.parts.iter().map(|(name, value)| format!("{name} {value:.3}"));
    let parts = parts.collect::<Vec<_>>().join(", ");
    html! {
        tr {
            td.p-name.signal {
                span.name { (row.name) }
                @if let (Some(class), Some(level)) = (level, row.value.level) { " " span class=(class) { (level.as_str()) } }
                p.soft title=(row.formula) { @if missing.is_empty() { code { (row.formula) } } @else { "Missing: " (missing) } @if !parts.is_empty() { " with " (parts) } }
            }
            td.num data-label="Value" { (value(row.value.value, &row.unit)) }
            td.num data-label="Parts" { (format::count(row.parts.len() as u64)) }
            td.num data-label="Worse" { (row.direction.worse()) }
            td.num data-label="Window" { (window_of(row.window_s)) }
        }
    }
}

/// A value with its unit; ratios and distances have none.
fn value(value: Option<f64>, unit: &str) -> Markup {
    html! {
        @match (value, unit) {
            (None, _) => span.muted { "–" },
            (Some(value), "ratio" | "1" | "0–2") => (format!("{value:.3}")),
            (Some(value), unit) => { (format!("{value:.2}")) " " span.soft { (unit) } },
        }
    }
}

fn window_of(seconds: u64) -> String {
    match seconds {
        0 => "of the SLO".to_owned(),
        seconds if seconds % 3_600 == 0 => format!("{} h", seconds / 3_600),
        seconds => format!("{} min", seconds / 60),
    }
}

/// What is compared with what was usual.
fn drift(standing: &Standing, agent: Option<&str>, now: u64) -> Markup {
    let mut rows: Vec<&DetectorStanding> = standing
        .detectors
        .iter()
        .filter(|one| agent.is_none_or(|agent| one.agent == agent))
        .filter(|one| one.is_firing || one.reading.is_some_and(|reading| reading.count > 0))
        .collect();
    rows.sort_by_key(|one| !one.is_firing);
    let watched = rows.len();
    rows.retain(|one| one.is_firing || one.reading.is_some_and(|reading| reading.is_enough));
    let learning = watched - rows.len();
    html! {
        h2.part { "Drift " span.soft { "against what was usual, window by window" } }
        @if rows.is_empty() && learning == 0 {
            p.soft { "Nothing was compared yet: agents are watched a minute at a time, once they have done something." }
        } @else if learning > 0 {
            p.soft { (format::count(learning as u64)) @if learning == 1 { " number has" } @else { " numbers have" } " too few events in the last window, or too short a history, to be compared." }
        }
        @if !rows.is_empty() {
            div.sheet-list {
                table.list.sums aria-label="Drift" {
                    colgroup { col; col.w-s; col.w-s; col.w-s; col.w-s; col.w-s; col.w-m; }
                    thead { tr {
                        th { "What" } th.num { "Now" } th.num { "Usually" }
                        th.num title="The size of the change in the detector's terms; see docs/detection.md" { "Change" }
                        th.num title="Observations of the latest window" { "Count" }
                        th.num { "Seen" } th.num { "State" }
                    } }
                    tbody { @for row in rows { (detector(row, now)) } }
                }
            }
        }
    }
}

fn detector(of: &DetectorStanding, now: u64) -> Markup {
    let compared = of.reading.filter(|reading| reading.is_enough);
    let none = html! { span.muted { "–" } };
    let number = |number: Option<f64>| match number {
        Some(number) => html! { (of.watches.told(number)) },
        None => none.clone(),
    };
    let (class, word) =
        if of.is_firing { ("badge warn", "drifted") } else { ("badge ok", "as usual") };
    html! {
        tr {
            td.p-name { span.name { (of.agent) } " " span.soft { (of.watches.signal()) " · " (of.watches.layer().as_str()) } }
            td.num data-label="Now" { (number(compared.map(|reading| reading.observed))) }
            td.num data-label="Usually" { (number(compared.map(|reading| reading.expected))) }
            td.num data-label="Change" { @match compared { Some(reading) => (format!("{:.2}", reading.effect)), None => (none) } }
            td.num data-label="Count" { (format::count(of.reading.map_or(0, |reading| reading.count))) }
            td.num data-label="Seen" { (format::time(of.seen_unix_nano, now)) }
            td.num data-label="State" { span class=(class) { (word) } }
        }
    }
}
