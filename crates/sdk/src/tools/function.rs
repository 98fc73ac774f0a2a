//! Tools made from typed async functions.

use std::fmt::{self, Display};
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ToolError;
use super::tool::{TOOL_TIMEOUT, Tool};
use super::tool_id::{ToolId, ToolIdError};
use crate::context_bag::Need;

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
    Ok(FunctionTool::made(id.parse()?, description.into(), function))
}

/// A tool made from an async function: see [`tool`].
pub struct FunctionTool<F, A> {
    id: ToolId,
    description: String,
    timeout: Duration,
    needs: Vec<Need>,
    function: F,
    arguments: PhantomData<fn(A)>,
}

impl<F, A> FunctionTool<F, A> {
    pub(super) fn made(id: ToolId, description: String, function: F) -> Self {
        Self {
            id,
            description,
            timeout: TOOL_TIMEOUT,
            needs: Vec::new(),
            function,
            arguments: PhantomData,
        }
    }

    /// Sets how long the tool may run; [`TOOL_TIMEOUT`] when not said.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Declares the fields of the caller's [`ContextBag`](crate::ContextBag) that the function reads
    /// with [`ContextBag::current`](crate::ContextBag::current).
    #[must_use]
    pub fn with_needs(mut self, needs: impl IntoIterator<Item = Need>) -> Self {
        self.needs = needs.into_iter().collect();
        self
    }
}

impl<F, A> fmt::Debug for FunctionTool<F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionTool").field("id", &self.id.as_str()).finish_non_exhaustive()
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
        schema_of::<A>()
    }

    fn needs(&self) -> &[Need] {
        &self.needs
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn call(&self, arguments: Value) -> BoxFuture<'_, Result<Value, ToolError>> {
        let is_empty = arguments.as_object().is_some_and(serde_json::Map::is_empty);
        let typed = A::deserialize(&arguments)
            .or_else(|error| match is_empty {
                // What a function of `()` is called with.
                true => A::deserialize(Value::Null).map_err(|_| error),
                false => Err(error),
            })
            .map_err(|error| ToolError::InvalidArguments {
                id: self.id.to_string(),
                got: arguments.to_string(),
                reason: error.to_string(),
            });
        Box::pin(async move { (self.function)(typed?).await.into_answer() })
    }
}

/// The schema of arguments of this type, as providers want it.
pub(super) fn schema_of<A: JsonSchema>() -> Value {
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
        if object.get("type").is_some_and(|kind| kind == "null") {
            object.remove("type");
        }
        object.entry("type").or_insert_with(|| "object".into());
        object.entry("properties").or_insert_with(|| serde_json::json!({}));
    }
    schema
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use throughline_trace::ErrorType;

    use super::*;
    use crate::resilient::Fault;

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
