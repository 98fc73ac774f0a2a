//! What is to be done, resolved: flags, then `THROUGHLINE_*` variables, then the configuration
//! file, then defaults. Everything behind this module sees [`Settings`] only.

use std::env;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use throughline_act::ActConfig;
use throughline_gateway::GatewayConfig;
use throughline_redact::RedactionConfig;
use throughline_store::{Retention, RollupRetention, Sampling, StoreOptions};

use crate::args::{Access, GlobalArgs, ListenAddress, LogFormat, ServeArgs};
use crate::config::{FileConfig, LimitsConfig, RollupRetentionConfig, Size};
use crate::failure::{Failure, Outcome};
use crate::governing::RuleFiles;
use crate::{acting, gateway, redaction};

mod audit;
mod clickhouse;
use audit::KeySource;
pub(crate) use audit::{AnchorSettings, AnchorTarget, AuditSettings};
pub(crate) use clickhouse::ClickHouseSettings;

/// The file that is read when none is named.
pub(crate) const DEFAULT_CONFIG_FILE: &str = "throughline.yaml";

/// Port of OTLP/gRPC, the one that the OTLP specification names.
const DEFAULT_GRPC_PORT: u16 = 4317;
/// Port of OTLP/HTTP, the one that the OTLP specification names.
const DEFAULT_HTTP_PORT: u16 = 4318;
/// Port of the pages and the API.
const DEFAULT_WEB_PORT: u16 = 4319;
/// Port of Envoy's control (xDS).
const DEFAULT_XDS_PORT: u16 = 4320;
/// Connections per port. Many systems allow a process 1,024 open files unless told otherwise; a
/// port that reaches the limit leaves further connections in the kernel's queue.
const DEFAULT_MAX_CONNECTIONS: u32 = 1_000;
/// What requests get to finish after SIGTERM. Kubernetes kills after 30 s: the store needs the rest.
const DEFAULT_DRAIN_TIMEOUT_SECS: u64 = 20;

/// Smallest size of a segment, and of all of them, bytes: each file has some of its own.
const LEAST_STORE_BYTES: u64 = 1 << 20;

/// Shortest time that rollups by the minute may be kept.
const LEAST_ROLLUP_AGE: Duration = Duration::from_secs(24 * 3_600);

/// Smallest limit that can be meant, bytes: less would refuse every span.
const LEAST_LIMIT_BYTES: usize = 1_024;

/// What every command needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// The configuration file that was read.
    pub(crate) config_file: Option<PathBuf>,
    /// Log filter, if one was asked for.
    pub(crate) log_filter: Option<String>,
    /// Form of the log.
    pub(crate) log_format: LogFormat,
    /// The audit log of decisions.
    pub(crate) audit: AuditSettings,
    /// Where everything is written too.
    pub(crate) clickhouse: Option<ClickHouseSettings>,
    /// Quiet time of a trace after which its missing parents are judged.
    pub(crate) continuity_grace: Duration,
}

/// What a server needs to know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServeSettings {
    /// OTLP/gRPC.
    pub(crate) grpc: SocketAddr,
    /// OTLP/HTTP.
    pub(crate) http: SocketAddr,
    /// Pages and API.
    pub(crate) web: SocketAddr,
    /// Envoy's control, if a route is configured for it.
    pub(crate) xds: Option<SocketAddr>,
    /// Whether requests need a key.
    pub(crate) access: Access,
    /// Certificate and key, if the ports speak TLS.
    pub(crate) tls: Option<TlsFiles>,
    /// Host names that browsers may use beside those of loopback.
    pub(crate) allowed_hosts: Vec<String>,
    /// Origins whose browser pages may send OTLP/HTTP.
    pub(crate) cors_origins: Vec<String>,
    /// Connections that one port serves at once.
    pub(crate) max_connections: usize,
    /// What requests get to finish after SIGTERM.
    pub(crate) drain_timeout: Duration,
    /// How much is received and held.
    pub(crate) limits: LimitSettings,
    /// What is taken out before anything is written.
    pub(crate) redaction: RedactionConfig,
    /// Bytes at which the next segment begins.
    pub(crate) max_segment_bytes: u64,
    /// What of closed segments is kept in full.
    pub(crate) sampling: Sampling,
    /// What is taken away when it is old, or too much.
    pub(crate) retention: Retention,
    pub(crate) keep_derived: bool,
    /// How long rollups are kept.
    pub(crate) rollup_retention: RollupRetention,
    /// The gateway to model providers.
    pub(crate) gateway: GatewayConfig,
    /// What governance does.
    pub(crate) act: ActConfig,
    /// Where rules are.
    pub(crate) rules: RuleFiles,
    /// How often they are asked.
    pub(crate) rules_interval: Duration,
}

/// Seconds between two rounds of rules when nobody says.
const RULES_INTERVAL_SECS: u64 = 10;

/// Seconds between two rounds of rules at most: counters are by the minute.
const MAX_RULES_INTERVAL_SECS: u64 = 60;

fn rules_interval(told: Option<u64>) -> Outcome<Duration> {
    let secs = told.unwrap_or(RULES_INTERVAL_SECS);
    if !(1..=MAX_RULES_INTERVAL_SECS).contains(&secs) {
        return Err(Failure::usage(format!(
            "expected governance.interval_secs to be 1 to {MAX_RULES_INTERVAL_SECS}, got {secs}"
        )));
    }
    Ok(Duration::from_secs(secs))
}

/// How much is received and held, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimitSettings {
    /// Largest OTLP request, also after decompression.
    pub(crate) max_request_bytes: usize,
    /// Memory that all requests in hand may take together.
    pub(crate) max_in_flight_bytes: usize,
    /// Longest attribute value or log body.
    pub(crate) max_attribute_bytes: usize,
    /// Decoded bytes that wait to be written.
    pub(crate) max_inbox_bytes: usize,
}

/// Where the certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// Certificate chain, PEM.
    pub(crate) cert: PathBuf,
    /// Private key, PEM.
    pub(crate) key: PathBuf,
}

impl ServeSettings {
    /// How the store is opened, as far as these settings say it.
    pub(crate) fn store_options(&self, settings: &Settings) -> StoreOptions {
        StoreOptions {
            audit_keys: settings.audit.keys.clone(),
            continuity_grace: settings.continuity_grace,
            max_inbox_bytes: self.limits.max_inbox_bytes,
            max_segment_bytes: self.max_segment_bytes,
            retention: self.retention,
            keep_derived: self.keep_derived,
            sampling: self.sampling.clone(),
            hold: settings.clickhouse.as_ref().map(|to| to.hold.clone()),
            rollup_retention: self.rollup_retention,
            ..StoreOptions::new(&settings.data_dir)
        }
    }

    /// Whether only this machine can reach the server.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(self.web.ip())
    }
}

/// Reads the configuration file: the named one, or the default one if it exists.
pub(crate) fn read_config(global: &GlobalArgs) -> Outcome<(Option<PathBuf>, FileConfig)> {
    let path = match &global.config {
        Some(path) => path.clone(),
        None if Path::new(DEFAULT_CONFIG_FILE).is_file() => PathBuf::from(DEFAULT_CONFIG_FILE),
        None => return Ok((None, FileConfig::default())),
    };
    let config = FileConfig::read(&path)?;
    Ok((Some(path), config))
}

/// Resolves what every command needs.
pub(crate) fn resolve(
    global: &GlobalArgs,
    config_file: Option<PathBuf>,
    config: &FileConfig,
) -> Outcome<Settings> {
    let data_dir = match global.data_dir.clone().or_else(|| config.data_dir.clone()) {
        Some(dir) => dir,
        None => default_data_dir(env::var_os("XDG_DATA_HOME"), env::home_dir())?,
    };
    Ok(Settings {
        data_dir,
        config_file,
        log_filter: global.log.clone().or_else(|| config.log.filter.clone()),
        log_format: global.log_format.or(config.log.format).unwrap_or_default(),
        audit: audit::resolve(&config.audit, KeySource::of_environment())?,
        clickhouse: clickhouse::resolve(config.store.clickhouse.as_ref(), &config.audit)?,
        continuity_grace: config.continuity.grace()?,
    })
}

/// Resolves what a server needs, and refuses what cannot be meant.
pub(crate) fn resolve_serve(args: &ServeArgs, config: &FileConfig) -> Outcome<ServeSettings> {
    let ListenAddress(ip) = args.listen.or(config.listen).unwrap_or_default();
    let ports = &config.ports;
    let grpc = args.grpc_port.or(ports.grpc).unwrap_or(DEFAULT_GRPC_PORT);
    let http = args.http_port.or(ports.http).unwrap_or(DEFAULT_HTTP_PORT);
    let web = args.web_port.or(ports.web).unwrap_or(DEFAULT_WEB_PORT);
    let xds = ports.xds.unwrap_or(DEFAULT_XDS_PORT);
    for (one, one_port, other, other_port) in
        [("grpc", grpc, "http", http), ("grpc", grpc, "web", web), ("http", http, "web", web)]
    {
        if one_port == other_port && one_port != 0 {
            return Err(Failure::usage(format!(
                "expected three different ports, got {one_port} for both {one} and {other}"
            ))
            .hint(format!("choose another with --{other}-port")));
        }
    }
    let access = match args.access.or(config.access) {
        Some(Access::Open) if !is_loopback(ip) => {
            return Err(Failure::usage(format!(
                "access `open` is allowed on loopback only, and {ip} can be reached from other machines"
            ))
            .hint("leave --access out, and give clients keys made with `throughline keys create`"));
        }
        Some(access) => access,
        None if is_loopback(ip) => Access::Open,
        None => Access::Required,
    };
    let cert = args.tls_cert.clone().or_else(|| config.tls.cert.clone());
    let key = args.tls_key.clone().or_else(|| config.tls.key.clone());
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            return Err(Failure::usage("expected a TLS key beside the certificate, got none")
                .hint("set --tls-key or `tls.key`"));
        }
        (None, Some(_)) => {
            return Err(Failure::usage("expected a TLS certificate beside the key, got none")
                .hint("set --tls-cert or `tls.cert`"));
        }
    };
    let max_connections =
        args.max_connections.or(config.max_connections).unwrap_or(DEFAULT_MAX_CONNECTIONS);
    if max_connections == 0 {
        return Err(Failure::usage("expected at least 1 connection a port, got 0")
            .hint("set --max-connections or `max_connections`"));
    }
    let drain_timeout_secs =
        args.drain_timeout_secs.or(config.drain_timeout_secs).unwrap_or(DEFAULT_DRAIN_TIMEOUT_SECS);
    Ok(ServeSettings {
        grpc: SocketAddr::new(ip, grpc),
        http: SocketAddr::new(ip, http),
        web: SocketAddr::new(ip, web),
        xds: (!config.act.xds.routes.is_empty()).then(|| SocketAddr::new(ip, xds)),
        access,
        tls,
        allowed_hosts: first_given(&args.allowed_hosts, &config.allowed_hosts),
        cors_origins: first_given(&args.cors_origins, &config.cors_origins),
        max_connections: usize::try_from(max_connections).unwrap_or(usize::MAX),
        drain_timeout: Duration::from_secs(drain_timeout_secs),
        limits: resolve_limits(&config.limits)?,
        redaction: redaction::resolve(&config.redaction)?,
        max_segment_bytes: least_size("store.max_segment_bytes", config.store.max_segment_bytes)?
            .unwrap_or(throughline_store::MAX_SEGMENT_BYTES),
        sampling: config.sampling.resolve()?,
        retention: Retention {
            max_age: config.retention.max_age.map(|age| age.0),
            max_bytes: least_size("retention.max_bytes", config.retention.max_bytes)?,
        },
        keep_derived: config.retention.keep_derived,
        rollup_retention: rollup_retention(&config.retention.rollups)?,
        gateway: gateway::resolve(&config.gateway)?,
        act: acting::resolve(&config.act)?,
        rules: RuleFiles::new(config.governance.rules.clone()),
        rules_interval: rules_interval(config.governance.interval_secs)?,
    })
}

/// How long rollups are kept: the coarser for at least as long as the finer, from which nobody could
/// tell otherwise why a longer time shows less.
pub(crate) fn rollup_retention(config: &RollupRetentionConfig) -> Outcome<RollupRetention> {
    let usual = RollupRetention::default();
    let minutes = config.minutes.map_or(usual.minutes, |age| age.0);
    let five_minutes = config.five_minutes.map_or(usual.five_minutes.max(minutes), |age| age.0);
    let hours = config.hours.map_or(usual.hours.max(five_minutes), |age| age.0);
    for (name, age, finer, finer_age) in [
        ("five_minutes", five_minutes, "minutes", minutes),
        ("hours", hours, "five_minutes", five_minutes),
    ] {
        if age < finer_age {
            return Err(Failure::usage(format!(
                "expected `retention.rollups.{name}` of at least `{finer}` ({} h), got {} h",
                finer_age.as_secs() / 3_600,
                age.as_secs() / 3_600
            ))
            .hint("coarser rollups are kept for at least as long as finer ones"));
        }
    }
    if minutes < LEAST_ROLLUP_AGE {
        return Err(Failure::usage(format!(
            "expected `retention.rollups.minutes` of at least 24 h, got {} h",
            minutes.as_secs() / 3_600
        ))
        .hint("yesterday's may still be fed; leave it out for 7d"));
    }
    Ok(RollupRetention { minutes, five_minutes, hours })
}

/// A size that is not so small that it cannot be meant.
fn least_size(name: &str, given: Option<Size>) -> Outcome<Option<u64>> {
    match given {
        Some(Size(bytes)) if bytes < LEAST_STORE_BYTES => Err(Failure::usage(format!(
            "expected `{name}` of at least {LEAST_STORE_BYTES} bytes, got {bytes}"
        ))
        .hint("write it with its unit, as in 2GiB")),
        given => Ok(given.map(|size| size.0)),
    }
}

fn resolve_limits(config: &LimitsConfig) -> Outcome<LimitSettings> {
    let limit = |name: &str, given: Option<usize>, default: usize| match given {
        Some(given) if given < LEAST_LIMIT_BYTES => Err(Failure::usage(format!(
            "expected `limits.{name}` of at least {LEAST_LIMIT_BYTES} bytes, got {given}"
        ))
        .hint("the limits are in bytes; leave one out for its default")),
        given => Ok(given.unwrap_or(default)),
    };
    Ok(LimitSettings {
        max_request_bytes: limit(
            "max_request_bytes",
            config.max_request_bytes,
            throughline_ingest::options::MAX_REQUEST_BYTES,
        )?,
        max_in_flight_bytes: limit(
            "max_in_flight_bytes",
            config.max_in_flight_bytes,
            throughline_ingest::options::MAX_IN_FLIGHT_BYTES,
        )?,
        max_attribute_bytes: limit(
            "max_attribute_bytes",
            config.max_attribute_bytes,
            throughline_ingest::options::MAX_ATTRIBUTE_BYTES,
        )?,
        max_inbox_bytes: limit(
            "max_inbox_bytes",
            config.max_inbox_bytes,
            throughline_store::MAX_INBOX_BYTES,
        )?,
    })
}

/// A list is replaced as a whole, never added to: what a flag says is all there is.
fn first_given(args: &[String], config: &[String]) -> Vec<String> {
    if args.is_empty() { config.to_vec() } else { args.to_vec() }
}

/// IPv4 loopback counts also when it is spelt as IPv6 (`::ffff:127.0.0.1`).
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// The XDG base directory for data. The specification says to ignore a relative `XDG_DATA_HOME`.
fn default_data_dir(
    xdg_data_home: Option<std::ffi::OsString>,
    home: Option<PathBuf>,
) -> Outcome<PathBuf> {
    let xdg = xdg_data_home.map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = home.filter(|dir| dir.is_absolute()).map(|home| home.join(".local/share"));
    xdg.or(home).map(|dir| dir.join("throughline")).ok_or_else(|| {
        Failure::usage("expected a home directory to keep data in, got none")
            .hint("name a directory with --data-dir or THROUGHLINE_DATA_DIR")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: &str) -> FileConfig {
        FileConfig::parse(Path::new("/etc/throughline.yaml"), yaml).expect("a good file")
    }

    fn refusal(args: &ServeArgs, yaml: &str) -> String {
        resolve_serve(args, &config(yaml)).expect_err("a refusal").to_text()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = config("ports: { grpc: 1, http: 2 }\nmax_connections: 9\n");
        let args = ServeArgs { grpc_port: Some(7), ..ServeArgs::default() };
        let settings = resolve_serve(&args, &file).expect("settings");
        let ports = [settings.grpc.port(), settings.http.port(), settings.web.port()];
        assert_eq!(ports, [7, 2, DEFAULT_WEB_PORT]);
        assert_eq!(settings.max_connections, 9);
        assert_eq!(settings.access, Access::Open);
        assert!(settings.is_loopback());
    }

    #[test]
    fn limits_come_from_the_file_and_are_bytes() {
        let file = config("limits: { max_attribute_bytes: 65536 }\n");
        let limits = resolve_serve(&ServeArgs::default(), &file).expect("settings").limits;
        assert_eq!(limits.max_attribute_bytes, 65_536);
        assert_eq!(limits.max_inbox_bytes, throughline_store::MAX_INBOX_BYTES);
        insta::assert_snapshot!(refusal(&ServeArgs::default(), "limits: { max_inbox_bytes: 64 }\n"), @r"
        error(2): expected `limits.max_inbox_bytes` of at least 1024 bytes, got 64
        hint: the limits are in bytes; leave one out for its default
        ");
    }

    #[test]
    fn retention_of_segments_and_of_rollups_comes_from_the_file() {
        let yaml = "retention: { max_age: 30d, max_bytes: 2GiB, keep_derived: true, rollups: { minutes: 2w, hours: 2y } }";
        let settings = resolve_serve(&ServeArgs::default(), &config(yaml)).expect("settings");
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let expected = Retention { max_age: Some(days(30)), max_bytes: Some(2 << 30) };
        assert_eq!((settings.retention, settings.keep_derived), (expected, true));
        let RollupRetention { minutes, five_minutes, hours } = settings.rollup_retention;
        assert_eq!((minutes, five_minutes, hours), (days(14), days(30), days(730)));
        let refused = |rollups: &str| {
            refusal(&ServeArgs::default(), &format!("retention: {{ rollups: {{ {rollups} }} }}\n"))
        };
        insta::assert_snapshot!(refused("minutes: 60d, five_minutes: 30d"), @r"
        error(2): expected `retention.rollups.five_minutes` of at least `minutes` (1440 h), got 720 h
        hint: coarser rollups are kept for at least as long as finer ones
        ");
        insta::assert_snapshot!(refused("minutes: 1h"), @r"
        error(2): expected `retention.rollups.minutes` of at least 24 h, got 1 h
        hint: yesterday's may still be fed; leave it out for 7d
        ");
        // What is kept longer takes the coarser along.
        let far = config("retention: { rollups: { minutes: 2y } }\n");
        let far = resolve_serve(&ServeArgs::default(), &far).expect("settings").rollup_retention;
        assert_eq!((far.five_minutes, far.hours), (days(730), days(730)));
    }

    #[test]
    fn data_dir_of_the_flag_then_the_file_relative_to_it() {
        let file = config("data_dir: data\n");
        let global = GlobalArgs::default();
        let settings = resolve(&global, None, &file).expect("settings");
        assert_eq!(settings.data_dir, Path::new("/etc/data"));
        let global = GlobalArgs { data_dir: Some("/x".into()), ..global };
        assert_eq!(resolve(&global, None, &file).expect("settings").data_dir, Path::new("/x"));
    }

    #[test]
    fn data_dir_defaults_follow_xdg() {
        let dir = |xdg: Option<&str>, home: Option<&str>| {
            default_data_dir(xdg.map(Into::into), home.map(Into::into))
                .map_err(|failure| failure.to_text())
        };
        assert_eq!(dir(Some("/xdg"), Some("/home/a")), Ok("/xdg/throughline".into()));
        assert_eq!(
            dir(Some("rel"), Some("/home/a")),
            Ok("/home/a/.local/share/throughline".into())
        );
        insta::assert_snapshot!(dir(None, None).expect_err("no home"), @r"
        error(2): expected a home directory to keep data in, got none
        hint: name a directory with --data-dir or THROUGHLINE_DATA_DIR
        ");
    }

    #[test]
    fn other_machines_need_keys() {
        let everywhere = ServeArgs { listen: "0.0.0.0".parse().ok(), ..ServeArgs::default() };
        let settings = resolve_serve(&everywhere, &config("")).expect("settings");
        assert_eq!(settings.access, Access::Required);
        insta::assert_snapshot!(refusal(&everywhere, "access: open\n"), @r"
        error(2): access `open` is allowed on loopback only, and 0.0.0.0 can be reached from other machines
        hint: leave --access out, and give clients keys made with `throughline keys create`
        ");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let none = ServeArgs::default();
        insta::assert_snapshot!(refusal(&none, "ports: { web: 4317 }\n"), @r"
        error(2): expected three different ports, got 4317 for both grpc and web
        hint: choose another with --web-port
        ");
        insta::assert_snapshot!(refusal(&none, "tls: { cert: a.pem }\n"), @r"
        error(2): expected a TLS key beside the certificate, got none
        hint: set --tls-key or `tls.key`
        ");
    }
}
