//! What a request says about itself, for header-based routing.

use std::sync::Arc;

use http::HeaderMap;
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::{Context, ContextGuard};

use crate::instrument::InContext;

/// Most hints that are kept of one request: it decides how many it sends.
const MAX_HINTS: usize = 64;

/// Headers and attributes of the request that an agent works for, as rules of a
/// [`Router`](crate::Router) read them. They stay in this process.
///
/// ```
/// use throughline::RouteHints;
///
/// let _guard = RouteHints::new().with("x-tier", "gold").enter();
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteHints(Arc<Vec<(String, String)>>);

impl RouteHints {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// The headers of a request whose values are visible ASCII, credentials and cookies left out;
    /// the first 64.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let hint = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            let is_secret = matches!(name.as_str(), "authorization" | "cookie" | "x-api-key")
                || value.is_sensitive();
            let value = value.to_str().ok().filter(|_| !is_secret)?;
            Some((name.as_str().to_owned(), value.to_owned()))
        };
        Self(Arc::new(headers.iter().filter_map(hint).take(MAX_HINTS).collect()))
    }

    /// Adds one.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).push((name.into(), value.into()));
        self
    }

    /// Makes these hints current on this thread until the guard is dropped.
    pub fn enter(&self) -> ContextGuard {
        Context::current().with_value(self.clone()).attach()
    }

    /// The future (or stream) with these hints, wherever it is polled.
    pub fn scope<F>(&self, inner: F) -> InContext<F> {
        InContext::new(Context::current().with_value(self.clone()), inner)
    }

    /// The value of a name in the current context: a hint, else a baggage entry.
    pub(super) fn read(name: &str) -> Option<String> {
        Context::map_current(|cx| {
            let hints = cx.get::<Self>();
            let hint = hints.and_then(|hints| {
                let mut all = hints.0.iter();
                all.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
            });
            hint.or_else(|| cx.baggage().get(name).map(|value| value.as_str().to_owned()))
        })
    }
}
