"""An agent of pydantic-ai through Logfire's SDK, which also sends pending spans while they run."""

from setup import captured

import logfire
from logfire._internal.tracer import PendingSpanProcessor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from pydantic_ai import Agent

# Logfire exports ended spans to OTEL_EXPORTER_OTLP_ENDPOINT by itself, pending ones only to its
# own service: hence the processor that it uses there.
logfire.configure(
    send_to_logfire=False, console=False, inspect_arguments=False, service_name="weather",
    additional_span_processors=[
        PendingSpanProcessor(RandomIdGenerator(), SimpleSpanProcessor(OTLPSpanExporter()))],
)
logfire.instrument_pydantic_ai()
logfire.instrument_openai()
agent = Agent("openai-chat:gpt-4o-mini", name="forecaster",
              system_prompt="You are a weather assistant.")


@agent.tool_plain
def get_weather(city: str) -> dict:
    """Current weather of a city"""
    return {"celsius": 21}


agent.run_sync("What is the weather in Bern?")
logfire.shutdown()
captured("pydantic-ai-slim", "logfire", "openai")
