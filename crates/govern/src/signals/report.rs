//! Signals as they are shown: in the terminal, on the page and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{CompositeSignal, CompositeValue, Direction, Layer, Reading, definition};

/// One signal of the table.
#[derive(Debug, Clone, Serialize)]
pub struct SignalRow {
    /// What is known of it.
    #[serde(flatten)]
    pub reading: Reading,
    /// `s`, `ratio`, `%`, `1`, or `0–2` for distances of directions.
    pub unit: &'static str,
    /// What an observation is.
    pub counted: &'static str,
    /// Observations below which it is missing.
    pub min_count: u64,
    /// Which way it gets worse.
    pub direction: Direction,
    /// Where in an agent's work, for signals of data quality.
    pub layer: Option<Layer>,
    /// Over how long, seconds; 0 where an SLO says it.
    pub window_s: u64,
}

/// One signal of the team's own.
#[derive(Debug, Clone, Serialize)]
pub struct OwnSignalRow {
    /// Its name.
    pub name: String,
    /// What it is, and what that means.
    #[serde(flatten)]
    pub value: CompositeValue,
    /// Its unit, as its file says.
    pub unit: String,
    /// Which way it gets worse.
    pub direction: Direction,
    /// Over how long, seconds.
    pub window_s: u64,
    /// How it is worked out.
    pub formula: String,
    /// The parts that are known.
    pub parts: BTreeMap<String, f64>,
}

/// All signals of one agent, or of all agents together.
#[derive(Debug, Clone, Serialize)]
pub struct SignalReport {
    /// The agent; `None` for all.
    pub agent: Option<String>,
    /// When it was asked, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// Those of the table, in its order.
    pub signals: Vec<SignalRow>,
    /// The team's own, by name.
    pub own: Vec<OwnSignalRow>,
}

impl SignalRow {
    /// A reading over so many seconds.
    pub fn new(reading: Reading, window_s: u64) -> Self {
        let row = definition(reading.name);
        Self {
            reading,
            unit: row.unit,
            counted: row.counted,
            min_count: row.min_count,
            direction: row.direction,
            layer: row.layer,
            window_s: if row.window_s == 0 { 0 } else { window_s },
        }
    }
}

impl OwnSignalRow {
    /// The value of a signal over so many seconds, with the parts that are known.
    pub fn new(
        signal: &CompositeSignal,
        (value, parts): (CompositeValue, BTreeMap<String, f64>),
        window_s: u64,
    ) -> Self {
        Self {
            name: signal.name.clone(),
            value,
            unit: signal.unit.clone(),
            direction: signal.direction,
            window_s,
            formula: signal.formula().to_owned(),
            parts,
        }
    }
}
