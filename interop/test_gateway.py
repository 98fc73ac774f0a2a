"""The official `openai` package through the gateway, without instrumentation: one complete trace."""

import pytest
from openai import APIStatusError, OpenAI

from gateway_traces import context, spans_of

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


@pytest.fixture
def client(provider):
    """Pointed at the gateway; the gateway asks the simulated provider."""
    return OpenAI(base_url=provider.url("/v1"), api_key="unused", max_retries=0)


def test_a_conversation_with_a_tool_is_one_trace(provider, client):
    trace_id, headers = context()
    messages = [{"role": "user", "content": "What is the weather in Lisbon?"}]
    asked = client.chat.completions.create(
        model="gpt-4o-mini", tools=[WEATHER], messages=messages, extra_headers=headers)
    call = asked.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    messages += [
        asked.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees, sun"},
    ]
    stream = client.chat.completions.create(
        model="gpt-4o-mini", tools=[WEATHER], messages=messages, stream=True,
        extra_headers=headers)
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "18 degrees" in text
    assert all(chunk.usage is None for chunk in chunks)

    spans = spans_of(provider, trace_id, 4)
    calls = [span for span in spans if span["name"] == "chat gpt-4o-mini"]
    phases = [span["attributes"]["ai.phase"] for span in calls]
    assert sorted(phases) == ["observe", "plan"]
    for span in calls:
        attributes = span["attributes"]
        assert attributes["outcome"] == "ok"
        assert attributes["session_id"] == "s-interop"
        assert attributes["gen_ai.usage.output_tokens"] > 0
        assert attributes["throughline.cost_usd"] > 0
        assert attributes["gen_ai.provider.name"] == "simulated"
    names = sorted(span["name"] for span in spans)
    assert names[-2:] == ["http.stream.init", "http.stream.segment"]


def test_a_failure_is_an_error_of_the_client_and_told_in_the_trace(provider, client):
    trace_id, headers = context()
    with pytest.raises(APIStatusError) as raised:
        client.chat.completions.create(
            model="sim-server-error", messages=[{"role": "user", "content": "hi"}],
            extra_headers=headers)
    assert raised.value.status_code == 502
    assert raised.value.response.headers["x-trace-id"] == trace_id
    spans = spans_of(provider, trace_id, 4)
    attempts = [span for span in spans if span["name"] == "attempt sim-server-error"]
    assert len(attempts) == 3
    decision = raised.value.response.headers["x-decision-id"]
    told = provider.get(f"/api/v1/decisions/{decision}")["decision"]
    assert told["trace_id"] == trace_id


def test_a_stream_that_breaks_raises(provider, client):
    trace_id, headers = context()
    stream = client.chat.completions.create(
        model="sim-broken-connection", messages=[{"role": "user", "content": "hi"}],
        stream=True, extra_headers=headers)
    with pytest.raises(Exception, match="broke off"):
        list(stream)
    spans = spans_of(provider, trace_id, 3)
    [call] = [span for span in spans if span["name"] == "chat sim-broken-connection"]
    assert call["attributes"]["error.type"] == "STREAM_FAILED"


def test_models_and_embeddings(client):
    assert "gpt-4o" in [model.id for model in client.models.list()]
    answer = client.embeddings.create(model="text-embedding-3-small", input="hello")
    assert len(answer.data[0].embedding) == 1536
