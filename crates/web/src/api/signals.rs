//! `/api/v1/signals` and `/api/v1/detectors`: what is worked out of telemetry, and what of it drifted.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use throughline_govern::DetectorStanding;
use throughline_govern::signals::{
    Layer, Level, OwnSignalRow, SignalReport, SignalRow, definition,
};

use super::forms::Moment;
use super::paging::{self, Keyed};
use super::shapes::Page;
use crate::failure::Failure;
use crate::format::rfc3339;
use crate::governance::SignalsAsked;
use crate::params::Params;
use crate::state::{App, Shared};

/// Parameters of signals.
pub(crate) const SIGNAL_PARAMS: [&str; 2] = ["agent", "window"];

/// Parameters of detectors.
pub(crate) const DETECTOR_PARAMS: [&str; 1] = ["agent"];

/// Windows that may be asked for in place of each signal's own: name, minutes.
pub(crate) const WINDOWS: [(&str, u64); 5] =
    [("5m", 5), ("15m", 15), ("1h", 60), ("6h", 360), ("24h", 1_440)];

/// Signals of one agent, or of all of them together.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Signals {
    /// The agent; null for all.
    agent: Option<String>,
    /// When they were read.
    #[schemars(with = "Moment")]
    at: String,
    /// Those of the table in docs/detection.md, in its order.
    signals: Vec<Signal>,
    /// Those of rule files of kind Signal, by name.
    own: Vec<OwnSignal>,
}

/// A signal of the table.
#[derive(Debug, Serialize, JsonSchema)]
struct Signal {
    name: &'static str,
    /// Where in an agent's work data quality is measured: `input`, `processing` or `output`; null for other signals.
    layer: Option<&'static str>,
    /// Null where there is too little data, which is neither good nor bad.
    value: Option<f64>,
    /// `s`, `ratio`, `%`, `1`, or `0–2` for distances of directions.
    unit: &'static str,
    /// Observations that it rests on.
    count: u64,
    /// Observations below which it is missing.
    min_count: u64,
    /// What an observation is.
    counted: &'static str,
    /// Why there is no value; empty when there is.
    missing: String,
    /// What it is of, where that is less than everything.
    of: String,
    /// `up`, `down` or `either`.
    worse: &'static str,
    /// Seconds; 0 where an SLO says it.
    window_s: u64,
    formula: &'static str,
}

/// A signal of the team's own.
#[derive(Debug, Serialize, JsonSchema)]
struct OwnSignal {
    name: String,
    value: Option<f64>,
    unit: String,
    /// `ok`, `warning` or `critical`; null without a value.
    level: Option<&'static str>,
    /// Why there is no value; empty when there is.
    missing: String,
    worse: &'static str,
    window_s: u64,
    formula: String,
    /// The parts that are known.
    parts: BTreeMap<String, f64>,
}

/// How a detector stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Detector {
    agent: String,
    /// The number that is compared.
    signal: &'static str,
    layer: &'static str,
    /// Kind of the findings that its alarm makes.
    kind: &'static str,
    /// Whether its alarm is on.
    is_firing: bool,
    /// Whether the latest window and what is usual rest on enough.
    is_enough: bool,
    /// What came in the latest window, in seconds for latencies; null before there is anything to compare.
    observed: Option<f64>,
    /// What was usual.
    expected: Option<f64>,
    /// The size of the change, in the detector's terms (docs/detection.md).
    effect: Option<f64>,
    /// How likely chance alone would show it.
    p_value: Option<f64>,
    /// Observations of the latest window.
    count: u64,
    /// Observations that the usual rests on.
    baseline_count: u64,
    /// Length of its windows, seconds.
    window_s: u64,
    /// When the agent did anything last.
    #[schemars(with = "Moment")]
    seen: String,
}

/// `GET /api/v1/signals`
pub(crate) async fn signals(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Signals>, Failure> {
    let report = asked(&app, &params).await?;
    Ok(Json(Signals {
        agent: report.agent.clone(),
        at: rfc3339(report.at_unix_nano),
        signals: report.signals.iter().map(signal).collect(),
        own: report.own.iter().map(own).collect(),
    }))
}

/// `GET /api/v1/detectors`
pub(crate) async fn detectors(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Page<Detector>>, Failure> {
    let (after, limit) = (Keyed::Detectors.key(&params)?, params.limit()?);
    let standing = app.web.governance.standing.borrow().clone();
    let wanted = params.text("agent");
    let all = standing.detectors.iter();
    let of = all.filter(|one| wanted.is_none_or(|agent| one.agent == agent)).cloned().collect();
    let key = |one: &DetectorStanding| (one.agent.clone(), one.watches);
    let page = paging::page(Keyed::Detectors, of, key, after.as_ref(), limit)?;
    Ok(Json(Page { items: page.items.iter().map(detector).collect(), next: page.next }))
}

/// The window that parameters name: its name, and its minutes.
pub(crate) fn window(params: &Params) -> Result<Option<(&'static str, u64)>, Failure> {
    let names = WINDOWS.map(|(name, _)| name).join(", ");
    params.read("window", &format!("one of {names}"), |text| {
        WINDOWS.into_iter().find(|(name, _)| *name == text)
    })
}

/// The report that parameters ask for.
pub(crate) async fn asked(app: &App, params: &Params) -> Result<Arc<SignalReport>, Failure> {
    let minutes = window(params)?.map(|(_, minutes)| minutes);
    let asked = SignalsAsked { agent: params.owned("agent"), minutes };
    (app.web.governance.signals)(asked).await.map_err(|error| {
        tracing::error!(error, "signals cannot be read");
        Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "governance",
            "signals cannot be read",
            "the server's log says why",
        )
    })
}

fn signal(row: &SignalRow) -> Signal {
    let definition = definition(row.reading.name);
    Signal {
        name: definition.name,
        layer: row.layer.map(Layer::as_str),
        value: row.reading.estimate.value.filter(|_| row.reading.lacks.is_empty()),
        unit: row.unit,
        count: row.reading.estimate.count,
        min_count: row.min_count,
        counted: row.counted,
        missing: row.reading.lacks.clone(),
        of: row.reading.of.clone(),
        worse: row.direction.worse(),
        window_s: row.window_s,
        formula: definition.formula,
    }
}

fn own(row: &OwnSignalRow) -> OwnSignal {
    OwnSignal {
        name: row.name.clone(),
        value: row.value.value,
        unit: row.unit.clone(),
        level: row.value.level.map(Level::as_str),
        missing: row.value.why_missing(),
        worse: row.direction.worse(),
        window_s: row.window_s,
        formula: row.formula.clone(),
        parts: row.parts.clone(),
    }
}

fn detector(of: &DetectorStanding) -> Detector {
    let compared = of.reading.filter(|reading| reading.is_enough);
    let scaled = |number: f64| of.watches.in_unit(number);
    Detector {
        agent: of.agent.clone(),
        signal: of.watches.signal(),
        layer: of.watches.layer().as_str(),
        kind: of.watches.kind(),
        is_firing: of.is_firing,
        is_enough: compared.is_some(),
        observed: compared.map(|reading| scaled(reading.observed)),
        expected: compared.map(|reading| scaled(reading.expected)),
        effect: compared.map(|reading| reading.effect),
        p_value: compared.and_then(|reading| reading.p_value),
        count: of.reading.map_or(0, |reading| reading.count),
        baseline_count: of.reading.map_or(0, |reading| reading.baseline_count),
        window_s: of.watches.window_s(),
        seen: rfc3339(of.seen_unix_nano),
    }
}
