//! A workflow: one piece of business from its beginning to its end, as the span that all else of it
//! hangs below.

use std::fmt::Display;

use opentelemetry::Context;
use throughline_trace::{ErrorType, SpanRole, keys};

use crate::SpanKind;
use crate::agent_notes::RunNotes;
use crate::dimensions::Dimensions;
use crate::metrics::{Outcome, Timed, What};
use crate::resilient::Fault;
use crate::resilient::attempt::FaultReport;
use crate::resilient::run::report_of;
use crate::span::{ActiveSpan, SpanBuilder, span};
use crate::watched::Watched;

/// The operation that a workflow is, in GenAI conventions and metrics.
const OPERATION: &str = "invoke_workflow";

/// A workflow of this name: the span `invoke_workflow {name}` around agents, tools and whatever else
/// the business takes.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use throughline::{AgentError, Dimensions, workflow};
///
/// let fulfilled: Result<u32, AgentError> = workflow("order_fulfilment")
///     .id("order-17")
///     .dimensions(Dimensions::new().session("customer-4"))
///     .run(async { Ok(3) })
///     .await;
/// assert_eq!(fulfilled, Ok(3));
/// # });
/// # std::io::Result::Ok(())
/// ```
pub fn workflow(name: impl Into<String>) -> Workflow {
    Workflow { name: name.into(), dimensions: Dimensions::new(), kind: SpanKind::Internal }
}

/// A workflow that has not begun.
#[derive(Debug, Clone)]
#[must_use = "a workflow begins with `run` or `start`"]
pub struct Workflow {
    name: String,
    dimensions: Dimensions,
    kind: SpanKind,
}

impl Workflow {
    /// `workflow_id` of everything below; that of the current context when not said, and the
    /// workflow's name when there is none.
    pub fn id(mut self, id: &str) -> Self {
        self.dimensions = self.dimensions.workflow(id);
        self
    }

    /// Whose work it is, for everything below. A workflow id among them counts as [`id`](Self::id).
    pub fn dimensions(mut self, dimensions: Dimensions) -> Self {
        self.dimensions = dimensions.over(&self.dimensions);
        self
    }

    /// The span's place between caller and callee; [`SpanKind::Internal`] when not said.
    pub fn kind(mut self, kind: SpanKind) -> Self {
        self.kind = kind;
        self
    }

    /// Does the work within the workflow's span. The outcome is that of the error, or
    /// `fallback_degraded` or `retry_succeeded` when something below took that, else `ok`; dropped
    /// half-way it is `cancelled`. It is counted as operation `invoke_workflow`.
    ///
    /// # Errors
    /// What the work fails with, also on the span.
    pub async fn run<T, E: Fault>(self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.run_described(report_of, work).await
    }

    /// [`run`](Self::run) for errors of any type: `classify` says what kind of failure each is.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_with<T, E: Display>(
        self,
        classify: impl Fn(&E) -> ErrorType,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let describe = |error: &E| FaultReport::new(classify(error), error.to_string());
        self.run_described(describe, work).await
    }

    async fn run_described<T, E>(
        self,
        describe: impl Fn(&E) -> FaultReport,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let notes = RunNotes::begin();
        let cx = notes.onto(&self.context());
        let whole = Watched::new(self.span().parent(cx).start(), Some(OPERATION));
        let whole_name = self.name.to_string();
        let mut timed = whole.span.in_scope(|| Timed::start(What::Workflow, whole_name));
        let result = whole.span.instrument(work).await;
        match &result {
            Ok(_) => whole.tell(notes.notable().unwrap_or(Outcome::Ok)),
            Err(error) => {
                let report = describe(error);
                timed.end(Some(report.error_type));
                whole.end(report.outcome, Some(&report));
            }
        }
        result
    }

    /// Starts the span alone, for work that is no single future: end and outcome are the caller's.
    pub fn start(self) -> ActiveSpan {
        self.span().parent(self.context()).start()
    }

    fn context(&self) -> Context {
        let now = Context::current();
        let dimensions = self.dimensions.over(&Dimensions::of(&now));
        match dimensions.workflow_id() {
            Some(_) => dimensions.onto(&now),
            None => dimensions.workflow(self.name.as_str()).onto(&now),
        }
    }

    fn span(&self) -> SpanBuilder {
        span(format!("{OPERATION} {}", self.name))
            .kind(self.kind.clone())
            .role(SpanRole::Workflow)
            .attribute(keys::GEN_AI_OPERATION_NAME, OPERATION)
            .attribute(keys::GEN_AI_WORKFLOW_NAME, self.name.clone())
    }
}
