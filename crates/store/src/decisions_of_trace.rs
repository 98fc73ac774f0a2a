//! Which decisions belong to a trace.
//!
//! The id of nearly every decision begins as that of its trace (`DecisionId::on_trace`), so that the
//! index of ids, which there is anyway, finds them. Only the others are in an index by trace: those whose
//! sender made the id by itself.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params};
use throughline_trace::TraceId;

/// Bytes of a trace's id that such an id begins with; the statements and the index have the number too.
const SHARED_BYTES: usize = 6;

macro_rules! rows {
    () => {
        "SELECT decision FROM decisions WHERE decision_id BETWEEN ? AND ? AND trace_id = ?
         UNION ALL
         SELECT decision FROM decisions
         WHERE trace_id = ? AND substr(decision_id, 1, 6) <> substr(trace_id, 1, 6)"
    };
}

/// The rows of the decisions of a trace, in no order; takes [`values`].
pub(crate) const ROWS: &str = rows!();

/// The condition on `decisions` that they are of a trace; takes [`values`].
pub(crate) const CONDITION: &str = concat!("decision IN (", rows!(), ")");

/// Whether there are any: for a trace that is new there are none nearly always, and this costs a third of counting them.
pub(crate) fn exist(control: &Connection, id: TraceId) -> Result<bool, rusqlite::Error> {
    let (first, last) = bounds(id);
    control
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM decisions WHERE decision_id BETWEEN ?1 AND ?2)
             OR EXISTS (SELECT 1 FROM decisions
                WHERE trace_id = ?3 AND substr(decision_id, 1, 6) <> substr(trace_id, 1, 6))",
        )?
        .query_row(params![first, last, id.as_bytes()], |row| row.get(0))
}

/// Between what ids lie that begin as the id of the trace; the second is longer than any id, so that none that begins so
/// comes behind it.
fn bounds(id: TraceId) -> ([u8; SHARED_BYTES], [u8; SHARED_BYTES + 16]) {
    let mut first = [0; SHARED_BYTES];
    first.copy_from_slice(&id.as_bytes()[..SHARED_BYTES]);
    let mut last = [0xff; SHARED_BYTES + 16];
    last[..SHARED_BYTES].copy_from_slice(&first);
    (first, last)
}

/// What [`ROWS`] and [`CONDITION`] ask for.
pub(crate) fn values(id: TraceId) -> [Sql; 4] {
    let of_trace = || Sql::Blob(id.as_bytes().to_vec());
    let (first, last) = bounds(id);
    [Sql::Blob(first.to_vec()), Sql::Blob(last.to_vec()), of_trace(), of_trace()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::params_from_iter;
    use throughline_trace::DecisionId;

    use super::*;
    use crate::schema::CONTROL;

    fn insert(control: &Connection, decision_id: &[u8], trace_id: Option<&[u8]>) {
        let sql = "INSERT INTO decisions(decision_id, time, received, trace_id, agent, session,
            stage, action, body) VALUES (?1, 1, 1, ?2, 'a', 's', 'st', 'ac', x'00')";
        control.execute(sql, params![decision_id, trace_id]).unwrap();
    }

    fn found(
        control: &Connection,
        condition: &str,
        values: impl IntoIterator<Item = Sql>,
    ) -> Vec<i64> {
        let sql = format!("SELECT decision FROM decisions WHERE {condition} ORDER BY decision");
        let mut statement = control.prepare(&sql).unwrap();
        let rows = statement.query_map(params_from_iter(values), |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    /// An id of few values, so that many begin alike.
    fn id() -> impl Strategy<Value = Vec<u8>> {
        let edge = || prop_oneof![Just(0_u8), Just(1), Just(0xff)];
        (edge(), edge(), proptest::collection::vec(any::<u8>(), 10))
            .prop_map(|(start, last, rest)| [&[start; 5][..], &[last], &rest].concat())
    }

    proptest! {
        #[test]
        fn every_decision_of_a_trace_is_found(
            traces in proptest::collection::vec(id(), 1..4),
            decisions in proptest::collection::btree_map(id(), 0..5_usize, 0..30),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let control = CONTROL.open_writer(&dir.path().join("control.db")).unwrap();
            for (decision, trace) in &decisions {
                insert(&control, decision, traces.get(*trace).map(Vec::as_slice));
            }
            for trace in &traces {
                let id = TraceId::from_slice(trace).unwrap();
                let by_column = found(&control, "+trace_id = ?", [Sql::Blob(trace.clone())]);
                // Of another trace whose id begins alike there may be some too.
                prop_assert!(exist(&control, id).unwrap() || by_column.is_empty());
                prop_assert!(!exist(&control, id).unwrap() || !decisions.is_empty());
                prop_assert_eq!(found(&control, CONDITION, values(id)), by_column);
            }
        }
    }

    #[test]
    fn no_decision_of_other_traces_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let control = CONTROL.open_writer(&dir.path().join("control.db")).unwrap();
        let plan = |sql: &str| -> Vec<String> {
            let mut statement = control.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let lines = statement
                .query_map(params_from_iter(values(TraceId::from_u128(7))), |row| row.get(3));
            lines.unwrap().collect::<Result<_, _>>().unwrap()
        };
        assert!(!exist(&control, TraceId::from_u128(7)).unwrap());
        for sql in [
            ROWS.to_owned(),
            format!("SELECT count(*) FROM decisions WHERE {CONDITION}"),
            format!("SELECT body FROM decisions WHERE {CONDITION} ORDER BY time, decision"),
            format!(
                "SELECT body FROM decisions WHERE {CONDITION} AND +session = 's'
                 ORDER BY time DESC, decision DESC"
            ),
        ] {
            let plan = plan(&sql);
            assert!(plan.iter().all(|line| !line.starts_with("SCAN decisions")), "{plan:?}");
            let by_trace = |line: &String| line.contains("decisions_by_trace (trace_id=?)");
            assert!(plan.iter().any(by_trace), "{plan:?}");
        }
    }

    #[test]
    fn decisions_whose_ids_begin_as_their_traces_are_in_no_index_by_trace() {
        let dir = tempfile::tempdir().unwrap();
        let control = CONTROL.open_writer(&dir.path().join("control.db")).unwrap();
        let trace = TraceId::from_u128(u128::MAX / 3);
        let on_trace = DecisionId::on_trace(trace, [9; 16]);
        let elsewhere = DecisionId(uuid::Uuid::from_bytes([9; 16]));
        for id in [on_trace, elsewhere] {
            insert(&control, id.0.as_bytes(), Some(trace.as_bytes()));
        }
        let sql = "SELECT decision_id FROM decisions INDEXED BY decisions_by_trace
            WHERE substr(decision_id, 1, 6) <> substr(trace_id, 1, 6)";
        let indexed: Vec<[u8; 16]> = control
            .prepare(sql)
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(indexed, [*elsewhere.0.as_bytes()]);
        assert_eq!(found(&control, CONDITION, values(trace)), [1, 2]);
    }
}
