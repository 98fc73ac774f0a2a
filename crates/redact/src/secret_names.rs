//! Names whose values are secrets wherever they stand: passwords, tokens, cookies, credentials in
//! headers.

use crate::prefilter::Trigger;

/// The names, in lowercase and without `_` and `-`. They are secrets also behind other words, which only
/// say whose they are (`db_password`), and not before them (`password_reset_url`, `token_count`).
const NAMES: &[&str] = &[
    "accesstoken",
    "apikey",
    "apisecret",
    "apitoken",
    "appsecret",
    "authorization",
    "authtoken",
    "awssecretaccesskey",
    "bearertoken",
    "clientsecret",
    "consumersecret",
    "cookie",
    "encryptionkey",
    "idtoken",
    "jwtsecret",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "proxyauthorization",
    "refreshtoken",
    "secretaccesskey",
    "secretkey",
    "securitytoken",
    "sessiontoken",
    "setcookie",
    "sharedsecret",
    "signingkey",
    "signingsecret",
    "subscriptionkey",
    "userpassword",
    "webhooksecret",
    "xapikey",
    "xauthtoken",
    "xgoogapikey",
];

/// Shortest and longest of the names, bytes.
const MIN_BYTES: usize = 6;
const MAX_BYTES: usize = 18;

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
    Trigger::Sets(&[b"sSdDhHrRnNyY", b"_-", b"tT", b"oO"]),
    Trigger::Sets(&[b"sSdDhHrRnNyY", b"tT", b"oO", b"kK"]),
    Trigger::Sets(&[b"eEnNgG", b"_-", b"kK", b"eE"]),
    Trigger::Sets(&[b"eEnNgG", b"kK", b"eE", b"yY"]),
];

/// Whether the last part of `key`, behind its last dot, is one of the names, or ends with one that is a
/// word or words of its own.
pub(crate) fn is_secret(key: &str) -> bool {
    let bytes = key.as_bytes();
    let start = bytes.iter().rposition(|byte| *byte == b'.').map_or(0, |dot| dot + 1);
    let last = &bytes[start..];
    let ends_like_one = last.last().is_some_and(|end| LAST.contains(&end.to_ascii_lowercase()));
    if !ends_like_one || last.len() < MIN_BYTES {
        return false;
    }
    // From the end on, as far as a name may reach.
    let mut plain = [0; MAX_BYTES];
    let mut from = MAX_BYTES;
    for (at, byte) in last.iter().enumerate().rev().filter(|(_, byte)| !is_mark(**byte)) {
        if from == 0 {
            return false;
        }
        from -= 1;
        plain[from] = byte.to_ascii_lowercase();
        let word = &plain[from..];
        if begins_word(last, at) && NAMES.iter().any(|name| name.as_bytes() == word) {
            return true;
        }
    }
    false
}

fn is_mark(byte: u8) -> bool {
    matches!(byte, b'_' | b'-')
}

/// Whether a word begins at a place: behind a mark, or with a capital letter that no other stands before
/// or that a small one follows (`dbPassword`, `AIKey`).
fn begins_word(name: &[u8], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).map(|before| name[before]) else { return true };
    let is_before_small = name.get(at + 1).is_some_and(u8::is_ascii_lowercase);
    let is_behind_mark = before.is_ascii() && !before.is_ascii_alphanumeric();
    let is_capital = name[at].is_ascii_uppercase();
    is_behind_mark || (is_capital && (!before.is_ascii_uppercase() || is_before_small))
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
            "db_password",
            "new_password",
            "user.newPassword",
            "DB_PASSWORD",
            "AZURE_OPENAI_API_KEY",
            "openaiApiKey",
            "ocp-apim-subscription-key",
            "Ocp-Apim-Subscription-Key",
            "x-goog-api-key",
            "x-functions-api-key",
            "X-Amz-Security-Token",
            "gcp_refresh_token",
            "myAccessToken",
            "the password",
            "slack_signing_secret",
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
            "max_tokens",
            "token_count",
            "input_tokens",
            "outputTokens",
            "next_page_token",
            "INVALID_TOKEN",
            "gridToken",
            "paid_token",
            "invalidtoken",
            "primary_key",
            "api_key_id",
            "api_key_name",
            "password_policy",
            "passwords",
            "cookies",
            "accept_cookies",
            "monkey",
            "turkey-key",
            "größeapikey",
        ] {
            assert!(!is_secret(other), "{other}");
        }
    }

    #[test]
    fn every_name_has_a_trigger_however_it_is_written() {
        let prefilter = Prefilter::new(TRIGGERS.iter().map(|trigger| (*trigger, 1)));
        assert_eq!(NAMES.iter().map(|name| name.len()).min(), Some(MIN_BYTES));
        assert_eq!(NAMES.iter().map(|name| name.len()).max(), Some(MAX_BYTES));
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
            "subscription_key",
            "SubscriptionKey",
            "security-token",
            "SecurityToken",
            "SECURITY_TOKEN",
            "webhookSecret",
        ] {
            assert!(is_secret(name), "{name}");
            assert_eq!(prefilter.scan(name.as_bytes()).rules, 1, "{name}");
        }
    }
}
