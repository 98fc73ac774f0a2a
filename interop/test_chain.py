"""A -HTTP-> B -gRPC-> C -HTTP-> D is one trace, flags and tracestate intact (requirement R2.2); C is a Python
process with the official OpenTelemetry packages."""

import os
import secrets
import subprocess
import sys

import pytest
from conftest import ROOT, until
from grpc_tools import protoc

CHAIN = ROOT / "target" / "debug" / "chain"
PROTO = ROOT / "crates" / "sdk" / "proto"


def environment(server, **more):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "OPENAI_", "TRACE"))}
    return {**clean, "OTEL_EXPORTER_OTLP_ENDPOINT": server.otlp_http, **more}


class Member:
    """A process that says where it listens."""

    def __init__(self, server, *command):
        self.process = subprocess.Popen(
            [str(part) for part in command], env=environment(server), stdout=subprocess.PIPE, text=True,
        )
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), line
        self.url = line.removeprefix("listening on ").strip()


@pytest.fixture
def chain(server, tmp_path):
    made = protoc.main([
        "protoc", f"-I{PROTO}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}", str(PROTO / "agent.proto"),
    ])
    assert made == 0, "the .proto file compiles"
    d = Member(server, CHAIN, "d")
    c = Member(server, sys.executable, ROOT / "interop" / "chain_member.py", tmp_path, d.url)
    b = Member(server, CHAIN, "b", c.url)
    yield b
    for member in (b, c, d):
        member.process.terminate()
        member.process.wait(timeout=20)
        member.process.stdout.close()


def test_four_processes_are_one_trace(server, chain):
    trace_id, parent = secrets.token_hex(16), secrets.token_hex(8)
    a = subprocess.run(
        [CHAIN, "a", chain.url], timeout=60, capture_output=True, text=True,
        env=environment(server, TRACEPARENT=f"00-{trace_id}-{parent}-01", TRACESTATE="vendor=kept,other=too"),
    )
    assert a.returncode == 0, a.stderr

    def whole():
        seen = server.trace(trace_id)
        return seen if {span["service"] for span in seen["spans"]} == {"a", "b", "c", "d"} else None

    seen = until("spans of all four", whole)
    spans = {span["span_id"]: span for span in seen["spans"]}
    orphans = [span["name"] for span in spans.values() if span["parent_span_id"] not in {*spans, parent}]
    assert not orphans, f"every parent is there: {orphans}"

    def way(span):
        """The services from the top down to a span."""
        above = spans.get(span["parent_span_id"])
        before = way(above) if above else []
        return before if before and before[-1] == span["service"] else [*before, span["service"]]

    deepest = max((way(span) for span in spans.values()), key=len)
    assert deepest == ["a", "b", "c", "d"]
    states = {span["service"]: span.get("trace_state") for span in spans.values()}
    assert set(states.values()) == {"vendor=kept,other=too"}, states
