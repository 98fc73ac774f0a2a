//! Tools that a model may ask for: named with their version, described by a JSON Schema, made from
//! typed async functions (requirement R4.1).

use std::any::Any;
use std::fmt::{self, Display};
use std::future::Future;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use throughline_trace::ErrorType;

use crate::resilient::Fault;

/// How long a tool may run when it does not say otherwise.
pub const TOOL_TIMEOUT: Duration = Duration::from_secs(60);

/// Characters of a tool id at most, so that every provider takes it as the name of a function.
pub const TOOL_ID_MAX_CHARS: usize = 64;

/// A tool's name and version, written `web_search_v2` (requirement R2.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ToolId {
    name: String,
    version: u32,
    text: String,
}

/// Why a text is no tool id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a tool name of a-z, A-Z, 0-9, '_' and '-' with its version (web_search_v2), at most {TOOL_ID_MAX_CHARS} characters, got {0:?}"
)]
pub struct ToolIdError(String);

impl ToolId {
    /// The id of a name and a version.
    ///
    /// # Errors
    /// [`ToolIdError`] when the name is empty, too long or has other characters.
    pub fn new(name: &str, version: u32) -> Result<Self, ToolIdError> {
        let text = format!("{name}_v{version}");
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || text.len() > TOOL_ID_MAX_CHARS || !name.chars().all(fits) {
            return Err(ToolIdError(text));
        }
        Ok(Self { name: name.to_owned(), version, text })
    }

    /// The name without the version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Name and version: `web_search_v2`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ToolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ToolId {
    type Err = ToolIdError;

    fn from_str(text: &str) -> Result<Self, ToolIdError> {
        let wrong = || ToolIdError(text.to_owned());
        let (name, version) = text.rsplit_once("_v").ok_or_else(wrong)?;
        let version: u32 = version.parse().map_err(|_| wrong())?;
        // `web_search_v02` would be another spelling of the same id.
        Self::new(name, version).ok().filter(|id| id.text == text).ok_or_else(wrong)
    }
}

/// Why a tool gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// No tool of that id is registered.
    #[error("expected a registered tool ({}), got {id:?}", known_text(.known))]
    Missing {
        /// What was asked for.
        id: String,
        /// What is registered.
        known: Vec<String>,
    },
    /// The arguments do not fit the tool's schema.
    #[error("expected arguments that fit the schema of {id}, got {got}: {reason}")]
    InvalidArguments {
        /// The tool.
        id: String,
        /// The arguments, as JSON text.
        got: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The tool did not answer in time.
    #[error("expected {id} to answer within {} ms, got nothing; give it more time or less to do", .after.as_millis())]
    Timeout {
        /// The tool.
        id: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The tool says that it failed.
    #[error("{0}")]
    Failed(String),
    /// The tool failed in a way that it can name.
    #[error("{message}")]
    Kind {
        /// What kind of failure.
        kind: ErrorType,
        /// For people.
        message: String,
    },
}

fn known_text(known: &[String]) -> String {
    if known.is_empty() { "none is".to_owned() } else { known.join(", ") }
}

impl ToolError {
    /// A failure of a kind that the tool knows (its database timed out, its provider refused).
    pub fn kind(kind: ErrorType, message: impl Into<String>) -> Self {
        Self::Kind { kind, message: message.into() }
    }

    /// A failure that says its kind itself: `.map_err(ToolError::fault)` keeps it.
    pub fn fault(fault: impl Fault) -> Self {
        Self::kind(fault.error_type(), fault.to_string())
    }

    /// What a tool's function failed with: its own [`ToolError`], or else [`ToolError::Failed`].
    fn of<E: Display + 'static>(error: E) -> Self {
        match (&error as &dyn Any).downcast_ref::<Self>() {
            Some(own) => own.clone(),
            // The alternate form of an error with a chain is the whole chain.
            None => Self::Failed(format!("{error:#}")),
        }
    }
}

impl Fault for ToolError {
    fn error_type(&self) -> ErrorType {
        match self {
            Self::Missing { .. } => ErrorType::ToolMissing,
            Self::InvalidArguments { .. } => ErrorType::InvalidArguments,
            Self::Timeout { .. } => ErrorType::Timeout,
            Self::Failed(_) => ErrorType::ToolFailed,
            Self::Kind { kind, .. } => *kind,
        }
    }
}

impl From<String> for ToolError {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl From<&str> for ToolError {
    fn from(message: &str) -> Self {
        Self::Failed(message.to_owned())
    }
}

impl From<Box<dyn std::error::Error + Send + Sync>> for ToolError {
    fn from(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<std::io::Error> for ToolError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<serde_json::Error> for ToolError {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Something that a model may ask for. Usually made with [`tool`].
pub trait Tool: Send + Sync {
    /// Name and version.
    fn id(&self) -> &ToolId;

    /// What the tool does, for the model.
    fn description(&self) -> &str;

    /// JSON Schema of the arguments: an object.
    fn parameters(&self) -> Value;

    /// How long the tool may run.
    fn timeout(&self) -> Duration {
        TOOL_TIMEOUT
    }

    /// Runs the tool. Called within the tool's span.
    ///
    /// # Errors
    /// [`ToolError::InvalidArguments`] when the arguments do not fit, anything else when it fails.
    fn call(&self, arguments: Value) -> BoxFuture<'_, Result<Value, ToolError>>;
}

/// What the function of a [`tool`] answers: a `Result`, or [`Json`] when it cannot fail. An error
/// may be anything with a text: a [`ToolError`] keeps its kind, others become
/// [`ToolError::Failed`]. [`ToolError::fault`] makes one of an error that knows its kind.
pub trait ToolOutput: Send {
    /// The answer for the model.
    ///
    /// # Errors
    /// [`ToolError`], when the function failed.
    fn into_answer(self) -> Result<Value, ToolError>;
}

/// The answer of a tool that cannot fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Json<T>(pub T);

impl<T: Serialize + Send> ToolOutput for Json<T> {
    fn into_answer(self) -> Result<Value, ToolError> {
        Ok(serde_json::to_value(self.0)?)
    }
}

impl<T: Serialize + Send, E: Display + Send + 'static> ToolOutput for Result<T, E> {
    fn into_answer(self) -> Result<Value, ToolError> {
        Ok(serde_json::to_value(self.map_err(ToolError::of)?)?)
    }
}

/// A tool of this id, name and version (`web_search_v2`), made from an async function; the schema of
/// its arguments comes from their type, its answer is a [`ToolOutput`].
///
/// ```
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use throughline::{Json, tool};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Lookup {
///     /// The item's number.
///     item: u32,
/// }
///
/// let stock = tool("stock_v1", "How many of an item there are", |ask: Lookup| async move {
///     if ask.item == 0 { Err("there is no item 0") } else { Ok(12) }
/// })?;
/// let shelf = tool("shelf_v1", "Where an item is", |ask: Lookup| async move { Json(ask.item / 9) })?;
/// assert_eq!(throughline::Tool::id(&stock).version(), 1);
/// # Ok::<(), throughline::ToolIdError>(())
/// ```
///
/// # Errors
/// [`ToolIdError`] when the id cannot be a tool's, or has no version.
pub fn tool<F, A, Fut>(
    id: &str,
    description: impl Into<String>,
    function: F,
) -> Result<FunctionTool<F, A>, ToolIdError>
where
    F: Fn(A) -> Fut + Send + Sync,
    A: DeserializeOwned + JsonSchema + Send,
    Fut: Future<Output: ToolOutput> + Send,
{
    Ok(FunctionTool {
        id: id.parse()?,
        description: description.into(),
        timeout: TOOL_TIMEOUT,
        function,
        arguments: PhantomData,
    })
}

/// A tool made from an async function: see [`tool`].
pub struct FunctionTool<F, A> {
    id: ToolId,
    description: String,
    timeout: Duration,
    function: F,
    arguments: PhantomData<fn(A)>,
}

impl<F, A> FunctionTool<F, A> {
    /// Sets how long the tool may run; [`TOOL_TIMEOUT`] when not said.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl<F, A> fmt::Debug for FunctionTool<F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionTool").field("id", &self.id.text).finish_non_exhaustive()
    }
}

impl<F, A, Fut> Tool for FunctionTool<F, A>
where
    F: Fn(A) -> Fut + Send + Sync,
    A: DeserializeOwned + JsonSchema + Send,
    Fut: Future<Output: ToolOutput> + Send,
{
    fn id(&self) -> &ToolId {
        &self.id
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn parameters(&self) -> Value {
        let schema = schemars::generate::SchemaSettings::draft07()
            .with(|settings| {
                // Providers want the whole schema in place, and no word on its dialect.
                settings.inline_subschemas = true;
                settings.meta_schema = None;
            })
            .into_generator()
            .into_root_schema_for::<A>();
        let mut schema = schema.to_value();
        if let Some(object) = schema.as_object_mut() {
            object.remove("title");
            // A function without arguments takes an empty object.
            object.entry("type").or_insert_with(|| "object".into());
            object.entry("properties").or_insert_with(|| serde_json::json!({}));
        }
        schema
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn call(&self, arguments: Value) -> BoxFuture<'_, Result<Value, ToolError>> {
        let typed = A::deserialize(&arguments).map_err(|error| ToolError::InvalidArguments {
            id: self.id.text.clone(),
            got: arguments.to_string(),
            reason: error.to_string(),
        });
        Box::pin(async move { (self.function)(typed?).await.into_answer() })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let id: ToolId = "web_search_v2".parse().expect("an id");
        assert_eq!((id.name(), id.version(), id.as_str()), ("web_search", 2, "web_search_v2"));
        for wrong in
            ["web_search", "_v2", "web search_v2", "web_search_v02", "web_search_v", "ü_v1"]
        {
            assert!(wrong.parse::<ToolId>().is_err(), "{wrong}");
        }
        assert!(ToolId::new(&"x".repeat(TOOL_ID_MAX_CHARS), 1).is_err());
    }

    #[derive(Deserialize, JsonSchema)]
    struct Search {
        /// What to look for.
        query: String,
        limit: Option<u8>,
    }

    #[test]
    fn the_schema_comes_from_the_type() {
        let tool =
            tool("web_search_v2", "Searches", |search: Search| async move { Json(search.query) })
                .expect("a tool");
        insta::assert_snapshot!(tool.parameters(), @r#"{"properties":{"limit":{"format":"uint8","maximum":255,"minimum":0,"type":["integer","null"]},"query":{"description":"What to look for.","type":"string"}},"required":["query"],"type":"object"}"#);
    }

    #[tokio::test]
    async fn wrong_arguments_are_explained() {
        let tool = tool("web_search_v2", "Searches", |search: Search| async move {
            Json((search.query, search.limit))
        })
        .expect("a tool");
        let result = tool.call(serde_json::json!({"query": "rust", "limit": 3})).await;
        assert_eq!(result, Ok(serde_json::json!(["rust", 3])));
        let error = tool.call(serde_json::json!({"limit": 3})).await.expect_err("no query");
        assert_eq!(error.error_type(), ErrorType::InvalidArguments);
        insta::assert_snapshot!(error, @r#"expected arguments that fit the schema of web_search_v2, got {"limit":3}: missing field `query`"#);
    }

    #[test]
    fn an_id_without_a_version_is_refused() {
        let error =
            tool("web_search", "Searches", |_: Search| async { Json(1) }).expect_err("none");
        insta::assert_snapshot!(error, @r#"expected a tool name of a-z, A-Z, 0-9, '_' and '-' with its version (web_search_v2), at most 64 characters, got "web_search""#);
    }

    #[tokio::test]
    async fn errors_of_any_type_keep_what_they_know() {
        struct Down;
        impl Display for Down {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the index is down")
            }
        }
        impl Fault for Down {
            fn error_type(&self) -> ErrorType {
                ErrorType::Server
            }
        }
        async fn failure<E: Display + Clone + Send + Sync + 'static>(error: E) -> ToolError {
            let tool = tool("web_search_v2", "Searches", move |_: Search| {
                let error = error.clone();
                async move { Err::<u8, _>(error) }
            });
            let asked = serde_json::json!({"query": "rust"});
            tool.expect("a tool").call(asked).await.expect_err("it fails")
        }
        let of_io = std::sync::Arc::new(std::io::Error::other("disk full"));
        assert_eq!(failure(of_io).await, ToolError::Failed("disk full".to_owned()));
        assert_eq!(failure("no index").await, ToolError::Failed("no index".to_owned()));
        let down = failure(ToolError::fault(Down)).await;
        assert_eq!(down, ToolError::kind(ErrorType::Server, "the index is down"));
    }
}
