//! `throughline store clickhouse`: what the mirror has, and how it differs from the store.

use serde_json::{Value, json};
use throughline_store::TraceFilter;
use throughline_store::clickhouse::{Feed, MirrorError, RowKind, SERVER_SPANS, StoredRows};
use throughline_trace::TraceId;

use crate::args::ClickHouseAction;
use crate::clickhouse::Client;
use crate::commands::{PAGE_ROWS, of_query, open_reader, write_json};
use crate::failure::{Exit, Failure, Outcome};
use crate::settings::{ClickHouseSettings, Settings};
use crate::show;

/// Rows that are compared at a time.
const CHECK_PAGE: usize = 2_000;

/// Metric points that are compared at a time: each look at those of a segment reads all of them.
const CHECK_POINTS: usize = 50_000;

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

/// Whether two rows say the same. ClickHouse writes a float that is whole without a point.
fn is_same(mine: &Value, other: &Value) -> bool {
    match (mine, other) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            a.as_f64() == b.as_f64()
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_same(a, b)))
        }
        (a, b) => a == b,
    }
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
                (Some(mine), Some(other)) if is_same(mine, other) => continue,
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
                let of = match text("decision_id") {
                    id if !id.is_empty() => id,
                    _ if row["name"].is_string() && row["trace_id"].is_null() => text("name"),
                    _ => format!("{} {}", text("trace_id"), text("span_id")),
                };
                self.named.push(format!("{of} {what}"));
            }
        }
    }

    /// Takes in what was found of a kind.
    fn add(&mut self, other: Self, kind: RowKind) {
        self.rows += other.rows;
        self.missing += other.missing;
        self.extra += other.extra;
        self.differing += other.differing;
        let room = MAX_NAMED.saturating_sub(self.named.len());
        let named = other.named.into_iter().take(room);
        self.named.extend(named.map(|named| format!("{} {named}", kind.table())));
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
        counts.push((kind, found.rows));
        all.add(found, kind);
    }
    let mut out = anstream::stdout().lock();
    if json {
        let mut answer = json!({
            "segments": segments.len(), "missing": all.missing, "differing": all.differing,
            "extra": all.extra, "is_good": all.count() == 0,
        });
        for (kind, rows) in counts {
            answer[kind.table()] = rows.into();
        }
        write_json(&mut out, &answer)?;
    } else {
        use std::io::Write as _;
        let told = counts.iter().map(|(kind, rows)| match kind {
            RowKind::Spans => show::counted(*rows, "span", "spans"),
            RowKind::Logs => show::counted(*rows, "log record", "log records"),
            RowKind::Points => show::counted(*rows, "metric point", "metric points"),
            RowKind::Decisions => show::counted(*rows, "decision", "decisions"),
        });
        let told = told.collect::<Vec<_>>().join(", ");
        let segments = show::counted(segments.len() as u64, "segment", "segments");
        writeln!(out, "{told} of {segments} compared")?;
    }
    all.verdict()
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
        let ours: Vec<Value> = page.into_iter().map(|(_, row)| row).collect();
        found.compare(&ours, &theirs);
        if is_last {
            return Ok(());
        }
        after = to;
    }
}

async fn take_over(client: &Client, settings: &Settings, target: &ClickHouseSettings) -> Outcome {
    let limits = (target.batch_rows, target.batch_bytes);
    let feed = Feed::open(&settings.data_dir, &target.target(), limits).map_err(unreadable)?;
    let store = feed.store_id().map_err(unreadable)?;
    client.migrate().await.map_err(failed)?;
    client.take_name(&store).await.map_err(failed)?;
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
