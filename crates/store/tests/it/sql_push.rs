//! What tables leave out of their own accord is what SQLite would have left out.

use proptest::prelude::*;
use throughline_store::SqlValue;
use throughline_trace::{Span, StatusCode, keys};

use crate::made::{self, DAY, NOON, resource};
use crate::sql::{ask, lines, sorted};

/// Spans in which names, times and failures meet in all ways; a trace may have more names than a
/// summary lists.
fn any_spans() -> impl Strategy<Value = Vec<(Span, bool)>> {
    let one = (
        (1..8_u128, 0..40_u64, 0..3_usize, 0..3_usize),
        (0..30_u64, 0..20_u64, 0..3_usize, any::<bool>()),
        (0..24_usize, 0..3_usize, 0..4_usize),
    );
    let one = one.prop_map(|((trace, id, status, role), (at, lasts, service, later), names)| {
        let mut span = made::span(trace, id + 1, None, at);
        span.end_unix_nano = span.start_unix_nano + lasts;
        span.status.code = [StatusCode::Unset, StatusCode::Ok, StatusCode::Error][status];
        span.resource = resource(["a", "b", "c"][service]);
        span.attributes.set(keys::ROLE, ["llm_call", "tool", "attempt"][role]);
        span.attributes.set(keys::AGENT_ID, format!("agent {}", names.0));
        span.attributes.set(keys::SESSION_ID, format!("session {}", names.1));
        span.attributes.set(keys::GEN_AI_RESPONSE_MODEL, format!("model {}", names.2));
        (span, later)
    });
    proptest::collection::vec(one, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn what_tables_leave_out_is_what_sqlite_would(
        list in any_spans(), at in 0..30_u64, until in 0..40_u64, agent in 0..24_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = made::open(dir.path());
            let (later, sooner): (Vec<_>, Vec<_>) = list.into_iter().partition(|(_, later)| *later);
            for (spans, received) in [(sooner, NOON), (later, NOON + DAY)] {
                let spans = spans.into_iter().map(|(span, _)| span).collect();
                store.inbox().commit(made::spans(received, spans)).await.unwrap();
            }
            let reader = store.reader();
            let (at, until) = (NOON + at, NOON + until);
            for table in ["spans", "traces"] {
                let own: &[&str] = match table {
                    "spans" => &["status = 'error'", "status = 'ok'", "role = 'tool'", "model = 'model 2'", "service = 'b'"],
                    _ => &["errors > 0", "errors = 0", "fallback = 'none'", "fallback = 'failed'"],
                };
                let mut conditions: Vec<String> = own.iter().map(|text| (*text).to_owned()).collect();
                conditions.extend([
                    format!("start_unix_nano >= {at}"),
                    format!("start_unix_nano < {until}"),
                    format!("start_unix_nano > {at}.5 AND start_unix_nano <= {until}"),
                    format!("start_unix_nano = {at}"),
                    format!("start_unix_nano BETWEEN {at} AND {until} AND agent = 'agent {agent}'"),
                    format!("agent = 'agent {agent}'"),
                    "session = 'session 1'".to_owned(),
                    "trace_id = '00000000000000000000000000000003'".to_owned(),
                    "trace_id = '0000000000000000000000000000000A'".to_owned(),
                    "trace_id IN ('00000000000000000000000000000003', 'x', '00000000000000000000000000000005')".to_owned(),
                ]);
                for condition in conditions {
                    let select = format!("SELECT * FROM {table} WHERE");
                    let used = ask(&reader, &format!("{select} {condition}")).await;
                    // A sign before the column keeps it from the table: SQLite alone decides.
                    let columns = ["start_unix_nano", "status", "role", "model", "service", "errors", "fallback", "agent", "session", "trace_id"];
                    let plain = columns.iter().fold(format!(" {condition}"), |text, column| {
                        text.replace(&format!(" {column} "), &format!(" +{column} "))
                    });
                    let scanned = ask(&reader, &format!("{select}{plain}")).await;
                    prop_assert!(plain.contains('+'));
                    prop_assert_eq!(sorted(&used), sorted(&scanned), "{}", condition);
                    let ordered = format!("{select} {condition} ORDER BY start_unix_nano DESC");
                    let ordered = ask(&reader, &ordered).await;
                    prop_assert_eq!(sorted(&ordered), sorted(&scanned), "{} in order", condition);
                    let place = ordered.columns.iter().position(|column| column.name == "start_unix_nano").unwrap();
                    let starts: Vec<i64> = ordered.rows.iter().map(|row| match row[place] {
                        SqlValue::Integer(start) => start,
                        _ => panic!("a start is a number"),
                    }).collect();
                    prop_assert!(starts.is_sorted_by(|a, b| a >= b), "{}", condition);
                }
            }
            let counted = lines(&ask(&reader, "SELECT count(*) FROM spans").await);
            prop_assert_eq!(counted, lines(&ask(&reader, "SELECT sum(span_id IS NOT NULL) FROM spans").await));
            store.close().await.unwrap();
            Ok(())
        })?;
    }
}
