//! `throughline store clickhouse`: what the mirror has, and how it differs from the store.

use serde_json::{Value, json};
use throughline_store::TraceFilter;
use throughline_store::clickhouse::{CHECK_ROWS, MirrorError, SERVER_SPANS, StoredRows};
use throughline_trace::TraceId;

use crate::args::ClickHouseAction;
use crate::clickhouse::Client;
use crate::commands::{PAGE_ROWS, of_query, open_reader, write_json};
use crate::failure::{Exit, Failure, Outcome};
use crate::settings::Settings;
use crate::show;

/// Rows that are compared at a time.
const CHECK_PAGE: usize = 2_000;

/// Differences that are named; all are counted.
const MAX_NAMED: usize = 20;

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

/// How two lists of rows differ.
#[derive(Debug, Default, PartialEq)]
struct Difference {
    rows: u64,
    missing: u64,
    extra: u64,
    differing: u64,
    named: Vec<String>,
}

impl Difference {
    fn count(&self) -> u64 {
        self.missing + self.extra + self.differing
    }

    /// Compares rows that both sides have sorted by segment and key.
    fn compare(&mut self, ours: &[Value], theirs: &[Value]) {
        let place = |row: &Value| {
            (row["segment"].as_str().unwrap_or_default().to_owned(), row["key"].as_i64())
        };
        let (mut ours, mut theirs) = (ours.iter().peekable(), theirs.iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(mine), Some(other)) => place(mine).cmp(&place(other)),
            };
            let (mine, other) = (
                if order.is_le() { ours.next() } else { None },
                if order.is_ge() { theirs.next() } else { None },
            );
            self.rows += u64::from(mine.is_some());
            let what = match (mine, other) {
                (Some(mine), Some(other)) if mine == other => continue,
                (Some(_), Some(_)) => {
                    self.differing += 1;
                    "differs"
                }
                (Some(_), None) => {
                    self.missing += 1;
                    "is missing"
                }
                _ => {
                    self.extra += 1;
                    "is not in the store"
                }
            };
            if let Some(row) = mine.or(other)
                && self.named.len() < MAX_NAMED
            {
                let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                self.named.push(format!("{} {} {what}", text("trace_id"), text("span_id")));
            }
        }
    }

    fn verdict(self) -> Outcome {
        if self.count() == 0 {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Damaged,
            format!(
                "ClickHouse differs from the store: {} missing, {} differing, {} extra: {}",
                self.missing,
                self.differing,
                self.extra,
                self.named.join(", ")
            ),
        )
        .hint("what is missing may still be on its way: see throughline_clickhouse_lag_seconds"))
    }
}

async fn check(client: &Client, (stored, server): (&StoredRows, &str), json: bool) -> Outcome {
    let mut found = Difference::default();
    let segments = stored.segments().map_err(unreadable)?;
    for segment in &segments {
        let mut after = i64::MIN;
        loop {
            let page = stored.page(segment, after, CHECK_PAGE).map_err(unreadable)?;
            let is_last = page.len() < CHECK_PAGE;
            let to = if is_last { i64::MAX } else { page.last().map_or(i64::MAX, |row| row.0) };
            let (from, until) = (after.to_string(), to.to_string());
            let options = [
                ("param_server", server),
                ("param_segment", segment.as_str()),
                ("param_after", &from),
                ("param_to", &until),
            ];
            let theirs = client.rows(CHECK_ROWS, &options).await.map_err(failed)?;
            let ours: Vec<Value> = page.into_iter().map(|(_, row)| row).collect();
            found.compare(&ours, &theirs);
            if is_last {
                break;
            }
            after = to;
        }
    }
    let mut out = anstream::stdout().lock();
    if json {
        let answer = json!({
            "segments": segments.len(), "spans": found.rows, "missing": found.missing,
            "differing": found.differing, "extra": found.extra, "is_good": found.count() == 0,
        });
        write_json(&mut out, &answer)?;
    } else {
        use std::io::Write as _;
        let spans = show::counted(found.rows, "span", "spans");
        let segments = show::counted(segments.len() as u64, "segment", "segments");
        writeln!(out, "{spans} of {segments} compared")?;
    }
    found.verdict()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_differs_or_is_too_much_is_told() {
        let row = |key: i64, name: &str| json!({ "segment": "a", "key": key, "name": name });
        let ours = [row(1, "x"), row(2, "x"), row(4, "x")];
        let theirs = [row(1, "x"), row(3, "x"), row(4, "y")];
        let mut found = Difference::default();
        found.compare(&ours, &theirs);
        assert_eq!((found.rows, found.missing, found.extra, found.differing), (3, 1, 1, 1));
        assert!(found.verdict().is_err());
        let mut same = Difference::default();
        same.compare(&ours, &ours);
        assert_eq!((same.rows, same.count()), (3, 0));
    }
}
