"""A tool as a Python program: goes on with the trace of its environment, by the official package."""

import json
import os
import sys

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": "subprocess-child"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("child_tool")

carrier = {name.lower(): value for name, value in os.environ.items()}
with tracer.start_as_current_span("count words", context=propagate.extract(carrier)) as span:
    arguments = json.load(sys.stdin)
    context = json.loads(os.environ["THROUGHLINE_CONTEXT"])
    span.set_attribute("text.length", len(arguments["text"]))
    answer = {
        "words": len(arguments["text"].split()),
        "trace_id": trace.format_trace_id(span.get_span_context().trace_id),
        "session_id": context["session_id"],
        "fields": {name: field["value"] for name, field in context["fields"].items()},
    }
provider.shutdown()
json.dump(answer, sys.stdout)
