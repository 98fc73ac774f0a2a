//! The rules that have a name: what each looks for, and how it tells a find from its likeness.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;

use crate::prefilter::Trigger;
use crate::{card, email, phone, secret_names};

/// Longest private key that is looked for as a whole, bytes.
const MAX_PEM_BYTES: usize = 16 * 1024;

/// A rule that is built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Builtin {
    /// E-mail addresses.
    Email,
    /// Telephone numbers with a country code or in the groups in which people write them.
    Phone,
    /// Numbers of payment cards, by issuer, length and Luhn's check digit.
    Card,
    /// Keys of model providers and other services that can be told by their prefix.
    ApiKey,
    /// Tokens of GitHub.
    GithubToken,
    /// Access keys of AWS: their ids, and secrets beside their name.
    AwsKey,
    /// Tokens and webhook addresses of Slack.
    SlackToken,
    /// JSON Web Tokens.
    Jwt,
    /// Credentials behind `Bearer`, and behind `Basic` in an `Authorization` header.
    Bearer,
    /// Private keys in PEM.
    PrivateKey,
    /// Passwords in addresses (`postgres://user:password@host`).
    UrlPassword,
    /// Values under names such as `password`, `authorization`, `api_key`.
    SecretNames,
}

/// What a built-in rule is made of.
#[derive(Debug)]
pub(crate) struct Definition {
    /// Regular expressions; where one has a group `secret`, only that is taken out.
    pub(crate) patterns: &'static [&'static str],
    /// One of these is in every find.
    pub(crate) triggers: &'static [Trigger],
    /// Whether every find has an `@` behind it as well: addresses without one are many.
    pub(crate) needs_at: bool,
    /// Narrows or rejects what a pattern has found in a text.
    pub(crate) check: fn(&str, Range<usize>) -> Option<Range<usize>>,
    /// Where the search goes on behind a match that was rejected.
    pub(crate) resume: fn(&str, &Range<usize>) -> usize,
    /// Spellings that mean the same, to one: the hash is made of it.
    pub(crate) normal: fn(&str) -> Cow<'_, str>,
    /// Whether other things may look like it: ids and hashes are left alone.
    pub(crate) is_fuzzy: bool,
    /// Whether integers are looked at as well.
    pub(crate) takes_numbers: bool,
}

const DIGITS: &[u8] = b"0123456789";

const PLAIN: Definition = Definition {
    patterns: &[],
    triggers: &[],
    needs_at: false,
    check: |_, found| Some(found),
    resume: |_, rejected| rejected.end,
    normal: |text| Cow::Borrowed(text),
    is_fuzzy: false,
    takes_numbers: false,
};

impl Builtin {
    /// Those that are on unless the configuration says otherwise, in the order in which they win
    /// when two find the same.
    pub const SECRETS: [Self; 9] = [
        Self::PrivateKey,
        Self::ApiKey,
        Self::GithubToken,
        Self::AwsKey,
        Self::SlackToken,
        Self::Jwt,
        Self::Bearer,
        Self::UrlPassword,
        Self::SecretNames,
    ];

    /// The name, as configuration and masks have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Card => "card",
            Self::ApiKey => "api_key",
            Self::GithubToken => "github_token",
            Self::AwsKey => "aws_key",
            Self::SlackToken => "slack_token",
            Self::Jwt => "jwt",
            Self::Bearer => "bearer",
            Self::PrivateKey => "private_key",
            Self::UrlPassword => "url_password",
            Self::SecretNames => "secret_names",
        }
    }

    pub(crate) fn definition(self) -> Definition {
        match self {
            Self::Email => EMAIL,
            Self::Phone => PHONE,
            Self::Card => CARD,
            Self::ApiKey => API_KEY,
            Self::GithubToken => GITHUB_TOKEN,
            Self::AwsKey => AWS_KEY,
            Self::SlackToken => SLACK_TOKEN,
            Self::Jwt => JWT,
            Self::Bearer => BEARER,
            Self::PrivateKey => PRIVATE_KEY,
            Self::UrlPassword => URL_PASSWORD,
            Self::SecretNames => Definition { triggers: secret_names::TRIGGERS, ..PLAIN },
        }
    }
}

const EMAIL: Definition = Definition {
    patterns: &[email::PATTERN],
    triggers: &[Trigger::Text("@")],
    check: email::check,
    normal: |text| Cow::Owned(text.to_lowercase()),
    ..PLAIN
};

const PHONE: Definition = Definition {
    patterns: phone::PATTERNS,
    triggers: &[
        Trigger::Sets(&[b"+", b"123456789"]),
        Trigger::Sets(&[b"0", DIGITS, DIGITS, b"0123456789) /-.("]),
        Trigger::Sets(&[DIGITS, DIGITS, b" .-)", b"0123456789 "]),
    ],
    check: phone::check,
    resume: behind_first_group,
    normal: |text| {
        let plus = if text.starts_with('+') { "+" } else { "" };
        Cow::Owned(format!("{plus}{}", card::digits(text)))
    },
    is_fuzzy: true,
    ..PLAIN
};

const CARD: Definition = Definition {
    patterns: &[card::PATTERN],
    triggers: &[Trigger::Sets(&[DIGITS, DIGITS, DIGITS, b"0123456789"])],
    check: card::check,
    resume: behind_first_group,
    normal: |text| Cow::Owned(card::digits(text)),
    is_fuzzy: true,
    takes_numbers: true,
    ..PLAIN
};

/// The end of the first group of digits of a match: those behind it may be a number of their own, of
/// which the match had only the beginning. A group is passed at a time, so that a long row of them is
/// not looked at once for each digit.
fn behind_first_group(text: &str, rejected: &Range<usize>) -> usize {
    let rest = text.as_bytes().get(rejected.start..).unwrap_or_default();
    let digit = rest.iter().position(u8::is_ascii_digit).unwrap_or(rest.len());
    let group = rest[digit..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    rejected.start + digit + group
}

const API_KEY: Definition = Definition {
    patterns: &[
        r"(?-u:\b)sk-ant-[A-Za-z0-9_-]{16,}",
        r"(?-u:\b)sk-[A-Za-z0-9_-]{20,}",
        r"(?-u:\b)AIza[A-Za-z0-9_-]{35}",
        r"(?-u:\b)(?:ya29\.|GOCSPX-)[A-Za-z0-9_-]{20,}",
        r"(?-u:\b)(?:hf_|r8_|gsk_|xai-|pplx-|npm_|whsec_|dop_v1_)[A-Za-z0-9]{24,}",
        r"(?-u:\b)(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",
        r"(?-u:\b)(?:glpat-|pypi-|lsv2_[ps][tk]_)[A-Za-z0-9_-]{20,}",
        r"(?-u:\b)SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
        r"(?-u:\b)tl_[A-Za-z0-9_-]{32,}",
    ],
    triggers: &[
        Trigger::Text("sk-"),
        Trigger::Text("AIza"),
        Trigger::Text("ya29"),
        Trigger::Text("GOCS"),
        Trigger::Sets(&[b"hr", b"f8", b"_"]),
        Trigger::Text("gsk_"),
        Trigger::Text("xai-"),
        Trigger::Text("pplx"),
        Trigger::Text("npm_"),
        Trigger::Text("whse"),
        Trigger::Text("dop_"),
        Trigger::Sets(&[b"srp", b"k", b"_", b"lt"]),
        Trigger::Text("glpa"),
        Trigger::Text("pypi"),
        Trigger::Text("lsv2"),
        Trigger::Text("SG."),
        Trigger::Text("tl_"),
    ],
    check: check_api_key,
    ..PLAIN
};

/// Slugs begin like keys at times (`sk-learn-…`): a key has a digit and a long part without hyphen,
/// unless no slug begins like it.
fn check_api_key(text: &str, found: Range<usize>) -> Option<Range<usize>> {
    /// Characters of a key that are never broken by a hyphen.
    const UNBROKEN: usize = 16;
    /// Prefixes that only keys have. Hyphens stand in these keys at random, and a digit may not.
    const PECULIAR: [&str; 6] = ["sk-ant-", "AIza", "ya29.", "GOCSPX-", "glpat-", "SG."];
    let key = text.get(found.clone())?;
    if PECULIAR.iter().any(|prefix| key.starts_with(prefix)) {
        return Some(found);
    }
    let has_digit = key.bytes().skip(4).any(|byte| byte.is_ascii_digit());
    let is_unbroken = || key.split('-').any(|part| part.len() >= UNBROKEN);
    let is_part = text.get(..found.start)?.ends_with('-');
    (has_digit && !is_part && is_unbroken()).then_some(found)
}

const GITHUB_TOKEN: Definition = Definition {
    patterns: &[r"(?-u:\b)(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})"],
    triggers: &[Trigger::Sets(&[b"g", b"h", b"pousr", b"_"]), Trigger::Text("b_pa")],
    ..PLAIN
};

const AWS_KEY: Definition = Definition {
    patterns: &[
        r"(?-u:\b)(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?-u:\b)",
        r#"(?i)aws_?(?:secret_?)(?:access_?)?key[\\"']*[ \t]*[:=][ \t]*[\\"']*(?P<secret>[A-Za-z0-9/+]{40})(?:(?-u:\b)|[^A-Za-z0-9/+=]|$)"#,
    ],
    triggers: &[
        Trigger::Text("AKIA"),
        Trigger::Text("ASIA"),
        Trigger::Text("ABIA"),
        Trigger::Text("ACCA"),
        Trigger::AnyCase("awss"),
        Trigger::AnyCase("aws_"),
    ],
    ..PLAIN
};

const SLACK_TOKEN: Definition = Definition {
    patterns: &[
        r"(?-u:\b)(?:xox[a-z]-|xapp-[0-9]-)[A-Za-z0-9-]{10,}",
        r"hooks\.slack\.com/(?:services|workflows)/(?P<secret>[A-Za-z0-9/]{16,})",
    ],
    triggers: &[Trigger::Text("xox"), Trigger::Text("xapp"), Trigger::Text("hook")],
    ..PLAIN
};

const JWT: Definition = Definition {
    patterns: &[r"(?-u:\b)eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*"],
    triggers: &[Trigger::Text("eyJ")],
    ..PLAIN
};

const BEARER: Definition = Definition {
    patterns: &[
        r"(?i)(?-u:\b)bearer[ \t]+(?P<secret>[A-Za-z0-9._~+/-]{16,}=*)",
        r#"(?i)authorization[\\"']*[ \t]*[:=][ \t]*[\\"']*basic[ \t]+(?P<secret>[A-Za-z0-9+/_-]{6,}=*)"#,
    ],
    triggers: &[Trigger::AnyCase("bear"), Trigger::AnyCase("basi")],
    check: |text, found| {
        /// From here on, characters, words of a language are no longer to be expected.
        const LONG: usize = 32;
        let token = text.get(found.clone())?;
        let before = text.get(..found.start)?.trim_end_matches([' ', '\t']).as_bytes();
        let is_basic = before.ends_with(b"c") || before.ends_with(b"C");
        let has_digit = token.bytes().any(|byte| byte.is_ascii_digit());
        (is_basic || has_digit || token.len() >= LONG).then_some(found)
    },
    ..PLAIN
};

const PRIVATE_KEY: Definition = Definition {
    patterns: &[
        r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:[ \t\r\n]|\\[nr])*(?:[A-Za-z0-9+/=]+(?:[ \t\r\n]|\\[nr])*)*",
    ],
    triggers: &[Trigger::Text("-BEG")],
    check: whole_private_key,
    ..PLAIN
};

/// The key up to its end mark; without one, what looks like its content. An end mark behind the next
/// beginning is that one's: nothing is searched twice, however many beginnings there are.
fn whole_private_key(text: &str, found: Range<usize>) -> Option<Range<usize>> {
    const BEGIN: &str = "-----BEGIN ";
    let limit = text.floor_char_boundary((found.start + MAX_PEM_BYTES).min(text.len()));
    let rest = text.get(found.start..limit)?;
    let next = rest.get(BEGIN.len()..)?.find(BEGIN).map_or(rest.len(), |at| BEGIN.len() + at);
    let rest = &rest[..next];
    let end = rest.find("-----END ").and_then(|end| {
        let mark = end + "-----END ".len();
        rest[mark..].find("-----").filter(|length| *length < 40).map(|at| mark + at + 5)
    });
    match end {
        Some(end) => Some(found.start..found.start + end),
        None => Some(found),
    }
}

const URL_PASSWORD: Definition = Definition {
    patterns: &[
        r#"(?-u:\b)[A-Za-z][A-Za-z0-9+.-]*://[^ \t\r\n/:@"'<>]*:(?P<secret>[^ \t\r\n/@"'<>]+)@"#,
    ],
    triggers: &[Trigger::Text("://")],
    needs_at: true,
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_key_is_not_looked_for_behind_the_next_beginning() {
        let begin = ["-----BEGIN ", "PRIVATE KEY-----"].concat();
        let end = ["-----END ", "PRIVATE KEY-----"].concat();
        let text = format!("{begin}\nQUJD\n{begin}\nREVG\n{end}\n");
        let first = whole_private_key(&text, 0..begin.len());
        assert_eq!(first, Some(0..begin.len()));
        let second = begin.len() + "\nQUJD\n".len();
        let whole = whole_private_key(&text, second..second + begin.len());
        assert_eq!(whole, Some(second..text.len() - 1));
    }
}
