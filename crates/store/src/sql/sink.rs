//! Where the rows of a statement go.

use std::time::Duration;

use super::{MAX_SQL_BYTES, SqlAnswer, SqlColumn, SqlCut, SqlValue};

/// Takes the rows of a statement, one after another.
pub trait SqlSink: Send {
    /// The statement begins. It begins anew when a segment is found damaged, or is retired under its
    /// hands: what was taken before is void then.
    fn begin(&mut self, columns: &[SqlColumn]);

    /// Takes a row, with a value a column; `false` ends the statement.
    fn row(&mut self, values: Vec<SqlValue>) -> bool;
}

/// A statement that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlRun {
    /// How long it ran, without the wait for its turn.
    pub elapsed: Duration,
    /// Decisions that were read; none when the statement does not look at them.
    pub decisions_read: Option<u64>,
    /// Whether spans or log records were read from segments in which sampling took some.
    pub is_sampled: bool,
}

/// Keeps the rows of an answer, as many as it may have.
#[derive(Debug)]
pub(super) struct Collected {
    max_rows: usize,
    columns: Vec<SqlColumn>,
    rows: Vec<Vec<SqlValue>>,
    bytes: usize,
    cut: Option<SqlCut>,
}

impl Collected {
    pub(super) fn of(max_rows: usize) -> Self {
        Self { max_rows, columns: Vec::new(), rows: Vec::new(), bytes: 0, cut: None }
    }

    pub(super) fn into_answer(self, run: SqlRun) -> SqlAnswer {
        let Self { columns, rows, cut, .. } = self;
        let SqlRun { elapsed, decisions_read, is_sampled } = run;
        SqlAnswer { columns, rows, cut, elapsed, decisions_read, is_sampled }
    }
}

impl SqlSink for Collected {
    fn begin(&mut self, columns: &[SqlColumn]) {
        *self = Self { columns: columns.to_vec(), ..Self::of(self.max_rows) };
    }

    fn row(&mut self, values: Vec<SqlValue>) -> bool {
        if self.rows.len() >= self.max_rows {
            self.cut = Some(SqlCut::Rows);
            return false;
        }
        for (column, value) in self.columns.iter_mut().zip(&values) {
            column.kind = column.kind.or(value.kind());
        }
        self.bytes += values.iter().map(SqlValue::bytes).sum::<usize>();
        if self.bytes > MAX_SQL_BYTES {
            self.cut = Some(SqlCut::Bytes);
            return false;
        }
        self.rows.push(values);
        true
    }
}
