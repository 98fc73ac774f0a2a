//! What the store answers, and what it tells after a commit.

use std::collections::BTreeMap;

use crate::sampling::Tally;
use throughline_trace::{
    Attributes, Decision, DecisionId, Dimension, LogRecord, Measure, MetricKind, MetricValue,
    OperationKind, Resolution, Rollup, Span, TraceSummary,
};

/// What one durable group of batches changed. Told to everybody who listens, after the commit. A
/// large group is told in several pieces, of one number.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Committed {
    /// Running number of the group, over restarts too.
    pub batch_no: u64,
    /// The whole current summaries of the traces that changed.
    pub summaries: Vec<TraceSummary>,
    /// Decisions that were written, with long texts cut and large attributes left out.
    pub decisions: Vec<Decision>,
    /// Log records that were written.
    pub log_count: u64,
    /// Metric points that were written.
    pub metric_count: u64,
}

/// Decisions that an instance numbered and that never arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionGap {
    /// The process that numbered them.
    pub instance_id: String,
    /// The agent of the decision after the gap.
    pub agent_id: String,
    /// First number that is missing.
    pub first_seq: u64,
    /// Last number that is missing.
    pub last_seq: u64,
    /// When the decision after the gap arrived, nanoseconds since the Unix epoch.
    pub noticed_unix_nano: u64,
}

impl DecisionGap {
    /// How many decisions are missing.
    pub fn missing(&self) -> u64 {
        self.last_seq - self.first_seq + 1
    }
}

/// All that is known of one trace.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTrace {
    /// Its summary.
    pub summary: TraceSummary,
    /// Its spans, in the order of arrival.
    pub spans: Vec<Span>,
    /// Log records written in its course, by time.
    pub logs: Vec<LogRecord>,
    /// Decisions taken in its course, by time.
    pub decisions: Vec<Decision>,
    /// Set when the trace is too large to be given whole.
    pub truncated: Option<Truncated>,
    /// Whether retention or sampling has taken the content of some of its spans: ids, names, times,
    /// status and role are left. Spans that sampling took whole are counted in its summary.
    pub is_skeleton: bool,
}

/// What tells whether a trace is still what it was, read without its spans. It changes with whatever
/// comes to the trace, and with what erasure, retention and damage take from it.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceVersion {
    /// Its summary, which changes with every span and log record.
    pub summary: TraceSummary,
    /// What it is read from, newest first. A skeleton has the summary of the whole.
    pub places: Vec<TracePlace>,
    /// Its decisions by time, as many as an answer has.
    pub decision_ids: Vec<DecisionId>,
}

/// A segment that a trace is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracePlace {
    /// Its name, `2026-11-22` or `2026-11-22-1`.
    pub segment: String,
    /// Whether only skeletons are left of it.
    pub is_skeleton: bool,
}

/// How much of a trace was left out of an answer; it is still stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated {
    /// Spans that are stored.
    pub total_spans: u64,
    /// Log records that are stored.
    pub total_logs: u64,
    /// Decisions that are stored.
    pub total_decisions: u64,
}

/// A metric that has points.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricInfo {
    /// Its name.
    pub name: String,
    /// UCUM unit.
    pub unit: String,
    /// For people.
    pub description: String,
    /// What kind of series it has.
    pub kind: MetricKind,
    /// How many series are known.
    pub series_count: u64,
    /// Time of the newest point, nanoseconds since the Unix epoch.
    pub last_unix_nano: u64,
    /// Services that sent it, in alphabetical order.
    pub services: Vec<String>,
}

/// The points of one metric, as far as an answer holds them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricPoints {
    /// Its series, by service and labels.
    pub series: Vec<MetricSeries>,
    /// Series for which the answer has no room.
    pub series_left_out: u64,
    /// Most points of a series in this answer: the more series, the fewer of each.
    pub max_points: usize,
}

/// One series of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricSeries {
    /// The service that sent it.
    pub service: String,
    /// What kind of series it is.
    pub kind: MetricKind,
    /// UCUM unit.
    pub unit: String,
    /// The labels that make the series.
    pub attributes: Attributes,
    /// Its points, oldest first.
    pub points: Vec<SeriesPoint>,
    /// Whether these are the newest of more.
    pub is_cut: bool,
}

/// One value of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesPoint {
    /// Start of the interval that a sum or histogram covers, nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// Time of the value, nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The value.
    pub value: MetricValue,
}

/// A value that filters may be set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FacetCount {
    /// The value.
    pub value: String,
    /// Traces (for stages: decisions) that have it.
    pub count: u64,
}

/// Values for filter menus, the most frequent of the recent ones first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facets {
    /// Agents.
    pub agents: Vec<FacetCount>,
    /// Models.
    pub models: Vec<FacetCount>,
    /// Services.
    pub services: Vec<FacetCount>,
    /// Sessions.
    pub sessions: Vec<FacetCount>,
    /// Users.
    pub users: Vec<FacetCount>,
    /// Stages of decisions.
    pub stages: Vec<FacetCount>,
}

/// How much is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Traces.
    pub traces: u64,
    /// Spans.
    pub spans: u64,
    /// Log records.
    pub logs: u64,
    /// Decisions.
    pub decisions: u64,
    /// Metric points.
    pub metric_points: u64,
    /// Bytes of all files in the data directory.
    pub bytes_on_disk: u64,
    /// Segment files.
    pub segments: u64,
    /// Start of the earliest trace, nanoseconds since the Unix epoch.
    pub oldest_unix_nano: Option<u64>,
    /// Start of the latest trace, nanoseconds since the Unix epoch.
    pub newest_unix_nano: Option<u64>,
}

/// Sums of rollups with their sketches.
#[derive(Debug, Clone, PartialEq)]
pub struct RollupSums {
    /// By the values of what was asked to be told apart: start of the step in seconds since the Unix
    /// epoch, and its sums, in order. Steps in which nothing happened are not there.
    pub groups: BTreeMap<Vec<String>, Vec<(u64, Rollup)>>,
    /// How far they can be relied on.
    pub coverage: Coverage,
}

/// Series of rollups, with how far they can be relied on.
#[derive(Debug, Clone, PartialEq)]
pub struct RollupSeries {
    /// What each value of a point is, in their order.
    pub measures: Vec<Measure>,
    /// What the series are told apart by.
    pub group_by: Vec<Dimension>,
    /// The operations that counts and durations are of.
    pub kinds: Vec<OperationKind>,
    /// The grain that was read.
    pub resolution: Resolution,
    /// The first second, since the Unix epoch.
    pub from_unix_seconds: u64,
    /// The second behind the last.
    pub to_unix_seconds: u64,
    /// Seconds between points.
    pub step_seconds: u64,
    /// The series, those with the most spans first.
    pub groups: Vec<RollupGroup>,
    /// Series that were left out beyond the limit.
    pub groups_left_out: usize,
    /// How far the rollups can be relied on.
    pub coverage: Coverage,
}

/// One series of rollups.
#[derive(Debug, Clone, PartialEq)]
pub struct RollupGroup {
    /// The values of `group_by`, in its order; an empty text where none was named.
    pub labels: Vec<String>,
    /// Spans in all of it.
    pub spans: i64,
    /// The measures over the whole time, in their order.
    pub totals: Vec<Option<f64>>,
    /// Steps that have anything, by time.
    pub points: Vec<RollupPoint>,
}

/// One step of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct RollupPoint {
    /// The first second of the step, since the Unix epoch.
    pub unix_seconds: u64,
    /// Spans in the step.
    pub spans: i64,
    /// The measures, in their order; `None` where there is nothing to tell from.
    pub values: Vec<Option<f64>>,
}

/// How far rollups can be relied on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// Whatever was acknowledged before this is counted, nanoseconds since the Unix epoch; `None`
    /// when everything that is stored is.
    pub watermark_unix_nano: Option<u64>,
    /// Days of arrival that are not whole: their rollups are being rebuilt. Seconds of their
    /// beginnings since the Unix epoch, oldest first.
    pub rebuilding_days: Vec<u64>,
    /// Days of arrival of which something is missing for good: it went before it was counted, or
    /// cannot be read. Seconds of their beginnings since the Unix epoch, oldest first; only days that
    /// the answer may touch.
    pub incomplete_days: Vec<u64>,
    /// Nothing of this grain is kept from before this second since the Unix epoch; 0 when all is.
    pub kept_from_unix_seconds: u64,
}

impl Coverage {
    /// Whether everything that was ever acknowledged is counted.
    pub fn is_whole(&self) -> bool {
        self.watermark_unix_nano.is_none()
            && self.rebuilding_days.is_empty()
            && self.incomplete_days.is_empty()
    }
}
/// A segment that is damaged: what it holds is in no answer until it is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedSegment {
    /// Its name, `2026-11-22` or `2026-11-22-1`.
    pub segment: String,
    /// What is wrong.
    pub detail: String,
}

/// How a segment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    /// It is being written.
    Open,
    /// It is closed, and its hash is still to be taken.
    Closed,
    /// It does not change any more, and its hash is known.
    Sealed,
    /// It was retired; the skeletons of traces that decisions refer to are left.
    Skeleton,
    /// It was retired, and nothing is left.
    Retired,
    /// It should be there and is not.
    Missing,
    /// It cannot be read; answers lack what it holds.
    Damaged,
}

impl SegmentState {
    /// Its name in lists and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Sealed => "sealed",
            Self::Skeleton => "skeleton",
            Self::Retired => "retired",
            Self::Missing => "missing",
            Self::Damaged => "damaged",
        }
    }
}

/// One segment: a file of what arrived on one UTC day, or in a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its name, `2026-11-22` or `2026-11-22-1`.
    pub segment: String,
    /// How it stands.
    pub state: SegmentState,
    /// Bytes of its file, and of its write-ahead log while there is one.
    pub bytes: u64,
    /// Traces in it.
    pub traces: u64,
    /// Spans in it.
    pub spans: u64,
    /// Log records in it.
    pub logs: u64,
    /// Metric points in it.
    pub metric_points: u64,
    /// BLAKE3 of the sealed file, 64 hexadecimal digits.
    pub blake3: Option<String>,
    /// When it was sealed, nanoseconds since the Unix epoch.
    pub sealed_unix_nano: Option<u64>,
    /// When its hash was last found to be right, nanoseconds since the Unix epoch.
    pub verified_unix_nano: Option<u64>,
    /// When it was retired, nanoseconds since the Unix epoch.
    pub retired_unix_nano: Option<u64>,
    /// Whether it was rewritten after it was closed.
    pub is_packed: bool,
    /// What sampling kept and took when it was rewritten; `None` when it did not act.
    pub sampled: Option<Tally>,
    /// What is wrong with it.
    pub damage: Option<String>,
}
