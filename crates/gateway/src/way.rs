//! The way to a provider: whose certificates are believed beside the system's, and which proxy is
//! between. Providers with the same way share their connections.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::header::HeaderValue;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use throughline::telling::spoken;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::config::ProviderConfig;
use crate::plan::PlanError;

/// Largest file of certificates that is read, bytes: a wrong path should not fill the memory.
pub const MAX_CA_FILE_BYTES: u64 = 1 << 20;

/// How a provider is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    /// Over TLS.
    pub(crate) is_tls: bool,
    /// Certificates that are believed beside the system's.
    pub(crate) ca: Option<Ca>,
    proxy: Option<Proxy>,
}

/// A file of certificates. Every request looks its client up by the way, so that one is known by a
/// digest that is made once, not by its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Ca {
    pub(crate) pem: Arc<[u8]>,
    digest: [u8; 32],
}

impl Ca {
    fn new(pem: Vec<u8>) -> Self {
        let digest = *blake3::hash(&pem).as_bytes();
        Self { pem: Arc::from(pem), digest }
    }
}

impl PartialEq for Ca {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Ca {}

impl Hash for Ca {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// A proxy that opens a tunnel for us (`CONNECT`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Proxy {
    uri: Uri,
    /// `Proxy-Authorization`; shown nowhere.
    auth: Option<HeaderValue>,
}

impl Way {
    /// The way to the provider at this address. Without a proxy of its own the variables
    /// `HTTPS_PROXY` and `NO_PROXY` count, for addresses over TLS.
    pub(crate) fn to(
        base: &Uri,
        config: &ProviderConfig,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, PlanError> {
        let wrong = |key: &str, expected: &str, got: String| PlanError::Field {
            field: format!("gateway.providers[{}].{key}", config.name),
            expected: expected.to_owned(),
            got,
        };
        let is_tls = base.scheme_str() == Some("https");
        let ca = match &config.ca_file {
            None => None,
            Some(path) => {
                let mut pem = Vec::new();
                let expected = format!("certificates as PEM in the file {}", path.display());
                // One byte more tells a file that is too large from one that just fits.
                File::open(path)
                    .and_then(|file| file.take(MAX_CA_FILE_BYTES + 1).read_to_end(&mut pem))
                    .map_err(|error| wrong("ca_file", &expected, error.to_string()))?;
                if pem.len() as u64 > MAX_CA_FILE_BYTES {
                    let got = format!("more than {MAX_CA_FILE_BYTES} bytes");
                    return Err(wrong("ca_file", &expected, got));
                }
                if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
                    return Err(wrong("ca_file", &expected, "none".to_owned()));
                }
                Some(Ca::new(pem))
            }
        };
        let either = |upper: &str| env(upper).or_else(|| env(&upper.to_ascii_lowercase()));
        let (matcher, place) = match &config.proxy {
            Some(proxy) => (Matcher::builder().all(proxy.as_str()).build(), "proxy"),
            None => {
                let proxy = either("HTTPS_PROXY").unwrap_or_default();
                let none = either("NO_PROXY").unwrap_or_default();
                (Matcher::builder().https(proxy).no(none).build(), "HTTPS_PROXY")
            }
        };
        let proxy = matcher
            .intercept(base)
            .map(|found| Proxy { uri: found.uri().clone(), auth: found.basic_auth().cloned() });
        let expected = "the address of a proxy such as http://proxy.internal:3128";
        let scheme = proxy.as_ref().map(|proxy| proxy.uri.scheme_str().unwrap_or_default());
        match (scheme, &config.proxy) {
            (None, Some(_)) => Err(wrong(place, expected, "something else".to_owned())),
            (Some(scheme), _) if scheme != "http" => {
                Err(wrong(place, expected, format!("the scheme {scheme}")))
            }
            _ => Ok(Self { is_tls, ca, proxy }),
        }
    }

    /// Whether nothing is between, and nothing is encrypted.
    pub(crate) fn is_plain(&self) -> bool {
        !self.is_tls && self.proxy.is_none()
    }

    /// What opens connections on this way.
    pub(crate) fn connector(&self, tcp: HttpConnector) -> Road {
        match &self.proxy {
            None => Road::Direct(tcp),
            Some(Proxy { uri, auth }) => {
                let tunnel = Tunnel::new(uri.clone(), tcp);
                Road::Tunnel(match auth {
                    Some(auth) => tunnel.with_auth(auth.clone()),
                    None => tunnel,
                })
            }
        }
    }
}

/// Opens connections, directly or through a proxy.
#[derive(Debug, Clone)]
pub(crate) enum Road {
    Direct(HttpConnector),
    Tunnel(Tunnel<HttpConnector>),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Road {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(tcp) => tcp.poll_ready(cx).map_err(Into::into),
            Self::Tunnel(tunnel) => tunnel.poll_ready(cx).map_err(Into::into),
        }
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        match self {
            Self::Direct(tcp) => {
                let opening = tcp.call(to);
                Box::pin(async move { opening.await.map_err(Into::into) })
            }
            Self::Tunnel(tunnel) => {
                let opening = tunnel.call(to);
                Box::pin(async move { opening.await.map_err(Into::into) })
            }
        }
    }
}

/// Opens connections within a limit that covers all of it: the name, the address, the tunnel, and the
/// handshake of TLS, at which a server that hangs would be waited for as long as for an answer.
#[derive(Debug, Clone)]
pub(crate) struct InTime {
    pub(crate) connector: HttpsConnector<Road>,
    pub(crate) limit: Duration,
}

impl Service<Uri> for InTime {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (opening, limit) = (self.connector.call(to), self.limit);
        Box::pin(async move {
            match tokio::time::timeout(limit, opening).await {
                Ok(opened) => opened,
                Err(_) => Err(no_connection_within(limit).into()),
            }
        })
    }
}

/// What is told when no connection came about in time.
pub(crate) fn no_connection_within(limit: Duration) -> io::Error {
    let message = format!("no connection within {}", spoken(limit));
    io::Error::new(io::ErrorKind::TimedOut, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProviderKind;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\n";

    /// The way with a `ca_file` of so many bytes.
    fn with_ca_of(bytes: u64) -> Result<Way, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let mut pem = PEM.as_bytes().to_vec();
        pem.resize(usize::try_from(bytes).unwrap(), b'\n');
        std::fs::write(&path, pem).unwrap();
        let config = ProviderConfig {
            ca_file: Some(path),
            ..ProviderConfig::new("one", ProviderKind::OpenAiCompatible)
        };
        let base = Uri::from_static("https://models.internal/v1");
        Way::to(&base, &config, &|_| None)
            .map_err(|error| error.to_string().replace(&*dir.path().to_string_lossy(), ""))
    }

    /// Counts the bytes that are hashed.
    #[derive(Default)]
    struct Counting(u64);

    impl Hasher for Counting {
        fn write(&mut self, bytes: &[u8]) {
            self.0 += bytes.len() as u64;
        }

        fn finish(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn a_large_file_is_looked_up_as_quickly_as_a_small_one() {
        let hashed = |way: &Way| {
            let mut hasher = Counting::default();
            way.hash(&mut hasher);
            hasher.finish()
        };
        let ways = [64, MAX_CA_FILE_BYTES].map(|bytes| with_ca_of(bytes).unwrap());
        assert_eq!(hashed(&ways[0]), hashed(&ways[1]));
        assert_eq!(ways[0], with_ca_of(64).unwrap());
        assert_ne!(ways[0], ways[1]);
    }

    #[test]
    fn a_file_of_certificates_that_is_too_large_is_refused() {
        with_ca_of(MAX_CA_FILE_BYTES).unwrap();
        let refused = with_ca_of(MAX_CA_FILE_BYTES + 1).expect_err("refused");
        insta::assert_snapshot!(refused, @"expected certificates as PEM in the file /ca.pem in `gateway.providers[one].ca_file`, got more than 1048576 bytes");
    }
}
