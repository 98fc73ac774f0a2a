//! Keys and secrets.

use throughline_store::{Control, ControlError};
use throughline_trace::access::{AccessError, Keyring, Scope};

use crate::made;

#[test]
fn a_key_made_beside_a_running_server_works_until_it_is_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let server = store.control();
    let command = Control::open(dir.path()).unwrap();
    let keyring = Keyring::required();
    let before = server.keys_version().unwrap();

    let (text, key) =
        command.create_key(" laptop ", &[Scope::Read, Scope::Ingest, Scope::Read]).unwrap();
    assert!(text.starts_with("tl_") && text.len() == 67, "{text}");
    assert_eq!(
        (key.name.as_str(), key.scopes.as_slice()),
        ("laptop", &[Scope::Ingest, Scope::Read][..])
    );
    assert_ne!(server.keys_version().unwrap(), before);
    keyring.replace(server.load_keyring().unwrap());
    assert_eq!(keyring.check(Some(&text), Scope::Ingest).unwrap(), Some(key.clone()));
    assert!(matches!(keyring.check(Some(&text), Scope::Admin), Err(AccessError::Scope { .. })));

    let version = server.keys_version().unwrap();
    let revoked = command.revoke_key(&key.id).unwrap();
    assert!(revoked.revoked_unix_nano.is_some());
    assert_eq!(command.revoke_key(&key.id).unwrap(), revoked);
    assert_eq!(server.keys_version().unwrap(), version + 1);
    keyring.replace(server.load_keyring().unwrap());
    assert_eq!(keyring.check(Some(&text), Scope::Ingest), Err(AccessError::Unknown));
    assert_eq!(server.list_keys().unwrap(), [revoked]);

    let files = std::fs::read(dir.path().join("control.db-wal")).unwrap();
    assert!(
        !files.windows(text.len()).any(|window| window == text.as_bytes()),
        "only hashes are kept"
    );
}

#[test]
fn nonsense_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(dir.path()).unwrap();
    assert!(matches!(
        control.create_key("  ", &[Scope::Read]),
        Err(ControlError::KeyName { got: 0, .. })
    ));
    assert!(matches!(control.create_key("x", &[]), Err(ControlError::NoScope)));
    let error = control.revoke_key("nobody").unwrap_err();
    insta::assert_snapshot!(error, @r#"expected the id of an API key, got "nobody"; list them with `throughline keys list`"#);
}

#[test]
fn a_secret_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(dir.path()).unwrap();
    let secret = control.secret("cookies").unwrap();
    assert_ne!(secret, [0; 32]);
    assert_ne!(control.secret("other").unwrap(), secret);
    drop(control);
    assert_eq!(Control::open(dir.path()).unwrap().secret("cookies").unwrap(), secret);
}
