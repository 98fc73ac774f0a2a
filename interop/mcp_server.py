"""The official Python MCP server with one tool, over stdio or streamable HTTP; its own OpenTelemetry spans join the
trace that comes in `params._meta`.

    python mcp_server.py stdio
    python mcp_server.py http PORT
"""

import sys

from mcp.server.mcpserver import MCPServer
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": "mcp-server"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)

server = MCPServer("stock", version="2.1.0")


@server.tool()
def stock(item: int) -> str:
    """How many of an item are left."""
    with trace.get_tracer("stock").start_as_current_span("SELECT stock"):
        return f"{item % 7} left"


if sys.argv[1] == "http":
    server.run("streamable-http", port=int(sys.argv[2]))
else:
    server.run("stdio")
