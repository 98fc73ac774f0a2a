//! Exports over TLS to a real server whose authority only we know, with and without a certificate of
//! the client, over gRPC and HTTP, as variables and builder say; directives over the same; and exports
//! that are compressed.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use axum::http::{StatusCode, Uri};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use throughline::{OtlpProtocol, Recorder, Telemetry};

use crate::export::{is_child, run_child, work};
use crate::receiver::{self, Received};

/// What a child expects to have lost.
const LOSES: &str = "THROUGHLINE_TEST_LOSES";

/// What a child expects to be told.
const TOLD: &str = "THROUGHLINE_TEST_TOLD";

const PROTOCOLS: [&str; 2] = ["grpc", "http/protobuf"];

/// An authority that no system knows.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
struct Certified {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn certify(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Certified {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate").pem();
        Certified { certificate, key: key.serialize_pem() }
    }

    fn client(&self) -> Certified {
        self.certify("shop", ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A receiver on `localhost`; it asks clients for a certificate of the authority that is named.
    fn receiver(&self, asks_for: Option<&Self>) -> (String, Received) {
        let (address, received) = receiver::start_tls(self.tls(asks_for));
        (format!("https://localhost:{}", address.port()), received)
    }

    fn tls(&self, asks_for: Option<&Self>) -> ServerConfig {
        let ours = self.certify("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match asks_for {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).expect("an authority");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.expect("a verifier"))
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(ours.certificate.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(ours.key.as_bytes()).expect("PEM");
        let mut tls = builder.with_single_cert(chain, key).expect("a server");
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls
    }
}

/// Files for variables to name.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn with(&self, name: &str, content: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.display().to_string()
    }
}

/// Sends in a process of its own; answers what arrived.
fn send(endpoint: &str, received: &Received, variables: &[(&str, &str)]) -> Vec<String> {
    let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
    all.extend(variables);
    run_child("export_tls::child_that_sends", &all);
    received.lines()
}

#[test]
fn child_that_sends() {
    if !is_child() {
        return;
    }
    let telemetry = Telemetry::builder().timeout(Duration::from_secs(2)).init().expect("telemetry");
    work();
    let is_lost = telemetry.shutdown().is_err();
    assert_eq!(is_lost, std::env::var_os(LOSES).is_some(), "{:?}", telemetry.counts());
}

const EVERYTHING: [&str; 4] =
    ["log agent.decision", "metric agent_operations_total", "trace inner", "trace outer"];

fn assert_has_everything(received: &Received, how: &str) {
    for line in EVERYTHING {
        assert!(received.has(line), "{how}: {line} is not among {:?}", received.lines());
    }
}

#[test]
fn r2_1_an_authority_of_our_own_is_believed_where_it_is_named_and_nowhere_else() {
    let (authority, files) = (Authority::new(), Files::new());
    let pem = files.with("authority.pem", &authority.pem());
    for protocol in PROTOCOLS {
        let (endpoint, received) = authority.receiver(None);
        let spoken = ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let came = send(&endpoint, &received, &[spoken, (LOSES, "1")]);
        assert_eq!(came, Vec::<String>::new(), "{protocol}: nobody vouches for the receiver");
        send(&endpoint, &received, &[spoken, ("OTEL_EXPORTER_OTLP_CERTIFICATE", &pem)]);
        assert_has_everything(&received, protocol);
    }
}

#[test]
fn r2_1_a_receiver_that_asks_gets_the_certificate_of_the_client() {
    let (authority, files) = (Authority::new(), Files::new());
    let pem = files.with("authority.pem", &authority.pem());
    let (ours, strange) = (authority.client(), Authority::new().client());
    let certificate = files.with("client.pem", &ours.certificate);
    let key = files.with("client.key", &ours.key);
    let strange_certificate = files.with("strange.pem", &strange.certificate);
    let strange_key = files.with("strange.key", &strange.key);
    for protocol in PROTOCOLS {
        let (endpoint, received) = authority.receiver(Some(&authority));
        let spoken = ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let believed = ("OTEL_EXPORTER_OTLP_CERTIFICATE", pem.as_str());
        let came = send(&endpoint, &received, &[spoken, believed, (LOSES, "1")]);
        assert_eq!(came, Vec::<String>::new(), "{protocol}: it does not say who it is");
        let as_somebody = [
            spoken,
            believed,
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", strange_certificate.as_str()),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", strange_key.as_str()),
            (LOSES, "1"),
        ];
        let came = send(&endpoint, &received, &as_somebody);
        assert_eq!(came, Vec::<String>::new(), "{protocol}: nobody vouches for the client");
        let as_ourselves = [
            spoken,
            believed,
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificate.as_str()),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key.as_str()),
        ];
        send(&endpoint, &received, &as_ourselves);
        assert_has_everything(&received, protocol);
    }
}

#[test]
fn r2_1_a_signal_has_its_own_certificates_before_those_of_all() {
    let (authority, files) = (Authority::new(), Files::new());
    let pem = files.with("authority.pem", &authority.pem());
    let other = files.with("other.pem", &Authority::new().pem());
    for protocol in PROTOCOLS {
        let (endpoint, received) = authority.receiver(None);
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", other.as_str()),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", pem.as_str()),
            (LOSES, "1"),
        ];
        let came = send(&endpoint, &received, &variables);
        let traces: Vec<_> = came.iter().filter(|line| line.starts_with("trace ")).collect();
        assert_eq!(traces, ["trace inner", "trace outer"], "{protocol}: {came:?}");
        assert!(!came.iter().any(|line| line.starts_with("log ")), "{protocol}: {came:?}");
    }
}

#[test]
fn r2_1_the_builder_says_whom_to_believe_and_who_we_are() {
    let authority = Authority::new();
    let client = authority.client();
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let (endpoint, received) = authority.receiver(Some(&authority));
        let builder = Telemetry::builder()
            .environment(false)
            .endpoint(endpoint)
            .protocol(protocol)
            .compress(true)
            .certificate(authority.pem())
            .client_certificate(client.certificate.clone(), client.key.clone());
        let secret: String = client.key.lines().nth(1).expect("a key").chars().take(8).collect();
        assert!(!format!("{builder:?}").contains(&secret));
        let telemetry = builder.build().expect("telemetry");
        {
            let _in = telemetry.enter();
            work();
        }
        telemetry.shutdown().expect("nothing is lost");
        assert_has_everything(&received, &format!("{protocol:?}"));
        assert!(received.has("encoding gzip"), "{protocol:?}: {:?}", received.lines());
    }
}

/// A server that asks for certificates is listened to with those of the exports.
#[test]
fn directives_are_heard_over_the_tls_of_exports() {
    let authority = Authority::new();
    let client = authority.client();
    let (came, coming) = mpsc::channel();
    let address = receiver::serve_tls(authority.tls(Some(&authority)), move || {
        axum::Router::new().fallback(move |uri: Uri| {
            // Nobody listens any more when the test is over.
            let _ = came.send(uri.path().to_owned());
            async { StatusCode::SERVICE_UNAVAILABLE }
        })
    });
    let telemetry = Telemetry::builder()
        .environment(false)
        .recorder(&Recorder::new())
        .directives(format!("https://localhost:{}", address.port()))
        .certificate(authority.pem())
        .client_certificate(client.certificate, client.key)
        .build()
        .expect("telemetry");
    let asked = coming.recv_timeout(Duration::from_secs(20));
    assert_eq!(asked.as_deref(), Ok("/api/v1/directives"));
    drop(telemetry);
}

#[test]
fn r2_1_certificates_that_are_none_are_told_by_name() {
    let client = Authority::new().client();
    let told = |builder: throughline::TelemetryBuilder| {
        builder.environment(false).build().expect_err("refused").to_string()
    };
    let begin = Telemetry::builder;
    assert_eq!(
        told(begin().certificate("no certificate")),
        r#"expected certificate to be certificates as PEM, got "a text without any""#
    );
    let text = told(begin().client_certificate(client.certificate.clone(), "no key"));
    assert!(text.starts_with("expected client_certificate to be a private key as PEM"), "{text}");
    let other = Authority::new().client().key;
    let text = told(begin().client_certificate(client.certificate.clone(), other));
    assert!(text.contains("expected the key of the client's certificate"), "{text}");
    let files = Files::new();
    let path = files.with("client.pem", &client.certificate);
    let child = "export_tls::child_whose_certificates_are_refused";
    let lacks_key = "expected OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE to be \
                     OTEL_EXPORTER_OTLP_CLIENT_KEY beside it, got \"no key\"";
    run_child(child, &[("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", &path), (TOLD, lacks_key)]);
    let missing = "expected OTEL_EXPORTER_OTLP_CERTIFICATE to be a readable PEM file, \
                   got \"/no/file.pem";
    run_child(child, &[("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/file.pem"), (TOLD, missing)]);
    let unknown = "expected OTEL_EXPORTER_OTLP_COMPRESSION to be gzip or none, got \"brotli\"";
    run_child(child, &[("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli"), (TOLD, unknown)]);
}

#[test]
fn child_whose_certificates_are_refused() {
    if !is_child() {
        return;
    }
    let told = Telemetry::builder().init().expect_err("refused").to_string();
    let expected = std::env::var(TOLD).expect("what is told");
    assert!(told.starts_with(&expected), "{told}");
}

#[test]
fn r2_1_exports_are_compressed_where_the_variables_say() {
    for protocol in PROTOCOLS {
        let (address, received) = receiver::start();
        let endpoint = format!("http://{address}");
        let spoken = ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let came = send(&endpoint, &received, &[spoken]);
        assert!(!came.iter().any(|line| line.starts_with("encoding")), "{protocol}: {came:?}");
        send(&endpoint, &received, &[spoken, ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]);
        assert_has_everything(&received, protocol);
        assert!(received.has("encoding gzip"), "{protocol}: {:?}", received.lines());

        let (address, received) = receiver::start();
        let variables = [
            spoken,
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "none"),
        ];
        let came = send(&format!("http://{address}"), &received, &variables);
        assert!(received.has("trace outer"), "{protocol}: {came:?}");
        assert!(!received.has("encoding gzip"), "{protocol}: {came:?}");
    }
}
