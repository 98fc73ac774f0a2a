//! The HTTP client of the SDK: rustls with ring given explicitly, so that it neither needs nor sets
//! the provider of the process and cannot panic for want of one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use reqwest::Url;
use reqwest::redirect::Policy;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::{BuilderVerifierExt as _, Verifier};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client for requests to `url`. No time limit but that of connecting: the caller's policy has
/// its own. Redirects are not followed.
///
/// # Errors
/// What went wrong, for people: the system has no root certificates, and the address needs them.
pub(crate) fn client(url: &Url) -> Result<reqwest::Client, String> {
    client_with(tls(Roots::needed_for([url]))?, Route::to(url))
}

/// [`client`], for all addresses that are reached this way.
///
/// # Errors
/// What went wrong, for people.
pub(crate) fn client_with(tls: ClientConfig, route: Route) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::none())
        .user_agent(concat!("throughline/", env!("CARGO_PKG_VERSION")));
    if route == Route::Direct {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| error.to_string())
}

/// How an address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Without a proxy, whatever the environment says.
    Direct,
    /// Through the proxy of the environment or the system, if there is one.
    AsTheSystemSays,
}

impl Route {
    /// A proxy cannot reach what is on this machine.
    pub(crate) fn to(url: &Url) -> Self {
        if is_loopback(url) { Self::Direct } else { Self::AsTheSystemSays }
    }
}

/// Whose certificates are believed.
#[derive(Debug, Clone, Copy)]
pub enum Roots<'a> {
    /// Nobody's: for addresses without TLS, so that a system without roots can reach them.
    None,
    /// The system's.
    System,
    /// The system's and those of this PEM file.
    SystemAnd(&'a [u8]),
    /// Those of this PEM file and no others.
    Only(&'a [u8]),
}

impl Roots<'_> {
    /// What these addresses need.
    pub(crate) fn needed_for<'u>(urls: impl IntoIterator<Item = &'u Url>) -> Self {
        if urls.into_iter().any(|url| url.scheme() == "https") { Self::System } else { Self::None }
    }
}

/// Who a client says that it is: its certificate, those that lead to an authority after it, and its
/// key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ClientIdentity {
    pub(crate) certificates: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

/// Without the key.
impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity")
            .field("certificates_bytes", &self.certificates.len())
            .finish_non_exhaustive()
    }
}

/// The certificates of a PEM file, one at least.
///
/// # Errors
/// What came instead, for people.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err("a text without any".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The private key of a PEM file.
///
/// # Errors
/// What came instead, for people.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| error.to_string())
}

/// TLS with ring, whatever provider the process has.
///
/// # Errors
/// What went wrong, for people.
pub fn tls(roots: Roots<'_>) -> Result<ClientConfig, String> {
    tls_as(roots, None)
}

/// [`tls`] of a client that says who it is.
///
/// # Errors
/// What went wrong, for people.
pub(crate) fn tls_as(
    roots: Roots<'_>,
    identity: Option<&ClientIdentity>,
) -> Result<ClientConfig, String> {
    let read = |pem: &[u8]| {
        certificates(pem).map_err(|got| format!("expected certificates as PEM, got {got}"))
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match roots {
        Roots::None => builder.with_root_certificates(RootCertStore::empty()),
        Roots::System => builder.with_platform_verifier().map_err(|error| error.to_string())?,
        Roots::SystemAnd(pem) => {
            let verifier = Verifier::new_with_extra_roots(read(pem)?, provider)
                .map_err(|error| error.to_string())?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        Roots::Only(pem) => {
            let mut store = RootCertStore::empty();
            for certificate in read(pem)? {
                store
                    .add(certificate)
                    .map_err(|error| format!("expected an authority: {error}"))?;
            }
            builder.with_root_certificates(store)
        }
    };
    let mut config = match identity {
        Some(identity) => {
            let key = private_key(&identity.key)
                .map_err(|got| format!("expected a private key as PEM, got {got}"))?;
            builder
                .with_client_auth_cert(read(&identity.certificates)?, key)
                .map_err(|error| format!("expected the key of the client's certificate: {error}"))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A header that no span, error or debug text shows the value of.
///
/// # Errors
/// HTTP does not allow it: what was expected and came, for people, without the value.
pub(crate) fn secret_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let key = HeaderName::try_from(name)
        .map_err(|_| format!("expected the name of a header, got {name:?}"))?;
    let mut shown = HeaderValue::try_from(value).map_err(|_| {
        let strange = value.chars().find(|c| c.is_control()).map_or_else(
            || "some that are not".to_owned(),
            |c| format!("{c:?} among its {} bytes; cut it off", value.len()),
        );
        format!("expected characters that a header may have as the value of {name}, got {strange}")
    })?;
    shown.set_sensitive(true);
    Ok((key, shown))
}

/// An address as it may be shown: without user and password. Also of what is no address, where
/// nobody can say how far a password goes: all up to the last `@` is left out.
pub(crate) fn without_userinfo(address: &str) -> String {
    let begin = address.find("://").map_or(0, |at| at + "://".len());
    match address.rfind('@') {
        Some(at) if at >= begin => format!("{}{}", &address[..begin], &address[at + 1..]),
        _ => address.to_owned(),
    }
}

/// An address as it may be shown: without user, password and query, which may be anything.
pub(crate) fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    // What cannot have them has none.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown.set_fragment(None);
    shown.into()
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_this_machine_is_reached_without_a_proxy() {
        let route = |url: &str| Route::to(&Url::parse(url).expect("an address"));
        for near in ["http://localhost:4318", "http://127.0.0.2/v1", "https://[::1]:4318/"] {
            assert_eq!(route(near), Route::Direct, "{near}");
        }
        for far in ["http://otel:4318", "https://10.0.0.1", "http://localhost.example"] {
            assert_eq!(route(far), Route::AsTheSystemSays, "{far}");
        }
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (address, without) in [
            ("http://u:p@host:1/v1", "http://host:1/v1"),
            ("https://host/v1", "https://host/v1"),
            ("http://u:p/w@host", "http://host"),
            ("u:p@host", "host"),
            ("no address", "no address"),
        ] {
            assert_eq!(without_userinfo(address), without);
        }
        let url = Url::parse("http://u:p@host:1/v1/a@b?key=k#x").expect("an address");
        assert_eq!(shown(&url), "http://host:1/v1/a@b");
    }
}
