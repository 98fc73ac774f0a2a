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
        (1..5_u128, 0..40_u64, 0..3_usize, 0..3_usize),
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
    proptest::collection::vec(one, 60..200)
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
                    // The last in alphabetical order: a summary with many names leaves it out.
                    "agent = 'agent 9'".to_owned(),
                    "session = 'session 1'".to_owned(),
                    "trace_id = '00000000000000000000000000000003'".to_owned(),
                    "trace_id = '0000000000000000000000000000000A'".to_owned(),
                    "trace_id IN ('00000000000000000000000000000003', 'x', '00000000000000000000000000000005')".to_owned(),
                ]);
                let own = own[0].to_owned();
                conditions.extend([
                    format!("agent = 'agent {agent}' OR {own}"),
                    format!("{own} OR start_unix_nano < {until} OR session = 'session 1'"),
                    format!("trace_id IN ('00000000000000000000000000000003', '00000000000000000000000000000001') OR agent = 'agent {agent}'"),
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

#[tokio::test]
async fn so_it_is_for_lists_of_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let any = |number: u64, of: u64| number * 7_919 % of;
    for (day, received) in [(0, NOON), (1, NOON + DAY)] {
        let mut batch = made::spans(received, Vec::new());
        for number in 0..150_u64 {
            let number = number + day * 150;
            let trace = u128::from(any(number, 9)) + 1;
            let mut log = made::log((number % 4 > 0).then_some(trace), any(number, 50), "text");
            log.severity = throughline_trace::Severity(any(number, 25) as u8);
            log.resource = resource(["a", "b"][any(number, 2) as usize]);
            batch.logs.push(log);
            let mut decision = made::decision(trace, u128::from(number) + 1, any(number, 50));
            decision.agent_id = format!("agent {}", any(number, 3));
            decision.session_id = format!("session {}", any(number, 5));
            decision.stage = ["plan", "act"][any(number, 2) as usize].to_owned();
            batch.decisions.push(decision);
            let mut span = made::span(trace, number + 1, None, any(number, 50));
            span.attributes.set(keys::SESSION_ID, format!("session {}", any(number, 5)));
            batch.spans.push(span);
        }
        store.inbox().commit(batch).await.unwrap();
    }
    let reader = store.reader();
    let at = NOON + 20;
    let time = [
        format!("time_unix_nano >= {at}"),
        format!("time_unix_nano < {at}"),
        format!("time_unix_nano = {at}"),
        format!("time_unix_nano > {at} AND time_unix_nano <= {}", at + 9),
        "trace_id = '00000000000000000000000000000003'".to_owned(),
        "trace_id = 'nothing'".to_owned(),
    ];
    let of_logs = [
        "service = 'a'",
        "severity_number >= 17",
        "severity_number > 300",
        "severity_number = 0",
        "trace_id = '00000000000000000000000000000002' AND service = 'b' AND severity_number < 9",
        "trace_id = '00000000000000000000000000000002' OR service = 'b'",
        "service = 'a' OR severity_number >= 9",
    ];
    let of_decisions = [
        "agent = 'agent 1'",
        "stage = 'act' AND session = 'session 2'",
        "decision_id = '00000000-0000-0000-0000-000000000007'",
        "decision_id = '{00000000-0000-0000-0000-000000000007}'",
        "session = 'nobody'",
        "agent = 'agent 1' OR session = 'session 2' OR trace_id = '00000000000000000000000000000002'",
    ];
    let of_sessions = ["session = 'session 3'", "session = 'nobody'"];
    let mut asked: Vec<(&str, String)> = Vec::new();
    for (table, conditions) in
        [("logs", &of_logs[..]), ("decisions", &of_decisions), ("sessions", &of_sessions)]
    {
        asked.extend(conditions.iter().map(|text| (table, (*text).to_owned())));
        if table != "sessions" {
            asked.extend(time.iter().map(|text| (table, text.clone())));
        }
    }
    let columns = [
        "time_unix_nano",
        "trace_id",
        "service",
        "severity_number",
        "agent",
        "stage",
        "session",
        "decision_id",
    ];
    for (table, condition) in asked {
        let used = ask(&reader, &format!("SELECT * FROM {table} WHERE {condition}")).await;
        let plain = columns.iter().fold(format!(" {condition}"), |text, column| {
            text.replace(&format!(" {column} "), &format!(" +{column} "))
        });
        let scanned = ask(&reader, &format!("SELECT * FROM {table} WHERE{plain}")).await;
        assert_eq!(sorted(&used), sorted(&scanned), "{table}: {condition}");
        if table != "sessions" {
            let text =
                format!("SELECT * FROM {table} WHERE {condition} ORDER BY time_unix_nano DESC");
            let ordered = ask(&reader, &text).await;
            assert_eq!(sorted(&ordered), sorted(&scanned), "{table}: {condition}, in order");
            let text = format!(
                "SELECT time_unix_nano FROM {table} WHERE{plain} ORDER BY +time_unix_nano DESC"
            );
            let place = ordered.columns.iter().position(|c| c.name == "time_unix_nano").unwrap();
            let times: Vec<SqlValue> = ordered.rows.iter().map(|row| row[place].clone()).collect();
            let expected: Vec<SqlValue> =
                ask(&reader, &text).await.rows.into_iter().map(|row| row[0].clone()).collect();
            assert_eq!(times, expected, "{table}: {condition}, the order");
        }
    }
    assert_eq!(lines(&ask(&reader, "SELECT count(*) FROM logs").await), ["300"]);
    assert_eq!(lines(&ask(&reader, "SELECT count(*), sum(traces) FROM sessions").await), ["5|45"]);
    store.close().await.unwrap();
}
