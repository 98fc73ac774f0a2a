//! How rows in ClickHouse differ from those of the store.

use std::collections::BTreeMap;

use serde_json::Value;
use throughline_store::clickhouse::RollupTable;

use crate::failure::{Exit, Failure, Outcome};

/// Differences that are named; all are counted.
const MAX_NAMED: usize = 20;

/// Columns of a cell that are told apart when it differs.
const MAX_COLUMNS: usize = 3;

/// Longest text of a value that is told, characters.
const MAX_VALUE_CHARS: usize = 60;

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
pub(super) struct Difference {
    pub(super) rows: u64,
    pub(super) missing: u64,
    pub(super) extra: u64,
    pub(super) differing: u64,
    named: Vec<String>,
}

impl Difference {
    pub(super) fn count(&self) -> u64 {
        self.missing + self.extra + self.differing
    }

    /// Compares rows that both sides have sorted by segment and key.
    pub(super) fn compare(&mut self, ours: &[Value], theirs: &[Value]) {
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

    /// Compares cells of rollups, whose order is of no matter: of one that differs it is told in what.
    pub(super) fn compare_cells(&mut self, table: RollupTable, ours: &[Value], theirs: &[Value]) {
        let place = |row: &Value| {
            let parts: Vec<String> = table.place().iter().map(|of| row[*of].to_string()).collect();
            parts.join(" ")
        };
        let mut there: BTreeMap<String, &Value> =
            theirs.iter().map(|row| (place(row), row)).collect();
        self.rows += ours.len() as u64;
        for mine in ours {
            match there.remove(&place(mine)) {
                Some(other) if is_same(mine, other) => {}
                Some(other) => {
                    self.differing += 1;
                    self.name(|| {
                        format!("{} differs: {}", cell(table, mine), columns(mine, other))
                    });
                }
                None => {
                    self.missing += 1;
                    self.name(|| format!("{} is missing", cell(table, mine)));
                }
            }
        }
        for other in there.into_values() {
            self.extra += 1;
            self.name(|| format!("{} is not in the store", cell(table, other)));
        }
    }

    fn name(&mut self, what: impl FnOnce() -> String) {
        if self.named.len() < MAX_NAMED {
            self.named.push(what());
        }
    }

    /// Takes in what was found of a table.
    pub(super) fn add(&mut self, other: Self, table: &str) {
        self.rows += other.rows;
        self.missing += other.missing;
        self.extra += other.extra;
        self.differing += other.differing;
        let room = MAX_NAMED.saturating_sub(self.named.len());
        let named = other.named.into_iter().take(room);
        self.named.extend(named.map(|named| format!("{table} {named}")));
    }

    pub(super) fn verdict(self) -> Outcome {
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

/// Which cell a row is, for people: its time, names and part.
fn cell(table: RollupTable, row: &Value) -> String {
    let named = table.place().iter().filter_map(|of| match &row[*of] {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(format!("{of}={text}")),
        value => Some(format!("{of}={value}")),
    });
    named.collect::<Vec<_>>().join(" ")
}

/// The columns in which two rows differ.
fn columns(mine: &Value, other: &Value) -> String {
    let shown = |value: &Value| value.to_string().chars().take(MAX_VALUE_CHARS).collect::<String>();
    let columns = mine.as_object().into_iter().flatten();
    let differing = columns.filter(|(name, value)| !is_same(value, &other[name.as_str()]));
    differing
        .take(MAX_COLUMNS)
        .map(|(name, value)| {
            format!("{name} is {} here, {} there", shown(value), shown(&other[name.as_str()]))
        })
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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

    #[test]
    fn of_cells_it_is_told_in_what_they_differ() {
        let cell = |agent: &str, spans: i64, bins: Value| {
            json!({ "resolution": 60, "cuboid": "agent", "agent": agent, "phase": "", "start_unix_seconds": 120,
                "part": 1, "spans": spans, "first_tokens": bins })
        };
        let ours =
            [cell("a", 1, json!({"7": 2})), cell("b", 1, json!({})), cell("c", 1, json!({}))];
        let theirs =
            [cell("d", 1, json!({})), cell("b", 2, json!({"9": 1})), cell("a", 1, json!({"7": 2}))];
        let mut found = Difference::default();
        found.compare_cells(RollupTable::Cells, &ours, &theirs);
        assert_eq!((found.rows, found.missing, found.extra, found.differing), (3, 1, 1, 1));
        let told = found.named.join("\n");
        assert!(told.contains("agent=b start_unix_seconds=120 part=1 differs: "), "{told}");
        assert!(told.contains("spans is 1 here, 2 there"), "{told}");
        assert!(told.contains("agent=c") && told.contains("is missing"), "{told}");
    }
}
