//! Tools that a model may ask for: what a tool is, the kinds of them, and the registry that finds and
//! runs them (requirement R4.1).

pub(crate) mod asked;
mod checked;
mod error;
mod execute;
pub(crate) mod from_macro;
mod function;
mod http;
mod local;
mod registry;
mod subprocess;
mod template;
mod tool;
mod tool_id;

pub use error::{RegistryError, ToolError};
pub use execute::TOOL_CONTENT_MAX_BYTES;
pub(crate) use execute::error_text;
pub use function::{FunctionTool, Json, ToolOutput, tool};
pub use http::{HTTP_TOOL_MAX_BYTES, HttpTool, HttpToolError};
pub use local::ToolRegistry;
pub use registry::{ObservedRegistry, Registry};
pub use subprocess::{SUBPROCESS_STDERR_TAIL_BYTES, SUBPROCESS_STDOUT_MAX_BYTES, SubprocessTool};
pub use template::TemplateError;
pub use tool::{TOOL_TIMEOUT, Tool, ToolType};
pub use tool_id::{TOOL_ID_MAX_CHARS, ToolId, ToolIdError};
