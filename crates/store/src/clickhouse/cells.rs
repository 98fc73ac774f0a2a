//! Rows of rollups as ClickHouse gets them: sums as columns, sketches as maps of bin and count,
//! which `sumMap` merges exactly.

use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};
use throughline_trace::{Cuboid, Dimension, Operations, Outcome, Resolution, Rollup, Sketch};

use crate::rollups::{Change, read_cell};
use crate::trace_rows::RowError;

/// Resolutions that are mirrored; coarser ones follow from them.
pub(super) const MIRRORED: [Resolution; 2] = [Resolution::Minute, Resolution::Hour];

/// Cells of a bucket, and their operations by kind.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) cells: Vec<Value>,
    pub(super) operations: Vec<Value>,
}

/// The rows of a bucket as it is now; none of a resolution that is not mirrored.
pub(super) fn of_bucket(
    rollups: &Connection,
    change: Change,
    into: &mut Rows,
) -> Result<(), RowError> {
    let resolution = usize::try_from(change.resolution)
        .ok()
        .and_then(|number| Resolution::ALL.get(number).copied())
        .filter(|resolution| MIRRORED.contains(resolution));
    let Some(resolution) = resolution else { return Ok(()) };
    let mut statement = rollups.prepare_cached(
        "SELECT k.cuboid, k.a, k.b, k.c, c.segment, c.body
            FROM cells c JOIN keys k ON k.key = c.key
            WHERE c.resolution = ?1 AND c.bucket = ?2",
    )?;
    let mut rows = statement.query(params![change.resolution, change.bucket])?;
    while let Some(row) = rows.next()? {
        let cuboid = row.get::<_, u32>(0)? as usize;
        // Of a later version.
        let Some(cuboid) = Cuboid::ALL.get(cuboid).copied() else { continue };
        let sums = read_cell(row.get_ref(5)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let mut place = Map::new();
        place.insert("resolution".into(), resolution.seconds().into());
        let start = (change.bucket as u64).saturating_mul(resolution.seconds());
        place.insert("start_unix_seconds".into(), start.into());
        place.insert("cuboid".into(), cuboid_name(cuboid).into());
        for dimension in Dimension::ALL {
            place.insert(column(dimension).into(), "".into());
        }
        for (at, dimension) in cuboid.dimensions().iter().enumerate() {
            place.insert(column(*dimension).into(), row.get::<_, String>(1 + at)?.into());
        }
        place.insert("part".into(), row.get::<_, i64>(4)?.into());
        for (kind, operations) in sums.all_operations() {
            let mut row = place.clone();
            row.insert("kind".into(), kind.as_str().into());
            fill_operations(&mut row, operations);
            into.operations.push(row.into());
        }
        fill(&mut place, &sums);
        into.cells.push(place.into());
    }
    Ok(())
}

/// The name of a cuboid: its dimensions.
pub(super) fn cuboid_name(cuboid: Cuboid) -> &'static str {
    match cuboid {
        Cuboid::All => "all",
        Cuboid::Agent => "agent",
        Cuboid::AgentPhase => "agent_phase",
        Cuboid::Model => "model",
        Cuboid::Tool => "tool",
        Cuboid::AgentVersionBranch => "agent_version_branch",
    }
}

/// The column of a dimension; `version` is that of a row.
pub(super) fn column(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Version => "agent_version",
        other => other.as_str(),
    }
}

fn fill(row: &mut Map<String, Value>, sums: &Rollup) {
    let Rollup { fallbacks, spent, .. } = sums;
    let counts = [
        ("spans", sums.spans),
        ("misdated", sums.misdated),
        ("retries", sums.retries),
        ("fallbacks_triggered", fallbacks.triggered),
        ("fallbacks_succeeded", fallbacks.succeeded),
        ("fallbacks_failed", fallbacks.failed),
        ("fallbacks_skipped", fallbacks.skipped),
        ("input_tokens", spent.input_tokens),
        ("output_tokens", spent.output_tokens),
        ("cached_tokens", spent.cached_tokens),
        ("reasoning_tokens", spent.reasoning_tokens),
        ("cost_nano_usd", spent.cost_nano_usd),
        ("decisions", sums.decisions),
    ];
    row.extend(counts.map(|(name, count)| (name.to_owned(), count.into())));
    sketch(row, ("first_token_sum_nano", "first_tokens"), &sums.first_tokens);
    sketch(row, ("prompt_tokens_sum", "prompt_tokens"), &sums.prompt_tokens);
    sketch(row, ("confidence_sum_millionths", "confidence"), &sums.confidence);
}

fn fill_operations(row: &mut Map<String, Value>, operations: &Operations) {
    row.insert("operations".into(), operations.count.into());
    row.insert("errors".into(), operations.errors.into());
    let outcomes = Outcome::ALL
        .into_iter()
        .map(|outcome| (outcome, operations.with_outcome(outcome)))
        .filter(|(_, count)| *count != 0);
    row.insert("outcomes".into(), named(outcomes));
    row.insert("error_outcomes".into(), named(operations.error_outcomes()));
    sketch(row, ("duration_sum_nano", "durations"), &operations.durations);
}

fn named(counts: impl Iterator<Item = (Outcome, i64)>) -> Value {
    let map: Map<String, Value> =
        counts.map(|(outcome, count)| (outcome.as_str().to_owned(), count.into())).collect();
    json!(map)
}

/// A sketch: its sum, as text since JSON's integers end at 64 bits, and its bins.
fn sketch(row: &mut Map<String, Value>, (sum, bins): (&str, &str), sketch: &Sketch) {
    row.insert(sum.to_owned(), sketch.sum().to_string().into());
    let map: Map<String, Value> =
        sketch.numbered_bins().map(|(bin, count)| (bin.to_string(), count.into())).collect();
    row.insert(bins.to_owned(), json!(map));
}
