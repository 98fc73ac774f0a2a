//! Where a segment has a trace: its rows by its id, and by their number.
//!
//! An index over ids alone would be written all over, a page for each new trace, twice: once to the log and
//! once to the file. So ids lie by stretches of rows, and a trace is looked for in each of them, the newest
//! first: some dozens in a segment that is full. Whoever knows the row does not look; the writer knows from a
//! filter that a new trace is not there.

use rusqlite::{Connection, OptionalExtension as _};
use throughline_trace::TraceId;

use crate::id_filter::IdFilter;

/// The first row of a trace by its id (`?1`); the number is that of the index.
macro_rules! first_row {
    ($columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM (
                WITH RECURSIVE stretches(stretch) AS (
                    SELECT max(trace_no) >> 14 FROM traces
                    UNION ALL SELECT stretch - 1 FROM stretches WHERE stretch > 0)
                SELECT stretch FROM stretches)
             CROSS JOIN traces INDEXED BY traces_by_stretch
                ON trace_no >> 14 = stretch AND trace_id = ?1 AND continues IS NULL
             LIMIT 1"
        )
    };
}
pub(crate) use first_row;

/// The first row of a trace, by which it is known; `None` when the segment does not have it.
pub(crate) fn first(connection: &Connection, id: TraceId) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .prepare_cached(first_row!("trace_no"))?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()
}

/// The rows of a trace by its first one, in order.
pub(crate) fn rows(connection: &Connection, first: i64) -> Result<Vec<i64>, rusqlite::Error> {
    let mut rows = vec![first];
    let sql = "SELECT trace_no FROM traces WHERE continues = ?1 ORDER BY trace_no";
    let mut statement = connection.prepare_cached(sql)?;
    let widened = statement.query_map([first], |row| row.get(0))?;
    for row in widened {
        rows.push(row?);
    }
    Ok(rows)
}

/// Tells the id of every row.
pub(crate) fn each_id(
    connection: &Connection,
    mut tell: impl FnMut(TraceId),
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare("SELECT trace_id FROM traces")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Ok(id) = TraceId::from_slice(row.get_ref(0)?.as_blob()?) {
            tell(id);
        }
    }
    Ok(())
}

/// Traces of the first filter.
const FIRST_TRACES: usize = 16 * 1024;

/// Bits for each trace: of a thousand new traces, some few are looked for in vain.
const BITS_PER_TRACE: usize = 16;

/// Which traces a segment that is written may have: filters, each for twice as many traces as the one before.
#[derive(Debug, Default)]
pub(crate) struct KnownTraces {
    filters: Vec<IdFilter>,
    /// Traces for which the last filter has still room.
    room: usize,
}

impl KnownTraces {
    /// Those of a segment.
    pub(crate) fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let mut known = Self::default();
        each_id(connection, |id| known.insert(id))?;
        Ok(known)
    }

    /// Remembers a trace.
    pub(crate) fn insert(&mut self, id: TraceId) {
        if self.room == 0 {
            self.room = FIRST_TRACES << self.filters.len();
            self.filters.push(IdFilter::with_bits(self.room * BITS_PER_TRACE));
        }
        self.room -= 1;
        if let Some(last) = self.filters.last_mut() {
            last.insert(id);
        }
    }

    /// Whether the trace may be there; `false` is certain.
    pub(crate) fn may_have(&self, id: TraceId) -> bool {
        self.filters.iter().rev().any(|filter| filter.may_contain(id))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::params;

    use super::*;
    use crate::schema::SEGMENT;

    fn insert(segment: &Connection, trace_no: i64, id: TraceId, continues: Option<i64>) {
        let sql =
            "INSERT INTO traces(trace_no, trace_id, continues, carried, start, duration, errors,
            fallback, name, summary) VALUES (?1, ?2, ?3, 0, 0, 0, 0, 0, '', x'')";
        segment.execute(sql, params![trace_no, id.as_bytes(), continues]).unwrap();
    }

    #[test]
    fn a_trace_is_found_in_whatever_stretch_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let segment = SEGMENT.open_writer(&dir.path().join("one.db")).unwrap();
        let id = |n: i64| TraceId::from_u128(n as u128 * 0x9e37_79b9_7f4a_7c15_u128);
        assert_eq!(first(&segment, id(7)).unwrap(), None);
        let places = [1, 2, 16_383, 16_384, 16_385, 50_000, 200_000];
        for place in places {
            insert(&segment, place, id(place), None);
        }
        insert(&segment, 200_001, id(2), Some(2));
        insert(&segment, 200_002, id(2), Some(2));
        for place in places {
            assert_eq!(first(&segment, id(place)).unwrap(), Some(place));
        }
        assert_eq!(first(&segment, id(3)).unwrap(), None);
        assert_eq!(rows(&segment, 2).unwrap(), [2, 200_001, 200_002]);
        assert_eq!(rows(&segment, 1).unwrap(), [1]);
        let known = KnownTraces::read(&segment).unwrap();
        assert!(places.iter().all(|place| known.may_have(id(*place))));
        assert!(!known.may_have(id(3)));
    }

    #[test]
    fn nothing_is_looked_for_row_by_row() {
        let dir = tempfile::tempdir().unwrap();
        let segment = SEGMENT.open_writer(&dir.path().join("one.db")).unwrap();
        let plan = |sql: &str| -> Vec<String> {
            let mut statement = segment.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let count = statement.parameter_count();
            let values = vec![rusqlite::types::Value::Integer(1); count];
            let lines =
                statement.query_map(rusqlite::params_from_iter(values), |row| row.get(3)).unwrap();
            lines.collect::<Result<_, _>>().unwrap()
        };
        let by_id = plan(first_row!("trace_no"));
        let probe = "SEARCH traces USING INDEX traces_by_stretch (<expr>=? AND trace_id=?)";
        assert!(by_id.iter().any(|line| line == probe), "{by_id:?}");
        let widened = plan("SELECT trace_no FROM traces WHERE continues = ?1 ORDER BY trace_no");
        assert!(widened.iter().all(|line| line.contains("traces_widened")), "{widened:?}");
        let carried = plan("SELECT 1 FROM traces WHERE trace_id = ?1 AND carried = 1");
        assert!(carried.iter().all(|line| line.contains("carried_by_id")), "{carried:?}");
    }

    #[test]
    fn a_filter_that_grows_forgets_nothing() {
        let mut known = KnownTraces::default();
        let traces = FIRST_TRACES as u128 * 4;
        for n in 1..=traces {
            known.insert(TraceId::from_u128(n));
        }
        assert!((1..=traces).all(|n| known.may_have(TraceId::from_u128(n))));
        let wrong = (traces + 1..=traces * 2).filter(|n| known.may_have(TraceId::from_u128(*n)));
        assert!(wrong.count() < 200);
    }
}
