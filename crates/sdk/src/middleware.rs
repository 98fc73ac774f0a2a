//! Middleware that puts the requests of a server or a client on the trace: layers for `tower`, which
//! axum, hyper and tonic servers take as they are, and hyper, tonic and reqwest clients too.
//!
//! ```
//! use throughline::middleware::{SendTraced as _, TraceClientLayer, TraceServerLayer};
//! use tower_layer::Layer as _;
//!
//! # fn app<S>(service: S) {
//! let server = TraceServerLayer::new().layer(service); // or `axum::Router::layer`
//! # }
//! # async fn ask() -> reqwest::Result<()> {
//! let client = reqwest::Client::new();
//! let page = client.get("https://example.com/stock").send_traced().await?;
//! let service = TraceClientLayer::new().layer(client); // where a tower service is wanted
//! # drop((page, service)); Ok(()) }
//! ```
//!
//! Requests to model providers are recognised by their path and body, in OpenAI's forms (chat
//! completions, responses, completions, embeddings) and Anthropic's (messages): their span is that
//! of the call, `chat {model}`, with usage, cost, finish reasons, time to the first chunk and, if
//! content is recorded, prompt and answer. The answer passes unchanged and undelayed, streams too.
//! So an agent on another client is traced without a [`ChatModel`](crate::ChatModel).
//!
//! A span covers the answer's body too: it ends when the body has ended, and with outcome
//! `cancelled` when the request or the body is dropped before that.

mod answer;
mod client;
pub(crate) mod exchange;
mod model_answer;
mod model_events;
mod model_form;
pub(crate) mod naming;
mod reqwest_client;
mod server;

pub use answer::{TracedAnswer, TracedBody};
pub use client::{TraceClient, TraceClientLayer, UrlTemplate};
pub use reqwest_client::{ReqwestAnswer, SendTraced};
pub use server::{TraceServer, TraceServerLayer};
