//! `store:` and `retention:` of the configuration file, and how ages and sizes are written.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// Units of an age, in seconds.
const AGE_UNITS: [(&str, u64); 4] =
    [("h", 3_600), ("d", 86_400), ("w", 604_800), ("y", 31_536_000)];

/// Units of a size, in bytes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// `store:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreConfig {
    /// Size at which the next segment begins.
    pub(crate) max_segment_bytes: Option<Size>,
    /// Where spans and what is known of traces are written too.
    pub(crate) clickhouse: Option<ClickHouseConfig>,
}

/// `store.clickhouse:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClickHouseConfig {
    /// Address of the HTTP interface.
    pub(crate) url: String,
    /// The database, which must be there; `default` when left out.
    pub(crate) database: Option<String>,
    /// The user; `default` when left out.
    pub(crate) user: Option<String>,
    /// File with the user's password.
    pub(crate) password_file: Option<PathBuf>,
    /// Most rows of a batch.
    pub(crate) batch_rows: Option<usize>,
    /// Size of stored bodies at which a batch is full.
    pub(crate) batch_bytes: Option<Size>,
    /// Time between two looks at what is new.
    pub(crate) flush_interval: Option<Time>,
    /// Days that rows are kept; for ever when left out.
    pub(crate) ttl_days: Option<u32>,
    /// The name of this server among those that write into the database; none when left out.
    pub(crate) server: Option<String>,
    /// Whether pages and API show traces of all servers from there.
    #[serde(default)]
    pub(crate) reads: bool,
    /// How long retention and sampling wait for it.
    #[serde(default)]
    pub(crate) hold: HoldConfig,
}

/// `store.clickhouse.hold:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HoldConfig {
    /// Longest wait beyond the time at which a segment should go; a day when left out.
    pub(crate) max_age: Option<Time>,
    /// Most bytes of segments that wait; 10 GiB when left out.
    pub(crate) max_bytes: Option<Size>,
}

/// `retention:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetentionConfig {
    /// How long a segment is kept after the end of its day; for ever when left out.
    pub(crate) max_age: Option<Age>,
    /// Most bytes of all segments; any number when left out.
    pub(crate) max_bytes: Option<Size>,
    /// Whether decisions that were derived from spans stay when those go; they go with them when left out.
    pub(crate) keep_derived: bool,
    /// How long rollups are kept, by their grain.
    pub(crate) rollups: RollupRetentionConfig,
}

/// `retention.rollups:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RollupRetentionConfig {
    /// How long those by the minute are kept; those by the day are for ever.
    pub(crate) minutes: Option<Age>,
    /// Those by five minutes.
    pub(crate) five_minutes: Option<Age>,
    /// Those by the hour.
    pub(crate) hours: Option<Age>,
}

/// An age: `36h`, `30d`, `6w`, `1y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Age(pub(crate) Duration);

/// Units of a short time, in milliseconds.
const TIME_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// A short time: `500ms`, `30s`, `10m`, `24h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Time(pub(crate) Duration);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let millis = number_with_unit(&text, &TIME_UNITS);
        millis
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or_else(|| format!("expected a time such as 500ms, 30s, 10m or 24h, got {text:?}"))
    }
}

/// A size: a number of bytes, or `100GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawSize")]
pub(crate) struct Size(pub(crate) u64);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a size such as 500MiB, 100GiB or a number of bytes of 0 or more"
)]
enum RawSize {
    Bytes(u64),
    Text(String),
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = number_with_unit(text, &AGE_UNITS).filter(|seconds| *seconds > 0);
        seconds.map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(|| {
            format!("expected an age such as 36h, 30d, 6w or 1y, got {text:?}; leave it out to keep everything")
        })
    }
}

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<RawSize> for Size {
    type Error = String;

    fn try_from(raw: RawSize) -> Result<Self, String> {
        match raw {
            RawSize::Bytes(bytes) => Ok(Self(bytes)),
            RawSize::Text(text) => {
                number_with_unit(&text, &SIZE_UNITS).map(Self).ok_or_else(|| {
                    format!(
                        "expected a size such as 500MiB, 100GiB or a number of bytes, got {text:?}"
                    )
                })
            }
        }
    }
}

/// `12 GiB`, `1.5d`: a number and one of the units, multiplied; `None` when it is not that.
fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim())?.1;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let product = number.parse::<f64>().ok()? * factor as f64;
    (product.is_finite() && product < 2_f64.powi(63)).then_some(product as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_are_read_as_they_are_written() {
        let age = |text: &str| text.parse::<Age>().map(|age| age.0.as_secs());
        assert_eq!(age("36h"), Ok(129_600));
        assert_eq!(age("30 d"), Ok(2_592_000));
        assert_eq!(age("1.5d"), Ok(129_600));
        for wrong in ["", "30", "d", "-1d", "0d", "30days", "1.2.3d", "99999999999999999999y"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
        let time = |text: &str| Time::try_from(text.to_owned()).map(|time| time.0.as_millis());
        assert_eq!((time("500ms"), time("1.5 s"), time("10m")), (Ok(500), Ok(1_500), Ok(600_000)));
        assert!(time("10").is_err() && time("1d").is_err() && time("").is_err());
        let size = |text: &str| Size::try_from(RawSize::Text(text.to_owned())).map(|size| size.0);
        assert_eq!(size("100GiB"), Ok(100 << 30));
        assert_eq!(size("1.5 MB"), Ok(1_500_000));
        assert_eq!(size("512B"), Ok(512));
        for wrong in ["", "100", "GiB", "1 gib", "9999999TiB9"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
