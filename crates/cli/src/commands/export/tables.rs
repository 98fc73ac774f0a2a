//! `throughline export --parquet`: the tables of SQL, a file each.

use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use throughline_store::{
    Reader, SqlColumn, SqlParameters, SqlQuery, SqlSink, SqlValue, SqlView, sql_views,
};

use super::parquet_file::{ParquetColumn, ParquetFile};
use super::{create_private, partial_of};
use crate::args::ExportArgs;
use crate::commands::audit::note_read;
use crate::commands::query::of_sql;
use crate::commands::{of_query, open_reader};
use crate::failure::{Exit, Failure, Outcome};
use crate::settings::Settings;

/// The tables that go, with their column of time.
const TABLES: [(&str, &str); 4] = [
    ("traces", "start_unix_nano"),
    ("spans", "start_unix_nano"),
    ("decisions", "time_unix_nano"),
    ("logs", "time_unix_nano"),
];

/// How long the copy of one table may take.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Writes the tables into the directory that the arguments name.
pub(crate) async fn run(settings: &Settings, args: &ExportArgs) -> Outcome {
    let Some(out) = &args.out else {
        return Err(Failure::usage("expected a directory for --parquet, got none")
            .hint("name one with --out; it gets traces.parquet, spans.parquet, decisions.parquet and logs.parquet"));
    };
    if out.exists() && !out.is_dir() {
        return Err(Failure::usage(format!("expected a directory, {} is none", out.display())));
    }
    std::fs::create_dir_all(out)?;
    let reader = open_reader(settings)?;
    if let Some(id) = args.trace
        && reader.trace(id).await.map_err(of_query)?.is_none()
    {
        return Err(Failure::not_found(format!("no trace {id}")));
    }
    for view in sql_views() {
        if let Some((table, time)) = TABLES.iter().find(|(table, _)| *table == view.name) {
            let query = query(table, time, args);
            let path = out.join(format!("{table}.parquet"));
            let rows = copy(settings, &reader, query, &view, &path).await?;
            tracing::info!(table, rows, file = %path.display(), "exported");
        }
    }
    Ok(())
}

/// What rows must meet.
#[derive(Default)]
struct Conditions {
    all: Vec<String>,
    values: Vec<SqlValue>,
}

impl Conditions {
    fn and(&mut self, condition: impl Into<String>, values: impl IntoIterator<Item = SqlValue>) {
        self.all.push(condition.into());
        self.values.extend(values);
    }

    fn text(&self) -> String {
        if self.all.is_empty() { "1 = 1".to_owned() } else { self.all.join(" AND ") }
    }

    /// The time that the arguments name.
    fn in_time(&mut self, time: &str, args: &ExportArgs) {
        for (moment, operator) in [(args.since, ">="), (args.until, "<")] {
            if let Some(nanos) = moment {
                let moment = SqlValue::Integer(i64::try_from(nanos).unwrap_or(i64::MAX));
                self.and(format!("{time} {operator} ?"), [moment]);
            }
        }
    }
}

/// The traces of the time that name an agent, wherever they do: those that go as OTLP too.
fn traces_of(agent: &SqlValue, args: &ExportArgs) -> Conditions {
    let mut traces = Conditions::default();
    traces.and(
        "EXISTS (SELECT 1 FROM json_each(traces.agents) AS named WHERE named.value = ?)",
        [agent.clone()],
    );
    traces.in_time("start_unix_nano", args);
    traces
}

/// What is asked of a table. Of an agent, traces go whole: with what names no agent, or another.
fn query(table: &str, time: &str, args: &ExportArgs) -> SqlQuery {
    let mut asked = Conditions::default();
    if let Some(id) = args.trace {
        asked.and("trace_id = ?", [SqlValue::Text(id.to_string())]);
    }
    match (args.agent.clone().map(SqlValue::Text), table) {
        (None, _) => asked.in_time(time, args),
        (Some(agent), "traces") => {
            let traces = traces_of(&agent, args);
            asked.and(traces.text(), traces.values);
        }
        (Some(agent), _) => {
            let traces = traces_of(&agent, args);
            let (text, mut values) = (traces.text(), traces.values);
            let mut condition = format!("trace_id IN (SELECT trace_id FROM traces WHERE {text})");
            if table == "decisions" {
                // Its trace need not have spans, or began before that time.
                let mut own = Conditions::default();
                own.and("agent = ?", [agent]);
                own.in_time(time, args);
                condition = format!("({condition} OR {})", own.text());
                values.extend(own.values);
            }
            asked.and(condition, values);
        }
    }
    SqlQuery {
        parameters: SqlParameters::Positional(asked.values.clone()),
        timeout: LONGEST,
        ..SqlQuery::new(format!("SELECT * FROM {table} WHERE {}", asked.text()))
    }
}

/// Copies the rows of a table to a file, and answers how many there were.
async fn copy(
    settings: &Settings,
    reader: &Reader,
    query: SqlQuery,
    view: &SqlView,
    path: &Path,
) -> Outcome<u64> {
    let columns = view.columns.iter().map(|column| (column.name.to_owned(), column.kind)).collect();
    let partial = partial_of(path);
    let sink = Copy { path: partial.clone(), columns, rows: 0, file: None, failure: None };
    let names_decisions = query.names_decisions();
    let ran = reader.sql_into(query, sink).await;
    let read = match &ran {
        Ok((_, run)) => run.decisions_read,
        Err(error) => (names_decisions && error.is_of_run()).then_some(0),
    };
    if let Some(read) = read {
        note_read(settings, "export".to_owned(), usize::try_from(read).unwrap_or(usize::MAX));
    }
    let told = ran.map_err(of_sql).and_then(|(sink, _)| {
        let rows = sink.rows;
        sink.finish().map(|()| rows).map_err(|error| {
            Failure::new(Exit::Failure, format!("cannot write {}: {error}", path.display()))
        })
    });
    match told {
        Ok(rows) => {
            std::fs::rename(&partial, path)?;
            Ok(rows)
        }
        Err(failure) => {
            let _ = std::fs::remove_file(&partial);
            Err(failure)
        }
    }
}

/// Writes rows as they come.
struct Copy {
    path: PathBuf,
    columns: Vec<ParquetColumn>,
    rows: u64,
    file: Option<ParquetFile<BufWriter<std::fs::File>>>,
    failure: Option<io::Error>,
}

impl Copy {
    fn begun(&self) -> io::Result<ParquetFile<BufWriter<std::fs::File>>> {
        ParquetFile::begin(BufWriter::new(create_private(&self.path)?), &self.columns)
    }

    fn finish(self) -> io::Result<()> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let file = self.file.ok_or_else(|| io::Error::other("nothing was begun"))?;
        file.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

impl SqlSink for Copy {
    fn begin(&mut self, _: &[SqlColumn]) {
        (self.rows, self.file, self.failure) = (0, None, None);
        match self.begun() {
            Ok(file) => self.file = Some(file),
            Err(error) => self.failure = Some(error),
        }
    }

    fn row(&mut self, values: Vec<SqlValue>) -> bool {
        let Some(file) = &mut self.file else { return false };
        if let Err(error) = file.row(values) {
            self.failure = Some(error);
            return false;
        }
        self.rows += 1;
        true
    }
}
