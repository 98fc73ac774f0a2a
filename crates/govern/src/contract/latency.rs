//! The one comparison `response.latency_ms < N` of an expectation, and rounded limits above it: what a
//! provider that is too slow can promise instead.

/// The field that is compared.
const FIELD: &str = "response.latency_ms";

/// Other limits that are tried at most; each is counted by the store while a proposal is open.
pub const MAX_LIMITS: usize = 12;

/// The largest limit that is offered, milliseconds: an hour.
const MAX_LIMIT_MS: f64 = 3_600_000.0;

/// Rounded numbers within a power of ten.
const ROUNDED: [f64; 10] = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0];

/// An expectation that bounds the latency once.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LatencyBound<'a> {
    source: &'a str,
    /// Where the number stands, bytes.
    begin: usize,
    end: usize,
    /// The bound, milliseconds.
    pub(super) limit_ms: f64,
}

impl<'a> LatencyBound<'a> {
    /// The bound of an expectation; `None` when it has none, several, or one that is no plain number.
    pub(super) fn find(source: &'a str) -> Option<Self> {
        let mut found = None;
        let mut at = 0;
        while at < source.len() {
            let rest = &source[at..];
            if let Some(length) = skipped(rest) {
                at += length;
                continue;
            }
            let is_word = source[..at]
                .chars()
                .next_back()
                .is_some_and(|before| before.is_alphanumeric() || matches!(before, '_' | '.'));
            if !is_word && rest.starts_with(FIELD) {
                let bound = Self::behind(source, at + FIELD.len())?;
                // Of two, nobody knows which is meant.
                if found.is_some() {
                    return None;
                }
                at = bound.end;
                found = Some(bound);
                continue;
            }
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
        found
    }

    /// The comparison that stands behind the field.
    fn behind(source: &'a str, at: usize) -> Option<Self> {
        let rest = source[at..].trim_start();
        let rest = rest.strip_prefix("<=").or_else(|| rest.strip_prefix('<'))?.trim_start();
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let behind = rest[length..].trim_start();
        let is_end =
            behind.is_empty() || ["&&", "||", ")", "//"].iter().any(|end| behind.starts_with(end));
        let limit_ms: f64 = rest[..length].parse().ok()?;
        let begin = source.len() - rest.len();
        let is_plain = is_end && limit_ms.is_finite() && limit_ms > 0.0;
        is_plain.then_some(Self { source, begin, end: begin + length, limit_ms })
    }

    /// The expectation with another limit.
    pub(super) fn with(&self, limit_ms: f64) -> String {
        let number = match self.source[self.begin..self.end].contains('.') {
            true => format!("{limit_ms:.1}"),
            false => format!("{limit_ms:.0}"),
        };
        format!("{}{number}{}", &self.source[..self.begin], &self.source[self.end..])
    }

    /// Rounded limits above it, milliseconds, the smallest first.
    pub(super) fn above(&self) -> Vec<f64> {
        let least = self.limit_ms.max(1.0);
        let mut power = 10_f64.powf(least.log10().floor());
        let mut found = Vec::new();
        while found.len() < MAX_LIMITS && power <= MAX_LIMIT_MS {
            for of in ROUNDED {
                // Tenths of a millisecond are nobody's promise.
                let limit = (of * power).round();
                let is_new = limit > self.limit_ms && found.last().is_none_or(|last| *last < limit);
                if is_new && limit <= MAX_LIMIT_MS && found.len() < MAX_LIMITS {
                    found.push(limit);
                }
            }
            power *= 10.0;
        }
        found
    }
}

/// The length of the text or comment that begins here.
fn skipped(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    let quote = ["'''", "\"\"\"", "'", "\""].into_iter().find(|quote| rest.starts_with(quote))?;
    let mut at = quote.len();
    while at < rest.len() {
        if rest[at..].starts_with(quote) {
            return Some(at + quote.len());
        }
        let next = rest[at..].chars().next()?;
        at += next.len_utf8();
        if next == '\\' {
            at += rest[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    Some(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(source: &str) -> Option<f64> {
        LatencyBound::find(source).map(|bound| bound.limit_ms)
    }

    #[test]
    fn a_plain_bound_is_found_and_nothing_else() {
        assert_eq!(limit("response.latency_ms < 150 && response.level == 'strong'"), Some(150.0));
        assert_eq!(limit("(response.latency_ms<=1.5)"), Some(1.5));
        assert_eq!(limit("response.latency_ms < 150 // in time"), Some(150.0));
        for none in [
            "response.latency_ms > 150",
            "response.latency_ms < 150 * 2",
            "response.latency_ms < 150 || response.latency_ms < 20",
            "my_response.latency_ms < 150",
            "a.response.latency_ms < 150",
            "response.x == 'response.latency_ms < 150'",
            "true // response.latency_ms < 150",
            "response.latency_ms < 0",
            "response.latency_ms <",
            "",
        ] {
            assert_eq!(limit(none), None, "{none}");
        }
        let both = "response.x == 'it\\'s response.latency_ms < 1' && response.latency_ms < 150";
        assert_eq!(limit(both), Some(150.0));
    }

    #[test]
    fn limits_above_are_round_and_stand_where_the_old_one_stood() {
        let bound = LatencyBound::find("response.latency_ms < 150 && true").expect("a bound");
        assert_eq!(
            bound.above(),
            [200., 250., 300., 400., 500., 600., 800., 1000., 1200., 1500., 2000., 2500.]
        );
        assert_eq!(bound.with(250.0), "response.latency_ms < 250 && true");
        let point = LatencyBound::find("response.latency_ms < 0.5").expect("a bound");
        assert_eq!(
            (point.above()[0], point.with(1.0).as_str()),
            (1.0, "response.latency_ms < 1.0")
        );
    }

    proptest! {
        #[test]
        fn whatever_is_written_nothing_breaks(source in "(response.latency_ms|[<=' \"\\\\/.&0-9é\n]){0,12}") {
            if let Some(bound) = LatencyBound::find(&source) {
                let above = bound.above();
                prop_assert!(above.len() <= MAX_LIMITS);
                prop_assert!(above.windows(2).all(|pair| pair[0] < pair[1]));
                for limit_ms in above {
                    prop_assert!(limit_ms > bound.limit_ms);
                    let other = bound.with(limit_ms);
                    prop_assert_eq!(LatencyBound::find(&other).map(|one| one.limit_ms), Some(limit_ms));
                }
            }
        }
    }
}
