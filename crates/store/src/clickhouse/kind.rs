//! What is mirrored row by row.

/// A kind of rows: each is a table there, whose rows are named by their place in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowKind {
    /// Spans, by segment and key.
    Spans = 0,
    /// Log records, by segment and running number.
    Logs = 1,
    /// Metric points, by segment and running number.
    Points = 2,
    /// Decisions, by running number.
    Decisions = 3,
}

impl RowKind {
    /// All of them; the place in this list is the number that `clickhouse.db` knows them by.
    pub const ALL: [Self; 4] = [Self::Spans, Self::Logs, Self::Points, Self::Decisions];

    /// The kind of a column.
    pub(super) fn of_column(column: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as i64 == column)
    }

    /// The table there.
    pub fn table(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::Logs => "logs",
            Self::Points => "metric_points",
            Self::Decisions => "decisions",
        }
    }

    /// The statement that takes its rows.
    pub fn insert(self) -> &'static str {
        match self {
            Self::Spans => "INSERT INTO spans FORMAT JSONEachRow",
            Self::Logs => "INSERT INTO logs FORMAT JSONEachRow",
            Self::Points => "INSERT INTO metric_points FORMAT JSONEachRow",
            Self::Decisions => "INSERT INTO decisions FORMAT JSONEachRow",
        }
    }

    /// Whether its rows are of a segment each.
    pub fn is_of_segments(self) -> bool {
        self != Self::Decisions
    }

    /// The statement that gives rows of one server by key: takes `server`, `after` (exclusive) and
    /// `to` (inclusive), and `segment` where rows are of segments.
    pub fn check(self) -> String {
        let segment = if self.is_of_segments() { "AND segment = {segment:String} " } else { "" };
        // Not known of rows from before tables of version 4.
        let unknown = if self == Self::Logs { ", body_is_json" } else { "" };
        format!(
            "SELECT * EXCEPT (version, server{unknown}) FROM {} FINAL
                WHERE server = {{server:String}} {segment}AND key > {{after:Int64}} AND key <= {{to:Int64}}
                ORDER BY key FORMAT JSONEachRow",
            self.table()
        )
    }
}
