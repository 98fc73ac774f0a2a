//! The web interface: pages for people, a JSON API for programs, live events for both.
//!
//! Pages are rendered on the server (maud) and completed by a little script (htmx and two files of
//! our own); everything they load is built into the binary. One file of [`pages`](self) is one
//! page, with its drawing as pure functions from data to markup, so that tests need no server. The
//! JSON API under `/api/v1` answers the same questions from the same filters.
//!
//! One invariant: a route needs a key with the scope `read`, or another that one list in `doors`
//! names, unless it stands in [`OPEN_ROUTES`]; a test walks the whole table of [`route_paths`].
//!
//! ```
//! use std::sync::Arc;
//! use prometheus_client::registry::Registry;
//! use throughline_store::{AuditKeys, AuditLog, Governance, ReadLog, Store, StoreOptions};
//! use throughline_trace::access::Keyring;
//! use throughline_web::governance::View;
//! use throughline_web::{WebState, router};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # let _inside = runtime.enter();
//! let dir = tempfile::tempdir()?;
//! let mut registry = Registry::default();
//! let store = Store::open(StoreOptions::new(dir.path()), &mut registry)?;
//! let audit = AuditLog::new(dir.path(), AuditKeys::default());
//! let reads = ReadLog::start(audit.clone(), 365, &mut registry)?;
//! let inbox = store.inbox();
//! let (_readiness, ready) = tokio::sync::watch::channel(true);
//! let app: axum::Router = router(WebState {
//!     reader: store.reader(),
//!     audit,
//!     reads,
//!     submit: Arc::new(move |batch| {
//!         let inbox = inbox.clone();
//!         Box::pin(async move { inbox.commit(batch).await })
//!     }),
//!     governance: View::idle(Governance::open(dir.path())?),
//!     gateway: Arc::new(Default::default),
//!     committed: store.committed_sender(),
//!     keyring: Arc::new(Keyring::open()),
//!     cookie_secret: store.control().secret("web-cookies")?,
//!     registry: Arc::new(registry),
//!     ready,
//!     is_tls: false,
//!     version: "0.1.0".to_owned(),
//!     allowed_hosts: throughline_web::loopback_hosts(),
//!     otlp_http_url: "http://127.0.0.1:4318".to_owned(),
//!     otlp_grpc_url: "http://127.0.0.1:4317".to_owned(),
//! });
//! # let _ = app;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod api;
mod assets;
mod contracts;
mod doors;
mod failure;
mod filters;
mod form;
mod format;
pub mod governance;
mod health;
mod icons;
mod kept;
mod layout;
mod live;
mod pages;
mod params;
mod problems;
mod reads;
mod routes;
mod session;
mod sql;
mod state;

pub use api::audit::audit_status_json;
pub use api::beside::Beside;
pub use api::continuity::continuity_json;
pub use api::{decision_json, segment_json, summary_json, trace_json};
pub use doors::OPEN_ROUTES;
pub use routes::{route_paths, router, router_with};
pub use sql::{sql_csv, sql_json, value_json as sql_value_json, value_text as sql_value_text};
pub use state::{AsksGateway, Submit, WebState, loopback_hosts};
