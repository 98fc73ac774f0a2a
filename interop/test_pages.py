"""The pages in Chromium: every page at two widths, light and dark, without errors, without
scrolling sideways, without a request to anywhere else; a model call's chat opens from the tree; a
trace of 5,000 spans and one of 60 levels open whole."""

import json
import subprocess
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import set_span_in_context

HERE = Path(__file__).resolve().parent

MESSAGES = [
    {"role": "user", "parts": [{"type": "text", "content": "What is the weather in Lisbon?"}]},
]
ANSWER = [
    {
        "role": "assistant", "finish_reason": "tool_call",
        "parts": [{"type": "tool_call", "id": "c1", "name": "get_weather", "arguments": {"city": "Lisbon"}}],
    },
]


@pytest.fixture(scope="module")
def traces(server):
    """A long, a deep and a talking trace; their ids."""
    tracers = TracerProvider(resource=Resource.create({"service.name": "pages"}))
    tracers.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(f"{server.otlp_http}/v1/traces"), max_queue_size=20_000)
    )
    tracer = tracers.get_tracer("interop")

    def trace_id(span):
        return format(span.get_span_context().trace_id, "032x")

    with tracer.start_as_current_span("invoke_agent batch") as long:
        for at in range(4_999):
            tracer.start_span(f"execute_tool item_{at % 7}", attributes={"item": at}).end()

    deep, below = tracer.start_span("level 1"), []
    inner = deep
    for level in range(2, 61):
        inner = tracer.start_span(f"level {level}", set_span_in_context(inner))
        below.append(inner)
    for span in (*reversed(below), deep):
        span.end()

    with tracer.start_as_current_span("invoke_agent weather") as chat:
        tracer.start_span(
            "chat gpt-4o-mini",
            attributes={
                "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini",
                "gen_ai.usage.input_tokens": 20, "gen_ai.usage.output_tokens": 9,
                "gen_ai.input.messages": json.dumps(MESSAGES),
                "gen_ai.output.messages": json.dumps(ANSWER),
            },
        ).end()
    tracers.shutdown()
    return [trace_id(span) for span in (long, deep, chat)]


def test_every_page_in_chromium(server, traces):
    done = subprocess.run(
        ["node", "pages.js", server.url(""), *traces],
        cwd=HERE, capture_output=True, text=True, timeout=240, check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    print(told)
    assert told["problems"] == []
