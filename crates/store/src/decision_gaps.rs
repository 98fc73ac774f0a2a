//! Which decisions are missing: every instance of the SDK numbers its decisions from 1, so a number
//! that never came is a decision that was lost on the way.

use rusqlite::{Connection, OptionalExtension as _, params};
use throughline_trace::Decision;

use crate::answer::DecisionGap;
use crate::schema::{from_nanos, to_nanos};
use crate::trace_rows::RowError;

/// Instances with the highest number that their decisions had, and the numbers that never came.
pub(crate) const DECISION_GAPS: &str = "
CREATE TABLE instances(instance TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE decision_gaps(
    instance TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    noticed INTEGER NOT NULL, agent TEXT NOT NULL, PRIMARY KEY (instance, first)) WITHOUT ROWID;
CREATE INDEX decision_gaps_noticed ON decision_gaps(noticed);
";

/// Notes the number of a decision that was really inserted: a number beyond the last one opens a
/// gap, a late one closes or splits the gap that it falls in. A number beyond what SQLite's
/// integers hold (2⁶³ − 1) is no running number and is not followed.
pub(crate) fn note(control: &Connection, decision: &Decision) -> Result<(), RowError> {
    let (instance, Ok(seq)) = (&decision.instance_id, i64::try_from(decision.seq)) else {
        return Ok(());
    };
    if instance.is_empty() || seq == 0 {
        return Ok(());
    }
    let last: i64 = control
        .prepare_cached("SELECT last FROM instances WHERE instance = ?1")?
        .query_row([instance], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    let open = "INSERT INTO decision_gaps VALUES (?1, ?2, ?3, ?4, ?5)";
    let received = from_nanos(decision.received_at_ns);
    if seq > last {
        control
            .prepare_cached(
                "INSERT INTO instances VALUES (?1, ?2) ON CONFLICT DO UPDATE SET last = ?2",
            )?
            .execute(params![instance, seq])?;
        if seq > last + 1 {
            let agent = &decision.agent_id;
            control.prepare_cached(open)?.execute(params![
                instance,
                last + 1,
                seq - 1,
                received,
                agent
            ])?;
        }
        return Ok(());
    }
    let gap: Option<(i64, i64, i64, String)> = control
        .prepare_cached(
            "DELETE FROM decision_gaps WHERE instance = ?1 AND first =
                (SELECT max(first) FROM decision_gaps WHERE instance = ?1 AND first <= ?2)
                AND last >= ?2 RETURNING first, last, noticed, agent",
        )?
        .query_row(params![instance, seq], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    if let Some((first, last, noticed, agent)) = gap {
        let mut statement = control.prepare_cached(open)?;
        for (first, last) in [(first, seq - 1), (seq + 1, last)] {
            if first <= last {
                statement.execute(params![instance, first, last, noticed, agent])?;
            }
        }
    }
    Ok(())
}

/// Gaps that were noticed before a time, newest first, at most `limit`.
pub(crate) fn list(
    control: &Connection,
    noticed_before_unix_nano: u64,
    limit: usize,
) -> Result<Vec<DecisionGap>, RowError> {
    let mut statement = control.prepare_cached(
        "SELECT instance, agent, first, last, noticed FROM decision_gaps
         WHERE noticed < ?1 ORDER BY noticed DESC, instance, first LIMIT ?2",
    )?;
    let mut rows = statement.query(params![from_nanos(noticed_before_unix_nano), limit as i64])?;
    let mut gaps = Vec::new();
    while let Some(row) = rows.next()? {
        gaps.push(DecisionGap {
            instance_id: row.get(0)?,
            agent_id: row.get(1)?,
            first_seq: row.get::<_, i64>(2)? as u64,
            last_seq: row.get::<_, i64>(3)? as u64,
            noticed_unix_nano: to_nanos(row.get(4)?),
        });
    }
    Ok(gaps)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use throughline_trace::{Attributes, DecisionId};

    use super::*;

    fn decision(instance: &str, seq: u64) -> Decision {
        Decision {
            decision_id: DecisionId::random(),
            parent_decision_id: None,
            trace_id: None,
            span_id: None,
            timestamp_ns: seq,
            received_at_ns: 10,
            stage: String::new(),
            input_hash: String::new(),
            model_version: String::new(),
            action: "go".to_owned(),
            reason: String::new(),
            confidence: None,
            agent_id: "fraud".to_owned(),
            session_id: String::new(),
            instance_id: instance.to_owned(),
            seq,
            derived: false,
            service: String::new(),
            attributes: Attributes::new(),
        }
    }

    proptest! {
        #[test]
        fn gaps_are_the_numbers_that_never_came(
            seqs in Just((1u64..30).collect::<Vec<_>>()).prop_shuffle(), kept in 0usize..30,
        ) {
            let control = Connection::open_in_memory().unwrap();
            control.execute_batch(DECISION_GAPS).unwrap();
            let came: BTreeSet<u64> = seqs.into_iter().take(kept).collect();
            for seq in came.iter().rev().step_by(2).chain(came.iter().step_by(2)) {
                note(&control, &decision("a", *seq)).unwrap();
                note(&control, &decision("", *seq)).unwrap();
                note(&control, &decision("b", 0)).unwrap();
            }
            let noted: BTreeSet<u64> =
                came.iter().rev().step_by(2).chain(came.iter().step_by(2)).copied().collect();
            let last = noted.last().copied().unwrap_or(0);
            let missing: Vec<u64> = (1..last).filter(|seq| !noted.contains(seq)).collect();
            let gaps = list(&control, 11, 100).unwrap();
            prop_assert!(gaps.iter().all(|gap| gap.instance_id == "a" && gap.agent_id == "fraud"));
            let mut told: Vec<u64> =
                gaps.iter().flat_map(|gap| gap.first_seq..=gap.last_seq).collect();
            told.sort_unstable();
            prop_assert_eq!(told, missing);
            prop_assert!(list(&control, 10, 100).unwrap().is_empty());
        }
    }
}
