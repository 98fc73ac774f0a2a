//! Tools of MCP servers, over standard input and output or streamable HTTP, through the official
//! client (requirements R2.2, R2.3, R4.1).

mod builder;
mod server;
mod session;
mod tool;

pub use builder::{MCP_INHERITED_VARIABLES, McpBuilder};
pub use server::{MCP_CONNECT_TIMEOUT, McpError, McpServer, McpSync};
pub use tool::McpTool;
