//! Arguments: what is read, and what mistakes are told.

use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Arguments, String> {
    Arguments::try_parse_from(line.split_whitespace())
        .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
}

#[test]
fn the_table_of_arguments_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn no_command_is_serve_and_global_flags_go_anywhere() {
    assert!(parse("throughline").is_ok_and(|args| args.command.is_none()));
    let before = parse("throughline --data-dir /x traces").expect("before the command");
    let after = parse("throughline traces --data-dir /x").expect("after the command");
    assert_eq!(before.global.data_dir, after.global.data_dir);
}

#[test]
fn wrong_values_say_what_was_expected() {
    let error = |line: &str| parse(line).expect_err("a refusal");
    insta::assert_snapshot!(error("throughline serve --listen example.com"), @r#"error: invalid value 'example.com' for '--listen <ADDRESS>': expected an IP address without a port (127.0.0.1, 0.0.0.0, ::1) or localhost, got "example.com""#);
    insta::assert_snapshot!(error("throughline trace 4bf9"), @"error: invalid value '4bf9' for '<ID>': expected 32 hexadecimal characters, got 4");
    insta::assert_snapshot!(error("throughline keys create --name a --scope write"), @r#"error: invalid value 'write' for '--scope <SCOPES>': expected a scope (ingest, read, gateway, act or admin), got "write""#);
    insta::assert_snapshot!(error("throughline decisions --min-confidence 62"), @r#"error: invalid value '62' for '--min-confidence <NUMBER>': expected a number from 0 to 1, got "62""#);
    insta::assert_snapshot!(error("throughline traces --since yesterday"), @r#"error: invalid value 'yesterday' for '--since <WHEN>': expected a span such as 15m, 2h or 3d, or a time such as 2026-11-22T15:00Z, got "yesterday""#);
}

#[test]
fn durations_and_moments() {
    assert_eq!(parse_duration_ms("250"), Ok(250));
    assert_eq!(parse_duration_ms("2s"), Ok(2_000));
    assert_eq!(parse_duration_ms("1m 30s"), Ok(90_000));
    assert!(parse_duration_ms("-1s").is_err());
    assert_eq!(parse_moment("1970-01-01T00:00:01Z"), Ok(1_000_000_000));
    let now = u64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("after 1970");
    let back = now - parse_moment("2h").expect("two hours back");
    assert!((7_199..=7_201).contains(&(back / 1_000_000_000)), "{back}");
    assert!(parse_moment("3d").is_ok_and(|then| then < now));
}

#[test]
fn listen_addresses() {
    for (text, address) in
        [("localhost", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("[::1]", "::1"), ("::", "::")]
    {
        assert_eq!(text.parse::<ListenAddress>().map(|a| a.0.to_string()), Ok(address.into()));
    }
    assert!("127.0.0.1:4317".parse::<ListenAddress>().is_err());
}
