//! Which decisions belong to a session.
//!
//! An index over sessions alone would be written all over, a page for nearly each decision, twice: once to the
//! log and once to the file. So sessions lie by stretches of decisions, as traces do in a segment
//! (`trace_place.rs`), and a session is looked for in each of them: a thousand where there are four million
//! decisions, in some milliseconds.

use rusqlite::{Connection, params};

/// Sessions lie by stretches of 4,096 rows.
pub(crate) const BY_STRETCH: &str = "
DROP INDEX decisions_by_session;
CREATE INDEX decisions_by_session ON decisions(decision >> 12, session);
";

/// Most decisions of a session that a list sorts by time before it shows the first; of a session with more, it
/// walks by time over those of all.
const MAX_SORTED: i64 = 20_000;

macro_rules! rows {
    () => {
        "SELECT decision FROM (
            WITH RECURSIVE stretches(stretch) AS (
                SELECT max(decision) >> 12 FROM decisions
                UNION ALL SELECT stretch - 1 FROM stretches
                    WHERE stretch > (SELECT min(decision) >> 12 FROM decisions))
            SELECT stretch FROM stretches)
        CROSS JOIN decisions INDEXED BY decisions_by_session
            ON decision >> 12 = stretch AND session = ?"
    };
}

/// The condition on `decisions` that they are of a session, which is its only value.
pub(crate) const CONDITION: &str = concat!("decision IN (", rows!(), ")");

/// Whether a session has few enough decisions to be sorted.
pub(crate) fn are_few(control: &Connection, session: &str) -> Result<bool, rusqlite::Error> {
    are_at_most(control, session, MAX_SORTED)
}

fn are_at_most(control: &Connection, session: &str, most: i64) -> Result<bool, rusqlite::Error> {
    let sql = concat!("SELECT count(*) FROM (", rows!(), " LIMIT ? + 1)");
    let count: i64 =
        control.prepare_cached(sql)?.query_row(params![session, most], |row| row.get(0))?;
    Ok(count <= most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::CONTROL;

    fn with_decisions(rows: &[(i64, &str)]) -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let control = CONTROL.open_writer(&dir.path().join("control.db")).unwrap();
        for (row, session) in rows {
            let id = [(*row as u128).to_be_bytes().as_slice()].concat();
            let sql = "INSERT INTO decisions(decision, decision_id, time, received, agent, session,
                stage, action, body) VALUES (?1, ?2, 1, 1, 'a', ?3, 'st', 'ac', x'00')";
            control.execute(sql, params![row, id, session]).unwrap();
        }
        (dir, control)
    }

    fn found(control: &Connection, session: &str) -> Vec<i64> {
        let sql = format!("SELECT decision FROM decisions WHERE {CONDITION} ORDER BY decision");
        let mut statement = control.prepare(&sql).unwrap();
        let rows = statement.query_map([session], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn every_decision_of_a_session_is_found_in_whatever_stretch_it_is() {
        let edges = [5_000, 8_191, 8_192, 12_287, 12_288, 1 << 20, (1 << 20) + 4_096];
        let rows: Vec<(i64, &str)> = edges
            .into_iter()
            .flat_map(|row| [(row, "ada"), (row + 10_000_000, "ada"), (row + 100, "bo")])
            .collect();
        let (_dir, control) = with_decisions(&rows);
        for session in ["ada", "bo", "cy"] {
            let mut expected: Vec<i64> =
                rows.iter().filter(|row| row.1 == session).map(|row| row.0).collect();
            expected.sort_unstable();
            assert_eq!(found(&control, session), expected);
        }
        assert_eq!(found(&with_decisions(&[]).1, "ada"), Vec::<i64>::new());
        let of_ada = found(&control, "ada").len() as i64;
        for (most, expected) in [(of_ada, true), (of_ada - 1, false), (0, false)] {
            assert_eq!(are_at_most(&control, "ada", most).unwrap(), expected, "{most}");
        }
        assert!(are_few(&control, "cy").unwrap());
    }

    #[test]
    fn no_decision_of_another_session_is_read() {
        let (_dir, control) = with_decisions(&[]);
        for sql in [
            format!("SELECT count(*) FROM decisions WHERE {CONDITION}"),
            format!(
                "SELECT body FROM decisions WHERE 1 AND {CONDITION} AND +agent = 'a' AND time < 9
                 ORDER BY time DESC, decision DESC"
            ),
        ] {
            let mut statement = control.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let lines: Vec<String> = statement
                .query_map(["ada"], |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            assert!(lines.iter().all(|line| !line.starts_with("SCAN decisions")), "{lines:?}");
            let by_row = "SEARCH decisions USING INTEGER PRIMARY KEY (rowid=?)";
            assert!(lines.iter().any(|line| line == by_row), "{lines:?}");
            let by_session =
                |line: &String| line.contains("decisions_by_session (<expr>=? AND session=?)");
            assert!(lines.iter().any(by_session), "{lines:?}");
        }
    }
}
