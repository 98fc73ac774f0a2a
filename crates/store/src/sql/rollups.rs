//! The table `rollups`: the cells that charts are made of.

use std::collections::{HashMap, VecDeque};

use rusqlite::params;
use serde_json::json;
use throughline_trace::{Cuboid, Dimension, OperationKind, Resolution, Rollup, Sketch, SpanRole};

use super::columns::columns;
use super::source::Source;
use super::view::{Cell, Identity, Op, Plan, Rows, View};
use crate::error::QueryError;
use crate::rollups::{cuboid_keys, read_cell};
use crate::session::Lease;
use crate::sql::SqlViewColumn;
use crate::trace_rows::RowError;

/// Parts of cells that are read together; a cell has one for each segment that fed it.
const PARTS_PER_READ: usize = 2_048;

/// Nanoseconds in a second.
const NANOS_PER_SECOND: u64 = 1_000_000_000;

columns! { Column {
    Resolution "resolution" Text "length of the time that the cell covers: `1m`, `5m`, `1h` or `1d`. Everything is in each of them: choose one";
    Level "level" Text "what cells are told apart by: `all`, `agent`, `agent_phase`, `model`, `tool` or `agent_version_branch`. Everything is in each of them: choose one";
    Start "start_unix_nano" Integer "beginning of the time, nanoseconds since the Unix epoch; a span is in the cell in which it ended";
    Agent "agent" Text "agent, at the levels that have it; null also where none was named, as of the following";
    Phase "phase" Text "phase";
    Model "model" Text "model";
    Tool "tool" Text "tool";
    Version "version" Text "version of model or agent";
    Branch "branch" Text "`fallback.branch`";
    Spans "spans" Integer "spans stored";
    Errors "errors" Integer "operations with status `error`";
    LlmCalls "llm_calls" Integer "model calls, embeddings included, each counted once";
    ToolCalls "tool_calls" Integer "runs of tools";
    Retries "retries" Integer "attempts beyond the first";
    FallbacksTriggered "fallbacks_triggered" Integer "operations that fell back";
    FallbacksSucceeded "fallbacks_succeeded" Integer "of those: the degraded branch answered";
    InputTokens "input_tokens" Integer "tokens in";
    OutputTokens "output_tokens" Integer "tokens out";
    CachedTokens "cached_tokens" Integer "of the tokens in: read from a cache";
    ReasoningTokens "reasoning_tokens" Integer "of the tokens out: spent on reasoning";
    CostNanoUsd "cost_nano_usd" Integer "cost, billionths of a US dollar";
    CostUsd "cost_usd" Real "the same, US dollars";
    FirstTokenP95 "first_token_p95_seconds" Real "95th percentile of the time to the first token, seconds, within 1 %";
    LlmP50 "llm_p50_seconds" Real "median duration of model calls, seconds, within 1 %";
    LlmP95 "llm_p95_seconds" Real "95th percentile of it";
    Decisions "decisions" Integer "decisions recorded";
    Confidence "confidence_mean" Real "mean confidence of decisions, 0 to 1";
    Operations "operations" Json "by kind (`root`, or a role): {count, errors, mean_seconds, p50_seconds, p95_seconds, p99_seconds}";
} }

/// The table.
pub(super) struct Rollups;

impl View for Rollups {
    const NAME: &'static str = "rollups";
    const ABOUT: &'static str = "Sums over all telemetry by time and level, kept for longer than spans, about a second behind them. Choose one `resolution` and one `level`, or everything is counted several times.";
    const COLUMNS: &'static [SqlViewColumn] = Column::INFO;
    type Rows = RollupRows;

    fn share(column: &str, op: Op) -> Option<f64> {
        match (column, op) {
            ("resolution" | "level", Op::Is) => Some(0.2),
            ("start_unix_nano", _) => Some(0.1),
            _ => None,
        }
    }

    fn open(source: &Source, plan: &Plan) -> Result<RollupRows, QueryError> {
        let resolution = plan.text("resolution");
        let is_asked =
            |one: &Resolution| resolution.as_deref().is_none_or(|text| text == one.as_str());
        let level = plan.text("level");
        let levels: Vec<Cuboid> = Cuboid::ALL
            .into_iter()
            .filter(|cuboid| level.as_deref().is_none_or(|text| text == level_of(*cuboid)))
            .collect();
        let keys = match source.session().rollups()? {
            Some(lease) => keys(&lease, &levels).map_err(|error| lease.fails(&error))?,
            None => HashMap::new(),
        };
        let resolutions = match keys.is_empty() {
            true => VecDeque::new(),
            false => Resolution::ALL.into_iter().filter(is_asked).collect(),
        };
        Ok(RollupRows {
            source: source.clone(),
            time: plan.range("start_unix_nano"),
            keys,
            resolutions,
            after: None,
            ready: VecDeque::new(),
            current: None,
        })
    }
}

fn level_of(cuboid: Cuboid) -> &'static str {
    match cuboid {
        Cuboid::All => "all",
        Cuboid::Agent => "agent",
        Cuboid::AgentPhase => "agent_phase",
        Cuboid::Model => "model",
        Cuboid::Tool => "tool",
        Cuboid::AgentVersionBranch => "agent_version_branch",
    }
}

/// What a key stands for.
struct Key {
    cuboid: Cuboid,
    values: [String; 3],
}

fn keys(lease: &Lease, levels: &[Cuboid]) -> Result<HashMap<i64, Key>, rusqlite::Error> {
    let mut keys = HashMap::new();
    let mut statement =
        lease.prepare_cached("SELECT key, a, b, c FROM keys WHERE key >= ?1 AND key < ?2")?;
    for cuboid in levels {
        let (from, to) = cuboid_keys(*cuboid);
        let mut rows = statement.query([from, to])?;
        while let Some(row) = rows.next()? {
            let values = [row.get(1)?, row.get(2)?, row.get(3)?];
            keys.insert(row.get(0)?, Key { cuboid: *cuboid, values });
        }
    }
    Ok(keys)
}

/// Rows of the table.
pub(super) struct RollupRows {
    source: Source,
    /// First and last beginning that is asked for.
    time: (u64, u64),
    keys: HashMap<i64, Key>,
    /// Those that are still to be read; the first is being read.
    resolutions: VecDeque<Resolution>,
    /// Bucket and key of the last cell that was read of the first of `resolutions`.
    after: Option<(i64, i64)>,
    ready: VecDeque<(Resolution, i64, i64, Rollup)>,
    current: Option<(Resolution, i64, i64, Rollup)>,
}

impl RollupRows {
    /// Reads the next cells of a resolution.
    fn read(&mut self, resolution: Resolution) -> Result<(), QueryError> {
        let Some(lease) = self.source.session().rollups()? else {
            self.resolutions.clear();
            return Ok(());
        };
        let length = resolution.seconds() * NANOS_PER_SECOND;
        let first = (self.time.0.div_ceil(length)) as i64;
        let last = (self.time.1 / length) as i64;
        let (bucket, key) = self.after.unwrap_or((first, -1));
        let mut cells: Vec<(i64, i64, Rollup)> = Vec::new();
        let mut parts = 0;
        let mut read = || -> Result<(), RowError> {
            let mut statement = lease.prepare_cached(
                "SELECT bucket, key, body FROM cells
                 WHERE resolution = ?1 AND bucket >= ?2 AND (bucket, key) > (?2, ?3)
                    AND bucket <= ?4
                 ORDER BY bucket, key LIMIT ?5",
            )?;
            let limit = PARTS_PER_READ as i64;
            let mut rows = statement.query(params![resolution as i64, bucket, key, last, limit])?;
            while let Some(row) = rows.next()? {
                parts += 1;
                let place: (i64, i64) = (row.get(0)?, row.get(1)?);
                let is_same = cells.last().is_some_and(|(bucket, key, _)| (*bucket, *key) == place);
                let sums = match self.keys.contains_key(&place.1) {
                    true => read_cell(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?,
                    false => Rollup::default(),
                };
                match cells.last_mut() {
                    Some((_, _, whole)) if is_same => whole.merge(&sums),
                    _ => cells.push((place.0, place.1, sums)),
                }
            }
            Ok(())
        };
        read().map_err(|error| error.on_query(lease.path()))?;
        if parts < PARTS_PER_READ {
            self.resolutions.pop_front();
            self.after = None;
        } else {
            // More parts of the last cell may follow: it is read again.
            cells.pop();
            if cells.is_empty() {
                return Err(QueryError::Storage(format!(
                    "a cell of the rollups has {PARTS_PER_READ} parts or more, which are not read at once"
                )));
            }
            self.after = cells.last().map(|(bucket, key, _)| (*bucket, *key));
        }
        let is_known = |key: &i64| self.keys.contains_key(key);
        self.ready.extend(
            cells
                .into_iter()
                .filter(|(_, key, sums)| is_known(key) && !sums.is_empty())
                .map(|(bucket, key, sums)| (resolution, bucket, key, sums)),
        );
        Ok(())
    }
}

impl Rows for RollupRows {
    fn next(&mut self) -> Result<bool, QueryError> {
        loop {
            self.current = self.ready.pop_front();
            if self.current.is_some() {
                return Ok(true);
            }
            let Some(resolution) = self.resolutions.front() else { return Ok(false) };
            self.source.check_time()?;
            self.read(*resolution)?;
        }
    }

    fn identity(&self) -> Identity {
        let Some((resolution, bucket, key, _)) = &self.current else { return Identity::of(&[]) };
        let resolution = (*resolution as i64).to_le_bytes();
        Identity::of(&[&resolution, &bucket.to_le_bytes(), &key.to_le_bytes()])
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>, QueryError> {
        let current = self.current.as_ref().zip(Column::at(column));
        let Some(((resolution, bucket, key, sums), column)) = current else {
            return Ok(Cell::Null);
        };
        let Some(key) = self.keys.get(key) else { return Ok(Cell::Null) };
        let value = |of: Dimension| {
            let at = key.cuboid.dimensions().iter().position(|dimension| *dimension == of);
            at.map_or(Cell::Null, |at| Cell::said(&key.values[at]))
        };
        let count = |kind: SpanRole| {
            sums.operations(OperationKind::Role(kind)).map_or(0, |operations| operations.count)
        };
        let of_calls = |quantile: f64| {
            let calls = sums.operations(OperationKind::Role(SpanRole::LlmCall));
            Cell::real_or_null(calls.and_then(|calls| seconds(calls.durations.quantile(quantile))))
        };
        let spent = &sums.spent;
        Ok(match column {
            Column::Resolution => Cell::text(resolution.as_str()),
            Column::Level => Cell::text(level_of(key.cuboid)),
            Column::Start => {
                let length = (resolution.seconds() * NANOS_PER_SECOND) as i64;
                Cell::Integer(bucket.saturating_mul(length))
            }
            Column::Agent => value(Dimension::Agent),
            Column::Phase => value(Dimension::Phase),
            Column::Model => value(Dimension::Model),
            Column::Tool => value(Dimension::Tool),
            Column::Version => value(Dimension::Version),
            Column::Branch => value(Dimension::Branch),
            Column::Spans => Cell::Integer(sums.spans),
            Column::Errors => Cell::Integer(
                sums.all_operations()
                    .filter(|(kind, _)| *kind != OperationKind::Root)
                    .map(|(_, operations)| operations.errors)
                    .sum(),
            ),
            Column::LlmCalls => {
                Cell::Integer(count(SpanRole::LlmCall) + count(SpanRole::Embeddings))
            }
            Column::ToolCalls => Cell::Integer(count(SpanRole::Tool)),
            Column::Retries => Cell::Integer(sums.retries),
            Column::FallbacksTriggered => Cell::Integer(sums.fallbacks.triggered),
            Column::FallbacksSucceeded => Cell::Integer(sums.fallbacks.succeeded),
            Column::InputTokens => Cell::Integer(spent.input_tokens),
            Column::OutputTokens => Cell::Integer(spent.output_tokens),
            Column::CachedTokens => Cell::Integer(spent.cached_tokens),
            Column::ReasoningTokens => Cell::Integer(spent.reasoning_tokens),
            Column::CostNanoUsd => Cell::Integer(spent.cost_nano_usd),
            Column::CostUsd => Cell::Real(spent.cost_nano_usd as f64 / 1e9),
            Column::FirstTokenP95 => Cell::real_or_null(seconds(sums.first_tokens.quantile(0.95))),
            Column::LlmP50 => of_calls(0.5),
            Column::LlmP95 => of_calls(0.95),
            Column::Decisions => Cell::Integer(sums.decisions),
            Column::Confidence => Cell::real_or_null(sums.confidence.mean().map(|mean| mean / 1e6)),
            Column::Operations => operations(sums),
        })
    }
}

fn seconds(nanos: Option<f64>) -> Option<f64> {
    nanos.map(|nanos| nanos / NANOS_PER_SECOND as f64)
}

fn operations(sums: &Rollup) -> Cell<'static> {
    let kinds: serde_json::Map<String, serde_json::Value> = sums
        .all_operations()
        .map(|(kind, operations)| {
            let at = |sketch: &Sketch, quantile| seconds(sketch.quantile(quantile));
            let durations = &operations.durations;
            let value = json!({
                "count": operations.count,
                "errors": operations.errors,
                "mean_seconds": seconds(durations.mean()),
                "p50_seconds": at(durations, 0.5),
                "p95_seconds": at(durations, 0.95),
                "p99_seconds": at(durations, 0.99),
            });
            (kind.as_str().to_owned(), value)
        })
        .collect();
    Cell::json(&serde_json::Value::Object(kinds))
}
