//! Tools that are gRPC methods: the trace and the context in the metadata (requirements R2.2, R2.3,
//! R4.1).

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use futures_util::future::BoxFuture;
use opentelemetry::Context;
use opentelemetry::trace::SpanKind;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use throughline_trace::{ErrorType, keys};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::error::ToolError;
use super::error_text;
use super::function::schema_of;
use super::tool::{TOOL_TIMEOUT, Tool, ToolType};
use super::tool_id::{ToolId, ToolIdError};
use crate::context_bag::{ContextBag, Need};
use crate::middleware::exchange::grpc_code_name;
use crate::propagation;
use crate::resilient::Fault as _;
use crate::span::{ActiveSpan, span};

/// A tool that is a unary gRPC method. The function is given the model's arguments and the metadata
/// to send: the trace, the allow-listed baggage, and what the tool declared that it needs.
///
/// ```
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use throughline::GrpcTool;
/// use tonic::metadata::MetadataMap;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Ask { item: u32 }
///
/// let stock = GrpcTool::new("stock_v1", "How many there are", "shop.Stock/Count",
///     |ask: Ask, metadata: MetadataMap| async move {
///         // let mut request = tonic::Request::new(CountRequest { item: ask.item });
///         // *request.metadata_mut() = metadata;
///         // let answer = client.clone().count(request).await?.into_inner();
///         let _ = metadata;
///         Ok::<_, tonic::Status>(ask.item)
///     })?;
/// # Ok::<(), throughline::ToolIdError>(())
/// ```
pub struct GrpcTool<F, A> {
    id: ToolId,
    description: String,
    method: String,
    needs: Vec<Need>,
    timeout: Duration,
    function: F,
    arguments: PhantomData<fn(A)>,
}

impl<F, A> GrpcTool<F, A> {
    /// A method by its full name, `package.Service/Method`, and what calls it.
    ///
    /// # Errors
    /// [`ToolIdError`] when the id cannot be a tool's, or has no version.
    pub fn new<Fut, T>(
        id: &str,
        description: impl Into<String>,
        method: impl Into<String>,
        function: F,
    ) -> Result<Self, ToolIdError>
    where
        F: Fn(A, MetadataMap) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Status>> + Send,
        T: Serialize + Send,
        A: DeserializeOwned + JsonSchema + Send,
    {
        Ok(Self {
            id: id.parse()?,
            description: description.into(),
            method: method.into(),
            needs: Vec::new(),
            timeout: TOOL_TIMEOUT,
            function,
            arguments: PhantomData,
        })
    }

    /// Declares the fields of the caller's [`ContextBag`] that the service needs.
    #[must_use]
    pub fn with_needs(mut self, needs: impl IntoIterator<Item = Need>) -> Self {
        self.needs = needs.into_iter().collect();
        self
    }

    /// Sets how long the method may take; [`TOOL_TIMEOUT`] when not said.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn metadata(&self) -> Result<MetadataMap, ToolError> {
        let mut metadata = MetadataMap::new();
        propagation::inject_metadata(&Context::current(), &mut metadata);
        let context = |error| ToolError::Context { id: self.id.to_string(), error };
        if let Some(bag) = ContextBag::to_send(self.id.as_str(), &self.needs).map_err(context)? {
            bag.inject_metadata(&mut metadata).map_err(context)?;
        }
        Ok(metadata)
    }

    fn span(&self) -> ActiveSpan {
        span(self.method.clone())
            .kind(SpanKind::Client)
            .attribute(keys::RPC_SYSTEM_NAME, "grpc")
            .attribute(keys::RPC_METHOD, self.method.clone())
            .start()
    }
}

/// Puts a failure onto the span of the call.
fn tell(span: &ActiveSpan, error: &ToolError) {
    if let Some(code) = error.code() {
        span.set(keys::ERROR_CODE, code.to_owned());
    }
    span.fail(error.error_type(), error_text(error));
}

/// A status as the tool's failure.
fn failed(status: &Status) -> ToolError {
    let kind = match status.code() {
        Code::DeadlineExceeded => ErrorType::Timeout,
        Code::Unavailable => ErrorType::Connection,
        Code::Cancelled => ErrorType::Cancelled,
        Code::Unauthenticated | Code::PermissionDenied => ErrorType::Auth,
        Code::ResourceExhausted => ErrorType::RateLimited,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented => ErrorType::InvalidRequest,
        _ => ErrorType::Server,
    };
    let code = format!("{:?}", status.code());
    let message = format!("expected an answer, got {code}: {}", status.message());
    ToolError::Code { kind, code, message }
}

impl<F, A, Fut, T> Tool for GrpcTool<F, A>
where
    F: Fn(A, MetadataMap) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, Status>> + Send,
    T: Serialize + Send,
    A: DeserializeOwned + JsonSchema + Send,
{
    fn id(&self) -> &ToolId {
        &self.id
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn parameters(&self) -> Value {
        schema_of::<A>()
    }

    fn needs(&self) -> &[Need] {
        &self.needs
    }

    fn tool_type(&self) -> ToolType {
        ToolType::Extension
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn call(&self, arguments: Value) -> BoxFuture<'_, Result<Value, ToolError>> {
        Box::pin(async move {
            let typed =
                A::deserialize(&arguments).map_err(|error| ToolError::InvalidArguments {
                    id: self.id.to_string(),
                    got: arguments.to_string(),
                    reason: error.to_string(),
                })?;
            let span = self.span();
            let asking = async {
                let answer = (self.function)(typed, self.metadata()?).await;
                let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
                span.set(keys::RPC_RESPONSE_STATUS_CODE, grpc_code_name(code as usize));
                Ok(serde_json::to_value(answer.map_err(|status| failed(&status))?)?)
            };
            let result: Result<Value, ToolError> = span.instrument(asking).await;
            result.inspect_err(|error| tell(&span, error))
        })
    }
}

impl<F, A> fmt::Debug for GrpcTool<F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcTool").field("id", &self.id.as_str()).finish_non_exhaustive()
    }
}
