//! What a registry of tools is, and the wrapper that observes anybody's: `register` and `lookup` are
//! spans `tool.registry.{tool_id}`, counted and timed (requirement R4.1).

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use opentelemetry::trace::SpanContext;
use serde_json::Value;
use throughline_llm::ToolCall;
use throughline_trace::{ErrorType, SpanRole, keys};

use super::error::{RegistryError, ToolError};
use super::execute;
use super::tool::Tool;
use super::tool_id::{TOOL_ID_MAX_CHARS, ToolId};
use crate::agent_notes;
use crate::metrics::RegistryCall;
use crate::resilient::Fault as _;
use crate::span::{ActiveSpan, span};
use crate::step::cut;

/// Tools by id, wherever they are kept. [`ToolRegistry`](super::ToolRegistry) keeps them in this
/// process, [`HttpRegistry`](super::HttpRegistry) asks another.
pub trait Registry: Send + Sync {
    /// Adds a tool.
    ///
    /// # Errors
    /// [`RegistryError`]; the registry is unchanged then.
    fn register(&self, tool: Arc<dyn Tool>) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// The tool of an id (`web_search_v2`), or of a name alone its highest version; `None` when there
    /// is none.
    ///
    /// # Errors
    /// [`RegistryError`], when the registry did not answer.
    fn lookup<'a>(
        &'a self,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Tool>>, RegistryError>>;

    /// The ids of all tools, in order.
    ///
    /// # Errors
    /// [`RegistryError`], when the registry did not answer.
    fn list(&self) -> BoxFuture<'_, Result<Vec<ToolId>, RegistryError>>;

    /// Whether the registry makes the spans and metrics itself, so that a wrapper need not.
    fn is_observed(&self) -> bool {
        false
    }
}

impl<R: Registry + ?Sized> Registry for Arc<R> {
    fn register(&self, tool: Arc<dyn Tool>) -> BoxFuture<'_, Result<(), RegistryError>> {
        (**self).register(tool)
    }

    fn lookup<'a>(
        &'a self,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Tool>>, RegistryError>> {
        (**self).lookup(id)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ToolId>, RegistryError>> {
        (**self).list()
    }

    fn is_observed(&self) -> bool {
        (**self).is_observed()
    }
}

/// The newest version of a name among ids in order.
pub(super) fn newest<'a>(
    ids: impl DoubleEndedIterator<Item = &'a ToolId>,
    name: &str,
) -> Option<&'a ToolId> {
    ids.rev().find(|id| id.name() == name)
}

/// Any registry, with the spans and metrics of R4.1 around its requests, and otherwise unchanged.
///
/// ```
/// use std::sync::Arc;
/// use throughline::{Json, ObservedRegistry, Recorder, Registry, Telemetry, ToolRegistry, tool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Yours: anything that implements Registry.
/// let theirs: Arc<dyn Registry> = Arc::new(ToolRegistry::new());
/// let registry = ObservedRegistry::new(theirs);
/// registry.register(Arc::new(tool("ping_v1", "Answers", |_: ()| async { Json("pong") })?)).await?;
/// assert!(registry.lookup("ping").await?.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ObservedRegistry<R> {
    inner: R,
}

impl<R: Registry> ObservedRegistry<R> {
    /// Observes a registry.
    pub fn new(inner: R) -> Self {
        Self { inner }
    }

    /// The registry itself.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// Looks up and runs the tool that a model asked for. The span links to the model call that
    /// asked, where that is known.
    ///
    /// # Errors
    /// [`ToolError`], also on the span.
    pub async fn execute(&self, call: &ToolCall) -> Result<Value, ToolError> {
        self.execute_for(call, agent_notes::asked_by(&call.id).as_ref()).await
    }

    /// [`execute`](Self::execute), saying which span asked.
    ///
    /// # Errors
    /// [`ToolError`], also on the span.
    pub async fn execute_for(
        &self,
        call: &ToolCall,
        asked_by: Option<&SpanContext>,
    ) -> Result<Value, ToolError> {
        let Some(tool) = Registry::lookup(self, &call.name).await? else {
            let known = self.list().await.unwrap_or_default();
            let known = known.iter().map(ToString::to_string).collect();
            return Err(ToolError::Missing { id: call.name.clone(), known });
        };
        execute::execute(tool.as_ref(), call, asked_by).await
    }
}

impl<R: Registry> Registry for ObservedRegistry<R> {
    fn register(&self, tool: Arc<dyn Tool>) -> BoxFuture<'_, Result<(), RegistryError>> {
        if self.inner.is_observed() {
            return self.inner.register(tool);
        }
        Box::pin(async move {
            let request = Request::begin(tool.id().as_str(), "register");
            let result = request.span.instrument(async { self.inner.register(tool).await }).await;
            request.registered(&result);
            result
        })
    }

    fn lookup<'a>(
        &'a self,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Tool>>, RegistryError>> {
        if self.inner.is_observed() {
            return self.inner.lookup(id);
        }
        Box::pin(async move {
            let request = Request::begin(id, "lookup");
            let result = request.span.instrument(async { self.inner.lookup(id).await }).await;
            match &result {
                Ok(found) => request.looked_up(id, found.as_deref()),
                Err(error) => request.failed(error),
            }
            result
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ToolId>, RegistryError>> {
        self.inner.list()
    }

    fn is_observed(&self) -> bool {
        true
    }
}

impl<R> fmt::Debug for ObservedRegistry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservedRegistry").finish_non_exhaustive()
    }
}

/// One request to a registry: its span, and its place in the metrics, also when it is given up.
pub(super) struct Request {
    pub(super) span: ActiveSpan,
    method: &'static str,
    started: Instant,
    is_told: bool,
}

/// Name of the span of a request for what cannot be a tool's id: the model may have made up any
/// text, and a name that is a text of its own is of no use to anybody who counts spans.
const UNKNOWN: &str = "unknown";

/// Characters of what a registry was asked for that its errors tell.
const ASKED_SHOWN_CHARS: usize = 128;

/// Whether a text may be a tool's id, or its name alone.
fn is_well_formed(id: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=TOOL_ID_MAX_CHARS).contains(&id.len()) && id.chars().all(fits)
}

/// What a registry was asked for, as errors tell it.
pub(super) fn shown(id: &str) -> String {
    match cut(id, ASKED_SHOWN_CHARS) {
        whole if whole.len() == id.len() => format!("{id:?}"),
        beginning => format!("{:?}", format!("{beginning}…")),
    }
}

impl Request {
    pub(super) fn begin(id: &str, method: &'static str) -> Self {
        let named = if is_well_formed(id) { id } else { UNKNOWN };
        let span = span(format!("tool.registry.{named}"))
            .role(SpanRole::Registry)
            .attribute(keys::COMPONENT, "tool-registry")
            .attribute(keys::METHOD, method)
            .start();
        Self { span, method, started: Instant::now(), is_told: false }
    }

    pub(super) fn registered<T>(self, result: &Result<T, RegistryError>) {
        match result {
            Ok(_) => self.end("registered", None),
            Err(error) => self.failed(error),
        }
    }

    pub(super) fn looked_up(self, id: &str, found: Option<&dyn Tool>) {
        let Some(tool) = found else {
            let text = format!("no tool {} is registered", shown(id));
            return self.end("missing", Some((ErrorType::ToolMissing, text)));
        };
        if !is_well_formed(id) {
            // Somebody's registry knows other names than ours: the tool has an id all the same.
            self.span.rename(format!("tool.registry.{}", tool.id()));
        }
        self.end("found", None);
    }

    pub(super) fn failed(self, error: &RegistryError) {
        let result = match error {
            RegistryError::AlreadyRegistered(_) => "already_registered",
            RegistryError::Schema { .. } => "invalid",
            RegistryError::NotReachable { .. } => "not_reachable",
            RegistryError::Remote { .. } => "failed",
        };
        self.end(result, Some((error.error_type(), error.to_string())));
    }

    fn end(mut self, result: &'static str, failure: Option<(ErrorType, String)>) {
        self.tell(result, failure.is_none());
        if let Some((kind, message)) = failure {
            self.span.fail(kind, message);
        }
    }

    fn tell(&mut self, result: &'static str, is_success: bool) {
        self.is_told = true;
        let call = RegistryCall {
            method: self.method,
            result,
            is_success,
            duration: self.started.elapsed(),
        };
        self.span.in_scope(|| call.record());
        self.span.set(keys::RESULT, result);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.is_told {
            self.tell("cancelled", false);
        }
    }
}
