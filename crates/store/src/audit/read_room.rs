//! How many reads of decisions are kept, and whose go when there are too many.
//!
//! Whoever may read could ask so much that nothing else is left in the log. So room is shared by
//! readers: who has few records keeps them all, and those who have the most have equally many. What is
//! beyond a reader's room becomes one record that says how often and how much it was.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::schema::from_nanos;

/// Most records that are kept, whatever their age.
pub const MAX_READ_RECORDS: u64 = 200_000;

/// What stands in the place of questions that were added up.
const FOLDED: &str = "(earlier questions, added up)";

/// Records of one reader that were added up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Folded {
    pub(super) who: String,
    pub(super) records: u64,
}

/// Removes records of before a moment, and adds up what is then more than `most`.
pub(super) fn prune(
    control: &Connection,
    before_unix_nano: u64,
    most: u64,
) -> Result<Vec<Folded>, rusqlite::Error> {
    control.execute("DELETE FROM audit_reads WHERE last < ?1", [from_nanos(before_unix_nano)])?;
    let mut statement = control.prepare("SELECT who, count(*) FROM audit_reads GROUP BY who")?;
    let readers = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
    let readers: Vec<(String, u64)> = readers.collect::<Result<_, _>>()?;
    let Some(room) = room_of_each(readers.iter().map(|(_, records)| *records), most) else {
        return Ok(Vec::new());
    };
    let mut folded = Vec::new();
    for (who, records) in readers.into_iter().filter(|(_, records)| *records > room) {
        // The record of all that go is one too.
        if fold(control, &who, room - 1)? {
            folded.push(Folded { who, records: records - room + 1 });
        }
    }
    Ok(folded)
}

/// Most records that each reader keeps, at least one, so that all together have no more than `most`;
/// `None` when there is room for all.
fn room_of_each(records: impl Iterator<Item = u64>, most: u64) -> Option<u64> {
    let mut records: Vec<u64> = records.collect();
    records.sort_unstable();
    let (mut room, mut readers) = (most, records.len() as u64);
    for records in records {
        let share = room / readers;
        if records > share {
            return Some(share.max(1));
        }
        room -= records;
        readers -= 1;
    }
    None
}

/// Adds up a reader's records but the `newest`; answers whether there were any.
fn fold(control: &Connection, who: &str, newest: u64) -> Result<bool, rusqlite::Error> {
    let last: Option<i64> = control
        .prepare_cached(
            "SELECT read FROM audit_reads WHERE who = ?1 ORDER BY read DESC LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![who, newest as i64], |row| row.get(0))
        .optional()?;
    let Some(last) = last else { return Ok(false) };
    control
        .prepare_cached(
            "UPDATE audit_reads SET query = ?3, (first, last, via, times, rows) = (
                SELECT min(first), max(last), iif(min(via) = max(via), min(via), 'several'),
                    sum(times), sum(rows)
                FROM audit_reads WHERE who = ?1 AND read <= ?2)
             WHERE read = ?2",
        )?
        .execute(params![who, last, FOLDED])?;
    control
        .prepare_cached("DELETE FROM audit_reads WHERE who = ?1 AND read < ?2")?
        .execute(params![who, last])?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::CONTROL;

    #[test]
    fn who_has_few_keeps_all_and_the_others_have_equally_many() {
        let room = |records: &[u64], most| room_of_each(records.iter().copied(), most);
        assert_eq!(room(&[], 10), None);
        assert_eq!(room(&[4, 6], 10), None);
        assert_eq!(room(&[4, 7], 10), Some(6));
        assert_eq!(room(&[100, 2, 50, 3], 25), Some(10));
        assert_eq!(room(&[9], 5), Some(5));
        assert_eq!(room(&[1, 1, 9], 2), Some(1), "each has one");
    }

    #[test]
    fn a_reader_who_asks_a_lot_loses_questions_and_nobody_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let control = CONTROL.open_writer(&dir.path().join("control.db")).unwrap();
        let note = |who: &str, via: &str, query: &str, at: i64| {
            control
                .execute(
                    "INSERT INTO audit_reads(first, last, who, via, query, times, rows)
                     VALUES (?1, ?1, ?2, ?3, ?4, 2, 5)",
                    params![at, who, via, query],
                )
                .unwrap();
        };
        let all = || -> Vec<(String, String, String, i64, i64, i64)> {
            let sql = "SELECT who, via, query, first, times, rows FROM audit_reads ORDER BY read";
            let mut statement = control.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
            });
            rows.unwrap().collect::<Result<_, _>>().unwrap()
        };
        let now = from_nanos(1_000);
        note("old", "api", "long ago", from_nanos(1));
        note("bo", "api", "first of all", now);
        for round in 0..2 {
            for at in 0..50 {
                note(
                    "ada",
                    if at == 0 { "page" } else { "api" },
                    &format!("{round} {at}"),
                    now + at,
                );
            }
            note("cy", "page", &format!("{round}"), now);
            // Three are of others in the end: seven are left for her, one of them for all that went.
            let folded = prune(&control, 2, 10).unwrap();
            assert_eq!(folded.len(), 1);
            assert_eq!(folded[0].who, "ada");
            let kept = all();
            assert!(kept.len() <= 10, "{kept:?}");
            assert_eq!(kept.iter().filter(|one| one.0 == "bo").count(), 1);
            assert_eq!(kept.iter().filter(|one| one.0 == "cy").count(), round + 1);
            let ada: Vec<_> = kept.iter().filter(|one| one.0 == "ada").collect();
            let (times, rows) = ada.iter().fold((0, 0), |sum, one| (sum.0 + one.4, sum.1 + one.5));
            let asked = 50 * (round as i64 + 1);
            assert_eq!((times, rows), (2 * asked, 5 * asked), "nothing goes uncounted");
            assert_eq!((ada[0].1.as_str(), ada[0].2.as_str(), ada[0].3), ("several", FOLDED, now));
            assert_eq!(ada.last().unwrap().2, format!("{round} 49"), "the newest stay");
        }
        assert_eq!(prune(&control, 2, 10).unwrap(), [], "and then there is room");
    }
}
