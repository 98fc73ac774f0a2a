//! Query parameters: read one by one, so that a mistake is answered with the parameter's name.

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use throughline_api::cursor::{MAX_LIMIT, expected_limit};
use throughline_store::parse_moment;
use throughline_trace::TraceId;

use crate::failure::Failure;

/// Items on a page when `limit` is not given.
pub(crate) const DEFAULT_LIMIT: usize = 50;

/// Longest duration that is asked for, milliseconds: 31,000 years.
pub(crate) const MAX_DURATION_MS: f64 = 1e15;

/// The query of a request. Empty values count as absent: forms send them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let pairs = pairs(&parts.uri)?;
        Ok(Self(pairs.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect()))
    }
}

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Failure> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| Failure::parameter("query", "name=value pairs", &error.to_string()))?;
    Ok(pairs)
}

impl Params {
    /// Holds a query against what an operation of the API takes. Programs write it, so that what a
    /// form may send (empty values) is a mistake here, and so is what would not be read.
    pub(crate) fn check(uri: &Uri, known: &[&str]) -> Result<(), Failure> {
        let query = uri.query().unwrap_or_default();
        if !is_well_encoded(query) {
            return Err(Failure::parameter("query", "percent-encoded UTF-8", query));
        }
        let params = Self(pairs(uri)?);
        params.expect_only(&[known])?;
        for (at, (name, value)) in params.0.iter().enumerate() {
            if value.trim().is_empty() {
                return Err(Failure::parameter(name, "a value (leave it out for none)", value));
            }
            if params.0[..at].iter().any(|(before, _)| before == name) {
                return Err(Failure::parameter(name, "one value", &format!("a second: {value}")));
            }
        }
        Ok(())
    }

    /// The parameters of a query string.
    #[cfg(test)]
    pub(crate) fn of_query(query: &str) -> Self {
        let uri: Uri = format!("/x?{query}").parse().unwrap_or_default();
        Self(pairs(&uri).unwrap_or_default())
    }

    /// The text of a parameter, trimmed.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim())
    }

    /// The text, owned, as filters want it.
    pub(crate) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// Refuses names that are not in `known`: a misspelt filter must not answer everything.
    pub(crate) fn expect_only(&self, known: &[&[&str]]) -> Result<(), Failure> {
        for (name, value) in &self.0 {
            if !known.iter().any(|names| names.contains(&name.as_str())) {
                let mut all: Vec<&str> = known.concat();
                all.sort_unstable();
                let expected = format!("one of the known names ({})", all.join(", "));
                return Err(Failure::parameter(name, &expected, value));
            }
        }
        Ok(())
    }

    /// A parameter read by `parse`; `None` from it means that the text is not what was expected.
    pub(crate) fn read<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        match self.text(name) {
            None => Ok(None),
            Some(text) => match parse(text) {
                Some(value) => Ok(Some(value)),
                None => Err(Failure::parameter(name, expected, text)),
            },
        }
    }

    /// `true` or `false`.
    pub(crate) fn truth(&self, name: &str) -> Result<Option<bool>, Failure> {
        self.read(name, "true or false", |text| match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    }

    /// A duration: `250ms`, `1.5s`, `2m`, or a number of milliseconds.
    pub(crate) fn duration_ms(&self, name: &str) -> Result<Option<u64>, Failure> {
        self.read(name, "a duration such as 250ms, 1.5s or 2m", parse_duration_ms)
    }

    /// A moment: back from now (`15m`, `24h`, `7d`), RFC 3339, or nanoseconds since the Unix epoch.
    pub(crate) fn moment(&self, name: &str, now_unix_nano: u64) -> Result<Option<u64>, Failure> {
        self.read(
            name,
            "a time such as 15m, 24h, 7d, 2026-01-31T12:00:00Z or Unix nanoseconds",
            |text| parse_moment(text, now_unix_nano),
        )
    }

    /// A share, 0 to 1.
    pub(crate) fn share(&self, name: &str) -> Result<Option<f64>, Failure> {
        self.read(name, "a number from 0 to 1", |text| {
            text.parse().ok().filter(|share: &f64| (0.0..=1.0).contains(share))
        })
    }

    /// A trace id.
    pub(crate) fn trace_id(&self, name: &str) -> Result<Option<TraceId>, Failure> {
        self.read(name, "a trace id of 32 hexadecimal characters", |text| text.parse().ok())
    }

    /// How many items a page may have.
    pub(crate) fn limit(&self) -> Result<usize, Failure> {
        let expected = expected_limit();
        let limit = self.read("limit", &expected, |text| {
            whole(text).filter(|limit| (1..=MAX_LIMIT).contains(limit))
        })?;
        Ok(limit.unwrap_or(DEFAULT_LIMIT))
    }

    /// The query string with `name` set to `value` (or taken out), other parameters as they are.
    pub(crate) fn with(&self, name: &str, value: Option<&str>) -> String {
        let kept = self.0.iter().filter(|(key, _)| key != name);
        let pairs = kept.map(|(key, value)| (key.as_str(), value.as_str()));
        query_string(pairs.chain(value.map(|value| (name, value))))
    }

    /// The same question, from its first page on.
    pub(crate) fn first_page(&self) -> Self {
        Self(self.0.iter().filter(|(name, _)| name != "cursor").cloned().collect())
    }

    /// The question in words, for the log of reads: the path and the parameters, but not which page.
    pub(crate) fn question(&self, path: &str) -> String {
        let mut pairs: Vec<String> = self
            .0
            .iter()
            .filter(|(name, _)| name != "cursor")
            .map(|(name, value)| format!(" {name}={}", value.trim()))
            .collect();
        pairs.sort_unstable();
        format!("{path}{}", pairs.concat())
    }

    /// The parameters among `names`, in the order of `names`.
    pub(crate) fn chosen<'a>(
        &'a self,
        names: &'a [&'a str],
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        names.iter().filter_map(|name| self.text(name).map(|value| (*name, value)))
    }
}

/// Whether every `%` begins an encoded byte and the bytes are UTF-8 together.
fn is_well_encoded(query: &str) -> bool {
    let mut bytes = Vec::with_capacity(query.len());
    let mut rest = query.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return false;
        };
        bytes.push((high << 4 | low) as u8);
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// `?a=b&c=d`, percent-encoded, or nothing when there are no pairs.
pub(crate) fn query_string<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(&encode(name));
        text.push('=');
        text.push_str(&encode(value));
    }
    text
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte as char);
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// A whole number, without a sign.
fn whole(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn parse_duration_ms(text: &str) -> Option<u64> {
    let (number, unit_ms) = split_unit(text, &[("ms", 1.0), ("s", 1e3), ("m", 6e4), ("h", 3.6e6)])
        .unwrap_or((text, 1.0));
    let ms = number.parse::<f64>().ok()? * unit_ms;
    (0.0..=MAX_DURATION_MS).contains(&ms).then_some(ms as u64)
}

fn split_unit<'a>(text: &'a str, units: &[(&str, f64)]) -> Option<(&'a str, f64)> {
    units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::NANOS_PER_SEC;

    fn params(query: &str) -> Params {
        Params::of_query(query)
    }

    #[test]
    fn another_time_is_asked_for_from_its_first_page_on() {
        let link = params("since=24h&cursor=c40&sort=count").first_page().with("since", Some("7d"));
        assert!(!link.contains("cursor"), "{link}");
        assert!(link.contains("sort=count") && link.contains("since=7d"), "{link}");
    }

    #[test]
    fn programs_are_told_what_forms_are_not() {
        let check = |query: &str| {
            let uri: Uri = format!("/x?{query}").parse().unwrap();
            Params::check(&uri, &["agent", "limit"]).map_err(|refused| refused.message)
        };
        assert_eq!(check("agent=x&limit=5"), Ok(()));
        assert_eq!(check(""), Ok(()));
        let mut told = String::new();
        for query in
            ["agent=", "agent=%20", "agent", "agent=a&agent=b", "agent=%FF", "a=%4", "b=%zz", "x=1"]
        {
            told.push_str(&format!("{query}: {}\n", check(query).unwrap_err()));
        }
        insta::assert_snapshot!(told, @r#"
        agent=: parameter `agent`: expected a value (leave it out for none), got ""
        agent=%20: parameter `agent`: expected a value (leave it out for none), got " "
        agent: parameter `agent`: expected a value (leave it out for none), got ""
        agent=a&agent=b: parameter `agent`: expected one value, got "a second: b"
        agent=%FF: parameter `query`: expected percent-encoded UTF-8, got "agent=%FF"
        a=%4: parameter `query`: expected percent-encoded UTF-8, got "a=%4"
        b=%zz: parameter `query`: expected percent-encoded UTF-8, got "b=%zz"
        x=1: parameter `x`: expected one of the known names (agent, limit), got "1"
        "#);
    }

    #[test]
    fn durations_and_moments_are_read_in_their_units() {
        for (text, ms) in [("250", 250), ("250ms", 250), ("1.5s", 1_500), ("2m", 120_000)] {
            assert_eq!(parse_duration_ms(text), Some(ms), "{text}");
        }
        assert_eq!(parse_duration_ms("-1s"), None);
        assert_eq!(parse_duration_ms("soon"), None);
        let now = 1_700_000_000 * NANOS_PER_SEC;
        assert_eq!(parse_moment("15m", now), Some(now - 900 * NANOS_PER_SEC));
        assert_eq!(parse_moment("1970-01-01T00:00:01Z", now), Some(NANOS_PER_SEC));
        assert_eq!(parse_moment("1700000000000000000", now), Some(now));
        assert_eq!(parse_moment("1969-01-01T00:00:01Z", now), None);
        assert_eq!(parse_moment("yesterday", now), None);
    }

    #[test]
    fn a_mistake_names_the_parameter() {
        let refused = params("error=maybe").truth("error").unwrap_err();
        assert_eq!(refused.message, "parameter `error`: expected true or false, got \"maybe\"");
        let refused = params("agnet=x").expect_only(&[&["agent"], &["limit"]]).unwrap_err();
        assert_eq!(
            refused.message,
            "parameter `agnet`: expected one of the known names (agent, limit), got \"x\""
        );
        assert!(params("limit=0").limit().is_err());
        assert!(params("limit=501").limit().is_err());
    }

    proptest::proptest! {
        /// What a link says is what the next request reads, whatever the characters.
        #[test]
        fn links_keep_values(value in "\\PC{1,40}") {
            proptest::prop_assume!(!value.trim().is_empty());
            let read = params(query_string([("agent", value.as_str())]).trim_start_matches('?'));
            proptest::prop_assert_eq!(read.text("agent"), Some(value.trim()));
        }

        /// No text makes the readers panic.
        #[test]
        fn readers_are_total(text in "\\PC{0,20}") {
            let _ = parse_duration_ms(&text);
            let _ = parse_moment(&text, 5);
        }
    }
}
