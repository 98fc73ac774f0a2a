//! Plugins, trace-aware by type (requirement R1.4): what hooks into a run cannot lose its trace.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use opentelemetry::Context;
use serde_json::Value;
use throughline_llm::{ChatRequest, ChatResponse, Message, ToolCall};
use throughline_trace::{ErrorType, keys};
use tokio::runtime::Handle;

use super::{AgentError, AgentRun, Definition};
use crate::span::{ActiveSpan, span};
use crate::task::Origin;
use crate::tools::ToolError;

/// How long a hook of a plugin may take. Then it is dropped, its span says `TIMEOUT`, and the run
/// goes on.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// What a hook does: made by [`PluginScope`] alone, so that it is always within the trace.
#[must_use = "a hook returns it"]
pub struct Hook<'a> {
    work: Option<(ActiveSpan, BoxFuture<'a, ()>)>,
}

impl std::fmt::Debug for Hook<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hook").field("has_work", &self.work.is_some()).finish()
    }
}

/// The run that a hook is called from. There is no other way to make a [`Hook`].
#[derive(Debug)]
pub struct PluginScope {
    agent: String,
    plugin: String,
    hook: &'static str,
    origin: Origin,
    runtime: Option<Handle>,
}

impl PluginScope {
    fn new(definition: &Definition, plugin: &dyn TracerAware, hook: &'static str) -> Self {
        Self {
            agent: definition.name.clone(),
            plugin: plugin.name().to_owned(),
            hook,
            origin: Origin::here(),
            runtime: Handle::try_current().ok(),
        }
    }

    /// The agent whose run it is.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// The context of the run, for what is called by hand.
    pub fn context(&self) -> &Context {
        self.origin.context()
    }

    /// This work, within a span `plugin {name}.{hook}` below the step that it belongs to.
    pub fn run<'a>(&self, work: impl Future<Output = ()> + Send + 'a) -> Hook<'a> {
        let span = span(format!("plugin {}.{}", self.plugin, self.hook))
            .attribute(keys::PLUGIN, self.plugin.clone())
            .parent(self.context().clone())
            .start();
        Hook { work: Some((span, Box::pin(work))) }
    }

    /// Nothing is to be done here.
    pub fn pass<'a>(&self) -> Hook<'a> {
        Hook { work: None }
    }

    /// Work that goes on after the hook, on a task of its own that carries the trace.
    #[expect(clippy::disallowed_methods, reason = "it carries the surroundings of the run")]
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(self.origin.clone().detached().carry(work));
        }
    }
}

/// A plugin: hooks into an agent's run, aware of its trace by type. What a hook does it gives to the
/// [`PluginScope`], which puts it on the trace; nothing else makes the [`Hook`] that it returns.
///
/// ```
/// use throughline::{Hook, PluginScope, ToolCall, TracerAware};
///
/// /// Writes down which tools are used.
/// struct Usage;
///
/// impl TracerAware for Usage {
///     fn name(&self) -> &str {
///         "usage"
///     }
///
///     fn before_tool<'a>(&'a self, scope: &'a PluginScope, call: &'a ToolCall) -> Hook<'a> {
///         scope.run(async move { tracing::info!(tool = %call.name, "a tool is used") })
///     }
/// }
/// ```
///
/// A type that is not aware cannot be registered:
///
/// ```compile_fail,E0277
/// # use throughline::{Agent, AgentBuilder};
/// struct Unaware;
/// fn register(builder: AgentBuilder) -> AgentBuilder {
///     builder.plugin(Unaware)
/// }
/// ```
///
/// A hook cannot return work that is not on the trace:
///
/// ```compile_fail,E0308
/// # use throughline::llm::ToolCall;
/// # use throughline::{Hook, PluginScope, TracerAware};
/// struct Loses;
/// impl TracerAware for Loses {
///     fn name(&self) -> &str {
///         "loses"
///     }
///     fn before_tool<'a>(&'a self, _: &'a PluginScope, _: &'a ToolCall) -> Hook<'a> {
///         Box::pin(async { tracing::info!("of which trace?") })
///     }
/// }
/// ```
pub trait TracerAware: Send + Sync {
    /// Name of the plugin, on its spans.
    fn name(&self) -> &str;

    /// A run has begun with these messages, what memory gave included.
    fn on_run_start<'a>(&'a self, scope: &'a PluginScope, messages: &'a [Message]) -> Hook<'a> {
        let _ = messages;
        scope.pass()
    }

    /// The model is about to be asked. The request may be changed; policies see the changed one.
    fn before_model<'a>(
        &'a self,
        scope: &'a PluginScope,
        request: &'a mut ChatRequest,
    ) -> Hook<'a> {
        let _ = request;
        scope.pass()
    }

    /// The model has answered.
    fn after_model<'a>(&'a self, scope: &'a PluginScope, response: &'a ChatResponse) -> Hook<'a> {
        let _ = response;
        scope.pass()
    }

    /// A tool is about to be run, allowed by the policies.
    fn before_tool<'a>(&'a self, scope: &'a PluginScope, call: &'a ToolCall) -> Hook<'a> {
        let _ = call;
        scope.pass()
    }

    /// A tool has been run.
    fn after_tool<'a>(
        &'a self,
        scope: &'a PluginScope,
        call: &'a ToolCall,
        result: Result<&'a Value, &'a ToolError>,
    ) -> Hook<'a> {
        let _ = (call, result);
        scope.pass()
    }

    /// The run came to an answer, allowed by the policies.
    fn on_answer<'a>(&'a self, scope: &'a PluginScope, run: &'a AgentRun) -> Hook<'a> {
        let _ = run;
        scope.pass()
    }

    /// The run failed. A run that is dropped or cancelled calls no hook.
    fn on_error<'a>(&'a self, scope: &'a PluginScope, error: &'a AgentError) -> Hook<'a> {
        let _ = error;
        scope.pass()
    }
}

/// Where in a run the plugins are called.
pub(super) enum Moment<'a> {
    RunStart(&'a [Message]),
    AfterModel(&'a ChatResponse),
    BeforeTool(&'a ToolCall),
    AfterTool(&'a ToolCall, Result<&'a Value, &'a ToolError>),
    Answer(&'a AgentRun),
    Error(&'a AgentError),
}

impl Moment<'_> {
    fn hook(&self) -> &'static str {
        match self {
            Self::RunStart(_) => "on_run_start",
            Self::AfterModel(_) => "after_model",
            Self::BeforeTool(_) => "before_tool",
            Self::AfterTool(..) => "after_tool",
            Self::Answer(_) => "on_answer",
            Self::Error(_) => "on_error",
        }
    }
}

/// Calls this hook of all plugins, one after the other.
pub(super) async fn tell(definition: &Definition, moment: Moment<'_>) {
    for plugin in &definition.plugins {
        let plugin: &dyn TracerAware = plugin.as_ref();
        let scope = PluginScope::new(definition, plugin, moment.hook());
        let hook = match &moment {
            Moment::RunStart(messages) => plugin.on_run_start(&scope, messages),
            Moment::AfterModel(response) => plugin.after_model(&scope, response),
            Moment::BeforeTool(call) => plugin.before_tool(&scope, call),
            Moment::AfterTool(call, result) => plugin.after_tool(&scope, call, *result),
            Moment::Answer(run) => plugin.on_answer(&scope, run),
            Moment::Error(error) => plugin.on_error(&scope, error),
        };
        drive(hook).await;
    }
}

/// Lets all plugins see, and change, what the model is to be asked.
pub(super) async fn before_model(definition: &Definition, request: &mut ChatRequest) {
    for plugin in &definition.plugins {
        let plugin: &Arc<dyn TracerAware> = plugin;
        let scope = PluginScope::new(definition, plugin.as_ref(), "before_model");
        drive(plugin.before_model(&scope, request)).await;
    }
}

async fn drive(hook: Hook<'_>) {
    let Some((span, work)) = hook.work else { return };
    if tokio::time::timeout(HOOK_TIMEOUT, span.instrument(work)).await.is_err() {
        let late = format!("expected the hook within {} s", HOOK_TIMEOUT.as_secs());
        span.fail(ErrorType::Timeout, late);
    }
}
