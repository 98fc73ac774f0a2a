//! One expression language for every rule: indicators, contracts, policies, sampling, gates, alerts.
//!
//! Rules are data in files, written in [CEL](https://github.com/google/cel-spec), the Common
//! Expression Language. A source is parsed, checked against a [`Schema`] of what may be spoken of,
//! lowered to a tree whose nodes do the comparisons of usual rules directly, and evaluated as often as
//! there are spans. Nothing here does IO, awaits, reads a clock or panics; what a rule may cost is
//! bounded by [`limits`].
//!
//! One invariant: the same expression gives the same answer for the same scope, wherever and whenever
//! it runs; the order in which operands are evaluated cannot be seen.
//!
//! ```
//! use throughline_rules::{Expression, Match, schemas};
//! use throughline_trace::{Span, SpanId, TraceId};
//!
//! let rule = Expression::filter(
//!     r#"span.service == "unknown_service" && span.duration_ms < 800.0"#,
//!     &schemas::span_schema(),
//! )?;
//! let trace_id: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse()?;
//! let span = Span::new(trace_id, SpanId::from_u64(1), None, "chat gpt-4o");
//! assert_eq!(rule.matches(&span), Match::Yes);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A source that is wrong tells where and what to do, all mistakes of meaning at once:
//!
//! ```
//! use throughline_rules::{Expression, schemas};
//!
//! let mistakes = Expression::filter(r#"span.rol == "llm_call""#, &schemas::span_schema())
//!     .expect_err("there is no such field");
//! assert_eq!(
//!     mistakes.to_string(),
//!     "1:6: expected a field of span, got rol\n\
//!      1 | span.rol == \"llm_call\"\n  \
//!        |      ^^^\n  \
//!        = hint: did you mean role?"
//! );
//! ```
//!
//! Contracts speak of JSON; where its shape is known, the checker uses it:
//!
//! ```
//! use throughline_rules::{Expression, Match, schemas::{Exchange, exchange_schema}};
//!
//! let contract = Expression::filter(
//!     r#"response.status == "ok" && size(response.items) > 0"#,
//!     &exchange_schema(None, None),
//! )?;
//! let (request, response) = (serde_json::json!({}), serde_json::json!({"status": "ok"}));
//! let verdict = contract.matches(&Exchange { request: &request, response: &response });
//! let Match::Error(error) = verdict else { panic!("items are missing, which is an error") };
//! assert_eq!(
//!     contract.explain(&error).message,
//!     "no such key: \"items\"; ask with has() or `in` first, or use .get(key, default)"
//! );
//! # Ok::<(), throughline_rules::Mistakes>(())
//! ```

pub mod limits;
pub mod rego;
pub mod schemas;

mod arithmetic;
mod ast;
mod collection;
mod compare;
mod compile;
mod error;
mod eval;
mod expression;
mod functions;
mod guards;
mod lex;
mod lookup;
mod mistake;
mod node;
mod parse;
mod schema;
mod time;
mod value;

pub use collection::{List, Map};
pub use error::{ErrorKind, EvalError, Limit};
pub use expression::{Expression, Match};
pub use functions::{FUNCTIONS, Function, Kind};
pub use guards::{Guard, Guarded};
pub use mistake::{At, Mistake, Mistakes, nearest};
pub use schema::{Field, RecordType, Schema, Scope, Type};
pub use time::{Duration, Timestamp};
pub use value::{Record, TypeName, Value};
