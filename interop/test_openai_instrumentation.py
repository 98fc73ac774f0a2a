"""`openai` with its OpenTelemetry instrumentation against the simulated provider: model, messages,
tokens and tools show in the trace."""

import os

import pytest
import requests
from openai import OpenAI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def tracers(provider):
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    tracers = TracerProvider()
    exporter = OTLPSpanExporter(endpoint=f"{provider.otlp_http}/v1/traces")
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    OpenAIInstrumentor().instrument(tracer_provider=tracers)
    yield tracers
    OpenAIInstrumentor().uninstrument()
    tracers.shutdown()


def ask(provider, tracers, **request):
    """One call inside a span of ours; answers the completion and the stored spans by name."""
    client = OpenAI(base_url=provider.provider, api_key="unused", max_retries=0)
    with tracers.get_tracer("interop").start_as_current_span("agent") as span:
        answer = client.chat.completions.create(**request)
        if request.get("stream"):
            answer = list(answer)
    trace_id = format(span.get_span_context().trace_id, "032x")
    return answer, provider.trace(trace_id)


def test_model_messages_tokens_and_tools_show(provider, tracers):
    answer, seen = ask(
        provider, tracers, model="gpt-4o-mini", tools=[WEATHER],
        messages=[
            {"role": "system", "content": "You are a weather assistant."},
            {"role": "user", "content": "What is the weather in Lisbon?"},
        ],
    )
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    [span] = [span for span in seen["spans"] if span["name"].startswith("chat ")]
    assert span["role"] == "llm_call"
    attributes = span["attributes"]
    assert attributes["gen_ai.request.model"] == "gpt-4o-mini"
    assert attributes["gen_ai.usage.input_tokens"] == answer.usage.prompt_tokens > 0
    assert attributes["gen_ai.usage.output_tokens"] == answer.usage.completion_tokens > 0
    text = str(attributes)
    assert "What is the weather in Lisbon?" in text and "get_weather" in text
    assert seen["summary"]["input_tokens"] == answer.usage.prompt_tokens
    assert seen["summary"]["cost_usd"] > 0
    page = requests.get(
        provider.url(f"/traces/{seen['summary']['trace_id']}/spans/{span['span_id']}"), timeout=10
    )
    assert page.status_code == 200
    assert "What is the weather in Lisbon?" in page.text and "get_weather" in page.text


def test_a_stream_shows_as_one_call(provider, tracers):
    chunks, seen = ask(
        provider, tracers, model="gpt-4o", stream=True,
        stream_options={"include_usage": True},
        messages=[{"role": "user", "content": "Say hello in five words."}],
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text
    [span] = [span for span in seen["spans"] if span["name"].startswith("chat ")]
    assert span["attributes"]["gen_ai.usage.output_tokens"] > 0
    assert text[:20] in str(span["attributes"]["gen_ai.output.messages"])
