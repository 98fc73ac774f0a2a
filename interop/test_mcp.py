"""The SDK's MCP tools against the official Python server: its spans hang below the tool's, over stdio and over
streamable HTTP (requirements R2.2, R2.3, R4.1)."""

import os
import subprocess
import sys

import pytest
import requests
from conftest import ROOT, free_ports, until

EXAMPLE = ROOT / "target" / "debug" / "mcp"
SERVER = ROOT / "interop" / "mcp_server.py"


def environment(server):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "OPENAI_", "TRACE"))}
    return {**clean, "OTEL_EXPORTER_OTLP_ENDPOINT": server.otlp_http}


@pytest.fixture(params=["stdio", "http"])
def reached_by(request, server):
    """How the example is told to reach the server."""
    if request.param == "stdio":
        yield [sys.executable, str(SERVER), "stdio"]
        return
    [port] = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, str(SERVER), "http", str(port)], env=environment(server), stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/mcp"

    def is_up():
        try:
            return requests.get(url, timeout=1).status_code > 0
        except requests.ConnectionError:
            return False

    until("the MCP server", is_up)
    yield [url]
    process.terminate()
    process.wait(timeout=20)


def test_the_servers_spans_join_the_trace(server, reached_by):
    ran = subprocess.run(
        [EXAMPLE, *reached_by], timeout=60, capture_output=True, text=True, env=environment(server),
    )
    assert ran.returncode == 0, ran.stderr
    [trace_id] = [line.removeprefix("trace ") for line in ran.stdout.splitlines() if line.startswith("trace ")]

    def whole():
        seen = server.trace(trace_id)
        return seen if "SELECT stock" in {span["name"] for span in seen["spans"]} else None

    spans = {span["span_id"]: span for span in until("the server's own span", whole)["spans"]}
    [query] = [span for span in spans.values() if span["name"] == "SELECT stock"]
    way = []
    while query:
        way.append(query["name"])
        query = spans.get(query["parent_span_id"])
    assert way[:2] == ["SELECT stock", "tools/call stock"], way
    assert "execute_tool stock_v2" in way and way[-1].startswith("invoke_agent "), way
