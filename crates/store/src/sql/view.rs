//! Our tables as SQLite's virtual tables: one adapter, whatever a table is made of.
//!
//! A table is told what of the WHERE clause it may use to look at less (the [`Plan`]). It may use
//! it as loosely as it likes: SQLite tests every row again, so that a table which lets too much
//! through is slow and never wrong. The one promise that counts is that of the order.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int};
use std::marker::PhantomData;

use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::vtab::{
    Context, DistinctMode, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConfig,
    VTabConnection, VTabCursor, sqlite3_vtab, sqlite3_vtab_cursor,
};

use twox_hash::XxHash3_64;

use super::source::Source;
use crate::error::QueryError;
use crate::sql::{SqlKind, SqlViewColumn};

/// Rows between two looks at the clock.
const ROWS_PER_LOOK: u64 = 128;

/// Rows that a planner expects of a whole table.
const EXPECTED_ROWS: f64 = 1_000_000.0;

/// What a row costs that is found by its id, against one that comes along in a scan.
const COST_OF_LOOK_UP: f64 = 50.0;

/// How a column is compared, as far as tables use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Is,
    AtLeast,
    Above,
    /// At most, or below: SQLite tests again.
    AtMost,
}

impl Op {
    fn of(operator: &IndexConstraintOp) -> Option<Self> {
        use IndexConstraintOp as Sqlite;
        match operator {
            Sqlite::SQLITE_INDEX_CONSTRAINT_EQ => Some(Self::Is),
            Sqlite::SQLITE_INDEX_CONSTRAINT_GE => Some(Self::AtLeast),
            Sqlite::SQLITE_INDEX_CONSTRAINT_GT => Some(Self::Above),
            Sqlite::SQLITE_INDEX_CONSTRAINT_LE | Sqlite::SQLITE_INDEX_CONSTRAINT_LT => {
                Some(Self::AtMost)
            }
            _ => None,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Is => 'i',
            Self::AtLeast => 'l',
            Self::Above => 'a',
            Self::AtMost => 'm',
        }
    }

    fn of_letter(letter: char) -> Option<Self> {
        let all = [Self::Is, Self::AtLeast, Self::Above, Self::AtMost];
        all.into_iter().find(|op| op.letter() == letter)
    }
}

/// What a statement asks of a table, beside its rows.
#[derive(Debug, Default)]
pub(super) struct Plan {
    conditions: Vec<(&'static str, Op, Value)>,
    /// The rows must come in the table's own order, newest first.
    pub(super) is_ordered: bool,
    /// Bits of the columns that are asked for.
    pub(super) columns: u64,
}

impl Plan {
    /// Whether a column is compared with null, which nothing is equal to, above or below.
    fn is_impossible(&self) -> bool {
        self.conditions.iter().any(|(_, _, value)| *value == Value::Null)
    }

    /// The texts that a column is said to be equal to. A number compared with a text column does
    /// not count: SQLite decides what that means.
    pub(super) fn texts(&self, column: &str) -> impl Iterator<Item = &str> {
        self.conditions.iter().filter_map(move |(name, op, value)| match value {
            Value::Text(text) if *name == column && *op == Op::Is => Some(text.as_str()),
            _ => None,
        })
    }

    /// The first of [`Plan::texts`].
    pub(super) fn text(&self, column: &str) -> Option<String> {
        self.texts(column).next().map(str::to_owned)
    }

    /// The whole numbers (times, counts) that a column may have, both included; none is below 0.
    pub(super) fn range(&self, column: &str) -> (u64, u64) {
        let (mut least, mut most) = (0, u64::MAX);
        for (name, op, value) in &self.conditions {
            if *name != column {
                continue;
            }
            let (low, high) = match value {
                Value::Integer(time) if *op == Op::Above => (time.saturating_add(1), *time),
                Value::Integer(time) => (*time, *time),
                Value::Real(time) if time.is_finite() => (time.floor() as i64, time.ceil() as i64),
                _ => continue,
            };
            if *op != Op::AtMost {
                least = least.max(u64::try_from(low).unwrap_or(0));
            }
            // Greater numbers than an integer can say stand as the last that it can.
            if matches!(op, Op::Is | Op::AtMost) && high != i64::MAX {
                most = most.min(u64::try_from(high).unwrap_or(0));
            }
        }
        (least, most)
    }
}

/// A value of a row.
#[derive(Debug)]
pub(super) enum Cell<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
}

impl<'a> Cell<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    pub(super) fn owned(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    pub(super) fn text_or_null(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::text)
    }

    /// A text that is empty where nothing is said.
    pub(super) fn said(text: &'a str) -> Self {
        if text.is_empty() { Self::Null } else { Self::text(text) }
    }

    /// A count or time; beyond what an integer can say it is the last that it can.
    pub(super) fn count(count: u64) -> Self {
        Self::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub(super) fn count_or_null(count: Option<u64>) -> Self {
        count.map_or(Self::Null, Self::count)
    }

    pub(super) fn flag(is_so: bool) -> Self {
        Self::Integer(i64::from(is_so))
    }

    pub(super) fn real_or_null(number: Option<f64>) -> Self {
        number.filter(|number| number.is_finite()).map_or(Self::Null, Self::Real)
    }

    /// JSON as text; what no value may be long enough for is told by its size.
    pub(super) fn json(json: &serde_json::Value) -> Self {
        let text = json.to_string();
        if text.len() > crate::sql::MAX_SQL_VALUE_BYTES {
            return Self::owned(format!("{{\"throughline.too_large_bytes\":{}}}", text.len()));
        }
        Self::owned(text)
    }
}

/// Rows of a table, one at a time.
pub(super) trait Rows {
    /// Goes to the next row; `false` when there is none.
    fn next(&mut self) -> Result<bool, QueryError>;

    /// A value of the row that [`Rows::next`] went to.
    fn cell(&self, column: usize) -> Result<Cell<'_>, QueryError>;

    /// What no other row of the table has, and this one in every walk: where conditions are joined by OR, SQLite
    /// walks once for each and leaves out what it had.
    fn identity(&self) -> Identity;
}

/// Which row of its table one is, as 63 bits of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity(i64);

impl Identity {
    /// The row of which this is said.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let mut whole = Vec::new();
        for part in parts {
            whole.extend_from_slice(&part.len().to_le_bytes());
            whole.extend_from_slice(part);
        }
        Self((XxHash3_64::oneshot(&whole) >> 1) as i64)
    }

    pub(super) fn to_le_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }
}

/// A table.
pub(super) trait View: 'static {
    /// Its name.
    const NAME: &'static str;

    /// What it is, for people.
    const ABOUT: &'static str;

    /// Its columns.
    const COLUMNS: &'static [SqlViewColumn];

    /// The column whose falling order [`Plan::is_ordered`] asks for; none when there is no order.
    const NEWEST_FIRST: Option<&'static str> = None;

    /// The share of all rows that a condition leaves; `None` when the table cannot use it.
    fn share(column: &str, op: Op) -> Option<f64>;

    type Rows: Rows;

    /// Begins to read.
    fn open(source: &Source, plan: &Plan) -> Result<Self::Rows, QueryError>;
}

/// Makes a table known to a connection.
pub(super) fn register<V: View>(
    connection: &Connection,
    source: &Source,
) -> Result<(), rusqlite::Error> {
    let module = const { &Module::<Adapter<V>>::eponymous_only_module() };
    connection.create_module(V::NAME, module, Some(source.clone()))
}

/// A table as SQLite sees it.
#[repr(C)]
struct Adapter<V> {
    base: sqlite3_vtab,
    source: Source,
    view: PhantomData<V>,
}

#[expect(unsafe_code, reason = "SQLite finds its part at the beginning, as `repr(C)` puts it")]
// SAFETY: the first field is SQLite's and the layout is that of C.
unsafe impl<'vtab, V: View> VTab<'vtab> for Adapter<V> {
    type Aux = Source;
    type Cursor = Cursor<V>;

    fn connect(
        db: &mut VTabConnection,
        aux: Option<&Source>,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: &[&[u8]],
    ) -> rusqlite::Result<(Cow<'static, CStr>, Self)> {
        db.config(VTabConfig::Innocuous)?;
        let source = aux.ok_or_else(|| broken("a table without its source"))?.clone();
        let columns: Vec<String> = V::COLUMNS
            .iter()
            .map(|column| format!("{} {}", column.name, column.kind.declared()))
            .collect();
        let declaration = CString::new(format!("CREATE TABLE x({})", columns.join(", ")))
            .map_err(|_| broken("a column with a NUL in its name"))?;
        let base = sqlite3_vtab::default();
        Ok((Cow::Owned(declaration), Self { base, source, view: PhantomData }))
    }

    fn best_index(&self, info: &mut IndexInfo) -> rusqlite::Result<bool> {
        let mut used: Vec<(usize, usize, Op)> = Vec::new();
        let mut share = 1.0;
        for (at, constraint) in info.constraints().enumerate() {
            let Some(op) = Op::of(&constraint.operator()) else { continue };
            let column = usize::try_from(constraint.column()).ok();
            let Some(place) = column.filter(|_| constraint.is_usable()) else { continue };
            let Some(column) = V::COLUMNS.get(place) else { continue };
            let Some(leaves) = V::share(column.name, op) else { continue };
            if column.kind == SqlKind::Text && info.collation(at)? != "BINARY" {
                continue;
            }
            used.push((at, place, op));
            share *= leaves;
        }
        let mut text = String::new();
        for (number, (at, place, op)) in used.iter().enumerate() {
            let mut usage = info.constraint_usage(*at);
            usage.set_argv_index(number as c_int + 1);
            usage.set_omit(false);
            text.push_str(&format!("{place}{},", op.letter()));
        }
        let by_time = {
            let mut order = info.order_bys();
            let first = order.next();
            let column = first.filter(|by| by.is_order_by_desc() && order.next().is_none());
            let column = column.and_then(|by| usize::try_from(by.column()).ok());
            column.and_then(|place| V::COLUMNS.get(place)).map(|column| column.name)
        };
        let is_ordered = by_time.is_some()
            && by_time == V::NEWEST_FIRST
            && info.distinct() == DistinctMode::Ordered;
        if is_ordered {
            text.push('o');
            info.set_order_by_consumed(true);
        }
        // What is asked for beyond the 63rd column is told by the last bit; we have fewer.
        text.push_str(&format!("#{}", info.col_used()));
        info.set_idx_str(&text);
        let rows = (EXPECTED_ROWS * share).max(1.0);
        info.set_estimated_rows(rows as i64);
        info.set_estimated_cost(rows + COST_OF_LOOK_UP);
        Ok(true)
    }

    fn open(&'vtab mut self) -> rusqlite::Result<Cursor<V>> {
        let base = sqlite3_vtab_cursor::default();
        Ok(Cursor { base, source: self.source.clone(), rows: None, row: 0 })
    }
}

fn broken(what: &str) -> rusqlite::Error {
    rusqlite::Error::ModuleError(what.to_owned())
}

/// The plan that [`Adapter::best_index`] wrote down, with the values of this turn.
fn plan<V: View>(text: Option<&str>, values: &Filters<'_>) -> Plan {
    let mut plan = Plan::default();
    let (conditions, columns) = text.and_then(|text| text.split_once('#')).unwrap_or_default();
    plan.columns = columns.parse().unwrap_or(u64::MAX);
    let mut values = values.iter();
    for condition in conditions.split(',') {
        if condition == "o" {
            plan.is_ordered = true;
            continue;
        }
        let Some(letter) = condition.chars().next_back() else { continue };
        let Some(value) = values.next() else { break };
        // A text that is none cannot be asked for; SQLite tests the rows again.
        let Ok(value) = Value::try_from(value) else { continue };
        let place: Option<usize> = condition[..condition.len() - letter.len_utf8()].parse().ok();
        let column = place.and_then(|place| V::COLUMNS.get(place));
        if let Some((column, op)) = column.zip(Op::of_letter(letter)) {
            plan.conditions.push((column.name, op, value));
        }
    }
    plan
}

/// A walk over a table.
#[repr(C)]
struct Cursor<V: View> {
    base: sqlite3_vtab_cursor,
    source: Source,
    /// None at the end.
    rows: Option<V::Rows>,
    /// Number of the row, from 1.
    row: u64,
}

impl<V: View> Cursor<V> {
    fn advance(&mut self) -> rusqlite::Result<()> {
        self.row += 1;
        if self.row % ROWS_PER_LOOK == 1 && self.source.is_over() {
            return Err(Source::ended());
        }
        let Some(rows) = &mut self.rows else { return Ok(()) };
        match rows.next() {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.rows = None;
                Ok(())
            }
            Err(error) => Err(self.source.fail(error)),
        }
    }
}

#[expect(unsafe_code, reason = "SQLite finds its part at the beginning, as `repr(C)` puts it")]
// SAFETY: the first field is SQLite's and the layout is that of C.
unsafe impl<V: View> VTabCursor for Cursor<V> {
    fn filter(
        &mut self,
        _: c_int,
        text: Option<&str>,
        values: &Filters<'_>,
    ) -> rusqlite::Result<()> {
        let plan = plan::<V>(text, values);
        self.row = 0;
        self.rows = None;
        // A join over a column that may be null asks so, and must not scan the table for it.
        if plan.is_impossible() {
            return Ok(());
        }
        self.rows = Some(V::open(&self.source, &plan).map_err(|error| self.source.fail(error))?);
        self.advance()
    }

    fn next(&mut self) -> rusqlite::Result<()> {
        self.advance()
    }

    fn eof(&self) -> bool {
        self.rows.is_none()
    }

    fn column(&self, context: &mut Context, column: c_int) -> rusqlite::Result<()> {
        let place = usize::try_from(column).unwrap_or(usize::MAX);
        let Some(rows) = &self.rows else {
            return context.set_result(ToSqlOutput::Owned(Value::Null));
        };
        let cell = rows.cell(place).map_err(|error| self.source.fail(error))?;
        let value = match &cell {
            Cell::Null => ValueRef::Null,
            Cell::Integer(number) => ValueRef::Integer(*number),
            Cell::Real(number) => ValueRef::Real(*number),
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
        };
        context.set_result(ToSqlOutput::Borrowed(value))
    }

    fn rowid(&self) -> rusqlite::Result<i64> {
        Ok(self.rows.as_ref().map_or(0, |rows| rows.identity().0))
    }
}
