//! The registry in this process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

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

/// Tools by id, with their schemas compiled. Clones share them. Every request is observed as
/// [`ObservedRegistry`](super::ObservedRegistry) does it.
#[derive(Clone, Default)]
pub struct ToolRegistry {
    tools: Arc<RwLock<BTreeMap<ToolId, Arc<dyn Tool>>>>,
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
        tools.insert(id, Arc::new(tool));
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
        request.looked_up(id, found.is_some());
        found
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<dyn Tool>> {
        let tools = self.tools.read().unwrap_or_else(PoisonError::into_inner);
        let exact = id.parse::<ToolId>().ok().and_then(|id| tools.get(&id));
        exact.or_else(|| newest(tools.keys(), id).and_then(|id| tools.get(id))).cloned()
    }

    /// The ids of all tools, in order.
    pub fn ids(&self) -> Vec<ToolId> {
        self.tools.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// All tools as a chat request describes them to the model.
    pub fn definitions(&self) -> Vec<throughline_llm::Tool> {
        let tools = self.tools.read().unwrap_or_else(PoisonError::into_inner);
        tools
            .values()
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
