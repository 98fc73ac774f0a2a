//! Certificate files to a TLS configuration, with errors that name the file.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};

use crate::failure::{Failure, Outcome};
use crate::settings::TlsFiles;

/// Reads certificate and key and checks that they belong together.
pub(crate) fn load(files: &TlsFiles) -> Outcome<Arc<ServerConfig>> {
    let (cert, key) = (files.cert.display(), files.key.display());
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable("certificate", &files.cert, error))?;
    if chain.is_empty() {
        return Err(unreadable("certificate", &files.cert, PemError::NoItemsFound));
    }
    let private = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unreadable("private key", &files.key, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Failure::usage(format!("the private key {key} does not belong to the certificate {cert}"))
                    .hint("name the key that the certificate was made for; of a chain, the server's own certificate comes first")
            }
            error => Failure::usage(format!("cannot use the certificate {cert} with the key {key}: {error}")),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn unreadable(what: &str, path: &Path, error: PemError) -> Failure {
    let path = path.display();
    match error {
        PemError::Io(error) => Failure::usage(format!("cannot read the {what} {path}: {error}"))
            .hint("the user that runs the server needs to be able to read it"),
        PemError::NoItemsFound => {
            let marker = if what == "certificate" { "CERTIFICATE" } else { "PRIVATE KEY" };
            Failure::usage(format!("expected a {what} in PEM in {path}, found none")).hint(format!(
                "a PEM file has a line -----BEGIN {marker}-----; convert DER with openssl"
            ))
        }
        error => Failure::usage(format!("expected a {what} in PEM in {path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn refusal(files: &TlsFiles, dir: &Path) -> String {
        load(files).expect_err("a refusal").to_text().replace(&format!("{}/", dir.display()), "")
    }

    #[test]
    fn files_that_cannot_work_are_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("written");
            path
        };
        let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let (one, other) = (made(), made());
        let cert = write("one.pem", &one.cert.pem());
        let key = write("one.key", &one.signing_key.serialize_pem());
        let other_key = write("other.key", &other.signing_key.serialize_pem());
        let empty = write("empty.pem", "nothing here\n");

        assert!(load(&TlsFiles { cert: cert.clone(), key: key.clone() }).is_ok());
        let files = TlsFiles { cert: cert.clone(), key: other_key };
        insta::assert_snapshot!(refusal(&files, dir.path()), @r"
        error(2): the private key other.key does not belong to the certificate one.pem
        hint: name the key that the certificate was made for; of a chain, the server's own certificate comes first
        ");
        let files = TlsFiles { cert: empty, key: key.clone() };
        insta::assert_snapshot!(refusal(&files, dir.path()), @r"
        error(2): expected a certificate in PEM in empty.pem, found none
        hint: a PEM file has a line -----BEGIN CERTIFICATE-----; convert DER with openssl
        ");
        let files = TlsFiles { cert: cert.clone(), key: dir.path().join("gone.key") };
        insta::assert_snapshot!(refusal(&files, dir.path()), @r"
        error(2): cannot read the private key gone.key: No such file or directory (os error 2)
        hint: the user that runs the server needs to be able to read it
        ");
        let files = TlsFiles { cert: cert.clone(), key: cert };
        insta::assert_snapshot!(refusal(&files, dir.path()), @r"
        error(2): expected a private key in PEM in one.pem, found none
        hint: a PEM file has a line -----BEGIN PRIVATE KEY-----; convert DER with openssl
        ");
    }
}
