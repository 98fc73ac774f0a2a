//! The configuration file: YAML, every key optional, unknown keys and wrong types refused with
//! file, line, column and a hint.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_saphyr::Error as YamlError;
use throughline_act::ActConfig;
use throughline_gateway::GatewayConfig;
use throughline_redact::RedactionConfig;

use crate::args::{Access, ListenAddress, LogFormat};
use crate::failure::{Failure, Outcome};

mod audit;
mod continuity;
mod sampling;
mod storage;
pub(crate) use audit::{AnchorConfig, AuditConfig, HttpMethod};
pub(crate) use continuity::ContinuityConfig;
pub(crate) use sampling::SamplingConfig;
pub(crate) use storage::{
    ClickHouseConfig, HoldConfig, RetentionConfig, RollupRetentionConfig, Size, StoreConfig,
};

/// Largest configuration file that is read, bytes: a wrong path should not fill the memory.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The hint when nothing better is known.
const DEFAULT_HINT: &str = "leave the key out to get its default";

/// The hint when the shape of the file is not clear.
const KNOWN_KEYS: &str = "the keys are data_dir, listen, ports (grpc, http, web, xds), access, tls (cert, key), \
     allowed_hosts, \
     cors_origins, max_connections, drain_timeout_secs, limits (max_request_bytes, \
     max_in_flight_bytes, max_attribute_bytes, max_inbox_bytes), \
     redaction (secrets, rules, hash_key_file), continuity (grace_secs), log (filter, format), \
     store (max_segment_bytes, clickhouse), sampling (rate, keep, rules, wait, max_wait), retention (max_age, max_bytes, keep_derived, rollups), \
     audit (key_file, previous_key_files, checkpoint_interval_secs, checkpoint_count, \
     verify_interval_secs, retention_days, reads_retention_days, anchors), \
     gateway (providers, default_provider, routes, policy, capture_content, keys, prices, limits), \
     act (directive_key_file, public_url, receivers, xds, argo, opa, embeddings), \
     governance (rules, interval_secs)";

/// How many edits a key may be away from a known one to be taken for a slip.
const MAX_SLIP_EDITS: usize = 2;

/// The file as it is written. Relative paths are relative to the file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileConfig {
    /// Where traces are kept.
    pub(crate) data_dir: Option<PathBuf>,
    /// Address that all ports listen on.
    pub(crate) listen: Option<ListenAddress>,
    /// Ports.
    pub(crate) ports: PortsConfig,
    /// Who may use the server.
    pub(crate) access: Option<Access>,
    /// Certificate files.
    pub(crate) tls: TlsConfig,
    /// Connections that one port serves at once.
    pub(crate) max_connections: Option<u32>,
    /// Host names that browsers may use beside localhost.
    pub(crate) allowed_hosts: Vec<String>,
    /// Origins whose browser pages may send OTLP/HTTP.
    pub(crate) cors_origins: Vec<String>,
    /// Seconds that requests get to finish after SIGTERM.
    pub(crate) drain_timeout_secs: Option<u64>,
    /// How much is received and held.
    pub(crate) limits: LimitsConfig,
    /// What is taken out before anything is written.
    pub(crate) redaction: RedactionConfig,
    /// When a missing parent counts.
    pub(crate) continuity: ContinuityConfig,
    /// The server's own log.
    pub(crate) log: LogConfig,
    /// How files are cut.
    pub(crate) store: StoreConfig,
    /// What of closed segments is kept in full.
    pub(crate) sampling: SamplingConfig,
    /// What is taken away when it is old, or too much.
    pub(crate) retention: RetentionConfig,
    /// The audit log of decisions.
    pub(crate) audit: AuditConfig,
    /// The gateway to model providers.
    pub(crate) gateway: GatewayConfig,
    /// What governance does: who is told, and how directives are signed.
    pub(crate) act: ActConfig,
    /// Rules, and how often they are asked.
    pub(crate) governance: GovernanceConfig,
}

/// `governance:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GovernanceConfig {
    /// Files with rules, and folders of them.
    pub(crate) rules: Vec<PathBuf>,
    /// Seconds between two rounds.
    pub(crate) interval_secs: Option<u64>,
}

/// `limits:`, all in bytes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsConfig {
    /// Largest OTLP request, also after decompression.
    pub(crate) max_request_bytes: Option<usize>,
    /// Memory that all requests in hand may take together.
    pub(crate) max_in_flight_bytes: Option<usize>,
    /// Longest attribute value or log body; what is beyond is cut and marked.
    pub(crate) max_attribute_bytes: Option<usize>,
    /// Decoded bytes that wait to be written; beyond it senders are told to come back.
    pub(crate) max_inbox_bytes: Option<usize>,
}

/// `ports:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PortsConfig {
    /// OTLP/gRPC.
    pub(crate) grpc: Option<u16>,
    /// OTLP/HTTP.
    pub(crate) http: Option<u16>,
    /// Pages and API.
    pub(crate) web: Option<u16>,
    /// Envoy's control, open when `act.xds` has a route.
    pub(crate) xds: Option<u16>,
}

/// `tls:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsConfig {
    /// Certificate chain, PEM.
    pub(crate) cert: Option<PathBuf>,
    /// Private key, PEM.
    pub(crate) key: Option<PathBuf>,
}

/// `log:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// A level or a list of `target=level`.
    pub(crate) filter: Option<String>,
    /// Form of the lines.
    pub(crate) format: Option<LogFormat>,
}

impl FileConfig {
    /// Reads and parses a file.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let unreadable = |error: std::io::Error| {
            Failure::usage(format!(
                "cannot read the configuration file {}: {error}",
                path.display()
            ))
            .hint("name another file with --config or THROUGHLINE_CONFIG")
        };
        let size = fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_CONFIG_BYTES {
            return Err(Failure::usage(format!(
                "expected a configuration file of at most {MAX_CONFIG_BYTES} bytes, {} has {size}",
                path.display()
            )));
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(path, &text)
    }

    /// Parses the text of the file at `path`.
    pub(crate) fn parse(path: &Path, text: &str) -> Outcome<Self> {
        let says_nothing =
            |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(says_nothing) {
            return Ok(Self::default());
        }
        let mut config: Self =
            serde_saphyr::from_str(text).map_err(|error| explain(path, text, &error))?;
        let base = path.parent().unwrap_or(Path::new(""));
        let hash_key_file = &mut config.redaction.hash_key_file;
        let providers = config.gateway.providers.iter_mut();
        let of_providers = providers
            .flat_map(|provider| [&mut provider.api_key_file, &mut provider.ca_file])
            .flatten();
        for relative in
            [&mut config.data_dir, &mut config.tls.cert, &mut config.tls.key, hash_key_file]
                .into_iter()
                .flatten()
                .chain(config.audit.paths())
                .chain(of_providers)
                .chain(config.store.clickhouse.iter_mut().flat_map(|to| &mut to.password_file))
                .chain(config.act.paths())
                .chain(config.governance.rules.iter_mut())
        {
            *relative = base.join(&*relative);
        }
        Ok(config)
    }
}

/// The parser's error in our words, with its place and what to do.
fn explain(path: &Path, text: &str, error: &YamlError) -> Failure {
    let place = error.location();
    let got = place.and_then(|at| token_at(text, at.line(), at.column())).unwrap_or_default();
    let (message, hint) = match error.without_snippet() {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown key `{field}`"), Some(suggest(field, expected)))
        }
        YamlError::SerdeUnknownVariant { variant, expected, .. } => (
            format!("expected {}, got `{variant}`", expected.join(" or ")),
            Some(suggest(variant, expected)),
        ),
        YamlError::InvalidScalar { ty, .. } => {
            (format!("expected {}, got `{got}`", name_of_type(ty)), None)
        }
        YamlError::SerdeInvalidType { unexpected, expected, .. }
        | YamlError::SerdeInvalidValue { unexpected, expected, .. } => {
            (format!("expected {expected}, got {unexpected}"), None)
        }
        YamlError::DuplicateMappingKey { key, .. } => (
            format!("the key `{}` is there twice", key.as_deref().unwrap_or("?")),
            Some("keep one of them".to_owned()),
        ),
        YamlError::Message { msg, .. } => (msg.clone(), hint_of_rule(msg)),
        YamlError::Unexpected { expected: "mapping start", .. } => {
            (format!("expected keys and values, got `{got}`"), Some(KNOWN_KEYS.to_owned()))
        }
        YamlError::Unexpected { expected, .. } => {
            (format!("expected {expected}, got `{got}`"), None)
        }
        other => (other.to_string().lines().next().unwrap_or("not YAML").to_owned(), None),
    };
    let place = place.map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
    let failure = Failure::usage(format!("{}{place}: {message}", path.display()));
    failure.hint(hint.unwrap_or_else(|| DEFAULT_HINT.to_owned()))
}

/// A redaction rule that is wrong has no default.
fn hint_of_rule(message: &str) -> Option<String> {
    let beginnings = ["rule `", "this rule", "pattern `", "path `"];
    let is_of_rule = beginnings.iter().any(|beginning| message.starts_with(beginning));
    is_of_rule.then(|| "docs/redaction.md tells what a rule may say".to_owned())
}

/// What stands at a place, up to a comma, a closing bracket, a comment or the end of the line.
fn token_at(text: &str, line: u64, column: u64) -> Option<&str> {
    let line = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let start = usize::try_from(column).ok()?.checked_sub(1)?;
    let (at, _) = line.char_indices().nth(start)?;
    let rest = line.get(at..)?;
    rest.split(" #").next().and_then(|rest| rest.split([',', '}', ']']).next()).map(str::trim)
}

fn name_of_type(ty: &str) -> &str {
    match ty {
        "u16" => "a port from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number",
        "bool" => "true or false",
        other => other,
    }
}

fn suggest(got: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|name| (edits(got, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= MAX_SLIP_EDITS => format!("did you mean `{name}`?"),
        _ => format!("known here: {}", known.join(", ")),
    }
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use throughline_redact::{Action, Builtin, RuleConfig, Secrets};

    use super::*;

    fn refusal(yaml: &str) -> String {
        FileConfig::parse(Path::new("throughline.yaml"), yaml).expect_err("a refusal").to_text()
    }

    #[test]
    fn a_whole_file() {
        let yaml = "\
# everything there is
data_dir: /var/lib/throughline
listen: 0.0.0.0
ports: { grpc: 1, http: 2, web: 3 }
access: required
tls:
  cert: server.pem
  key: /keys/server.key
max_connections: 10
allowed_hosts: [traces.example.com]
cors_origins: [https://app.example.com]
drain_timeout_secs: 5
log:
  filter: info
  format: json
";
        let config = FileConfig::parse(Path::new("/etc/tl/throughline.yaml"), yaml).expect("good");
        assert_eq!(config.tls.cert.as_deref(), Some(Path::new("/etc/tl/server.pem")));
        assert_eq!(config.tls.key.as_deref(), Some(Path::new("/keys/server.key")));
        assert_eq!(
            config.ports,
            PortsConfig { grpc: Some(1), http: Some(2), web: Some(3), xds: None }
        );
        assert_eq!(config.log.format, Some(LogFormat::Json));
        assert_eq!(config.access, Some(Access::Required));
    }

    #[test]
    fn the_example_of_the_guide_is_good() {
        let guide = include_str!("../../../docs/operating.md");
        let yaml = guide.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
        let config =
            FileConfig::parse(Path::new("x.yaml"), yaml.expect("an example")).expect("good");
        assert_eq!(config.ports.web, Some(4319));
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for yaml in ["", "\n\n", "# listen: 0.0.0.0\n"] {
            assert_eq!(refused_or_default(yaml), FileConfig::default());
        }
    }

    fn refused_or_default(yaml: &str) -> FileConfig {
        FileConfig::parse(Path::new("throughline.yaml"), yaml).expect("nothing wrong")
    }

    #[test]
    fn mistakes_name_their_place() {
        insta::assert_snapshot!(refusal("listen: 127.0.0.1\nprots:\n  web: 1\n"), @r"
        error(2): throughline.yaml:2:1: unknown key `prots`
        hint: did you mean `ports`?
        ");
        insta::assert_snapshot!(refusal("ports:\n  web: 1\n  gopher: 70\n"), @r"
        error(2): throughline.yaml:3:3: unknown key `gopher`
        hint: known here: grpc, http, web, xds
        ");
        insta::assert_snapshot!(refusal("ports:\n  web: http # no\n"), @r"
        error(2): throughline.yaml:2:8: expected a port from 0 to 65535, got `http`
        hint: leave the key out to get its default
        ");
        insta::assert_snapshot!(refusal("ports: { web: 70000 }\n"), @r"
        error(2): throughline.yaml:1:15: expected a port from 0 to 65535, got `70000`
        hint: leave the key out to get its default
        ");
        insta::assert_snapshot!(refusal("access: opne\n"), @r"
        error(2): throughline.yaml:1:9: expected open or required, got `opne`
        hint: did you mean `open`?
        ");
        insta::assert_snapshot!(refusal("max_connections: -1\n"), @r"
        error(2): throughline.yaml:1:18: expected a whole number, got `-1`
        hint: leave the key out to get its default
        ");
        insta::assert_snapshot!(refusal("listen: example.com\n"), @r#"
        error(2): throughline.yaml:1:9: expected an IP address without a port (127.0.0.1, 0.0.0.0, ::1) or localhost, got "example.com"
        hint: leave the key out to get its default
        "#);
        insta::assert_snapshot!(refusal("tls: server.pem\n"), @r"
        error(2): throughline.yaml:1:6: expected keys and values, got `server.pem`
        hint: the keys are data_dir, listen, ports (grpc, http, web, xds), access, tls (cert, key), allowed_hosts, cors_origins, max_connections, drain_timeout_secs, limits (max_request_bytes, max_in_flight_bytes, max_attribute_bytes, max_inbox_bytes), redaction (secrets, rules, hash_key_file), continuity (grace_secs), log (filter, format), store (max_segment_bytes, clickhouse), sampling (rate, keep, rules, wait, max_wait), retention (max_age, max_bytes, keep_derived, rollups), audit (key_file, previous_key_files, checkpoint_interval_secs, checkpoint_count, verify_interval_secs, retention_days, reads_retention_days, anchors), gateway (providers, default_provider, routes, policy, capture_content, keys, prices, limits), act (directive_key_file, public_url, receivers, xds, argo, opa, embeddings), governance (rules, interval_secs)
        ");
        insta::assert_snapshot!(refusal("access: open\naccess: required\n"), @r"
        error(2): throughline.yaml:2:1: the key `access` is there twice
        hint: keep one of them
        ");
        insta::assert_snapshot!(refusal("ports: [\n"), @r"
        error(2): throughline.yaml:1:8: expected keys and values, got `[`
        hint: the keys are data_dir, listen, ports (grpc, http, web, xds), access, tls (cert, key), allowed_hosts, cors_origins, max_connections, drain_timeout_secs, limits (max_request_bytes, max_in_flight_bytes, max_attribute_bytes, max_inbox_bytes), redaction (secrets, rules, hash_key_file), continuity (grace_secs), log (filter, format), store (max_segment_bytes, clickhouse), sampling (rate, keep, rules, wait, max_wait), retention (max_age, max_bytes, keep_derived, rollups), audit (key_file, previous_key_files, checkpoint_interval_secs, checkpoint_count, verify_interval_secs, retention_days, reads_retention_days, anchors), gateway (providers, default_provider, routes, policy, capture_content, keys, prices, limits), act (directive_key_file, public_url, receivers, xds, argo, opa, embeddings), governance (rules, interval_secs)
        ");
    }

    #[test]
    fn mistakes_in_redaction_rules_name_their_place() {
        let rules = |rules: &str| refusal(&format!("redaction:\n  rules:\n{rules}"));
        insta::assert_snapshot!(refusal("redaction: on\n"), @r"
        error(2): throughline.yaml:1:1: expected `off`, or a mapping with secrets, rules, hash_key_file, got boolean `true`
        hint: leave the key out to get its default
        ");
        insta::assert_snapshot!(refusal("redaction: { secrets: maks }\n"), @r"
        error(2): throughline.yaml:1:23: expected mask or hash or drop or off, got `maks`
        hint: did you mean `mask`?
        ");
        insta::assert_snapshot!(refusal("redaction: { secret: off }\n"), @r"
        error(2): throughline.yaml:1:14: unknown key `secret`
        hint: did you mean `secrets`?
        ");
        insta::assert_snapshot!(rules("    - builtin: emial\n"), @r"
        error(2): throughline.yaml:3:16: expected email or phone or card or api_key or github_token or aws_key or slack_token or jwt or bearer or private_key or url_password or secret_names, got `emial`
        hint: did you mean `email`?
        ");
        insta::assert_snapshot!(rules("    - builtin: ssn\n"), @r"
        error(2): throughline.yaml:3:16: expected email or phone or card or api_key or github_token or aws_key or slack_token or jwt or bearer or private_key or url_password or secret_names, got `ssn`
        hint: known here: email, phone, card, api_key, github_token, aws_key, slack_token, jwt, bearer, private_key, url_password, secret_names
        ");
        insta::assert_snapshot!(rules("    - name: x\n      pattern: 'C-[0-9'\n"), @r"
        error(2): throughline.yaml:4:16: pattern `C-[0-9`, column 3: unclosed character class
        hint: docs/redaction.md tells what a rule may say
        ");
        insta::assert_snapshot!(rules("    - { name: x, path: customer.ssn }\n"), @r"
        error(2): throughline.yaml:3:24: path `customer.ssn`, column 1: expected `$`, which stands for the whole value
        hint: docs/redaction.md tells what a rule may say
        ");
        insta::assert_snapshot!(rules("    - { name: x, keys: [pin], action: hide }\n"), @r"
        error(2): throughline.yaml:3:39: expected mask or hash or drop, got `hide`
        hint: known here: mask, hash, drop
        ");
        insta::assert_snapshot!(rules("    - { name: x, keys: [pin], feilds: [a] }\n"), @r"
        error(2): throughline.yaml:3:31: unknown key `feilds`
        hint: did you mean `fields`?
        ");
        insta::assert_snapshot!(rules("    - { name: x, keys: [pin], path: $.a }\n"), @r"
        error(2): throughline.yaml:3:7: rule `x`: expected exactly one of `builtin`, `pattern`, `keys`, `path`, got 2
        hint: docs/redaction.md tells what a rule may say
        ");
        insta::assert_snapshot!(rules("    - { pattern: abc }\n"), @r"
        error(2): throughline.yaml:3:7: this rule: expected a `name`, which masks and counters show
        hint: docs/redaction.md tells what a rule may say
        ");
        insta::assert_snapshot!(rules("    - { builtin: email, action: hash, replacement: x }\n"), @r"
        error(2): throughline.yaml:3:7: this rule: expected `replacement` with `action: mask` only
        hint: docs/redaction.md tells what a rule may say
        ");
        insta::assert_snapshot!(rules("    - { name: a b, keys: [pin] }\n"), @r"
        error(2): throughline.yaml:3:7: rule `a b`: expected a name of 1 to 40 letters, digits, `_`, `-` and `.`, got `a b`
        hint: docs/redaction.md tells what a rule may say
        ");
    }

    #[test]
    fn redaction_is_on_for_secrets_unless_it_is_off() {
        assert_eq!(refused_or_default("listen: 127.0.0.1\n").redaction.secrets, Secrets::Mask);
        for off in ["redaction: off\n", "redaction: false\n", "redaction: { secrets: off }\n"] {
            assert_eq!(refused_or_default(off).redaction, RedactionConfig::off(), "{off}");
        }
        let yaml = "redaction:\n  hash_key_file: a.key\n  rules:\n    - builtin: email\n      action: hash\n";
        let config = FileConfig::parse(Path::new("/etc/tl.yaml"), yaml).expect("good");
        let RedactionConfig { secrets, rules, hash_key_file } = config.redaction;
        assert_eq!(secrets, Secrets::Mask);
        assert_eq!(rules, [RuleConfig::builtin(Builtin::Email, Action::Hash)]);
        assert_eq!(hash_key_file.as_deref(), Some(Path::new("/etc/a.key")));
    }

    #[test]
    fn distance() {
        assert_eq!(edits("prots", "ports"), 2);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("same", "same"), 0);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered_without_a_panic(yaml in "[ -~\\n]{0,200}") {
            let _ = FileConfig::parse(Path::new("throughline.yaml"), &yaml);
        }
    }
}
