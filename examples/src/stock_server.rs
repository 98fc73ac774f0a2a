//! An MCP server with one tool, on the official library and with nothing of Throughline's in it.

use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, ServiceExt as _};
use serde_json::json;

/// Knows how many of each item there are.
#[derive(Debug, Clone, Copy)]
pub struct StockServer;

impl StockServer {
    /// Answers on standard input and output until the other side hangs up.
    ///
    /// # Errors
    /// When the other side does not speak MCP.
    pub async fn serve_stdio(self) -> anyhow::Result<()> {
        self.serve((tokio::io::stdin(), tokio::io::stdout())).await?.waiting().await?;
        Ok(())
    }
}

impl ServerHandler for StockServer {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("stock", "2.1.0"))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({
            "type": "object",
            "properties": {"item": {"type": "integer", "description": "The item's number."}},
            "required": ["item"],
        });
        let schema = schema.as_object().cloned().unwrap_or_default();
        let tool = Tool::new("stock", "How many of an item are left", Arc::new(schema));
        Ok(ListToolsResult::with_all_items(vec![tool]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let item = request.arguments.as_ref().and_then(|arguments| arguments.get("item"));
        let Some(item) = item.and_then(serde_json::Value::as_u64) else {
            return Err(ErrorData::invalid_params("expected the number of an item", None));
        };
        let text = ContentBlock::text(format!("{} left", item % 7));
        Ok(CallToolResponse::Complete(CallToolResult::success(vec![text])))
    }
}
