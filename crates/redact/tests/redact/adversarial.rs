//! What each built-in rule finds, and what looks like it and is something else.

use std::fmt::Write as _;

use throughline_redact::{Action, Builtin, RedactionConfig, RuleConfig};
use throughline_trace::Value;

use crate::{only, pattern, redactor, rule, span, text, through, under};

fn builtin(builtin: Builtin) -> throughline_redact::Redactor {
    only(vec![RuleConfig::builtin(builtin, Action::Mask)])
}

/// Keys in their parts: scanners of source code take whole ones for real.
fn keys() -> Vec<(&'static str, String)> {
    let x = |prefix: &str, rest: &str| format!("{prefix}{rest}");
    vec![
        ("api_key", x("sk-", "proj-abcDEF0123456789abcDEF0123456789-_x")),
        ("api_key", x("sk-", "0123456789abcdef0123456789abcdef")),
        ("api_key", x("sk-ant-", "api03-aB3-d_F6-hI9aB3-d_F6-hI9")),
        ("api_key", x("sk-or-", "v1-0123456789abcdef0123456789abcdef")),
        ("api_key", x("AIza", "SyA0123456789abcdefghijklmnopqrstuv")),
        ("api_key", x("ya29.", "a0AfH6SMBx0123456789abcdef")),
        ("api_key", x("hf_", "abcdefghijABCDEFGHIJ0123456789")),
        ("api_key", x("gsk_", "abcdefghijABCDEFGHIJ0123456789")),
        ("api_key", x("sk_live_", "4eC39HqLyjWDarjtT1zdp7dc")),
        ("api_key", x("AIza", "SyA-abcdefghij-klmnopqrs-tuvwxyz-AB")),
        ("api_key", x("ya29.", "a0AfH6-SMBxabc-defghi-j")),
        ("api_key", x("GOCSPX-", "aBcDeFg-hIjKlMn-oPqRsTu-vWxY")),
        ("api_key", x("glpat-", "a1B2c3D4e5F6g7H8i9J0")),
        ("api_key", x("glpat-", "aBcD-eFgHiJ-kLmNoPqR")),
        ("api_key", x("SG.", "aBcDeFg-hIjKlMn-oPqRsT.aBcD-eFgHiJ-kLmNoPqR-sTuVwX-yZabCdE-fGhIjK")),
        ("api_key", x("tl_", "a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8i9J0")),
        ("github_token", x("ghp_", "a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8")),
        ("github_token", x("github_pat_", "11A_a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8")),
        ("aws_key", x("AKIA", "IOSFODNN7EXAMPLE")),
        ("slack_token", x("xoxb-", "123456789012-abcdefABCDEF")),
        ("jwt", x("eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJl")),
    ]
}

#[test]
fn keys_and_tokens_go_wherever_they_stand_in_a_text() {
    let redactor = redactor(&RedactionConfig::default());
    for (name, key) in keys() {
        for (before, after) in [
            ("", ""),
            ("use ", " now"),
            ("key=", ";"),
            ("\"", "\""),
            ("(", ")."),
            ("größe:", "…"),
            ("日本", "語"),
            ("[INFO] ", "\nnext line"),
            ("{'k': '", "'}"),
        ] {
            let said = text(&redactor, &format!("{before}{key}{after}"));
            assert_eq!(said, format!("{before}[{name}]{after}"));
        }
        let json = serde_json::json!({ "deep": [{ "note": format!("line\n\"{key}\"") }] });
        let said = text(&redactor, &json.to_string());
        let expected = serde_json::json!({ "deep": [{ "note": format!("line\n\"[{name}]\"") }] });
        assert_eq!(said, expected.to_string());
    }
}

#[test]
fn secrets_in_their_usual_company() {
    let redactor = redactor(&RedactionConfig::default());
    let pem = format!(
        "before\n-----BEGIN {0}-----\nMIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn\n-----END {0}-----\nafter",
        "RSA PRIVATE KEY"
    );
    let cut = pem.split("\n-----END").next().expect("its beginning");
    insta::assert_snapshot!(text(&redactor, &pem), @r"
    before
    [private_key]
    after
    ");
    insta::assert_snapshot!(text(&redactor, cut), @r"
    before
    [private_key]
    ");
    let mut said = String::new();
    for sample in [
        "Authorization: Bearer abcdefGHIJKL0123456789",
        "authorization: Basic dXNlcjpwYXNz",
        "curl -H 'Authorization: Basic QWxhZGRpbjpPcGVu'",
        "connect postgres://app:hunter2@db.internal:5432/shop failed",
        "https://user@example.com/path and http://host:8080/a@b",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE/",
        "AWS_SECRET_ACCESS_KEY='wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE+' make",
        "see https://hooks.slack.com/services/T00000000/B00000000/abcdefgh for it",
        r#"{"url": "postgres:\/\/app:hunter2@db"}"#,
        r#"{"password": "hunter2", "user": "eve", "apiKey": 12345, "token": "kept"}"#,
        r#"{"headers": {"Authorization": ["Basic abc", "x"], "set-cookie": null}}"#,
        r#"{"pass\u0077ord": "hunter2"}"#,
    ] {
        writeln!(said, "{}", text(&redactor, sample)).expect("written");
    }
    insta::assert_snapshot!(said, @r#"
    Authorization: Bearer [bearer]
    authorization: Basic [bearer]
    curl -H 'Authorization: Basic [bearer]'
    connect postgres://app:[url_password]@db.internal:5432/shop failed
    https://user@example.com/path and http://host:8080/a@b
    aws_secret_access_key = [aws_key]
    aws_secret_access_key = [aws_key]
    AWS_SECRET_ACCESS_KEY='[aws_key]' make
    see https://hooks.slack.com/services/[slack_token] for it
    {"url": "postgres://app:[url_password]@db"}
    {"password": "[secret_names]", "user": "eve", "apiKey": "[secret_names]", "token": "kept"}
    {"headers": {"Authorization": ["[secret_names]", "[secret_names]"], "set-cookie": null}}
    {"pass\u0077ord": "[secret_names]"}
    "#);
}

#[test]
fn what_looks_like_a_key_and_is_none() {
    let redactor = redactor(&RedactionConfig::default());
    for sample in [
        "sk-learn-pipeline-with-a-long-name-2",
        "task-0123456789abcdef0123456789abcdef",
        "risk-assessment-agent-version-20",
        "a bearer of good news and understandings",
        "basic instructions: be nice",
        "the author's cookies pass the secret test",
        "eyJust a word",
        "https://example.com:8080/path?x=1",
        "mailto:a@b and user@host:~/dir",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        r#"{"properties": {"password": {"type": "string"}, "api_key": {"type": "string"}}}"#,
        r#"{"max_tokens": 100, "total_tokens": 12, "password": "", "secret_key": null}"#,
        "xai-grok and gsk_ and hf_model",
    ] {
        assert_eq!(text(&redactor, sample), sample);
    }
}

/// Texts of ids, times, hashes and numbers as telemetry has them: no rule may touch them.
const MACHINE_TEXTS: &[&str] = &[
    "4bf92f3577b34da6a3ce929d0e0e4736",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "00-41111111111111114111111111111111-4111111111111111-01",
    "550e8400-e29b-41d4-a716-446655440000",
    "12345678-1234-4123-8123-123456789012",
    "41111111-1111-4111-8111-411111111111",
    "1795348800000000000",
    "1795348800000",
    "1795348800",
    "2026-11-26T14:28:43.123456789Z",
    "2026-11-26 14:28:43 +0100",
    "2026-11-26T14:28:43+10:00",
    "01-02-2026",
    "01/02/2026 10:00",
    "192.168.100.200",
    "10.0.0.1:4317",
    "2001:db8::8a2e:370:7334",
    "hmac-sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "gpt-4o-2024-08-06",
    "claude-3-5-sonnet-20241022",
    "chatcmpl-9tXYZ4111111111111111abc",
    "call_4111111111111111",
    "req_011CSHoEeqs5C35K2UUqR7Fy",
    "0.4111111111111111",
    "4111111111111112",
    "1234567890123456",
    "v1.2.3-4567.8901",
    "+12.5 %",
    "@@ -120,7 +120,9 @@",
    "scope/package@1.2.3",
    "git@github.com:org/repo.git",
    "x@y",
    "3.141592653589793",
    "[0.1234567, -0.7654321, 123456789]",
    "tokens: 1204 310 1514",
    "2000 3000 4000",
    "ISBN 978-3-16-148410-0",
    "0000000000000001",
    "001234567890",
];

#[test]
fn ids_times_hashes_and_numbers_are_left_alone() {
    let rules = [Builtin::Email, Builtin::Phone, Builtin::Card];
    let rules = rules.map(|builtin| RuleConfig::builtin(builtin, Action::Mask)).to_vec();
    let redactor = redactor(&RedactionConfig { rules, ..RedactionConfig::default() });
    for sample in MACHINE_TEXTS {
        assert_eq!(text(&redactor, sample), *sample);
        let json = serde_json::json!({ "value": sample, "list": [sample] }).to_string();
        assert_eq!(text(&redactor, &json), json);
    }
    for number in [1_795_348_800_000_000_000, 1_234_567_890_123_456, 4_111_111_111_111_112, 0, -1] {
        let kept = through(&redactor, span("some.number", number));
        assert_eq!(kept.attributes.get("some.number"), Some(&Value::Int(number)));
    }
}

#[test]
fn cards_by_issuer_and_check_digit() {
    let redactor = builtin(Builtin::Card);
    let mut said = String::new();
    for sample in [
        "4111111111111111",
        "paid with 4111 1111 1111 1111, thanks",
        "4111-1111-1111-1111 123",
        "4111 1111 1111 1111 12/27",
        "2027 4111 1111 1111 1111 5555 5555 5555 4444 123",
        "378282246310005 and 3782 822463 10005.",
        "30569309025904",
        r#"{"number": 4111111111111111, "id": 4111111111111112}"#,
        "4111-1111 1111-1111",
        "a4111111111111111",
        "41111111111111110",
        "2024-11-26 4111111111111111 charged",
        "1234 56 4111111111111111",
        "order 1234567 12-34 20241126 4111 1111 1111 1111",
    ] {
        writeln!(said, "{}", text(&redactor, sample)).expect("written");
    }
    insta::assert_snapshot!(said, @r#"
    [card]
    paid with [card], thanks
    [card] 123
    [card] 12/27
    2027 [card] [card] 123
    [card] and [card].
    [card]
    {"number": "[card]", "id": 4111111111111112}
    [card]
    a4111111111111111
    41111111111111110
    2024-11-26 [card] charged
    1234 56 [card]
    order 1234567 12-34 20241126 [card]
    "#);
    let number = through(&redactor, span("card", 4_111_111_111_111_111));
    assert_eq!(number.attributes.str("card"), Some("[card]"));
}

#[test]
fn phones_with_a_country_or_in_groups() {
    let redactor = builtin(Builtin::Phone);
    let mut said = String::new();
    for sample in [
        "+49 170 1234567",
        "call +1 (555) 123-4567 today",
        "tel:+491701234567",
        "(555) 234-5678 or 555-234-5678 or 555.234.5678",
        "0170 1234567, 030/12345678, 020 7946 0958",
        "0049 170 1234567",
        "+44 20 7946 0958.",
        r#"{"to": "+491701234567"}"#,
        "5552345678",
        "order 100-200-3000",
        "room 0123 030 1234567",
    ] {
        writeln!(said, "{}", text(&redactor, sample)).expect("written");
    }
    insta::assert_snapshot!(said, @r#"
    [phone]
    call [phone] today
    tel:[phone]
    [phone] or [phone] or [phone]
    [phone], [phone], [phone]
    [phone]
    [phone].
    {"to": "[phone]"}
    5552345678
    order 100-200-3000
    room 0123 [phone]
    "#);
}

#[test]
fn emails_in_any_script() {
    let redactor = builtin(Builtin::Email);
    let mut said = String::new();
    for sample in [
        "a.b+c@example.co.uk",
        "<Jürgen@müller.de>, 例@例え.日本",
        "From: Eve <eve@example.com>; mailto:eve@example.com?subject=x",
        "@user and user@ and @@",
        r#"{"eve@example.com": ["eve\u0040example.com", "e@x"]}"#,
        "eve@example.com.",
        "メールはeve@example.comです。",
    ] {
        writeln!(said, "{}", text(&redactor, sample)).expect("written");
    }
    insta::assert_snapshot!(said, @r#"
    [email]
    <[email]>, [email]
    From: Eve <[email]>; mailto:[email]?subject=x
    @user and user@ and @@
    {"[email]": ["[email]", "e@x"]}
    [email].
    メールは[email]です。
    "#);
}

#[test]
fn rules_that_guess_leave_ids_alone_unless_they_name_them() {
    let digits = rule("digits", pattern("[0-9]{4,}"));
    let redactor = only(vec![digits.clone()]);
    for key in [
        "input_hash",
        "gen_ai.response.id",
        "gen_ai.request.model",
        "throughline.price_version",
        "throughline.mended",
    ] {
        assert_eq!(under(&redactor, key, "id-2024").as_deref(), Some("id-2024"), "{key}");
    }
    // What people and models said is no id, whoever gave the attribute its name.
    for key in [
        "throughline.entities",
        "throughline.intent",
        "throughline.attempt.message",
        "throughline.decision.input_problem",
        "throughline.note",
    ] {
        assert_eq!(under(&redactor, key, "id-2024").as_deref(), Some("id-[digits]"), "{key}");
    }
    assert_eq!(under(&redactor, "note", "id-2024").as_deref(), Some("id-[digits]"));
    let mut named = digits;
    named.fields = crate::globs(&["gen_ai.response.id"]);
    let redactor = only(vec![named]);
    assert_eq!(under(&redactor, "gen_ai.response.id", "id-2024").as_deref(), Some("id-[digits]"));
    assert_eq!(under(&redactor, "note", "id-2024").as_deref(), Some("id-2024"));
}
