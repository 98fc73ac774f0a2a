//! Forms of texts in answers, for their schemas: ids, moments, numbers that JavaScript cannot hold.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Number;
use throughline_trace::{FallbackState, TRACE_ID_PATTERN};

/// A whole number. Also one that is written with a fraction of nothing (`5.0`): to JSON Schema it is
/// the same integer.
pub(super) fn whole(number: &Number) -> Option<u64> {
    /// Up to here doubles tell all whole numbers apart.
    const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
    let of_float = |float: f64| {
        (float.fract() == 0.0 && (0.0..=MAX_EXACT).contains(&float)).then_some(float as u64)
    };
    number.as_u64().or_else(|| number.as_f64().and_then(of_float))
}

/// A type that stands for a form of text; the fields that have it name it with `schemars(with = …)`.
macro_rules! form {
    ($(#[doc = $doc:literal] $name:ident: $schema:expr;)+) => { $(
        #[doc = $doc]
        pub(crate) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema: Schema = $schema;
                schema.insert("description".to_owned(), $doc.trim().into());
                schema
            }
        }
    )+ };
}

form! {
    /// A trace id: 32 hexadecimal characters.
    TraceIdText: json_schema!({ "type": "string", "pattern": "^[0-9a-f]{32}$" });
    /// A trace id as it may be given: 32 hexadecimal characters, not all zeros.
    TraceIdGiven: json_schema!({ "type": "string", "pattern": TRACE_ID_PATTERN });
    /// A span id: 16 hexadecimal characters.
    SpanIdText: json_schema!({ "type": "string", "pattern": "^[0-9a-f]{16}$" });
    /// A decision id.
    DecisionIdText: json_schema!({ "type": "string", "format": "uuid" });
    /// RFC 3339 in UTC with nanoseconds.
    Moment: json_schema!({ "type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$" });
    /// Nanoseconds since the Unix epoch, as text: they do not fit the numbers of JavaScript.
    UnixNanos: json_schema!({ "type": "string", "pattern": r"^\d{1,20}$" });
    /// BLAKE3, 64 hexadecimal characters.
    Hash: json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$" });
    /// Any JSON value.
    AnyJson: json_schema!({});
    /// An object with values of any kind.
    AnyObject: json_schema!({ "type": "object" });
    /// How far fallbacks went.
    FallbackText: json_schema!({ "type": "string", "enum": FallbackState::ALL.map(FallbackState::as_str) });
    /// `gauge`, `summary`, `cumulative_histogram`, `delta_histogram`, or `{"cumulative_sum": {"monotonic": true}}` and its like.
    MetricKindJson: json_schema!({ "type": ["string", "object"] });
    /// A number, null, or a distribution: `count`, `sum`, `min`, `max`, `bounds`, `bucket_counts`, or `quantiles`.
    MetricValueJson: json_schema!({ "type": ["number", "null", "object"] });
}
