"""What the Python scenarios have in common: a provider of tracers, the agent's tool, versions."""

import json
from importlib.metadata import version

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}},
                       "required": ["city"]},
    },
}

MESSAGES = [
    {"role": "system", "content": "You are a weather assistant."},
    {"role": "user", "content": "What is the weather in Bern?"},
]


def tracers():
    """Exports every span on its own, as it ends."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def chat_twice(stream=False):
    """The conversation with the `openai` package: a tool call, its result, the answer."""
    from openai import OpenAI

    client = OpenAI(max_retries=0)
    messages = list(MESSAGES)
    ask = {"model": "gpt-4o-mini", "tools": [WEATHER], "temperature": 0.2, "max_tokens": 200}
    first = client.chat.completions.create(messages=messages, **ask).choices[0].message
    messages.append(first.model_dump(exclude_none=True))
    messages.append({"role": "tool", "tool_call_id": first.tool_calls[0].id,
                     "content": '{"celsius": 21}'})
    if stream:
        ask.update(stream=True, stream_options={"include_usage": True})
        return list(client.chat.completions.create(messages=messages, **ask))
    return client.chat.completions.create(messages=messages, **ask)


def langchain_agent(session=None):
    """The same conversation as a LangChain agent."""
    from langchain.agents import create_agent
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def get_weather(city: str) -> str:
        """Current weather of a city"""
        return '{"celsius": 21}'

    agent = create_agent(ChatOpenAI(model="gpt-4o-mini", temperature=0.2, max_retries=0),
                         tools=[get_weather], name="forecaster",
                         system_prompt="You are a weather assistant.")
    config = {"metadata": {"session_id": session, "thread_id": session}} if session else {}
    return agent.invoke({"messages": [{"role": "user",
                                       "content": "What is the weather in Bern?"}]}, config)


def captured(*packages):
    """Ends a scenario: tells what made the spans."""
    print(json.dumps({name: version(name) for name in packages}))
