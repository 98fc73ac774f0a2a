//! Names whose values are secrets wherever they stand: passwords, tokens, cookies, credentials in
//! headers.

use crate::prefilter::Trigger;

/// The names, in lowercase and without `_` and `-`.
const NAMES: &[&str] = &[
    "accesstoken",
    "apikey",
    "apisecret",
    "apitoken",
    "authorization",
    "authtoken",
    "awssecretaccesskey",
    "bearertoken",
    "clientsecret",
    "cookie",
    "encryptionkey",
    "idtoken",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "proxyauthorization",
    "refreshtoken",
    "secretaccesskey",
    "secretkey",
    "sessiontoken",
    "setcookie",
    "signingkey",
    "userpassword",
    "xapikey",
    "xauthtoken",
    "xgoogapikey",
];

/// Shortest and longest of the names as they are written, bytes.
const MIN_BYTES: usize = 6;
const MAX_BYTES: usize = 24;

/// What the names end with, and what is left out of them.
const LAST: &[u8] = b"nytde_-";

/// One of these is in each name, however it is written. What many words have (`passage`, `capital`) is
/// told from a name by the letter or the mark behind it.
pub(crate) const TRIGGERS: &[Trigger] = &[
    Trigger::Sets(&[b"aA", b"sS", b"sS", b"wWpP_-"]),
    Trigger::AnyCase("auth"),
    Trigger::AnyCase("cook"),
    Trigger::AnyCase("secr"),
    Trigger::AnyCase("apik"),
    Trigger::Sets(&[b"pP", b"iI", b"tT", b"oO_-"]),
    Trigger::Sets(&[b"iI", b"_-", b"kKtT", b"eEoO"]),
    Trigger::Sets(&[b"sSdDhHrRnN", b"_-", b"tT", b"oO"]),
    Trigger::Sets(&[b"sSdDhHrRnN", b"tT", b"oO", b"kK"]),
    Trigger::Sets(&[b"eEnNgG", b"_-", b"kK", b"eE"]),
    Trigger::Sets(&[b"eEnNgG", b"kK", b"eE", b"yY"]),
];

/// Whether the last part of `key`, behind its last dot, is one of the names.
pub(crate) fn is_secret(key: &str) -> bool {
    let bytes = key.as_bytes();
    let start = bytes.iter().rposition(|byte| *byte == b'.').map_or(0, |dot| dot + 1);
    let last = &bytes[start..];
    let ends_like_one = last.last().is_some_and(|end| LAST.contains(&end.to_ascii_lowercase()));
    if !ends_like_one || !(MIN_BYTES..=MAX_BYTES).contains(&last.len()) {
        return false;
    }
    let mut plain = [0; MAX_BYTES];
    let mut length = 0;
    for byte in last.iter().filter(|byte| !matches!(byte, b'_' | b'-')) {
        plain[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    NAMES.iter().any(|name| name.as_bytes() == &plain[..length])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefilter::Prefilter;

    #[test]
    fn names_of_secrets_and_of_others() {
        for secret in [
            "password",
            "db.user.PassWord",
            "http.request.header.authorization",
            "X-API-Key",
            "apiKey",
            "client_secret",
            "set-cookie",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        for other in [
            "gen_ai.request.max_tokens",
            "gen_ai.usage.input_tokens",
            "token",
            "author",
            "password_reset_url",
            "gen_ai.token.type",
            "key",
            "",
            "größe",
        ] {
            assert!(!is_secret(other), "{other}");
        }
    }

    #[test]
    fn every_name_has_a_trigger_however_it_is_written() {
        let prefilter = Prefilter::new(TRIGGERS.iter().map(|trigger| (*trigger, 1)));
        for name in NAMES.iter().map(|name| (*name).to_owned()).chain(
            ["private_key", "private-key", "api_key", "Api-Key", "API_TOKEN", "access_token"]
                .map(str::to_owned),
        ) {
            assert!(is_secret(&name), "{name}");
            assert_eq!(prefilter.scan(name.as_bytes()).rules, 1, "{name}");
        }
        for name in [
            "id_token",
            "session-token",
            "bearer_token",
            "signing_key",
            "x-goog-api-key",
            "encryption_key",
            "refreshToken",
            "set-cookie",
            "secret_key",
            "pass_word",
            "Pass-Phrase",
            "PASSWD",
            "apiToken",
            "aws_secret_access_key",
        ] {
            assert!(is_secret(name), "{name}");
            assert_eq!(prefilter.scan(name.as_bytes()).rules, 1, "{name}");
        }
    }
}
