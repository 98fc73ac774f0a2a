//! Starts that must not succeed, and what they say.

use std::fs;

use crate::server::{Server, run, throughline};

/// Stderr of a refused start, with what differs from run to run replaced.
fn refusal(data_dir: &std::path::Path, args: &[&str], code: i32) -> String {
    let finished = run(data_dir, args);
    assert_eq!(finished.code, code, "{}", finished.stderr);
    assert_eq!(finished.stdout, "");
    let parent = format!("{}/", data_dir.parent().expect("a parent").display());
    finished.stderr.replace(&parent, "")
}

#[test]
fn other_machines_need_a_key_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let said = refusal(&data_dir, &["serve", "--listen", "0.0.0.0", "--web-port", "0"], 2);
    insta::assert_snapshot!(said, @r"
    error: expected at least one API key before listening on 0.0.0.0, which other machines can reach; there is none
    hint: throughline keys create --data-dir data --name first --scope ingest --scope read
    ");
    // The hint works.
    run(&data_dir, &["keys", "create", "--name", "first", "--scope", "ingest", "--scope", "read"])
        .ok();
    Server::start_with(&data_dir, &["serve", "--listen", "0.0.0.0"]).stop();
}

#[test]
fn a_port_in_use() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let args = ["serve", "--grpc-port", "0", "--http-port", &port, "--web-port", "0"];
    let said = refusal(&dir.path().join("data"), &args, 4).replace(&port, "PORT");
    insta::assert_snapshot!(said, @r"
    error: port PORT on 127.0.0.1 (http) is in use by another process
    hint: choose another with --http-port, THROUGHLINE_HTTP_PORT or `ports.http`, or stop the other process
    ");
}

#[test]
fn a_data_directory_in_use() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    let args = ["serve", "--grpc-port", "0", "--http-port", "0", "--web-port", "0"];
    let said = refusal(&data_dir, &args, 4);
    assert!(said.starts_with("error: the data directory data is in use by "), "{said}");
    assert!(said.ends_with("hint: stop it or choose another with --data-dir\n"), "{said}");
    server.stop();
    Server::start(&data_dir).stop();
}

#[test]
fn a_data_directory_that_is_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    fs::write(&data_dir, "not a directory").expect("written");
    let said = refusal(&data_dir, &["serve"], 1);
    insta::assert_snapshot!(said, @r"
    error: expected a data directory at data, got a file
    hint: choose another with --data-dir
    ");
}

#[test]
fn a_mistake_in_the_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("tl.yaml");
    fs::write(&config, "listen: 127.0.0.1\nports:\n  wbe: 80\n").expect("written");
    let config = config.display().to_string();
    let said = refusal(&dir.path().join("data"), &["serve", "--config", &config], 2);
    insta::assert_snapshot!(said, @r"
    error: tl.yaml:3:3: unknown key `wbe`
    hint: did you mean `web`?
    ");
}

#[test]
fn the_default_file_and_the_environment_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    fs::write(dir.path().join("throughline.yaml"), "listen: nowhere\n").expect("written");
    let said = refusal(&data_dir, &["serve"], 2);
    assert!(said.starts_with("error: throughline.yaml:1:9: expected an IP address"), "{said}");
    fs::write(dir.path().join("throughline.yaml"), "ports: { grpc: 0, http: 0, web: 1 }\n")
        .expect("written");
    let mut command = throughline(&data_dir);
    // A variable wins over the file.
    command.env("THROUGHLINE_WEB_PORT", "0").env("THROUGHLINE_LOG_FORMAT", "json");
    Server::spawn(command).stop();
}

#[test]
fn a_store_of_a_newer_version() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    Server::start(&data_dir).stop();
    let control = data_dir.join("control.db");
    let mut bytes = fs::read(&control).expect("the control database");
    // `user_version` of the SQLite file format: big-endian at offset 60.
    bytes[60..64].copy_from_slice(&9_999_u32.to_be_bytes());
    fs::write(&control, bytes).expect("written");
    let said = refusal(&data_dir, &["serve"], 1);
    assert!(said.contains("expected schema version at most"), "{said}");
    assert!(said.contains("found 9999"), "{said}");
    assert!(said.ends_with("hint: upgrade the throughline binary\n"), "{said}");
}
