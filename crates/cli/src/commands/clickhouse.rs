//! `throughline store clickhouse`: what the mirror has, and how it differs from the store.

use serde_json::{Value, json};
use throughline_store::TraceFilter;
use throughline_store::clickhouse::{
    Feed, MirrorError, RollupTable, RowKind, SERVER_SPANS, StoredRows,
};
use throughline_trace::TraceId;

use crate::args::ClickHouseAction;
use crate::clickhouse::Client;
use crate::commands::{PAGE_ROWS, of_query, open_reader, write_json};
use crate::failure::{Exit, Failure, Outcome};
use crate::settings::{ClickHouseSettings, Settings};
use crate::show;
use difference::Difference;

mod difference;

/// Rows that are compared at a time.
const CHECK_PAGE: usize = 2_000;

/// Metric points that are compared at a time: each look at those of a segment reads all of them.
const CHECK_POINTS: usize = 50_000;

/// Buckets of rollups that are compared at a time.
const CHECK_BUCKETS: usize = 60;

/// Runs one action.
pub(crate) async fn run(settings: &Settings, action: ClickHouseAction) -> Outcome {
    let Some(target) = &settings.clickhouse else {
        return Err(Failure::usage(
            "expected `store.clickhouse` in the configuration file, got none",
        )
        .hint("docs/clickhouse.md says how a mirror is set up"));
    };
    // Without a store there is nothing to compare with.
    drop(open_reader(settings)?);
    let client = Client::new(target).map_err(failed)?;
    let stored = StoredRows::new(&settings.data_dir);
    match action {
        ClickHouseAction::Check { json } => check(&client, (&stored, &target.server), json).await,
        ClickHouseAction::Trace { id } => trace(&client, (&stored, &target.server), id).await,
        ClickHouseAction::TakeOver => take_over(&client, settings, target).await,
        ClickHouseAction::Traces { from, before, limit } => {
            traces(&client, (from, before), limit).await
        }
    }
}

fn failed(error: String) -> Failure {
    Failure::new(Exit::Failure, error)
}

fn unreadable(error: MirrorError) -> Failure {
    failed(error.to_string())
}

async fn check(client: &Client, (stored, server): (&StoredRows, &str), json: bool) -> Outcome {
    let mut all = Difference::default();
    let mut counts = Vec::new();
    let segments = stored.segments().map_err(unreadable)?;
    for kind in RowKind::ALL {
        let mut found = Difference::default();
        let none = [String::new()];
        let places = if kind.is_of_segments() { &segments[..] } else { &none[..] };
        for segment in places {
            check_kind(client, (stored, server), (kind, segment), &mut found).await?;
        }
        counts.push((kind.table(), names_of(kind), found.rows));
        all.add(found, kind.table());
    }
    for (table, found) in check_rollups(client, (stored, server)).await? {
        let names = match table {
            RollupTable::Cells => ("cell of rollups", "cells of rollups"),
            RollupTable::Operations => ("sum of operations", "sums of operations"),
        };
        counts.push((table.table(), names, found.rows));
        all.add(found, table.table());
    }
    let mut out = anstream::stdout().lock();
    if json {
        let mut answer = json!({
            "segments": segments.len(), "missing": all.missing, "differing": all.differing,
            "extra": all.extra, "is_good": all.count() == 0,
        });
        for (table, _, rows) in counts {
            answer[table] = rows.into();
        }
        write_json(&mut out, &answer)?;
    } else {
        use std::io::Write as _;
        let told = counts.iter().map(|(_, (one, many), rows)| show::counted(*rows, one, many));
        let told = told.collect::<Vec<_>>().join(", ");
        let segments = show::counted(segments.len() as u64, "segment", "segments");
        writeln!(out, "{told} of {segments} compared")?;
    }
    all.verdict()
}

/// What one row and several rows of a kind are called.
fn names_of(kind: RowKind) -> (&'static str, &'static str) {
    match kind {
        RowKind::Spans => ("span", "spans"),
        RowKind::Logs => ("log record", "log records"),
        RowKind::Points => ("metric point", "metric points"),
        RowKind::Decisions => ("decision", "decisions"),
    }
}

async fn check_kind(
    client: &Client,
    (stored, server): (&StoredRows, &str),
    (kind, segment): (RowKind, &str),
    found: &mut Difference,
) -> Outcome {
    let most = if kind == RowKind::Points { CHECK_POINTS } else { CHECK_PAGE };
    let (sql, mut after) = (kind.check(), i64::MIN);
    loop {
        let page = stored.page(kind, segment, (after, most)).map_err(unreadable)?;
        let is_last = page.len() < most;
        let to = if is_last { i64::MAX } else { page.last().map_or(i64::MAX, |row| row.0) };
        let (from, until) = (after.to_string(), to.to_string());
        let mut options =
            vec![("param_server", server), ("param_after", &from), ("param_to", &until)];
        if kind.is_of_segments() {
            options.push(("param_segment", segment));
        }
        let theirs = client.rows(&sql, &options).await.map_err(failed)?;
        let mut ours: Vec<Value> = page.into_iter().map(|(_, row)| row).collect();
        // Not known of rows from before tables of version 4.
        let rows = ours.iter_mut().filter_map(Value::as_object_mut);
        rows.for_each(|row| drop(row.remove("body_is_json")));
        found.compare(&ours, &theirs);
        if is_last {
            return Ok(());
        }
        after = to;
    }
}

/// Cells of rollups, of the time that the store still has: ClickHouse keeps them longer.
async fn check_rollups(
    client: &Client,
    (stored, server): (&StoredRows, &str),
) -> Outcome<[(RollupTable, Difference); 2]> {
    let mut found = RollupTable::ALL.map(|table| (table, Difference::default()));
    for resolution in stored.rollup_resolutions() {
        let mut from = 0;
        while let Some(page) =
            stored.rollups(resolution, from, CHECK_BUCKETS).map_err(unreadable)?
        {
            // What is there between two pages, and is not here, is of the page before.
            let begin = if from == 0 { page.from_unix_seconds } else { from };
            let values = [resolution, begin, page.to_unix_seconds].map(|value| value.to_string());
            let options = [
                ("param_server", server),
                ("param_resolution", &values[0]),
                ("param_from", &values[1]),
                ("param_to", &values[2]),
            ];
            for (table, difference) in &mut found {
                let theirs = client.rows(&table.check(), &options).await.map_err(failed)?;
                difference.compare_cells(*table, page.rows(*table), &theirs);
            }
            from = page.to_unix_seconds;
        }
    }
    Ok(found)
}

async fn take_over(client: &Client, settings: &Settings, target: &ClickHouseSettings) -> Outcome {
    let limits = (target.batch_rows, target.batch_bytes);
    let feed = Feed::open(&settings.data_dir, &target.target(), limits).map_err(unreadable)?;
    let store = feed.store_id().map_err(unreadable)?;
    client.migrate().await.map_err(failed)?;
    client.take_name(&store, 0).await.map_err(failed)?;
    use std::io::Write as _;
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "the server name {:?} belongs to this data directory now ({store})",
        target.server
    )?;
    Ok(())
}

async fn trace(client: &Client, (stored, server): (&StoredRows, &str), id: TraceId) -> Outcome {
    let text = id.to_string();
    let options = [("param_server", server), ("param_trace_id", text.as_str())];
    let theirs = client.rows(SERVER_SPANS, &options).await.map_err(failed)?;
    let ours = stored.trace(id).map_err(unreadable)?;
    if ours.is_empty() && theirs.is_empty() {
        return Err(Failure::new(Exit::NotFound, format!("no spans of trace {id}, here or there")));
    }
    let mut out = anstream::stdout().lock();
    for row in &theirs {
        write_json(&mut out, row)?;
    }
    let mut found = Difference::default();
    found.compare(&ours, &theirs);
    found.verdict()
}

async fn traces(client: &Client, (from, before): (u64, u64), limit: u32) -> Outcome {
    let filter = TraceFilter {
        start_after_unix_nano: Some(from),
        start_before_unix_nano: Some(before),
        ..TraceFilter::default()
    };
    let (reader, mut left) = (client.reader(), limit as usize);
    let mut cursor: Option<String> = None;
    let mut out = anstream::stdout().lock();
    while left > 0 {
        let page = reader
            .traces(&filter, cursor.as_deref(), left.min(PAGE_ROWS))
            .await
            .map_err(of_query)?;
        for summary in &page.items {
            write_json(&mut out, summary)?;
        }
        left = left.saturating_sub(page.items.len());
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    Ok(())
}
