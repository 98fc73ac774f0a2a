//! ClickHouse's HTTP interface: statements in the address, rows in the body, values as parameters.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use serde_json::Value;
use throughline_act::{cause, http_client, read_answer};
use throughline_store::clickhouse::{
    CLAIM_NAME, MIGRATION_NOTED, MIGRATIONS, MIGRATIONS_TABLE, MIRROR_VERSION, NAME_HOLDER,
    NOTE_ROLLUPS, RemoteReader, Rows, Statements, decisions_ttl_statement, ttl_statements,
};

use crate::settings::ClickHouseSettings;

/// Longest wait for an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest that a page or a caller of the API waits for rows.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest answer, bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// What is shown of an error that ClickHouse tells, characters.
const MAX_ERROR_CHARS: usize = 400;

/// Asks one server, as one user, in one database.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    settings: ClickHouseSettings,
}

impl Client {
    /// A client; nothing is sent yet. The error is for people.
    pub(crate) fn new(settings: &ClickHouseSettings) -> Result<Self, String> {
        let is_tls = settings.url.scheme() == "https";
        Ok(Self { http: http_client(is_tls, REQUEST_TIMEOUT)?, settings: settings.clone() })
    }

    /// Reads the traces of all servers.
    pub(crate) fn reader(&self) -> RemoteReader {
        RemoteReader::new(Arc::new(self.clone()), self.settings.server.as_str())
    }

    /// Runs a statement; answers its rows. `options` are parameters (`param_name`) and settings.
    pub(crate) async fn run(
        &self,
        sql: &str,
        options: &[(&str, &str)],
        rows: Option<String>,
    ) -> Result<String, String> {
        let mut url: Url = self.settings.url.clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("database", &self.settings.database).append_pair("query", sql);
            for (name, value) in options {
                query.append_pair(name, &bound(sql, name, value));
            }
        }
        let mut request = self.http.post(url).header("x-clickhouse-user", &self.settings.user);
        if let Some(password) = &self.settings.password {
            request = request.header("x-clickhouse-key", &password.0);
        }
        let shown = self.settings.target();
        let fails = |error: String| format!("{shown}: {error}");
        let sent = request.body(rows.unwrap_or_default()).send().await;
        let answer = sent.map_err(|error| fails(cause(error)))?;
        let status = answer.status();
        // An error that comes up while rows are on their way has no status of its own.
        let is_exception = answer.headers().contains_key("x-clickhouse-exception-code");
        let (bytes, is_whole) = read_answer(answer, MAX_ANSWER_BYTES).await.map_err(fails)?;
        if !is_whole {
            return Err(fails(format!("expected an answer of at most {MAX_ANSWER_BYTES} bytes")));
        }
        let text = String::from_utf8_lossy(&bytes);
        if status.is_success() && !is_exception {
            return Ok(text.into_owned());
        }
        let told: String = text.trim().chars().take(MAX_ERROR_CHARS).collect();
        Err(format!("{shown} answered {status}: {told}"))
    }

    /// Rows of a statement that ends in `FORMAT JSONEachRow`.
    pub(crate) async fn rows(
        &self,
        sql: &str,
        options: &[(&str, &str)],
    ) -> Result<Vec<Value>, String> {
        let mut all = vec![("output_format_json_quote_64bit_integers", "0")];
        all.extend_from_slice(options);
        let text = self.run(sql, &all, None).await?;
        text.lines()
            .map(|line| {
                serde_json::from_str(line).map_err(|error| {
                    format!("{}: expected a row in JSON: {error}", self.settings.target())
                })
            })
            .collect()
    }

    /// Brings the tables to our version, and sets how long rows are kept.
    pub(crate) async fn migrate(&self) -> Result<(), String> {
        self.run(MIGRATIONS_TABLE, &[], None).await?;
        let rows = self.rows(MIRROR_VERSION, &[]).await?;
        let version = rows.first().and_then(|row| row["version"].as_u64()).unwrap_or(0) as usize;
        if version > MIGRATIONS.len() {
            return Err(format!(
                "{} has tables of version {version}, newer than {}; upgrade the throughline binary",
                self.settings.target(),
                MIGRATIONS.len()
            ));
        }
        for (at, statements) in MIGRATIONS.iter().enumerate().skip(version) {
            for statement in *statements {
                self.run(statement, &[], None).await?;
            }
            let version = (at + 1).to_string();
            self.run(MIGRATION_NOTED, &[("param_version", &version)], None).await?;
        }
        for statement in self.settings.ttl_days.map(ttl_statements).iter().flatten() {
            self.run(statement, &[], None).await?;
        }
        if let Some(days) = self.settings.decisions_ttl_days {
            self.run(&decisions_ttl_statement(days), &[], None).await?;
        }
        Ok(())
    }

    /// Who holds the name of this server: the id of a data directory, and when it last said so,
    /// milliseconds since the Unix epoch.
    async fn name_holder(&self) -> Result<Option<(String, u64)>, String> {
        let options = [("param_server", self.settings.server.as_str())];
        let rows = self.rows(NAME_HOLDER, &options).await?;
        Ok(rows.first().map(|row| {
            let store = row["store"].as_str().unwrap_or_default().to_owned();
            (store, row["seen"].as_u64().unwrap_or_default())
        }))
    }

    /// Says that the name of this server is in use by the data directory with this id, whose rollups
    /// are there until then (nanoseconds since the Unix epoch, 0 when that is not known), and refuses
    /// where another one has it: two that write under one name would overwrite each other's rows.
    pub(crate) async fn claim_name(&self, store: &str, rollups_until: u64) -> Result<(), String> {
        let holder = self.name_holder().await?;
        self.refuse_other(holder.as_ref(), store)?;
        self.take_name(store, rollups_until).await?;
        if holder.is_none() {
            // Of two that came at once the later one has it.
            let holder = self.name_holder().await?;
            self.refuse_other(holder.as_ref(), store)?;
        }
        Ok(())
    }

    /// Takes the name of this server, whoever has it.
    pub(crate) async fn take_name(&self, store: &str, rollups_until: u64) -> Result<(), String> {
        self.say(CLAIM_NAME, store, rollups_until).await
    }

    /// Says until when the rollups of this server are there, if the name is still its own.
    pub(crate) async fn note_rollups(&self, store: &str, until: u64) -> Result<(), String> {
        self.say(NOTE_ROLLUPS, store, until).await
    }

    async fn say(&self, statement: &str, store: &str, rollups_until: u64) -> Result<(), String> {
        let until = rollups_until.to_string();
        let options = [
            ("param_server", self.settings.server.as_str()),
            ("param_store", store),
            ("param_rollups_until", &until),
        ];
        self.run(statement, &options, None).await.map(drop)
    }

    fn refuse_other(&self, holder: Option<&(String, u64)>, store: &str) -> Result<(), String> {
        let Some((other, seen)) = holder.filter(|(holder, _)| holder != store) else {
            return Ok(());
        };
        let name = &self.settings.server;
        Err(format!(
            "{}: expected the server name {name:?} to be free, got one that another data directory ({other}) \
             writes under, last seen at {seen} ms since the Unix epoch; give this server a \
             `store.clickhouse.server` of its own, or, if it takes the place of the other, run \
             `throughline store clickhouse take-over`",
            self.settings.target()
        ))
    }
}

/// A value as the interface takes it: of a text a backslash begins an escape there (as in a file of
/// tab-separated values), while numbers and arrays are read as they are.
fn bound<'a>(sql: &str, name: &str, value: &'a str) -> Cow<'a, str> {
    let is_text =
        name.strip_prefix("param_").is_some_and(|name| sql.contains(&format!("{{{name}:String}}")));
    if !is_text || !value.contains(['\\', '\t', '\n', '\r', '\0']) {
        return Cow::Borrowed(value);
    }
    let mut escaped = String::with_capacity(value.len() + 8);
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\0' => escaped.push_str("\\0"),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

impl Statements for Client {
    fn rows<'a>(&'a self, sql: &'a str, values: &'a [(&'static str, String)]) -> Rows<'a> {
        Box::pin(async move {
            let named: Vec<(String, &str)> = values
                .iter()
                .map(|(name, value)| (format!("param_{name}"), value.as_str()))
                .collect();
            let options: Vec<(&str, &str)> =
                named.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            let asked = tokio::time::timeout(READ_TIMEOUT, Client::rows(self, sql, &options));
            asked.await.unwrap_or_else(|_| {
                let (shown, most) = (self.settings.target(), READ_TIMEOUT.as_secs());
                Err(format!("{shown}: expected an answer within {most} s, got none"))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_arrays_are_not() {
        let sql = "SELECT {name:String}, {ids:Array(String)}, {names:Array(String)}";
        assert_eq!(bound(sql, "param_name", "it's \\ \t\n"), "it's \\\\ \\t\\n");
        assert_eq!(bound(sql, "param_ids", "['a\\'b']"), "['a\\'b']");
        assert_eq!(bound(sql, "other", "a\\b"), "a\\b");
    }
}
