//! The audit log's settings: keys are read, anchors are named and checked.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusty_s3::{Bucket, UrlStyle};
use throughline_store::{AuditKey, AuditKeys, MAX_AUDIT_KEY_BYTES, READS_RETENTION_DAYS};

use crate::anchors::Place;
use crate::config::{AnchorConfig, AuditConfig, HttpMethod};
use crate::failure::{Failure, Outcome};

/// Variable with the audit key itself.
const KEY_VARIABLE: &str = "THROUGHLINE_AUDIT_KEY";
/// Variable with the path of the audit key.
const KEY_FILE_VARIABLE: &str = "THROUGHLINE_AUDIT_KEY_FILE";

/// Seconds between two checkpoints: what an attacker could take back without any anchor knowing.
const DEFAULT_CHECKPOINT_INTERVAL_SECS: u64 = 60;
/// Records after which a checkpoint does not wait for its time.
const DEFAULT_CHECKPOINT_COUNT: u64 = 1_000;
/// Seconds between two verifications: a million decisions take some seconds of one core.
const DEFAULT_VERIFY_INTERVAL_SECS: u64 = 6 * 3_600;
/// Ref of the notes in a git repository.
const DEFAULT_NOTES_REF: &str = "refs/notes/throughline-audit";
/// Seconds in a day.
const DAY_SECS: u64 = 86_400;

/// The audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AuditSettings {
    /// Keys from outside the data directory.
    pub(crate) keys: AuditKeys,
    /// Time between two checkpoints.
    pub(crate) checkpoint_interval: Duration,
    /// Records after which one is made before its time.
    pub(crate) checkpoint_count: u64,
    /// Time between two verifications by the server.
    pub(crate) verify_interval: Option<Duration>,
    /// Age at which decisions are removed.
    pub(crate) retention: Option<Duration>,
    /// Days after which reads of decisions are removed.
    pub(crate) reads_retention_days: u64,
    /// Where checkpoints are kept besides.
    pub(crate) anchors: Vec<AnchorSettings>,
}

/// One anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnchorSettings {
    /// Its name, unique.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) target: AnchorTarget,
}

/// Where checkpoints are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AnchorTarget {
    /// A file, to which lines are appended.
    File(PathBuf),
    /// Notes in a git repository.
    Git {
        /// The repository.
        repository: PathBuf,
        /// The ref of the notes.
        notes_ref: String,
        /// The remote to which it is pushed.
        push: Option<String>,
    },
    /// A service.
    Http {
        /// Its address; `{number}` becomes the chain number.
        url: String,
        /// How it is sent.
        method: HttpMethod,
        /// Headers that go along.
        headers: BTreeMap<String, String>,
    },
    /// An object store.
    S3(Place),
}

impl AnchorTarget {
    /// `file`, `git`, `http` or `s3`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Git { .. } => "git",
            Self::Http { .. } => "http",
            Self::S3(_) => "s3",
        }
    }
}

/// Where the environment says that the key is.
#[derive(Debug, Default)]
pub(super) struct KeySource {
    text: Option<String>,
    file: Option<PathBuf>,
}

impl KeySource {
    pub(super) fn of_environment() -> Self {
        Self {
            text: env::var(KEY_VARIABLE).ok(),
            file: env::var_os(KEY_FILE_VARIABLE).map(PathBuf::from),
        }
    }
}

/// Resolves `audit:`; the environment wins over the file.
pub(super) fn resolve(config: &AuditConfig, environment: KeySource) -> Outcome<AuditSettings> {
    let current = match (environment.text, environment.file.as_ref().or(config.key_file.as_ref())) {
        (Some(text), _) => Some(
            AuditKey::from_text(&text)
                .map_err(|error| Failure::usage(format!("{KEY_VARIABLE}: {error}")))?,
        ),
        (None, Some(path)) => Some(read_key(path)?),
        (None, None) => None,
    };
    let previous =
        config.previous_key_files.iter().map(|path| read_key(path)).collect::<Outcome<_>>()?;
    let secs = |given: Option<u64>, default| Duration::from_secs(given.unwrap_or(default).max(1));
    let days = |name: &str, given: Option<u64>| match given {
        Some(0) => Err(Failure::usage(format!("expected `audit.{name}` of at least 1 day, got 0"))
            .hint("leave it out to keep decisions for ever")),
        given => Ok(given),
    };
    let settings = AuditSettings {
        keys: AuditKeys { current, previous },
        checkpoint_interval: secs(
            config.checkpoint_interval_secs,
            DEFAULT_CHECKPOINT_INTERVAL_SECS,
        ),
        checkpoint_count: config.checkpoint_count.unwrap_or(DEFAULT_CHECKPOINT_COUNT).max(1),
        verify_interval: match config.verify_interval_secs {
            Some(0) => None,
            given => Some(secs(given, DEFAULT_VERIFY_INTERVAL_SECS)),
        },
        retention: days("retention_days", config.retention_days)?
            .map(|days| Duration::from_secs(days.saturating_mul(DAY_SECS))),
        reads_retention_days: days("reads_retention_days", config.reads_retention_days)?
            .unwrap_or(READS_RETENTION_DAYS),
        anchors: config.anchors.iter().map(anchor).collect::<Outcome<_>>()?,
    };
    for (at, anchor) in settings.anchors.iter().enumerate() {
        if settings.anchors[..at].iter().any(|other| other.name == anchor.name) {
            return Err(Failure::usage(format!(
                "expected anchors with different names, got `{}` twice",
                anchor.name
            ))
            .hint("give each of `audit.anchors` a `name`"));
        }
    }
    Ok(settings)
}

fn read_key(path: &Path) -> Outcome<AuditKey> {
    let unreadable = |what: String| {
        Failure::usage(format!("cannot use the audit key {}: {what}", path.display()))
            .hint("make one with `openssl rand -hex 32`, readable by the server's user alone")
    };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > 2 * MAX_AUDIT_KEY_BYTES as u64 {
        return Err(unreadable(format!("expected a short text, got {size} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    AuditKey::from_text(&text).map_err(|error| unreadable(error.to_string()))
}

fn anchor(config: &AnchorConfig) -> Outcome<AnchorSettings> {
    let wrong = |what: &str| {
        Failure::usage(format!("expected an anchor with one of file, git, http and s3, got {what}"))
            .hint("see `audit.anchors` in docs/audit.md")
    };
    let has_http = config.method.is_some() || !config.headers.is_empty();
    let has_git = config.notes_ref.is_some() || config.push.is_some();
    let has_s3 = [&config.region, &config.endpoint].into_iter().any(Option::is_some)
        || config.credentials_file.is_some();
    let target = match (&config.file, &config.git, &config.http, &config.s3) {
        (Some(path), None, None, None) if !has_http && !has_git && !has_s3 => {
            AnchorTarget::File(path.clone())
        }
        (None, Some(repository), None, None) if !has_http && !has_s3 => AnchorTarget::Git {
            repository: repository.clone(),
            notes_ref: config.notes_ref.clone().unwrap_or_else(|| DEFAULT_NOTES_REF.to_owned()),
            push: config.push.clone(),
        },
        (None, None, Some(url), None) if !has_git && !has_s3 => {
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(wrong(&format!("the address {url:?}")));
            }
            AnchorTarget::Http {
                url: url.clone(),
                method: config.method.unwrap_or_default(),
                headers: config.headers.clone(),
            }
        }
        (None, None, None, Some(address)) if !has_http && !has_git => {
            AnchorTarget::S3(place(config, address)?)
        }
        (None, None, None, None) => return Err(wrong("none of them")),
        _ => return Err(wrong("more than one of them, or a key of another kind")),
    };
    let name = config.name.clone().unwrap_or_else(|| target.kind().to_owned());
    Ok(AnchorSettings { name, target })
}

/// Where objects go.
fn place(config: &AnchorConfig, address: &str) -> Outcome<Place> {
    let wrong = |expected: &str, got: &str| {
        Failure::usage(format!("expected {expected}, got {got:?}"))
            .hint("see `audit.anchors` in docs/audit.md")
    };
    let rest = address.strip_prefix("s3://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(wrong("`s3: s3://bucket/prefix` of an anchor", address));
    }
    let prefix = prefix.trim_matches('/');
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    let said = |name: &str| env::var(name).ok().filter(|region| !region.trim().is_empty());
    let region = config.region.clone();
    let region = region.or_else(|| said("AWS_REGION")).or_else(|| said("AWS_DEFAULT_REGION"));
    // Stores of one's own rarely care which.
    let region = region.or_else(|| config.endpoint.as_ref().map(|_| "us-east-1".to_owned()));
    let region = region.ok_or_else(|| {
        Failure::usage(format!("expected the `region` of {address}, got none"))
            .hint("set `region` of the anchor, or AWS_REGION")
    })?;
    let (endpoint, style) = match &config.endpoint {
        Some(endpoint) => (endpoint.clone(), UrlStyle::Path),
        None => (format!("https://s3.{region}.amazonaws.com"), UrlStyle::VirtualHost),
    };
    let url = endpoint
        .parse()
        .map_err(|_| wrong("an address as the `endpoint` of an anchor", &endpoint))?;
    let bucket = Bucket::new(url, style, bucket.to_owned(), region).map_err(|error| {
        wrong("a bucket and an `endpoint` that make an address", &format!("{address}: {error}"))
    })?;
    Ok(Place { bucket, prefix, credentials_file: config.credentials_file.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FileConfig;

    fn config(yaml: &str) -> AuditConfig {
        FileConfig::parse(Path::new("/etc/throughline.yaml"), yaml).expect("a good file").audit
    }

    fn refusal(yaml: &str) -> String {
        resolve(&config(yaml), KeySource::default()).expect_err("a refusal").to_text()
    }

    #[test]
    fn anchors_and_defaults() {
        let yaml = "audit:\n  retention_days: 30\n  anchors:\n  - { file: anchors.log }\n  - { git: repo, push: origin }\n  - { name: store, http: 'https://s3/{number}', method: PUT, headers: { a: b } }\n";
        let settings = resolve(&config(yaml), KeySource::default()).expect("settings");
        let kinds: Vec<_> =
            settings.anchors.iter().map(|a| (a.name.as_str(), a.target.kind())).collect();
        assert_eq!(kinds, [("file", "file"), ("git", "git"), ("store", "http")]);
        assert_eq!(settings.anchors[0].target, AnchorTarget::File("/etc/anchors.log".into()));
        assert_eq!(settings.retention, Some(Duration::from_secs(30 * DAY_SECS)));
        assert_eq!(settings.keys, AuditKeys::default());
        let none = resolve(&config("audit: { verify_interval_secs: 0 }\n"), KeySource::default());
        assert_eq!(none.expect("settings").verify_interval, None);
    }

    #[test]
    fn an_object_store_is_an_anchor() {
        let place = |yaml: &str| {
            let yaml = format!("audit: {{ anchors: [{{ {yaml} }}] }}\n");
            match &resolve(&config(&yaml), KeySource::default()).expect("settings").anchors[0]
                .target
            {
                AnchorTarget::S3(place) => place.clone(),
                other => panic!("{other:?}"),
            }
        };
        let aws = place("s3: 's3://vault/audit/prod/', region: eu-central-1");
        assert_eq!(aws.bucket.base_url().as_str(), "https://vault.s3.eu-central-1.amazonaws.com/");
        assert_eq!(aws.prefix, "audit/prod/");
        let own =
            place("s3: 's3://vault', endpoint: 'http://minio:9000', credentials_file: s3.ini");
        assert_eq!(own.bucket.base_url().as_str(), "http://minio:9000/vault/");
        assert_eq!(own.credentials_file, Some("/etc/s3.ini".into()));
        insta::assert_snapshot!(refusal("audit: { anchors: [{ s3: vault, region: x }] }\n"), @r#"
        error(2): expected `s3: s3://bucket/prefix` of an anchor, got "vault"
        hint: see `audit.anchors` in docs/audit.md
        "#);
    }

    #[test]
    fn the_key_of_the_environment_wins_over_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("audit.key");
        std::fs::write(&file, format!("{}\n", "f".repeat(64))).expect("written");
        let of_file = AuditConfig { key_file: Some(file), ..AuditConfig::default() };
        let key = |source| resolve(&of_file, source).expect("settings").keys.current;
        let text = "e".repeat(64);
        assert_eq!(key(KeySource::default()), AuditKey::from_text(&"f".repeat(64)).ok());
        let variable = KeySource { text: Some(text.clone()), file: None };
        assert_eq!(key(variable), AuditKey::from_text(&text).ok());
    }

    #[test]
    fn mistakes_are_told() {
        insta::assert_snapshot!(refusal("audit: { anchors: [{ name: a }] }\n"), @r"
        error(2): expected an anchor with one of file, git, http and s3, got none of them
        hint: see `audit.anchors` in docs/audit.md
        ");
        insta::assert_snapshot!(refusal("audit: { anchors: [{ file: a }, { file: b }] }\n"), @r"
        error(2): expected anchors with different names, got `file` twice
        hint: give each of `audit.anchors` a `name`
        ");
        insta::assert_snapshot!(refusal("audit: { retention_days: 0 }\n"), @r"
        error(2): expected `audit.retention_days` of at least 1 day, got 0
        hint: leave it out to keep decisions for ever
        ");
        insta::assert_snapshot!(refusal("audit: { key_file: /nowhere }\n"), @r"
        error(2): cannot use the audit key /nowhere: No such file or directory (os error 2)
        hint: make one with `openssl rand -hex 32`, readable by the server's user alone
        ");
    }
}
