//! TLS by certificate files, on all three ports.

use std::fs;

use throughline_trace::TraceId;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use crate::export::{Exporter, fraud_trace};
use crate::server::{Server, client, trust_ring};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_three_ports_speak_tls() {
    trust_ring();
    let dir = tempfile::tempdir().expect("a directory");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let (cert, key) = (dir.path().join("server.pem"), dir.path().join("server.key"));
    fs::write(&cert, made.cert.pem()).expect("written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let args = ["serve", "--tls-cert", &cert, "--tls-key", &key];
    let server = Server::start_with(&dir.path().join("data"), &args);
    for url in [&server.grpc, &server.http, &server.web] {
        assert!(url.starts_with("https://"), "{url}");
    }

    let trace = TraceId::from_u128(0xabc);
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(made.cert.pem()));
    let endpoint = Channel::from_shared(server.grpc.clone()).expect("a URL");
    let channel = endpoint.tls_config(tls).expect("TLS").connect().await.expect("connected");
    Exporter::over(channel).send_traces(fraud_trace(trace)).await.expect("acknowledged");

    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).expect("a certificate");
    let trusting = reqwest::Client::builder().tls_certs_only([root]).build().expect("a client");
    let answer = trusting
        .post(format!("{}/v1/traces", server.http))
        .header("content-type", "application/json")
        .body("{}")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    let answer = trusting
        .get(format!("{}/api/v1/traces/{trace}", server.web))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.version(), reqwest::Version::HTTP_2, "ALPN offers h2");

    let plain = server.web.replace("https://", "http://");
    assert!(client().get(plain).send().await.is_err(), "no plain text on a TLS port");
    server.stop();
}
