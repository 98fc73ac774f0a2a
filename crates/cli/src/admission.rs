//! Who may come in, and with how much: the keys that are asked for, the names a browser may call us
//! by, the limits of what is received.

use throughline_ingest::{IngestOptions, Limits};
use throughline_store::Control;
use throughline_trace::access::{ApiKey, KeyHash, Keyring};

use crate::args::Access;
use crate::commands::of_control;
use crate::failure::{Failure, Outcome};
use crate::settings::{ServeSettings, Settings};

/// The keys in use. Other machines may reach the server only when there is a key to ask for.
pub(crate) fn keyring(
    settings: &Settings,
    serve: &ServeSettings,
    control: &Control,
) -> Outcome<Keyring> {
    if serve.access == Access::Open {
        return Ok(Keyring::open());
    }
    let keys = control.load_keyring().map_err(|error| of_control(&error))?;
    let create = format!(
        "throughline keys create --data-dir {} --name first --scope ingest --scope read",
        settings.data_dir.display()
    );
    if count_live(&keys) == 0 {
        if !serve.is_loopback() {
            return Err(Failure::usage(format!(
                "expected at least one API key before listening on {}, which other machines can reach; there is none",
                serve.web.ip()
            ))
            .hint(create));
        }
        tracing::warn!(hint = create, "access needs a key, and there is none yet");
    }
    let keyring = Keyring::required();
    keyring.replace(keys);
    Ok(keyring)
}

/// How many keys are not revoked.
pub(crate) fn count_live(keys: &[(KeyHash, ApiKey)]) -> usize {
    keys.iter().filter(|(_, key)| key.revoked_unix_nano.is_none()).count()
}

/// What browsers may address requests to. A server that asks for no key must not answer a page of
/// another site that had its own name point to loopback.
pub(crate) fn allowed_hosts(serve: &ServeSettings) -> Option<Vec<String>> {
    if serve.access == Access::Required && serve.allowed_hosts.is_empty() {
        return None;
    }
    let mut hosts = throughline_web::loopback_hosts()?;
    hosts.push(match serve.web.ip() {
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    });
    hosts.extend(serve.allowed_hosts.iter().cloned());
    Some(hosts)
}

/// What the receivers accept.
pub(crate) fn ingest(serve: &ServeSettings) -> IngestOptions {
    IngestOptions {
        cors_origins: serve.cors_origins.clone(),
        allowed_hosts: allowed_hosts(serve),
        max_request_bytes: serve.limits.max_request_bytes,
        max_in_flight_bytes: serve.limits.max_in_flight_bytes,
        limits: Limits {
            max_attribute_bytes: serve.limits.max_attribute_bytes,
            ..Limits::default()
        },
        ..IngestOptions::default()
    }
}
