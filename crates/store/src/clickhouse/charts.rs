//! Series of rollups over all servers. ClickHouse adds cells up; measures are worked out here, by the
//! very code that the embedded store has, from sums and whole sketches.

use std::fmt::Write as _;

use serde_json::Value;
use throughline_trace::{
    Dimension, MAX_SERIES_GROUPS, Measure, OperationKind, Operations, Outcome, Resolution, Rollup,
    SeriesGroups, SeriesPlan, SeriesQuery, Sketch,
};

use super::RemoteReader;
use super::cells::{column, cuboid_name};
use super::conditions::{Conditions, texts};
use super::schema::ROLLUPS_UNTIL;
use crate::answer::{Coverage, RollupSeries, RollupSums};
use crate::error::QueryError;
use crate::read_rollups::{self, Groups};

/// Stands between the labels of a group where they are one text: no name has it.
const SEPARATOR: char = '\u{1}';

/// Which sketches a question needs: they are most of the bytes.
#[derive(Debug, Clone, Copy)]
struct Sketches {
    durations: bool,
    first_tokens: bool,
    prompt_tokens: bool,
    confidence: bool,
}

impl Sketches {
    const ALL: Self =
        Self { durations: true, first_tokens: true, prompt_tokens: true, confidence: true };

    fn of(measures: &[Measure]) -> Self {
        let any = |is: fn(&Measure) -> bool| measures.iter().any(is);
        Self {
            durations: any(|of| matches!(of, Measure::Duration(_) | Measure::MeanDuration)),
            first_tokens: any(|of| matches!(of, Measure::FirstToken(_))),
            prompt_tokens: false,
            confidence: any(|of| matches!(of, Measure::Confidence)),
        }
    }
}

/// The cells of a question.
struct Cells<'a> {
    query: &'a SeriesQuery,
    plan: &'a SeriesPlan,
    /// What is behind `WHERE`, with its values.
    conditions: Conditions,
}

impl<'a> Cells<'a> {
    fn new(query: &'a SeriesQuery, plan: &'a SeriesPlan) -> Self {
        let mut conditions = Conditions::default();
        conditions.add("resolution = {grain:UInt32}", "grain", mirrored(plan.resolution));
        conditions.add("cuboid = {cuboid:String}", "cuboid", cuboid_name(plan.cuboid));
        conditions.add("start_unix_seconds >= {from:UInt64}", "from", plan.from_unix_seconds);
        conditions.add("start_unix_seconds < {to:UInt64}", "to", plan.to_unix_seconds);
        for (dimension, wanted) in &query.filter {
            let (name, sql) = match dimension {
                Dimension::Agent => ("agent", "agent = {agent:String}"),
                Dimension::Phase => ("phase", "phase = {phase:String}"),
                Dimension::Model => ("model", "model = {model:String}"),
                Dimension::Tool => ("tool", "tool = {tool:String}"),
                Dimension::Version => ("version", "agent_version = {version:String}"),
                Dimension::Branch => ("branch", "branch = {branch:String}"),
            };
            conditions.add(sql, name, wanted);
        }
        Self { query, plan, conditions }
    }

    /// Only groups with these labels.
    fn narrow(&mut self, groups: &[Vec<String>]) {
        if self.query.group_by.is_empty() {
            return;
        }
        let joined: Vec<String> =
            groups.iter().map(|labels| labels.join(&SEPARATOR.to_string())).collect();
        let columns = self.columns().join(", ");
        let sql = format!("arrayStringConcat([{columns}], char(1)) IN {{groups:Array(String)}}");
        self.conditions.add(&sql, "groups", texts(joined.iter().map(String::as_str)));
    }

    fn columns(&self) -> Vec<&'static str> {
        self.query.group_by.iter().map(|of| column(*of)).collect()
    }

    /// `SELECT` of sums by step and group, over one of the two tables.
    fn statement(&self, table: &str, sums: &str) -> String {
        let mut by = match self.query.groups {
            SeriesGroups::Totals => "toUInt64(0) AS step".to_owned(),
            _ => format!("intDiv(start_unix_seconds, {}) AS step", self.plan.step_seconds),
        };
        for (at, column) in self.columns().into_iter().enumerate() {
            let _ = write!(by, ", toString({column}) AS l{at}");
        }
        let mut group = "step".to_owned();
        for at in 0..self.query.group_by.len() {
            let _ = write!(group, ", l{at}");
        }
        let is_operations = table == "rollup_operations";
        if is_operations {
            by.push_str(", toString(kind) AS of_kind");
            group.push_str(", of_kind");
        }
        format!(
            "SELECT {by}, {sums} FROM {table} FINAL WHERE 1{} GROUP BY {group}
                SETTINGS do_not_merge_across_partitions_select_final = 1 FORMAT JSONEachRow",
            self.conditions.sql
        )
    }

    fn labels(&self, row: &Value) -> Vec<String> {
        (0..self.query.group_by.len())
            .map(|at| row[format!("l{at}")].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

/// The grain of the tables that a grain is added up from, seconds: coarser ones follow from those.
fn mirrored(resolution: Resolution) -> u64 {
    match resolution {
        Resolution::Minute | Resolution::FiveMinutes => Resolution::Minute.seconds(),
        Resolution::Hour | Resolution::Day => Resolution::Hour.seconds(),
    }
}

impl RemoteReader {
    /// Series over all servers. `here` is how far the rollups of this server can be relied on.
    ///
    /// # Errors
    /// [`QueryError::Series`] for what cannot be asked; [`QueryError::ClickHouse`].
    pub(crate) async fn series(
        &self,
        query: &SeriesQuery,
        here: Coverage,
    ) -> Result<RollupSeries, QueryError> {
        let plan = query.plan()?;
        let mut cells = Cells::new(query, &plan);
        let mut left_out = 0;
        match &query.groups {
            SeriesGroups::Busiest if !query.group_by.is_empty() => {
                let (busiest, all) = self.busiest(&cells).await?;
                left_out = all.saturating_sub(busiest.len());
                cells.narrow(&busiest);
            }
            SeriesGroups::Named(names) => cells.narrow(names),
            _ => {}
        }
        let sketches = Sketches::of(&query.measures);
        let groups = self.added_up(&cells, sketches, &plan.kinds).await?;
        let coverage = self.coverage(here).await?;
        let mut answer = read_rollups::answer(query, plan, groups, coverage);
        answer.groups_left_out += left_out;
        Ok(answer)
    }

    /// Sums with whole sketches over all servers.
    ///
    /// # Errors
    /// As [`RemoteReader::series`].
    pub(crate) async fn sums(
        &self,
        query: &SeriesQuery,
        here: Coverage,
    ) -> Result<RollupSums, QueryError> {
        let plan = query.plan()?;
        let cells = Cells::new(query, &plan);
        let groups = self.added_up(&cells, Sketches::ALL, &[]).await?;
        Ok(read_rollups::to_sums(&plan, groups, self.coverage(here).await?))
    }

    /// The groups with the most spans, and how many there are.
    async fn busiest(&self, cells: &Cells<'_>) -> Result<(Vec<Vec<String>>, usize), QueryError> {
        let columns = cells.columns();
        let named = columns.iter().enumerate();
        let named: Vec<String> =
            named.map(|(at, column)| format!("toString({column}) AS l{at}")).collect();
        let by: Vec<String> = (0..columns.len()).map(|at| format!("l{at}")).collect();
        let (named, by) = (named.join(", "), by.join(", "));
        let sql = format!(
            "SELECT {by}, count() OVER () AS all FROM
                (SELECT {named}, sum(spans) AS of_group FROM rollups FINAL WHERE 1{} GROUP BY {by})
                ORDER BY of_group DESC, {by} LIMIT {MAX_SERIES_GROUPS}
                SETTINGS do_not_merge_across_partitions_select_final = 1 FORMAT JSONEachRow",
            cells.conditions.sql
        );
        let rows = self.ask(&sql, &cells.conditions.values).await?;
        let all = rows.first().and_then(|row| row["all"].as_u64()).unwrap_or_default();
        Ok((rows.iter().map(|row| cells.labels(row)).collect(), all as usize))
    }

    /// The cells of a question by group and step; operations of these kinds, or of all.
    async fn added_up(
        &self,
        cells: &Cells<'_>,
        sketches: Sketches,
        kinds: &[OperationKind],
    ) -> Result<Groups, QueryError> {
        let mut sums = COUNTS.map(|name| format!("sum({name}) AS n_{name}")).join(", ");
        for (is_wanted, (sum, bins)) in [
            (sketches.first_tokens, FIRST_TOKENS),
            (sketches.prompt_tokens, PROMPT_TOKENS),
            (sketches.confidence, CONFIDENCE),
        ] {
            if is_wanted {
                let _ = write!(sums, ", {}", sketch_sql((sum, bins)));
            }
        }
        let mut of_operations = "sum(operations) AS n_operations, sum(errors) AS n_errors,
            sumMap(outcomes) AS m_outcomes, sumMap(error_outcomes) AS m_error_outcomes"
            .to_owned();
        if sketches.durations {
            let _ = write!(of_operations, ", {}", sketch_sql(DURATIONS));
        }
        let of_cells = cells.statement("rollups", &sums);
        let mut narrowed = cells.conditions.clone();
        if !kinds.is_empty() {
            let names = texts(kinds.iter().map(|kind| kind.as_str()));
            narrowed.add("kind IN {kinds:Array(String)}", "kinds", names);
        }
        let narrowed = Cells { query: cells.query, plan: cells.plan, conditions: narrowed };
        let of_kinds = narrowed.statement("rollup_operations", &of_operations);
        let (rows, operations) = tokio::try_join!(
            self.ask(&of_cells, &cells.conditions.values),
            self.ask(&of_kinds, &narrowed.conditions.values)
        )?;
        let mut groups = Groups::new();
        let mut add = |row: &Value, part: Rollup| {
            let step = row["step"].as_u64().unwrap_or_default();
            let steps = groups.entry(cells.labels(row)).or_default();
            steps.entry(step).or_default().merge(&part);
        };
        rows.iter().for_each(|row| add(row, cell(row)));
        for row in &operations {
            let mut part = Rollup::default();
            let kind = row["of_kind"].as_str().and_then(OperationKind::from_text);
            // Of a later version.
            let Some(kind) = kind else { continue };
            part.add_operations(kind, &of_row(row));
            add(row, part);
        }
        Ok(groups)
    }

    /// How far the rollups of all servers can be relied on: of those that write there, the one that
    /// is furthest behind tells until when. What is known of days is known of this server only.
    async fn coverage(&self, here: Coverage) -> Result<Coverage, QueryError> {
        let rows = self.ask(ROLLUPS_UNTIL, &[]).await?;
        let until = rows.first().and_then(|row| row["until"].as_u64()).filter(|until| *until > 0);
        Ok(Coverage { watermark_unix_nano: until, kept_from_unix_seconds: 0, ..here })
    }
}

/// Columns of counts.
const COUNTS: [&str; 13] = [
    "spans",
    "misdated",
    "retries",
    "fallbacks_triggered",
    "fallbacks_succeeded",
    "fallbacks_failed",
    "fallbacks_skipped",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_nano_usd",
    "decisions",
];

/// Columns of sketches: the sum, and the bins.
const FIRST_TOKENS: (&str, &str) = ("first_token_sum_nano", "first_tokens");
const PROMPT_TOKENS: (&str, &str) = ("prompt_tokens_sum", "prompt_tokens");
const CONFIDENCE: (&str, &str) = ("confidence_sum_millionths", "confidence");
const DURATIONS: (&str, &str) = ("duration_sum_nano", "durations");

/// A sketch is the sum of its parts, bin by bin. JSON's integers end at 64 bits, so that sums are text.
fn sketch_sql((sum, bins): (&str, &str)) -> String {
    format!("toString(sum({sum})) AS s_{sum}, sumMap({bins}) AS m_{bins}")
}

fn cell(row: &Value) -> Rollup {
    let count = |name: &str| row[format!("n_{name}")].as_i64().unwrap_or_default();
    let mut made = Rollup::default();
    made.spans = count("spans");
    made.misdated = count("misdated");
    made.retries = count("retries");
    made.decisions = count("decisions");
    made.first_tokens = sketch(row, FIRST_TOKENS);
    made.prompt_tokens = sketch(row, PROMPT_TOKENS);
    made.confidence = sketch(row, CONFIDENCE);
    made.fallbacks.triggered = count("fallbacks_triggered");
    made.fallbacks.succeeded = count("fallbacks_succeeded");
    made.fallbacks.failed = count("fallbacks_failed");
    made.fallbacks.skipped = count("fallbacks_skipped");
    made.spent.input_tokens = count("input_tokens");
    made.spent.output_tokens = count("output_tokens");
    made.spent.cached_tokens = count("cached_tokens");
    made.spent.reasoning_tokens = count("reasoning_tokens");
    made.spent.cost_nano_usd = count("cost_nano_usd");
    made
}

fn of_row(row: &Value) -> Operations {
    let mut made = Operations::default();
    made.count = row["n_operations"].as_i64().unwrap_or_default();
    made.errors = row["n_errors"].as_i64().unwrap_or_default();
    made.durations = sketch(row, DURATIONS);
    made.with_outcomes(outcomes(row, "m_outcomes"), outcomes(row, "m_error_outcomes"))
}

fn outcomes<'a>(row: &'a Value, name: &str) -> impl Iterator<Item = (Outcome, i64)> + use<'a> {
    counts(row, name).map(|(outcome, count)| (Outcome::of(Some(outcome), false), count))
}

/// The entries of a map of counts.
fn counts<'a>(row: &'a Value, name: &str) -> impl Iterator<Item = (&'a str, i64)> + use<'a> {
    let entries = row[name].as_object().into_iter().flatten();
    entries.filter_map(|(key, count)| Some((key.as_str(), count.as_i64()?)))
}

fn sketch(row: &Value, (sum, bins): (&str, &str)) -> Sketch {
    let sum = row[format!("s_{sum}")].as_str().and_then(|text| text.parse().ok());
    let bins = counts(row, &format!("m_{bins}"))
        .filter_map(|(bin, count)| Some((bin.parse().ok()?, count)))
        .collect::<Vec<_>>();
    Sketch::of_bins(bins, sum.unwrap_or_default())
}
