//! Tools that a model may ask for: what a tool is, the kinds of them, and the registry that finds and
//! runs them (requirement R4.1).

pub(crate) mod asked;
mod checked;
mod error;
mod execute;
pub(crate) mod from_macro;
mod function;
#[cfg(feature = "grpc")]
mod grpc;
mod http;
mod local;
#[cfg(feature = "mcp")]
mod mcp;
mod registry;
mod remote;
#[cfg(feature = "server")]
mod service;
mod subprocess;
mod template;
mod tool;
mod tool_id;
mod wire;

pub use error::{RegistryError, ToolError};
pub use execute::TOOL_CONTENT_MAX_BYTES;
pub(crate) use execute::error_text;
pub use function::{FunctionTool, Json, ToolOutput, tool};
#[cfg(feature = "grpc")]
pub use grpc::GrpcTool;
pub use http::{HTTP_TOOL_MAX_BYTES, HttpTool, HttpToolError};
pub use local::ToolRegistry;
#[cfg(feature = "mcp")]
pub use mcp::{
    MCP_CONNECT_TIMEOUT, MCP_INHERITED_VARIABLES, McpBuilder, McpError, McpServer, McpSync, McpTool,
};
pub use registry::{ObservedRegistry, Registry};
pub use remote::{HttpRegistry, REGISTRY_TIMEOUT};
#[cfg(feature = "server")]
pub use service::{TOOL_SERVICE_MAX_BYTES, ToolService};
pub use subprocess::{SUBPROCESS_STDERR_TAIL_BYTES, SUBPROCESS_STDOUT_MAX_BYTES, SubprocessTool};
pub use template::TemplateError;
pub use tool::{TOOL_TIMEOUT, Tool, ToolType};
pub use tool_id::{TOOL_ID_MAX_CHARS, ToolId, ToolIdError};
