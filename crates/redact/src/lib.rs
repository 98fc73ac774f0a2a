//! Redaction: what must not reach the disk is taken out of a batch before anybody writes it.
//!
//! [`Redactor::redact`] is the one door: it looks at every text of a [`SpanBatch`] (names, status
//! messages, attributes of spans, events, links, resources and scopes, log bodies, decisions,
//! metric attributes) and answers a [`Redacted`] batch, which is all that is handed to the store. Rules
//! come from the configuration ([`RedactionConfig`]); [`Builtin`] lists those that have a name.
//!
//! One invariant: a text that was valid JSON stays valid JSON, and nothing but the find changes.
//!
//! ```
//! use prometheus_client::registry::Registry;
//! use throughline_redact::{RedactionConfig, Redactor};
//! use throughline_trace::{Span, SpanBatch, SpanId, TraceId};
//!
//! let redactor = Redactor::new(&RedactionConfig::default(), [7; 32], &mut Registry::default())?;
//! let mut span = Span::new(TraceId::from_u128(1), SpanId::from_u64(1), None, "chat gpt-4o");
//! span.attributes.set("tool.input", r#"{"key": "sk-proj-Zm9vYmFyYmF6cXV4MDEyMzQ1"}"#);
//! let batch = redactor.redact(SpanBatch { spans: vec![span], ..SpanBatch::default() });
//! let span = &batch.batch().spans[0];
//! assert_eq!(span.attributes.str("tool.input"), Some(r#"{"key": "[api_key]"}"#));
//! # Ok::<(), throughline_redact::RedactionError>(())
//! ```
//!
//! [`SpanBatch`]: throughline_trace::SpanBatch

mod builtin;
mod card;
mod config;
mod email;
mod examine;
mod fields;
mod glob;
mod json;
mod path;
mod pattern;
mod phone;
mod prefilter;
mod redactor;
mod rules;
mod secret_names;
mod sources;
mod trail;

pub use builtin::Builtin;
pub use config::{Action, Detector, RedactionConfig, RuleConfig, Secrets};
pub use glob::Glob;
pub use path::JsonPath;
pub use pattern::Pattern;
pub use redactor::{Redacted, Redactor};
pub use rules::{MAX_RULES, MIN_HASH_KEY_BYTES, RedactionError, check, hash_key};
