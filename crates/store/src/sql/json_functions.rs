//! JSON functions of SQLite that know no bound, with one.

use rusqlite::functions::{Aggregate, Context, FunctionFlags, SubType};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error};

use super::MAX_SQL_VALUE_BYTES;

/// How SQLite marks text as JSON (`JSON_SUBTYPE`): put into other JSON it stays JSON.
const JSON: u32 = 74;

/// Makes the functions known to a connection.
pub(super) fn register(connection: &Connection) -> Result<(), Error> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS
        | FunctionFlags::SQLITE_SUBTYPE
        | FunctionFlags::SQLITE_RESULT_SUBTYPE;
    connection.create_aggregate_function("json_group_array", 1, flags, Array)?;
    connection.create_aggregate_function("json_group_object", 2, flags, Object)?;
    // An indent of megabytes, once for each line.
    connection.create_scalar_function(
        "json_pretty",
        2,
        flags,
        |_| -> Result<Option<String>, Error> {
            Err(refused("json_pretty: expected one argument, got two"))
        },
    )
}

fn refused(message: &str) -> Error {
    Error::UserFunctionError(message.into())
}

/// What is gathered of a group.
#[derive(Debug, Default)]
struct Gathered(String);

impl Gathered {
    fn begin_item(&mut self, opening: char) {
        self.0.push(if self.0.is_empty() { opening } else { ',' });
    }

    fn text(&mut self, text: &str) -> Result<(), Error> {
        let quoted = serde_json::to_string(text).map_err(|error| refused(&error.to_string()))?;
        self.0.push_str(&quoted);
        Ok(())
    }

    fn value(&mut self, context: &Context<'_>, at: usize) -> Result<(), Error> {
        match context.get_raw(at) {
            ValueRef::Null => self.0.push_str("null"),
            ValueRef::Integer(number) => self.0.push_str(&number.to_string()),
            // JSON has no infinity; SQLite writes a number that reads as one.
            ValueRef::Real(number) if number.is_infinite() => {
                self.0.push_str(if number > 0.0 { "9.0e+999" } else { "-9.0e+999" });
            }
            ValueRef::Real(number) => self.0.push_str(&format!("{number:?}")),
            ValueRef::Text(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                if context.get_subtype(at) == JSON {
                    self.0.push_str(&text);
                } else {
                    self.text(&text)?;
                }
            }
            ValueRef::Blob(_) => return Err(refused("JSON cannot hold BLOB values")),
        }
        self.check()
    }

    fn check(&self) -> Result<(), Error> {
        if self.0.len() < MAX_SQL_VALUE_BYTES {
            return Ok(());
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_TOOBIG);
        Err(Error::SqliteFailure(code, None))
    }

    fn end(mut self, empty: &str, closing: char) -> (String, SubType) {
        if self.0.is_empty() {
            self.0.push_str(empty);
        } else {
            self.0.push(closing);
        }
        (self.0, Some(JSON))
    }
}

/// `json_group_array(value)`.
struct Array;

impl Aggregate<Gathered, (String, SubType)> for Array {
    fn init(&self, _: &mut Context<'_>) -> Result<Gathered, Error> {
        Ok(Gathered::default())
    }

    fn step(&self, context: &mut Context<'_>, gathered: &mut Gathered) -> Result<(), Error> {
        gathered.begin_item('[');
        gathered.value(context, 0)
    }

    fn finalize(
        &self,
        _: &mut Context<'_>,
        gathered: Option<Gathered>,
    ) -> Result<(String, SubType), Error> {
        Ok(gathered.unwrap_or_default().end("[]", ']'))
    }
}

/// `json_group_object(name, value)`; what has no name is left out.
struct Object;

impl Aggregate<Gathered, (String, SubType)> for Object {
    fn init(&self, _: &mut Context<'_>) -> Result<Gathered, Error> {
        Ok(Gathered::default())
    }

    fn step(&self, context: &mut Context<'_>, gathered: &mut Gathered) -> Result<(), Error> {
        let name = match context.get_raw(0) {
            ValueRef::Null => return Ok(()),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => format!("{number:?}"),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
        };
        gathered.begin_item('{');
        gathered.text(&name)?;
        gathered.0.push(':');
        gathered.value(context, 1)
    }

    fn finalize(
        &self,
        _: &mut Context<'_>,
        gathered: Option<Gathered>,
    ) -> Result<(String, SubType), Error> {
        Ok(gathered.unwrap_or_default().end("{}", '}'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn both(sql: &str, values: &[rusqlite::types::Value]) -> [Result<String, Error>; 2] {
        [false, true].map(|is_ours| {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch("CREATE TABLE t(v)").unwrap();
            for value in values {
                connection.execute("INSERT INTO t VALUES (?1)", [value]).unwrap();
            }
            if is_ours {
                register(&connection).unwrap();
            }
            connection.query_row(sql, [], |row| row.get(0))
        })
    }

    proptest! {
        #[test]
        fn groups_are_what_sqlite_says(
            values in proptest::collection::vec(
                prop_oneof![
                    Just(rusqlite::types::Value::Null),
                    any::<i64>().prop_map(Into::into),
                    (-1000..1000_i32).prop_map(|n| (f64::from(n) / 8.0).into()),
                    "[a-z\"\\\\é\u{1}\n]{0,6}".prop_map(Into::into),
                ],
                0..6,
            ),
        ) {
            for sql in [
                "SELECT json_group_array(v) FROM t",
                "SELECT json_group_array(json_array(v, 1)) FROM t",
                "SELECT json_group_array(json_quote(v)) FROM t WHERE v IS NOT NULL",
                "SELECT json_object('a', json_group_array(v)) FROM t",
                "SELECT json_group_object(v, v) FROM t WHERE typeof(v) IN ('text', 'integer')",
                "SELECT json_array(json_group_object('x', json_array(v))) FROM t",
            ] {
                let [theirs, ours] = both(sql, &values);
                let parsed = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
                prop_assert_eq!(parsed(ours.unwrap()), parsed(theirs.unwrap()), "{}", sql);
            }
        }
    }
}
