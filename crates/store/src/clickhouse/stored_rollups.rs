//! Cells of rollups as the store has them, page by page, to be compared with those in ClickHouse.

use serde_json::Value;
use throughline_trace::Resolution;

use super::cells::{self, MIRRORED};
use super::feed::MirrorError;
use super::rows::StoredRows;
use crate::rollups::Change;
use crate::schema::ROLLUPS;

/// Tables of rollups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RollupTable {
    /// Sums.
    Cells,
    /// Operations by kind.
    Operations,
}

impl RollupTable {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Cells, Self::Operations];

    /// The table there.
    pub fn table(self) -> &'static str {
        match self {
            Self::Cells => "rollups",
            Self::Operations => "rollup_operations",
        }
    }

    /// The columns that name a row.
    pub fn place(self) -> &'static [&'static str] {
        const NAMES: [&str; 11] = [
            "resolution",
            "cuboid",
            "agent",
            "phase",
            "model",
            "tool",
            "agent_version",
            "branch",
            "start_unix_seconds",
            "part",
            "kind",
        ];
        match self {
            Self::Cells => &NAMES[..10],
            Self::Operations => &NAMES,
        }
    }

    /// The statement that gives the rows of one server of some buckets: takes `server`,
    /// `resolution`, `from` and `to` (exclusive), seconds since the Unix epoch. Sums are text, as
    /// those of the store.
    pub fn check(self) -> String {
        let sums = match self {
            Self::Cells => {
                "toString(first_token_sum_nano) AS first_token_sum_nano,
                toString(prompt_tokens_sum) AS prompt_tokens_sum,
                toString(confidence_sum_millionths) AS confidence_sum_millionths"
            }
            Self::Operations => "toString(duration_sum_nano) AS duration_sum_nano",
        };
        format!(
            "SELECT * EXCEPT (version, server) REPLACE ({sums}) FROM {} FINAL
                WHERE server = {{server:String}} AND resolution = {{resolution:UInt32}}
                    AND start_unix_seconds >= {{from:UInt64}} AND start_unix_seconds < {{to:UInt64}}
                FORMAT JSONEachRow",
            self.table()
        )
    }
}

/// Rows of some buckets.
#[derive(Debug, Default)]
pub struct RollupPage {
    /// The first second of the first bucket, since the Unix epoch: nothing is kept here of what is
    /// between the page before and this one.
    pub from_unix_seconds: u64,
    /// The first second of the bucket behind the last; that of the end of time when it is the last.
    pub to_unix_seconds: u64,
    /// Rows of [`RollupTable::Cells`].
    pub cells: Vec<Value>,
    /// Rows of [`RollupTable::Operations`].
    pub operations: Vec<Value>,
}

impl RollupPage {
    /// The rows of a table.
    pub fn rows(&self, table: RollupTable) -> &[Value] {
        match table {
            RollupTable::Cells => &self.cells,
            RollupTable::Operations => &self.operations,
        }
    }
}

impl StoredRows {
    /// Lengths of the buckets that ClickHouse gets, seconds.
    pub fn rollup_resolutions(&self) -> impl Iterator<Item = u64> {
        MIRRORED.into_iter().map(Resolution::seconds)
    }

    /// The next buckets of a resolution (its length in seconds) from a second since the Unix epoch
    /// on, at most so many; `None` when there are none.
    ///
    /// # Errors
    /// [`MirrorError`] when the rollups cannot be read.
    pub fn rollups(
        &self,
        resolution_seconds: u64,
        from_unix_seconds: u64,
        most_buckets: usize,
    ) -> Result<Option<RollupPage>, MirrorError> {
        let number = Resolution::ALL.iter().position(|one| one.seconds() == resolution_seconds);
        let path = self.layout().rollups();
        let (Some(number), true) = (number, path.exists()) else { return Ok(None) };
        let connection = ROLLUPS.open_reader(&path)?;
        let transaction = connection.unchecked_transaction()?;
        let first = from_unix_seconds.div_ceil(resolution_seconds);
        let buckets: Vec<i64> = transaction
            .prepare(
                "SELECT DISTINCT bucket FROM cells WHERE resolution = ?1 AND bucket >= ?2
                    ORDER BY bucket LIMIT ?3",
            )?
            .query_map((number as i64, first as i64, most_buckets as i64 + 1), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let Some(oldest) = buckets.first() else { return Ok(None) };
        let second = |bucket: i64| (bucket as u64).saturating_mul(resolution_seconds);
        let mut found = cells::Rows::default();
        for bucket in buckets.iter().take(most_buckets) {
            let change = Change { number: 0, resolution: number as i64, bucket: *bucket };
            cells::of_bucket(&transaction, change, &mut found)?;
        }
        Ok(Some(RollupPage {
            from_unix_seconds: second(*oldest),
            to_unix_seconds: buckets.get(most_buckets).map_or(u64::MAX, |next| second(*next)),
            cells: found.cells,
            operations: found.operations,
        }))
    }
}
