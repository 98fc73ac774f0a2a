//! The settings of the mirror in ClickHouse: the address is checked, the password is read.

use std::env;
use std::fmt;
use std::fs;
use std::time::Duration;

use reqwest::Url;

use throughline_store::MirrorHold;

use crate::config::{AuditConfig, ClickHouseConfig, HoldConfig};
use crate::failure::{Failure, Outcome};

/// Variable with the password itself.
const PASSWORD_VARIABLE: &str = "THROUGHLINE_CLICKHOUSE_PASSWORD";
/// Rows of a batch when nobody says.
const DEFAULT_BATCH_ROWS: usize = 10_000;
/// Stored bytes of bodies in a batch when nobody says; as JSON they are some times more.
const DEFAULT_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Time between two looks at what is new when nobody says.
const DEFAULT_FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest such time.
const MIN_FLUSH_INTERVAL: Duration = Duration::from_millis(50);
/// Most rows of a batch.
const MAX_BATCH_ROWS: usize = 1_000_000;
/// Longest name of a server, characters.
const MAX_SERVER_CHARS: usize = 64;
/// Largest password file, bytes.
const MAX_PASSWORD_BYTES: usize = 4_096;

/// A secret that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(pub(crate) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Where the mirror is, and how it is fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClickHouseSettings {
    /// The HTTP interface.
    pub(crate) url: Url,
    /// The database, which must be there.
    pub(crate) database: String,
    /// The user.
    pub(crate) user: String,
    /// The user's password.
    pub(crate) password: Option<Password>,
    /// Most rows of a batch.
    pub(crate) batch_rows: usize,
    /// Stored bytes of bodies at which a batch is full.
    pub(crate) batch_bytes: usize,
    /// Time between two looks at what is new.
    pub(crate) flush_interval: Duration,
    /// Days that rows are kept.
    pub(crate) ttl_days: Option<u32>,
    /// The name of this server in each row; empty for the only one.
    pub(crate) server: String,
    /// Whether traces are read there.
    pub(crate) reads: bool,
    /// How long what retention and sampling would take waits for it.
    pub(crate) hold: MirrorHold,
    /// Days that decisions are kept there: as long as here.
    pub(crate) decisions_ttl_days: Option<u64>,
}

impl ClickHouseSettings {
    /// The address and database, without secrets.
    pub(crate) fn target(&self) -> String {
        target_of(&self.url, &self.database)
    }
}

fn target_of(url: &Url, database: &str) -> String {
    format!("{url}#{database}")
}

/// Resolves what the file says.
pub(super) fn resolve(
    config: Option<&ClickHouseConfig>,
    audit: &AuditConfig,
) -> Outcome<Option<ClickHouseSettings>> {
    let Some(config) = config else { return Ok(None) };
    let url = Url::parse(&config.url).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
    });
    let Some(url) = url else {
        return Err(Failure::usage(
            "expected `store.clickhouse.url` to be an http(s) address without user, password and query",
        )
        .hint("as in http://clickhouse:8123; `user` and `password_file` are keys of their own"));
    };
    let batch_rows = config.batch_rows.unwrap_or(DEFAULT_BATCH_ROWS);
    if !(1..=MAX_BATCH_ROWS).contains(&batch_rows) {
        return Err(Failure::usage(format!(
            "expected `store.clickhouse.batch_rows` of 1 to {MAX_BATCH_ROWS}, got {batch_rows}"
        )));
    }
    let flush_interval = config.flush_interval.map_or(DEFAULT_FLUSH_INTERVAL, |time| time.0);
    if flush_interval < MIN_FLUSH_INTERVAL {
        return Err(Failure::usage(format!(
            "expected `store.clickhouse.flush_interval` of at least {} ms, got {} ms",
            MIN_FLUSH_INTERVAL.as_millis(),
            flush_interval.as_millis()
        )));
    }
    if config.ttl_days == Some(0) {
        return Err(Failure::usage("expected `store.clickhouse.ttl_days` of at least 1, got 0")
            .hint("leave it out to keep everything"));
    }
    let batch_bytes = config.batch_bytes.map_or(DEFAULT_BATCH_BYTES, |size| size.0 as usize);
    let database = config.database.clone().unwrap_or_else(|| "default".to_owned());
    Ok(Some(ClickHouseSettings {
        hold: hold(&config.hold, target_of(&url, &database)),
        url,
        database,
        user: config.user.clone().unwrap_or_else(|| "default".to_owned()),
        password: password(config)?,
        batch_rows,
        batch_bytes: batch_bytes.max(1),
        flush_interval,
        ttl_days: config.ttl_days,
        server: server(config.server.as_deref())?,
        reads: config.reads,
        decisions_ttl_days: audit.retention_days,
    }))
}

fn hold(config: &HoldConfig, target: String) -> MirrorHold {
    let usual = MirrorHold::new(target);
    MirrorHold {
        max_age: config.max_age.map_or(usual.max_age, |time| time.0),
        max_bytes: config.max_bytes.map_or(usual.max_bytes, |size| size.0),
        ..usual
    }
}

fn server(name: Option<&str>) -> Outcome<String> {
    let name = name.unwrap_or_default();
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() > MAX_SERVER_CHARS || !name.chars().all(is_good) {
        let shown: String = name.chars().take(MAX_SERVER_CHARS).collect();
        return Err(Failure::usage(format!(
            "expected `store.clickhouse.server` of at most {MAX_SERVER_CHARS} letters, digits, `-`, `_` and `.`, got {shown:?}"
        )));
    }
    Ok(name.to_owned())
}

fn password(config: &ClickHouseConfig) -> Outcome<Option<Password>> {
    if let Ok(password) = env::var(PASSWORD_VARIABLE) {
        return Ok(Some(Password(password)));
    }
    let Some(path) = &config.password_file else { return Ok(None) };
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("expected the password in {}: {error}", path.display()))
            .hint(format!("see `store.clickhouse.password_file`, or set {PASSWORD_VARIABLE}"))
    })?;
    if text.len() > MAX_PASSWORD_BYTES {
        return Err(Failure::usage(format!(
            "expected a password of at most {MAX_PASSWORD_BYTES} bytes in {}",
            path.display()
        )));
    }
    Ok(Some(Password(text.trim_end_matches(['\r', '\n']).to_owned())))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::FileConfig;

    fn of(url: &str) -> Outcome<Option<ClickHouseSettings>> {
        let config = ClickHouseConfig { url: url.to_owned(), ..ClickHouseConfig::default() };
        resolve(Some(&config), &AuditConfig::default())
    }

    fn held(hold: &str) -> Outcome<MirrorHold> {
        let text = format!("store: {{ clickhouse: {{ url: 'http://a:8123', hold: {hold} }} }}");
        let config = FileConfig::parse(Path::new("throughline.yaml"), &text)?;
        let settings = resolve(config.store.clickhouse.as_ref(), &AuditConfig::default())?;
        Ok(settings.expect("a mirror").hold)
    }

    #[test]
    fn how_long_is_waited_for_it_is_read_and_bad_values_are_told() {
        let target = "http://a:8123/#default";
        assert_eq!(held("{}").expect("good"), MirrorHold::new(target));
        let read = held("{ max_age: 90m, max_bytes: 2GiB }").expect("good");
        assert_eq!((read.max_age.as_secs(), read.max_bytes), (5_400, 2 << 30));
        assert_eq!(read.target, target);
        let nothing = held("{ max_age: 0s, max_bytes: 0 }").expect("nothing waits");
        assert_eq!((nothing.max_age, nothing.max_bytes), (Duration::ZERO, 0));
        for (wrong, told) in [
            ("{ max_age: 7d }", "expected a time such as 500ms, 30s, 10m or 24h"),
            ("{ max_age: -1h }", "expected a time"),
            ("{ max_age: '' }", "expected a time"),
            ("{ max_age: 99999999999999999999h }", "expected a time"),
            ("{ max_age: 10 }", "expected a"),
            ("{ max_bytes: -5 }", "expected a size such as 500MiB"),
            ("{ max_bytes: 1.5 }", "expected a size"),
            ("{ max_bytes: 10 GB of disk }", "expected a size"),
            ("{ max_bytes: 999999999999TiB }", "expected a size"),
            ("{ max_ages: 1h }", "max_ages"),
            ("1h", "expected"),
        ] {
            let error = held(wrong).expect_err(wrong);
            let text = format!("{error:?}");
            assert!(text.contains(told), "{wrong}: {text}");
        }
    }

    #[test]
    fn names_of_servers_are_plain() {
        let named = |name: &str| server(Some(name));
        assert_eq!(server(None).expect("none"), "");
        assert_eq!(named("eu-west_1.a").expect("good"), "eu-west_1.a");
        for wrong in ["a b", "ü", "a/b", &"x".repeat(MAX_SERVER_CHARS + 1)] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_carry_no_secrets_and_defaults_are_filled_in() {
        let settings = of("http://clickhouse:8123").expect("good").expect("a mirror");
        assert_eq!(settings.target(), "http://clickhouse:8123/#default");
        assert_eq!(settings.batch_rows, DEFAULT_BATCH_ROWS);
        for wrong in ["", "clickhouse:8123", "tcp://a:9000", "http://u:p@a:8123", "http://a/?x=1"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        assert_eq!(format!("{:?}", Password("secret".to_owned())), "Password(…)");
    }
}
