//! SQL over the store: what statements answer.

use std::collections::BTreeSet;
use std::time::Duration;

use throughline_store::{
    MAX_SQL_COLUMNS, Reader, SqlAnswer, SqlCut, SqlError, SqlKind, SqlParameters, SqlQuery,
    SqlValue, Store,
};
use throughline_trace::{Span, SpanBatch, SpanId, StatusCode, TraceId, keys};

use crate::made::{self, DAY, NOON, resource};

#[expect(clippy::panic, reason = "a test that cannot go on fails")]
pub(crate) async fn ask(reader: &Reader, text: &str) -> SqlAnswer {
    let query = SqlQuery { max_rows: 10_000, ..SqlQuery::new(text) };
    reader.sql(query).await.unwrap_or_else(|error| panic!("{text}: {error}"))
}

async fn refusal(reader: &Reader, text: &str) -> SqlError {
    reader.sql(SqlQuery::new(text)).await.unwrap_err()
}

/// The rows as lines, values apart by bars.
pub(crate) fn lines(answer: &SqlAnswer) -> Vec<String> {
    let text = |value: &SqlValue| match value {
        SqlValue::Null => "–".to_owned(),
        SqlValue::Integer(number) => number.to_string(),
        SqlValue::Real(number) => number.to_string(),
        SqlValue::Text(text) => text.clone(),
        SqlValue::Blob(bytes) => format!("{bytes:?}"),
    };
    answer.rows.iter().map(|row| row.iter().map(text).collect::<Vec<_>>().join("|")).collect()
}

pub(crate) fn sorted(answer: &SqlAnswer) -> Vec<String> {
    let mut lines = lines(answer);
    lines.sort();
    lines
}

/// A model call at a cost.
fn call(trace: u128, id: u64, at: u64, model: &str, usd: f64) -> Span {
    let mut span = made::span(trace, id, Some(1), at);
    span.name = format!("chat {model}");
    span.resource = resource("shop");
    let attributes = &mut span.attributes;
    attributes.set(keys::ROLE, "llm_call");
    attributes.set(keys::AGENT_ID, "fraud");
    attributes.set(keys::SESSION_ID, "s-1");
    attributes.set(keys::GEN_AI_RESPONSE_MODEL, model);
    attributes.set("gen_ai.usage.input_tokens", 120_i64);
    attributes.set("gen_ai.usage.output_tokens", 30_i64);
    attributes.set(keys::COST_USD, usd);
    attributes.set("gen_ai.input.messages", r#"[{"role":"user","content":"hello there"}]"#);
    span
}

/// Two days with a trace of two calls, a failed tool, a log record and a decision.
async fn small(store: &Store) {
    let mut tool = made::span(1, 4, Some(1), 9_000);
    tool.resource = resource("bank");
    tool.attributes.set(keys::ROLE, "tool");
    tool.attributes.set(keys::GEN_AI_TOOL_NAME, "lookup");
    tool.attributes.set("gen_ai.tool.call.arguments", r#"{"id":7}"#);
    tool.status.code = StatusCode::Error;
    tool.status.message = "no such account".to_owned();
    let batch = SpanBatch {
        received_unix_nano: NOON,
        spans: vec![
            made::span(1, 1, None, 0),
            call(1, 2, 1_000, "gpt-4o", 0.25),
            call(1, 3, 5_000, "gpt-4o", 0.5),
            tool,
        ],
        logs: vec![made::log(Some(1), 7, "it began"), made::log(None, 3, "alone")],
        decisions: vec![made::decision(1, 77, 8_000)],
        ..SpanBatch::default()
    };
    store.inbox().commit(batch).await.unwrap();
    let later = vec![made::span(2, 1, None, DAY), call(2, 2, DAY + 10, "haiku", 0.125)];
    store.inbox().commit(made::spans(NOON + DAY, later)).await.unwrap();
}

#[tokio::test]
async fn tables_tell_what_is_stored_in_their_units() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    small(&store).await;
    let reader = store.reader();
    let calls = "SELECT model, count(*), sum(cost_nano_usd), sum(cost_usd), sum(input_tokens)
        FROM llm_calls GROUP BY model ORDER BY 3 DESC";
    insta::assert_snapshot!(lines(&ask(&reader, calls).await).join("\n"), @r"
    gpt-4o|2|750000000|0.75|240
    haiku|1|125000000|0.125|120
    ");
    let spans = "SELECT trace_id, span_id, parent_span_id, role, status, service, start_unix_nano,
            end_unix_nano - start_unix_nano, duration_nano, model, cost_usd
        FROM spans WHERE trace_id = '00000000000000000000000000000001' ORDER BY span_id";
    insta::assert_snapshot!(lines(&ask(&reader, spans).await).join("\n"), @r"
    00000000000000000000000000000001|0000000000000001|–|other|unset|unknown_service|1795348800000000000|1000000|1000000|–|–
    00000000000000000000000000000001|0000000000000002|0000000000000001|llm_call|unset|shop|1795348800000001000|1000000|1000000|gpt-4o|0.25
    00000000000000000000000000000001|0000000000000003|0000000000000001|llm_call|unset|shop|1795348800000005000|1000000|1000000|gpt-4o|0.5
    00000000000000000000000000000001|0000000000000004|0000000000000001|tool|error|bank|1795348800000009000|1000000|1000000|–|–
    ");
    let rest =
        "SELECT tool, arguments ->> 'id', status_message, iso(start_unix_nano) FROM tool_calls
        UNION ALL SELECT body, trace_id, severity, time_unix_nano FROM logs
        UNION ALL SELECT action, agent, decision_id, confidence FROM decisions
        UNION ALL SELECT session, traces, turns, cost_usd FROM sessions
        UNION ALL SELECT name, spans, errors, agents FROM traces";
    insta::assert_snapshot!(sorted(&ask(&reader, rest).await).join("\n"), @r#"
    alone|–|INFO|1795348800000000003
    approve|fraud|00000000-0000-0000-0000-00000000004d|0.9
    it began|00000000000000000000000000000001|INFO|1795348800000000007
    lookup|7|no such account|2026-11-22T12:00:00.000009000Z
    s-1|2|3|0.875
    span 1|2|0|["fraud"]
    span 1|4|1|["fraud"]
    "#);
    let json = "SELECT attributes ->> 'gen_ai.input.messages' ->> 0 ->> 'content', events, links,
            resource ->> 'service.name'
        FROM spans WHERE span_id = '0000000000000003'";
    insta::assert_snapshot!(lines(&ask(&reader, json).await).join("\n"), @"hello there|[]|[]|shop");
    store.close().await.unwrap();
}

#[tokio::test]
async fn columns_have_names_types_and_nulls() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    small(&store).await;
    let reader = store.reader();
    let text =
        "SELECT start_unix_nano, attributes, cost_usd AS cost, 1 + 1, null AS gone, x'00ff' AS b
        FROM spans WHERE role = 'other'";
    let answer = ask(&reader, text).await;
    let columns: Vec<_> =
        answer.columns.iter().map(|column| (column.name.as_str(), column.kind)).collect();
    let expected = [
        ("start_unix_nano", Some(SqlKind::Integer)),
        ("attributes", Some(SqlKind::Json)),
        ("cost", Some(SqlKind::Real)),
        ("1 + 1", Some(SqlKind::Integer)),
        ("gone", None),
        ("b", Some(SqlKind::Blob)),
    ];
    assert_eq!(columns, expected);
    assert_eq!(answer.rows.len(), 2);
    assert!(answer.rows.iter().all(|row| row[2] == SqlValue::Null));
    // A time beyond what SQL can say stands as the last that it can, and is found by it.
    let mut late = made::span(9, 1, None, 0);
    (late.start_unix_nano, late.end_unix_nano) = (u64::MAX - 5, u64::MAX);
    store.inbox().commit(made::spans(NOON + DAY, vec![late])).await.unwrap();
    let last = "SELECT count(*) FROM spans WHERE start_unix_nano >= 9223372036854775807";
    assert_eq!(lines(&ask(&reader, last).await), ["1"]);
    let same = "SELECT count(*) FROM spans WHERE start_unix_nano = 9223372036854775807";
    assert_eq!(lines(&ask(&reader, same).await), ["1"]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn parameters_are_bound_by_place_and_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    small(&store).await;
    let reader = store.reader();
    let with = |text: &str, parameters| {
        let query = SqlQuery { parameters, ..SqlQuery::new(text) };
        let reader = reader.clone();
        async move { reader.sql(query).await }
    };
    let text = |text: &str| SqlValue::Text(text.to_owned());
    let by_place = SqlParameters::Positional(vec![text("gpt-4o"), SqlValue::Integer(1)]);
    let found = with("SELECT span_id FROM spans WHERE model = ? LIMIT ?", by_place.clone()).await;
    assert_eq!(found.unwrap().rows.len(), 1);
    let by_name = SqlParameters::Named(vec![("model".to_owned(), text("haiku"))]);
    let found = with("SELECT model FROM spans WHERE model = :model", by_name.clone()).await;
    assert_eq!(lines(&found.unwrap()), ["haiku"]);
    for (statement, parameters, expected) in [
        ("SELECT ?", by_place, "expected 1 parameters, got 2"),
        ("SELECT :other", by_name.clone(), "expected a parameter of the statement, got \"model\""),
        ("SELECT :model, :b", by_name, "expected a value for the parameter :b, got none"),
    ] {
        let error = with(statement, parameters).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn only_reading_is_allowed_and_each_refusal_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    small(&store).await;
    let reader = store.reader();
    let outside = dir.path().join("outside.db");
    let mut told = Vec::new();
    for text in [
        "INSERT INTO spans(name) VALUES ('x')",
        "UPDATE traces SET name = 'x'",
        "DELETE FROM logs",
        "CREATE TABLE t(a)",
        "CREATE TEMP TABLE t AS SELECT 1",
        "DROP VIEW llm_calls",
        &format!("ATTACH '{}' AS o", outside.display()),
        &format!("VACUUM INTO '{}'", outside.display()),
        "PRAGMA temp_store = MEMORY",
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM sqlite_master",
        "SELECT load_extension('x')",
        "SELECT zeroblob(1000000000)",
        "SELECT name GLOB '*' FROM spans",
        "BEGIN",
        "SELECT 1; SELECT 2",
        "SELECT \"text\" FROM spans",
        "SELECT nope FROM spans",
        "SELECT *\nFROM nowhere",
        "SELEC 1",
        "SELECT count(*) FROM spans WHERE",
        "",
    ] {
        let error = refusal(&reader, text).await;
        let text = text.replace(&outside.display().to_string(), "FILE");
        told.push(format!("{text}\n    {error}; {}", error.hint()));
    }
    assert!(!outside.exists());
    insta::assert_snapshot!(told.join("\n"), @r#"
    INSERT INTO spans(name) VALUES ('x')
        expected one SELECT over the documented tables, got INSERT; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    UPDATE traces SET name = 'x'
        expected one SELECT over the documented tables, got UPDATE; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    DELETE FROM logs
        expected one SELECT over the documented tables, got DELETE; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    CREATE TABLE t(a)
        expected one SELECT over the documented tables, got CREATE; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    CREATE TEMP TABLE t AS SELECT 1
        expected one SELECT over the documented tables, got CREATE; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    DROP VIEW llm_calls
        expected one SELECT over the documented tables, got DROP; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    ATTACH 'FILE' AS o
        expected one SELECT over the documented tables, got ATTACH; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    VACUUM INTO 'FILE'
        expected one SELECT over the documented tables, got VACUUM; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    PRAGMA temp_store = MEMORY
        expected one SELECT over the documented tables, got PRAGMA; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    SELECT * FROM pragma_database_list
        expected one SELECT over the documented tables, got the table pragma_database_list; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    SELECT * FROM sqlite_master
        expected one SELECT over the documented tables, got the table sqlite_master; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    SELECT load_extension('x')
        expected one SELECT over the documented tables, got the function load_extension; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    SELECT zeroblob(1000000000)
        expected one SELECT over the documented tables, got the function zeroblob; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    SELECT name GLOB '*' FROM spans
        expected one SELECT over the documented tables, got the function glob; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    BEGIN
        expected one SELECT over the documented tables, got BEGIN; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    SELECT 1; SELECT 2
        expected one SELECT over the documented tables, got several statements; docs/sql.md lists the tables and functions; nothing can be changed by SQL
    SELECT "text" FROM spans
        no such column: "text" - should this be a string literal in single-quotes? (line 1, column 8); docs/sql.md and `throughline query --schema` list the columns; texts are written in single quotes
    SELECT nope FROM spans
        no such column: nope (line 1, column 8); docs/sql.md and `throughline query --schema` list the columns; texts are written in single quotes
    SELECT *
    FROM nowhere
        no such table: nowhere; the tables are spans, traces, llm_calls, tool_calls, sessions, users, decisions, logs, rollups, agents
    SELEC 1
        near "SELEC": syntax error (line 1, column 1); the language is that of SQLite's SELECT
    SELECT count(*) FROM spans WHERE
        incomplete input; the language is that of SQLite's SELECT

        expected a statement of 1 to 65536 bytes, got 0; write a SELECT, such as SELECT count(*) FROM spans
    "#);
    store.close().await.unwrap();
}

#[tokio::test]
async fn answers_are_cut_at_rows_and_bytes_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    small(&store).await;
    let reader = store.reader();
    let six = SqlQuery { max_rows: 6, ..SqlQuery::new("SELECT span_id FROM spans") };
    assert_eq!(reader.sql(six.clone()).await.unwrap().cut, None);
    let answer = reader.sql(SqlQuery { max_rows: 5, ..six.clone() }).await.unwrap();
    assert_eq!((answer.rows.len(), answer.cut), (5, Some(SqlCut::Rows)));
    let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
        SELECT printf('%1000000d', i) FROM n";
    let answer = reader.sql(SqlQuery::new(long)).await.unwrap();
    assert_eq!((answer.rows.len(), answer.cut), (16, Some(SqlCut::Bytes)));
    for (max_rows, timeout) in [(0, 1), (100_001, 1), (1, 0), (1, 61)] {
        let timeout = Duration::from_secs(timeout);
        let error = reader.sql(SqlQuery { max_rows, timeout, ..six.clone() }).await.unwrap_err();
        assert!(matches!(error, SqlError::Bounds(_)), "{error}");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_takes_too_much_ends_and_says_what() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    small(&store).await;
    let reader = store.reader();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    let timeout = Duration::from_millis(200);
    let count = format!("{endless} SELECT count(*) FROM n");
    let error = reader.sql(SqlQuery { timeout, ..SqlQuery::new(count) }).await.unwrap_err();
    assert!(matches!(error, SqlError::Timeout { .. }), "{error}");
    // One function that has much to do looks at the clock as well.
    let like = "SELECT printf('%8000000d', 1) LIKE replace(printf('%300d', 1), ' ', '% ')||'%x'";
    let error = reader.sql(SqlQuery { timeout, ..SqlQuery::new(like) }).await.unwrap_err();
    assert!(matches!(error, SqlError::Timeout { .. }), "{error}");
    let sort = format!("{endless} SELECT printf('%1000000d', i) AS x FROM n ORDER BY random()");
    let timeout = Duration::from_secs(60);
    let error = reader.sql(SqlQuery { timeout, ..SqlQuery::new(sort) }).await.unwrap_err();
    assert!(matches!(error, SqlError::Memory), "{error}");
    let distinct = format!("{endless} SELECT count(DISTINCT printf('%500000d', i)) FROM n");
    let error = reader.sql(SqlQuery { timeout, ..SqlQuery::new(distinct) }).await.unwrap_err();
    assert!(matches!(error, SqlError::Memory), "{error}");
    let error = refusal(&reader, "SELECT printf('%20000000d', 1)").await;
    assert!(matches!(error, SqlError::ValueTooLarge), "{error}");
    // So does what grows from row to row, and what is long only together.
    let group =
        format!("SELECT json_group_array(printf('%100000d', i)) FROM ({endless} SELECT i FROM n)");
    let error = reader.sql(SqlQuery { timeout, ..SqlQuery::new(group) }).await.unwrap_err();
    assert!(matches!(error, SqlError::ValueTooLarge), "{error}");
    let wide = "WITH t(x) AS (SELECT printf('%7000000d', 1)) SELECT x||1, x||2, x||3 FROM t";
    let error = refusal(&reader, wide).await;
    assert!(matches!(error, SqlError::RowTooLarge), "{error}");
    let columns = |count: usize| vec!["1"; count].join(", ");
    let wider = refusal(&reader, &format!("SELECT {}", columns(MAX_SQL_COLUMNS + 1))).await;
    assert!(wider.to_string().contains("too many columns"), "{wider}");
    ask(&reader, &format!("SELECT {}", columns(MAX_SQL_COLUMNS))).await;
    let pretty = "SELECT json_pretty('[1]', printf('%1000000d', 1))";
    assert!(refusal(&reader, pretty).await.to_string().contains("expected one argument"));
    // What is passed over is not looked through for each character.
    let unhex =
        "SELECT unhex(printf('%7000000d',1)||'1', replace(printf('%7000000d',1),' ','x')||' ')";
    assert_eq!(lines(&ask(&reader, unhex).await), ["[17]"]);
    // None of it is left behind.
    assert_eq!(lines(&ask(&reader, "SELECT count(*) FROM spans").await), ["6"]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn functions_do_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let reader = store.reader();
    for (expression, expected) in [
        ("iso(1795348800000000001)", "2026-11-22T12:00:00.000000001Z"),
        ("unix_nano('2026-11-22T12:00:00Z')", "1795348800000000000"),
        ("unix_nano('now') - unix_nano('15m')", "900000000000"),
        ("'Hello' LIKE 'h_l%'", "1"),
        ("instr('größer', 'er')", "5"),
        ("replace('aba', 'a', 'xy')", "xybxy"),
        ("trim('  x ') || rtrim('yaa', 'a')", "xy"),
        ("(SELECT round(quantile(value, 0.5)) FROM json_each('[1,100,10000]'))", "100"),
        ("(SELECT quantile(value, 0.5) FROM json_each('[null]'))", "–"),
        ("iso(null)", "–"),
        ("floor(-1.5) || ceil(1.2) || pow(2, 3) || sqrt(-1)", "–"),
        ("floor(-1.5) || ceil(1.2) || pow(2, 3)", "-2.02.08.0"),
    ] {
        assert_eq!(lines(&ask(&reader, &format!("SELECT {expression}")).await), [expected]);
    }
    let error = refusal(&reader, "SELECT unix_nano('yesterday')").await;
    assert!(matches!(error, SqlError::Value(_)), "{error:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_join_over_nulls_finds_nothing_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    small(&store).await;
    let reader = store.reader();
    let text =
        "SELECT body, count(s.span_id) FROM logs l LEFT JOIN spans s ON s.trace_id = l.trace_id
        GROUP BY body ORDER BY body";
    assert_eq!(lines(&ask(&reader, text).await), ["alone|0", "it began|4"]);
    let none = "SELECT count(*) FROM spans WHERE start_unix_nano > NULL OR trace_id = NULL";
    assert_eq!(lines(&ask(&reader, none).await), ["0"]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn errors_tell_nothing_of_decisions() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    small(&store).await;
    let reader = store.reader();
    for text in [
        "SELECT unix_nano(reason) FROM decisions",
        "SELECT json_extract('{}', reason) FROM decisions",
    ] {
        let error = refusal(&reader, text).await.to_string();
        assert!(!error.contains("Amount") && error.contains("not told"), "{error}");
    }
    let error = refusal(&reader, "SELECT unix_nano('yesterday') FROM spans").await.to_string();
    assert!(error.contains("yesterday"), "{error}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn tables_agree_with_the_lists_and_traces_of_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    small(&store).await;
    let reader = store.reader();
    let trace = reader.trace(TraceId::from_u128(1)).await.unwrap().unwrap();
    let expected: BTreeSet<String> = trace
        .spans
        .iter()
        .map(|span| {
            let usage = span
                .counted_usage()
                .map_or("–".to_owned(), |usage| usage.input_tokens.to_string());
            let parent = span.parent_span_id.map_or("–".to_owned(), |id: SpanId| id.to_string());
            let attributes = span.attributes.to_json();
            format!("{}|{parent}|{}|{usage}|{attributes}", span.span_id, span.role().as_str())
        })
        .collect();
    let text = "SELECT span_id, parent_span_id, role, input_tokens, attributes FROM spans
        WHERE trace_id = '00000000000000000000000000000001'";
    assert_eq!(lines(&ask(&reader, text).await).into_iter().collect::<BTreeSet<_>>(), expected);
    let listed = reader.traces(&Default::default(), None, 10).await.unwrap().items;
    let expected: Vec<String> = listed
        .iter()
        .map(|trace| {
            let numbers =
                [trace.span_count, trace.error_count, trace.cost_nano_usd, trace.decision_count];
            format!(
                "{}|{}|{}",
                trace.trace_id,
                trace.name(),
                numbers.map(|n| n.to_string()).join("|")
            )
        })
        .collect();
    let text = "SELECT trace_id, name, spans, errors, cost_nano_usd, decisions FROM traces
        ORDER BY start_unix_nano DESC";
    assert_eq!(lines(&ask(&reader, text).await), expected);
    store.close().await.unwrap();
}
