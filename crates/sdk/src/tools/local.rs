//! The registry in this process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use futures_util::future::{BoxFuture, ready};
use opentelemetry::trace::SpanContext;
use serde_json::Value;
use throughline_llm::ToolCall;

use super::checked::CheckedTool;
use super::error::{RegistryError, ToolError};
use super::execute;
use super::registry::{Registry, Request, newest};
use super::tool::Tool;
use super::tool_id::ToolId;
use crate::agent_notes;

/// Who put a tool into a registry: a connection that takes its own out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin(u64);

#[cfg(feature = "mcp")]
impl Origin {
    /// One that nobody has.
    pub(super) fn next() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// A tool that is registered.
struct Kept {
    tool: Arc<dyn Tool>,
    #[cfg_attr(not(feature = "mcp"), expect(dead_code, reason = "connections ask for it"))]
    came: Option<Came>,
}

/// Which connection a tool came from, and what tells its description from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Came {
    origin: Origin,
    fingerprint: blake3::Hash,
}

/// What became of a tool that a connection brings.
#[cfg(feature = "mcp")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// There was none of its id.
    New,
    /// It was described otherwise before.
    Changed,
    /// It is there as it is.
    AsItWas,
}

/// Tools by id, with their schemas compiled. Clones share them. Every request is observed as
/// [`ObservedRegistry`](super::ObservedRegistry) does it.
#[derive(Clone, Default)]
pub struct ToolRegistry {
    tools: Arc<RwLock<BTreeMap<ToolId, Kept>>>,
}

impl ToolRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool.
    ///
    /// # Errors
    /// [`RegistryError::AlreadyRegistered`] when there is one of that id, [`RegistryError::Schema`]
    /// when a schema of the tool is none; the registry is unchanged then.
    pub fn register(&self, tool: impl Tool + 'static) -> Result<(), RegistryError> {
        self.add(Arc::new(tool))
    }

    /// Has a tool of a connection as it is described now: adds it, or replaces the one that the same
    /// connection brought before.
    ///
    /// # Errors
    /// As [`register`](Self::register): somebody else has registered one of that id, or a schema is
    /// none.
    #[cfg(feature = "mcp")]
    pub(super) fn take_from(
        &self,
        origin: Origin,
        fingerprint: blake3::Hash,
        tool: impl Tool + 'static,
    ) -> Result<Taken, RegistryError> {
        let came = Came { origin, fingerprint };
        if self.kept().get(tool.id()).is_some_and(|kept| kept.came == Some(came)) {
            return Ok(Taken::AsItWas);
        }
        let request = Request::begin(tool.id().as_str(), "register");
        let result = request.span.in_scope(|| {
            let id = tool.id().clone();
            let tool = Arc::new(CheckedTool::new(Arc::new(tool))?);
            let mut tools = self.tools.write().unwrap_or_else(PoisonError::into_inner);
            let taken = match tools.get(&id).map(|kept| kept.came) {
                None => Taken::New,
                Some(Some(before)) if before.origin == origin => Taken::Changed,
                Some(_) => return Err(RegistryError::AlreadyRegistered(id)),
            };
            tools.insert(id, Kept { tool, came: Some(came) });
            Ok(taken)
        });
        request.registered(&result);
        result
    }

    /// What a connection registered.
    #[cfg(feature = "mcp")]
    pub(super) fn of_origin(&self, origin: Origin) -> Vec<ToolId> {
        let kept = self.kept();
        let own =
            kept.iter().filter(|(_, kept)| kept.came.is_some_and(|came| came.origin == origin));
        own.map(|(id, _)| id.clone()).collect()
    }

    fn kept(&self) -> RwLockReadGuard<'_, BTreeMap<ToolId, Kept>> {
        self.tools.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, tool: Arc<dyn Tool>) -> Result<(), RegistryError> {
        let request = Request::begin(tool.id().as_str(), "register");
        let result = request.span.in_scope(|| self.insert(tool));
        request.registered(&result);
        result
    }

    fn insert(&self, tool: Arc<dyn Tool>) -> Result<(), RegistryError> {
        let id = tool.id().clone();
        let tool = CheckedTool::new(tool)?;
        let mut tools = self.tools.write().unwrap_or_else(PoisonError::into_inner);
        if tools.contains_key(&id) {
            return Err(RegistryError::AlreadyRegistered(id));
        }
        tools.insert(id, Kept { tool: Arc::new(tool), came: None });
        Ok(())
    }

    /// [`register`](Self::register), for chaining.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn with(self, tool: impl Tool + 'static) -> Result<Self, RegistryError> {
        self.register(tool)?;
        Ok(self)
    }

    /// Takes a tool out, for one that its server no longer has; whether it was there. Calls that run
    /// go on.
    pub fn remove(&self, id: &ToolId) -> bool {
        self.tools.write().unwrap_or_else(PoisonError::into_inner).remove(id).is_some()
    }

    /// Adds all tools of another registry, which then are called here and run there.
    ///
    /// # Errors
    /// The first [`RegistryError`]; what was added before stays.
    pub async fn add_all(&self, other: &impl Registry) -> Result<usize, RegistryError> {
        let mut added = 0;
        for id in other.list().await? {
            if let Some(tool) = other.lookup(id.as_str()).await? {
                self.add(tool)?;
                added += 1;
            }
        }
        Ok(added)
    }

    /// The tool of an id (`web_search_v2`), or of a name alone (`web_search`) its highest version.
    pub fn lookup(&self, id: &str) -> Option<Arc<dyn Tool>> {
        let request = Request::begin(id, "lookup");
        let found = request.span.in_scope(|| self.find(id));
        request.looked_up(id, found.as_deref());
        found
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<dyn Tool>> {
        let tools = self.kept();
        let exact = id.parse::<ToolId>().ok().and_then(|id| tools.get(&id));
        let found = exact.or_else(|| newest(tools.keys(), id).and_then(|id| tools.get(id)));
        found.map(|kept| Arc::clone(&kept.tool))
    }

    /// The ids of all tools, in order.
    pub fn ids(&self) -> Vec<ToolId> {
        self.kept().keys().cloned().collect()
    }

    /// All tools as a chat request describes them to the model.
    pub fn definitions(&self) -> Vec<throughline_llm::Tool> {
        let tools = self.kept();
        tools
            .values()
            .map(|kept| &kept.tool)
            .map(|tool| throughline_llm::Tool {
                name: tool.id().to_string(),
                description: tool.description().to_owned(),
                parameters: tool.parameters(),
                is_strict: false,
            })
            .collect()
    }

    /// Looks up and runs the tool that a model asked for, in four steps: the arguments are judged by
    /// the tool's schema, the tool's view of the [`ContextBag`](crate::ContextBag) is made, the tool
    /// runs within its time, its result is judged. The span links to the model call that asked,
    /// where that is known: it is, when the call was [`Traced`](crate::Traced).
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
        let Some(tool) = self.lookup(&call.name) else {
            let known = self.ids().iter().map(ToString::to_string).collect();
            return Err(ToolError::Missing { id: call.name.clone(), known });
        };
        execute::execute(tool.as_ref(), call, asked_by).await
    }
}

impl Registry for ToolRegistry {
    fn register(&self, tool: Arc<dyn Tool>) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(ready(self.add(tool)))
    }

    fn lookup<'a>(
        &'a self,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Tool>>, RegistryError>> {
        Box::pin(ready(Ok(self.lookup(id))))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ToolId>, RegistryError>> {
        Box::pin(ready(Ok(self.ids())))
    }

    fn is_observed(&self) -> bool {
        true
    }
}

impl fmt::Debug for ToolRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.ids().iter().map(ToolId::as_str)).finish()
    }
}
