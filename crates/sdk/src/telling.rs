//! How a model call is told: the texts, attributes and counts that [`Traced`](crate::Traced) puts on
//! spans, and what it reads from the answers of providers. For whoever speaks to providers and makes
//! the records itself, as a gateway does, so that the same thing is told alike.
//!
//! ```
//! use http::{HeaderMap, HeaderValue};
//! use throughline::telling;
//!
//! let mut headers = HeaderMap::new();
//! headers.insert("retry-after", HeaderValue::from_static("2"));
//! assert_eq!(telling::pause(&headers), Some(std::time::Duration::from_secs(2)));
//! ```

pub use crate::call_attributes::{request_attributes, service_tier};
pub use crate::content::{
    Kept, input_attributes, input_messages, output_attributes, output_messages, tool_definitions,
};
pub use crate::http_client::{Roots, tls};
pub use crate::json_schema::{JsonSchema, Quote};
pub use crate::providers::errors::{quoted, refusal_type, status_text, told_type};
pub use crate::providers::limits::{CACHE_HEADER, pause, rate_limits};
pub use crate::providers::provider_of_host;
pub use crate::resilient::{spoken, tries};
pub use crate::stream::any::{is_failed_state, text_bytes};
pub use crate::token_count::{CountedUsage, Prompt, load_tokenizer};
