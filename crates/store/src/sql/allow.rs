//! What a statement may do: read our tables with functions that cannot do harm, and nothing else.

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Functions of SQLite that only work something out, in bounded time and from their arguments.
/// Missing on purpose: what makes a value of any size from nothing (`zeroblob`, `randomblob`), what
/// tells of the library (`sqlite_version` and the like), what loads code, and `glob` and `json_patch`, whose
/// time is not bounded by the length of what they are given.
const FUNCTIONS: &[&str] = &[
    "->",
    "->>",
    "abs",
    "avg",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "count",
    "cume_dist",
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "dense_rank",
    "first_value",
    "format",
    "group_concat",
    "hex",
    "if",
    "ifnull",
    "iif",
    "json",
    "json_array",
    "json_array_length",
    "json_error_position",
    "json_extract",
    "json_object",
    "json_pretty",
    "json_quote",
    "json_remove",
    "json_type",
    "json_valid",
    "julianday",
    "lag",
    "last_value",
    "lead",
    "length",
    "likely",
    "lower",
    "max",
    "min",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "printf",
    "quote",
    "random",
    "rank",
    "round",
    "row_number",
    "sign",
    "strftime",
    "string_agg",
    "substr",
    "substring",
    "subtype",
    "sum",
    "time",
    "timediff",
    "total",
    "typeof",
    "unicode",
    "unixepoch",
    "unlikely",
    "upper",
];

/// Tables that SQLite makes of JSON.
const JSON_TABLES: [&str; 2] = ["json_each", "json_tree"];

/// What a statement was found to do while it was prepared.
#[derive(Debug, Default)]
struct Seen {
    refused: Option<String>,
    reads_decisions: bool,
}

/// Watches over one statement; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch(Arc<Mutex<Seen>>);

impl Watch {
    /// What was refused first, as the middle of a sentence.
    pub(super) fn refused(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).refused.clone()
    }

    /// Whether decisions are read.
    pub(super) fn reads_decisions(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).reads_decisions
    }

    /// The judge that SQLite asks. `modules` are all kinds of tables that it could make.
    pub(super) fn judge(
        &self,
        modules: HashSet<String>,
        functions: HashSet<&'static str>,
    ) -> impl FnMut(AuthContext<'_>) -> Authorization + Send + 'static {
        let watch = self.clone();
        let ours: HashSet<&str> = super::sql_views().into_iter().map(|view| view.name).collect();
        // There is nothing in the database: what is neither a module nor SQLite's own is a name that
        // the statement itself gave, with WITH.
        let is_known = move |name: &str| {
            let is_sqlite = name.starts_with("sqlite_") || name.starts_with("pragma_");
            ours.contains(name)
                || JSON_TABLES.contains(&name)
                || !(is_sqlite || modules.contains(name))
        };
        move |context| {
            let mut seen = watch.0.lock().unwrap_or_else(PoisonError::into_inner);
            let refused = match context.action {
                // A recursion is bounded as all else is: by time, and by what it may put on disk.
                AuthAction::Select | AuthAction::Recursive => None,
                AuthAction::Read { table_name, .. } => {
                    seen.reads_decisions |= table_name == "decisions";
                    let name = table_name.to_ascii_lowercase();
                    (!is_known(&name)).then(|| format!("the table {name}"))
                }
                AuthAction::Function { function_name } => {
                    let name = function_name.to_ascii_lowercase();
                    let is_known =
                        functions.contains(name.as_str()) || FUNCTIONS.contains(&name.as_str());
                    (!is_known).then(|| format!("the function {name}"))
                }
                action => Some(named(&action)),
            };
            match refused {
                None => Authorization::Allow,
                Some(what) => {
                    seen.refused.get_or_insert(what);
                    Authorization::Deny
                }
            }
        }
    }
}

/// An action by the word that asks for it.
fn named(action: &AuthAction<'_>) -> String {
    match action {
        AuthAction::Pragma { pragma_name, .. } => format!("PRAGMA {pragma_name}"),
        AuthAction::Attach { .. } => "ATTACH".to_owned(),
        AuthAction::Detach { .. } => "DETACH".to_owned(),
        AuthAction::Insert { .. } => "INSERT".to_owned(),
        AuthAction::Update { .. } => "UPDATE".to_owned(),
        AuthAction::Delete { .. } => "DELETE".to_owned(),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => "a transaction".to_owned(),
        other => {
            // `CreateTable { .. }` and the like: the words of the name say it.
            let debug = format!("{other:?}");
            let name = debug.split([' ', '{', '(']).next().unwrap_or_default();
            let mut words = String::new();
            for letter in name.chars() {
                if letter.is_ascii_uppercase() && !words.is_empty() {
                    words.push(' ');
                }
                words.push(letter.to_ascii_uppercase());
            }
            words
        }
    }
}

/// The functions of SQLite that may be used, sorted.
pub(super) fn functions() -> &'static [&'static str] {
    FUNCTIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_has_nothing_twice() {
        assert!(FUNCTIONS.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
