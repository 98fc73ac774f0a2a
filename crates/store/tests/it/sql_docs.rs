//! docs/sql.md says what is: its tables, functions and limits are those of the code.

use std::fmt::Write as _;
use std::path::PathBuf;

use throughline_store::{
    DEFAULT_SQL_ROWS, DEFAULT_SQL_TIMEOUT, MAX_SQL_BYTES, MAX_SQL_COLUMNS, MAX_SQL_PARAMETERS,
    MAX_SQL_ROWS, MAX_SQL_TEMP_BYTES, MAX_SQL_TEXT_BYTES, MAX_SQL_TIMEOUT, MAX_SQL_VALUE_BYTES,
    sql_functions, sql_views,
};

use crate::made;
use crate::sql::ask;

fn tables() -> String {
    let mut out = String::new();
    for view in sql_views() {
        let _ = write!(out, "### `{}`\n\n{}\n\n", view.name, view.about);
        out.push_str("| column | type | |\n|---|---|---|\n");
        for column in &view.columns {
            let about = column.about.replace('|', "\\|");
            let _ = writeln!(out, "| `{}` | {} | {about} |", column.name, column.kind.as_str());
        }
        out.push('\n');
    }
    out.trim_end().to_owned()
}

fn functions() -> String {
    let (own, others) = sql_functions();
    let mut out = "| function | |\n|---|---|\n".to_owned();
    for (call, about) in own {
        let _ = writeln!(out, "| `{call}` | {about} |");
    }
    let others: Vec<String> = others.iter().map(|name| format!("`{name}`")).collect();
    let _ = write!(out, "\nOf SQLite's own: {}.", others.join(", "));
    out
}

fn limits() -> String {
    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
    let seconds = |time: std::time::Duration| format!("{} s", time.as_secs());
    let rows = [
        ("time", format!("{}, at most {}", seconds(DEFAULT_SQL_TIMEOUT), seconds(MAX_SQL_TIMEOUT))),
        ("rows of an answer", format!("{DEFAULT_SQL_ROWS}, at most {MAX_SQL_ROWS}")),
        ("columns of an answer, and of anything between", MAX_SQL_COLUMNS.to_string()),
        ("values of an answer", mib(MAX_SQL_BYTES)),
        ("one value", mib(MAX_SQL_VALUE_BYTES)),
        ("what sorting and temporary tables put on disk", mib(MAX_SQL_TEMP_BYTES as usize)),
        ("length of a statement", format!("{} KiB", MAX_SQL_TEXT_BYTES >> 10)),
        ("parameters", MAX_SQL_PARAMETERS.to_string()),
    ];
    let mut out = "| of a statement | |\n|---|---|\n".to_owned();
    for (what, limit) in rows {
        let _ = writeln!(out, "| {what} | {limit} |");
    }
    out.trim_end().to_owned()
}

#[test]
fn the_documentation_is_that_of_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/sql.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut made = text.clone();
    for (name, content) in [("limits", limits()), ("tables", tables()), ("functions", functions())]
    {
        let begin = format!("<!-- {name}: made from the code -->\n");
        let from = made.find(&begin).unwrap() + begin.len();
        let to = from + made[from..].find("<!-- end -->").unwrap();
        made.replace_range(from..to, &format!("{content}\n"));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert!(made == text, "docs/sql.md is behind the code; run the test with UPDATE_DOCS=1");
}

#[tokio::test]
async fn every_documented_column_and_function_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let span = made::span(1, 1, None, 0);
    let batch = throughline_trace::SpanBatch {
        received_unix_nano: made::NOON,
        spans: vec![span],
        logs: vec![made::log(None, 1, "a")],
        decisions: vec![made::decision(1, 1, 1)],
        ..throughline_trace::SpanBatch::default()
    };
    store.inbox().commit(batch).await.unwrap();
    let reader = store.reader();
    for view in sql_views() {
        let all = ask(&reader, &format!("SELECT * FROM {}", view.name)).await;
        let names: Vec<&str> = all.columns.iter().map(|column| column.name.as_str()).collect();
        let documented: Vec<&str> = view.columns.iter().map(|column| column.name).collect();
        assert_eq!(names, documented, "{}", view.name);
        for (got, column) in all.columns.iter().zip(&view.columns) {
            let is_said = got.kind.is_none() || got.kind == Some(column.kind);
            // An expression of a view has the type of its values.
            assert!(is_said, "{}.{}: {:?}", view.name, column.name, got.kind);
        }
    }
    let (own, others) = sql_functions();
    for name in own.iter().map(|(call, _)| call.split('(').next().unwrap()).chain(others) {
        if name.starts_with('-') {
            continue;
        }
        // Whatever it wants, it must not be refused as such, nor be unknown.
        let query = throughline_store::SqlQuery::new(format!("SELECT {name}()"));
        if let Err(error) = reader.sql(query).await {
            let text = error.to_string();
            assert!(!text.contains("no such function") && !text.contains("expected one"), "{text}");
        }
    }
    store.close().await.unwrap();
}
