//! What narrows a statement: pieces of SQL that are written here, and values that are bound.

/// Conditions behind `WHERE` or `HAVING`, each with ` AND ` before it.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    pub(super) sql: String,
    pub(super) values: Vec<(&'static str, String)>,
}

impl Conditions {
    /// Adds a condition that names one value.
    pub(super) fn add(&mut self, sql: &str, name: &'static str, value: impl ToString) {
        self.add_plain(sql);
        self.values.push((name, value.to_string()));
    }

    /// Adds a condition that names none.
    pub(super) fn add_plain(&mut self, sql: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
    }

    /// Whether a value of this name is bound.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(bound, _)| *bound == name)
    }
}

/// Texts as an array of ClickHouse, to be bound as `Array(String)`.
pub(super) fn texts<T: AsRef<str>>(all: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<String> = all
        .into_iter()
        .map(|text| {
            let mut quoted = String::from("'");
            for c in text.as_ref().chars() {
                match c {
                    '\'' | '\\' => quoted.extend(['\\', c]),
                    '\0' => quoted.push_str("\\0"),
                    '\n' => quoted.push_str("\\n"),
                    '\t' => quoted.push_str("\\t"),
                    c => quoted.push(c),
                }
            }
            quoted.push('\'');
            quoted
        })
        .collect();
    format!("[{}]", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted() {
        assert_eq!(texts(["a", "it's \\ \n"]), r"['a','it\'s \\ \n']");
        assert_eq!(texts::<&str>([]), "[]");
    }
}
